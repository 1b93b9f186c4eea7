"""The sample gallery: how it is made, where it lies, and what the page shows of it."""
