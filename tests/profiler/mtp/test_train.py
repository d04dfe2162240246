"""Training lowers every loss, and a head's loss reaches the head only."""

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from profiler.models.weights import tensors_of  # noqa: E402
from profiler.mtp import train  # noqa: E402
from profiler.mtp.corpora import stream  # noqa: E402
from profiler.mtp.heads import Head, head_of  # noqa: E402
from profiler.mtp.losses import LOSSES  # noqa: E402
from profiler.mtp.train import HeadRecipe, OnlineHead, head_loss, train_head, train_target, warm_up  # noqa: E402
from tests.profiler.mtp.small import new_decoder, trained  # noqa: E402


def snapshot(part: object) -> "list[torch.Tensor]":
    return [tensor.clone() for tensor in tensors_of(part)]


def same(part: object, before: "list[torch.Tensor]") -> bool:
    return all(torch.equal(*both) for both in zip(tensors_of(part), before, strict=True))


def test_a_target_learns_its_text_and_its_head_stays_as_it_was() -> None:
    decoder = new_decoder(1)
    before = snapshot(decoder.mtp)
    losses = train_target(decoder, stream("math", 20_000), 25, batch=8, length=32)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert same(decoder.mtp, before)
    assert not any(weight.requires_grad for weight in tensors_of(decoder))


@pytest.mark.parametrize("loss", list(LOSSES))
def test_every_loss_falls_and_the_target_stays_as_it_was(loss: str) -> None:
    decoder, head, rollouts = trained()
    before = snapshot([decoder.layers, decoder.embedding_VH, decoder.head_VH])
    tuned = copy.deepcopy(head)
    recipe = HeadRecipe(loss, 20, learning_rate=3e-4, seed=1)
    first = head_loss(tuned, rollouts, loss, recipe).item()
    train_head(tuned, rollouts, recipe)
    last = head_loss(tuned, rollouts, loss, recipe).item()
    assert last < first
    assert same([decoder.layers, decoder.embedding_VH, decoder.head_VH], before)


def test_training_is_the_same_every_time() -> None:
    _, head, rollouts = trained()
    runs = [train_head(copy.deepcopy(head), rollouts, HeadRecipe("e2e_tv", 3, seed=5)) for _ in range(2)]
    assert runs[0] == runs[1]


def test_kl_comes_first_where_it_is_asked_for() -> None:
    decoder, _, rollouts = trained()
    cold = head_of(new_decoder(3))
    cold = Head(cold.mtp, decoder.embedding_VH, decoder.head_VH)
    first = train_head(copy.deepcopy(cold), rollouts, HeadRecipe("tv", 2, kl_share=0.5, seed=2))
    by_kl = train_head(copy.deepcopy(cold), rollouts, HeadRecipe("kl", 1, seed=2))
    assert first[0] == by_kl[0] > 1.0 > first[1]  # total variation is below 1, KL of a cold head is not


def test_batches_of_several_rollouts_come_in_turn_each_at_its_temperature() -> None:
    _, head, rollouts = trained()
    hot = replace(rollouts, temperature=3.0)
    losses = train_head(copy.deepcopy(head), [rollouts, hot], HeadRecipe("kl", 2, learning_rate=0.0, seed=2))
    alone = [
        train_head(copy.deepcopy(head), pool, HeadRecipe("kl", 2, learning_rate=0.0, seed=2))
        for pool in (rollouts, hot)
    ]
    assert losses == [alone[0][0], alone[1][1]]
    assert alone[1][1] != alone[0][1]


def test_an_online_head_learns_beside_the_target_and_leaves_it_alone() -> None:
    decoder, head, rollouts = trained()
    tuned = copy.deepcopy(head)
    before = snapshot([decoder.layers, decoder.embedding_VH, decoder.head_VH])
    online = OnlineHead(tuned, HeadRecipe("tv", 1, learning_rate=5e-4))
    losses = [online.step(rollouts) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert same([decoder.layers, decoder.embedding_VH, decoder.head_VH], before)
    assert not any(weight.requires_grad for weight in tensors_of(tuned))


def test_the_learning_rate_rises_over_the_first_three_per_cent() -> None:
    assert [warm_up(i, 100) for i in (0, 1, 2, 3, 99)] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])
    assert warm_up(0, 1) == 1.0


@pytest.mark.parametrize("loss", list(LOSSES))
def test_a_head_learns_the_same_where_whole_logits_would_be_too_large(
    loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, head, rollouts = trained()
    runs = []
    for most in (train.WHOLE_LOGITS, 0):
        monkeypatch.setattr(train, "WHOLE_LOGITS", most)
        tuned = copy.deepcopy(head)
        losses = train_head(tuned, rollouts, HeadRecipe(loss, 3, learning_rate=3e-4))
        runs.append((losses, torch.cat([weight.flatten() for weight in tuned.parameters()])))
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-4)
    assert torch.allclose(runs[0][1], runs[1][1], atol=1e-4)
