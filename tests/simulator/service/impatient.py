"""`bebop` whose service waits for seconds where it would wait for tens of them; run as a program."""

import sys
from dataclasses import replace
from typing import Any

import bebop
from simulator.service import server

HEAD_S, BODY_S = 1.0, 3.0

_serve = server.serve


def serve(settings: Any, *rest: Any) -> None:
    _serve(replace(settings, limits=replace(settings.limits, head_s=HEAD_S, body_s=BODY_S)), *rest)


if __name__ == "__main__":  # workers import this file too
    server.serve = serve
    sys.exit(bebop.main(sys.argv[1:]))
