"""The page at `/`: its files, and the routes under /page/ that they call. None of it is part of the
HTTP contract: see docs/page.md."""
