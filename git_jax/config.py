"""The config: a tree of typed nodes that a file makes and the command line reaches.

A node made by `spec(ViT, depth=12)` is an ml_collections `ConfigDict` that holds the
class itself (under the key "class", which no field can be called) and every field of
it with its default. Assignment checks names and types at once:

    config = ConfigDict({"seed": 0, "steps": 2000})
    config.model = spec(Git, encoder=spec(ViT, depth=12), decoder=spec(Stack, depth=6))
    config.model.encoder.depth = 6        # fine
    config.model.encoder.dept = 6         # ViT has no field 'dept'; it has depth, ...
    model = build(config.model)           # Git(encoder=ViT(depth=6), ...)

Here is what is done with the whole: `save` and `load` keep it as JSON, exactly,
`difference` compares two, `show` prints one. The command line is in `command.py`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from git_jax.annotation import CLASS, PACKAGES, REQUIRED, Missing, reference, resolve
from git_jax.file import write
from git_jax.node import (
    Node,
    as_python,
    build,
    fields,
    join,
    name_of,
    short,
    spec,
    unknown,
)

__all__ = [
    "REQUIRED",
    "Node",
    "build",
    "decode",
    "difference",
    "dumps",
    "encode",
    "load",
    "loads",
    "save",
    "show",
    "spec",
]

# The keys that mark what JSON has no type for. See `encode`.
TAGS = ("tuple", "float", "object", "required", "dict")


def encode(value: Any, path: str = "") -> Any:
    """`value` in the types of JSON, exactly; what JSON lacks is tagged.

    A node is {"class": "module:name", field: ...}, a tuple {"tuple": [...]}, a class or
    function {"object": "module:name"}, an infinite float {"float": "inf"}. Raises
    ValueError naming the path of what cannot be saved.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if value is REQUIRED:
        return {"required": True}
    if isinstance(value, Mapping | ConfigDict):
        return _encode_mapping(value, path)
    if type(value) in (list, tuple):
        items = [encode(v, join(path, i)) for i, v in enumerate(value)]
        return {"tuple": items} if type(value) is tuple else items
    if callable(value) and not dataclasses.is_dataclass(type(value)):
        return {"object": _saved(value, path)}
    raise ValueError(
        f"{path or 'config'} holds {short(value)}, which JSON cannot keep: "
        "use spec(...) for an object; a value is a number, text, tuple, list or dict"
    )


def _encode_mapping(value: Any, path: str) -> dict[str, Any]:
    encoded = {}
    for key, held in value.items():
        if not isinstance(key, str):
            raise ValueError(
                f"{path or 'config'} has the key {key!r}; only text can be a key"
            )
        if isinstance(value, Node) and key == CLASS:
            encoded[key] = _saved(held, path)
        else:
            encoded[key] = encode(held, join(path, key))
    tagged = len(encoded) == 1 and next(iter(encoded)) in TAGS
    if tagged or (CLASS in encoded and not isinstance(value, Node)):
        return {"dict": encoded}
    return encoded


def _saved(value: Any, path: str) -> str:
    try:
        text = reference(value)
        found = resolve(text)
    except ValueError as error:
        raise ValueError(f"{path or 'config'}: {error}") from None
    if found is not value:
        raise ValueError(
            f"{path or 'config'}: {text} is not the {text} that was imported first"
        )
    return text


def decode(value: Any, path: str = "") -> Any:
    """The inverse of `encode`. A field that a node lacks takes its default."""
    if isinstance(value, list):
        return [decode(v, join(path, i)) for i, v in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if CLASS in value:
        return _decode_node(value, path)
    tag, held = next(iter(value.items())) if len(value) == 1 else ("", None)
    try:
        if tag == "tuple" and isinstance(held, list):
            return tuple(decode(held, path))
        if tag == "float":
            return float(str(held))
        if tag == "object":
            return resolve(str(held))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path or 'config'}: {error}") from None
    if tag == "required":
        return REQUIRED
    if tag == "dict" and isinstance(held, dict):
        value = held
    return ConfigDict({k: decode(v, join(path, k)) for k, v in value.items()})


