"""Metrics, benchmarks and baselines."""
