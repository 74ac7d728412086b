"""What a field of a config may hold: values against annotations, and their names.

`fit` says whether a value is what an annotation wants, `read` what text of a command
line means for it, `describe` how to call it before a person. `reference` and `resolve`
turn classes and functions into names and back.
"""

from __future__ import annotations

import ast
import collections.abc
import contextlib
import enum
import importlib
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

from ml_collections import ConfigDict

# The key under which a node of the config holds its class or function.
CLASS = "class"

# Whose code a config read from JSON may import. See `resolve`.
PACKAGES = ("git_jax", "jax", "flax", "optax")

# Modules that another process has not, or has others of: programs and config files.
NAMELESS = ("__main__", "__config__")

# Where a function that jax defines in a private module is published.
PUBLISHED = ("jax.nn", "jax.numpy", "jax.nn.initializers", "jax.lax")


class Missing(enum.Enum):
    """What stands for a value that is not there.

    REQUIRED is held by a field that has no default and was not given.
    """

    REQUIRED = "required"
    ABSENT = "absent"

    def __repr__(self) -> str:
        return f"<{self.value}>"


REQUIRED = Missing.REQUIRED


def describe(kind: Any) -> str:
    """An annotation as a person would write it."""
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(repr(option) for option in typing.get_args(kind))}"
    if isinstance(kind, type) and not typing.get_args(kind):
        return "a dict" if kind is ConfigDict else kind.__name__
    return str(kind).replace("typing.", "").replace("collections.abc.", "")


def _is_node(value: Any) -> bool:
    """Whether `value` is a ConfigDict that holds a class or function."""
    return isinstance(value, ConfigDict) and callable(value.get(CLASS))


def fit(value: Any, kind: Any) -> Any:
    """`value` as the annotation `kind` wants it, or TypeError.

    An int fits a float and a list a tuple, and are converted; a bool is no int. A node
    fits where an instance of its class would. Protocols are not checked.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if value is REQUIRED or kind is Any or isinstance(kind, typing.TypeVar):
        return value
    if kind is None or kind is types.NoneType:
        return require(value, value is None)
    if origin in (Union, types.UnionType):
        for member in sorted(inner, key=lambda member: type(value) is not member):
            with contextlib.suppress(TypeError):
                return fit(value, member)
        raise TypeError
    if origin is Literal:
        return require(value, any(type(value) is type(o) and value == o for o in inner))
    bare = origin or kind
    if _is_node(value):
        return require(value, _makes(value[CLASS], bare))
    if bare is collections.abc.Callable or bare is type:
        return require(value, callable(value))
    if not isinstance(bare, type) or getattr(bare, "_is_protocol", False):
        return value
    if issubclass(bare, bool | str):
        return require(value, isinstance(value, bare))
    if bare is int or bare is float:
        number = isinstance(value, int | (float if bare is float else int))
        return bare(require(value, number and not isinstance(value, bool)))
    if issubclass(bare, Mapping) or bare is collections.abc.Mapping:
        require(value, isinstance(value, Mapping | ConfigDict))
        if not inner:
            return value
        return ConfigDict({k: fit(v, inner[1]) for k, v in value.items()})
    if bare in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        require(value, isinstance(value, list | tuple))
        make = list if bare is list else tuple
        if bare is tuple and inner and inner[-1] is not Ellipsis:
            require(value, len(value) == len(inner))
            return tuple(fit(v, k) for v, k in zip(value, inner, strict=True))
        return make(fit(v, inner[0]) for v in value) if inner else make(value)
    return require(value, isinstance(value, bare))


def require(value: Any, holds: bool) -> Any:
    """`value` if it `holds`, or TypeError."""
    if not holds:
        raise TypeError
    return value


def _makes(target: Any, kind: Any) -> bool:
    """Whether what a node of `target` builds may stand where `kind` is wanted."""
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    if not isinstance(target, type):
        return kind in (collections.abc.Callable, object)
    return kind is collections.abc.Callable or issubclass(target, kind)


def read(text: str, kind: Any) -> Any:
    """The value that `text`, from a command line, means for the annotation `kind`.

    `none` is None where that is legal; `1,2,3` and `(1, 2, 3)` are tuples; a function
    is `module:name`. The value is still to be fitted: what a sequence or a dict holds
    is not checked. Raises TypeError or ValueError where the text means nothing.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if types.NoneType in inner and text.lower() == "none":
            return None
        members = [member for member in inner if member is not types.NoneType]
        for member in sorted(members, key=lambda member: member is str):
            with contextlib.suppress(TypeError, ValueError):
                return read(text, member)
        raise TypeError
    if origin is Literal:
        chosen = [option for option in inner if str(option) == text]
        return require(chosen, bool(chosen))[0]
    bare = origin or kind
    if bare is str:
        return text
    if bare is bool:
        words = {"true": True, "1": True, "false": False, "0": False}
        return words[require(text.lower(), text.lower() in words)]
    if bare is int:
        return int(text, 0)
    if bare is float:
        return float(text)
    if bare is collections.abc.Callable or bare is type:
        return resolve(text)
    if bare in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        literal = _literal(text)
        if not isinstance(literal, list | tuple):
            parts = [part.strip() for part in text.strip("()[] ").split(",")]
            of = inner[0] if inner else Any
            literal = [read(part, of) for part in parts if part]
        return tuple(literal)
    return _literal(text)


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def reference(value: Any) -> str:
    """The "module:qualname" by which `resolve` finds a class or function again."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not module or not name:
        raise ValueError(f"{value!r} has no name to be saved by")
    if module.startswith("jax._src"):
        for public in PUBLISHED:
            if getattr(sys.modules.get(public), name, None) is value:
                module = public
                break
    if "<" in name or module.partition(".")[0] in NAMELESS:
        raise ValueError(
            f"{name} of {module} cannot be saved by name: "
            "define it at the top of a module that can be imported"
        )
    return f"{module}:{name}"


def resolve(text: str) -> Any:
    """The class or function called "module:qualname".

    Only the packages in `PACKAGES` are imported; other modules must be imported
    already and lie outside the standard library. A name that its module only imported
    from elsewhere is refused, so a file of JSON cannot reach, say, `os.system`.
    """
    module, colon, name = text.partition(":")
    root = module.partition(".")[0]
    if not colon or not name:
        raise ValueError(f"{text!r} is not of the form module:name")
    if root in PACKAGES:
        try:
            holder = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(f"{text}: {error}") from None
    elif module in sys.modules and root not in {*NAMELESS, *sys.stdlib_module_names}:
        holder = sys.modules[module]
    else:
        raise ValueError(
            f"{text}: only code of {', '.join(PACKAGES)}, or of a module that is "
            f"imported already, may be named in a config (--import={module} does that)"
        )
    value: Any = holder
    for part in name.split("."):
        value = getattr(value, part, None)
    if not callable(value):
        raise ValueError(f"{text}: {module} defines no class or function {name!r}")
    if reference(value) != text:
        raise ValueError(f"{text} is defined elsewhere, as {reference(value)}")
    return value
