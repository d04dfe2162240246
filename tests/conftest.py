"""Settings of all tests."""

import signal

from hypothesis import settings

# The same examples on every run: a test fails because of a change, not because of a draw.
settings.register_profile("bebop", deadline=None, derandomize=True, database=None)
settings.load_profile("bebop")

# A shell that starts the tests in the background has SIGINT ignored, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
