"""A scenario as TOML text: what tomllib read, written again. Does not know what a field means."""

from typing import Any


def to_toml(content: dict[str, Any], comment: str = "") -> str:
    """Return TOML of nested tables, lists and plain values; None is left out, comments of the source are not kept."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += [""] if lines else []
    _table(content, (), lines)
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(table: dict[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    plain = {key: value for key, value in table.items() if not _is_section(value, path)}
    for key, value in plain.items():
        if value is not None:
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in table.items():
        here = (*path, key)
        if key in plain:
            continue
        for one in value if isinstance(value, list) else [value]:
            name = ".".join(map(_key, here))
            if isinstance(value, list):
                lines += ["", f"[[{name}]]"]
            elif not one or not all(_is_section(inner, here) for inner in one.values()):
                lines += ["", f"[{name}]"]
            _table(one, here, lines)


def _is_section(value: Any, path: tuple[str, ...]) -> bool:
    """Return whether a value gets a heading of its own; short tables below the first level stand in their line."""
    if isinstance(value, list):
        return bool(value) and not path and all(isinstance(one, dict) for one in value)
    return isinstance(value, dict) and (not path or path == ("arms",) or path == ("setups",))


def _key(key: str) -> str:
    return key if key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        inside = ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items() if one is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
