"""Testbed: how a real small RL run is set up, and what was measured of its parts before it ran.

The contract between runs of `profiler.testbed` and predictions of them, which read a config and a profile and never a
run. Latencies and acceptance have formats of their own. Does not know how anything is run or predicted.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from traces.base import Strict, Trace

InFlight = Literal["wait", "abort_resume", "in_place"]
"""What a weight sync does with running sequences: they finish first; they are aborted, and read again with what they
had; they go on, on a KV cache of mixed policies."""


class TestbedPolicy(Strict):
    """What couples rollout and trainer; the words and rules are a scenario's."""

    kind: Literal["synchronous", "one_step_off", "fully_async"]
    max_staleness: Annotated[int, Field(ge=0, le=100)] | None = None
    """Policy versions that admission may run ahead; fully_async only."""
    in_flight: InFlight | None = None
    """fully_async only: the others sync when nothing runs."""

    @model_validator(mode="after")
    def _only_fully_async_has_rules(self) -> Self:
        given = self.max_staleness is not None and self.in_flight is not None
        if given != (self.kind == "fully_async") or (self.max_staleness is None) != (self.in_flight is None):
            raise ValueError(
                f"max_staleness {self.max_staleness}, in_flight {self.in_flight}: fully_async needs both, "
                f"the others have neither; this policy is {self.kind}"
            )
        return self


class TestbedModel(Strict):
    """The policy: a small decoder with one MTP layer, trained on the task before RL begins."""

    hidden_size: Annotated[int, Field(ge=32, le=4096, multiple_of=32)]
    num_layers: Annotated[int, Field(ge=1, le=64)]
    target_batches: PositiveInt
    """Batches of worked examples that it learns the task from."""


class TestbedConfig(Strict):
    """One run of the testbed."""

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1, max_length=100, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    engine: Literal["torch", "llamacpp"] = "torch"
    """torch: the testbed's own. llamacpp: llama.cpp with random weights of a shape of its own, which no weight sync
    changes; the trainer trains its policy on text as long as the responses are."""
    model: TestbedModel
    policy: TestbedPolicy
    k: Annotated[int, Field(ge=0, le=16)] = 0
    """Draft tokens; 0 decodes plainly."""
    verify_rule: Literal["rejection", "greedy_draft", "block"] = "rejection"
    head_batches: Annotated[int, Field(ge=0)] = 0
    """Batches that the draft head was trained with before RL: its quality. 0: untrained."""
    head_update: Literal["frozen", "online"] = "frozen"
    """What RL does with the head; online: trained in every step, at the trainer's cost."""
    forced_acceptance: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = Field(default=None, max_length=16)
    """c_1..c_k that llamacpp is made to accept, whatever the drafts are. None: as the weights have it."""
    prompts_per_step: PositiveInt
    """Groups that an RL step trains on."""
    group_size: PositiveInt
    max_running_seqs: PositiveInt
    response_tokens: tuple[tuple[Annotated[float, Field(ge=0, le=1)], PositiveInt], ...] | None = None
    """[probability, tokens] quantiles of lengths that are imposed on responses, straight lines in the logarithm
    between; None: a response ends where the policy ends it."""
    max_response_tokens: PositiveInt
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    learning_rate: NonNegativeFloat
    num_steps: PositiveInt
    num_warmup_steps: Annotated[int, Field(ge=0)] = 1
    """First steps that are left out of every comparison."""
    seed: int = 0

    @model_validator(mode="after")
    def _only_llamacpp_forces(self) -> Self:
        if self.forced_acceptance is not None and (self.engine != "llamacpp" or len(self.forced_acceptance) != self.k):
            raise ValueError(
                f"forced_acceptance: {len(self.forced_acceptance)} rates for engine {self.engine} and k {self.k}; "
                "only llamacpp forces, one rate per draft token"
            )
        return self

    @model_validator(mode="after")
    def _llamacpp_is_asked_for_what_it_can(self) -> Self:
        if self.engine == "llamacpp":
            for name, (value, is_possible, reason) in self._asked_of_llamacpp().items():
                if not is_possible:
                    raise ValueError(f"{name}: {value} with engine llamacpp, which {reason}; or set engine = 'torch'")
        return self

    def _asked_of_llamacpp(self) -> dict[str, tuple[object, bool, str]]:
        """Return what of a run depends on the engine: value, whether llama.cpp can, and what it can."""
        policy, online = self.policy, self.head_update == "online"
        return {
            "policy.in_flight": (
                policy.in_flight,
                policy.in_flight in (None, "wait"),
                "gives nothing back of what it aborts, and keeps its weights; set wait",
            ),
            "head_update": (self.head_update, not online, "keeps its weights; set frozen"),
            "head_batches": (self.head_batches, self.head_batches == 0, "has an untrained head; set 0"),
            "verify_rule": (self.verify_rule, self.verify_rule != "block", "has no block verification; set rejection"),
            "temperature": (self.temperature, self.temperature == 1.0, "is asked to sample at 1; set 1"),
            "response_tokens": (
                self.response_tokens,
                self.response_tokens is not None,
                "has random weights, which end nothing; set quantiles",
            ),
        }


class PhaseCost(Strict):
    """Seconds of a phase of an RL step, fitted to a few timed calls."""

    constant_s: NonNegativeFloat
    s_per_token: NonNegativeFloat = 0.0
    """Per token of prompt and response."""
    relative_error: NonNegativeFloat
    """Of the fit: one timed call in twenty is further from it, or of hand-over and sync one in ten."""
    num_calls: PositiveInt


class TestbedProfile(Trace):
    """What was measured of a testbed's parts in a short run of its own.

    Both LatencyTraces (`alone`, and `beside` a trainer that computes on the other core) and the AcceptanceTrace lie in
    files beside this one.
    """

    kind: Literal["testbed_profile"] = "testbed_profile"
    config: TestbedConfig
    """For which this profile holds, and for those that differ in policy alone; torch's for any k it was timed at."""
    latency_alone: str
    """File name of the LatencyTrace of an engine that has the machine for itself."""
    latency_beside: str | None
    """File name of the one measured while a trainer computes; None where the config never overlaps the two."""
    acceptance: str | None
    """File name of the AcceptanceTrace of the policy before RL; None where drafts are forced or k is 0."""
    train_alone: PhaseCost
    """GRPO step: log-probabilities, backward, optimizer, and an online head where there is one."""
    train_beside: PhaseCost | None
    """The same while the engine generates."""
    sync: PhaseCost
    """Weights from trainer to engine: both stand still."""
    hand_over: PhaseCost
    """What an RL step costs beside generation, training and sync: messages, rewards, batch making."""
    prompt_tokens: PositiveInt
    response_tokens: tuple[tuple[Annotated[float, Field(ge=0, le=1)], PositiveInt], ...]
    """[probability, tokens] quantiles of what the policy writes before RL, or those that are imposed."""
    group_correlation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the variance of log length that responses to one prompt have in common."""
    entropy_nats: Annotated[float, Field(ge=0, le=20)]
    """Mean policy entropy before RL, at the temperature of sampling."""
