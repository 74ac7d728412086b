"""Swin is the reference's Swin, and CoSwin's convolutions are CvT's, weights random.

`SwinModel` and `CvtConvEmbeddings` of transformers run live, at sizes that patches and
windows divide and at sizes that they do not.
"""

import functools

import jax
import numpy as np
import pytest

from git_jax.config import build
from git_jax.convert import huggingface, swin
from git_jax.convert.table import CONVOLUTION
from git_jax.nn.embed import Convolution
from git_jax.vision.swin import Merge, Swin
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
safetensors = pytest.importorskip("safetensors.numpy")

TINY = dict(
    image_size=32,
    patch_size=4,
    embed_dim=8,
    depths=[2, 2],
    num_heads=[2, 4],
    window_size=4,
)
# Heads, patch, depths and window that no default has.
ODD = dict(
    image_size=39,
    patch_size=3,
    embed_dim=15,
    depths=[1, 3],
    num_heads=[3, 5],
    window_size=3,
    mlp_ratio=1.5,
    layer_norm_eps=1e-3,
)
LONE = TINY | dict(depths=[2], num_heads=[4], qkv_bias=False)
CONFIGS = {"tiny": TINY, "odd": ODD, "lone": LONE}


@functools.cache
def pair(name, seed=0):
    """A model there and the same one here."""
    config = transformers.SwinConfig(**CONFIGS[name])
    there = drawn(transformers.SwinModel(config), seed).eval()
    model = build(huggingface.swin(config.to_dict(), where=name))
    return Pair.of(there, model, swin.huggingface(model, there.state_dict()))


@pytest.mark.parametrize(
    "name, size",
    [
        ("tiny", (32, 32)),
        ("lone", (36, 44)),
        ("odd", (40, 49)),
    ],
)
def test_the_same_tokens_and_gradients(name, size):
    pixels, given = pictures(size)
    made = pair(name)
    # The reference keeps a window that it once made smaller: no reuse.
    there = transformers.SwinModel(made.there.config).eval()
    there.load_state_dict(made.there.state_dict())
    want = there(pixel_values=given).last_hidden_state
    assert_same_encoder(made._replace(there=there), pixels, want)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_round_trip_is_the_identity(name):
    made = pair(name)
    assert_same_arrays(made.table.write(made.params), made.theirs)


@pytest.mark.parametrize(
    "kind", ["SwinModel", "SwinForImageClassification", "SwinForMaskedImageModeling"]
)
def test_files_are_read_as_transformers_writes_them(kind, tmp_path):
    made = pair("tiny")
    model = getattr(transformers, kind)(made.there.config)
    whole = model if kind == "SwinModel" else model.swin
    whole.load_state_dict(made.there.state_dict(), strict=False)
    model.save_pretrained(tmp_path)
    theirs = safetensors.load_file(tmp_path / "model.safetensors")
    table = swin.huggingface(made.model, theirs)
    read = table.read(theirs, made.params, where=kind)
    jax.tree.map(np.testing.assert_array_equal, read, made.params)
    written = table.write(read)
    assert written.keys() <= theirs.keys()
    if kind == "SwinModel":
        plain = swin.huggingface(made.model).write(read)
        assert plain.keys() == written.keys() == theirs.keys()


def test_coswin_has_no_names_elsewhere():
    with pytest.raises(ValueError, match="'convolution' has no names.*'patches'"):
        swin.huggingface(Swin(merge="convolution"))


@pytest.mark.parametrize(
    "stride, kernel, padding, size", [(4, 7, 2, (33, 22)), (2, 3, 1, (9, 8))]
)
def test_convolutions_are_those_of_cvt(stride, kernel, padding, size):
    embed = transformers.models.cvt.modeling_cvt.CvtConvEmbeddings
    module = drawn(embed(kernel, 5, 7, stride, padding), 0)
    theirs = {k: v.detach().numpy() for k, v in module.state_dict().items()}
    weight = theirs["projection.weight"]
    convolve = {
        "kernel": CONVOLUTION.read(weight, weight.shape),
        "bias": theirs["projection.bias"],
    }
    x = jax.random.normal(jax.random.key(0), (2, *size, 5))
    with torch.no_grad():
        want = module(torch.tensor(np.array(x)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    if stride == 2:
        norm = {"scale": "normalization.weight", "bias": "normalization.bias"}
        norm = {name: theirs[there] for name, there in norm.items()}
        params = {"convolve": convolve, "norm": norm}
        found = Merge(7, "convolution", 0.02).apply({"params": params}, x)
    else:
        made = Convolution(7, kernel, stride, padding)
        y = made.apply({"params": convolve}, x)
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
        scale, bias = theirs["normalization.weight"], theirs["normalization.bias"]
        found = y * scale + bias
    np.testing.assert_allclose(found, want, atol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(model_type="swinv2"), "model_type is 'swinv2', not 'swin'"),
        (dict(use_absolute_embeddings=True), "use_absolute_embeddings is True"),
        (dict(hidden_dropout_prob=0.1), "hidden_dropout_prob is 0.1"),
        (dict(num_channels=1), "num_channels is 1; pictures here have 3"),
        (dict(hidden_act="relu"), "hidden_act is 'relu'"),
        (dict(patch_size=[4, 2]), r"patch_size is \[4, 2\]; only squares"),
        (dict(patch_size=["4", "4"]), "patch_size is '4'; it must be int"),
        (dict(depths=2), r"depths is 2; it must be tuple\[int, ...\]"),
        (dict(depths=[2, "2"]), r"depths is \[2, '2'\]; it must be tuple"),
    ],
)
def test_a_config_of_another_encoder_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"config.json: {message}"):
        huggingface.swin({"model_type": "swin"} | changes, where="config.json")


def test_what_a_config_leaves_out_is_the_default_there():
    whole = transformers.SwinConfig().to_dict()
    found = huggingface.swin({"model_type": "swin"}, where="config.json")
    assert found == huggingface.swin(whole, where="config.json")
