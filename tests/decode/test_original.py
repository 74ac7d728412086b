"""GIT searched as the original release does it, against plain Python, no cache.

Greedy search that forbids an immediate repeat, and the beam search that divides by
GNMT's power of the length, prefix counted. The plain searches, of `plain.py`, ask the
full forward pass for each word anew.
"""

import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from git_jax.decode.beam import Beam
from git_jax.decode.search import Greedy
from git_jax.models.git import Git, generate
from git_jax.nn import embed
from git_jax.nn.transformer import Stack
from git_jax.vision.vit import ViT
from tests.decode.plain import EOS, PAD, assert_found, gnmt_beam, greedy, words

PICTURES, PREFIX, TOKENS, WORDS, SIZE = 50, 5, 9, 23, 16
BEAMS, PENALTY = 4, 0.6  # as released
GIT = Git(
    encoder=ViT(size=SIZE, patch=8, width=16, depth=1, heads=2, mlp=12),
    embed=embed.TextEmbed(20, WORDS, PREFIX + TOKENS),
    decoder=Stack(width=20, depth=2, heads=4, mlp=30, norm="post"),
)


@jax.jit
def log_prob(params, frames, tokens, length):
    """Of the words after the first `length` of a text `[1 T]`, nothing cached."""
    outputs = GIT.apply({"params": params}, {"frames": frames, "tokens": tokens})
    logits = embed.logits(outputs["text"], outputs["head"])
    return jax.nn.log_softmax(logits[0, length - 1])


@functools.partial(jax.jit, static_argnums=0)
def ours(search, params, batch):
    return generate(GIT, params, search, batch, eos=EOS, pad=PAD)


@functools.cache
def params(end):
    """Random, every one of them, the bias of the end token raised by `end`."""
    batch = {
        "frames": jnp.zeros((1, 1, SIZE, SIZE, 3)),
        "tokens": jnp.zeros((1, 2), jnp.int32),
    }
    shapes = jax.eval_shape(GIT.init, jax.random.key(0), batch)["params"]
    rng = np.random.default_rng(4)
    drawn = jax.tree.map(
        lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes
    )
    drawn["embed"]["output_bias"][EOS] += end
    return drawn


@functools.cache
def batch():
    """Random pictures, each with a prefix of 1 to 5 ids."""
    rng = np.random.default_rng(5)
    length = rng.integers(1, PREFIX + 1, PICTURES)
    tokens = rng.integers(2, WORDS, (PICTURES, PREFIX))
    valid = np.arange(PREFIX) < length[:, None]
    frames = rng.normal(size=(PICTURES, 1, SIZE, SIZE, 3))
    return {
        "frames": frames.astype(np.float32),
        "tokens": np.where(valid, tokens, PAD).astype(np.int32),
        "prefix_length": length.astype(np.int32),
    }


@functools.cache
def plain(end):
    """What the searches of `plain.py` ask for."""
    given = batch()
    prefixes = [
        tuple(tokens[:length].tolist())
        for tokens, length in zip(given["tokens"], given["prefix_length"], strict=True)
    ]

    def ask(picture, text):
        read = (*prefixes[picture], *text)
        tokens = np.full((1, PREFIX + TOKENS), PAD, np.int32)
        tokens[0, : len(read)] = read
        frames = given["frames"][picture : picture + 1]
        return np.array(log_prob(params(end), frames, tokens, len(read)), np.float64)

    return SimpleNamespace(prefixes=prefixes, log_prob=ask)


@pytest.mark.parametrize("end", [0.0, 2.0])
def test_beam_search_is_the_original(end):
    find = Beam(BEAMS, TOKENS, "gnmt", PENALTY)
    expected = [
        gnmt_beam(plain(end), picture, beams=BEAMS, size=TOKENS, penalty=PENALTY)
        for picture in range(PICTURES)
    ]
    print(np.bincount([len(t) for t,_ in expected]))
    decoded = ours(find, params(end), batch())
    print(abs(np.array(decoded.score)-[s for _,s in expected]).max())
    assert_found(decoded, expected)


@pytest.mark.parametrize("repeat", [False, True])
def test_greedy_is_the_original(repeat):
    model = plain(0.0)
    expected = [
        greedy(model, picture, size=TOKENS, repeat=repeat)
        for picture in range(PICTURES)
    ]
    print(np.bincount([len(t) for t,_ in expected]))
    decoded = ours(Greedy(TOKENS, repeat=repeat), params(0.0), batch())
    print(abs(np.array(decoded.score)-[s for _,s in expected]).max())
    print(sum(p[-1:]==t[:1] for p,(t,_) in zip(model.prefixes, expected)), sum(a == b for text, _ in expected for a, b in itertools.pairwise(text)))
    assert_found(decoded, expected)
