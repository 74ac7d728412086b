"""Laws of search, on a model whose logits depend on the whole history of a row."""

import functools
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from git_jax.decode import search

EOS, PAD = 1, 0
CELLS = 997


class Toy:
    """A random distribution for every history: a hash of it picks a row of a table.

    The state is the hash of each row and, once a picture, a salt that all beams of the
    picture share. Rows mixed up, or fed out of order, give other logits.
    """

    def __init__(self, vocabulary, *, seed=0, sharpness=2.0, end=0.0):
        table = np.random.default_rng(seed).normal(0, sharpness, (CELLS, vocabulary))
        table[:, EOS] += end
        self.table = table.astype(np.float32)

    def read(self, salt, history):
        """The hash after a history, in plain Python."""
        return functools.reduce(
            lambda h, token: (h * 31 + token + salt) % CELLS, history, 0
        )

    def log_prob(self, salt, history):
        logits = self.table[self.read(salt, history)].astype(np.float64)
        return logits - np.log(np.sum(np.exp(logits)))

    def step(self, token, state):
        salt, h = state
        salt_of_row = jnp.repeat(salt, len(token) // len(salt))
        h = (h * 31 + token + salt_of_row) % CELLS
        return jnp.asarray(self.table)[h], (salt, h)

    @staticmethod
    def gather(state, rows):
        salt, h = state
        return salt, h[rows]

    def start(self, prefixes, salts):
        """State, logits and lengths after the prefixes."""
        h = [self.read(salt, p) for salt, p in zip(salts, prefixes, strict=True)]
        state = jnp.asarray(salts, jnp.int32), jnp.asarray(h, jnp.int32)
        lengths = jnp.asarray([len(p) for p in prefixes], jnp.int32)
        return state, jnp.asarray(self.table[h]), lengths

    def run(self, find, prefixes, salts, *, step=None, **kwargs):
        return self.jitted(find, step)(*self.start(prefixes, salts), **kwargs)

    @functools.cache  # noqa: B019
    def jitted(self, find, step):
        bound = functools.partial(find, step or self.step, self.gather)
        return jax.jit(functools.partial(bound, eos=EOS, pad=PAD))


def pictures(count, vocabulary, seed=0):
    """Prefixes of one to five tokens, no two pictures alike."""
    rng = np.random.default_rng(seed)
    prefixes = [
        tuple(int(t) for t in rng.integers(0, vocabulary, rng.integers(1, 6)))
        for _ in range(count)
    ]
    return prefixes, [int(salt) for salt in rng.permutation(CELLS)[:count]]


def words(decoded, row):
    return tuple(np.asarray(decoded.tokens)[row, : decoded.length[row]].tolist())


# ------------------------------------------------------------------ plain references


def roll_out(model, salt, prefix, size, choose):
    """(words, mean log-probability) of a text that `choose(log_prob, text)` writes."""
    text, paid = [], []
    for _ in range(size):
        token, log_prob = choose(model.log_prob(salt, (*prefix, *text)), text)
        paid.append(log_prob[token])
        if token == EOS:
            break
        text.append(token)
    return tuple(text), sum(paid) / len(paid)


def extensions(model, salt, prefix, live):
    """Every beam followed by every token: (sum, text, token), best first."""
    found = []
    for total, text in live:
        log_prob = model.log_prob(salt, (*prefix, *text))
        found += [(total + log_prob[v], text, v) for v in range(len(log_prob))]
    return sorted(found, key=lambda extension: -extension[0])


def gnmt_beam(model, salt, prefix, *, beams, size, penalty, stop=True):
    """The original release: one hypothesis is kept, `limit` ids with the prefix."""
    limit = len(prefix) + size

    def norm(length):
        return (5 + length) ** penalty / 6**penalty

    live, kept = [(0.0, ())], None
    for length in range(len(prefix), limit):
        ranked = extensions(model, salt, prefix, live)[: 2 * beams]
        if stop and kept and kept[0] >= ranked[0][0] / norm(limit - 1):
            break
        live = []
        for total, text, token in ranked:
            if token == EOS or length + 1 == limit:
                score = total / norm(len(prefix) + len(text))
                if kept is None or score > kept[0]:
                    kept = score, text
            else:
                live.append((total, (*text, token)))
            if len(live) == beams:
                break
    return kept[1], kept[0]


def huggingface_beam(model, salt, prefix, *, beams, size, penalty, stop=True):
    """transformers 5.23 with early_stopping=False: `beams` finished texts are kept."""
    live, kept = [(0.0, ())], []
    for generated in range(1, size + 1):
        ranked = extensions(model, salt, prefix, live)[: 2 * beams]
        for total, text, token in ranked[:beams]:
            if token == EOS or generated == size:
                text = text if token == EOS else (*text, token)
                kept.append((total / generated**penalty, text))
        kept = sorted(kept, key=lambda hypothesis: -hypothesis[0])[:beams]
        goes_on = [(s, (*text, v)) for s, text, v in ranked if v != EOS]
        live = goes_on[:beams]
        full = len(kept) == beams
        if stop and full and live[0][0] / generated**penalty <= kept[-1][0]:
            break
    return kept[0][1], kept[0][0]


REFERENCE = {"gnmt": gnmt_beam, "huggingface": huggingface_beam}


# -------------------------------------------------------------------- greedy, sample


@pytest.mark.parametrize("repeat", [True, False])
def test_greedy_is_the_argmax_roll_out(repeat):
    model = Toy(5, end=0.5)
    prefixes, salts = pictures(24, 5)
    decoded = model.run(search.Greedy(max_tokens=8, repeat=repeat), prefixes, salts)

    def choose(log_prob, text):
        if text and not repeat:
            log_prob = log_prob.copy()
            log_prob[text[-1]] = -math.inf
            log_prob -= np.log(np.sum(np.exp(log_prob)))
        return int(np.argmax(log_prob)), log_prob

    expected = [
        roll_out(model, s, p, 8, choose) for s, p in zip(salts, prefixes, strict=True)
    ]
    assert [words(decoded, row) for row in range(24)] == [text for text, _ in expected]
    np.testing.assert_allclose(decoded.score, [s for _, s in expected], rtol=1e-5)
    repeated = any(a == b for t, _ in expected for a, b in itertools.pairwise(t))
    assert repeated == repeat  # the rule had something to forbid


def test_the_end_token_is_written_once_and_padding_follows():
    model = Toy(4, end=1.0)
    prefixes, salts = pictures(32, 4)
    finders = [search.Greedy(6), search.Beam(3, 6), search.Beam(3, 6, "huggingface")]
    for find in finders:
        decoded = model.run(find, prefixes, salts)
        seen = set()
        for row, tokens in enumerate(np.asarray(decoded.tokens)):
            length = int(decoded.length[row])
            assert EOS not in tokens[:length]
            assert tokens[length:].tolist() in ([], [EOS] + [PAD] * (5 - length))
            seen.add(length)
        assert len(seen) > 2


def test_sample_with_a_small_temperature_or_nucleus_is_greedy():
    model = Toy(6)
    prefixes, salts = pictures(16, 6)
    greedy = model.run(search.Greedy(7), prefixes, salts)
    for sample in [search.Sample(7, temperature=1e-3), search.Sample(7, top_p=1e-6)]:
        decoded = model.run(sample, prefixes, salts, key=jax.random.key(3))
        chex.assert_trees_all_close(decoded, greedy, rtol=1e-6)


def test_sample_draws_from_the_nucleus_in_proportion():
    probability = np.array([0.05, 0.4, 0.1, 0.3, 0.15])
    rows = 20_000
    logits = jnp.broadcast_to(2.0 * jnp.log(probability), (rows, 5))  # temperature 2
    decoded = search.Sample(1, temperature=2.0, top_p=0.8)(
        lambda token, state: (logits, state),
        lambda state, rows: state,
        (),
        logits,
        jnp.ones(rows, jnp.int32),
        eos=4,
        pad=0,
        key=jax.random.key(0),
    )
    share = np.bincount(np.asarray(decoded.tokens)[:, 0], minlength=5) / rows
    expected = np.array([0, 0.4, 0, 0.3, 0.15]) / 0.85
    assert share[0] == share[2] == 0
    error = np.sqrt(expected * (1 - expected) / rows)
    assert np.all(np.abs(share - expected) <= 4 * error)
    # The score is the model's own log-probability, not that of what was drawn from.
    own = np.asarray(jax.nn.log_softmax(logits[0]))[np.asarray(decoded.tokens)[:, 0]]
    np.testing.assert_allclose(decoded.score, own, rtol=1e-5)


def test_a_nucleus_is_the_smallest_set_that_reaches_its_mass():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (200, 11)).astype(np.float32)
    for mass in (0.01, 0.5, 0.9, 0.999):
        kept = np.isfinite(search.nucleus(jnp.asarray(logits), mass))
        probability = np.asarray(jax.nn.softmax(logits), np.float64)
        total = np.sum(probability * kept, axis=1)
        least = np.min(np.where(kept, probability, 1), axis=1)
        assert np.all(total >= mass - 1e-6)
        assert np.all(total - least < mass + 1e-6)  # one fewer would fall short
        assert np.all(np.max(np.where(kept, 0, probability), axis=1) <= least)
    exact = search.nucleus(jnp.log(jnp.array([[0.25, 0.5, 0.25]])), 0.5)
    np.testing.assert_array_equal(np.isfinite(exact), [[False, True, False]])
    equal = search.nucleus(jnp.zeros((1, 4)), 0.6)
    np.testing.assert_array_equal(np.isfinite(equal), [[True, True, True, False]])


