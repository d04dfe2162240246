"""Checkpoint: what a trainer goes on from when it was killed. Two files take turns, each overwritten in place.

Writing over pages that are there costs a tenth of writing a new file, and a run of small steps writes one in each. A
file counts only once its last bytes, those of its head, are written; so one whole checkpoint is always there. Made to
outlive a process, not a machine: nothing is forced to the disk. Does not know what is saved.
"""

import pickle
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

_HEAD = struct.Struct("<qqq")
"""Number of the checkpoint, or INVALID; bytes of its frame; arrays behind that."""
_INVALID = -1


class Checkpoint:
    """The checkpoints of one trainer, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._paths = (folder / "checkpoint-0", folder / "checkpoint-1")

    def save(self, number: int, content: Any) -> None:
        """Write dicts, lists and tuples of tensors and plain values; numbers ascend."""
        arrays: list[pickle.PickleBuffer] = []
        frame = pickle.dumps(_to_numpy(content), protocol=5, buffer_callback=arrays.append)
        raw: list[memoryview] = [array.raw() for array in arrays]
        sizes = struct.pack(f"<{len(raw)}q", *(each.nbytes for each in raw))
        path = self._paths[number % 2]
        path.touch()
        with path.open("r+b", buffering=0) as file:
            file.write(_HEAD.pack(_INVALID, len(frame), len(raw)))
            file.write(sizes + frame)
            for part in raw:
                file.write(part)
            file.seek(0)
            file.write(_HEAD.pack(number, len(frame), len(raw)))

    def load(self) -> tuple[int, Any] | None:
        """Return the newest whole checkpoint with its number; None where there is none yet."""
        numbers = {_number(path): path for path in self._paths if path.exists()}
        newest = max(numbers, default=_INVALID)
        if newest == _INVALID:
            return None
        with numbers[newest].open("rb") as file:
            return newest, _read(file)


def _number(path: Path) -> int:
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
    return int(_HEAD.unpack(head)[0]) if len(head) == _HEAD.size else _INVALID


def _read(file: IO[bytes]) -> Any:
    _, frame_bytes, num_arrays = _HEAD.unpack(file.read(_HEAD.size))
    sizes = struct.unpack(f"<{num_arrays}q", file.read(8 * num_arrays))
    frame = file.read(frame_bytes)
    return _to_torch(pickle.loads(frame, buffers=[bytearray(file.read(size)) for size in sizes]))


def _to_numpy(value: Any) -> Any:
    return _mapped(value, lambda each: each.detach().cpu().numpy() if isinstance(each, Tensor) else each)


def _to_torch(value: Any) -> Any:
    return _mapped(value, lambda each: torch.from_numpy(each) if isinstance(each, np.ndarray) else each)


def _mapped(value: Any, change: Any) -> Any:
    """Return nested dicts, lists and tuples with every leaf changed."""
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(each, change) for each in value)
    return change(value)
