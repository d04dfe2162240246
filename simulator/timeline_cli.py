"""`bebop trace`: writes what a run's replicas and trainer did, and when, as a file for Perfetto."""

import io
import json
from pathlib import Path

from simulator.scenario_file import DEFAULT_SCENARIO, load_scenario
from traces.console import ExitCode, Parser


def main(argv: list[str]) -> int:
    """Write the file, and say where it is and how to open it; return the exit code."""
    parser = Parser(
        prog="bebop trace",
        description="Simulate one arm of a scenario and write its timeline: trainer, weight syncs and replicas as "
        "tracks, batch, buffer and staleness as counters. ui.perfetto.dev opens the file.",
    )
    parser.add_argument("scenario", nargs="?", default=DEFAULT_SCENARIO, help="bundled name or TOML file")
    parser.add_argument("--arm", metavar="NAME", help="which arm; `baseline` is plain decoding (default the first arm)")
    parser.add_argument("--steps", type=int, metavar="N", help="only the first N RL steps, in finer grain")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field, repeatable")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="default: SCENARIO-ARM.perfetto.json")
    parser.add_argument("--json", action="store_true", help="answer with one line of JSON")
    arguments = parser.parse_args(argv)
    scenario = load_scenario(arguments.scenario, arguments.set)

    from simulator.timeline import watch  # compiled kernels: slow to import, and not needed for a mistake above
    from traces.store import write_atomically
    from traces.timeline import write_perfetto

    timeline = watch(scenario, arguments.arm, num_steps=arguments.steps)
    path = arguments.out or Path(f"{timeline.scenario}-{timeline.arm}.perfetto.json")
    text = io.StringIO()
    num_events = write_perfetto(timeline, text)
    write_atomically(path, text.getvalue().encode())
    if arguments.json:
        about = timeline.model_dump(exclude={"spans", "counters"})
        print(json.dumps({"path": str(path), "events": num_events, **about}))
        return ExitCode.OK
    shown = f"{timeline.num_shown} of {timeline.num_replicas}" if timeline.num_shown < timeline.num_replicas else "all"
    print(
        f"{path}: {num_events} events of arm {timeline.arm}, {timeline.end_s:.0f} s of the run, {shown} replicas, "
        f"looked at every {timeline.sample_s:.3g} s; open it in ui.perfetto.dev"
    )
    return ExitCode.OK
