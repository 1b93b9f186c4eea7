"""Re-rankers to compare with, each a `model.evaluation.retrieval.Scorer`."""
