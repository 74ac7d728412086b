"""Pixels and words to vectors, and vectors to words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from git_jax.nn.embed import (
    CLIP_MEAN,
    CLIP_STD,
    ConvStem,
    Head,
    PatchEmbed,
    TextEmbed,
    logits,
    normalise_pixels,
    resample,
)

RNG = np.random.default_rng(0)


def test_bytes_are_normalised_and_floats_are_taken_as_they_are():
    frames = RNG.integers(0, 256, (2, 1, 4, 4, 3), np.uint8)
    found = normalise_pixels(jnp.array(frames), CLIP_MEAN, CLIP_STD, "float32")
    plain = (frames / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    np.testing.assert_allclose(found, plain, atol=1e-6)
    again = normalise_pixels(found, CLIP_MEAN, CLIP_STD, "float32")
    np.testing.assert_array_equal(found, again)
    assert normalise_pixels(found, CLIP_MEAN, CLIP_STD, "bfloat16").dtype == "bfloat16"


@pytest.mark.parametrize("bias", [False, True])
def test_patches_are_a_convolution_whose_stride_is_its_size(bias):
    frames = jnp.array(RNG.normal(size=(2, 6, 9, 3)), jnp.float32)
    module = PatchEmbed(width=5, patch=3, bias=bias, std=1.0)
    params = module.init(jax.random.key(0), frames)["params"]
    assert ("bias" in params) == bias
    if bias:
        params["bias"] = jnp.arange(5.0)
    found = module.apply({"params": params}, frames)
    plain = jax.lax.conv_general_dilated(
        frames,
        params["kernel"],
        (3, 3),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    # Rows of patches first: 2 x 3 of them.
    plain = plain.reshape(2, 6, 5) + params.get("bias", 0)
    np.testing.assert_allclose(found, plain, atol=1e-5)


def test_what_fills_no_patch_is_not_seen():
    module = PatchEmbed(width=5, patch=4)
    frames = jnp.array(RNG.normal(size=(1, 10, 8, 3)), jnp.float32)
    params = module.init(jax.random.key(0), frames)
    whole = module.apply(params, frames)
    np.testing.assert_array_equal(whole, module.apply(params, frames[:, :8]))
    with pytest.raises(ValueError, match="3 x 8 pixels holds no patch of 4 x 4"):
        module.init(jax.random.key(0), jnp.zeros((1, 3, 8, 3)))


def test_a_resampled_grid_goes_through_its_points():
    """Three times as fine, every third point is a point that was there."""
    grid = jnp.array(RNG.normal(size=(4, 5, 2)), jnp.float32)
    fine = resample(grid, 12, 15)
    np.testing.assert_allclose(fine[1::3, 1::3], grid, atol=1e-6)
    flat = resample(jnp.full((4, 5, 2), 3.0), 7, 3)
    np.testing.assert_allclose(flat, np.full((7, 3, 2), 3), rtol=1e-6)
    assert resample(grid, 4, 5) is grid


@pytest.mark.parametrize("sizes", [(5, 7), (14, 14), (3, 20)])
def test_resampled_grids_are_torchs(sizes):
    torch = pytest.importorskip(
        "torch", reason="requirements-parity.txt is not installed"
    )
    grid = RNG.normal(size=(8, 6, 4)).astype(np.float32)
    there = torch.nn.functional.interpolate(
        torch.tensor(grid).permute(2, 0, 1)[None],
        size=sizes,
        mode="bicubic",
        align_corners=False,
    )
    here = resample(jnp.array(grid), *sizes)
    np.testing.assert_allclose(here, there[0].permute(1, 2, 0).numpy(), atol=1e-5)


def test_a_stem_halves_the_picture_and_sees_only_what_is_near():
    """Two convolutions: a quarter of each side, and a corner is seen by its cell."""
    module = ConvStem((4, 6), "gelu")
    frames = jnp.array(RNG.normal(size=(1, 8, 16, 3)), jnp.float32)
    params = module.init(jax.random.key(0), frames)
    found = module.apply(params, frames)
    assert found.shape == (1, 2, 4, 6)
    other = module.apply(params, frames.at[0, 0, 0].add(1.0))
    changed = np.argwhere(abs(other - found).max(axis=(0, 3)) > 0)
    np.testing.assert_array_equal(changed, [[0, 0]])


def text(tied=True, **changes):
    module = TextEmbed(width=6, vocabulary=9, positions=5, tied=tied, **changes)
    made = module.init(jax.random.key(1), jnp.zeros((1, 2), jnp.int32))
    return module, made


def test_a_word_is_its_row_and_its_positions_under_a_norm():
    module, made = text()
    tokens = jnp.array([[3, 3, 8], [0, 1, 2]])
    found = module.apply(made, tokens)
    params = made["params"]
    x = params["word"][tokens] + params["position"][:3]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-8)
    np.testing.assert_allclose(found, x, atol=1e-4)
    assert abs(found[0, 0] - found[0, 1]).max() > 0.1  # the same word, elsewhere


def test_positions_can_be_given():
    module, made = text()
    tokens = jnp.array([[3, 4], [3, 4]])
    found = module.apply(made, tokens, jnp.array([[2, 3], [0, 1]]))
    np.testing.assert_array_equal(found[1], module.apply(made, tokens)[1])
    padded = module.apply(made, jnp.array([[0, 0, 3, 4]]))
    np.testing.assert_array_equal(found[0], padded[0, 2:])


def test_the_head_is_the_word_embedding_or_one_of_its_own():
    for tied in (True, False):
        module, made = text(tied)
        head = module.apply(made, method="head")
        names = {"word", "position", "norm", "output_bias"}
        assert set(made["params"]) == names | (set() if tied else {"output"})
        held = made["params"]["word" if tied else "output"]
        np.testing.assert_array_equal(head.kernel, held)
        assert head.bias.shape == (9,)


def test_scores_are_float32_of_vectors_of_any_type():
    head = Head(
        jnp.array(RNG.normal(size=(9, 6)), jnp.float32), jnp.arange(9, dtype="f4")
    )
    x = jnp.array(RNG.normal(size=(2, 3, 6)), jnp.float32)
    found = logits(x, head)
    np.testing.assert_allclose(found, x @ head.kernel.T + head.bias, atol=1e-5)
    half = logits(x.astype(jnp.bfloat16), head)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, found, atol=0.1)


def test_a_text_longer_than_the_positions_is_refused():
    module, made = text()
    with pytest.raises(ValueError, match="6 tokens.*5 positions.*embed.positions"):
        module.apply(made, jnp.zeros((1, 6), jnp.int32))
