"""Entropy and acceptance: what each recipe accepts at which entropy, and how sure that is."""

import math

import streamlit as st

from dashboard import address, controls, curves, data, shell, state, words
from dashboard.axes import mean_entropy
from dashboard.figures.acceptance import RECIPE_NAMES, recipes
from profiler.mtp.entropy_bounds import largest_top_probability, least_top_probability
from traces.acceptance import AcceptanceLaw, AcceptanceTrace
from traces.architecture import load_architecture
from traces.errors import TraceError

TRACE, FIT, ENTROPY, DRAFTS = "acceptance_trace", "acceptance_fit", "acceptance_entropy", "acceptance_k"
CARRY_RECIPE, CARRY_ARM = "carry_recipe", "carry_arm"
DEFAULT_ENTROPY_NATS = 0.4
LEAST_HIGHEST_NATS = 1.0
"""Entropy axes reach at least this far."""
MAX_K = 8
LARGEST_VOCABULARY = 248_320
"""Tokens, where the scenario's model is not known: Qwen3.5's."""


def render() -> None:
    """Draw the laws of one fit from every side."""
    st.header("Entropy and acceptance", anchor=False)
    st.markdown(
        "Drafts are accepted less where the policy is less sure of itself. Each line is a **law** fitted on counts: "
        "solid inside the entropies it was fitted on, dashed beyond them, where nobody has looked."
    )
    with shell.mistakes():
        name, trace, fit = _which()
        nats, k = _where(trace, fit)
        laws = curves.laws_of(trace, fit)
        _over_entropy(name, trace, laws, nats)
        left, right = st.columns(2)
        with left:
            _positions(name, laws, k, nats)
        with right:
            _temperature(name, laws, k, nats)
        _drift(name, laws, k, nats)
        _sources(trace, laws)
        _carry(name, laws)


def _which() -> tuple[str, AcceptanceTrace, str]:
    """Let the reader choose a trace and one of its fits."""
    names = curves.traces_with_laws()
    if not names:
        raise TraceError("no acceptance trace with laws is shipped with this installation")
    left, right = st.columns(2)
    address.preset("laws", TRACE, names, names[0])
    name = left.selectbox("Laws from", names, index=state.place(TRACE, names), key=TRACE)
    trace = curves.load_trace(name)
    fits = curves.fits(trace)
    own_fit = "reasoning" if "reasoning" in fits else fits[0]
    key = state.keyed(FIT, name)
    address.preset("fit", key, fits, own_fit)
    fit = right.selectbox("Fitted on", fits, index=state.place(key, fits), key=key)
    address.keep("laws", name, names[0])
    address.keep("fit", fit, own_fit)
    return name, trace, fit


def _where(trace: AcceptanceTrace, fit: str) -> tuple[float, int]:
    """Let the reader choose the entropy and the number of drafts that the smaller figures look at."""
    own = DEFAULT_ENTROPY_NATS
    asked = state.question()
    if asked is not None and asked.scenario.entropy is not None:
        own = round(mean_entropy(asked.scenario), 2)
    left, right = st.columns(2)
    own_k = curves.laws_of(trace, fit)[0].num_draft_tokens
    nats = left.slider("Policy entropy (nats)", 0.0, 2.0, state.preset(ENTROPY, min(own, 2.0)), 0.01, key=ENTROPY)
    k = right.slider("Draft tokens k", 1, MAX_K, state.preset(DRAFTS, own_k), key=DRAFTS)
    return nats, k


def _over_entropy(name: str, trace: AcceptanceTrace, laws: list[AcceptanceLaw], nats: float) -> None:
    dots = curves.rows_over_entropy(trace)
    highest = max(LEAST_HIGHEST_NATS, 1.1 * max(law.entropy_high_nats for law in laws), nats)
    dark = shell.dark()
    st.markdown("#### Accept length over entropy")
    figure = recipes(
        curves.over_entropy(laws, highest),
        x_title="policy entropy (nats)",
        y_title=f"tokens per verify step at k = {laws[0].num_draft_tokens}",
        dots=dots,
        marked=nats,
        dark=dark,
    )
    shell.chart("law", figure)
    st.markdown("#### The first draft, between what theory allows")
    vocabulary = _vocabulary()
    figure = recipes(
        curves.first_draft(name, laws, highest),
        x_title="policy entropy (nats)",
        y_title="first drafts accepted",
        dots=curves.rows_over_entropy(trace, first_only=True),
        bounds=(
            ("exp(−H), the least", least_top_probability),
            ("Fano, the most", lambda h: largest_top_probability(min(h, math.log(vocabulary)), vocabulary)),
        ),
        marked=nats,
        dark=dark,
    )
    shell.chart("first", figure)
    st.caption(
        "Dotted: the probability that the likeliest token can have at this entropy. A greedy draft (TO) is accepted "
        "with the probability of the token it guesses, so it cannot pass the upper line; rejection sampling (RS) can. "
        f"Fano's bound is for a vocabulary of {vocabulary:,} tokens."
    )


