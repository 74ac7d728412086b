"""An encoder that was trained elsewhere is where training begins."""

from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from git_jax.config import build, spec
from git_jax.convert import target
from git_jax.convert.checkpoint import Checkpoint
from git_jax.data.tokenizer import Bytes
from git_jax.init import Init
from git_jax.models.git import Git, shapes
from git_jax.nn import embed
from git_jax.nn.embed import TextEmbed
from git_jax.nn.transformer import Stack
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


def start(folder, module):
    params = drawn(module, 2)
    init = Init(encoder=str(folder))
    return params, init.start(params, module, MESH, Bytes())


def test_the_encoder_is_taken_and_the_rest_is_drawn(tower):
    folder, params = tower
    before, after = start(folder, model(scan=False, remat="full"))
    chex.assert_trees_all_equal(jax.device_get(after["encoder"]), params)
    for name in before.keys() - {"encoder"}:
        chex.assert_trees_all_equal(after[name], before[name])


def test_positions_are_interpolated(tower):
    folder, params = tower
    _, after = start(folder, model(size=40))
    position = params["position"]
    grid = jax.numpy.array(position[1:].reshape(3, 3, 16))
    want = embed.resample(grid, 5, 5).reshape(25, 16)
    found = after["encoder"]["position"]
    np.testing.assert_allclose(found[1:], want, atol=1e-6)
    np.testing.assert_array_equal(found[0], position[0])
    rest = {name: held for name, held in params.items() if name != "position"}
    held = {n: v for n, v in after["encoder"].items() if n != "position"}
    chex.assert_trees_all_equal(jax.device_get(held), rest)


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
        start(folder, model(**change))


def test_other_pixels_are_refused(tower):
    folder, _ = tower
    module = model(pixel_mean=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="with pixel_mean=.*model.pixel_mean is"):
        start(folder, module)


def test_a_tower_that_is_not_there_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"init.encoder=.*no such folder.*git_jax\.convert --source"
    ):
        start(tmp_path / "none", model())


def test_two_beginnings_are_refused():
    with pytest.raises(ValueError, match="init.run=a brings an encoder"):
        Init(run="a", encoder="b")
