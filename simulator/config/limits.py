"""Limits of one scenario, checked before any work starts, and the types that carry them."""

from typing import Annotated

from pydantic import Field

MAX_DRAFT_TOKENS = 16
MAX_SEQUENCES_PER_STEP = 1_000_000
MAX_SEQUENCES_PER_RUN = 20_000_000
MAX_TURNS_PER_RUN = 200_000_000
"""Of all sequences together; a turn takes 12 bytes in each replication that runs at a time."""
MAX_GPUS = 65_536
MAX_TOKENS = 1_000_000
"""Of one sequence."""

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Share = Annotated[float, Field(ge=0, le=1)]
