"""One line out of a pydantic failure: row, column, value, limit. Does not know files or formats."""

import difflib
import re
import reprlib
import types
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
    # A misspelt key is also reported as missing; the spelling is what the reader wants to hear of.
    details.sort(key=lambda detail: detail["type"] == "missing")
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
    kind = detail["type"]
    loc, inside = _resolve(model, detail["loc"])
    if kind == "value_error":
        field, colon, rest = detail["msg"].removeprefix("Value error, ").partition(": ")
        known = loc and any(field in owner.model_fields for owner in _models(inside))
        at = place((*loc, field)) if known else f"{place(loc)}: {field}" if loc else field
        return f"{at}{colon}{rest}"
    if kind.startswith("union_tag_"):
        return _wrong_tag(detail, loc, inside)
    prefix = f"{place(loc)}: " if loc else ""
    value = shown(detail["input"])
    if kind == "missing":
        return prefix + "missing"
    if kind == "extra_forbidden":
        return prefix + "unknown key" + _did_you_mean(model, detail["loc"])
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        return f"{prefix}{value} is not {words} {detail['ctx'][key]:.12g}"
    if kind in _TYPES:
        return f"{prefix}{value} is not {_TYPES[kind]}"
    if kind == "string_pattern_mismatch":
        return f"{prefix}{value} does not match {detail['ctx']['pattern']}"
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


def _wrong_tag(detail: ErrorDetails, loc: tuple[int | str, ...], union: Any) -> str:
    """Return the complaint about the key that chooses between the members of a union."""
    key = detail["ctx"]["discriminator"].strip("'")
    tags = [tag for member in _models(union) for tag in _tags(member)]
    known = " or ".join([", ".join(map(repr, tags[:-1])), repr(tags[-1])])
    if detail["type"] == "union_tag_not_found":
        return f"{place((*loc, key))}: missing; it is {known}"
    return f"{place((*loc, key))}: {detail['ctx']['tag']!r} is not one of {known}"


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
    _, inside = _resolve(model, loc[:-1])
    known = [name for owner in _models(inside) for name in owner.model_fields]
    matches = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"; did you mean `{matches[0]}`?" if matches else ""


def _resolve(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[tuple[int | str, ...], Any]:
    """Return the place as the file has it, without pydantic's tags of unions, and the type that stands there."""
    path: list[int | str] = []
    current: Any = model
    for part in loc:
        models = _models(current)
        tagged = [member for member in models if len(models) > 1 and part in _tags(member)]
        if tagged:
            current = tagged[0]
        elif part != "[key]":  # of a dict: the key itself is wrong, and stands before
            path.append(part)
            current = _type_of(current, part)
    return tuple(path), current


def _type_of(annotation: Any, part: int | str) -> Any:
    """Return the type of a key of a model or dict, or of an item of a list."""
    for member in _members(annotation):
        arguments = typing.get_args(member)
        if arguments and isinstance(part, int):
            return arguments[min(part, len(arguments) - 1)] if arguments[-1] is not Ellipsis else arguments[0]
        if typing.get_origin(member) is dict:
            return arguments[1]
    return next(
        (owner.model_fields[part].annotation for owner in _models(annotation) if part in owner.model_fields), None
    )


def _members(annotation: Any) -> list[Any]:
    """Return the types that a union, an optional or an annotated type stands for."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _members(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return [member for argument in arguments for member in _members(argument)]
    return [annotation]


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [member for member in _members(annotation) if isinstance(member, type) and issubclass(member, BaseModel)]


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """Return the values of `kind` by which a union knows this member."""
    field = model.model_fields.get("kind")
    return typing.get_args(field.annotation) if field else ()
