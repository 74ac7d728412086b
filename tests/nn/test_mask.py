"""Who sees whom: the masks as they are drawn."""

import jax.numpy as jnp
import numpy as np
import pytest

from git_jax.nn import mask


def drawn(found):
    """[1 1 L L] as rows of bits."""
    assert found.shape[:2] == (1, 1)
    return ["".join("01"[int(bit)] for bit in row) for row in found[0, 0]]


@pytest.mark.parametrize(
    "level, rows",
    [
        ([0, 0, 1, 2], ["1100", "1100", "1110", "1111"]),  # GIT
        ([0, 0, 0], ["111", "111", "111"]),  # bidirectional
        ([0, 0, 0, 0, 1, 2], ["111100"] * 4 + ["111110", "111111"]),  # prefix LM
        ([1, 2, 3], ["100", "110", "111"]),  # causal
    ],
)
def test_levels_draw_the_masks_of_the_docstring(level, rows):
    assert drawn(mask.from_levels(jnp.array([level]))) == rows


def test_git_levels_are_image_then_text():
    np.testing.assert_array_equal(mask.git_levels(3, 2), [0, 0, 0, 1, 2])
    np.testing.assert_array_equal(mask.git_levels(0, 2), [1, 2])


def test_causal_is_lower_triangular():
    found = mask.causal(5)
    assert found.dtype == jnp.bool_
    np.testing.assert_array_equal(found[0, 0], np.tri(5, dtype=bool))


def test_padding_is_seen_by_no_token():
    valid = jnp.array([[True, True, False, True], [True] * 4])
    found = mask.from_levels(jnp.array([[0, 0, 1, 2]]), valid)
    assert found.shape == (2, 1, 4, 4)
    assert not found[0, 0, :, 2].any()
    np.testing.assert_array_equal(
        found[1], mask.from_levels(jnp.array([[0, 0, 1, 2]]))[0]
    )


def test_segments_do_not_see_each_other():
    """Two texts packed behind each other are each alone."""
    level = jnp.array([[0, 1, 2, 0, 1]])
    segment = jnp.array([[0, 0, 0, 1, 1]])
    found = np.array(mask.from_levels(level, segment=segment))[0, 0]
    np.testing.assert_array_equal(found[:3, :3], np.tri(3, dtype=bool))
    np.testing.assert_array_equal(found[3:, 3:], np.tri(2, dtype=bool))
    assert not found[:3, 3:].any() and not found[3:, :3].any()
