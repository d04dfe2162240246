"""A shipped table of facts: CSV, one named row each, found by name. Does not know what the facts are about."""

import csv
import difflib
from collections.abc import Callable
from functools import cached_property
from importlib.resources import files
from typing import Generic, Protocol, TypeVar

from traces.errors import TraceFormatError


class Named(Protocol):
    """A row with a name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class FactTable(Generic[T]):
    """Rows of `traces/data/<folder>/<file>`, read when first asked for."""

    def __init__(self, what: str, folder: str, file: str, parse: Callable[[int, dict[str, str]], T]) -> None:
        """Remember where the table is; `parse` gets (line of the file, columns)."""
        self._what, self._folder, self._file, self._parse = what, folder, file, parse

    @cached_property
    def rows(self) -> dict[str, T]:
        """The rows by name, in the order of the file."""
        text = files("traces").joinpath("data", self._folder, self._file).read_text(encoding="utf-8")
        parsed = [self._parse(line, row) for line, row in enumerate(csv.DictReader(text.splitlines()), start=2)]
        return {row.name: row for row in parsed}

    def find(self, name: str) -> T:
        """Return the row of this name.

        Raises:
            TraceFormatError: No such name; one line with close matches and the list.
        """
        if name in self.rows:
            return self.rows[name]
        close = difflib.get_close_matches(name, self.rows, n=3)
        hint = f"did you mean {', '.join(close)}? " if close else ""
        raise TraceFormatError(f"no {self._what} named {name!r}: {hint}known: {', '.join(self.rows)}")