def _decode_node(value: dict[str, Any], path: str) -> Node:
    held = {k: decode(v, join(path, k)) for k, v in value.items() if k != CLASS}
    try:
        target = resolve(value[CLASS])
        # A constructor runs when the config is built: only those that hold fields may.
        trusted = target.__module__.partition(".")[0] == PACKAGES[0]
        if isinstance(target, type) and not (
            trusted or dataclasses.is_dataclass(target)
        ):
            raise ValueError(f"{value[CLASS]} is neither a dataclass nor of git_jax")
        if unheld := held.keys() - fields(target).keys():
            legal = unknown(name_of(target), min(unheld), fields(target))
            raise ValueError(f"{legal}; another version of git_jax wrote this")
        return spec(target, **held)
    except ValueError as error:
        raise ValueError(f"{path or 'config'}: {error}") from None


def dumps(config: ConfigDict) -> str:
    """The config as readable JSON, from which `loads` makes an equal one."""
    return _layout(encode(config), 0) + "\n"


def _layout(value: Any, depth: int) -> str:
    """JSON with one field a line, but what holds no node and is short on one."""
    flat = json.dumps(value, allow_nan=False)
    if not isinstance(value, dict | list) or (f'"{CLASS}"' not in flat and depth):
        if len(flat) + 2 * depth <= 88 or not isinstance(value, dict | list):
            return flat
    pad = "  " * (depth + 1)
    if isinstance(value, dict):
        rows = [f"{json.dumps(k)}: {_layout(v, depth + 1)}" for k, v in value.items()]
        start, end = "{}"
    else:
        rows = [_layout(v, depth + 1) for v in value]
        start, end = "[]"
    inside = f",\n{pad}".join(rows)
    return f"{start}\n{pad}{inside}\n{pad[2:]}{end}" if rows else start + end


def loads(text: str | bytes, source: str = "config") -> ConfigDict:
    """The config that `dumps` wrote, locked. Raises ValueError naming `source`."""
    try:
        tree = json.loads(text)
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{source}: not a config: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{source}: not a config: a JSON object was expected")
    try:
        return decode(tree).lock()
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def save(config: ConfigDict, path: str | os.PathLike[str]) -> None:
    """Writes the config to `path` at once or not at all."""
    write(path, dumps(config).encode())


def load(path: str | os.PathLike[str]) -> ConfigDict:
    """The config that `save` wrote: equal, locked, and building the same objects."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no config there")
    return loads(path.read_bytes(), str(path))


def difference(
    before: ConfigDict, after: ConfigDict, *, harmless: Sequence[str] = ()
) -> list[str]:
    """What distinguishes two configs, a line each: "model.encoder.depth: 4 -> 6".

    Values are compared as saved: 1 is not 1.0. `harmless` are paths to pass over, with
    all below them; `*` matches anything. Of nodes of two classes only these are named.
    """
    lines: list[str] = []
    _compare(before, after, "", lines, tuple(harmless))
    return lines


def _compare(
    a: Any, b: Any, path: str, lines: list[str], harmless: tuple[str, ...]
) -> None:
    if any(fnmatch.fnmatchcase(path, pattern) for pattern in harmless):
        return
    trees = isinstance(a, ConfigDict) and isinstance(b, ConfigDict)
    if trees and isinstance(a, Node) == isinstance(b, Node):
        if a.get(CLASS) is not b.get(CLASS):
            lines.append(f"{path or 'config'}: {short(a)} -> {short(b)}")
            return
        for key in dict.fromkeys([*a, *b]):
            if key != CLASS:
                x, y = a.get(key, Missing.ABSENT), b.get(key, Missing.ABSENT)
                _compare(x, y, join(path, key), lines, harmless)
        return
    if type(a) is type(b) and type(a) in (list, tuple) and len(a) == len(b):
        if any(isinstance(held, ConfigDict) for held in (*a, *b)):
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                _compare(x, y, join(path, i), lines, harmless)
            return
    absent = a is Missing.ABSENT or b is Missing.ABSENT
    if absent or json.dumps(encode(a, path)) != json.dumps(encode(b, path)):
        lines.append(f"{path}: {short(a)} -> {short(b)}")


def show(config: Any) -> str:
    """The config as an indented tree for people."""
    return "\n".join(_show(config, 0))


def _show(value: Any, depth: int) -> Iterator[str]:
    for key, held in value.items():
        if key == CLASS:
            continue
        label = f"{'  ' * depth}{key}"
        if isinstance(held, list | tuple) and any(
            isinstance(v, ConfigDict) for v in held
        ):
            held = ConfigDict({str(i): v for i, v in enumerate(held)})
        if isinstance(held, ConfigDict) and len(held):
            of = f": {name_of(held[CLASS])}" if isinstance(held, Node) else ""
            yield f"{label}{of}"
            yield from _show(held, depth + 1)
        else:
            yield f"{label} = {as_python(held)}"
