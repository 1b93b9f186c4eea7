"""What every request passes before and around its route: connections, guards, keys, pictures."""
