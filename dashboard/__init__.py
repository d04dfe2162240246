"""Shows; numbers are never born here."""
