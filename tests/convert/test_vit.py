"""CLIP's vision tower, GIT's and Google's ViT are the references', weights random.

`CLIPVisionModel` and `ViTModel` of transformers run live, at their own size and at
others, to whose patches positions are interpolated.
"""

import dataclasses
import functools

import pytest

from git_jax.config import build
from git_jax.convert import huggingface, vit
from git_jax.convert.table import Table
from tests.reference import (
    Pair,
    assert_same_arrays,
    assert_same_encoder,
    drawn,
    pictures,
)

transformers = pytest.importorskip(
    "transformers", reason="requirements-parity.txt is not installed"
)

TINY = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=32,
    patch_size=8,
)
# Heads, patch, depth, size and activation that no default has.
ODD = dict(
    hidden_size=15,
    intermediate_size=26,
    num_hidden_layers=3,
    num_attention_heads=5,
    image_size=35,
    patch_size=7,
    hidden_act="gelu_new",
    layer_norm_eps=1e-3,
)
CONFIGS = {"tiny": TINY, "odd": ODD}

# What a module of a ViT calls its parts, which in files have their names of old.
IN_MODULES = {
    "encoder.layer.": "layers.",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def in_modules(row):
    name = row.theirs
    for file, module in IN_MODULES.items():
        name = name.replace(file, module)
    return dataclasses.replace(row, theirs=name)


@functools.cache
def pair(kind, name):
    """A model there and the same one here."""
    if kind == "clip":
        config = transformers.CLIPVisionConfig(**CONFIGS[name])
        there = transformers.CLIPVisionModel(config)
        model = build(huggingface.clip(config.to_dict(), where=name))
        table = vit.clip(model)
    else:
        config = transformers.ViTConfig(**CONFIGS[name])
        there = transformers.ViTModel(config, add_pooling_layer=False)
        model = build(huggingface.vit(config.to_dict(), where=name))
        table = Table(tuple(map(in_modules, vit.google(model).rows)))
    return Pair.of(drawn(there, 0).eval(), model, table)


@pytest.mark.parametrize("kind", ["clip", "vit"])
@pytest.mark.parametrize(
    "name, size",
    [("tiny", (32, 32)), ("tiny", (48, 24)), ("odd", (35, 35)), ("odd", (21, 56))],
)
def test_the_same_tokens_and_gradients(kind, name, size):
    pixels, given = pictures(size)
    made = pair(kind, name)
    own = size == (made.model.size,) * 2
    want = made.there(given, interpolate_pos_encoding=not own).last_hidden_state
    if kind == "clip":
        # GIT has the norm on every token, which CLIP has on the first alone.
        want = made.there.post_layernorm(want)
    assert_same_encoder(made, pixels, want)


@pytest.mark.parametrize("kind", ["clip", "vit"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_round_trip_is_the_identity(kind, name):
    made = pair(kind, name)
    assert_same_arrays(made.table.write(made.params), made.theirs)
