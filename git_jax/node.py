"""A node of the config: a class or function and all its fields, typed and named.

`spec` makes a node, `build` the object that it describes; see `config.py` for the tree
of them.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from git_jax.annotation import CLASS, REQUIRED, describe, fit


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
                held = check(join(path, name), value[name], field.kind)
                built[name] = _build(held, join(path, name), {})
        if not isinstance(target, type):
            return functools.partial(target, **built, **extra)
        try:
            return target(**built, **extra)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if isinstance(value, Mapping | ConfigDict):
        return {k: _build(v, join(path, k), {}) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_build(v, join(path, i), {}) for i, v in enumerate(value))
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
        yield from _leaves(held, join(path, key))


def join(path: str, key: Any) -> str:
    """The dotted path of what `key` holds below `path`."""
    return f"{path}.{key}" if path else str(key)


def name_of(target: Any) -> str:
    """What a class or function is called."""
    return getattr(target, "__name__", None) or type(target).__name__


def short(value: Any) -> str:
    """`value` as an error message has room for it."""
    if isinstance(value, Node):
        return f"a {name_of(value[CLASS])} node"
    text = as_python(value)
    return text if len(text) <= 80 else f"{text[:76]}..."


def as_python(value: Any) -> str:
    """`value` as the Python that would make it, nodes as calls of their classes."""
    if isinstance(value, Node):
        held = [f"{k}={as_python(v)}" for k, v in value.items() if k != CLASS]
        return f"{name_of(value[CLASS])}({', '.join(held)})"
    if isinstance(value, Mapping | ConfigDict):
        return f"{{{', '.join(f'{k!r}: {as_python(v)}' for k, v in value.items())}}}"
    if type(value) in (list, tuple):
        inside = ", ".join(map(as_python, value))
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
