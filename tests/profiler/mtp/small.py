"""A small decoder with a head that is better than chance, for tests."""

from functools import cache

import torch

from profiler.models.decoder import Decoder, build_decoder
from profiler.models.rank import slice_rank
from profiler.models.weights import WeightMaker
from profiler.mtp.corpora import VOCAB_SIZE, own_tokens, stream, windows
from profiler.mtp.heads import Head, head_of
from profiler.mtp.ragged import generate
from profiler.mtp.train import HeadRecipe, Rollouts, read, train_head, train_target
from tests.profiler import shapes

PROMPT = 16


def new_decoder(seed: int = 0) -> Decoder:
    shape = shapes.small("trainable", vocab_size=VOCAB_SIZE, num_layers=2, num_full_attention_layers=2)
    return build_decoder(slice_rank(shape), WeightMaker.seeded(torch.device("cpu"), "fp32", seed))


def prompts(num: int, seed: int = 0) -> torch.Tensor:
    return windows(stream("math", 20_000, held_out=True), num, PROMPT, seed=seed)


@cache
def trained() -> tuple[Decoder, Head, Rollouts]:
    """Return a target that writes something like arithmetic, a head trained for it, and rollouts of the target."""
    torch.manual_seed(0)
    decoder = new_decoder()
    train_target(decoder, stream("math", 50_000), 60, batch=8, length=48)
    tokens = generate(decoder, prompts(64), 48)
    rollouts = read(decoder, tokens, own_tokens("math", tokens))
    head = head_of(decoder)
    train_head(head, rollouts, HeadRecipe("kl", 60))
    return decoder, head, rollouts
