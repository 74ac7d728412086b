"""The config: a tree of typed nodes that a file makes and the command line reaches.

A node made by `spec(ViT, depth=12)` is an ml_collections `ConfigDict` that holds the
class itself (under the key "class", which no field can be called) and every field of
it with its default. Assignment checks names and types at once:

    config.model = spec(Git, encoder=spec(ViT, depth=12), decoder=spec(Stack, depth=6))
    config.model.encoder.depth = 6        # fine
    config.model.encoder.dept = 6         # ViT has no field 'dept'; it has depth, ...
    model = build(config.model)           # Git(encoder=ViT(depth=6), ...)

`save` and `load` keep a config as JSON, exactly; `difference` compares two. The
command line is in `command.py`.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import fnmatch
import functools
import inspect
import json
import math
import os
import pathlib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, FieldReference

from git_jax.annotation import (
    CLASS,
    PACKAGES,
    REQUIRED,
    Missing,
    describe,
    fit,
    reference,
    resolve,
)


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a class or function: what it may hold and what it holds unless told.

    `make` is a dataclass's default_factory; a field with neither is required. An
    `operand` of a function is left to who calls it, unless it is given a value.
    """

    kind: Any
    default: Any = REQUIRED
    make: Callable[[], Any] | None = None
    operand: bool = False

    def value(self) -> Any:
        value = self.make() if self.make else self.default
        return copy.deepcopy(value) if isinstance(value, ConfigDict) else adopt(value)


@functools.cache
def fields(target: Callable[..., Any]) -> Mapping[str, Field]:
    """The configurable fields of a class or function, in the order of declaration.

    A class's are the parameters of its constructor, but for the `parent` and `name` of
    Linen modules. A function's are its parameters; those that are positional and have
    no default are operands, which the caller of the built `functools.partial` gives.
    """
    is_class = isinstance(target, type)
    data: tuple[Any, ...] = ()
    if dataclasses.is_dataclass(target):
        data = dataclasses.fields(target)
    made = {
        field.name: field.default_factory
        for field in data
        if field.default_factory is not dataclasses.MISSING
    }
    hints = _hints(target if data or not is_class else target.__init__)
    found = {}
    for name, parameter in inspect.signature(target).parameters.items():
        named = (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if parameter.kind not in named or (
            _is_linen(target) and name in ("parent", "name")
        ):
            continue
        bare = parameter.default is parameter.empty
        operand = bare and not is_class and parameter.kind is named[0]
        default = REQUIRED if bare or name in made else parameter.default
        kind = hints.get(name, _kind_of(default))
        kind = kind | None if default is None and kind is not Any else kind
        found[name] = Field(kind, default, made.get(name), operand)
    return types.MappingProxyType(found)


def _is_linen(target: Any) -> bool:
    """Whether `target` is a Linen module: flax need not be imported to know."""
    bases = target.__mro__ if isinstance(target, type) else ()
    return any(base.__module__ == "flax.linen.module" for base in bases)


def _hints(target: Any) -> dict[str, Any]:
    """The annotations of `target`, evaluated; none where a library's cannot be."""
    try:
        return typing.get_type_hints(target)
    except NameError:
        # Libraries annotate with names that only a type checker imports.
        if target.__module__.partition(".")[0] in ("optax", "flax", "jax"):
            return {}
        raise


def _kind_of(default: Any) -> Any:
    """What an unannotated field may hold: more of what its default is."""
    known = (bool, int, float, str, tuple, list, dict)
    return type(default) if type(default) in known else Any


class Node(ConfigDict):
    """A ConfigDict that holds a class or function and all its fields, and checks both.

    `node["class"]` is the class. Assigning an unknown field, or a value that does not
    fit the field's annotation, raises ValueError naming what would have been legal.
    """

    def __init__(self, target: Callable[..., Any] | None = None):
        # The annotations are the types here; those of the old values are not.
        super().__init__(type_safe=False, sort_keys=False)
        if target is not None:
            super().__setitem__(CLASS, target)

    def __setitem__(self, key: str, value: Any) -> None:
        if CLASS not in self:  # only while a copy is being made: its class comes first
            return super().__setitem__(key, value)
        target = self[CLASS]
        if key == CLASS:
            raise ValueError(
                f"the class of a {name_of(target)} node cannot change; "
                "assign a new spec(...) in its place"
            )
        known = fields(target)
        if key not in known:
            raise ValueError(unknown(name_of(target), key, known))
        held = value.get() if isinstance(value, FieldReference) else value
        held = check(f"{name_of(target)}.{key}", held, known[key].kind)
        super().__setitem__(key, value if isinstance(value, FieldReference) else held)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or CLASS not in self:
            return super().__getattr__(name)
        if name not in self:
            target = self[CLASS]
            raise AttributeError(unknown(name_of(target), name, fields(target)))
        return self[name]


def spec(target: Callable[..., Any], /, **overrides: Any) -> Node:
    """A node that holds `target` (a class or function) and every field of it.

    Dataclass instances among the defaults and overrides become nodes themselves, so
    that the command line reaches into them. Raises ValueError for an unknown or
    mistyped override.
    """
    if isinstance(target, Node) or not callable(target):
        raise ValueError(f"spec takes a class or a function, not {short(target)}")
    known = fields(target)
    for name in overrides:
        if name not in known:
            raise ValueError(unknown(name_of(target), name, known))
    node = Node(target)
    for name, field in known.items():
        if name in overrides:
            node[name] = overrides[name]
        elif not field.operand:
            node[name] = field.value()
    return node


def build(node: Any, /, **extra: Any) -> Any:
    """The objects that a config describes: nested nodes first, then the node itself.

    A class is instantiated, a function becomes `functools.partial`; dicts, lists and
    tuples are built element by element, anything else is itself. `extra` are fields of
    the outermost node that only the program knows (a tokenizer's size). Raises
    ValueError naming by full path every required field that was not given.
    """
    root = name_of(node[CLASS]) if isinstance(node, Node) else ""
    missing = [
        path
        for path, value in _leaves(node, root)
        if value is REQUIRED and path.removeprefix(f"{root}.") not in extra
    ]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} must be given: no default exists "
            f"(--config.{missing[0].removeprefix(f'{root}.')}=...)"
        )
    return _build(node, root, extra)


