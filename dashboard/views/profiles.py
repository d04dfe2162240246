"""Profiles: how long each operation takes, on what that rests, and how two latency traces differ."""

import shlex

import streamlit as st

from dashboard import address, profile_tables, profiles, shell, state, words
from dashboard.figures.latency_surface import latency_surface
from dashboard.figures.profile_ratio import MAX_REGIONS, profile_ratio
from dashboard.figures.step_latency import step_latency
from dashboard.figures.verify_ratio import verify_ratio
from dashboard.uploads import Upload
from profiler.step_times import typical_contexts
from traces.latency import LatencyTrace, Operation

TRACE, OTHER = "profile_trace", "profile_other"
UPLOAD, OTHER_UPLOAD = "profile_upload", "profile_other_upload"
LAYOUT, CONTEXTS, RATIO_CONTEXT = "profile_layout", "profile_contexts", "profile_ratio_context"
OPERATION, QUERIES, COMPARED = "profile_operation", "profile_q", "profile_compared"
NONE = "none"
MAX_PANELS, USUAL_PANELS = 4, 2
USUAL = (Operation.DECODE, Operation.VERIFY)


def render() -> None:
    """Draw one latency trace, and another beside it where one is chosen."""
    st.header("Profiles", anchor=False)
    st.caption(
        "Latency traces: what a prediction takes step times from. One row is one operation at one batch, context and "
        "number of new tokens per sequence (q: 1 for decode, k + 1 for verify)."
    )
    with shell.mistakes():
        first = _first()
        if first is None:
            st.info("No latency trace is shipped with this installation; upload one.", icon=":material/upload_file:")
            return
        trace = profiles.load(first)
        layout = _layout(trace, first)
        _about(trace, first)
        _steps(trace, first, layout)
        _surface(trace, first, layout)
        _trust(trace, layout)
    with shell.mistakes():
        _comparison(first)


def _first() -> profiles.Profile | None:
    names = list(profiles.shipped_profiles())
    asked = state.question()
    latency = asked.scenario.latency if asked is not None else None
    own = latency.trace if latency is not None and latency.kind == "trace" else None
    if not names:
        return None
    default = own if own is not None and own in names else names[0]
    address.preset("trace", TRACE, names, default)
    name = st.selectbox("Latency trace", names, index=state.place(TRACE, names), key=TRACE)
    with st.expander("Upload a trace", icon=":material/upload_file:"):
        file = st.file_uploader(
            "Latency trace of `bebop profile` (.parquet up to 16 MB, .json up to 8 MB)",
            type=["parquet", "json"],
            key=UPLOAD,
        )
    if file is None:
        address.keep("trace", name, default)
        return name
    return _taken(Upload(file.name, file.getvalue()))


def _taken(upload: Upload) -> Upload:
    st.caption(
        f"Using the upload {words.escape_markdown(upload.name)}, sha256 {upload.sha256[:12]}; remove it to go back."
    )
    return upload


def _key(profile: profiles.Profile) -> str:
    return profile if isinstance(profile, str) else profile.sha256[:16]


def _layout(trace: LatencyTrace, first: profiles.Profile) -> profiles.Layout:
    layouts = profiles.layouts_of(trace)
    if len(layouts) == 1:
        return layouts[0]
    chosen: profiles.Layout = st.selectbox(
        "Parallel layout", layouts, format_func=_layout_name, key=f"{LAYOUT}/{_key(first)}"
    )
    return chosen


def _layout_name(layout: profiles.Layout) -> str:
    return f"TP{layout[0]}" + (f", EP{layout[1]}" if layout[1] > 1 else "")


def _about(trace: LatencyTrace, first: profiles.Profile) -> None:
    facts = (trace.model, trace.gpu, trace.precision, trace.engine, f"{len(trace.rows):,} points")
    st.markdown("**" + "** · **".join(words.escape_markdown(fact) for fact in facts) + "**")
    with st.expander("Where it comes from"):
        st.table(profile_tables.about_table(trace), border="horizontal")
        if isinstance(first, str):
            st.code(f"bebop profile show {shlex.quote(first)} --no-picture", language="shell")


def _steps(trace: LatencyTrace, first: profiles.Profile, layout: profiles.Layout) -> None:
    st.markdown("#### One pass of the target, by batch")
    passes = profiles.passes_of(first, layout)
    if not passes.times:
        st.info("This trace has no decode or verify rows.", icon=":material/info:")
        return
    key = f"{_key(first)}/{layout}"
    contexts = st.multiselect(
        f"Contexts (tokens), up to {MAX_PANELS}",
        passes.contexts_tokens,
        default=typical_contexts(passes.times, USUAL_PANELS),
        max_selections=MAX_PANELS,
        key=f"{CONTEXTS}/{key}",
        format_func="{:,}".format,
    )
    shell.chart("step_latency", step_latency(trace, passes, sorted(contexts), dark=shell.dark()))
    st.markdown("#### What verifying costs over decoding")
    context = st.selectbox(
        "Context (tokens)",
        passes.contexts_tokens,
        index=passes.contexts_tokens.index(typical_contexts(passes.times)[0]),
        key=f"{RATIO_CONTEXT}/{key}",
        format_func="{:,}".format,
    )
    shell.chart("verify_ratio", verify_ratio(profiles.verify_ratios(passes.times, context), dark=shell.dark()))