def test_keys_and_indices_of_rows_decide_a_draw():
    model = Toy(20, sharpness=0.5, end=-3.0)
    sample = search.Sample(6)
    prefixes, salts = [(2, 3)] * 8, [5] * 8
    draw = functools.partial(model.run, sample, prefixes, salts)
    first = draw(key=jax.random.key(0))
    assert len({words(first, row) for row in range(8)}) > 4
    assert not np.array_equal(first.tokens, draw(key=jax.random.key(1)).tokens)
    turned = draw(key=jax.random.key(0), index=jnp.arange(8)[::-1])
    np.testing.assert_array_equal(turned.tokens, first.tokens[::-1])


# ------------------------------------------------------------------------------ beams


@pytest.mark.parametrize("normalise", ["gnmt", "huggingface"])
@pytest.mark.parametrize(
    ("vocabulary", "beams", "size", "penalty", "end"),
    [
        (7, 4, 9, 0.6, 1.0),
        (7, 4, 9, 1.0, 1.5),
        (30, 4, 6, 2.0, 2.0),
        (12, 1, 7, 0.6, 1.0),
        (5, 2, 12, 0.0, 0.0),
        (3, 4, 6, 0.6, 0.0),  # fewer tokens than beams
        (2, 4, 5, 1.0, 0.0),  # one token and the end: never more than one live beam
        (7, 4, 1, 0.6, 1.0),
    ],
)
def test_beam_is_the_published_search(normalise, vocabulary, beams, size, penalty, end):
    model = Toy(vocabulary, end=end)
    prefixes, salts = pictures(24, vocabulary)
    find = search.Beam(beams, size, normalise, penalty)
    decoded = model.run(find, prefixes, salts)
    reference = functools.partial(
        REFERENCE[normalise], model, beams=beams, size=size, penalty=penalty
    )
    expected = [
        reference(salt, prefix) for salt, prefix in zip(salts, prefixes, strict=True)
    ]
    assert [words(decoded, row) for row in range(24)] == [text for text, _ in expected]
    np.testing.assert_allclose(
        decoded.score, [s for _, s in expected], rtol=1e-5, atol=1e-6
    )


