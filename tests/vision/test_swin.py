"""The laws of Swin and CoSwin; tests/convert/test_swin.py holds them to references."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from git_jax.nn.transformer import DropPath
from git_jax.vision.swin import Swin, neighbours, relative_index
from tests.vision import laws
from tests.vision.laws import drawn, tokens

BOTH = pytest.mark.parametrize("merge", ["patches", "convolution"])


def odd(**changes):
    """An odd little Swin, whose windows divide no map."""
    fields = dict(
        patch=3,
        embed=6,
        depths=(3, 2),
        heads=(3, 4),
        window=3,
        mlp_ratio=1.5,
        drop_path=0.5,
        std=0.3,
    )
    return Swin(**fields | changes)


@pytest.mark.parametrize(
    "changes", [dict(scan=False, remat="dots"), dict(remat="full")]
)
def test_loops_and_what_they_keep_change_nothing(changes):
    plain = dict(depths=(5,), heads=(3,))
    laws.assert_same_training(odd(**plain), odd(**plain, **changes), (12, 14))


@BOTH
def test_frames_do_not_see_each_other(merge):
    laws.assert_frames_are_apart(odd(merge=merge))


@pytest.mark.parametrize(
    "depth, pixel, reach",
    [
        (1, (0, 0), np.s_[:3, :3]),  # its window
        (2, (0, 0), np.s_[:4, :4]),  # and the shifted ones that meet it, not around
        (2, (8, 4), np.s_[1:7, :4]),
        (2, (17, 17), np.s_[4:9, 4:9]),
    ],
)
def test_a_token_is_seen_within_its_window_alone(depth, pixel, reach):
    """Nine by nine tokens in windows of three, then shifted by one: 0 | 1 2 3 | ..."""
    model = odd(patch=2, depths=(depth,), heads=(3,), drop_path=0.0)
    params, frames = drawn(model, (18, 18))
    after = tokens(model, params, frames.at[:, :, pixel[0], pixel[1]].add(1.0))
    change = abs(after - tokens(model, params, frames)).max(axis=(0, 1, 3))
    expected = np.zeros((9, 9), bool)
    expected[reach] = True
    np.testing.assert_array_equal(change.reshape(9, 9) > 0, expected)


def test_a_map_smaller_than_a_window_is_one_window():
    """It uses the displacements that it has, as if the window were made for it."""
    large = odd(window=5, depths=(2,), heads=(3,))
    params, frames = drawn(large, (9, 18))
    table = params["stages_0"]["layers"]["relative"].reshape(2, 9, 9, 3)
    layers = params["stages_0"]["layers"] | {
        "relative": table[:, 2:7, 2:7].reshape(2, 25, 3)
    }
    small = odd(depths=(2,), heads=(3,))
    cut = params | {"stages_0": {"layers": layers}}
    chex.assert_trees_all_close(
        tokens(large, params, frames), tokens(small, cut, frames), atol=1e-6
    )


def test_a_row_of_the_table_is_for_a_displacement():
    np.testing.assert_array_equal(
        relative_index(2, 2), [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    )
    np.testing.assert_array_equal(relative_index(1, 4), [[24]])


def test_what_was_rolled_around_is_no_neighbour():
    mask = neighbours(3, 6, 3, 1)
    assert mask.shape == (2, 1, 9, 9)
    rows = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(mask[0, 0], rows[:, None] == rows)
    both = 2 * rows + np.tile([0, 0, 1], 3)
    np.testing.assert_array_equal(mask[1, 0], both[:, None] == both)


def test_stochastic_depth_acts_where_a_key_is_given():
    laws.assert_drop_path_needs_a_key(odd(), odd(drop_path=0.0))


def test_rows_are_dropped_whole_and_their_mean_stays():
    x = jnp.ones((4000, 2, 3))
    y = DropPath().apply({}, x, jnp.array(0.2), rngs={"dropout": jax.random.key(0)})
    chex.assert_trees_all_equal(y.min(axis=(1, 2)), y.max(axis=(1, 2)))
    np.testing.assert_array_equal(np.unique(y), np.float32([0, 1.25]))
    assert abs(y.mean() - 1) < 0.05
    chex.assert_trees_all_equal(DropPath().apply({}, x, jnp.array(0.2)), x)


@BOTH
def test_halves_are_close(merge):
    laws.assert_halves_are_close(odd(merge=merge))


@BOTH
def test_every_parameter_has_its_place(merge):
    laws.assert_every_parameter_has_its_place(odd(embed=8, heads=(2, 4), merge=merge))


def test_a_mesh_changes_nothing():
    laws.assert_a_mesh_changes_nothing(
        odd(embed=8, depths=(2, 1), heads=(2, 4), merge="convolution")
    )


@pytest.mark.parametrize(
    "merge, size, count",
    [
        ("patches", (224, 224), 49),
        ("patches", (225, 260), 8 * 9),
        ("convolution", (224, 224), 49),
        ("convolution", (160, 640), 5 * 20),
    ],
)
def test_git_reads_what_swin_gives(merge, size, count):
    params, found = laws.read_by_git(Swin(merge=merge), size)
    assert found == count
    if merge == "patches":  # Swin-T without its head
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 27_519_354


def test_our_coswin_h_makes_git_of_its_published_size():
    """By the paper's convention: encoder, projection and decoder, without words."""
    model = Swin(
        embed=320,
        depths=(2, 2, 22, 2),
        heads=(8, 16, 32, 64),
        window=12,
        merge="convolution",
    )
    encoder, total = laws.size_of_git(model, 768, 42_527_232)
    assert (encoder, total) == (641_808_880, 686_304_496)
    assert abs(total / 681e6 - 1) < 0.01


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(depths=(2, 2, 2)), r"3 depths .* 2 heads .* one of each"),
        (dict(depths=(), heads=()), "0 depths"),
        (dict(depths=(2, 0)), "depths is 0; it must be at least 1"),
        (dict(window=0), "window is 0; it must be at least 1"),
        (dict(patch=-1), "patch is -1"),
        (dict(embed=0), "embed is 0"),
        (dict(drop_path=1.0), "drop_path is 1.0; it is a probability below 1"),
        (dict(heads=(4, 4)), "width 6 is not divisible by heads 4; give"),
        (dict(merge="convolution", patch=7), "map of 2 x 8 is too small.*sides of 7"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    frames = jnp.zeros((1, 1, 2, 8, 3))
    with pytest.raises(ValueError, match=message):
        odd(**changes).init(jax.random.key(0), frames)
