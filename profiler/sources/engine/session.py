"""Session: one sample after another from one engine that nobody else uses, each checked against the engine's counts.

A sample is a batch of equal requests with prompts of random token ids, sent once for one token so that their prefixes
are cached, and once more to be timed. Does not know which samples are wanted.
"""

import random
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from profiler.errors import EngineError, UsageError
from profiler.ledger import Sample
from profiler.point import Point
from profiler.sources.engine.counters import IDLE_PATIENCE_S, Counters, read_counters, read_metrics
from profiler.sources.engine.facts import MAX_DRAFT_TOKENS, Facts, find_facts, sglang_draft_tokens, sglang_info
from profiler.sources.engine.http import Clock, Endpoint, RefusedError, wait_until
from profiler.sources.engine.load import Answer, run_batch, steady_part
from profiler.sources.engine.request import MAX_DOUBLINGS, MIN_PROMPT_TOKENS, MIN_STEPS, EngineRequest
from traces.latency import Operation

SETTLE_S = 3.0
"""How long counters may lag behind the last token."""
DEFAULT_VOCAB_SIZE = 16_000
"""Below the vocabulary of any model that has an MTP layer, special tokens included."""
PROBE_TOKENS = 64
BUSY_SHARE = 0.7
"""Of one core: above it the client itself may be what is timed."""


