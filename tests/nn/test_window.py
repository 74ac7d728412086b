"""The laws of windows: what is cut is joined again, and lies where it lay."""

import jax.numpy as jnp
import numpy as np
import pytest

from git_jax.nn import window


def numbered(*shape):
    """Every entry another number, none zero."""
    return jnp.arange(1, 1 + np.prod(shape)).reshape(shape)


@pytest.mark.parametrize("high, wide", [(4, 6), (3, 5), (1, 1), (7, 2)])
@pytest.mark.parametrize("side", [1, 2, 5])
def test_what_is_cut_is_joined_again(high, wide, side):
    x = numbered(2, high, wide, 3)
    windows = window.cut(x, side)
    assert windows.shape == (2 * -(-high // side) * -(-wide // side), side**2, 3)
    np.testing.assert_array_equal(window.join(windows, high, wide), x)
    # Nothing but zeros is added, and nothing is lost.
    assert (windows != 0).sum() == x.size


def test_windows_are_as_drawn():
    """The map of the module's docstring, `.` and `a` are 0 and 1."""
    x = numbered(1, 3, 5, 1)
    rows = ["ab fg", "cd hi", "e. j.", "kl ..", "mn ..", "o. .."]
    drawn = [[".abcdefghijklmno".index(c) for c in row if c != " "] for row in rows]
    np.testing.assert_array_equal(window.cut(x, 2)[..., 0], drawn)


def test_rows_of_a_batch_are_not_mixed():
    x = numbered(2, 3, 5, 1)
    apart = [window.cut(x[i : i + 1], 2) for i in range(2)]
    np.testing.assert_array_equal(window.cut(x, 2), jnp.concatenate(apart))


def test_a_map_is_filled_at_the_right_and_at_the_bottom():
    x = numbered(1, 3, 4, 2)
    filled = window.fill(x, 4)
    assert filled.shape == (1, 4, 4, 2)
    np.testing.assert_array_equal(filled[:, :3], x)
    assert not filled[:, 3].any()
    np.testing.assert_array_equal(window.fill(filled, 4), filled)