def test_the_cases_tell_the_rules_apart():
    model = Toy(7, end=1.5)
    prefixes, salts = pictures(200, 7, seed=1)

    def texts(reference, penalty, stop=True):
        return [
            reference(model, s, p, beams=4, size=9, penalty=penalty, stop=stop)[0]
            for s, p in zip(salts, prefixes, strict=True)
        ]

    gnmt, huggingface = texts(gnmt_beam, 1.0), texts(huggingface_beam, 1.0)
    assert gnmt != huggingface
    assert gnmt == texts(gnmt_beam, 1.0, stop=False)  # a proof: it changes no answer
    assert huggingface != texts(huggingface_beam, 1.0, stop=False)  # a guess: it does
    assert texts(huggingface_beam, 0.0) == texts(huggingface_beam, 0.0, stop=False)
    decoded = model.run(search.Beam(4, 9, "huggingface"), prefixes, salts)
    assert [words(decoded, row) for row in range(200)] == huggingface
    decoded = model.run(search.Beam(4, 9, penalty=1.0), prefixes, salts)
    assert [words(decoded, row) for row in range(200)] == gnmt


@pytest.mark.parametrize("normalise", ["gnmt", "huggingface"])
def test_beams_enough_for_every_text_find_the_best_of_all(normalise):
    size, vocabulary, penalty = 4, 3, 1.0
    model = Toy(vocabulary, seed=2)
    prefixes, salts = pictures(12, vocabulary, seed=2)
    decoded = model.run(search.Beam(24, size, normalise, penalty), prefixes, salts)
    for row, (prefix, salt) in enumerate(zip(prefixes, salts, strict=True)):
        scores = {}
        for length in range(1, size + 1):
            for text in itertools.product(range(vocabulary), repeat=length):
                if EOS in text[:-1] or (text[-1] != EOS and length < size):
                    continue
                total = sum(
                    model.log_prob(salt, prefix + text[:t])[text[t]]
                    for t in range(length)
                )
                if normalise == "gnmt":  # the last token is the end, or gives way to it
                    words_of = text[:-1]
                    score = total / ((5 + len(prefix) + length - 1) / 6) ** penalty
                else:
                    words_of = text[:-1] if text[-1] == EOS else text
                    score = total / length**penalty
                scores[words_of] = max(score, scores.get(words_of, -math.inf))
        best = max(scores, key=scores.__getitem__)
        assert words(decoded, row) == best
        np.testing.assert_allclose(decoded.score[row], scores[best], rtol=1e-5)


