"""Errors of the dashboard.

PictureError    a picture cannot be drawn on this machine
PageError       a page has no place for its tables
RunError        a testbed's run or profile failed
"""


class PictureError(Exception):
    """No browser to draw with. One line: value, limit, next step."""

    exit_code = 5


class PageError(Exception):
    """A page without the markers of its tables. One line: value, limit, next step."""

    exit_code = 2


class RunError(Exception):
    """A command that the comparison needs has failed; what it said last."""

    exit_code = 1
