"""What every trace carries: strictness, provenance, an origin per number, a content hash.

Does not know any particular trace, nor how files are read and written (`store`).
"""

import hashlib
import json
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1
"""Version of every file format in this package; a reader refuses a newer one."""


class Origin(StrEnum):
    """Where a number comes from, from the most to the least trustworthy."""

    MEASURED = "measured"
    """Timed or counted on the real thing; exact at its own point."""
    INTERPOLATED = "interpolated"
    """Between measured or modelled points, inside their hull."""
    MODELLED = "modelled"
    """Computed from a model that was fitted to measurements of something else."""
    EXTRAPOLATED = "extrapolated"
    """Outside the hull of the points it is taken from."""
    STATED = "stated"
    """Written in a publication, a datasheet or a configuration file."""
    ASSUMED = "assumed"
    """Chosen by a person; nobody measured it."""


class Strict(BaseModel):
    """Base of every format: unknown keys are errors, NaN and infinities too, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Provenance(Strict):
    """Where a trace comes from, well enough to make it again."""

    source: str = Field(min_length=1, max_length=2000)
    """What was measured or read: an engine, a database, a paper and its figure."""
    created: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    """Day of making, ISO 8601."""
    command: str | None = Field(default=None, max_length=2000)
    """The command that makes it again."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of what took part: tools, engine, driver."""
    notes: str | None = Field(default=None, max_length=8000)
    """What a reader must know before trusting it."""


class Trace(Strict):
    """Base of the file formats: a version, a name, a provenance."""

    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    """Format version of this file."""
    name: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Short name, also its file name."""
    provenance: Provenance
    """Where it comes from."""

    def content_hash(self) -> str:
        """Return the sha256 (hex) of the canonical JSON: same content, same hash, on any machine."""
        return canonical_hash(self.model_dump(mode="json"))


def canonical_json(content: object) -> str:
    """Return JSON with sorted keys and no spaces; NaN and infinities raise ValueError."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_hash(content: object) -> str:
    """Return the sha256 (hex) of `canonical_json(content)`."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
