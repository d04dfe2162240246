"""The testbed's own rollout engine: continuous batching, KV caches in slots, MTP drafts, lossless verification.

A step drafts k tokens of every running sequence, verifies them, and runs the head over the verified places, so that
the next step begins with a draft at hand. New sequences are prefilled between two steps, those of one admission as one
pass without padding, and get their first token there. Running sequences always hold the first slots: the cost of a step
depends on how many run, not on how many could. Every response reads its own prompt; there is no prefix cache.
"""

# Shape letters: S slots, B running sequences, T tokens of a pass, Q = k + 1 tokens of a sequence, L places of a slot,
# H hidden, V vocabulary.

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.models.decoder import Decoder
from profiler.models.glue import NORM_EPSILON
from profiler.mtp.heads import Head
from profiler.mtp.ragged import grouped
from profiler.mtp.rejection import VERIFIERS, draw, process, propose
from profiler.testbed.engine import Counters, Finished, Request
from profiler.testbed.prepared import weights_of
from profiler.testbed.slots import PassMaker, Places, SlotLayer
from profiler.testbed.texts import Texts, Whole


class Part(StrEnum):
    """What a step of an engine spends its time on."""

    HOST = "host"
    """Everything that is none of the others."""
    TARGET = "target"
    """The target's pass, up to the chances that are sampled from."""
    SAMPLE = "sample"
    """Drawing tokens, or verifying drafts."""
    FIRST_DRAFT = "first_draft"
    """The head's pass over verified places."""
    LATER_DRAFT = "later_draft"
    """The head's passes over its own drafts."""
    LM_HEAD = "lm_head"
    """Logits of the head, once per draft."""
    PROPOSE = "propose"
    """Drawing drafts."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine samples."""

    k: int
    """Draft tokens; 0 decodes plainly."""
    verify_rule: str
    temperature: float
    end_token: int
    max_response_tokens: int


@dataclass(frozen=True, slots=True)
class _Live:
    """A running sequence."""

    request: Request
    order: int
    started_s: float


