"""Importers: logs, counters and published curves of other systems, read into traces."""

from traces.importers.log import read_log

__all__ = ["read_log"]
