"""Uploads: files that a visitor gives, named by hash, and as files on disk for as long as a reader needs them.

Nothing of a visitor's name reaches the disk but letters, digits, dots and dashes. Does not know what is in a file.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from simulator.errors import SimulatorError
from traces.errors import TraceError

MAX_BYTES = 16_000_000
"""Of all files of one upload together; the server refuses a larger request as well."""
MAX_FILES = 20
MAX_NAME_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Upload:
    """A file by its name and its bytes."""

    name: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Hash of the bytes: what the file is called wherever a name must be unique."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def file_name(self) -> str:
        """The name as it may stand on disk: no folder, no leading dot, nothing a shell or terminal would read."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(self.name.replace("\\", "/")).name, flags=re.ASCII)
        suffix = "".join(Path(plain).suffixes[-2:])[-20:]
        return plain.lstrip(".-")[-MAX_NAME_CHARACTERS:] or f"upload{suffix}"


def checked(uploads: Sequence[Upload]) -> tuple[Upload, ...]:
    """Return the uploads.

    Raises:
        TraceError: Too many files, or too many bytes; one line.
    """
    if len(uploads) > MAX_FILES:
        raise TraceError(f"{len(uploads)} files are above the limit of {MAX_FILES}; give the files of one run")
    size = sum(len(upload.content) for upload in uploads)
    if size > MAX_BYTES:
        raise TraceError(
            f"{uploads[0].name}: {size} bytes are above the limit of {MAX_BYTES}; compress it (.gz), or read it with "
            "`bebop import` and give the trace"
        )
    return tuple(uploads)


@contextmanager
def on_disk(uploads: Sequence[Upload]) -> Iterator[list[Path]]:
    """Yield the uploads as files, in order, and take them away again; a complaint names a file without its folder."""
    with tempfile.TemporaryDirectory(prefix="bebop-upload-") as folder:
        paths = []
        for index, upload in enumerate(checked(uploads)):
            place = Path(folder) / str(index)
            place.mkdir()
            paths.append(place / upload.file_name)
            paths[-1].write_bytes(upload.content)
        try:
            yield paths
        except (SimulatorError, TraceError) as error:
            raise type(error)(_without_folder(str(error), paths)) from None


def _without_folder(text: str, paths: Sequence[Path]) -> str:
    for path in paths:
        text = text.replace(f"{path.parent}/", "")
    return text