class TorchEngine:
    """A `RolloutEngine` over a small decoder and its draft head, whose tensors it shares with nobody."""

    def __init__(
        self, decoder: Decoder, head: Head, sampling: Sampling, num_slots: int, max_prompt_tokens: int
    ) -> None:
        self.version = 0
        self.sampling = sampling
        self.watch: Callable[[Part], None] = _nobody
        """Called at the end of every part of a step but the last, which is HOST."""
        self._decoder, self._head, self._rule = decoder, head, VERIFIERS[sampling.verify_rule]
        self._device = decoder.embedding_VH.device
        self._max_prompt_tokens = max_prompt_tokens
        num_places = max_prompt_tokens + sampling.max_response_tokens + sampling.k + 1
        self._layers = [SlotLayer(layer, num_slots, num_places) for layer in decoder.layers]
        self._head_layer = SlotLayer(head.mtp.layer, num_slots, num_places)
        self._passes = PassMaker(num_places, grouped(decoder.layers[0]).head_size, self._device)
        self._ahead_Q = torch.arange(sampling.k + 1, device=self._device)
        self._num_slots, self._live, self._num_admitted = num_slots, list[_Live](), 0
        self._waiting: deque[Request] = deque()
        self._counters = Counters(accepted_at=[0] * sampling.k)
        self._texts = Texts(num_slots, num_places)
        self._state_SH = torch.zeros(num_slots, decoder.embedding_VH.shape[1], device=self._device)
        """The head's hidden state that the first draft is made from."""

    @property
    def num_running(self) -> int:
        """Sequences that hold a slot."""
        return len(self._live)

    @property
    def num_waiting(self) -> int:
        """Requests that hold none yet."""
        return len(self._waiting)

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests: first come, first served.

        Raises:
            ValueError: A prompt or a response that no slot can hold, or a response that has nothing left to generate.
        """
        for request in requests:
            if not 0 < len(request.prompt) <= self._max_prompt_tokens:
                raise ValueError(
                    f"sample {request.sample_id}: a prompt of {len(request.prompt)} tokens, slots hold 1.."
                    f"{self._max_prompt_tokens}; build the engine for longer prompts"
                )
            if not len(request.generated) < self._most_tokens(request) <= self.sampling.max_response_tokens:
                raise ValueError(
                    f"sample {request.sample_id}: {len(request.generated)} of {self._most_tokens(request)} tokens "
                    f"generated, responses have up to {self.sampling.max_response_tokens}; submit what is not finished"
                )
        self._waiting.extend(requests)

    def step(self) -> list[Finished]:
        """Admit and prefill what has room, then make one step of all running sequences; [] where nothing runs."""
        if not self._live and not self._waiting:
            return []
        began_s = time.perf_counter()
        with torch.inference_mode():
            finished = self._admit() if self._waiting else []
            self._counters.prefill_s += time.perf_counter() - began_s
            if self._live:
                finished += self._advance()
        self._counters.busy_s += time.perf_counter() - began_s
        return finished

    def abort(self) -> list[Request]:
        """Return everything running and waiting, with what it has, in the order of submission; nothing runs then."""
        running = sorted(range(len(self._live)), key=lambda slot: self._live[slot].order)
        requests = [self._texts.with_what_it_has(slot, self._live[slot].request) for slot in running]
        requests += self._waiting
        self._live.clear()
        self._waiting.clear()
        return requests

    def set_weights(self, weights: Sequence[Tensor], version: int) -> None:
        """Copy new weights, in the order of `weights_of`; running sequences go on, on a KV cache of mixed policies.

        Raises:
            ValueError: Another number of tensors.
        """
        own = weights_of(self._decoder, self._head)
        with torch.inference_mode():
            for target, source in zip(own, weights, strict=True):
                target.copy_(source)
        for layer in (*self._layers, self._head_layer):
            layer.refresh()
        self.version = version

    def take_counters(self) -> Counters:
        """Return the counters, and begin new ones."""
        taken, self._counters = self._counters, Counters(accepted_at=[0] * self.sampling.k)
        return taken

    def stand_at(self, num_known: Sequence[int]) -> None:
        """Let the running sequences have so many tokens, whatever these are: for timing."""
        self._texts.known_S[: len(num_known)] = num_known

    def _most_tokens(self, request: Request) -> int:
        return self.sampling.max_response_tokens if request.num_tokens is None else request.num_tokens

    def _admit(self) -> list[Finished]:
        """Give free slots to waiting requests and prefill them, until none is free or none waits."""
        finished = []
        while self._waiting and len(self._live) < self._num_slots:
            first, texts = len(self._live), list[tuple[int, ...]]()
            started_s = time.perf_counter()
            while self._waiting and len(self._live) < self._num_slots:
                request = self._waiting.popleft()
                self._texts.seat(len(self._live), request, self._most_tokens(request))
                self._live.append(_Live(request, self._num_admitted, started_s))
                self._num_admitted += 1
                texts.append(request.prompt + request.generated)
            finished += self._prefill(first, texts)
        return finished

    def _prefill(self, first: int, texts: list[tuple[int, ...]]) -> list[Finished]:
        """Read whole texts in the slots from `first` on; sample a token of each."""
        lengths = [len(text) for text in texts]
        places = self._passes.from_start(first, lengths)
        tokens_T = torch.tensor([token for text in texts for token in text], device=self._device)
        last_B = torch.tensor(lengths, device=self._device).cumsum(0) - 1
        hidden_TH = self._target_pass(tokens_T, places)
        target_B1V = process(self._decoder.logits(hidden_TH[last_B]), self.sampling.temperature)[:, None]
        new_B1 = draw(target_B1V)
        if self.sampling.k > 0:
            next_T = tokens_T.roll(-1)
            next_T[last_B] = new_B1[:, 0]
            self._state_SH[first : first + len(texts)] = self._head_pass(hidden_TH, next_T, places)[last_B]
        counters = self._counters
        counters.num_prefills += len(texts)
        counters.num_prefill_tokens += len(tokens_T)
        return self._emit(first, target_B1V, new_B1, np.ones(len(texts), np.int64))

    def _advance(self) -> list[Finished]:
        """Make one step of all running sequences."""
        batch, k = len(self._live), self.sampling.k
        known_B = self._texts.known_S[:batch]
        end = int(known_B.max())
        place_B1 = self._from_host(known_B - 1)[:, None]
        tokens_B1 = self._from_host(self._texts.last_tokens(batch))[:, None]
        counters = self._counters
        counters.num_steps += 1
        counters.num_seq_steps += batch
        self.watch(Part.HOST)
        if k == 0:
            target_B1V = self._chances(self._target_pass(tokens_B1[:, 0], self._passes.even(place_B1, end)), batch)
            self.watch(Part.TARGET)
            new_B1 = draw(target_B1V)
            self.watch(Part.SAMPLE)
            return self._emit(0, target_B1V, new_B1, np.ones(batch, np.int64))
        chain_Bk, proposal = self._draft(place_B1 - 1, end - 1)
        places = self._passes.even(place_B1 + self._ahead_Q, end + k)
        hidden_TH = self._target_pass(torch.cat((tokens_B1, chain_Bk), dim=1).view(-1), places)
        target_BQV = self._chances(hidden_TH, batch)
        self.watch(Part.TARGET)
        emitted_BQ, accepted_B = self._rule(target_BQV, chain_Bk, proposal)
        self.watch(Part.SAMPLE)
        states_BQH = self._head_pass(hidden_TH, emitted_BQ.view(-1), places).view(batch, k + 1, -1)
        self._state_SH[:batch] = states_BQH[torch.arange(batch, device=self._device), accepted_B]
        self.watch(Part.FIRST_DRAFT)
        counters.num_draft_tokens += batch * k
        num_accepted_B = accepted_B.cpu().numpy()
        at_least = np.bincount(num_accepted_B, minlength=k + 1)[::-1].cumsum()[::-1].tolist()
        for position in range(k):
            counters.accepted_at[position] += at_least[position + 1]
        return self._emit(0, target_BQV, emitted_BQ, num_accepted_B + 1)

    def _draft(self, place_B1: Tensor, end: int) -> tuple[Tensor, Tensor | None]:
        """Return drafts [B, k], and what they were drawn from; `place` is that of the head's state."""
        batch = len(place_B1)
        state_BH, proposals, chain = self._state_SH[:batch], [], list[Tensor]()
        for index in range(self.sampling.k):
            if index > 0:
                places = self._passes.even(place_B1 + index, end + index)
                state_BH = self._head_pass(state_BH, chain[-1], places)
                self.watch(Part.LATER_DRAFT)
            logits_BV = self._head.logits(state_BH)
            self.watch(Part.LM_HEAD)
            draft_B, proposal_BV = propose(logits_BV, self.sampling.verify_rule, self.sampling.temperature)
            self.watch(Part.PROPOSE)
            chain.append(draft_B)
            proposals.append(proposal_BV)
        known = [proposal for proposal in proposals if proposal is not None]
        return torch.stack(chain, dim=1), torch.stack(known, dim=1) if known else None

    def _target_pass(self, tokens_T: Tensor, places: Places) -> Tensor:
        x_TH = F.embedding(tokens_T, self._decoder.embedding_VH)
        for layer in self._layers:
            x_TH = layer.forward(x_TH, places)
        return F.rms_norm(x_TH, x_TH.shape[-1:], self._decoder.final_norm, NORM_EPSILON)

    def _head_pass(self, hidden_TH: Tensor, tokens_T: Tensor, places: Places) -> Tensor:
        x_TH = self._head_layer.forward(self._head.enter(hidden_TH, tokens_T), places)
        return F.rms_norm(x_TH, x_TH.shape[-1:], self._head.mtp.final_norm, NORM_EPSILON)

    def _chances(self, hidden_TH: Tensor, batch: int) -> Tensor:
        logits = self._decoder.logits(hidden_TH)
        return process(logits, self.sampling.temperature).view(batch, -1, logits.shape[-1])

    def _emit(self, first: int, target_BQV: Tensor, new_BQ: Tensor, num_B: Whole) -> list[Finished]:
        """Append the first `num` new tokens of each sequence from slot `first` on; end those that have ended."""
        log_p_BQ = target_BQV.gather(2, new_BQ[..., None])[..., 0].log_().cpu().numpy()
        entropy_BQ = torch.special.entr(target_BQV).sum(-1).cpu().numpy()
        tokens_BQ = new_BQ.cpu().numpy()
        kept_B, ended = self._texts.append(first, tokens_BQ, log_p_BQ, num_B, self.version, self.sampling.end_token)
        counters, num_kept = self._counters, int(kept_B.sum())
        counters.num_tokens += num_kept
        counters.num_cut_tokens += int(num_B.sum()) - num_kept
        is_kept_BQ = np.arange(entropy_BQ.shape[1]) < kept_B[:, None]
        counters.entropy_sum_nats += float((entropy_BQ * is_kept_BQ).sum())
        return self._finish(ended) if ended else []

    def _finish(self, slots: list[int]) -> list[Finished]:
        """Return the responses in these slots, and close the gaps that they leave."""
        finished_s, finished = time.perf_counter(), []
        for slot in slots:
            live = self._live[slot]
            whole = self._texts.with_what_it_has(slot, live.request)
            finished.append(
                Finished(live.request, whole.generated, whole.versions, whole.log_probs, live.started_s, finished_s)
            )
        for slot in reversed(slots):
            last = len(self._live) - 1
            if slot < last:
                self._move(last, slot)
            self._live.pop()
        return finished

    def _move(self, source: int, target: int) -> None:
        known = int(self._texts.known_S[source])
        for layer in (*self._layers, self._head_layer):
            layer.move(source, target, known)
        self._texts.move(source, target)
        self._state_SH[target] = self._state_SH[source]
        self._live[target] = self._live[source]

    def _from_host(self, values: Whole) -> Tensor:
        return torch.from_numpy(values).to(self._device)


def _nobody(part: Part) -> None:
    del part
