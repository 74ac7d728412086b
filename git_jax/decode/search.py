"""Search for the best text on the device, knowing a step function and no model.

A search starts where the prefix ends. The model has read `bos prefix` of every row
and hands over the logits that follow; from there the search alone decides what is fed:

    step(tokens i32[R], state)  -> logits [R V], state   feeds one token a row
    gather(state, rows i32[P])  -> state                 row i is what rows[i] was

`Greedy` and `Sample` keep R = B rows. `Beam` keeps R = B * beams, the beams of one
picture side by side, and first calls `gather(state, [0 0 0 1 1 1 ...])` to get them.
From then on a row is only ever replaced by a row of its own picture, so a state may
hold what depends on the picture alone (keys and values of the image) once a picture,
shared by its beams, and `gather` may leave that part as it is. A `gather` that takes
`rows % beams` inside each picture, not `rows` of all, also keeps a batch that is split
over devices where it is. A search of `max_tokens` feeds at most `max_tokens - 1` tokens
a row, which sizes a cache of keys and values.

All rows step together whatever the lengths of their prefixes. A row that has ended
keeps its answer while others go on, and the loop stops with the last one. Every search
is a frozen dataclass, works under `jax.jit`, and never looks at another row: what it
finds for a picture does not depend on the batch the picture sits in.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

State = Any
Step = Callable[[Array, State], tuple[Array, State]]
Gather = Callable[[State, Array], State]


class Decoded(NamedTuple):
    """What a search found for each row, the prefix left out.

    With T = 5, end token 2 and padding 0:

        tokens [7 8 2 0 0], length 2     the end token was found
        tokens [7 8 9 7 8], length 5     it was not, within T tokens
    """

    tokens: Int[Array, "B T"]
    """Generated ids, then the end token if there is one, then padding."""
    length: Int[Array, "B"]
    """Generated ids that are words: the end token does not count."""
    score: Float[Array, "B"]
    """The number the search ranks by, natural logarithm; each search says which."""


@runtime_checkable
class Search(Protocol):
    """The one call form of all searches, so that a config can name any of them.

    Args:
        step: feeds one token a row, see the head of this file.
        gather: picks rows of the state; only searches with beams call it.
        state: whatever `step` wants, with B rows.
        logits: [B V] of the first token to generate, any float type; the rest is
            computed in float32. A row needs at least one finite entry.
        prefix_length: [B] tokens already read, the begin token counted.
        eos: id of the end token.
        pad: id that fills `Decoded.tokens` after the end.
        key: random key; only `Sample` draws.
        index: [B] names of the rows for drawing, 0, 1, ... unless given.
    """

    @property
    def max_tokens(self) -> int: ...

    def __call__(
        self,
        step: Step,
        gather: Gather,
        state: State,
        logits: Float[Array, "B V"],
        prefix_length: Int[Array, "B"],
        *,
        eos: int,
        pad: int,
        key: Array | None = None,
        index: Int[Array, "B"] | None = None,
    ) -> Decoded: ...


@dataclasses.dataclass(frozen=True)
class Greedy:
    """The likeliest token at every step, until the end token or `max_tokens`.

    The score is the mean log-probability of a generated token, the end token counted,
    as in the original's autoregressive searcher.

    Attributes:
        max_tokens: generated tokens at most, the end token counted.
        repeat: whether a token may follow itself. False is the original's rule
            (`AutoRegressiveBeamSearch`): the logit of the token just generated becomes
            -10000 before the softmax. The first generated token is free: the rule does
            not look into the prefix.
    """

    max_tokens: int = 40
    repeat: bool = True

    def __post_init__(self) -> None:
        _check_max_tokens(self.max_tokens)

    def __call__(
        self,
        step: Step,
        gather: Gather,
        state: State,
        logits: Float[Array, "B V"],
        prefix_length: Int[Array, "B"],
        *,
        eos: int,
        pad: int,
        key: Array | None = None,
        index: Int[Array, "B"] | None = None,
    ) -> Decoded:
        """See `Search`. `gather`, `prefix_length`, `key` and `index` are not needed."""

        def choose(
            logits: Float[Array, "B V"], last: Int[Array, "B"], t: Int[Array, ""]
        ) -> tuple[Int[Array, "B"], Float[Array, "B V"]]:
            if not self.repeat:
                again = jax.nn.one_hot(last, logits.shape[-1], dtype=bool)
                logits = jnp.where((t > 0) & again, -10000.0, logits)
            return jnp.argmax(logits, axis=-1), jax.nn.log_softmax(logits)

        return _roll_out(choose, self.max_tokens, step, state, logits, eos, pad)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draws each token from the model's distribution, sharpened and cut.

    Token t of a row is drawn with `fold_in(fold_in(key, index[row]), t)`, so a draw
    depends on the key, the row's own index and t, never on the batch. The score is the
    mean log-probability of a generated token, the end token counted, under the model
    itself: before temperature and cut.

    Attributes:
        max_tokens: generated tokens at most, the end token counted.
        temperature: divides the logits; below 1 sharpens, above 1 flattens.
        top_p: mass of the nucleus, see `nucleus`; 1 cuts nothing.
    """

    max_tokens: int = 40
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        _check_max_tokens(self.max_tokens)
        if not self.temperature > 0:
            raise ValueError(
                f"temperature is {self.temperature}; it must be above 0 "
                "(for the limit 0 use Greedy)"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p is {self.top_p}; it must lie in (0, 1], 1 cuts nothing"
            )

    def __call__(
        self,
        step: Step,
        gather: Gather,
        state: State,
        logits: Float[Array, "B V"],
        prefix_length: Int[Array, "B"],
        *,
        eos: int,
        pad: int,
        key: Array | None = None,
        index: Int[Array, "B"] | None = None,
    ) -> Decoded:
        """See `Search`. `gather` and `prefix_length` are not needed.

        Raises:
            ValueError: without a key.
        """
        if key is None:
            raise ValueError(
                "Sample draws tokens: call it with key=jax.random.key(seed)"
            )
        if index is None:
            index = jnp.arange(logits.shape[0])
        row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)

        def choose(
            logits: Float[Array, "B V"], last: Int[Array, "B"], t: Int[Array, ""]
        ) -> tuple[Int[Array, "B"], Float[Array, "B V"]]:
            sharp = logits / self.temperature
            if self.top_p < 1:
                sharp = nucleus(sharp, self.top_p)
            keys = jax.vmap(jax.random.fold_in, (0, None))(row_keys, t)
            token = jax.vmap(jax.random.categorical)(keys, sharp)
            return token, jax.nn.log_softmax(logits)

        return _roll_out(choose, self.max_tokens, step, state, logits, eos, pad)


