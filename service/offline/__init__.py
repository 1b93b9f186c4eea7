"""Many lists re-ranked from descriptor files, without a server or a store."""
