"""llama.cpp as a rollout engine of the testbed: a server in this process, and a thread for every request in flight.

Real are continuous batching, slots, prompts that join between steps of others, the MTP layer's drafts, and what all of
it takes. The weights are random ones, which no sync changes; where a config forces acceptance, the server takes so many
drafts for right. It tells how many tokens a response has, not which, so that a trainer is given worked sums of the same
length. Nothing can be aborted with what it has.
"""

import queue
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.errors import DeviceError, RunError
from profiler.models.hf_config import architecture_of
from profiler.sources.llamacpp.session import Answer, Call, EngineSession, EngineSettings
from profiler.sources.llamacpp.weights_file import WeightsRequest, weights_file
from profiler.testbed.engine import Counters, Finished, Request
from profiler.testbed.task import PROMPT_TOKENS, worked_problems
from traces.architecture import Architecture
from traces.strict_json import parse_object
from traces.testbed import TestbedConfig

if TYPE_CHECKING:
    from torch import Tensor

SHAPE = "testbed-qwen3.5"
"""Of the engine's weights, bundled: layers enough that drafts of one of them are cheap, and little DeltaNet, whose
verify steps cost llama.cpp's CPU kernels more than the tokens are worth."""
POLL_S = 0.02
"""How long a step of the testbed waits for a response; messages are answered in between."""
CACHE_CELLS = 256
"""A slot holds a multiple of it: llama.cpp rounds up."""
SPARE_TOKENS = 16
STAND_IN_TOKENS = 60_000
"""Of worked sums, from which responses are cut."""
_PER_POSITION = "llamacpp:spec_decode_num_accepted_tokens_per_pos_total"
_NUM_DECODES = "llamacpp:n_decode_total"