def nucleus(logits: Float[Array, "B V"], mass: float) -> Float[Array, "B V"]:
    """Keeps the fewest likeliest tokens that reach `mass`; the others get -inf.

    Probabilities .5 .3 .15 .05 and mass .7 keep .5 .3, for .5 alone falls short; mass
    .5 keeps .5, and any mass keeps at least one. Of equals the lower id comes first.
    "The Curious Case of Neural Text Degeneration", arXiv 1904.09751, section 3.1.
    """
    probability = jax.nn.softmax(logits)

    # The least likely token kept, found by halving the range of probabilities: floats
    # above zero sort like their bits, so 30 halvings find it exactly. Sorting a
    # vocabulary of 30,522 took twenty times as long on a CPU.
    def mass_from(bits: Int[Array, "B 1"]) -> Float[Array, "B 1"]:
        floor = lax.bitcast_convert_type(bits, jnp.float32)
        likely = jnp.where(probability >= floor, probability, 0.0)
        return jnp.sum(likely, axis=-1, keepdims=True)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends  # `low` reaches the mass, `high` does not
        middle = (low + high) // 2
        reached = mass_from(middle) >= mass
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle)

    zero = jnp.zeros((logits.shape[0], 1), jnp.int32)
    above_one = lax.bitcast_convert_type(
        jnp.full_like(zero, 2.0, jnp.float32), jnp.int32
    )
    low, high = lax.fori_loop(0, 30, halve, (zero, above_one))
    least = lax.bitcast_convert_type(low, jnp.float32)
    equal = probability == least
    before = mass_from(high) + least * (jnp.cumsum(equal, axis=-1) - 1)
    keep = (probability > least) | (equal & (before < mass))
    return jnp.where(keep, logits, -jnp.inf)


