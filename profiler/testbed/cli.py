"""`bebop testbed profile` and `run`: measure the parts of a small real RL system, and run it. Progress on stderr."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from profiler.errors import UsageError
from traces.console import Parser
from traces.testbed import TestbedConfig

SUBVERBS = {
    "profile": ("profiler.testbed.profile", "measure step latencies, acceptance and phases of a config"),
    "run": ("profiler.testbed.run", "run a config for real, and log what happens"),
}
"""Module of each, imported only when it runs; its `main(config, output)` returns an exit code."""


def main(argv: Sequence[str]) -> int:
    """Run `bebop testbed profile|run` with `argv` (subverb first) and return the exit code.

    Raises:
        UsageError: A config that cannot be read.
        ModuleNotFoundError: torch, ray or the config's engine is not installed.
    """
    arguments = _parser().parse_args(list(argv))
    if arguments.output.suffix:
        raise UsageError(f"-o {arguments.output}: several files are written; name a folder")
    config = read_config(arguments.config)
    if config.engine == "llamacpp":
        importlib.import_module("xllamacpp")  # here, and not in the middle of an actor's start
    arguments.output.mkdir(parents=True, exist_ok=True)
    options = {"num_sweeps": arguments.sweeps} if getattr(arguments, "sweeps", None) else {}
    code: int = importlib.import_module(SUBVERBS[arguments.subverb][0]).main(config, arguments.output, **options)
    return code


def read_config(path: Path) -> TestbedConfig:
    """Return the config of a TOML file.

    Raises:
        UsageError: Not TOML, or not such a config.
    """
    import tomllib

    from pydantic import ValidationError

    from traces.complaint import complaint

    try:
        return TestbedConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML ({error}); correct it") from None
    except ValidationError as error:
        raise UsageError(f"{path}: {complaint(error, TestbedConfig)}; correct it") from None


def _parser() -> Parser:
    parser = Parser(prog="bebop testbed", description="A small real RL system on this machine: profile it, run it.")
    subverbs = parser.add_subparsers(dest="subverb", required=True, metavar="profile|run")
    for name, (_, meaning) in SUBVERBS.items():
        one = subverbs.add_parser(name, help=meaning, description=meaning)
        one.add_argument("config", type=Path, metavar="CONFIG", help="TOML; examples in profiler/testbed/configs")
        one.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write")
        if name == "profile":
            one.add_argument(
                "--sweeps", type=count_option, metavar="N", help="how thorough: times each step is visited (default 16)"
            )
    return parser


def count_option(text: str) -> int:
    """Return a number of repetitions.

    Raises:
        ValueError: None, or more than anybody waits for.
    """
    number = int(text)
    if not 1 <= number <= 100:
        raise ValueError(text)
    return number
