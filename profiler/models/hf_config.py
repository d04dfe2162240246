"""Architecture from a Hugging Face `config.json`: the shape fields of the model families that can be built.

Read as data: nothing in the file is executed, `trust_remote_code` does not exist here. Does not know weights.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from profiler.errors import UnsupportedModelError
from traces.architecture import Architecture, MlaShape, load_architecture
from traces.errors import TraceFormatError
from traces.strict_json import parse_object

BUNDLED = "tiny-qwen3.5"
"""A model small enough for any CPU, of Qwen3.5's kind: `profiler/data`."""
MAX_CONFIG_BYTES = 1_000_000
GATED_FAMILIES = ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text")
FAMILIES = (*GATED_FAMILIES, "llama", "mimo", "qwen2", "qwen3", "qwen3_moe", "deepseek_v3")
"""`model_type`s whose layers `profiler.models` builds."""


def find_architecture(name: str) -> Architecture:
    """Return what a name of the table, BUNDLED, or the path of a config.json stands for; errors as theirs."""
    if name == BUNDLED:
        content = files("profiler").joinpath("data", f"{BUNDLED}.json").read_bytes()
        return architecture_of(parse_object(content, name), name, f"bundled {BUNDLED}.json")
    return read_config(Path(name)) if name.endswith(".json") else load_architecture(name)


def read_config(path: Path) -> Architecture:
    """Return the architecture that a config.json describes, named like the folder it lies in.

    Raises:
        UnsupportedModelError: Not readable, too large, an unknown family, or a field missing; one line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UnsupportedModelError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise UnsupportedModelError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes; give a config.json")
    try:
        content = parse_object(data, str(path))
    except TraceFormatError as error:
        raise UnsupportedModelError(str(error)) from None
    name = path.stem if path.stem != "config" else path.resolve().parent.name
    return architecture_of(content, name, str(path))


def architecture_of(content: dict[str, Any], name: str, where: str) -> Architecture:
    """Return the architecture of a parsed configuration; errors as `read_config`."""
    family = content.get("model_type")
    text = content.get("text_config", content)
    if family not in FAMILIES or not isinstance(text, dict):
        raise UnsupportedModelError(f"{where}: model_type {family!r} is not one of {', '.join(FAMILIES)}; choose one")
    try:
        fields = _fields(text, str(family))
        architecture = Architecture(name=name, source=f"{where}, model_type {family}", **fields)
    except KeyError as error:
        raise UnsupportedModelError(f"{where}: {error} is missing; add it or take another file") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "shape"
        raise UnsupportedModelError(f"{where}: {field}: {first['msg']}; correct the file") from None
    except TypeError:  # a text or a list where a formula needs a number
        raise UnsupportedModelError(
            f"{where}: num_hidden_layers, layer_types or a size is not of its type; correct the file"
        ) from None
    if wrong := _shape_complaint(architecture):
        raise UnsupportedModelError(f"{where}: {wrong}; correct the file")
    return architecture


def _fields(text: dict[str, Any], family: str) -> dict[str, Any]:
    layers = text["num_hidden_layers"]
    num_full = _num_full_attention_layers(text, layers)
    is_moe = bool(text.get("num_experts") or text.get("n_routed_experts"))
    inner = text.get("moe_intermediate_size")
    shared = text.get("shared_expert_intermediate_size") or (text.get("n_shared_experts") or 0) * (inner or 0)
    heads = text["num_attention_heads"]
    num_dense = text.get("first_k_dense_replace", 0) if is_moe else 0
    is_mla = family == "deepseek_v3"
    return {
        "num_layers": layers,
        "num_full_attention_layers": num_full,
        "num_linear_attention_layers": layers - num_full,
        "hidden_size": text["hidden_size"],
        "ffn_size": text["intermediate_size"] if not is_moe or num_dense else None,
        "expert_ffn_size": inner if is_moe else None,
        "shared_ffn_size": shared or None if is_moe else None,
        "num_experts": (text.get("num_experts") or text.get("n_routed_experts")) if is_moe else None,
        "num_experts_per_token": text["num_experts_per_tok"] if is_moe else None,
        "num_q_heads": heads,
        "num_kv_heads": None if is_mla else text.get("num_key_value_heads", heads),
        "head_size": None if is_mla else text.get("head_dim") or text["hidden_size"] // heads,
        "num_linear_k_heads": text.get("linear_num_key_heads"),
        "num_linear_v_heads": text.get("linear_num_value_heads"),
        "linear_head_size": text.get("linear_value_head_dim"),
        "vocab_size": text["vocab_size"],
        "num_mtp_layers": text.get("num_nextn_predict_layers") or text.get("mtp_num_hidden_layers") or 0,
        "tied_embeddings": bool(text.get("tie_word_embeddings", False)),
        "num_dense_ffn_layers": num_dense,
        "output_gate": family in GATED_FAMILIES,
        "mla": _mla(text) if is_mla else None,
        "attention": "MLA" if is_mla else ("hybrid GDN + GQA with output gate" if num_full < layers else "GQA"),
    }


def _shape_complaint(a: Architecture) -> str | None:
    """Return what no layer can be built of, though each number by itself is plausible."""
    if a.num_kv_heads and a.num_q_heads % a.num_kv_heads:
        return f"{a.num_q_heads} query heads do not share {a.num_kv_heads} key/value heads evenly"
    if a.num_linear_k_heads and a.fact("num_linear_v_heads") % a.num_linear_k_heads:
        return f"{a.num_linear_v_heads} linear value heads do not share {a.num_linear_k_heads} key heads evenly"
    rotary = a.mla.rope_size if a.mla is not None else a.fact("head_size")
    if rotary % 2:
        return f"rotary positions turn pairs, and a head has {rotary} values"
    if a.is_moe and (a.hidden_size % 8 or a.fact("expert_ffn_size") % 8):
        return f"experts of {a.hidden_size} x {a.expert_ffn_size} are no multiples of 8, as grouped products need"
    return None


def _num_full_attention_layers(text: dict[str, Any], layers: int) -> int:
    kinds = text.get("layer_types")
    if kinds is not None:
        return sum(kind == "full_attention" for kind in kinds)
    interval = text.get("full_attention_interval")
    return layers // interval if interval and "linear_num_value_heads" in text else layers


def _mla(text: dict[str, Any]) -> MlaShape:
    return MlaShape(
        q_rank=text["q_lora_rank"],
        kv_rank=text["kv_lora_rank"],
        nope_size=text["qk_nope_head_dim"],
        rope_size=text["qk_rope_head_dim"],
        v_size=text["v_head_dim"],
    )
