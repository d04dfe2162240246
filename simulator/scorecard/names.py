"""Names as people write them: `8x H100 SXM`, `Qwen/Qwen3-8B-FP8`, `SGLang 0.5.15` -> rows of our tables.

Each guess is returned as an assumption; what cannot be read is a MissingFactError with the nearest names. It does not
predict.
"""

import difflib
import re
from dataclasses import dataclass

from simulator.engine_habits import Software
from simulator.roofline_drafts import DraftKind
from traces.architecture import Architecture, list_architectures, load_architecture
from traces.hardware import Gpu, list_gpus, load_gpu


class MissingFactError(Exception):
    """Why a row cannot be predicted: the fact that it lacks, one line."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """An input that the row does not state."""

    name: str
    value: str
    source: str


_GPU_ALIASES = {
    "rtx3060l": "RTX-3060-Laptop",
    "rtx3060laptop": "RTX-3060-Laptop",
    "strixhalo": "Strix-Halo-8060S",
    "radeon8060s": "Strix-Halo-8060S",
    "a6000": "RTX-A6000",
    "h100pcie": "H100-PCIe",
    "rtxpro6000blackwell": "RTX-PRO-6000",
    "3090": "RTX-3090",
    "4090": "RTX-4090",
    "5090": "RTX-5090",
}
_GPU_NOISE = ("nvidia", "sxm5", "sxm4", "sxm", "hbm3e", "hbm3", "hbm2e", "nvl72")
"""What is written into a card's name without a space and says nothing."""
_SAME_SHAPE = {
    "deepseekr1": "DeepSeek-V3",
    "deepseekr10528": "DeepSeek-V3",
    "deepseekv30324": "DeepSeek-V3",
    "deepseekv31": "DeepSeek-V3",
    "mimo7b": "MiMo-7B-RL",
    "glm46": "GLM-4.5",
    "kimik25": "Kimi-K2",
    "qwen3coder30ba3b": "Qwen3-30B-A3B",
    "qwen3codernext": "Qwen3-Next-80B-A3B",
    "deepseekr1distillllama8b": "Llama-3.1-8B",
    "deepseekr1distillllama70b": "Llama-3.1-70B",
    "deepseekr1distillqwen7b": "Qwen2.5-Math-7B",
    "deepseekr1distillqwen32b": "Qwen2.5-32B",
    "qwq32b": "Qwen2.5-32B",
}
"""Models that share a shape with one of the table."""
_MODEL_NOISE = frozenset(
    {"instruct", "thinking", "instruct2507", "thinking2507", "2507", "chat", "hf", "base", "it", "v15", "meta", "mtp"}
    | {"bf16", "fp8", "fp8dynamic", "nvfp4", "fp4", "mxfp4", "awq", "awq4", "awq4bit", "4bit", "gptq", "int4", "w4a16"}
    | {"int8", "gguf", "q4km", "q4k", "q4", "q8", "q80"}
)
"""Last words of a model's name that say nothing of its shape."""
_PRECISIONS = {
    "fp8": "fp8",
    "fp16": "bf16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "float16": "bf16",
    "nvfp4": "nvfp4",
    "fp4": "nvfp4",
    "mxfp4": "mxfp4",
    "awq": "int4",
    "awq4": "int4",
    "gptq": "int4",
    "int4": "int4",
    "w4a16": "int4",
    "int8": "int8",
    "w8a8": "int8",
    "q4": "q4",
    "q6": "q6",
    "q8": "q8",
}
_NATIVE_FP8 = ("DeepSeek-V3", "Kimi-K2")
"""Models released in fp8."""
_DRAFTS: tuple[tuple[str, DraftKind], ...] = (
    ("eagle3", "eagle3"),
    ("eagle-3", "eagle3"),
    ("eagle", "eagle"),
    ("n-gram", "ngram"),
    ("ngram", "ngram"),
    ("prompt lookup", "ngram"),
    ("dflash", "parallel"),
    ("p-eagle", "parallel"),
    ("parallel", "parallel"),
    ("mtp", "mtp"),
    ("nextn", "mtp"),
)
_VLLM_CAPTURES_DRAFTS_FROM = (0, 11, 0)
"""vLLM release from which EAGLE's draft passes are taken to run inside CUDA graphs; assumed from release dates."""
_OVERLAPS_FROM = (0, 5, 10)
"""SGLang release from which speculation is taken to run under the overlap scheduler ("spec v2"); assumed: it was
experimental in 0.5.6 and is the default in 0.5.23."""


def find_model(text: str) -> tuple[Architecture, list[Assumption]]:
    """Return the architecture that a row means."""
    if not text:
        raise MissingFactError("model: blank")
    bare = re.sub(r"\(.*?\)", " ", text.split("/")[-1]).strip()
    known = {_plain(name): name for name in list_architectures()}
    for candidate in _shorter(bare):
        plain = _plain(candidate)
        if plain in known:
            architecture = load_architecture(known[plain])
            is_assumed = architecture.source.startswith("assumed")
            said = [Assumption("model shape", known[plain], architecture.source)] if is_assumed else []
            return architecture, said
        if plain in _SAME_SHAPE:
            name = _SAME_SHAPE[plain]
            return load_architecture(name), [Assumption("model shape", name, f"{candidate} has the same shape")]
    raise MissingFactError(f"model: no architecture of {text[:60]!r} is known{_near(bare, list_architectures())}")


