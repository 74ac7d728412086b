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

from git_jax import tree
from git_jax.decode.beam import Beam
from git_jax.decode.search import Greedy
from git_jax.models.git import Git, generate
from git_jax.nn import embed
from git_jax.nn.transformer import Stack
from git_jax.vision.vit import ViT
from tests.decode.plain import EOS, PAD, assert_found, gnmt_beam, greedy

PICTURES, PREFIX, TOKENS, WORDS, SIZE = 50, 5, 9, 23, 16
BEAMS, PENALTY = 4, 0.6  # as released
GIT = Git(
    encoder=ViT(size=SIZE, patch=8, width=16, depth=1, heads=2, mlp=12),
    embed=embed.TextEmbed(20, WORDS, PREFIX + TOKENS, tied=False),
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
def params():
    """Random, every one; the end token so likely that texts end, not all at once."""
    batch = {
        "frames": jnp.zeros((1, 1, SIZE, SIZE, 3)),
        "tokens": jnp.zeros((1, 2), jnp.int32),
    }
    shapes = jax.eval_shape(GIT.init, jax.random.key(0), batch)["params"]
    rng = np.random.default_rng(0)

    def draw(name, leaf):
        one = 1.0 if name.endswith("scale") else 0.0
        wide = 0.5 if name in ("embed/word", "embed/output") else 0.35
        return jnp.asarray(one + wide * rng.normal(size=leaf.shape), jnp.float32)

    drawn = tree.map_named(draw, shapes)
    bias = drawn["embed"]["output_bias"]
    return drawn | {"embed": drawn["embed"] | {"output_bias": bias.at[EOS].add(3.0)}}


@functools.cache
def batch():
    """Random pictures, each with a prefix of 1 to 5 ids."""
    rng = np.random.default_rng(10)
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
def plain():
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
        return np.array(log_prob(params(), frames, tokens, len(read)), np.float64)

    return SimpleNamespace(prefixes=prefixes, log_prob=ask)


def every(search, **how):
    """(words, score) of each picture, by a search of `plain.py`."""
    found = [
        search(plain(), picture, size=TOKENS, **how) for picture in range(PICTURES)
    ]
    assert len({len(text) for text, _ in found}) > 4  # or equality would mean little
    return found


def test_beam_search_is_the_original():
    expected = every(gnmt_beam, beams=BEAMS, penalty=PENALTY)
    assert_found(
        ours(Beam(BEAMS, TOKENS, "gnmt", PENALTY), params(), batch()), expected
    )


def test_greedy_that_forbids_an_immediate_repeat_is_the_original():
    expected = every(greedy, repeat=False)
    free = every(greedy, repeat=True)
    assert_found(ours(Greedy(TOKENS, repeat=False), params(), batch()), expected)
    assert_found(ours(Greedy(TOKENS), params(), batch()), free)

    def repeats(found):
        return sum(a == b for text, _ in found for a, b in itertools.pairwise(text))

    assert repeats(expected) == 0 < repeats(free)
    # The rule does not look into the prefix: its last word may be said again.
    prefixes = plain().prefixes
    again = [
        p[-1:] == text[:1] for p, (text, _) in zip(prefixes, expected, strict=True)
    ]
    assert any(again)
