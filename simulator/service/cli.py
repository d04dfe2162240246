"""`bebop serve`: serves runs, sweeps and plans over HTTP, and makes the tokens for it."""

import importlib.util
import logging
import sys
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.database import locked
from simulator.errors import ServiceError
from traces.console import ExitCode, Parser, explain, print_error

if TYPE_CHECKING:
    from simulator.service.gate import Tokens

PORT = 8420


def main(argv: list[str]) -> int:
    """Serve until interrupted, or change the token file; return the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            code, message = explain(ModuleNotFoundError(f"No module named {package!r}", name=package))
            print_error(message)
            return code
    _check(parser, arguments)
    file = arguments.tokens or arguments.data / "tokens.json"
    if arguments.new_token is not None or arguments.revoke_token is not None:
        return _change_tokens(file, arguments.new_token, arguments.scope, arguments.days, arguments.revoke_token)

    from simulator.service.server import bind, is_loopback, serve
    from simulator.service.settings import Limits, Settings

    tokens = _tokens(file, arguments.host, is_loopback=is_loopback(arguments.host))
    settings = Settings(
        folder=arguments.data.resolve(),
        num_workers=arguments.workers,
        ray_address=arguments.ray,
        hosts=tuple(dict.fromkeys((*Settings(Path()).hosts, arguments.host, *arguments.allow_host))),
        limits=Limits(
            queued=arguments.queue,
            queued_per_token=arguments.queue_per_token,
            job_s=arguments.timeout,
            worker_bytes=round(arguments.memory * 1e9),
        ),
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    with locked(settings.folder, ServiceError, "service", "choose another --data"):
        from simulator.service.ledger import Ledger

        ledger = Ledger(settings.folder)
        if ledger.set_aside is not None:
            print_error(f"the ledger was damaged; it lies at {ledger.set_aside}, and a new one begins")
        bound = bind(arguments.host, arguments.port)
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        print(
            f"serving on http://{host}:{bound.getsockname()[1]}, data in {settings.folder}", file=sys.stderr, flush=True
        )
        try:
            serve(settings, ledger, tokens, bound, version("bebop-rollout"))
        finally:
            ledger.close()
    return ExitCode.OK


def _check(parser: Parser, arguments: Namespace) -> None:
    bounds = (("workers", 1, 256), ("queue", 1, 100_000), ("queue_per_token", 1, 100_000), ("port", 0, 65535))
    for name, low, high in bounds:
        if not low <= (value := getattr(arguments, name)) <= high:
            parser.error(f"--{name.replace('_', '-')} {value} is not between {low} and {high}")
    for name in ("timeout", "memory"):
        if not (value := getattr(arguments, name)) > 0:
            parser.error(f"--{name} {value:g} is not above 0")


def _tokens(file: Path, host: str, *, is_loopback: bool) -> "Tokens":
    """Return who may call: those in the file; on loopback without one, whoever sees this terminal."""
    from simulator.service.tokens import OneToken, TokenFile

    if file.exists():
        found = TokenFile(file)
        if len(found):
            return found
    if not is_loopback:
        raise ServiceError(
            f"--host {host}: reachable from other machines, but there is no token in {file}; make one: "
            f"bebop serve --new-token NAME --tokens {file}"
        )
    token = OneToken()
    print(f"no token in {file}; for this session alone: {token.text}", file=sys.stderr, flush=True)
    return token


def _change_tokens(file: Path, new: str | None, scope: str, days: int | None, revoked: str | None) -> int:
    from simulator.service.tokens import add_token, remove_token

    file.parent.mkdir(parents=True, exist_ok=True)
    if revoked is not None:
        remove_token(file, revoked)
        print(f"{revoked} is no longer taken", file=sys.stderr)
    if new is not None:
        text = add_token(file, new, "write" if scope == "write" else "read", days)
        print(f"{new} may {scope}; keep this, it is not shown again ({file} has its hash alone):", file=sys.stderr)
        print(text)
    return ExitCode.OK


def _parser() -> Parser:
    parser = Parser(
        prog="bebop serve",
        description="Serve runs, sweeps and plans over HTTP, with a queue that survives a restart. Every request but "
        "health needs a token; see docs/service.md.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to serve on (default: %(default)s); others need a token file")
    add("--port", type=int, default=PORT, help="default: %(default)s; 0 takes a free one")
    add("--data", type=Path, default=Path("bebop-service"), metavar="DIR", help="ledger, traces, sweeps (%(default)s)")
    add("--tokens", type=Path, metavar="FILE", help="hashes of tokens (default: tokens.json in --data)")
    add("--workers", type=int, default=2, metavar="N", help="jobs at a time (default: %(default)s)")
    add("--queue", type=int, default=100, metavar="N", help="jobs that may wait (default: %(default)s)")
    add("--queue-per-token", type=int, default=50, metavar="N", help="of them, of one token (default: %(default)s)")
    add("--memory", type=float, default=8.0, metavar="GB", help="a worker that holds more is ended (default: 8)")
    add("--timeout", type=float, default=3600.0, metavar="S", help="a job that takes longer is ended (default: 3600)")
    add("--ray", metavar="HOST:PORT", help="run sweeps on this Ray cluster; RAY_AUTH_MODE=token beyond this machine")
    add("--allow-host", action="append", default=[], metavar="NAME", help="name by which clients call, repeatable")
    add("--new-token", metavar="NAME", help="make a token, print it once, and end")
    add("--scope", choices=["read", "write"], default="read", help="of the new token (default: %(default)s)")
    add("--days", type=int, metavar="N", help="days for which the new token is taken (default: always)")
    add("--revoke-token", metavar="NAME", help="end a token, in a running service too, and end")
    return parser
