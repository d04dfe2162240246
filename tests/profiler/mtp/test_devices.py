"""Whatever is made lies where its inputs lie: heads, verification and training need nothing but tensors on a GPU.

No GPU is needed to see it: torch makes tensors on `meta`, which holds no values, unless code says where. Whatever here
did not say so would meet tensors of the CPU and fail, as it would on a GPU.
"""

import copy
from collections.abc import Callable
from typing import TypeVar

import pytest

torch = pytest.importorskip("torch")

from profiler.mtp.acceptance import entropy_bins, of_own_tokens, place_bins, summarise  # noqa: E402
from profiler.mtp.chunked import chunked_divergences  # noqa: E402
from profiler.mtp.corpora import own_tokens, stream  # noqa: E402
from profiler.mtp.fused import NAMES, fused_divergences  # noqa: E402
from profiler.mtp.losses import LOSSES  # noqa: E402
from profiler.mtp.ragged import generate  # noqa: E402
from profiler.mtp.reinforce import Policy, RlRecipe  # noqa: E402
from profiler.mtp.rejection import VERIFIERS  # noqa: E402
from profiler.mtp.speculate import speculate  # noqa: E402
from profiler.mtp.study import plan  # noqa: E402
from profiler.mtp.train import HeadRecipe, OnlineHead, read, train_head, train_target  # noqa: E402
from profiler.mtp.units import run_unit  # noqa: E402
from tests.profiler.mtp.made_up import TINY  # noqa: E402
from tests.profiler.mtp.small import PROMPT, prompts, trained  # noqa: E402

T = TypeVar("T")


def elsewhere(work: Callable[[], T]) -> T:
    """Run with tensors being made on `meta` unless said otherwise."""
    with torch.device("meta"):
        return work()


def test_what_does_not_say_where_is_seen() -> None:
    with pytest.raises(RuntimeError):
        elsewhere(lambda: torch.zeros(3, device="cpu") + torch.arange(3))


@pytest.mark.parametrize("rule", list(VERIFIERS))
def test_speculation_and_counting_stay_where_the_prompts_are(rule: str) -> None:
    decoder, head, _ = trained()
    batch = prompts(4)

    def work() -> float:
        tokens, steps = speculate(decoder, head, batch, 12, verify_rule=rule, temperature=0.8, top_p=0.9)
        counts = of_own_tokens(steps, own_tokens("math", tokens)) | steps.live_SB
        chosen = [*entropy_bins(steps, counts, 2), *(one for _, one in place_bins(steps, counts, (PROMPT,)))]
        return sum(summarise(steps, one, rule).accept_length for one in chosen)

    assert elsewhere(work) >= 3.0


def test_training_stays_where_the_target_is() -> None:
    decoder, head, _ = trained()
    target, tuned, batch, text = copy.deepcopy(decoder), copy.deepcopy(head), prompts(4), stream("math", 2000)

    def work() -> list[float]:
        losses = train_target(target, text, 1, batch=2, length=16)
        tokens = generate(target, batch, 12)
        rollouts = read(target, tokens, own_tokens("math", tokens))
        losses += [loss for name in LOSSES for loss in train_head(tuned, rollouts, HeadRecipe(name, 1, 2))]
        made = Policy(target, RlRecipe(2, num_groups=2, group=2)).step(0)
        return [*losses, made.entropy_nats, OnlineHead(tuned, HeadRecipe("e2e_tv", 1)).step(rollouts)]

    assert all(number > 0 for number in elsewhere(work))


def test_divergences_from_hidden_states_stay_there() -> None:
    target, draft, labels, head = (torch.randn(5, 8), torch.randn(5, 8), torch.randint(30, (5,)), torch.randn(30, 8))
    draft.requires_grad_()

    def work() -> list[float]:
        fused = fused_divergences(target, draft, head, labels, NAMES, 0.7, 60)
        chunked = chunked_divergences(target, draft, head, labels, 0.7, 7)
        return [LOSSES[name](found, None).item() for name in LOSSES for found in (fused, chunked)]

    found = elsewhere(work)
    assert found[::2] == pytest.approx(found[1::2], rel=1e-5)


@pytest.mark.parametrize(("part", "seed"), plan(TINY))
def test_a_unit_of_the_study_runs_where_it_is_told_to(part: str, seed: int) -> None:
    unit = elsewhere(lambda: run_unit(TINY, part, seed, "cpu"))
    assert unit.cells or unit.rl


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("part", ["math", "sums"])
def test_a_unit_of_the_study_runs_on_a_gpu(part: str) -> None:
    unit = run_unit(TINY, part, 0, "cuda")
    assert unit.cells or unit.rl
