"""llama.cpp accepts as many drafts as p and q of its own weights say, and as our verifiers do on the same p and q.

Weights are written such that nothing but the last token matters: p and q of every token follow from two matrices, and
the acceptance of a run from a Markov chain over the tokens that verify steps begin with.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
pytest.importorskip("xllamacpp")

from profiler.models.hf_config import architecture_of  # noqa: E402
from profiler.mtp.rejection import VERIFIERS  # noqa: E402
from profiler.sources.llamacpp.session import EngineSession  # noqa: E402
from profiler.sources.llamacpp.weights_file import WeightsRequest, weights_file  # noqa: E402
from tests.profiler.llamacpp.tiny_engine import CONFIG, call, settings  # noqa: E402

F64 = NDArray[np.float64]
K = 3
DRAFTED_FROM = 10
"""llama.cpp samples drafts from so many of the likeliest tokens (top_k of its draft sampler)."""
RULES = {"greedy_draft": False, "rejection": True}
"""Verify rule -> whether llama.cpp is to sample its drafts."""


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, F64, F64]:
    """Return weights whose layers add nothing, with p and q of the token after each token, [V, V]."""
    folder = tmp_path_factory.mktemp("chain")
    model = architecture_of(CONFIG | {"tie_word_embeddings": False}, "chain", "a test")
    path = weights_file(WeightsRequest(model), folder)
    file, random = gguf.GGUFReader(path, "r+"), np.random.default_rng(1)
    tensors = {tensor.name: tensor.data for tensor in file.tensors}
    for name, values in tensors.items():
        if any(part in name for part in ("attn_output", "ssm_out", "ffn_down")):
            values[:] = 0.0
    width = CONFIG["hidden_size"]
    mixed = np.eye(width) + 0.5 * random.standard_normal((width, width)) / width**0.5
    tensors["blk.2.nextn.eh_proj.weight"][:] = np.concatenate([mixed, np.zeros((width, width))], axis=1)
    tensors["output.weight"][:] *= 2.5
    embedding, head = (tensors[f"{name}.weight"].astype(np.float64) for name in ("token_embd", "output"))
    file.data.flush()
    target = normed(embedding) @ head.T
    target[:, -1] = -np.inf  # ignore_eos
    return path, softmax(target), softmax(normed(normed(embedding) @ mixed.T) @ head.T)


def normed(rows: F64) -> F64:
    return rows / np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-6)


def softmax(logits: F64) -> F64:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def proposal(q: F64, rule: str) -> F64:
    kept = 1 if rule == "greedy_draft" else DRAFTED_FROM
    cut = np.where(q >= np.sort(q, axis=1)[:, -kept, None], q, 0.0)
    return cut / cut.sum(1, keepdims=True)


def expected(p: F64, q: F64) -> F64:
    """Return c_1..c_k in the long run: sum min(p, q) over chains of drafts, from where verify steps begin."""
    accepted = np.minimum(p, q)
    reach = [np.linalg.matrix_power(accepted, j) for j in range(K + 1)]
    # After j drafts the rest (p - q)_+ is emitted, after all of them p: the next step begins there.
    begin = np.full(len(p), 1.0 / len(p)) @ np.linalg.matrix_power(sum(reach[:K]) @ (p - accepted) + reach[K] @ p, 64)
    return np.array([begin @ power.sum(1) for power in reach[1:]])


@pytest.mark.parametrize("rule", RULES)
def test_llamacpp_accepts_what_p_and_q_say(rule: str, chain: tuple[Path, F64, F64]) -> None:
    path, p, q = chain
    config = dataclasses.replace(settings(path.parent), model=str(path), num_slots=4, slot_tokens=2048)
    session = EngineSession(dataclasses.replace(config, num_draft_tokens=K, samples_drafts=RULES[rule]))
    session.complete([call(1900, seed) for seed in range(4)])
    counters = session.counters()
    session.close()
    num_steps = counters["llamacpp:spec_decode_num_drafts_total"]
    per_position = "llamacpp:spec_decode_num_accepted_tokens_per_pos_total"
    counted = [counters[f'{per_position}{{position="{j}"}}'] / num_steps for j in range(K)]
    law = expected(p, proposal(q, rule))
    assert num_steps > 4000
    assert counted == pytest.approx(law, abs=4 * np.sqrt(law * (1 - law) / num_steps).max())
    if rule == "rejection":  # sampled drafts of the whole q would be accepted more often: the engine's q is cut
        assert expected(p, q)[0] - counted[0] > 0.1


@pytest.mark.parametrize("rule", RULES)
def test_our_verifiers_accept_what_p_and_q_say(rule: str, chain: tuple[Path, F64, F64]) -> None:
    _, p, q = chain
    drawn_from, num_chains, num_steps = torch.tensor(proposal(q, rule)), 512, 40
    target, counts = torch.tensor(p), torch.zeros(K)
    torch.manual_seed(0)
    last = torch.randint(len(p), (num_chains,))
    for step in range(num_steps):
        drafts, at = [], last
        for _ in range(K):
            at = torch.multinomial(drawn_from[at], 1)[:, 0]
            drafts.append(at)
        places = torch.stack([last, *drafts], dim=1)
        emitted, accepted = VERIFIERS[rule](target[places], places[:, 1:], drawn_from[places[:, :-1]])
        last = emitted.gather(1, accepted[:, None])[:, 0]
        if step >= 10:  # the first ones have not forgotten where they began
            counts += torch.stack([(accepted > j).sum() for j in range(K)])
    law = expected(p, proposal(q, rule))
    num = num_chains * (num_steps - 10)
    assert (counts / num).tolist() == pytest.approx(law, abs=4 * np.sqrt(law * (1 - law) / num).max())
