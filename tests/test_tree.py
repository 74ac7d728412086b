"""Names of leaves: what patterns select, and what they refuse."""

import jax
import jax.numpy as jnp
import pytest

from git_jax import tree

TREE = {
    "encoder": {"cls": jnp.zeros(2), "stack": {"kernel": jnp.ones((2, 3))}},
    "encoder_norm": {"scale": jnp.ones(1)},
    "list": [jnp.zeros(1), {"bias": jnp.zeros(4)}],
}
NAMES = [
    "encoder/cls",
    "encoder/stack/kernel",
    "encoder_norm/scale",
    "list/0",
    "list/1/bias",
]


def selected(*patterns):
    held = jax.tree.leaves(tree.select(patterns, TREE, option="frozen"))
    return [name for name, picked in zip(NAMES, held, strict=True) if picked]


def test_names_are_in_the_order_of_the_leaves():
    assert tree.names(TREE) == NAMES
    sizes = jax.tree.leaves(tree.map_named(lambda name, leaf: (name, leaf.size), TREE))
    assert sizes[::2] == NAMES
    assert sizes[1::2] == [leaf.size for leaf in jax.tree.leaves(TREE)]


def test_map_named_gives_the_same_leaf_of_every_tree():
    doubled = jax.tree.map(lambda leaf: leaf + 2, TREE)
    found = tree.map_named(lambda _, a, b: bool((b - a == 2).all()), TREE, doubled)
    assert all(jax.tree.leaves(found))


@pytest.mark.parametrize(
    "patterns, names",
    [
        (("encoder",), NAMES[:2]),  # not encoder_norm: a name ends at a slash
        (("encoder/cls", "list"), [NAMES[0], *NAMES[3:]]),
        ((".*norm",), [NAMES[2]]),
        ((".*kernel|.*bias",), [NAMES[1], NAMES[4]]),
        (("list/[0-9]+/bias",), [NAMES[4]]),
        ((), []),
    ],
)
def test_a_pattern_selects_a_name_and_all_below_it(patterns, names):
    assert selected(*patterns) == names


@pytest.mark.parametrize("pattern", ["encode", "kernel", "decoder", "encoder/cl"])
def test_a_pattern_that_selects_nothing_is_refused(pattern):
    with pytest.raises(ValueError, match=f"'{pattern}'.*encoder/cls.*list/0"):
        selected("encoder", pattern)
