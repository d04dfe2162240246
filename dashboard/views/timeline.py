"""Timeline: the simulated cluster as it runs: replicas, trainer, weight syncs, staleness."""

import shlex

import streamlit as st

from dashboard import address, data, shell, state, timelines, words
from dashboard.figures.timeline import MAX_TRACKS, run_counters, timeline_figure
from simulator.config import Scenario
from traces.timeline import Timeline

ARM = "timeline_arm"
STEPS = "timeline_steps"
WINDOW = "timeline_window"
COUNTERS = "timeline_counters"


def render() -> None:
    """Draw what the first RL steps of one arm looked like."""
    st.header("Timeline", anchor=False)
    st.caption(
        "One replication of one arm, watched: what the trainer and every rollout replica do, and when. Trainer spans "
        "are exact; replicas are looked at on a fine grid of times."
    )
    asked = state.question()
    if asked is None:
        return
    arm, num_steps = _choice(asked)
    with shell.mistakes():
        found = _watched(asked.scenario, arm, num_steps)
        if found is None:
            return
        _draw(found, f"{asked.source.key}/{arm}/{num_steps}")
        _footer(asked, arm, num_steps, found)


def _choice(asked: data.Question) -> tuple[str, int]:
    """Draw which arm, and how many RL steps from the first."""
    arms, total = timelines.arms_of(asked.scenario), asked.scenario.run.num_steps
    key, steps_key = (state.keyed(name, asked.source.key) for name in (ARM, STEPS))
    own_arm, own_steps = state.arm(arms), min(timelines.FEW_STEPS, total)
    address.preset("watch", key, arms, own_arm)
    address.preset("steps", steps_key, range(1, total + 1), own_steps)
    # A knob may have shortened the run, or the scenario may have lost the arm.
    st.session_state[steps_key] = min(st.session_state[steps_key], total)
    left, right = st.columns(2)
    arm = left.selectbox("Arm", arms, index=state.place(key, arms), key=key, help="`baseline` is plain decoding.")
    num_steps = right.number_input(
        f"RL steps from the first (1 to {total:,})",
        min_value=1,
        max_value=total,
        value=st.session_state[steps_key],
        key=steps_key,
        help="Fewer steps are watched in finer grain.",
    )
    address.keep("watch", arm, own_arm)
    address.keep("steps", num_steps, own_steps)
    return arm, num_steps


def _watched(scenario: Scenario, arm: str, num_steps: int) -> Timeline | None:
    """Return what was watched, None where it was cancelled."""
    return timelines.watched(scenario, arm, num_steps) or shell.waited_for(
        f"Watching {num_steps} RL steps of {words.escape_markdown(arm)}",
        "watch",
        data.key_of(scenario, arm, num_steps),
        lambda: timelines.watch_arm(scenario, arm, num_steps),
    )


def _draw(found: Timeline, key: str) -> None:
    names = {timelines.counter_name(counter): counter for counter in found.counters}
    usual = [timelines.counter_name(counter) for counter in run_counters(found)]
    chosen = st.multiselect("Counters under it", list(names), default=usual, key=f"{COUNTERS}/{key}")
    end_s = max(found.end_s, 1e-9)
    window_s = st.slider(
        "Seconds shown",
        min_value=0.0,
        max_value=end_s,
        value=(0.0, end_s),
        format="%.0f s",
        key=f"{WINDOW}/{key}",
        help="Drag inside the picture to zoom further, double-click to zoom out.",
    )
    if window_s[0] >= window_s[1]:
        window_s = (0.0, end_s)
    figure = timeline_figure(found, dark=shell.dark(), counters=[names[name] for name in chosen], window_s=window_s)
    shell.chart("timeline", figure)


def _footer(asked: data.Question, arm: str, num_steps: int, found: Timeline) -> None:
    drawn = min(found.num_shown, MAX_TRACKS - 1)
    shown = "all replicas" if drawn >= found.num_replicas else f"{drawn} of {found.num_replicas} replicas drawn"
    st.caption(
        f"{words.seconds(found.end_s)} of the run, {shown}, looked at every {found.sample_s:.3g} s; what lasts less "
        "may be missing."
    )
    st.download_button(
        "Download for Perfetto",
        timelines.perfetto_file(found),
        file_name=f"{found.scenario}-{found.arm}.perfetto.json",
        mime="application/json",
        on_click="ignore",
        icon=":material/download:",
        help="ui.perfetto.dev opens it; nothing is sent there unless you do.",
    )
    st.caption("The same on the command line:")
    command = asked.command.replace("bebop simulate", "bebop trace", 1)
    st.code(f"{command} --arm {shlex.quote(arm)} --steps {num_steps}", language="shell", wrap_lines=True)


if __name__ == "__main__":
    render()
