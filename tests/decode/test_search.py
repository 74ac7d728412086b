"""Laws of search, on a model whose logits depend on the whole history of a row."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from git_jax.decode import search
from git_jax.decode.beam import Beam
from tests.decode.plain import (
    EOS,
    PAD,
    assert_found,
    gnmt_beam,
    greedy,
    huggingface_beam,
    words,
)

CELLS = 997
KEY = jax.random.key(0)
FINDERS = [
    search.Greedy(7),
    search.Greedy(7, repeat=False),
    search.Sample(7, temperature=1.3, top_p=0.9),
    Beam(4, 7),
    Beam(4, 7, "huggingface"),
]
each_search = pytest.mark.parametrize("find", FINDERS, ids=str)


def step(token, state):
    """The next state is a hash, which picks a row of a table of logits."""
    salt, table, h = state
    salt_of_row = jnp.repeat(salt, len(token) // len(salt))
    h = (h * 31 + token + salt_of_row) % CELLS
    return table[h], (salt, table, h)


def gather(state, rows):
    salt, table, h = state
    return salt, table, h[rows]


@functools.cache
def jitted(find, step=step):
    return jax.jit(
        functools.partial(find, search.LanguageModel(step, gather, EOS, PAD))
    )


class Toy:
    """Pictures and a random distribution for every history of theirs.

    The state holds the hash of each row's history and, once a picture, a salt that all
    beams of the picture share. Rows mixed up, or fed out of order, give other logits.
    The prefixes are one to five tokens long.
    """

    def __init__(self, vocabulary=9, *, count=10, seed=0, sharpness=2.0, end=0.0):
        rng = np.random.default_rng(seed)
        table = rng.normal(0, sharpness, (CELLS, vocabulary))
        table[:, EOS] += end
        self.table = table.astype(np.float32)
        self.salts = [int(salt) for salt in rng.permutation(CELLS)[:count]]
        self.prefixes = [
            tuple(int(token) for token in rng.integers(0, vocabulary, length))
            for length in rng.integers(1, 6, count)
        ]

    def read(self, picture, text=()):
        """The hash after a picture's prefix and a text, in plain Python."""
        h = 0
        for token in (*self.prefixes[picture], *text):
            h = (h * 31 + token + self.salts[picture]) % CELLS
        return h

    def log_prob(self, picture, text):
        logits = self.table[self.read(picture, text)].astype(np.float64)
        return logits - np.log(np.sum(np.exp(logits)))

    def start(self, pictures=None, record=None):
        """The prompt that the prefixes of some pictures, or of all, are."""
        pictures = range(len(self.salts)) if pictures is None else pictures
        salt = jnp.array([self.salts[p] for p in pictures], jnp.int32)
        h = jnp.array([self.read(p) for p in pictures], jnp.int32)
        length = jnp.array([len(self.prefixes[p]) for p in pictures], jnp.int32)
        table = jnp.asarray(self.table)
        return search.Prompt((salt, table, h), table[h], length, record)

    def run(self, find, pictures=None, *, record=None, step=step, key=None):
        return jitted(find, step)(self.start(pictures, record), key)


PUBLISHED = {"gnmt": (gnmt_beam, 0.6), "huggingface": (huggingface_beam, 1.0)}
each_beam = pytest.mark.parametrize("normalise", PUBLISHED)


# -------------------------------------------------------------------- greedy, sample


@pytest.mark.parametrize("repeat", [True, False])
def test_greedy_is_the_argmax_roll_out(repeat):
    repeated = False
    for seed in range(4):
        model = Toy(seed=seed, end=0.5)
        expected = [greedy(model, p, size=7, repeat=repeat) for p in range(10)]
        assert_found(model.run(search.Greedy(7, repeat=repeat)), expected)
        pairs = [pair for text, _ in expected for pair in itertools.pairwise(text)]
        repeated |= any(a == b for a, b in pairs)
    assert repeated == repeat  # the rule had something to forbid


def test_sample_with_a_small_temperature_or_nucleus_is_greedy():
    model = Toy()
    expected = model.run(search.Greedy(7))
    for sample in [search.Sample(7, temperature=1e-3), search.Sample(7, top_p=1e-6)]:
        decoded = model.run(sample, key=KEY)
        chex.assert_trees_all_close(decoded, expected, rtol=1e-6)


