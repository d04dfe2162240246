"""Errors of the contract.

TraceError                  a file cannot be used; the message says where, what, and what to do
|- TraceFormatError         not a trace: wrong kind, unknown key, bad value (row, column, value named)
`- TraceIntegrityError      the content does not match the hash that was written with it
"""


class TraceError(Exception):
    """A trace file cannot be used. One line: path, value, limit, next step."""

    exit_code = 2


class TraceFormatError(TraceError):
    """The content breaks the format."""


class TraceIntegrityError(TraceError):
    """The content is not what was written: the stored sha256 differs."""
