"""The page at `/`: its files, and what they ask for under /page/. None of it is part of the HTTP
contract: see docs/page.md."""