class LlamaCppEngine:
    """A `RolloutEngine` over a session, which it closes."""

    def __init__(self, settings: EngineSettings, seed: int = 0) -> None:
        """Load the model.

        Raises:
            DeviceError: llama.cpp does not load it.
        """
        self.version = 0
        self._settings, self._seed = settings, seed
        self._session = EngineSession(settings)
        self._threads = ThreadPoolExecutor(settings.num_slots, thread_name_prefix="in-flight")
        self._waiting: deque[Request] = deque()
        self._num_running = 0
        self._ended: queue.SimpleQueue[tuple[Request, Answer | DeviceError, float, float]] = queue.SimpleQueue()
        self._busy_since_s = 0.0
        self._counters = Counters()
        self._counted = self._session.counters()
        """What the server had counted when counters were last taken."""
        self._text: list[int] = worked_problems(STAND_IN_TOKENS, seed).tolist()

    @property
    def num_running(self) -> int:
        """Requests in flight."""
        return self._num_running

    @property
    def num_waiting(self) -> int:
        """Requests that are not with the server yet: it has no slot for them."""
        return len(self._waiting)

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests: first come, first served.

        Raises:
            ValueError: A request that no slot can hold, that has begun elsewhere, or whose length is not said.
        """
        for request in requests:
            if request.num_tokens is None or request.generated:
                raise ValueError(
                    f"sample {request.sample_id}: {len(request.generated)} of {request.num_tokens} tokens generated; "
                    "llama.cpp begins responses of imposed lengths, and resumes none"
                )
            room = self._settings.slot_tokens - len(request.prompt)
            if not 0 < request.num_tokens <= room:
                raise ValueError(
                    f"sample {request.sample_id}: {request.num_tokens} tokens after a prompt of {len(request.prompt)}, "
                    f"a slot has room for 1..{room}; build the engine for longer responses"
                )
        self._waiting.extend(requests)

    def step(self) -> list[Finished]:
        """Begin what has room, then return what ended within `POLL_S`, at once where something has.

        Raises:
            DeviceError: The server refuses a request.
        """
        while self._waiting and self._num_running < self._settings.num_slots:
            self._begin(self._waiting.popleft())
        if self._num_running == 0:
            return []
        finished: list[Finished] = []
        try:
            finished.append(self._end(*self._ended.get(timeout=POLL_S)))
            while True:
                finished.append(self._end(*self._ended.get_nowait()))
        except queue.Empty:
            return finished

    def abort(self) -> list[Request]:
        """Refuse.

        Raises:
            RunError: Always; no config that needs it is valid.
        """
        raise RunError("llama.cpp gives nothing back of what it aborts; set policy.in_flight = 'wait'")

    def set_weights(self, weights: "Sequence[Tensor]", version: int) -> None:
        """Count the version; the server's weights stay what they are.

        Raises:
            RunError: Something runs: its tokens would be of a policy that they are not of.
        """
        del weights
        if self._num_running > 0:
            raise RunError(
                f"weights of version {version} came while {self._num_running} requests run in llama.cpp; report this"
            )
        self.version = version

    def take_counters(self) -> Counters:
        """Return the counters, and begin new ones; by position and by step they are exact where nothing runs."""
        now_s = time.perf_counter()
        if self._num_running > 0:
            self._counters.busy_s += now_s - self._busy_since_s
            self._busy_since_s = now_s
        taken, counted = self._counters, self._session.counters()
        taken.num_steps = round(counted[_NUM_DECODES] - self._counted.get(_NUM_DECODES, 0.0))
        names = [f'{_PER_POSITION}{{position="{j}"}}' for j in range(self._settings.num_draft_tokens)]
        taken.accepted_at = [round(counted.get(name, 0.0) - self._counted.get(name, 0.0)) for name in names]
        self._counted, self._counters = counted, Counters()
        return taken

    def close(self) -> None:
        """Stop the server, once what runs has ended."""
        self._threads.shutdown()
        self._session.close()

    def _begin(self, request: Request) -> None:
        if self._num_running == 0:
            self._busy_since_s = time.perf_counter()
        self._num_running += 1
        self._threads.submit(self._ask, request)

    def _ask(self, request: Request) -> None:
        """Live through one request, on a thread of its own."""
        assert request.num_tokens is not None
        started_s = time.perf_counter()
        found: Answer | DeviceError
        try:
            found = self._session.answer(
                Call(request.prompt, request.num_tokens, seed=(1_000_003 * self._seed + request.sample_id) % (1 << 31))
            )
        except DeviceError as error:
            found = error
        self._ended.put((request, found, started_s, time.perf_counter()))

    def _end(self, request: Request, found: Answer | DeviceError, started_s: float, finished_s: float) -> Finished:
        self._num_running -= 1
        counters = self._counters
        if self._num_running == 0:
            counters.busy_s += finished_s - self._busy_since_s
        if isinstance(found, DeviceError):
            raise found
        counters.num_prefills += 1
        counters.num_prefill_tokens += len(request.prompt)
        counters.num_tokens += found.num_tokens
        counters.num_draft_tokens += found.num_draft_tokens
        counters.num_seq_steps += found.num_steps
        begin = 97 * request.sample_id % (len(self._text) - found.num_tokens)
        tokens = tuple(self._text[begin : begin + found.num_tokens])
        return Finished(request, tokens, (self.version,) * len(tokens), (), started_s, finished_s)


def engine_of(config: TestbedConfig, folder: Path | None = None) -> LlamaCppEngine:
    """Return the engine of a config, its weights in `folder` (default: the user's cache), written now if need be.

    Raises:
        DeviceError: llama.cpp does not load them.
    """
    return LlamaCppEngine(settings_of(config, folder), config.seed)


def settings_of(config: TestbedConfig, folder: Path | None = None) -> EngineSettings:
    """Return how a config's server is started."""
    longest = PROMPT_TOKENS + config.max_response_tokens + config.k + SPARE_TOKENS
    return EngineSettings(
        str(weights_file(WeightsRequest(shape(), seed=config.seed), folder)),
        num_slots=config.max_running_seqs,
        slot_tokens=-(-longest // CACHE_CELLS) * CACHE_CELLS,
        num_draft_tokens=config.k,
        acceptance=config.forced_acceptance,
        samples_drafts=config.verify_rule == "rejection",
    )


def shape() -> Architecture:
    """Return the shape of the engine's weights."""
    content = files("profiler").joinpath("data", f"{SHAPE}.json").read_bytes()
    return architecture_of(parse_object(content, SHAPE), SHAPE, f"bundled {SHAPE}.json")
