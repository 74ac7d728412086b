"""Trees of arrays by the names of their leaves: `decoder/layers/ffn/up/kernel`."""

import re
from collections.abc import Callable
from typing import Any

import jax


def names(tree: Any) -> list[str]:
    """The names of the leaves, in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [name_of(path) for path, _ in leaves]


def name_of(path: tuple[Any, ...]) -> str:
    """`(DictKey('a'), SequenceKey(0))` is `a/0`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def map_named(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` whose function is also given the leaf's name, first."""
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(name_of(path), *leaves), tree, *rest
    )


def select(patterns: tuple[str, ...], tree: Any, *, option: str) -> Any:
    """True at the leaves whose name one of the patterns matches from its start.

    `select(("encoder",), tree)` selects `encoder` and everything below it; patterns
    are regular expressions that must end at a name's end or before a `/`. `option` is
    what the patterns were given in.

    Raises:
        ValueError: a pattern matches nothing, which is a misspelling.
    """
    every = names(tree)
    for pattern in patterns:
        if not any(matches(pattern, name) for name in every):
            tops = sorted({"/".join(name.split("/")[:2]) for name in every})
            raise ValueError(
                f"{option}: no parameter is named {pattern!r}; names begin with "
                f"{', '.join(tops)}"
            )
    return map_named(
        lambda name, _: any(matches(pattern, name) for pattern in patterns), tree
    )


def matches(pattern: str, name: str) -> bool:
    """Whether a regular expression fits the beginning of a name, up to a `/`."""
    return re.match(rf"(?:{pattern})(?:/|$)", name) is not None
