"""What holds of every encoder: frames in, tokens of each frame out."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from git_jax import sharding, tree
from git_jax.models.git import Git
from git_jax.nn.embed import TextEmbed
from git_jax.nn.transformer import Stack
from git_jax.sharding import Layout


@functools.cache
def drawn(model, size=(20, 26)):
    """Parameters, none of them what it is at the beginning, and frames."""
    rng = np.random.default_rng(0)

    def noise(name, leaf):
        return jnp.array(
            name.endswith("scale") + 0.2 * rng.normal(size=leaf.shape), "f4"
        )

    frames = jnp.array(rng.normal(size=(2, 2, *size, 3)), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), frames)["params"]
    return tree.map_named(noise, shapes), frames


@functools.partial(jax.jit, static_argnums=0)
def tokens(model, params, frames, key=None):
    rngs = None if key is None else {"dropout": key}
    return model.apply({"params": params}, frames, rngs=rngs)


@functools.partial(jax.jit, static_argnums=0)
def trained(model, params, frames, key):
    """Tokens in training, and the gradients of a sum of theirs."""

    def square(params):
        found = tokens(model, params, frames, key)
        return jnp.square(found[..., 0]).sum(), found

    return jax.grad(square, has_aux=True)(params)


def assert_same_training(model, other, size):
    """Tokens and gradients of two that differ in how they are run alone."""
    given = *drawn(model, size), jax.random.key(5)
    found = (trained(one, *given) for one in (model, other))
    chex.assert_trees_all_close(*found, rtol=1e-4, atol=1e-4)


def assert_frames_are_apart(model):
    """A change in one frame changes its tokens alone."""
    params, frames = drawn(model)
    before = tokens(model, params, frames)
    after = tokens(model, params, frames.at[0, 1].add(1.0))
    chex.assert_trees_all_equal(before[1], after[1])
    chex.assert_trees_all_equal(before[0, 0], after[0, 0])
    assert abs(before[0, 1] - after[0, 1]).max() > 1e-2


def assert_drop_path_needs_a_key(model, never):
    """`never` is the model without stochastic depth."""
    params, frames = drawn(model)
    plain = tokens(model, params, frames)
    chex.assert_trees_all_equal(plain, tokens(never, params, frames))
    chex.assert_trees_all_equal(plain, tokens(never, params, frames, jax.random.key(1)))
    assert abs(plain - tokens(model, params, frames, jax.random.key(1))).max() > 1e-2


def assert_halves_are_close(model):
    params, frames = drawn(model)
    found = tokens(model, params, frames.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    plain = tokens(model, params, frames)
    assert abs(found - plain).mean() < 0.05 * abs(plain).mean()


def assert_every_parameter_has_its_place(model):
    params, _ = drawn(model)
    placed = sharding.parameters(params, Layout(2, 2, 2).mesh())
    for name, leaf, place in zip(
        tree.names(params), *map(jax.tree.leaves, (params, placed)), strict=True
    ):
        if name.endswith("kernel"):
            assert leaf.size >= 2 * np.prod(place.shard_shape(leaf.shape)), name


def assert_a_mesh_changes_nothing(model):
    params, frames = drawn(model)
    mesh = Layout(2, 2, 2).mesh()
    placed = jax.device_put(params, sharding.parameters(params, mesh))
    with jax.set_mesh(mesh):
        found = tokens(model, placed, jax.device_put(frames, sharding.replicated(mesh)))
    chex.assert_trees_all_close(found, tokens(model, params, frames), atol=1e-5)


def read_by_git(encoder, size):
    """Shapes of the encoder's parameters in a GIT, and how many tokens a frame has."""
    model = Git(encoder, TextEmbed(), Stack(norm="post"), frames=6)
    batch = {
        "frames": jax.ShapeDtypeStruct((1, 6, *size, 3), jnp.uint8),
        "tokens": jax.ShapeDtypeStruct((1, 5), jnp.int32),
    }
    params = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
    assert params["project"]["kernel"].shape == (encoder.width, 768)
    image, _ = jax.eval_shape(
        lambda p, frames: model.apply({"params": p}, frames, method="image"),
        params,
        batch["frames"],
    )
    assert image.shape[::2] == (1, 768)
    return params["encoder"], image.shape[1] // 6


def size_of_git(encoder, width, blocks):
    """Parameters of an encoder and of its GIT as the paper counts them, without words.

    The decoder has that width and so many parameters in its blocks. Eight devices hold
    the encoder.
    """
    frames = jax.ShapeDtypeStruct((1, 1, 384, 384, 3), jnp.float32)
    params = jax.eval_shape(encoder.init, jax.random.key(0), frames)["params"]
    for layout in (Layout(1, 1, 8), Layout(1, 8, 1)):
        sharding.parameters(params, layout.mesh())
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return count, count + (encoder.width * width + 3 * width) + blocks
