"""The model, in a process of its own."""
