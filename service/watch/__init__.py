"""What a running service reports: metrics, logs, traces."""
