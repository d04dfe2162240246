"""The testbed's learner is GRPO as written, however a batch is cut, and goes on from its checkpoint as before."""

import math
import random
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from profiler.models.step import Step  # noqa: E402
from profiler.mtp.losses import log_softmax  # noqa: E402
from profiler.mtp.train import HeadRecipe  # noqa: E402
from profiler.testbed import trainer  # noqa: E402
from profiler.testbed.checkpoint import Checkpoint  # noqa: E402
from profiler.testbed.parts import Sums, length_at  # noqa: E402
from profiler.testbed.prepared import head_of, new_decoder  # noqa: E402
from profiler.testbed.trainer import Example, Grpo, advantages  # noqa: E402
from profiler.testbed.weights import Weights, copy_into  # noqa: E402
from tests.profiler.testbed_parts import config_of  # noqa: E402

CONFIG = config_of("synchronous")


def learner(*, head: bool = False, rate: float = 1e-3) -> Grpo:
    decoder = new_decoder(CONFIG)
    recipe = HeadRecipe("kl", 10, num_steps=2) if head else None
    return Grpo(decoder, head_of(decoder), rate, 1.0, recipe)


def examples(grpo: Grpo, num: int, seed: int = 0) -> list[Example]:
    """Return responses of several lengths with the policy's own log-probabilities."""
    draw = random.Random(seed)
    found = []
    for _ in range(num):
        prompt = tuple(draw.randrange(128) for _ in range(5))
        response = tuple(draw.randrange(128) for _ in range(draw.randint(1, 12)))
        log_probs = tuple(float(each) for each in log_probs_of(grpo, prompt, response))
        found.append(Example(prompt, response, log_probs, draw.gauss(0, 1)))
    return found


def log_probs_of(grpo: Grpo, prompt: Sequence[int], response: Sequence[int]) -> "torch.Tensor":
    tokens = torch.tensor([[*prompt, *response]])
    with torch.no_grad():
        hidden = grpo.decoder.forward(tokens[:, :-1], None, Step(0, tokens.shape[1] - 1))
        log_p = log_softmax(grpo.decoder.logits(hidden))[0]
    return log_p[range(len(prompt) - 1, tokens.shape[1] - 1), list(response)]


def test_advantages_are_standard_deviations_above_the_mean_of_the_group() -> None:
    found = advantages([0.0, 0.0, 1.0, 1.0])
    assert sum(found) == pytest.approx(0.0)
    assert found[2] == pytest.approx(0.5 / (math.sqrt(1 / 3) + 1e-4))
    assert advantages([0.7, 0.7]) == [0.0, 0.0]
    assert advantages([1.0]) == [0.0]


def test_samples_of_the_policy_itself_have_ratio_one_and_the_loss_is_minus_the_mean_advantage() -> None:
    grpo = learner()
    batch = examples(grpo, 12)
    learned = grpo.train(batch)
    num_tokens = sum(len(each.response) for each in batch)
    expected = -sum(each.advantage * len(each.response) for each in batch) / num_tokens
    assert learned.ratio_mean == pytest.approx(1.0, abs=1e-5)
    assert learned.clipped_fraction == 0.0
    assert learned.loss == pytest.approx(expected, abs=1e-4)


