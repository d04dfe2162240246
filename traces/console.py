"""How every verb ends: exit codes, and one line on stderr instead of a traceback. Does not know any verb."""

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Callable
from enum import IntEnum
from typing import NoReturn, TextIO


class ExitCode(IntEnum):
    """What the command tells its caller."""

    OK = 0
    UNEXPECTED = 1
    """A defect of ours."""
    USAGE = 2
    """A mistake in the arguments, a scenario or a trace."""
    PARTIAL = 3
    """Some points of a sweep failed."""
    STORAGE = 4
    """Disk full or not writable."""
    ENVIRONMENT = 5
    """A GPU, Ray or an extra is missing."""
    INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Argument parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Print the complaint and exit with the usage code."""
        print_error(f"{message}; see `{self.prog} --help`")
        self.exit(ExitCode.USAGE)


EXTRAS = {
    "SALib": "plan",
    "aiconfigurator_core": "aiconfigurator",
    "fastapi": "service",
    "gguf": "llamacpp",
    "kaleido": "dashboard",
    "optuna": "plan",
    "playwright": "dev",
    "plotly": "dashboard",
    "ray": "ray",
    "statsmodels": "study",
    "streamlit": "dashboard",
    "torch": "torch",
    "uvicorn": "service",
    "xllamacpp": "llamacpp",
}
"""Extra that brings a package, by its import name."""

_STORAGE_ERRNOS = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "disk quota exceeded",
    errno.EFBIG: "file too large for this disk",
    errno.EROFS: "read-only file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.EIO: "input/output error",
}

_PATH_ERRNOS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


def run_command(function: Callable[[], int | None], *, debug: bool = False) -> int:
    """Call `function` and return its exit code; turn whatever it raises into one line on stderr and a code.

    Args:
        function: The verb. None counts as 0.
        debug: Print the traceback too.
    """
    try:
        code = function()
        sys.stdout.flush()  # a closed pipe shows here, not at interpreter exit
        return ExitCode.OK if code is None else code
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Python flushes stdout again at exit, so give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except SystemExit as end:  # argparse
        return _code_of(end)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        code, message = explain(error)
        print_error(message)
        return code


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an exception and the line to print."""
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED, "interrupted"
    code = getattr(error, "exit_code", None)
    if isinstance(code, int) and code != ExitCode.UNEXPECTED:
        return code, str(error)
    if isinstance(error, ImportError):
        return ExitCode.ENVIRONMENT, _missing_package(error)
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS:
        where = f" at {error.filename}" if error.filename else ""
        return (
            ExitCode.STORAGE,
            f"{_STORAGE_ERRNOS[error.errno]}{where}; make room or choose another place, then repeat",
        )
    if isinstance(error, OSError) and error.errno in _PATH_ERRNOS and error.filename:
        return ExitCode.USAGE, f"{error.filename}: {(error.strerror or 'cannot be opened').lower()}; check the path"
    advice = "re-run with --debug for the traceback, please report this"
    return ExitCode.UNEXPECTED, f"unexpected: {type(error).__name__}: {error}; {advice}"


def print_error(message: str) -> None:
    """Print one line on stderr, its prefix red where colour is welcome."""
    prefix = "\x1b[31mbebop:\x1b[0m" if colour_allowed(sys.stderr) else "bebop:"
    print(prefix, " ".join(message.split()), file=sys.stderr)


def colour_allowed(stream: TextIO) -> bool:
    """Return whether ANSI colour may be written: a terminal that is not dumb, and NO_COLOR not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _missing_package(error: ImportError) -> str:
    package = (error.name or "").partition(".")[0]
    if package in EXTRAS:
        return f"{package} is not installed; run `pip install '.[{EXTRAS[package]}]'` in the checkout"
    return f"{error}; `bebop doctor` shows what is installed, `make setup` repairs it"


def _code_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or ExitCode.OK
    print_error(str(end.code))
    return ExitCode.UNEXPECTED