class _Beams(NamedTuple):
    """K live beams a picture, best first, and the texts that ended."""

    text: Int[Array, "B K T"]
    token: Int[Array, "B K"]  # the last of `text`, to be fed next
    parent: Int[Array, "B K"]  # the beam of the step before that it goes on from
    total: Float[Array, "B K"]  # sum of log-probabilities; -inf: a beam not in use
    kept: Float[Array, "B N"]  # scores of the best ended texts, best first, -inf: none
    best: Int[Array, "B T"]  # the text of kept[:, 0]
    best_length: Int[Array, "B"]
    done: Bool[Array, "B"]


@dataclasses.dataclass(frozen=True)
class Beam:
    """Beam search as one of the two public implementations of GIT runs it.

    Both extend all beams at once and look at the best `2 * beams` extensions of a
    picture. (A beam has one end token, so at least `beams` of them go on, and looking
    at more would change nothing: the original's per-node width has no other effect.)
    They differ in which ends count, how sums of log-probabilities are normalised, and
    when to stop:

    |                  | `"gnmt"`                       | `"huggingface"`              |
    |------------------|--------------------------------|------------------------------|
    | source           | `GeneratorWithBeamSearch` of   | `_beam_search` of            |
    |                  | GenerativeImage2Text           | transformers 5.23            |
    | an end counts    | with fewer than `beams` better | among the best `beams`       |
    |                  | extensions that go on          | extensions, ends included    |
    | score            | sum / ((5 + n) / 6) ** penalty | sum / n ** penalty           |
    | n                | begin token, prefix and words  | generated tokens             |
    | the end token    | in the sum, not in n           | in the sum and in n          |
    | ended texts kept | 1                              | `beams`                      |
    | a row is done    | when no beam can beat the kept | when best beam / (n so far)  |
    |                  | text at the length allowed     | ** penalty <= worst kept     |
    | at `max_tokens`  | the best extension counts, its | the best `beams` extensions  |
    |                  | last token paid for but        | count as they are, without   |
    |                  | replaced by the end token      | an end token                 |

    Hugging Face's `early_stopping=False` is the one built here: being done is its
    published guess, not a proof, and longer text might have scored better. For one beam
    transformers runs greedy search instead; `Beam(beams=1)` is still a beam search.

    Attributes:
        beams: texts carried along for each picture.
        max_tokens: generated tokens at most, the end token counted. The original's
            `max_steps` counts the prefix too: it is `prefix_length + max_tokens`.
        normalise: which of the two.
        penalty: the exponent; unless given 0.6 for `"gnmt"` (the released value) and
            1.0 for `"huggingface"` (its default).
    """

    beams: int = 4
    max_tokens: int = 40
    normalise: Literal["gnmt", "huggingface"] = "gnmt"
    penalty: float | None = None

    def __post_init__(self) -> None:
        _check_max_tokens(self.max_tokens)
        if self.beams < 1:
            raise ValueError(f"beams is {self.beams}; it must be at least 1")
        if self.normalise not in ("gnmt", "huggingface"):
            raise ValueError(
                f"normalise is {self.normalise!r}; it must be 'gnmt' or 'huggingface'"
            )
        if self.normalise == "gnmt" and self.penalty is not None and self.penalty < 0:
            raise ValueError(
                f"penalty is {self.penalty}; with normalise='gnmt' it must be 0 or "
                "more: stopping early is right only if length is not punished"
            )

    def __call__(
        self,
        step: Step,
        gather: Gather,
        state: State,
        logits: Float[Array, "B V"],
        prefix_length: Int[Array, "B"],
        *,
        eos: int,
        pad: int,
        key: Array | None = None,
        index: Int[Array, "B"] | None = None,
    ) -> Decoded:
        """See `Search`. `key` and `index` are not needed.

        Raises:
            ValueError: with a vocabulary of fewer than two tokens.
        """
        batch, vocabulary = logits.shape
        if vocabulary < 2:
            raise ValueError(
                f"the vocabulary has {vocabulary} token; a beam search needs at least "
                "2, the end token and one more"
            )

        def feed(beams: _Beams, state: State) -> tuple[Array, State]:
            rows = jnp.arange(batch)[:, None] * self.beams + beams.parent
            return step(beams.token.ravel(), gather(state, rows.ravel()))

        def select(beams: _Beams, logits: Array, t: Int[Array, ""]) -> _Beams:
            return self._select(beams, logits, t, prefix_length, eos)

        beams = _loop(
            feed,
            select,
            self.max_tokens,
            self._start(batch, pad),
            gather(state, jnp.repeat(jnp.arange(batch), self.beams)),
            jnp.repeat(logits, self.beams, axis=0),
        )
        return Decoded(beams.best, beams.best_length, beams.kept[:, 0])

    def _start(self, batch: int, pad: int) -> _Beams:
        """One live beam a picture: the others would only say the same."""
        kept = 1 if self.normalise == "gnmt" else self.beams
        shape = (batch, self.beams)
        return _Beams(
            text=jnp.full((*shape, self.max_tokens), pad, jnp.int32),
            token=jnp.full(shape, pad, jnp.int32),
            parent=jnp.zeros(shape, jnp.int32),
            total=jnp.full(shape, -jnp.inf, jnp.float32).at[:, 0].set(0.0),
            kept=jnp.full((batch, kept), -jnp.inf, jnp.float32),
            best=jnp.full((batch, self.max_tokens), pad, jnp.int32),
            best_length=jnp.zeros(batch, jnp.int32),
            done=jnp.zeros(batch, bool),
        )

    def _norm(self, length: Array) -> Float[Array, "..."]:
        length = length.astype(jnp.float32)
        if self.normalise == "gnmt":
            return ((5 + length) / 6) ** (0.6 if self.penalty is None else self.penalty)
        return length ** (1.0 if self.penalty is None else self.penalty)

    def _select(
        self,
        beams: _Beams,
        logits: Float[Array, "R V"],
        t: Int[Array, ""],
        prefix_length: Int[Array, "B"],
        eos: int,
    ) -> _Beams:
        """Chooses token t: which texts end here, and which `beams` go on."""
        gnmt = self.normalise == "gnmt"
        batch, vocabulary = len(beams.done), logits.shape[-1]
        log_prob = jax.nn.log_softmax(logits.astype(jnp.float32))
        total = beams.total[..., None] + log_prob.reshape(batch, self.beams, vocabulary)
        total, flat = lax.top_k(total.reshape(batch, -1), 2 * self.beams)
        parent, token = flat // vocabulary, flat % vocabulary
        end = token == eos
        is_last = t == self.max_tokens - 1

        # All texts that end now are equally long: the best is the first that may end.
        rivals = (~end).astype(jnp.int32) if gnmt else jnp.ones_like(token)
        better = jnp.cumsum(rivals, axis=-1) - rivals
        ended = (end | is_last) & (better < self.beams) & ~beams.done[:, None]
        length = prefix_length + t if gnmt else jnp.full_like(prefix_length, t + 1)
        scores = jnp.where(ended, total / self._norm(length)[:, None], -jnp.inf)
        first = jnp.argmax(scores, axis=-1, keepdims=True)
        text = _pick(beams.text, _pick(parent, first))[:, 0]
        token_of_end = jnp.full_like(first, eos) if gnmt else _pick(token, first)
        text = text.at[:, t].set(token_of_end[:, 0])
        improved = _pick(scores, first)[:, 0] > beams.kept[:, 0]
        kept = jnp.concatenate([beams.kept, scores], axis=-1)
        kept, _ = lax.top_k(kept, beams.kept.shape[-1])

        total, live = lax.top_k(jnp.where(end, -jnp.inf, total), self.beams)
        parent, token = _pick(parent, live), _pick(token, live)
        # What the best beam would score at the length that flatters it, as published.
        longest = prefix_length + self.max_tokens - 1 if gnmt else length
        possible = total[:, 0] / self._norm(longest)
        return _Beams(
            text=_pick(beams.text, parent).at[:, :, t].set(token),
            token=token,
            parent=parent,
            total=total,
            kept=kept,
            best=jnp.where(improved[:, None], text, beams.best),
            best_length=jnp.where(
                improved, t + (token_of_end[:, 0] != eos), beams.best_length
            ),
            done=beams.done | ~(possible > kept[:, -1]),
        )


