"""Entropy editor: the trajectory that the run is asked about, drawn, and changed as a table or from a log."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard import data, shell, state
from dashboard.figures.trajectory import trajectory
from simulator.entropy import build_entropy
from simulator.errors import ScenarioError

LOG, TABLE, USE, RESET = "entropy_log", "entropy_table", "entropy_use", "entropy_reset"
LOG_TYPES = ["log", "txt", "json", "jsonl", "csv", "gz"]
STEP, NATS = "RL step", "entropy (nats)"


def render(asked: data.Question) -> None:
    """Draw the trajectory and what changes it, folded."""
    with st.expander("Entropy trajectory", icon=":material/show_chart:"), shell.mistakes():
        scenario = asked.scenario
        points = build_entropy(scenario.entropy).points
        figure = trajectory(points, scenario.run.first_step, scenario.run.num_steps, dark=shell.dark())
        shell.chart("trajectory", figure)
        file = st.file_uploader(
            "From a training log (verl, SkyRL, slime, TRL, ...)", type=LOG_TYPES, key=state.keyed(LOG, asked.source.key)
        )
        read = list(points) if file is None else data.logged_entropy(file.name, file.getvalue())
        _form(asked, data.thinned(read), num_read=len(read))


def _form(asked: data.Question, points: Sequence[tuple[int, float]], *, num_read: int) -> None:
    source = asked.source
    with st.form(state.keyed("entropy_form", source.key), border=False):
        rows = st.data_editor(
            [{STEP: step, NATS: round(nats, 4)} for step, nats in points] or [{STEP: 0, NATS: 0.4}],
            num_rows="dynamic",
            key=state.keyed(TABLE, source.key, str(hash(tuple(points)))),
            column_config={
                STEP: st.column_config.NumberColumn(min_value=0, step=1, required=True),
                NATS: st.column_config.NumberColumn(min_value=0.0, max_value=20.0, format="%.4f", required=True),
            },
            alt="Points of the entropy trajectory",
        )
        if num_read > len(points):
            st.caption(f"{len(points)} of {num_read} points; used as they stand here once you press the button.")
        with st.container(horizontal=True):
            used = st.form_submit_button("Use this trajectory", key=state.keyed(USE, source.key))
            own = st.form_submit_button("Back to the scenario's own", key=state.keyed(RESET, source.key))
    if own:
        state.keep_entropy_points(source.key, None)
        st.rerun()
    if used:
        chosen = points_of(rows)
        data.load(source, [*asked.overrides, data.override_entropy(chosen)])  # complains before anything changes
        state.keep_entropy_points(source.key, chosen)
        st.rerun()


def points_of(rows: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """Return a table's rows as points in the order of their RL steps; an empty row is none.

    Raises:
        ScenarioError: A row lacks one of its numbers, or none is left.
    """
    points = []
    for row in rows:
        step, nats = row.get(STEP), row.get(NATS)
        if step is None and nats is None:
            continue
        if step is None or nats is None:
            raise ScenarioError(f"entropy: a row has {STEP} {step} and {NATS} {nats}; fill both or remove the row")
        points.append((int(step), float(nats)))
    if not points:
        raise ScenarioError("entropy: the table is empty; give at least one point")
    return sorted(points)
