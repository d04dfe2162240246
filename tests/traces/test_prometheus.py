import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.errors import TraceFormatError
from traces.prometheus import MAX_BYTES, MAX_LABELS, MAX_LINE_CHARS, MAX_SAMPLES, parse_metrics

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 3.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-8B"} 5.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="Qwen/Qwen3-8B"} 1.79e+06
vllm:generation_tokens_created{engine="0",model_name="Qwen/Qwen3-8B"} 1.7e+09
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf"} 40.0
"""


def test_samples_keep_name_labels_value_and_order() -> None:
    metrics = parse_metrics(VLLM, "metrics")
    assert [sample.name.split(":")[1] for sample in metrics.samples] == [
        "num_requests_running",
        "num_requests_running",
        "generation_tokens_total",
        "generation_tokens_created",
        "iteration_tokens_total_bucket",
    ]
    assert metrics.of("vllm:num_requests_running")[1].labels == {"engine": "1", "model_name": "Qwen/Qwen3-8B"}
    assert metrics.of("vllm:iteration_tokens_total_bucket")[0].labels["le"] == "+Inf"


def test_total_adds_engines_and_takes_the_first_name_that_is_there() -> None:
    metrics = parse_metrics(VLLM.encode(), "metrics")
    assert metrics.total("vllm:num_requests_running") == 8
    assert metrics.total("vllm:generation_tokens", "vllm:generation_tokens_total") == 1.79e6
    assert metrics.total("vllm:generation") is None
    assert metrics.of("vllm:generation") == ()


@pytest.mark.parametrize(
    ("line", "labels", "value"),
    [
        ("a 1", {}, 1),
        ("a\t1", {}, 1),
        ("  a   1  ", {}, 1),
        ("a 1 1700000000000", {}, 1),
        ("a{} 1", {}, 1),
        ('a {b="c"} 1', {"b": "c"}, 1),
        ('a{b="c",} 1', {"b": "c"}, 1),
        ('a{ b = "c" , d = "e" } -.5e-3', {"b": "c", "d": "e"}, -0.0005),
        (r'a{b="q\"} 7 \\ \n\t"} 2', {"b": 'q"} 7 \\ \n\\t'}, 2),
        ('a{b="c"} 3 # {trace_id="x"} 0.5', {"b": "c"}, 3),
        ('a{b="c"}4', {"b": "c"}, 4),
        ("a +Inf", {}, math.inf),
        ("a -Inf", {}, -math.inf),
    ],
)
def test_every_form_of_a_sample_is_read(line: str, labels: dict[str, str], value: float) -> None:
    (sample,) = parse_metrics(line + "\r\n# EOF\n", "metrics").samples
    assert (sample.name, sample.labels, sample.value) == ("a", labels, value)


def test_not_a_number_is_a_value() -> None:
    assert math.isnan(parse_metrics("a NaN", "metrics").samples[0].value)


@pytest.mark.parametrize(
    "line",
    [
        "<html>",
        '{"error": "not found"}',
        "a",
        "a b",
        "a 1 2 3",
        "a 1_000",
        "a 0x10",
        "a{b=c} 1",
        'a{b="c" 1',
        'a{b="c"d="e"} 1',
        'a{b="c",b="d"} 1',
        "a{,} 1",
        'a{b="c} 1',
        "1a 1",
        "a" * (MAX_LINE_CHARS + 1) + " 1",
        "a{" + ",".join(f'l{i}="x"' for i in range(MAX_LABELS + 1)) + "} 1",
    ],
)
def test_what_is_no_sample_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(TraceFormatError, match=r"^http://x/metrics: line 2: not a sample") as refused:
        parse_metrics(f"ok 1\n{line}\n", "http://x/metrics")
    assert len(str(refused.value)) < 300


def test_a_text_without_end_is_refused() -> None:
    with pytest.raises(TraceFormatError, match="above the limit"):
        parse_metrics(b"a" * (MAX_BYTES + 1), "metrics")
    with pytest.raises(TraceFormatError, match="more than 200000 samples"):
        parse_metrics("a 1\n" * (MAX_SAMPLES + 1), "metrics")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(TraceFormatError, match="byte 2 is not UTF-8"):
        parse_metrics(b"a \xff", "metrics")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        for sample in parse_metrics(text, "metrics").samples:
            assert sample.name
    except TraceFormatError:
        pass


@given(
    st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True), st.text(max_size=20), max_size=5),
    st.floats(allow_nan=False),
)
def test_what_is_written_by_the_rules_is_read_back(labels: dict[str, str], value: float) -> None:
    escaped = {
        name: text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for name, text in labels.items()
    }
    line = "a{" + ",".join(f'{name}="{text}"' for name, text in escaped.items()) + f"}} {value!r}"
    (sample,) = parse_metrics(line, "metrics").samples
    assert (sample.labels, sample.value) == (labels, value)
