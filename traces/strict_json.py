"""JSON read with suspicion: no duplicate keys, no depth bombs, one line of complaint. Does not know any format.

NaN and infinities pass here as floats, so that the format can name their row and column when it refuses them.
"""

import json
from typing import Any

from traces.errors import TraceFormatError


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in `text`; `where` opens every complaint.

    Raises:
        TraceFormatError: Not UTF-8, not JSON, a key twice, nested too deeply, or not an object.
    """
    content = parse(text, where)
    if not isinstance(content, dict):
        raise TraceFormatError(f"{where}: holds a JSON {_json_name(content)}, expected an object; see `bebop schema`")
    return content


def parse(text: str | bytes, where: str) -> Any:
    """Return the JSON value in `text`, raising as `parse_object` does."""
    try:
        return json.loads(text, object_pairs_hook=_object_without_duplicates)
    except UnicodeDecodeError as error:
        raise TraceFormatError(f"{where}: byte {error.start} is not UTF-8; write the file as UTF-8 JSON") from None
    except json.JSONDecodeError as error:
        raise TraceFormatError(
            f"{where}: line {error.lineno}, column {error.colno}: not JSON ({error.msg}); restore the file or make it "
            "again"
        ) from None
    except RecursionError:
        raise TraceFormatError(f"{where}: nested too deeply for any trace; restore the file or make it again") from None
    except _DuplicateKeyError as error:
        raise TraceFormatError(
            f"{where}: key {error.args[0]!r} appears twice in one object; keep one of them"
        ) from None
    except ValueError:  # Python converts integers of up to 4300 digits
        raise TraceFormatError(
            f"{where}: holds a number of thousands of digits; fix it or make the file again"
        ) from None


class _DuplicateKeyError(Exception):
    """One object holds one key twice."""


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return content


def _json_name(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