def _surface(trace: LatencyTrace, first: profiles.Profile, layout: profiles.Layout) -> None:
    st.markdown("#### Latency of each operation, over batch and context")
    operations = profiles.operations_of(trace, layout)
    if not operations:
        st.info("This trace has no operation of a rollout engine.", icon=":material/info:")
        return
    key = f"{_key(first)}/{layout}"
    left, right = st.columns(2)
    operation = left.selectbox("Operation", operations, format_func=lambda one: one.value, key=f"{OPERATION}/{key}")
    queries = profiles.queries_of(trace, layout, operation)
    q = right.selectbox(
        "New tokens per sequence, q", queries, format_func="{:,}".format, key=f"{QUERIES}/{key}/{operation}"
    )
    found = profiles.surface_of(trace, layout, operation, q)
    shell.chart("surface", latency_surface(found, dark=shell.dark()))
    st.caption(
        "Markers are the trace's own points. Between them the simulator interpolates along context, then along batch; "
        "where there is no colour it has nothing, and stops, or extrapolates where a scenario allows it."
    )


def _trust(trace: LatencyTrace, layout: profiles.Layout) -> None:
    st.markdown("#### What it rests on, and how far off it is")
    st.table(profile_tables.regions_table(profiles.regions_of(trace, layout)), border="horizontal")
    found = trace.measurement
    st.markdown(profile_tables.measurement_sentence(found))
    if found is None:
        return
    if found.held_out is not None or found.leave_one_out is not None:
        st.table(profile_tables.errors_table(found), border="horizontal")
    if found.composed:
        with st.expander(f"Whole steps against the sums of their parts ({len(found.composed)})"):
            st.table(profile_tables.composed_table(found), border="horizontal")
    if found.infeasible:
        with st.expander(f"Points that could not be timed ({len(found.infeasible):,})"):
            st.table(profile_tables.infeasible_table(found.infeasible), border="horizontal")


def _comparison(first: profiles.Profile) -> None:
    st.markdown("#### Beside another trace")
    names = [NONE, *(name for name in profiles.shipped_profiles() if name != first)]
    address.preset("beside", OTHER, names, NONE)
    if st.session_state[OTHER] not in names:
        st.session_state[OTHER] = NONE
    name = st.selectbox(
        "Compare with (B)",
        names,
        index=state.place(OTHER, names),
        key=OTHER,
        help="B over A, region by region; A is the trace above.",
    )
    with st.expander("Upload the other trace", icon=":material/upload_file:"):
        file = st.file_uploader("Latency trace (B)", type=["parquet", "json"], key=OTHER_UPLOAD)
    second: profiles.Profile = name if file is None else _taken(Upload(file.name, file.getvalue()))
    address.keep("beside", name, NONE)
    if second == NONE:
        st.caption(
            "Choose a trace of another GPU, model, engine or source to see where the two differ, and by how much."
        )
        return
    found = profiles.comparison_of(first, second)
    a, b = profiles.load(first), profiles.load(second)
    for field, title in (("model", "model"), ("gpu", "GPU"), ("precision", "precision"), ("engine", "engine")):
        if getattr(a, field) != getattr(b, field):
            values = (words.escape_markdown(getattr(side, field)) for side in (a, b))
            st.caption(f"Not the same {title}: " + " and ".join(f"**{value}**" for value in values))
    operations = list(dict.fromkeys(region.operation for region in found.regions))
    chosen = st.multiselect(
        "Operations",
        operations,
        default=[operation for operation in operations if operation in USUAL] or operations[:1],
        format_func=lambda one: one.value,
        key=f"{COMPARED}/{_key(first)}/{_key(second)}",
    )
    regions = [region for region in found.regions if region.operation in chosen]
    shell.chart("profile_ratio", profile_ratio(regions, dark=shell.dark()))
    if len(regions) > MAX_REGIONS:
        st.caption(f"The first {MAX_REGIONS} of {len(regions)} regions are drawn; the table has all.")
    with st.expander("The numbers"), st.container(key="profile_ratios"):
        st.table(profile_tables.ratios_table(regions), border="horizontal")
    outside = profile_tables.outside_lines(found)
    st.markdown("\n".join(f"- {line}" for line in outside) or "Each covers all points of the other.")
    if isinstance(first, str) and isinstance(second, str):
        st.code(f"bebop profile compare {shlex.quote(first)} {shlex.quote(second)}", language="shell")


if __name__ == "__main__":
    render()
