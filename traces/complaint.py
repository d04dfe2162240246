"""One line out of a pydantic failure: row, column, value, limit. Does not know files or formats."""

import difflib
import re
import reprlib
import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}

_LENGTHS = {
    "too_short": ("fewer items", "min_length"),
    "too_long": ("more items", "max_length"),
    "string_too_short": ("fewer characters", "min_length"),
    "string_too_long": ("more characters", "max_length"),
}

_TYPES = {
    "finite_number": "a finite number",
    "float_type": "a number",
    "float_parsing": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
}


def complaint(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first failure as one line without next step, and how many more there are."""
    details = error.errors(include_url=False)
    # A table whose rows all fail is also reported as too short; that is no failure of its own.
    details = [detail for detail in details if detail["type"] != "too_short" or detail["input"] == []] or details
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return " ".join(_describe(details[0], model).split()) + more


def place(loc: tuple[int | str, ...]) -> str:
    """Return where a failure is, in a reader's words: `row 17, column latency_s` or `provenance.source`."""
    if len(loc) < 2 or not isinstance(loc[1], int):
        return _dotted(loc)
    table = "row" if loc[0] == "rows" else f"{loc[0]} row"
    column = f", column {_dotted(loc[2:])}" if len(loc) > 2 else ""
    return f"{table} {loc[1]}{column}"


def _describe(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, loc = detail["type"], detail["loc"]
    prefix = f"{place(loc)}: " if loc else ""
    value = shown(detail["input"])
    if kind == "value_error":
        return prefix + detail["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return prefix + "missing"
    if kind == "extra_forbidden":
        return prefix + "unknown key" + _did_you_mean(model, loc)
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        return f"{prefix}{value} is not {words} {detail['ctx'][key]:g}"
    if kind in _TYPES:
        return f"{prefix}{value} is not {_TYPES[kind]}"
    if kind == "json_invalid":
        return detail["msg"]
    if kind in ("enum", "literal_error"):
        expected = re.sub(r"<\w+\.\w+: ('[^']*')>", r"\1", detail["ctx"]["expected"])
        return f"{prefix}{value} is not one of {expected}"
    if kind in _LENGTHS:
        words, key = _LENGTHS[kind]
        return f"{prefix}{value} has {words} than {detail['ctx'][key]}"
    message = detail["msg"]
    return f"{prefix}{value}: {message[:1].lower()}{message[1:]}"


def shown(value: object) -> str:
    """Return a value as short text that fits a line, however large or deep it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    short.maxlist = short.maxtuple = short.maxdict = 4
    short.maxlevel = 3
    return short.repr(value)


def _dotted(loc: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def _did_you_mean(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    owner = _model_at(model, loc[:-1])
    matches = difflib.get_close_matches(str(loc[-1]), list(owner.model_fields), n=1) if owner else []
    return f"; did you mean `{matches[0]}`?" if matches else ""


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, str):
            field = current.model_fields.get(part) if current else None
            current = _first_model(field.annotation) if field else None
    return current


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_first_model(argument) for argument in typing.get_args(annotation))
    return next((model for model in found if model), None)