def test_where_an_engine_reports_no_log_probabilities_the_policy_is_taken_for_the_sampler() -> None:
    told, untold = learner(), learner()
    batch = examples(told, 6)
    mixed = [replace(each, log_probs=()) if number % 2 else each for number, each in enumerate(batch)]
    learned = [told.train(batch), untold.train(mixed)]
    assert learned[1].ratio_mean == pytest.approx(1.0, abs=1e-5)
    assert learned[1].loss == pytest.approx(learned[0].loss, abs=1e-5)
    for expected, found in zip(told.weights(), untold.weights(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_an_update_makes_good_responses_likelier_and_bad_ones_less() -> None:
    grpo = learner()
    good, bad = ((1, 2, 3), (4, 5, 6)), ((1, 2, 3), (7, 8, 9))
    before = [log_probs_of(grpo, *each) for each in (good, bad)]
    pairs = zip((good, bad), before, (1.0, -1.0), strict=True)
    batch = [Example(*each, tuple(log_p.tolist()), sign) for each, log_p, sign in pairs]
    for _ in range(3):
        grpo.train(batch)
    after = [log_probs_of(grpo, *each) for each in (good, bad)]
    assert after[0].sum() > before[0].sum()
    assert after[1].sum() < before[1].sum()


def test_a_ratio_beyond_the_bounds_teaches_nothing_where_it_would_go_further() -> None:
    grpo = learner()
    far = [
        Example(each.prompt, each.response, tuple(log_p - 1 for log_p in each.log_probs), 1.0)
        for each in examples(grpo, 4)
    ]
    before = [weight.clone() for weight in grpo.weights()]
    learned = grpo.train(far)
    assert learned.ratio_mean == pytest.approx(math.e, rel=1e-4)
    assert learned.clipped_fraction == 1.0
    assert learned.gradient_norm == 0.0
    assert all(torch.equal(old, new) for old, new in zip(before, grpo.weights(), strict=True))


def test_how_a_batch_is_cut_into_passes_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, norms = [], []
    for tokens_per_pass in (30, 10_000):
        monkeypatch.setattr(trainer, "TOKENS_PER_PASS", tokens_per_pass)
        grpo = learner()
        learned = grpo.train(examples(grpo, 20))
        losses.append(learned.loss)
        norms.append(learned.gradient_norm)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


@pytest.mark.parametrize("head", [False, True])
def test_a_learner_comes_back_from_its_checkpoint_as_if_nothing_had_been(tmp_path: Path, head: bool) -> None:
    straight, broken = learner(head=head), learner(head=head)
    batches = [examples(straight, 6, seed) for seed in range(3)]
    for batch in batches:
        straight.train(batch)
    for batch in batches[:2]:
        broken.train(batch)
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.load() is None
    checkpoint.save(2, broken.state())
    again = learner(head=head)
    number, state = checkpoint.load() or (0, {})
    assert number == 2
    again.load(state)
    again.train(batches[2])
    assert all(torch.equal(a, b) for a, b in zip(straight.weights(), again.weights(), strict=True))


def test_a_writer_that_is_killed_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    content = {"weights": [torch.arange(1000.0), torch.ones(2, 3)], "rest": (1, "two", None)}
    for number in range(1, 4):
        checkpoint.save(number, {**content, "number": number})
    path = tmp_path / "checkpoint-0"
    whole = path.read_bytes()
    checkpoint.save(4, {**content, "number": 4})
    after = path.read_bytes()
    # Killed after any of its writes: the head is the old, invalid, and valid only at the very end.
    invalid = struct.pack("<q", -1) + after[8:24]
    for cut in (24, 500, len(after)):
        path.write_bytes(invalid + after[24:cut] + whole[cut:])
        number, found = checkpoint.load() or (0, {})
        assert (number, found["number"], found["rest"]) == (3, 3, (1, "two", None))
        assert torch.equal(found["weights"][0], content["weights"][0])
    path.write_bytes(b"")
    assert (checkpoint.load() or (0,))[0] == 3
    path.write_bytes(after)
    assert (checkpoint.load() or (0,))[0] == 4


def test_only_an_online_head_moves_and_the_policy_does_not_move_with_it() -> None:
    frozen, online = learner(), learner(head=True)
    batch = examples(frozen, 8)
    assert frozen.train(batch).head_loss is None
    assert (online.train(batch).head_loss or 0.0) > 0.0
    start = learner()
    num_policy = len(start.weights()) - len(start.head.parameters())
    for index, (old, one, two) in enumerate(zip(start.weights(), frozen.weights(), online.weights(), strict=True)):
        if index < num_policy:
            assert torch.equal(one, two)
        else:
            assert torch.equal(old, one)
    assert not all(torch.equal(a, b) for a, b in zip(start.head.parameters(), online.head.parameters(), strict=True))


def test_weights_travel_as_one_array() -> None:
    source, target = learner(), learner(rate=0.1)
    target.train(examples(target, 4))
    sent = Weights.of(source.weights(), 3)
    assert sent.flat.flags.c_contiguous
    assert sent.num_bytes == 4 * sum(weight.numel() for weight in source.weights())
    copy_into(target.weights(), sent.tensors())
    assert all(torch.equal(a, b) for a, b in zip(source.weights(), target.weights(), strict=True))


def test_imposed_lengths_follow_their_quantiles_in_the_logarithm() -> None:
    quantiles = ((0.0, 10), (0.5, 20), (1.0, 80))
    assert [length_at(quantiles, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == [10, 14, 20, 40, 80]
    task = Sums(CONFIG.model_copy(update={"response_tokens": quantiles, "max_response_tokens": 50}))
    lengths = [task.num_tokens(group, number) for group in range(200) for number in range(2)]
    assert min(lengths) >= 10
    assert max(lengths) == 50
    assert sorted(lengths)[200] == pytest.approx(20, abs=3)
    assert task.num_tokens(7, 1) == lengths[15]
    assert Sums(CONFIG).num_tokens(0, 0) is None