def test_default_penalties_are_the_published_ones():
    model = Toy(7, end=1.0)
    prefixes, salts = pictures(16, 7)
    for normalise, penalty in [("gnmt", 0.6), ("huggingface", 1.0)]:
        default = model.run(search.Beam(4, 8, normalise), prefixes, salts)
        named = model.run(search.Beam(4, 8, normalise, penalty), prefixes, salts)
        chex.assert_trees_all_equal(default, named)


def test_forbidden_tokens_are_never_used():
    model = Toy(6, end=-2.0)
    model.table[:, 2::2] = -np.inf  # leaves 0, the end, 3 and 5
    prefixes, salts = pictures(16, 6)
    finders = [search.Greedy(5, repeat=False), search.Sample(5, top_p=0.9)]
    finders += [search.Beam(4, 5), search.Beam(4, 5, "huggingface")]
    for find in finders:
        decoded = model.run(find, prefixes, salts, key=jax.random.key(0))
        assert np.all(np.isfinite(decoded.score))
        assert {t for row in range(16) for t in words(decoded, row)} <= {0, 3, 5}


def test_a_picture_whose_beams_all_die_ends():
    model = Toy(4)
    model.table[:] = [-np.inf, 0.0, -np.inf, -np.inf]  # only the end is possible
    prefixes, salts = pictures(3, 4)
    for normalise in ("gnmt", "huggingface"):
        decoded = model.run(search.Beam(3, 9, normalise), prefixes, salts)
        np.testing.assert_array_equal(decoded.length, 0)
        np.testing.assert_allclose(decoded.score, 0, atol=1e-6)


# ------------------------------------------------------------------- laws of them all