class _Rows(NamedTuple):
    """One text a row."""

    text: Int[Array, "B T"]
    token: Int[Array, "B"]
    length: Int[Array, "B"]
    total: Float[Array, "B"]
    done: Bool[Array, "B"]


def _roll_out(
    choose: Callable[[Array, Array, Array], tuple[Array, Array]],
    size: int,
    step: Step,
    state: State,
    logits: Float[Array, "B V"],
    eos: int,
    pad: int,
) -> Decoded:
    """One text a row: `choose(logits, last token, t)` gives token t and log-probs."""
    batch = logits.shape[0]

    def select(rows: _Rows, logits: Array, t: Int[Array, ""]) -> _Rows:
        token, log_prob = choose(logits.astype(jnp.float32), rows.token, t)
        paid = jnp.take_along_axis(log_prob, token[:, None], axis=-1)[:, 0]
        token = jnp.where(rows.done, pad, token).astype(jnp.int32)
        end = ~rows.done & (token == eos)
        return _Rows(
            text=rows.text.at[:, t].set(token),
            token=token,
            length=rows.length + ~(rows.done | end),
            total=rows.total + jnp.where(rows.done, 0.0, paid),
            done=rows.done | end,
        )

    rows = _loop(
        lambda rows, state: step(rows.token, state),
        select,
        size,
        _Rows(
            text=jnp.full((batch, size), pad, jnp.int32),
            token=jnp.full(batch, pad, jnp.int32),
            length=jnp.zeros(batch, jnp.int32),
            total=jnp.zeros(batch, jnp.float32),
            done=jnp.zeros(batch, bool),
        ),
        state,
        logits,
    )
    return Decoded(rows.text, rows.length, rows.total / (rows.length + rows.done))


