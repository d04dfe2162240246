"""A wall clock that jumps back and forth by up to a month. Python imports this at start where it finds it."""

import itertools
import time

_JUMPS_S = itertools.cycle((0, 86_400, -2_592_000, 3_600, -60))
_time, _time_ns = time.time, time.time_ns

time.time = lambda: _time() + next(_JUMPS_S)
time.time_ns = lambda: _time_ns() + next(_JUMPS_S) * 10**9
