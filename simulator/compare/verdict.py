"""Verdict: a comparison in one sentence, made from its numbers by rules."""

from typing import Final

from simulator.compare.result import Comparison, Effect
from simulator.compare.steps import REST, TERMS

SAME_TOKENS: Final = 0.1
"""Token counts that differ by more are said in the verdict."""
NOT_COMPARABLE: Final = 1.5
"""Token counts that differ by this factor make step times say little."""
NOISE: Final = 0.01
"""Without an interval, a difference below this share is none."""
WORTH_SAYING: Final = 0.03
"""An effect of a smaller share of the step is not in the verdict."""
BUT: Final = 1.05
"""A rollout this much faster than the whole run calls for an explanation."""

WORDS: Final = {
    "exposed_s": "waiting for generation",
    "train_s": "training",
    "log_prob_s": "log-probabilities",
    "reference_s": "the reference pass",
    "critic_s": "the critic",
    "reward_s": "rewards",
    "sync_s": "weight sync",
    "response_tokens": "response tokens",
    "response_length": "response length",
    "tail": "longest over mean response",
    "accept_length": "accept length",
    "verify_step": "seconds per engine step",
    REST: "what these logs do not identify",
}


def verdict(result: Comparison, *, overlapping: bool) -> str:
    """Return the sentence; `overlapping` says that A generates while it trains."""
    if result.a.kind != result.b.kind:
        return _prediction(result)
    head = f"{result.b.name} against {result.a.name}: "
    tokens = result.token_ratio
    if tokens is not None and abs(tokens - 1) > SAME_TOKENS:
        return head + _at_equal_tokens(result, tokens)
    if _is_noise(result):
        return head + _no_difference(result)
    if result.step_speedup.mean < 1:
        return head + _slower(result)
    return head + _faster(result, overlapping)


def factor(value: float) -> str:
    """Return a factor in words: `1.24x faster`, `1.10x slower`."""
    return f"{value:.2f}x faster" if value >= 1 else f"{1 / value:.2f}x slower"


def _range(result: Comparison, *, slower: bool = False) -> str:
    if result.interval is None:
        return ""
    ends = result.step_speedup.low, result.step_speedup.high
    low, high = (1 / ends[1], 1 / ends[0]) if slower else ends
    return f" ({low:.2f} to {high:.2f})"


def _is_noise(result: Comparison) -> bool:
    if result.interval is None:
        return abs(result.step_speedup.mean - 1) < NOISE
    return result.step_speedup.low <= 1 <= result.step_speedup.high


def _faster(result: Comparison, overlapping: bool) -> str:
    speedup, rollout, share = result.step_speedup.mean, result.rollout_speedup, result.generation_share_a
    end = f"{speedup:.2f}x end to end{_range(result)}"
    if rollout is None or rollout < 1 + NOISE:
        largest = _largest(result, losses=False)
        return end + (f", most of it {_cost(largest)}" if largest else "")
    start = f"rollout {rollout:.2f}x faster"
    if share is None or rollout / speedup < BUT:
        return f"{start}, {end}"
    rest = f"{100 * (1 - share):.0f} %"
    if overlapping:
        limit = f"the trainer was already the bottleneck {rest} of the time"
    else:
        limit = f"{rest} of the step was not generation"
    bound = result.speedup_bound
    if bound is not None and speedup <= 1.02 * bound:
        end += f", of at most {bound:.2f}x {'without waiting' if overlapping else 'with this rollout'}"
    loss = _largest(result, losses=True)
    return f"{start}, but {limit}: {end}" + (f"; {_cost(loss)}" if loss else "")


def _slower(result: Comparison) -> str:
    text = f"{factor(result.step_speedup.mean)} end to end{_range(result, slower=True)}"
    loss = _largest(result, losses=True)
    if loss is not None:
        text += f", most of it {_cost(loss)}"
    rollout = result.rollout_speedup
    if rollout is not None and rollout > BUT:
        text += f", although rollout is {rollout:.2f}x faster"
    return text


def _no_difference(result: Comparison) -> str:
    text = f"no difference beyond noise: {result.step_speedup.mean:.2f}x end to end{_range(result)}"
    gain, loss = _largest(result, losses=False), _largest(result, losses=True)
    if gain is not None and loss is not None:
        text += f"; {_cost(gain)} and {_cost(loss)} offset each other"
    return text


def _at_equal_tokens(result: Comparison, tokens: float) -> str:
    apart = max(tokens, 1 / tokens)
    less = "more" if tokens > 1 else "fewer"
    start = "not comparable as they stand: " if apart >= NOT_COMPARABLE else ""
    speedup = result.step_speedup.mean
    text = f"{start}{apart:.2f}x {less} response tokens, {factor(speedup)} a step{_range(result, slower=speedup < 1)}"
    equal = result.speedup_at_equal_tokens
    return text if equal is None else f"{text}; at equal tokens about {factor(equal)}"


def _prediction(result: Comparison) -> str:
    predicted_is_b = result.b.kind == "predicted"
    predicted, measured = (result.b, result.a) if predicted_is_b else (result.a, result.b)
    ratio = 1 / result.step_speedup.mean if predicted_is_b else result.step_speedup.mean
    means = [sum(getattr(term, side) for term in result.terms) for side in ("a_s", "b_s")]
    predicted_s, measured_s = reversed(means) if predicted_is_b else means
    way = "too long" if ratio >= 1 else "too short"
    text = (
        f"{predicted.name} against {measured.name}: a step of {predicted_s:.1f} s predicted, {measured_s:.1f} s "
        f"measured, {100 * abs(ratio - 1):.0f} % {way}; {100 * (result.mean_step_error or 0.0):.0f} % off per step"
    )
    off = max(result.terms, key=lambda term: abs(term.difference.mean))
    sign = 1 if predicted_is_b else -1
    if abs(off.difference.mean) > WORTH_SAYING * measured_s:
        text += f"; most off is {WORDS[off.name]} ({sign * off.difference.mean:+.1f} s)"
    tokens = result.token_ratio
    if tokens is not None and abs(tokens - 1) > SAME_TOKENS:
        text += f"; it has {tokens if predicted_is_b else 1 / tokens:.2f}x the response tokens of the log"
    return text


def _largest(result: Comparison, *, losses: bool) -> Effect | None:
    """Return the effect that adds (or saves) most, if it is worth saying."""
    sign = 1 if losses else -1
    largest = max(result.waterfall, key=lambda effect: sign * effect.seconds)
    step_s = sum(term.a_s for term in result.terms)
    return largest if sign * largest.seconds > WORTH_SAYING * step_s else None


def _cost(effect: Effect) -> str:
    verb = "costs" if effect.seconds > 0 else "saves"
    return f"{WORDS.get(effect.name, TERMS.get(effect.name, effect.name))} ({verb} {abs(effect.seconds):.1f} s a step)"
