"""Texts: what every slot of an engine has read and written, where it ends, and who sampled it. Does not know models.

Arrays of the host: an engine's bookkeeping is many small operations, which numpy makes in a third of torch's time.
"""

# Shape letters: S slots, B neighbouring slots, Q most new tokens of one, L places of a slot.

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from profiler.testbed.engine import Request

Whole = NDArray[np.int64]


class Texts:
    """Prompt and response of every slot."""

    def __init__(self, num_slots: int, num_places: int) -> None:
        self.known_S: Whole = np.zeros(num_slots, np.int64)
        """Tokens of prompt and response so far."""
        self._tokens_SL: Whole = np.zeros((num_slots, num_places), np.int64)
        self._versions_SL: Whole = np.zeros_like(self._tokens_SL)
        self._log_p_SL: NDArray[np.float32] = np.zeros((num_slots, num_places), np.float32)
        self._end_S: Whole = np.zeros_like(self.known_S)
        """Tokens at which a response ends whatever the policy says."""
        self._is_free_S: NDArray[np.bool_] = np.zeros(num_slots, np.bool_)
        """Whether the policy may end the response."""
        self._slots_S: Whole = np.arange(num_slots)
        self._ahead_L: Whole = np.arange(num_places)

    def seat(self, slot: int, request: Request, most_tokens: int) -> None:
        """Write what is known of a response into a slot."""
        begin, known = len(request.prompt), len(request.prompt) + len(request.generated)
        self._tokens_SL[slot, :known] = request.prompt + request.generated
        self._versions_SL[slot, begin:known] = request.versions
        self._log_p_SL[slot, begin:known] = request.log_probs
        self.known_S[slot] = known
        self._end_S[slot] = begin + most_tokens
        self._is_free_S[slot] = request.num_tokens is None

    def last_tokens(self, num_slots: int) -> Whole:
        """Return the last known token of each of the first slots, [B]."""
        return self._tokens_SL[self._slots_S[:num_slots], self.known_S[:num_slots] - 1]

    def append(
        self, first: int, new_BQ: Whole, log_p_BQ: NDArray[np.float32], num_B: Whole, version: int, end_token: int
    ) -> tuple[Whole, list[int]]:
        """Append the first `num` new tokens of each slot from `first` on, no more than its response has room for.

        Returns:
            How many were kept, [B], and the slots whose response has ended.
        """
        batch, width = new_BQ.shape
        slots, ahead_Q = slice(first, first + batch), self._ahead_L[:width]
        known_B = self.known_S[slots]
        places = self._slots_S[slots, None], known_B[:, None] + ahead_Q
        self._tokens_SL[places] = new_BQ
        self._log_p_SL[places] = log_p_BQ
        self._versions_SL[places] = version
        ends_BQ = (new_BQ == end_token) & self._is_free_S[slots, None]
        until_end_B = np.where(ends_BQ, ahead_Q + 1, width + 1).min(1)
        room_B = np.minimum(until_end_B, self._end_S[slots] - known_B)
        kept_B = np.minimum(room_B, num_B)
        self.known_S[slots] = known_B + kept_B
        return kept_B, (first + np.flatnonzero(room_B <= num_B)).tolist()

    def move(self, source: int, target: int) -> None:
        """Copy a slot to another one."""
        known = self.known_S[source]
        for x_SL in (self._tokens_SL, self._versions_SL, self._log_p_SL):
            x_SL[target, :known] = x_SL[source, :known]
        for x_S in (self.known_S, self._end_S, self._is_free_S):
            x_S[target] = x_S[source]

    def with_what_it_has(self, slot: int, request: Request) -> Request:
        """Return the request of a slot with all that was generated of it."""
        written = slice(len(request.prompt), self.known_S[slot])
        columns = (self._tokens_SL, self._versions_SL, self._log_p_SL)
        tokens, versions, log_probs = (tuple(x_SL[slot, written].tolist()) for x_SL in columns)
        return replace(request, generated=tokens, versions=versions, log_probs=log_probs)
