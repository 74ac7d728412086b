"""Greedy and beam search of GIT are `GitForCausalLM.generate`, word for word.

The reference runs live in its eager form, on random weights whose end token is likely
enough that texts, and beams of one picture, end at different lengths. We decode
prefixes of all lengths in one batch; there, where padding is broken, a batch has one.
"""

import functools

import jax
import numpy as np
import pytest

from git_jax.decode.beam import Beam
from git_jax.decode.search import Greedy
from git_jax.models.git import generate
from tests.convert import reference

torch = pytest.importorskip("torch", reason="requirements-parity.txt is not installed")

PICTURES, PREFIX, TOKENS, BEAMS = 50, 5, 12, 4
BOS, EOS, PAD = 1, 2, 0


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The models there are so small that threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def prompts(name, frames, end):
    """A model on both sides, random pictures, and a prefix of 1 to 5 ids for each."""
    made = reference.pair(name, end=end)
    rng = np.random.default_rng(3)
    size, words = made.model.encoder.size, made.model.embed.vocabulary
    length = rng.integers(1, PREFIX + 1, PICTURES)
    tokens = rng.integers(3, words, (PICTURES, PREFIX))
    tokens[:, 0] = BOS
    tokens[np.arange(PREFIX) >= length[:, None]] = PAD
    pictures = rng.normal(size=(PICTURES, frames, size, size, 3))
    return made, {
        "frames": pictures.astype(np.float32),
        "tokens": tokens.astype(np.int32),
        "prefix_length": length.astype(np.int32),
    }


@functools.partial(jax.jit, static_argnums=(0, 2))
def ours(model, params, search, batch):
    return generate(model, params, search, batch, eos=EOS, pad=PAD)


def theirs(made, batch, texts=1, **how):
    """`texts` for each picture, the best first, and the score of the best of beams."""
    found, scores = [None] * PICTURES, np.full(PICTURES, np.nan)
    for length in np.unique(batch["prefix_length"]):
        (rows,) = np.nonzero(batch["prefix_length"] == length)
        with torch.no_grad():
            out = made.there.generate(
                torch.tensor(batch["tokens"][rows, :length]).long(),
                pixel_values=reference.pixels(made, batch["frames"][rows]),
                max_new_tokens=TOKENS,
                do_sample=False,
                num_return_sequences=texts,
                output_scores=True,
                return_dict_in_generate=True,
                **how,
            )
        generated = out.sequences[:, length:].reshape(len(rows), texts, -1)
        for row, several in zip(rows, generated.tolist(), strict=True):
            found[row] = [to_the_end(ids) for ids in several]
        if "sequences_scores" in out:
            scores[rows] = out.sequences_scores[::texts]
    return found, scores


def to_the_end(ids):
    """Up to the first end token and with it; what stands behind is filling."""
    return ids[: ids.index(EOS) + 1] if EOS in ids else ids


def assert_same(decoded, found):
    best = [texts[0] for texts in found]
    assert len(set(map(len, best))) > 4  # or it would mean little
    assert [to_the_end(ids) for ids in decoded.tokens.tolist()] == best


# By how much the end token's bias is raised: so that texts end, and not all at once.
@pytest.mark.parametrize("name, frames, end", [("tiny", 1, 1.5), ("odd", 6, 2.0)])
def test_greedy_is_the_reference(name, frames, end):
    made, batch = prompts(name, frames, end)
    found, _ = theirs(made, batch)
    assert_same(ours(made.model, made.params, Greedy(TOKENS), batch), found)


@pytest.mark.parametrize(
    "name, frames, penalty, end",
    [
        ("tiny", 1, 0.6, 1.5),
        ("tiny", 1, 2.0, 2.6),
        ("tiny", 1, 0.0, 1.5),
        ("odd", 6, 1.0, 2.25),
    ],
)
def test_beam_search_is_the_reference(name, frames, penalty, end):
    made, batch = prompts(name, frames, end)
    found, scores = theirs(made, batch, BEAMS, num_beams=BEAMS, length_penalty=penalty)
    if penalty <= 1:  # above, the longest win: a picture's four are of one length
        unequal = [texts for texts in found if len(set(map(len, texts))) > 1]
        assert len(unequal) > 0.8 * PICTURES
    search = Beam(BEAMS, TOKENS, "huggingface", penalty)
    decoded = ours(made.model, made.params, search, batch)
    assert_same(decoded, found)
    np.testing.assert_allclose(decoded.score, scores, atol=1e-4, rtol=0)
