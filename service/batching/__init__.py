"""Windows of many requests, gathered into forward passes."""
