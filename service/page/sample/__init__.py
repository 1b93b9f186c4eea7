"""The sample gallery: its making, its folders, and what the page shows of it."""
