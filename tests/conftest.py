"""Settings of all tests."""

from hypothesis import settings

# The same examples on every run: a test fails because of a change, not because of a draw.
settings.register_profile("bebop", deadline=None, derandomize=True, database=None)
settings.load_profile("bebop")
