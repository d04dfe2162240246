"""Errors of the simulator.

SimulatorError              base
|- ScenarioError            a scenario cannot be run: field, value, limit, next step (exit code 2)
|- TraceCoverageError       a scenario asks for a point that its trace does not cover (exit code 2)
|- ComparisonError          two runs that cannot be compared, and why (exit code 2)
|- ForecastError            a log that cannot be forecast, or calibrated from (exit code 2)
|- SweepError               a sweep cannot be begun as asked (exit code 2)
|  `- ClusterError          no Ray cluster answers, or it went away (exit code 5)
|- ServiceError             a service cannot be started here, or does not answer as one (exit code 2)
`- InvariantError           a conservation law broke: a defect of the simulator, never of the input
"""


class SimulatorError(Exception):
    """Base of what the simulator raises on purpose."""

    exit_code = 1


class ScenarioError(SimulatorError):
    """The scenario cannot be run as written."""

    exit_code = 2


class TraceCoverageError(ScenarioError):
    """The trace does not cover what the scenario needs, and extrapolation is not allowed."""


class ComparisonError(SimulatorError):
    """Two runs cannot be compared."""

    exit_code = 2


class ForecastError(SimulatorError):
    """A log says too little, or is of another run than the scenario."""

    exit_code = 2


class InvariantError(SimulatorError):
    """A conservation law broke."""


class SweepError(SimulatorError):
    """A sweep cannot be begun as asked."""

    exit_code = 2


class ClusterError(SweepError):
    """The Ray cluster that should run a sweep is not there, or no longer."""

    exit_code = 5


class ServiceError(SimulatorError):
    """A service cannot be started, or does not answer as one."""

    exit_code = 2
