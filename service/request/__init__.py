"""What handles every request before and around its route: connections, guards, keys, pictures."""