def test_sample_draws_from_the_nucleus_in_proportion():
    probability = np.array([0.05, 0.4, 0.1, 0.3, 0.15])
    rows = 20_000
    model = Toy(5, count=1)
    model.table[:] = 2.0 * np.log(probability)  # for temperature 2
    sample = search.Sample(1, temperature=2.0, top_p=0.8)
    decoded = model.run(sample, [0] * rows, key=KEY)
    drawn = np.asarray(decoded.tokens)[:, 0]
    share = np.bincount(drawn, minlength=5) / rows
    expected = np.array([0, 0.4, 0, 0.3, 0.15]) / 0.85
    assert share[0] == share[2] == 0
    error = np.sqrt(expected * (1 - expected) / rows)
    assert np.all(np.abs(share - expected) <= 4 * error)
    # The score is the model's own log-probability, not that of what was drawn from.
    own = model.log_prob(0, ())[drawn]
    np.testing.assert_allclose(decoded.score, own, rtol=1e-5)


def test_a_nucleus_is_the_smallest_set_that_reaches_its_mass():
    logits = np.random.default_rng(0).normal(0, 2, (200, 11)).astype(np.float32)
    probability = np.exp(logits) / np.sum(np.exp(logits), axis=1, keepdims=True)
    for mass in (0.01, 0.5, 0.9, 0.999):
        kept = np.isfinite(search.nucleus(jnp.asarray(logits), mass))
        total = np.sum(probability * kept, axis=1)
        least = np.min(np.where(kept, probability, 1), axis=1)
        assert np.all(total >= mass - 1e-6)
        assert np.all(total - least < mass + 1e-6)  # one fewer would fall short
        assert np.all(np.max(np.where(kept, 0, probability), axis=1) <= least)
    exact = search.nucleus(jnp.log(jnp.array([[0.25, 0.5, 0.25]])), 0.5)
    np.testing.assert_array_equal(np.isfinite(exact), [[False, True, False]])
    equal = search.nucleus(jnp.zeros((1, 4)), 0.6)
    np.testing.assert_array_equal(np.isfinite(equal), [[True, True, True, False]])


def test_key_and_record_decide_a_draw():
    model = Toy(sharpness=0.5, end=-3.0)
    sample = FINDERS[2]
    first = model.run(sample, [0] * 10, key=KEY)
    assert len(set(words(first))) > 5
    other = model.run(sample, [0] * 10, key=jax.random.key(1))
    assert not np.array_equal(first.tokens, other.tokens)
    turned = model.run(sample, [0] * 10, key=KEY, record=jnp.arange(10)[::-1])
    np.testing.assert_array_equal(turned.tokens, first.tokens[::-1])


# ------------------------------------------------------------------------------ beams


@each_beam
@pytest.mark.parametrize(
    ("vocabulary", "beams", "size", "penalty"),
    [
        (7, 4, 9, None),
        (12, 1, 6, 2.0),
        (3, 4, 6, 0.0),  # fewer tokens than beams
        (2, 4, 5, 1.0),  # one token and the end: never more than one live beam
        (7, 4, 1, 0.6),
    ],
)
def test_beam_is_the_published_search(normalise, vocabulary, beams, size, penalty):
    find = Beam(beams, size, normalise, penalty)
    reference, default = PUBLISHED[normalise]
    exponent = default if penalty is None else penalty
    for seed, end in enumerate([0.0, 1.0, 2.0]):
        model = Toy(vocabulary, seed=seed, end=end)
        assert_found(
            model.run(find),
            [
                reference(model, p, beams=beams, size=size, penalty=exponent)
                for p in range(10)
            ],
        )


def test_the_cases_tell_the_rules_apart():
    model = Toy(7, count=100, seed=1, end=1.5)

    def found(reference, penalty, **kwargs):
        rules = functools.partial(reference, beams=4, size=9, penalty=penalty, **kwargs)
        return [rules(model, picture) for picture in range(100)]

    gnmt, huggingface = found(gnmt_beam, 1.0), found(huggingface_beam, 1.0)
    assert [text for text, _ in gnmt] != [text for text, _ in huggingface]
    assert gnmt == found(gnmt_beam, 1.0, stop=False)  # a proof: no answer changes
    assert huggingface != found(huggingface_beam, 1.0, stop=False)  # a guess: some do
    assert_found(model.run(Beam(4, 9, penalty=1.0)), gnmt)
    assert_found(model.run(Beam(4, 9, "huggingface")), huggingface)


