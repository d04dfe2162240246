"""Errors of the profiler.

ProfilerError               base; the message is one line: value, limit, next step
|- UsageError               options that contradict each other or lie outside their range
|- UnsupportedModelError    the source cannot price the request: model, GPU or parallel layout
|- MissingPackageError      an optional package that the source needs is not installed
|- DeviceError              this machine cannot measure it: no GPU, another process, no memory, a broken clock
|- EngineError              a running engine does not answer, is shared, restarted or changed its configuration
`- RunError                 a run of the testbed cannot go on
"""


class ProfilerError(Exception):
    """Profiling cannot go on. One line: value, limit, next step."""

    exit_code = 2


class UsageError(ProfilerError):
    """Options contradict each other or lie outside their range."""


class UnsupportedModelError(ProfilerError):
    """The source cannot price this model, GPU or parallel layout."""


class MissingPackageError(ProfilerError):
    """An optional package is not installed."""

    exit_code = 5


class DeviceError(ProfilerError):
    """The machine cannot measure what was asked."""

    exit_code = 5


class EngineError(ProfilerError):
    """A running engine cannot be measured: it does not answer, is shared, restarted or changed."""

    exit_code = 5


class RunError(ProfilerError):
    """A run of the testbed cannot go on: an actor that dies again and again, or a rule of the system broken."""

    exit_code = 5
