"""A server that plays vLLM or SGLang: their HTTP, their counters, a step time by a known law, on a clock of its own.

Time stands still until every client has stamped what was sent to it, so a law is met exactly, and in no time at all.
"""

import json
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Law = Callable[[int, float, int], float]
"""Seconds of a step by batch, mean context and tokens per sequence."""
GATHER_S = 0.02
"""Real time for which an idle engine waits for more requests of the same batch."""


@dataclass
class VirtualClock:
    """Seconds that pass only when the engine says so."""

    now_s: float = 100.0
    num_reads: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self) -> float:
        with self.changed:
            self.num_reads += 1
            self.changed.notify_all()
            return self.now_s


@dataclass
class Sequence:
    """One request."""

    num_prompt: int
    num_wanted: int
    num_tokens: int = 0
    events: "queue.Queue[dict[str, Any] | None]" = field(default_factory=queue.Queue)


@dataclass
class PlayedEngine:
    """An engine with continuous batching: prefill one by one, then steps of everything that runs."""

    law: Law
    dialect: str = "vllm"
    k: int = 0
    acceptance: tuple[float, ...] = ()
    """c_1..c_k, unconditional."""
    prefill_s_per_token: float = 1e-4
    max_running: int = 64
    kv_cache_seqs: int = 10**6
    """Sequences that can run before others are preempted."""
    steps_between_prefills: int = 0
    """A chunked prefill that crawls along with the decodes."""
    num_foreign_running: int = 0
    statuses: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Path -> what is answered there instead."""
    on_request: Callable[["PlayedEngine", int], object] = lambda engine, number: None
    """Called with the number of every completion request, from 1."""
    is_stalled: bool = False
    started_s: float = 1.79e9
    clock: VirtualClock = field(default_factory=VirtualClock)
    counts: dict[str, float] = field(default_factory=dict)
    num_requests: int = 0
    num_events: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)
    cached: set[tuple[int, ...]] = field(default_factory=set)
    arrived: "queue.Queue[tuple[Sequence, tuple[int, ...]]]" = field(default_factory=queue.Queue)
    is_closed: bool = False

    def run(self) -> None:
        """Serve until closed."""
        draw = random.Random(0)
        running: list[Sequence] = []
        waiting: list[tuple[Sequence, tuple[int, ...]]] = []
        num_steps_to_wait = 0
        while not self.is_closed:
            try:
                while True:
                    waiting.append(self.arrived.get(timeout=0 if running else GATHER_S))
            except queue.Empty:
                pass
            num_steps_to_wait = num_steps_to_wait - 1 if running else 0
            while waiting and len(running) < self.max_running and num_steps_to_wait <= 0:
                num_steps_to_wait = self.steps_between_prefills
                sequence, prompt = waiting.pop(0)
                self.advance(0.0 if prompt in self.cached else len(prompt) * self.prefill_s_per_token)
                self.cached.add(prompt)
                running += [sequence] * self.emit(sequence, 1)
            self.count("preempted", float(len(running) > self.kv_cache_seqs))
            if running and not self.is_stalled:
                context = sum(sequence.num_prompt + sequence.num_tokens for sequence in running) / len(running)
                self.advance(self.law(len(running), context, self.k + 1))
                running = [sequence for sequence in running if self.emit(sequence, 1 + self.accepted(draw))]
            elif running:
                time.sleep(0.01)

    def advance(self, seconds: float) -> None:
        """Let time pass once everybody has seen what was sent."""
        with self.clock.changed:
            self.clock.changed.wait_for(
                lambda: self.clock.num_reads >= self.num_requests + self.num_events or self.is_closed, timeout=2
            )
            self.clock.now_s += seconds

    def accepted(self, draw: random.Random) -> int:
        """Draw how many drafts of one sequence are accepted, and count it."""
        if self.k == 0:
            return 0
        chance = draw.random()
        num_accepted = sum(chance < share for share in self.acceptance[: self.k])
        self.count("drafts", 1)
        self.count("draft_tokens", self.k)
        self.count("accepted", num_accepted)
        for position in range(num_accepted):
            self.count(f"accepted {position}", 1)
        return num_accepted

    def emit(self, sequence: Sequence, num_tokens: int) -> bool:
        """Send new tokens; return whether the sequence goes on."""
        new = min(num_tokens, sequence.num_wanted - sequence.num_tokens)
        sequence.num_tokens += new
        self.count("generated", new)
        usage = {"prompt_tokens": sequence.num_prompt, "completion_tokens": sequence.num_tokens}
        goes_on = sequence.num_tokens < sequence.num_wanted
        choice = {"index": 0, "text": "x" * new, "finish_reason": None if goes_on else "length"}
        self.num_events += 1
        sequence.events.put({"object": "text_completion", "choices": [choice], "usage": usage})
        if not goes_on:
            self.num_events += 1
            sequence.events.put({"object": "text_completion", "choices": [], "usage": usage})
            sequence.events.put(None)
        return goes_on

    def count(self, name: str, number: float) -> None:
        self.counts[name] = self.counts.get(name, 0.0) + number

    def restart(self) -> None:
        """Forget what was counted, as a new process does; requests go on, which is harder to notice."""
        self.counts.clear()
        self.started_s += 60

    def metrics(self) -> str:
        """Return the text of /metrics; the names and labels of vLLM 0.32 and SGLang 0.5."""
        count = self.counts.get
        if self.dialect == "vllm":
            labels = 'engine="0",model_name="Qwen/Qwen3-8B"'
            lines = [
                f"process_start_time_seconds {self.started_s}",
                f"vllm:num_requests_running{{{labels}}} {float(self.num_foreign_running)}",
                f"vllm:num_requests_waiting{{{labels}}} 0.0",
                f"vllm:generation_tokens_total{{{labels}}} {count('generated', 0.0)}",
                f"vllm:generation_tokens_created{{{labels}}} 1.7e+09",
                f"vllm:num_preemptions_total{{{labels}}} {count('preempted', 0.0)}",
            ]
            if self.k:
                lines += [
                    f"vllm:spec_decode_num_drafts_total{{{labels}}} {count('drafts', 0.0)}",
                    f"vllm:spec_decode_num_draft_tokens_total{{{labels}}} {count('draft_tokens', 0.0)}",
                    f"vllm:spec_decode_num_accepted_tokens_total{{{labels}}} {count('accepted', 0.0)}",
                ]
            lines += [
                f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{{labels},position="{j}"}} '
                f"{count(f'accepted {j}', 0.0)}"
                for j in range(self.k)
            ]
        else:
            rank = 'engine_type="unified",model_name="Qwen3-8B",pp_rank="{}",tp_rank="0"'
            labels = 'model_name="Qwen3-8B"'
            lines = [f"sglang:num_running_reqs{{{rank.format(pp)}}} {self.num_foreign_running}.0" for pp in (0, 1)]
            lines += [f"sglang:spec_accept_length{{{rank.format(0)}}} 0.0"]
            if "generated" in self.counts:  # labelled counters appear with the first request that ends
                lines += [f"sglang:generation_tokens_total{{{labels}}} {count('generated')}"]
            if "drafts" in self.counts:
                lines += [f"sglang:spec_verify_calls_total{{{labels}}} {count('drafts')}"]
        return "# HELP what it is\n" + "\n".join(lines) + "\n"

    def answer(self, path: str) -> dict[str, Any] | None:
        """Return what a GET of JSON answers."""
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": "Qwen/Qwen3-8B", "object": "model", "max_model_len": 32768}]}
        if path == "/version" and self.dialect == "vllm":
            return {"version": "0.32.0"}
        if path == "/get_server_info" and self.dialect == "sglang":
            return {
                "model_path": "Qwen/Qwen3-8B",
                "tp_size": 2,
                "ep_size": 1,
                "dp_size": 1,
                "dtype": "bfloat16",
                "quantization": None,
                "speculative_algorithm": "EAGLE" if self.k else None,
                "speculative_num_steps": self.k or None,
                "speculative_eagle_topk": 1 if self.k else None,
                "speculative_num_draft_tokens": self.k + 1 if self.k else None,
                "version": "0.5.23",
                "max_running_requests": self.max_running,
                "internal_states": [{"last_gen_throughput": 1.0}],
            }
        return None


@contextmanager
def playing(engine: PlayedEngine) -> Iterator[str]:
    """Yield the URL at which the engine answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(engine))
    server.daemon_threads = True
    threads = [threading.Thread(target=target, daemon=True) for target in (server.serve_forever, engine.run)]
    for thread in threads:
        thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        engine.is_closed = True
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join(timeout=5)


def _handler(engine: PlayedEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def reply(self, status: int, body: str, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def do_GET(self) -> None:
            engine.headers.append(dict(self.headers))
            content = engine.answer(self.path)
            if self.path in engine.statuses:
                status, body = engine.statuses[self.path]
                self.reply(status, body, **({"Location": body} if status == 302 else {}))
            elif self.path == "/metrics":
                self.reply(200, engine.metrics())
            elif content is not None:
                self.reply(200, json.dumps(content))
            else:
                self.reply(404, '{"detail":"Not Found"}')

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            engine.num_requests += 1
            engine.on_request(engine, engine.num_requests)
            if self.path in engine.statuses:
                self.reply(*engine.statuses[self.path])
                return
            sequence = Sequence(len(body["prompt"]), body["max_tokens"])
            engine.arrived.put((sequence, tuple(body["prompt"])))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                while (event := sequence.events.get(timeout=10)) is not None:
                    self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                self.wfile.write(b"data: [DONE]\n\n")
            except (OSError, queue.Empty):
                return  # the client went away, or the engine was closed

    return Handler