@each_beam
def test_beams_enough_for_every_text_find_the_best_of_all(normalise):
    vocabulary, size, penalty = 3, 4, 1.0
    model = Toy(vocabulary, seed=2)

    def score_of(picture, tokens):
        """Words and score of generated tokens: up to the end token, or `size`."""
        paid = [
            model.log_prob(picture, tokens[:t])[token] for t, token in enumerate(tokens)
        ]
        if normalise == "gnmt":  # the last token is the end token, or gives way to it
            length = len(model.prefixes[picture]) + len(tokens) - 1
            return tokens[:-1], sum(paid) / ((5 + length) / 6) ** penalty
        text = tokens[:-1] if tokens[-1] == EOS else tokens
        return text, sum(paid) / len(tokens) ** penalty

    every = [
        tokens
        for length in range(1, size + 1)
        for tokens in itertools.product(range(vocabulary), repeat=length)
        if EOS not in tokens[:-1] and (tokens[-1] == EOS or length == size)
    ]
    expected = [
        max((score_of(picture, tokens) for tokens in every), key=lambda found: found[1])
        for picture in range(10)
    ]
    assert_found(model.run(Beam(24, size, normalise, penalty)), expected)


# ------------------------------------------------------------------- laws of them all


@each_search
def test_a_row_is_decoded_as_if_it_were_alone(find):
    model = Toy(end=1.0)
    together = model.run(find, key=KEY)
    assert len(set(together.length.tolist())) > 2
    for row in range(10):
        alone = model.run(find, [row], key=KEY, record=jnp.array([row]))
        expected = jax.tree.map(lambda x, row=row: x[row : row + 1], together)
        chex.assert_trees_all_close(alone, expected, rtol=1e-6)


@each_search
def test_the_end_token_is_written_once_and_padding_follows(find):
    for end in (0.0, 1.0):
        decoded = Toy(end=end).run(find, key=KEY)
        for tokens, length in zip(decoded.tokens, decoded.length.tolist(), strict=True):
            assert EOS not in tokens[:length]
            assert tokens[length:].tolist() in ([], [EOS] + [PAD] * (6 - length))


@each_search
def test_forbidden_tokens_are_never_used(find):
    model = Toy(end=-2.0)
    model.table[:, 2::2] = -np.inf  # leaves 0, the end, 3, 5 and 7
    decoded = model.run(find, key=KEY)
    assert np.all(np.isfinite(decoded.score))
    assert {0, 3, 5, 7} >= {token for text in words(decoded) for token in text}


@each_search
def test_nothing_but_the_end_gives_an_empty_text(find):
    model = Toy()
    model.table[:, :] = -np.inf
    model.table[:, EOS] = 3.0
    decoded = model.run(find, key=KEY)
    np.testing.assert_array_equal(decoded.length, 0)
    np.testing.assert_allclose(decoded.score, 0, atol=1e-6)


@each_search
def test_the_loop_stops_with_the_last_row_and_feeds_nothing_in_vain(find):
    calls = []

    def counted(token, state):
        jax.debug.callback(lambda: calls.append(1))
        return step(token, state)

    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(prompt, key):
        return find(search.LanguageModel(counted, gather, EOS, PAD), prompt, key)

    # Hugging Face's search goes on until as many texts as beams have ended.
    for end, fewest, most in [(100.0, 0, 1), (0.0, 1, 6), (-100.0, 6, 6)]:
        calls.clear()
        jax.block_until_ready(run(Toy(end=end).start(), KEY))
        jax.effects_barrier()
        assert fewest <= len(calls) <= most


@pytest.mark.parametrize("find", [FINDERS[0], FINDERS[3]], ids=str)
def test_logits_may_be_bfloat16_and_huge(find):
    model = Toy()
    model.table *= 1e4

    def coarse(token, state):
        logits, state = step(token, state)
        return logits.astype(jnp.bfloat16), state

    decoded = model.run(find, step=coarse)
    assert decoded.score.dtype == jnp.float32
    assert np.all(np.isfinite(decoded.score))


def test_what_cannot_be_is_refused_by_name():
    with pytest.raises(ValueError, match="max_tokens is 0"):
        search.Greedy(0)
    with pytest.raises(ValueError, match="temperature is 0.*use Greedy"):
        search.Sample(temperature=0.0)
    with pytest.raises(ValueError, match="top_p is 1.5"):
        search.Sample(top_p=1.5)
    with pytest.raises(ValueError, match="beams is 0"):
        Beam(0)
    with pytest.raises(ValueError, match="penalty is -1"):
        Beam(penalty=-1.0)
    with pytest.raises((ValueError, TypeError), match="normalise"):
        Beam(normalise="length")
    with pytest.raises(ValueError, match="key="):
        Toy().run(search.Sample())
    with pytest.raises(ValueError, match="vocabulary has 1 token"):
        Beam()(
            search.LanguageModel(step, gather, eos=0, pad=0),
            search.Prompt((), jnp.zeros((2, 1)), jnp.ones(2, int)),
        )
