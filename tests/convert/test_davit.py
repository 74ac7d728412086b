"""DaViT is the reference's DaViT, weights random.

`Florence2VisionBackbone` of transformers runs live, at sizes that strides and windows
divide and at sizes that they do not.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from git_jax.config import build
from git_jax.convert import davit, huggingface, source
from git_jax.vision.davit import DaViT
from tests.reference import (
    Pair,
    assert_same_arrays,
    assert_same_encoder,
    drawn,
    pictures,
    torch,
)

transformers = pytest.importorskip(
    "transformers", reason="requirements-parity.txt is not installed"
)
florence = pytest.importorskip("transformers.models.florence2.modeling_florence2")

TINY = dict(
    patch_size=(7, 3),
    patch_stride=(4, 2),
    patch_padding=(3, 1),
    patch_prenorm=(False, True),
    embed_dim=(8, 16),
    depths=(1, 2),
    num_heads=(2, 4),
    num_groups=(2, 4),
    window_size=4,
)
# Heads, groups, patches, norms, depths and window that no default has.
ODD = dict(
    patch_size=(5, 2),
    patch_stride=(3, 2),
    patch_padding=(1, 0),
    patch_prenorm=(True, False),
    embed_dim=(6, 15),
    depths=(1, 3),
    num_heads=(3, 5),
    num_groups=(2, 3),
    window_size=3,
    mlp_ratio=1.5,
    activation_function="quick_gelu",
)
LONE = dict(
    patch_size=(4,),
    patch_stride=(4,),
    patch_padding=(0,),
    patch_prenorm=(False,),
    embed_dim=(12,),
    depths=(2,),
    num_heads=(3,),
    num_groups=(1,),
    window_size=5,
    qkv_bias=False,
)
CONFIGS = {"tiny": TINY, "odd": ODD, "lone": LONE}


@functools.cache
def pair(name):
    """A model there and the same one here."""
    config = transformers.Florence2VisionConfig(**CONFIGS[name])
    there = drawn(florence.Florence2VisionBackbone(config), seed=0).eval()
    for key, parameter in there.named_parameters():
        if key.endswith(("conv1.weight", "conv2.weight")):
            parameter.data *= 0.3  # on a residual: activations keep their size
        if "channel_attn.qkv" in key:
            # Logits between channels grow with the root of a map's size: under unit
            # gain softmax saturates, and of the small gradients that are left the
            # reference's own were found 3e-4 off those of float64, ours 2e-4.
            parameter.data *= 0.5
    model = build(huggingface.davit(config.to_dict(), where=name))
    return Pair.of(there, model, davit.huggingface(model))


@pytest.mark.parametrize(
    "name, size",
    [("tiny", (32, 32)), ("odd", (41, 58)), ("lone", (30, 22))],
)
def test_the_same_tokens_and_gradients(name, size):
    pixels, given = pictures(size)
    made = pair(name)
    want = made.there(given).last_hidden_state.flatten(2).transpose(1, 2)
    # Between channels a key's bias is another for each, and counts.
    assert_same_encoder(made, pixels, want, zero="spatial/attention/key/bias")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_round_trip_is_the_identity(name):
    made = pair(name)
    assert_same_arrays(made.table.write(made.params), made.theirs)


def test_the_defaults_are_those_of_florence_2_base():
    config = transformers.Florence2VisionConfig()
    model = build(huggingface.davit(config.to_dict(), where="there"))
    assert model == DaViT()
    with torch.device("meta"):
        there = florence.Florence2VisionBackbone(config)
    given = jnp.zeros((1, 1, 32, 32, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), given)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == sum(value.numel() for value in there.parameters())


TEXTS = dict(
    model_type="bart",
    d_model=16,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=16,
    decoder_ffn_dim=16,
    vocab_size=51300,
)


@pytest.mark.parametrize("whole", [False, True])
def test_a_directory_of_transformers_is_read(whole, tmp_path):
    """The backbone alone, and in front of a whole Florence-2's text model."""
    made = pair("tiny")
    model = made.there
    if whole:
        vision = TINY | dict(model_type="florence_vision", projection_dim=16)
        config = transformers.Florence2Config(vision_config=vision, text_config=TEXTS)
        model = transformers.Florence2ForConditionalGeneration(config)
        model.model.vision_tower.load_state_dict(made.there.state_dict())
    model.save_pretrained(tmp_path)
    found = source.read(tmp_path)
    assert build(found.config.encoder) == made.model
    jax.tree.map(np.testing.assert_array_equal, found.params, made.params)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(model_type="davit"), "model_type is 'davit', not 'florence_vision'"),
        (dict(in_channels=1), "in_channels is 1; pictures here have 3"),
        (dict(activation_function="relu"), "activation_function is 'relu'; here are"),
    ],
)
def test_a_config_of_another_encoder_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"config.json: {message}"):
        huggingface.davit(
            {"model_type": "florence_vision"} | changes, where="config.json"
        )


def test_what_a_config_leaves_out_is_the_default_there():
    whole = transformers.Florence2VisionConfig().to_dict()
    found = huggingface.davit({"model_type": "florence_vision"}, where="config.json")
    assert found == huggingface.davit(whole, where="config.json")
