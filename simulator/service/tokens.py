"""Tokens: who may read and who may write. The file holds sha256 hashes; a token itself is shown once, when it is made.

A token has 256 random bits, so a plain hash of it cannot be searched (no password hashing needed).
"""

import datetime
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from simulator.errors import ServiceError
from traces.base import Strict
from traces.complaint import complaint
from traces.errors import TraceFormatError
from traces.store import write_atomically
from traces.strict_json import parse_object

Scope = Literal["read", "write"]

PREFIX: Final = "bebop_"
"""By which scanners of leaked secrets, and people, know one."""
MAX_FILE_BYTES: Final = 1_000_000


class Token(Strict):
    """What is known of a token."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    scope: Scope
    """`write` includes `read`."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: datetime.date
    expires: datetime.date | None = None
    """Last day on which it is taken; None: always."""

    def allows(self, scope: Scope) -> bool:
        return scope in ("read", self.scope)


class _File(Strict):
    tokens: tuple[Token, ...] = ()


class TokenFile:
    """The tokens of a file, read again when it changes: a revoked one ends at once."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ServiceError: It is not there, or no token file; one line.
        """
        self._path = path
        self._state = (0, 0, -1)
        self._tokens: tuple[Token, ...] = ()
        self._read()

    def __len__(self) -> int:
        return len(self._tokens)

    def find(self, text: str) -> Token | None:
        """Return the token that a request carries, None if there is no such one; takes as long either way."""
        self._read()
        found, today = None, datetime.datetime.now(tz=datetime.UTC).date()
        sha256 = _sha256(text)
        for token in self._tokens:
            if hmac.compare_digest(token.sha256, sha256) and (token.expires is None or today <= token.expires):
                found = token
        return found

    def _read(self) -> None:
        try:
            status = self._path.stat()
            state = (status.st_ino, status.st_mtime_ns, status.st_size)
        except OSError:
            state = (0, 0, 0)
        if state != self._state:
            self._tokens, self._state = read_tokens(self._path), state


class OneToken:
    """A token of this process alone, for a service on loopback without a file."""

    def __init__(self) -> None:
        """Make it; `text` is shown once."""
        self.text, self._token = _new("session", "write", None)

    def find(self, text: str) -> Token | None:
        return self._token if hmac.compare_digest(self._token.sha256, _sha256(text)) else None


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Return the tokens of a file.

    Raises:
        ServiceError: It is not there, or no token file; one line.
    """
    try:
        with path.open("rb") as file:
            content = parse_object(file.read(MAX_FILE_BYTES), str(path))
        return _File.model_validate(content, strict=False).tokens
    except OSError as error:
        raise ServiceError(
            f"{path}: cannot be read ({error.strerror}); make one: bebop serve --new-token NAME"
        ) from None
    except TraceFormatError as error:
        raise ServiceError(str(error)) from None
    except ValidationError as error:
        raise ServiceError(f"{path}: {complaint(error, _File)}; make the token again") from None


def add_token(path: Path, name: str, scope: Scope, num_days: int | None = None) -> str:
    """Add a token to a file, which is made if it is not there, and return it: nobody can show it again.

    Raises:
        ServiceError: The name is taken or none, or the file is no token file.
        OSError: The file cannot be written.
    """
    known = read_tokens(path) if path.exists() else ()
    if any(token.name == name for token in known):
        raise ServiceError(f"--new-token {name}: {path} has one of this name; --revoke-token {name} ends it")
    try:
        text, token = _new(name, scope, num_days)
    except ValidationError:
        raise ServiceError(f"--new-token {name}: a name has letters, digits, . _ and - only, at most 100") from None
    _write(path, (*known, token))
    return text


def remove_token(path: Path, name: str) -> None:
    """Take a token out of a file; a running service refuses it from the next request on.

    Raises:
        ServiceError: There is no such token.
    """
    known = read_tokens(path)
    kept = tuple(token for token in known if token.name != name)
    if len(kept) == len(known):
        names = ", ".join(token.name for token in known) or "none"
        raise ServiceError(f"--revoke-token {name}: {path} has no such token; it has {names}")
    _write(path, kept)


def _new(name: str, scope: Scope, num_days: int | None) -> tuple[str, Token]:
    text = PREFIX + secrets.token_urlsafe(32)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    expires = None if num_days is None else today + datetime.timedelta(days=num_days)
    return text, Token(name=name, scope=scope, sha256=_sha256(text), created=today, expires=expires)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _write(path: Path, tokens: tuple[Token, ...]) -> None:
    before = os.umask(0o077)  # of a command that writes this one file
    try:
        write_atomically(path, (_File(tokens=tokens).model_dump_json(indent=1) + "\n").encode())
    finally:
        os.umask(before)