def find_gpu(text: str) -> tuple[Gpu, int, list[Assumption]]:
    """Return the card and how many of them."""
    if not text:
        raise MissingFactError("hw: blank")
    bare = re.sub(r"\(.*?\)", " ", text)
    count, name = _count_and_name(bare)
    known = {**{_plain(gpu): gpu for gpu in list_gpus()}, **_GPU_ALIASES}
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    # The longest run of words that names a card: "nvidia h100 80gb hbm3" is an H100, "h100 pcie" another card.
    runs = ["".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)]
    named = sorted((run for run in runs if run in known), key=len)
    stripped = _plain(name)
    for noise in _GPU_NOISE:
        stripped = stripped.replace(noise, "")
    found = known[named[-1]] if named else known.get(stripped)
    if found is None:
        near = _near(" ".join(words), list_gpus())
        raise MissingFactError(f"hw: no datasheet of {name[:60]!r} is known{near}")
    return load_gpu(found), count, []


def find_precision(precision: str, model: str, architecture: Architecture, engine: str) -> tuple[str, list[Assumption]]:
    """Return the number format of the weights."""
    stated = _plain(precision)
    for written, name in _PRECISIONS.items():
        if stated == written:
            return name, []
    if stated:
        raise MissingFactError(f"precision: {precision[:40]!r} is none of {', '.join(_PRECISIONS)}")
    words = [_plain(word) for word in re.split(r"[\s_/-]+", model)]
    for written, name in _PRECISIONS.items():
        if written in words:
            return name, [Assumption("precision", name, "the model's name")]
    if "llama.cpp" in engine.lower():
        return "q4", [Assumption("precision", "q4", "blank; Q4_K is what llama.cpp is mostly run with")]
    if architecture.name in _NATIVE_FP8:
        return "fp8", [Assumption("precision", "fp8", "blank; released in fp8")]
    return "bf16", [Assumption("precision", "bf16", "blank; the usual one")]


def drafts_by_name(method: str) -> bool:
    """Return whether a method is one that drafts."""
    return any(written in method.lower() for written, _ in _DRAFTS)


def find_draft(method: str, k: int) -> DraftKind:
    """Return what drafts."""
    if k == 0:
        return "mtp"
    lower = method.lower()
    for written, kind in _DRAFTS:
        if written in lower:
            return kind
    if not method:
        raise MissingFactError("method: blank, though k is not 0; name what drafts: MTP, EAGLE, EAGLE3, n-gram, DFlash")
    raise MissingFactError(
        f"method: {method[:40]!r} is none whose cost is known: MTP, EAGLE, EAGLE3, n-gram, DFlash; a draft model's own "
        "shape has no column"
    )


def find_software(engine: str, source: str) -> tuple[Software | None, list[Assumption]]:
    """Return whose host habits a row has; None: nobody's that are known."""
    lower = engine.lower()
    if "simulat" in lower:
        raise MissingFactError("engine: a simulation, not a measurement")
    if "vllm" in lower and "piecewise" in lower:
        return "vllm_piecewise", []
    if "vllm" in lower:
        version = _version(engine) or _version(source)
        if version is None:
            said = Assumption("engine version", "before 0.11", "blank; the earlier releases gain least from drafts")
            return "vllm_early", [said]
        return ("vllm" if version >= _VLLM_CAPTURES_DRAFTS_FROM else "vllm_early"), []
    if "sglang" in lower:
        version = _version(engine) or _version(source)
        if version is None or version >= _OVERLAPS_FROM:
            return "sglang", []
        return "sglang_no_overlap", []
    if "llama.cpp" in lower or "llama_cpp" in lower:
        return "llama_cpp", []
    return None, [Assumption("engine", "no host work", f"habits of {engine[:40] or 'the engine'} are not known")]


def _version(text: str) -> tuple[int, ...] | None:
    match = re.search(r"(?:sglang|vllm)\W*v?(\d+)\.(\d+)(?:\.(\d+))?", text, re.IGNORECASE)
    return tuple(int(part or 0) for part in match.groups()) if match else None


def _count_and_name(text: str) -> tuple[int, str]:
    text = text.strip()
    if match := re.match(r"^(\d{1,5})\s*[x×*]\s*(.+)$", text):
        return max(1, int(match.group(1))), match.group(2)
    if match := re.match(r"^(.+?)\s*[x×*]\s*(\d{1,5})$", text):
        return max(1, int(match.group(2))), match.group(1)
    return 1, text


def _shorter(name: str) -> list[str]:
    """Return the name, then the name without its last word as long as that word says nothing of the shape."""
    names = [name]
    while True:
        head, _, last = re.sub(r"[\s_]+", "-", names[-1]).rpartition("-")
        if not head or _plain(last) not in _MODEL_NOISE:
            break
        names.append(head)
    if names[-1].lower().startswith("meta-"):
        names.append(names[-1][5:])
    return names


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _near(name: str, known: tuple[str, ...]) -> str:
    lower = {entry.lower(): entry for entry in known}
    close = [lower[match] for match in difflib.get_close_matches(name.lower()[:60], lower, n=3, cutoff=0.4)]
    return f"; nearest: {', '.join(close)}" if close else ""