def _vocabulary() -> int:
    asked = state.question()
    return LARGEST_VOCABULARY if asked is None else load_architecture(asked.scenario.model.name).vocab_size


def _positions(name: str, laws: list[AcceptanceLaw], k: int, nats: float) -> None:
    st.markdown(f"#### By position, at {nats:g} nats")
    figure = recipes(
        curves.over_positions(name, laws, k, nats),
        x_title="position of the draft, j",
        y_title="first j drafts all accepted",
        whole_x=True,
        dark=shell.dark(),
    )
    shell.chart("positions", figure.update_yaxes(range=[0, 1.03]))


def _temperature(name: str, laws: list[AcceptanceLaw], k: int, nats: float) -> None:
    st.markdown(f"#### By temperature, k = {k}")
    figure = recipes(
        curves.over_temperature(name, laws, k, nats),
        x_title="sampling temperature",
        y_title="tokens per verify step",
        marked=1.0,
        dark=shell.dark(),
    )
    shell.chart("temperature", figure)


def _drift(name: str, laws: list[AcceptanceLaw], k: int, nats: float) -> None:
    st.markdown(f"#### Drift of a frozen head during training, at {nats:g} nats")
    figure = recipes(
        curves.over_rl_steps(name, laws, k, nats),
        x_title="RL steps since the head was trained",
        y_title=f"tokens per verify step at k = {k}",
        dark=shell.dark(),
    )
    shell.chart("drift", figure)
    st.caption(
        "The mismatch alone: the policy moves away from a head that stays, at an entropy that does not change. "
        "Dashed beyond the RL steps that the paper shows."
    )


def _sources(trace: AcceptanceTrace, laws: list[AcceptanceLaw]) -> None:
    with st.expander("The laws and their sources"):
        st.table(
            {
                "recipe": [f"**{words.escape_markdown(RECIPE_NAMES[law.recipe])}**" for law in laws],
                "law (H in nats)": [
                    f"{law.intercept:.3f} {law.slope_per_nat:+.3f} H".replace("-", "−") for law in laws
                ],
                "slope ± (per nat)": [f"{law.slope_sd_per_nat:.3f}" for law in laws],
                "fitted on (nats)": [f"{law.entropy_low_nats:.3f} to {law.entropy_high_nats:.3f}" for law in laws],
                "origin": [law.origin.value for law in laws],
                "source": [words.escape_markdown(law.source) for law in laws],
            },
            border="horizontal",
        )
        st.caption(words.escape_markdown(trace.provenance.notes or trace.provenance.source))


def _carry(name: str, laws: list[AcceptanceLaw]) -> None:
    """Offer to predict with one of these laws."""
    asked = state.question()
    if asked is None:
        return
    st.markdown("#### Predict with one of these")
    if asked.scenario.entropy is None:
        st.info("The scenario states no entropy, so no law can be used in it; give it a trajectory on **Predict**.")
        return
    left, right = st.columns(2)
    recipe = left.selectbox(
        "Recipe", [law.recipe for law in laws], format_func=lambda each: RECIPE_NAMES[each], key=CARRY_RECIPE
    )
    arm = right.selectbox("For arm", list(asked.scenario.arms), key=CARRY_ARM)
    if recipe is None or arm is None:
        return
    law = next(law for law in laws if law.recipe == recipe)
    override = data.override_law(arm, data.Law(law.recipe, law.fit, name))
    said = words.escape_markdown(f"{arm} now drafts by law {law.recipe}, fit {law.fit}.")
    st.button("Carry to Predict", key="carry", type="primary", on_click=_carry_now, args=(asked, override, said))
    note = state.take_note()
    if note is not None:
        st.success(note, icon=":material/check:")
        st.page_link("views/predict.py", label="Predict with it", icon=":material/bolt:")


def _carry_now(asked: data.Question, override: str, said: str) -> None:
    controls.put(asked, override)
    state.note(said)


if __name__ == "__main__":
    render()