Carry = TypeVar("Carry", _Beams, _Rows)


def _loop(
    feed: Callable[[Carry, State], tuple[Array, State]],
    select: Callable[[Carry, Array, Array], Carry],
    size: int,
    carry: Carry,
    state: State,
    logits: Float[Array, "R V"],
) -> Carry:
    """Selects token 0; then feeds and selects, up to `size` or until all are done."""

    def body(loop: tuple[Array, Carry, State]) -> tuple[Array, Carry, State]:
        t, carry, state = loop
        logits, state = feed(carry, state)
        return t + 1, select(carry, logits, t), state

    carry = select(carry, logits, jnp.int32(0))
    _, carry, _ = lax.while_loop(
        lambda loop: (loop[0] < size) & ~jnp.all(loop[1].done),
        body,
        (jnp.int32(1), carry, state),
    )
    return carry


def _pick(values: Array, beams: Int[Array, "B K"]) -> Array:
    """[B L ...], [B K] -> [B K ...]: for each picture the named ones of its own."""
    beams = beams.reshape(*beams.shape, *[1] * (values.ndim - 2))
    return jnp.take_along_axis(values, beams, axis=1)


def _check_max_tokens(max_tokens: int) -> None:
    if max_tokens < 1:
        raise ValueError(
            f"max_tokens is {max_tokens}; it must be at least 1, the end token counts"
        )
