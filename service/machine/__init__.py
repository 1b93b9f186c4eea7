"""What this process may take of its machine: cores, memory, priority."""