@dataclass(slots=True)
class Session:
    """An engine under measurement."""

    endpoint: Endpoint
    request: EngineRequest
    facts: Facts
    num_draft_tokens: int
    clock: Clock = time.perf_counter
    largest_busy_share: float = 0.0
    """Of one core, by this process while it timed a batch."""
    _is_open: bool = False
    _last: Counters | None = field(default=None, repr=False)

    @classmethod
    def open(cls, endpoint: Endpoint, request: EngineRequest, clock: Clock = time.perf_counter) -> "Session":
        """Return a session with the engine there, once it is idle and its k is known.

        Raises:
            EngineError: Nobody answers, no engine does, or somebody else uses it.
            UsageError: The server's k is another than the user's, or cannot be told.
        """
        facts = find_facts(endpoint)
        session = cls(endpoint, request, facts, facts.num_draft_tokens or 0, clock)
        session._wait_until_idle()
        told = facts.num_draft_tokens
        if told is None:
            told = session._probe()
        k = request.num_draft_tokens if told is None else told
        if k is None:
            raise UsageError(f"{endpoint}: {facts.engine} does not tell its draft length; give --k N (0: no drafts)")
        if request.num_draft_tokens not in (None, k):
            raise UsageError(f"--k {request.num_draft_tokens}: the server drafts {k} tokens; drop --k or restart it")
        if k > MAX_DRAFT_TOKENS:
            raise UsageError(f"{endpoint}: drafts {k} tokens, traces hold up to {MAX_DRAFT_TOKENS}; lower its k")
        session.num_draft_tokens = k
        session._is_open = True
        return session

    def sample(self, purpose: str, point: Point, sweep: int) -> Sample:
        """Return one sample; one that the server refuses to serve is infeasible.

        Raises:
            EngineError: The server broke off, restarted, changed k, or served somebody else too.
        """
        reason = self._beyond_limits(point)
        if reason is not None:
            return Sample(purpose, point, sweep, None, reason)
        try:
            if point.operation is Operation.PREFILL:
                return self._prefill(purpose, point, sweep)
            return self._step(purpose, point, sweep)
        except RefusedError as error:
            if error.status in (400, 413, 422):  # e.g. a context beyond the model's
                return Sample(purpose, point, sweep, None, str(error)[:300])
            raise

    def _beyond_limits(self, point: Point) -> str | None:
        """Return why the server cannot serve this point, as far as it told its limits."""
        most, longest = self.facts.max_running, self.facts.max_tokens_per_seq
        if most is not None and point.batch > most:
            return f"the server runs at most {most} sequences"
        if point.operation is Operation.PREFILL:
            needed = point.tokens_per_seq + 1
        else:
            needed = sum(self.request.tokens_into(point.context_tokens, self.request.num_tokens))
        if longest is not None and needed > longest:
            return f"needs {needed} tokens per sequence, the server takes {longest}"
        return None

    def _prefill(self, purpose: str, point: Point, sweep: int) -> Sample:
        # Never sent before, so nothing of it is cached.
        prompt = self._prompt(secrets.token_hex(8), point.tokens_per_seq)
        (answer,), counted = self._run([self._body(prompt, 1)])
        return Sample(purpose, point, sweep, answer.arrivals_s[0] - answer.sent_s, num_repeats=1, counters=counted)

    def _step(self, purpose: str, point: Point, sweep: int) -> Sample:
        for doubling in range(MAX_DOUBLINGS + 1):
            wanted = self.request.num_tokens * 2**doubling
            length, num_tokens = self.request.tokens_into(point.context_tokens, wanted)
            names = [f"{self.request.seed} {point.context_tokens} {index}" for index in range(point.batch)]
            prompts = [self._prompt(name, length) for name in names]
            self._run([self._body(prompt, 1, slot) for slot, prompt in enumerate(prompts)])
            busy_s, began_s = time.process_time(), time.perf_counter()
            answers, counted = self._run([self._body(prompt, num_tokens, slot) for slot, prompt in enumerate(prompts)])
            share = (time.process_time() - busy_s) / (time.perf_counter() - began_s)
            if counted.get("num_preempted"):
                reason = f"the server preempted {counted['num_preempted']:.0f} sequences: its KV cache is too small"
                return Sample(purpose, point, sweep, None, reason)
            part = steady_part(answers, *self._steps(answers, counted))
            if part is not None and part.num_steps >= MIN_STEPS:
                self.largest_busy_share = max(self.largest_busy_share, share)
                steps = round(part.num_steps)
                return Sample(purpose, point, sweep, part.step_s, num_repeats=steps, counters=counted)
            if num_tokens < wanted:
                break
        reason = f"its requests overlap for under {MIN_STEPS} steps: the server runs fewer, or prefills slowly"
        return Sample(purpose, point, sweep, None, reason)

    def _steps(self, answers: list[Answer], counted: dict[str, float]) -> tuple[float, float]:
        """Return verify steps per emitted token, and all steps; the first token of an answer belongs to its prefill."""
        emitted = float(sum(answer.num_tokens - 1 for answer in answers))
        k = self.num_draft_tokens
        if k == 0:
            if counted.get("num_drafts"):
                raise EngineError(f"the engine drafted {counted['num_drafts']:.0f} times at k = 0; did it change?")
            return 1.0, emitted
        drafts = counted.get("num_drafts", 0.0)
        if drafts < 1:
            raise EngineError(f"the engine counted no drafts at k = {k}; is speculation on, and not off at this batch?")
        accepted = counted.get("num_accepted")
        if accepted is not None and emitted - accepted > drafts + max(2 * len(answers), 0.03 * drafts):
            raise EngineError(
                f"the engine drafted in {drafts:.0f} of {emitted - accepted:.0f} steps; make it draft in every step "
                "(no limit on batch, no minimum probability)"
            )
        wanted = k * drafts
        told = counted.get("num_draft_tokens", wanted)
        if wanted - told > len(answers) * k * (k + 1) / 2 or told > wanted:  # drafts shrink at the end of a request
            raise EngineError(
                f"k changed: {told / drafts:.2f} tokens per draft, {k} before; fix the engine's k, then repeat"
            )
        # Tokens accepted beyond the end of a request are counted, but not emitted.
        length = 1 + accepted / drafts if accepted is not None else emitted / drafts
        return 1 / length, drafts

    def _run(self, bodies: list[dict[str, Any]]) -> tuple[list[Answer], dict[str, float]]:
        """Send a batch, and hold what came back against what the engine counted meanwhile."""
        before = self._counters()
        if self._last is not None and before is not None:
            before.since(self._last)
        answers = run_batch(self.endpoint, bodies, self.clock)
        expected = sum(body["max_tokens"] for body in bodies)
        received = sum(answer.num_tokens for answer in answers)
        if received < expected:
            raise EngineError(f"{expected} tokens were asked for, {received} came; does the server honour ignore_eos?")
        if before is None:
            return answers, {}
        found: list[Counters] = []

        def is_settled() -> bool:
            now = self._counters()
            assert now is not None
            found[:] = [now]
            return now.since(before).generated_tokens in (None, received)

        settled = wait_until(is_settled, SETTLE_S)
        counted = found[0].since(before)
        if not settled:
            self._compare(counted.generated_tokens or 0.0, received)
        self._last = found[0]
        if self._is_open:
            self._check_draft_tokens(found[0])
        return answers, _as_dict(counted)

    def _compare(self, counted: float, received: int) -> None:
        # llama.cpp counts a request's first token on some paths and not on others.
        tolerance = 0.02 * received + 2 * (self.num_draft_tokens + 1)
        if counted < received - tolerance:
            raise EngineError(
                f"the engine sent {received} tokens and counted {counted:.0f} of them; did it restart? then repeat"
            )
        if counted > received + tolerance:
            raise EngineError(
                f"the engine generated {counted:.0f} tokens, {received} of them for this profile; "
                "profile a server that nobody else uses, then repeat"
            )

    def _check_draft_tokens(self, now: Counters) -> None:
        told: int | None = None
        if self.facts.engine == "sglang":
            told = sglang_draft_tokens(sglang_info(self.endpoint))
        elif now.accepted_by_position:
            told = len(now.accepted_by_position)
        if told is not None and told != self.num_draft_tokens:
            raise EngineError(f"k changed: {told} now, {self.num_draft_tokens} before; fix the engine's k, then repeat")

    def _wait_until_idle(self) -> None:
        found: list[float] = [0.0]

        def is_idle() -> bool:
            counters = self._counters()
            found[0] = (counters.num_busy or 0.0) if counters is not None else 0.0
            return found[0] == 0

        if not wait_until(is_idle, min(IDLE_PATIENCE_S[self.facts.engine], self.request.timeout_s), pause_s=0.2):
            raise EngineError(
                f"{self.endpoint}: {found[0]:.0f} requests of somebody else are there; profile a server nobody uses"
            )

    def _probe(self) -> int | None:
        """Return k as the counters show it after one request, None where they show nothing."""
        self._run([self._body(self._prompt("probe", MIN_PROMPT_TOKENS), PROBE_TOKENS)])
        counters = self._last
        if counters is None or counters.drafts is None:
            return None
        return len(counters.accepted_by_position) if counters.drafts else 0

    def _counters(self) -> Counters | None:
        metrics = read_metrics(self.endpoint)
        if metrics is None and self._last is not None:
            raise EngineError(f"{self.endpoint}/metrics: is gone; repeat the command once it is back")
        return None if metrics is None else read_counters(metrics, self.facts.engine)

    def _prompt(self, name: str, num_tokens: int) -> list[int]:
        high = self.request.vocab_size or min(self.facts.vocab_size or DEFAULT_VOCAB_SIZE, DEFAULT_VOCAB_SIZE)
        return random.Random(name).choices(range(min(100, high // 4), high), k=num_tokens)

    def _body(self, prompt: list[int], num_tokens: int, slot: int = 0) -> dict[str, Any]:
        # llama.cpp decodes active slots in one pass only if they stand side by side, and counts tokens in its timings.
        own = {"id_slot": slot, "timings_per_token": True} if self.facts.engine == "llama.cpp" else {}
        return own | {
            "model": self.facts.model_id,
            "prompt": prompt,
            "max_tokens": num_tokens,
            "ignore_eos": True,
            "temperature": self.request.temperature,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }


def _as_dict(counted: Counters) -> dict[str, float]:
    values = {
        "num_generated": counted.generated_tokens,
        "num_drafts": counted.drafts,
        "num_draft_tokens": counted.draft_tokens,
        "num_accepted": counted.accepted_tokens,
        "num_preempted": counted.num_preempted,
    }
    values |= {f"accepted_{j}": value for j, value in enumerate(counted.accepted_by_position, start=1)}
    return {name: value for name, value in values.items() if value is not None}
