"""The laws of DaViT; tests/convert/test_davit.py holds it to the reference."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from git_jax.vision.davit import ChannelAttention, DaViT, WindowAttention, depthwise
from tests.vision import laws


def odd(**changes):
    """An odd little DaViT, whose windows divide no map."""
    fields = dict(
        patch=(5, 3),
        stride=(3, 2),
        padding=(1, 1),
        patch_norm=("post", "pre"),
        widths=(6, 10),
        depths=(2, 1),
        heads=(3, 2),
        groups=(2, 5),
        window=3,
        mlp_ratio=1.5,
        drop_path=0.5,
    )
    return DaViT(**fields | changes)


def lone(**changes):
    """Of one stage."""
    each = dict(patch=(3,), stride=(2,), padding=(1,), patch_norm=("post",))
    return odd(widths=(6,), depths=(2,), heads=(2,), groups=(3,), **each, **changes)


def even():
    """Of sizes that a mesh splits."""
    each = dict(depths=(1, 1), heads=(2, 4), groups=(4, 2))
    return odd(widths=(8, 12), mlp_ratio=2.0, **each)


@pytest.mark.parametrize(
    "changes", [dict(scan=False, remat="dots"), dict(remat="full")]
)
def test_loops_and_what_they_keep_change_nothing(changes):
    laws.assert_same_training(lone(), lone(**changes), (12, 14))


def test_frames_do_not_see_each_other():
    laws.assert_frames_are_apart(odd())


def test_stochastic_depth_acts_where_a_key_is_given():
    laws.assert_drop_path_needs_a_key(lone(), lone(drop_path=0.0))


def test_halves_are_close():
    laws.assert_halves_are_close(lone())


def test_every_parameter_has_its_place():
    laws.assert_every_parameter_has_its_place(even())


def test_a_mesh_changes_nothing():
    laws.assert_a_mesh_changes_nothing(even())


@pytest.mark.parametrize(
    "size, count", [((224, 224), 49), ((225, 260), 8 * 9), ((160, 640), 5 * 20)]
)
def test_git_reads_what_davit_gives(size, count):
    params, found = laws.read_by_git(DaViT(), size)
    assert found == count
    # Florence-2-base's; tests/convert/test_davit.py counts there.
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 90_368_000


def test_our_davit_makes_git2_of_its_published_size():
    """By the paper's convention: encoder, projection and decoder, without words."""
    parts = (16, 32, 64, 128)
    model = DaViT(
        widths=(512, 1024, 2048, 4096), depths=(1, 1, 22, 6), heads=parts, groups=parts
    )
    encoder, total = laws.size_of_git(model, 1024, 302_309_376)
    assert (encoder, total) == (4_765_847_552, 5_072_354_304)
    assert abs(total / 5.1e9 - 1) < 0.01


@jax.jit
def over(x):
    """A channel attention of two groups, and what makes it."""
    module = ChannelAttention(6, 2, std=0.5)
    made = module.init(jax.random.key(0), x, method="over")
    return module.apply(made, x, method="over"), made["params"]


def test_a_channel_attends_over_the_whole_map_to_its_group():
    x = jax.random.normal(jax.random.key(1), (2, 3, 4, 6))
    found, params = over(x)
    query, key, value = (
        np.einsum("bhwd,dgk->bhwgk", x, params[name]["kernel"])
        for name in ("query", "key", "value")
    )
    logits = np.einsum("bhwgk,bhwgc->bgkc", query, key) / np.sqrt(3 * 4)
    weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    read = np.einsum("bgkc,bhwgc->bhwgk", weights, value)
    plain = np.einsum("bhwgk,gkd->bhwd", read, params["out"]["kernel"])
    np.testing.assert_allclose(found, plain, atol=1e-5)
    # A map has no order for it: turned around, it is read as it was.
    np.testing.assert_allclose(over(x[:, ::-1])[0][:, ::-1], found, atol=1e-5)


def test_a_token_is_seen_within_its_window_alone():
    module = WindowAttention(4, 2, std=0.5, window=2)

    @jax.jit
    def changes(x):
        params = module.init(jax.random.key(0), x, method="over")
        return jax.jacobian(
            lambda x: module.apply(params, x, method="over").sum(axis=(0, 3))
        )(x)

    x = jax.random.normal(jax.random.key(1), (1, 3, 5, 4))
    window = np.array([[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]])
    seen = abs(changes(x)).sum(axis=(2, 5)) > 0
    np.testing.assert_array_equal(seen, window[:, :, None, None] == window)


def test_nine_products_are_a_convolution_of_each_channel():
    """Forward and backward."""
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 3))
    bias = jnp.arange(3.0)

    def convolution(x, kernel, bias):
        return bias + jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "SAME",
            feature_group_count=3,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    found, back = jax.vjp(depthwise, x, kernel, bias)
    plain, back_plain = jax.vjp(convolution, x, kernel, bias)
    chex.assert_trees_all_close(found, plain, atol=1e-5)
    chex.assert_trees_all_close(back(found), back_plain(found), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(depths=(2,)), r"2 widths \(6, 10\) and 1 of depths.*one of each"),
        (dict(patch_norm=("pre",) * 3), "3 of patch_norm.*one of each"),
        (dict(widths=()), "0 widths"),
        (dict(depths=(2, 0)), r"depths are \(2, 0\); each must be at least 1"),
        (dict(padding=(1, -1)), r"padding are \(1, -1\); each must be at least 0"),
        (dict(stride=(0, 1)), r"stride are \(0, 1\); each must be at least 1"),
        (dict(heads=(3, 3)), "width 10 is not divisible by heads 3; give a number"),
        (dict(groups=(4, 5)), "width 6 is not divisible by groups 4; give a number"),
        (dict(window=0), "window is 0; it must be at least 1"),
        (dict(drop_path=1.0), "drop_path is 1.0; it is a probability below 1"),
        (dict(padding=(0, 1)), "map of 2 x 8 is too small.*sides of 5"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    frames = jnp.zeros((1, 1, 2, 8, 3))
    with pytest.raises(ValueError, match=message):
        odd(**changes).init(jax.random.key(0), frames)
