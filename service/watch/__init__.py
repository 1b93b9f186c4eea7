"""What is told of a running service: metrics, logs, traces."""
