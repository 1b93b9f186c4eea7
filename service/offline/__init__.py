"""Re-ranks many lists from descriptor files, without a server or a store."""
