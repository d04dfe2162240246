"""Session: one llama.cpp server inside this process, with slots, continuous batching, and drafts of forced acceptance.

Answers calls, and HTTP at `address` like any llama-server. llama.cpp aborts the process where it finds itself in a
state that it did not expect: whoever must outlive that uses `worker`. Does not know what is measured.
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xllamacpp

from profiler.errors import DeviceError

FIRST_WORD = 256
"""Token from which prompts are drawn on: below are single bytes."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How a server is started; what llama-server calls it stands in brackets."""

    model: str
    """Path of a GGUF (`--model`)."""
    num_slots: int
    """Sequences decoded together (`--parallel`)."""
    slot_tokens: int
    """Context of one slot: prompt and response (`--ctx-size` / `--parallel`)."""
    num_draft_tokens: int = 0
    """k; 0: no speculation (`--spec-type draft-mtp --spec-draft-n-max`)."""
    acceptance: tuple[float, ...] | None = None
    """Forced P(first j drafts accepted), j = 1..k (`--spec-synth-rates`); None: as the weights have it."""
    drops_drafts: bool = False
    """Make k drafts in every step, and verify none (`--spec-draft-n-min` above k)."""
    samples_drafts: bool = False
    """Draw drafts from the 10 likeliest tokens and verify by rejection sampling; else the likeliest one is drafted."""
    num_threads: int = 1
    port: int = 0
    """0: a free one."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to complete a prompt."""

    prompt: tuple[int, ...]
    num_tokens: int
    """To generate: the end token is ignored."""
    slot: int = -1
    """-1: the server chooses."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server counted for one call."""

    num_tokens: int
    prefill_s: float
    """From the start of its prompt to its first token."""
    decode_s: float
    """From its first token to its last."""
    num_draft_tokens: int
    num_accepted_tokens: int

    @property
    def num_steps(self) -> int:
        """Steps after its prompt, which gives one token; each gives one more than it accepts, none beyond the end."""
        return self.num_tokens - 1 - self.num_accepted_tokens


class EngineSession:
    """A loaded model that answers until it is closed."""

    def __init__(self, settings: EngineSettings) -> None:
        """Load the model.

        Raises:
            DeviceError: llama.cpp does not load it.
        """
        if not Path(settings.model).is_file():
            raise DeviceError(f"{settings.model}: no such file; give a GGUF")
        self.settings = settings
        try:
            self._server: Any = xllamacpp.Server(_parameters(settings))
        except RuntimeError as error:
            raise DeviceError(
                f"{settings.model}: llama.cpp does not load it with {settings.num_slots} slots of "
                f"{settings.slot_tokens} tokens ({error}); check the file and the free memory"
            ) from None
        # Its loop answers this, and so has begun: a server that is closed before that is waited for for ever.
        self.counters()

    @property
    def address(self) -> str:
        """URL of the server: OpenAI's endpoints under /v1, /metrics, /health, /props."""
        return str(self._server.listening_address)

    def answer(self, call: Call) -> Answer:
        """Send a call and wait for its answer; several threads may, each its own.

        Raises:
            DeviceError: The server refuses it.
        """
        return _answer(self._server.handle_completions(_body(call)))

    def complete(self, calls: Sequence[Call]) -> list[Answer]:
        """Send all calls at once and return their answers, in the order of the calls.

        Raises:
            DeviceError: The server refuses one.
        """
        found: list[Any] = [None] * len(calls)

        def ask(index: int) -> None:
            found[index] = self._server.handle_completions(_body(calls[index]))

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [_answer(content) for content in found]

    def counters(self) -> dict[str, float]:
        """Return the server's Prometheus metrics since its start, by name (labels included)."""
        lines = self._server.handle_metrics().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def close(self) -> None:
        """Stop the server and free its memory."""
        self._server = None


def _parameters(settings: EngineSettings) -> Any:
    p = xllamacpp.CommonParams()
    p.model.path = settings.model
    p.n_parallel = settings.num_slots
    p.n_ctx = settings.num_slots * settings.slot_tokens
    p.port = settings.port
    p.endpoint_metrics = True
    p.verbosity = -1
    p.n_gpu_layers = 0
    p.cont_batching = True
    p.warmup = False
    # One pass for all prompts that arrive together, so that their sequences decode in step.
    p.n_batch = max(2048, p.n_ctx)
    # No copies of states for later requests with the same beginning: there are none, and they cost time.
    p.n_ctx_checkpoints = 0
    p.cache_ram_mib = 0
    p.ctx_shift = False
    draft = p.speculative.draft
    for pool in (p.cpuparams, p.cpuparams_batch, draft.cpuparams, draft.cpuparams_batch):
        pool.n_threads = settings.num_threads
    k = settings.num_draft_tokens
    if k > 0:
        p.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_MTP]
        p.load_mtp = True
        draft.n_max, draft.p_min = k, 0.0
        draft.probabilistic = settings.samples_drafts
        draft.n_min = k + 1 if settings.drops_drafts else 0
        if settings.acceptance is not None:
            p.speculative.synth_rates = list(settings.acceptance)
    return p


def _body(call: Call) -> dict[str, Any]:
    return {
        "prompt": list(call.prompt),
        "max_tokens": call.num_tokens,
        "id_slot": call.slot,
        "seed": call.seed,
        "temperature": 1.0,
        "samplers": ["temperature"],
        "ignore_eos": True,
        "cache_prompt": False,
    }


def _answer(content: Any) -> Answer:
    content = json.loads(content) if isinstance(content, str) else content
    if not isinstance(content, dict) or "timings" not in content:
        error = content.get("error", content) if isinstance(content, dict) else content
        message = error.get("message", error) if isinstance(error, dict) else error
        raise DeviceError(f"llama.cpp refuses a request: {str(message)[:200]}; lower the context or the batch")
    timings = content["timings"]
    return Answer(
        num_tokens=int(timings["predicted_n"]),
        prefill_s=1e-3 * float(timings["prompt_ms"]),
        decode_s=1e-3 * float(timings["predicted_ms"]),
        num_draft_tokens=int(timings.get("draft_n", 0)),
        num_accepted_tokens=int(timings.get("draft_n_accepted", 0)),
    )
