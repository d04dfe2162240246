"""Errors of the dashboard.

PictureError    a picture cannot be drawn on this machine
"""


class PictureError(Exception):
    """No browser to draw with. One line: value, limit, next step."""

    exit_code = 5
