"""`bebop doctor`: what this installation can do. Prints names and versions, never the environment."""

import importlib
import json
import os
import platform
import re
import shutil
from importlib import metadata
from typing import Any

from traces.console import ExitCode, Parser

DISTRIBUTION = "bebop-rollout"

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def main(argv: list[str]) -> int:
    """Print the findings; 5 when a required package is missing or does not import."""
    parser = Parser(prog="bebop doctor", description="Show what this installation can do.")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    as_json = parser.parse_args(argv).json
    findings = examine()
    if as_json:
        print(json.dumps(findings))
    else:
        print("\n".join(_lines(findings)))
    return ExitCode.ENVIRONMENT if findings["problems"] else ExitCode.OK


def examine() -> dict[str, Any]:
    """Return versions, extras, hardware and problems, ready for JSON."""
    required, extras = _requirements()
    problems = [problem for name in required if (problem := _import_problem(name))]
    if not required:
        problems.append(f"{DISTRIBUTION} is not installed; run `make setup`")
    return {
        "bebop": _version(DISTRIBUTION),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in required},
        "extras": {
            extra: {"present": all(map(_version, names)), "packages": {name: _version(name) for name in names}}
            for extra, names in sorted(extras.items())
        },
        "gpus": _gpus(),
        "cores": _num_cores(),
        "memory_bytes": _memory_bytes(),
        "browser": next((name for name in _BROWSERS if shutil.which(name)), None),
        "problems": problems,
    }


def _lines(findings: dict[str, Any]) -> list[str]:
    memory_gib = f"{findings['memory_bytes'] / 2**30:.1f} GiB" if findings["memory_bytes"] else "unknown"
    gpus = findings["gpus"]
    lines = [
        f"bebop      {findings['bebop'] or 'not installed'}",
        f"python     {findings['python']} on {findings['platform']}",
        f"machine    {findings['cores']} cores, memory {memory_gib}",
        f"gpu        {gpus if isinstance(gpus, str) else ', '.join(gpus)}",
        f"browser    {findings['browser'] or 'missing (only browser tests need one)'}",
        f"required   {_versions(findings['packages'])}",
    ]
    for extra, found in findings["extras"].items():
        state = "present" if found["present"] else f"missing, `pip install '.[{extra}]'` in the checkout"
        lines.append(f"extra      {extra}: {state} ({_versions(found['packages'])})")
    return lines + [f"problem    {problem}" for problem in findings["problems"]]


def _versions(packages: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'missing'}" for name, version in packages.items())


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Return the required packages and those of each extra, as the installed metadata names them."""
    required: list[str] = []
    extras: dict[str, list[str]] = {}
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        lines = []
    for line in lines:
        name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", line)
        (extras.setdefault(extra.group(1), []) if extra else required).append(name)
    return required, extras


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _import_problem(package: str) -> str | None:
    try:
        importlib.import_module(package)
    except Exception as error:  # a broken binary raises whatever it likes
        return f"{package} does not import ({type(error).__name__}: {error}); run `make setup`"
    return None


def _gpus() -> list[str] | str:
    """Return GPU names as the driver gives them, or why there are none."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return "no driver (nvidia-ml-py is not installed)"
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        names = [str(nvml.nvmlDeviceGetName(handle)) for handle in handles]
    except Exception as error:  # NVMLError, whose class exists only where the package does
        return f"no driver ({error})"
    return names or "none"


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