FINDERS = [
    search.Greedy(7),
    search.Greedy(7, repeat=False),
    search.Sample(7, temperature=1.3, top_p=0.9),
    search.Beam(4, 7),
    search.Beam(4, 7, "huggingface"),
]


@pytest.mark.parametrize("find", FINDERS, ids=str)
def test_a_row_is_decoded_as_if_it_were_alone(find):
    model = Toy(9, end=1.0)
    prefixes, salts = pictures(10, 9)
    key = jax.random.key(7)
    together = model.run(find, prefixes, salts, key=key)
    assert len(set(np.asarray(together.length).tolist())) > 2
    for row in range(10):
        alone = model.run(
            find, [prefixes[row]], [salts[row]], key=key, index=jnp.array([row])
        )
        expected = jax.tree.map(lambda x, row=row: x[row : row + 1], together)
        chex.assert_trees_all_close(alone, expected, rtol=1e-6)


@pytest.mark.parametrize("find", FINDERS, ids=str)
def test_a_search_is_traced_once(find):
    model = Toy(9)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(state, logits, prefix_length, key):
        return find(
            model.step,
            model.gather,
            state,
            logits,
            prefix_length,
            eos=EOS,
            pad=PAD,
            key=key,
        )

    for seed in range(3):
        decoded = run(*model.start(*pictures(4, 9, seed)), jax.random.key(seed))
        chex.assert_shape(decoded.tokens, (4, 7))
        chex.assert_tree_all_finite(decoded)


@pytest.mark.parametrize("find", FINDERS, ids=str)
def test_the_loop_stops_with_the_last_row_and_feeds_nothing_in_vain(find):
    calls = []

    def counted(model):
        def step(token, state):
            jax.debug.callback(lambda: calls.append(1))
            return model.step(token, state)

        return step

    for end, most in [(100.0, 1), (-100.0, find.max_tokens - 1)]:
        calls.clear()
        model = Toy(9, end=end)
        prefixes, salts = pictures(4, 9)
        decoded = model.run(
            find, prefixes, salts, step=counted(model), key=jax.random.key(0)
        )
        jax.block_until_ready(decoded)
        jax.effects_barrier()
        assert len(calls) <= most
        if end < 0:
            assert len(calls) == most


@pytest.mark.parametrize("find", FINDERS, ids=str)
def test_logits_may_come_in_bfloat16_and_be_huge(find):
    def step(token, state):
        logits = jnp.zeros((len(token), 8), jnp.bfloat16).at[:, 3].set(3e4)
        return logits, state

    logits, _ = step(jnp.zeros(2), ())
    decoded = find(
        step,
        lambda state, rows: state,
        (),
        logits,
        jnp.ones(2, jnp.int32),
        eos=EOS,
        pad=PAD,
        key=jax.random.key(0),
    )
    assert decoded.score.dtype == jnp.float32
    assert np.all(np.isfinite(decoded.score))


def test_what_cannot_be_is_refused_by_name():
    with pytest.raises(ValueError, match="max_tokens is 0"):
        search.Greedy(0)
    with pytest.raises(ValueError, match="temperature is 0.*use Greedy"):
        search.Sample(temperature=0)
    with pytest.raises(ValueError, match="top_p is 1.5"):
        search.Sample(top_p=1.5)
    with pytest.raises(ValueError, match="beams is 0"):
        search.Beam(0)
    with pytest.raises(ValueError, match="'length'.*'gnmt' or 'huggingface'"):
        search.Beam(normalise="length")
    with pytest.raises(ValueError, match="penalty is -1"):
        search.Beam(penalty=-1)
    model = Toy(3)
    with pytest.raises(ValueError, match="key="):
        model.run(search.Sample(), [(2,)], [1])
    with pytest.raises(ValueError, match="vocabulary has 1 token"):
        Toy(2).run(
            lambda step, gather, state, logits, length, **kwargs: search.Beam()(
                step, gather, state, logits[:, :1], length, **kwargs
            ),
            [(1,)],
            [1],
        )