def _build(value: Any, path: str, extra: Mapping[str, Any]) -> Any:
    if isinstance(value, Node):
        target = value[CLASS]
        linen = ("parent", "name") if _is_linen(target) else ()
        for name in extra:
            if name not in fields(target) and name not in linen:
                raise ValueError(unknown(name_of(target), name, fields(target)))
        built = {}
        for name, field in fields(target).items():
            if name in value and name not in extra:
                # Again: an entry of a dict could change since the dict was assigned.
                held = check(_join(path, name), value[name], field.kind)
                built[name] = _build(held, _join(path, name), {})
        if not isinstance(target, type):
            return functools.partial(target, **built, **extra)
        try:
            return target(**built, **extra)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if isinstance(value, Mapping | ConfigDict):
        return {k: _build(v, _join(path, k), {}) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_build(v, _join(path, i), {}) for i, v in enumerate(value))
    return value


def adopt(value: Any) -> Any:
    """`value` with its dataclass instances as nodes and its dicts as ConfigDicts."""
    if isinstance(value, ConfigDict | FieldReference | type):
        return value
    if isinstance(value, functools.partial) and not value.args:
        return spec(value.func, **value.keywords)
    if dataclasses.is_dataclass(value):
        kind: Callable[..., Any] = type(value)
        return spec(kind, **{name: getattr(value, name) for name in fields(kind)})
    if isinstance(value, Mapping):
        return ConfigDict({k: adopt(v) for k, v in value.items()})
    if type(value) in (list, tuple):
        return type(value)(adopt(v) for v in value)
    return value


def check(path: str, value: Any, kind: Any) -> Any:
    """`value` as `kind` wants it, or ValueError naming the field at `path`."""
    try:
        return fit(adopt(value), kind)
    except TypeError:
        raise ValueError(f"{path} is {describe(kind)}, not {short(value)}") from None


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted path, value) below `value`; a node's class is a leaf of it."""
    if isinstance(value, Mapping | ConfigDict) and len(value):
        items: Any = value.items()
    elif isinstance(value, list | tuple) and any(
        isinstance(v, Mapping | ConfigDict | list | tuple) for v in value
    ):
        items = enumerate(value)
    else:
        yield path, value
        return
    for key, held in items:
        yield from _leaves(held, _join(path, key))


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def name_of(target: Any) -> str:
    return getattr(target, "__name__", None) or type(target).__name__


def short(value: Any) -> str:
    if isinstance(value, Node):
        return f"a {name_of(value[CLASS])} node"
    text = _text(value)
    return text if len(text) <= 80 else f"{text[:76]}..."


def _text(value: Any) -> str:
    """`value` as the Python that would make it, nodes as calls of their classes."""
    if isinstance(value, Node):
        held = [f"{k}={_text(v)}" for k, v in value.items() if k != CLASS]
        return f"{name_of(value[CLASS])}({', '.join(held)})"
    if isinstance(value, Mapping | ConfigDict):
        return f"{{{', '.join(f'{k!r}: {_text(v)}' for k, v in value.items())}}}"
    if type(value) in (list, tuple):
        inside = ", ".join(map(_text, value))
        comma = "," if len(value) == 1 and type(value) is tuple else ""
        return f"({inside}{comma})" if type(value) is tuple else f"[{inside}]"
    return name_of(value) if callable(value) else repr(value)


def unknown(owner: str, name: str, legal: Any, noun: str = "field") -> str:
    """The message for a name that is not there: what is, and the nearest of it."""
    names = sorted(str(n) for n in legal if n != CLASS)
    close = difflib.get_close_matches(str(name), names, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    has = f"it has {', '.join(names)}" if names else "it has none"
    return f"{owner} has no {noun} {name!r}; {has}{hint}"


# ------------------------------------------------------------------------------ JSON


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
        items = [encode(v, _join(path, i)) for i, v in enumerate(value)]
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
            encoded[key] = encode(held, _join(path, key))
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
        return [decode(v, _join(path, i)) for i, v in enumerate(value)]
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
    return ConfigDict({k: decode(v, _join(path, k)) for k, v in value.items()})


def _decode_node(value: dict[str, Any], path: str) -> Node:
    held = {k: decode(v, _join(path, k)) for k, v in value.items() if k != CLASS}
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
    path = pathlib.Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(dumps(config), encoding="utf-8")
    partial.replace(path)


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
                _compare(x, y, _join(path, key), lines, harmless)
        return
    if type(a) is type(b) and type(a) in (list, tuple) and len(a) == len(b):
        if any(isinstance(held, ConfigDict) for held in (*a, *b)):
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                _compare(x, y, _join(path, i), lines, harmless)
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
            shown = "{}" if isinstance(held, ConfigDict) else repr(held)
            shown = name_of(held) if callable(held) else shown
            yield f"{label} = {shown}"
