"""An encoder that was trained elsewhere is where training begins."""

from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from git_jax import sharding
from git_jax.config import build, spec
from git_jax.convert import target
from git_jax.convert.checkpoint import Checkpoint
from git_jax.data.tokenizer import Bytes
from git_jax.init import Init
from git_jax.models.git import Git, shapes
from git_jax.nn import embed
from git_jax.nn.embed import TextEmbed
from git_jax.nn.transformer import Stack
from git_jax.sharding import Layout
from git_jax.vision.vit import ViT
from tests import tiny

MESH = tiny.Alone().mesh()
TOWER = dict(size=24, patch=8, width=16, depth=2, heads=2, mlp=24)


def model(pixel_mean=embed.CLIP_MEAN, **changes):
    return Git(
        pixel_mean=pixel_mean,
        encoder=ViT(**TOWER | changes),
        embed=TextEmbed(16, 50, 12),
        decoder=Stack(width=16, depth=2, heads=2, mlp=16, norm="post"),
    )


def drawn(module, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jax.numpy.array(rng.normal(size=leaf.shape), leaf.dtype),
        shapes(module),
    )


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    """A converted encoder, and its parameters."""
    config = ConfigDict()
    config.encoder = spec(ViT, **TOWER)
    config.pixel_mean, config.pixel_std = embed.CLIP_MEAN, embed.CLIP_STD
    params = jax.device_get(drawn(build(config.encoder), 1))
    folder = tmp_path_factory.mktemp("towers") / "tower"
    target.write_run(Checkpoint(config, params, None), folder)
    return folder, params


def given(folder, module, mesh=MESH):
    like = sharding.placed(shapes(module), mesh)
    return Init(encoder=str(folder)).given(like, module, mesh, Bytes())


def test_the_encoder_alone_is_taken(tower):
    folder, params = tower
    found = given(folder, model(scan=False, remat="full"))
    chex.assert_trees_all_equal(found, {"encoder": params})


def test_of_a_whole_model_only_the_encoder_is_read(tmp_path):
    """A decoder that does not fit the mesh is left where it is."""
    config = ConfigDict()
    config.model = spec(
        Git,
        encoder=spec(ViT, **TOWER),
        embed=spec(TextEmbed, width=15, vocabulary=49, positions=12),
        decoder=spec(Stack, width=15, depth=1, heads=3, mlp=5),
    )
    params = jax.device_get(drawn(build(config.model), 3))
    target.write_run(Checkpoint(config, params, None), tmp_path / "git")
    mesh = Layout(2, 2, 2).mesh()
    found = given(tmp_path / "git", model(), mesh)
    chex.assert_trees_all_equal(found, {"encoder": params["encoder"]})
    kernel = found["encoder"]["stack"]["layers"]["ffn"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size / 4


def test_positions_are_interpolated(tower):
    folder, params = tower
    found = given(folder, model(size=40))["encoder"]
    position = params["position"]
    grid = jax.numpy.array(position[1:].reshape(3, 3, 16))
    want = embed.resample(grid, 5, 5).reshape(25, 16)
    np.testing.assert_allclose(found["position"][1:], want, atol=1e-6)
    np.testing.assert_array_equal(found["position"][0], position[0])
    chex.assert_trees_all_equal(found | {"position": position}, params)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(heads=4), "heads is 2 there and 4 in model.encoder"),
        (dict(activation="gelu"), "activation is 'quick_gelu' there"),
        (dict(depth=3), "depth is 2 there and 3"),
    ],
)
def test_another_encoder_is_refused_by_the_field(tower, change, message):
    folder, _ = tower
    with pytest.raises(ValueError, match=f"init.encoder=.*tower.*{message}"):
        given(folder, model(**change))


def test_other_pixels_are_refused(tower):
    folder, _ = tower
    module = model(pixel_mean=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="with pixel_mean=.*model.pixel_mean is"):
        given(folder, module)


def test_a_tower_that_is_not_there_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"init.encoder=.*no such folder.*git_jax\.convert --source"
    ):
        given(tmp_path / "none", model())


def test_two_beginnings_are_refused():
    with pytest.raises(ValueError, match="init.run=a brings an encoder"):
        Init(run="a", encoder="b")
