"""A testbed's config says what an engine is asked for that it cannot do, in one line and before anything runs."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from traces import testbed
from traces.complaint import complaint


def config(**changes: Any) -> "testbed.TestbedConfig":
    fields: dict[str, Any] = {
        "name": "llamacpp-k2",
        "engine": "llamacpp",
        "model": {"hidden_size": 64, "num_layers": 2, "target_batches": 1},
        "policy": {"kind": "synchronous"},
        "k": 2,
        "forced_acceptance": (0.8, 0.5),
        "prompts_per_step": 4,
        "group_size": 2,
        "max_running_seqs": 4,
        "response_tokens": ((0.0, 16), (1.0, 400)),
        "max_response_tokens": 400,
        "learning_rate": 1e-4,
        "num_steps": 6,
    }
    return testbed.TestbedConfig.model_validate(fields | changes)


def fully_async(in_flight: str) -> dict[str, Any]:
    return {"kind": "fully_async", "max_staleness": 1, "in_flight": in_flight}


@pytest.mark.parametrize("policy", [{"kind": "synchronous"}, {"kind": "one_step_off"}, fully_async("wait")])
def test_llamacpp_runs_under_policies_that_sync_when_nothing_runs(policy: dict[str, Any]) -> None:
    assert config(policy=policy).engine == "llamacpp"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy": fully_async("abort_resume")}, "policy.in_flight: abort_resume .* set wait"),
        ({"policy": fully_async("in_place")}, "policy.in_flight: in_place .* set wait"),
        ({"head_update": "online"}, "head_update: online .* set frozen"),
        ({"head_batches": 100}, "head_batches: 100 .* set 0"),
        ({"verify_rule": "block"}, "verify_rule: block .* set rejection"),
        ({"temperature": 0.7}, "temperature: 0.7 .* set 1"),
        ({"response_tokens": None}, "response_tokens: None .* set quantiles"),
    ],
)
def test_what_llamacpp_cannot_do_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        config(**changes)
    said = complaint(raised.value, testbed.TestbedConfig)
    assert "\n" not in said
    assert re.search(words, said)
    torch_one = {"engine": "torch", "forced_acceptance": None, **changes}
    assert config(**torch_one).engine == "torch"
