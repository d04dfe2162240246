"""Importers: logs, counters and published curves of other systems, read into traces."""
