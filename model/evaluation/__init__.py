"""Metrics, benchmarks and the baselines that a re-ranker is measured against."""
