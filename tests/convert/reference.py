"""`GitForCausalLM` with random weights, and the same model here, at several sizes."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from git_jax.config import build
from git_jax.convert import git, huggingface
from tests.reference import drawn

torch = pytest.importorskip("torch", reason="requirements-parity.txt is not installed")
transformers = pytest.importorskip(
    "transformers", reason="requirements-parity.txt is not installed"
)

TINY = dict(
    vocab_size=97,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=20,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    vision_config=dict(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    ),
)
# Heads, patch, depth and size that no default has; six frames; another activation.
ODD = dict(
    vocab_size=61,
    hidden_size=35,
    num_hidden_layers=3,
    num_attention_heads=5,
    intermediate_size=33,
    max_position_embeddings=17,
    hidden_act="gelu_new",
    layer_norm_eps=1e-6,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    num_image_with_embedding=6,
    vision_config=dict(
        hidden_size=21,
        intermediate_size=19,
        num_hidden_layers=3,
        num_attention_heads=3,
        image_size=35,
        patch_size=7,
        hidden_act="gelu",
        layer_norm_eps=1e-4,
    ),
)
TIED = TINY | dict(tie_word_embeddings=True)
CONFIGS = {"tiny": TINY, "odd": ODD, "tied": TIED}
GIT_B = dict(vision_config={})  # the defaults there are microsoft/git-base


@functools.cache
def pair(name, seed=0, end=0.0):
    """A model there and the same one here; `end` raises the bias of the end token."""
    config = transformers.GitConfig(**(CONFIGS | {"GIT_B": GIT_B})[name])
    there = drawn(transformers.GitForCausalLM(config), seed).eval()
    with torch.no_grad():
        there.output.bias[config.eos_token_id] += end
    model = build(huggingface.git(config.to_dict(), where=name))
    theirs = {k: v.detach().numpy().copy() for k, v in there.state_dict().items()}
    if model.embed.tied:
        theirs = git.without_tied_head(theirs, git.HUGGINGFACE_HEAD, where=name)
    size = model.encoder.size
    batch = {
        "frames": jnp.zeros((1, 1, size, size, 3)),
        "tokens": jnp.zeros((1, 3), jnp.int32),
    }
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
    table = git.huggingface(model)
    params = table.read(theirs, shapes, where=name)
    return SimpleNamespace(
        there=there, model=model, params=params, table=table, theirs=theirs
    )


def pixels(made, frames):
    """Pictures `[B F h w 3]` as the reference wants them."""
    turned = torch.tensor(frames).permute(0, 1, 4, 2, 3)
    return turned[:, 0] if made.model.frames == 1 else turned
