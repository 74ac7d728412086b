"""Search for the best text on the device, knowing a step function and no model.

A search starts where the prefix ends. The model has read `bos prefix` of every row
and hands over the logits that follow (`Prompt`); from there the search alone decides
what is fed, and asks for no more than a `LanguageModel` can do.

`Greedy` and `Sample`, here, keep one row a text; `Beam`, in `beam.py`, keeps several.
All rows step together whatever the lengths of their prefixes. A row that has ended
keeps its answer while others go on, and the loop stops with the last one. Every search
is a frozen dataclass, works under `jax.jit`, and never looks at another row: what it
finds for a picture does not depend on the batch the picture sits in.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

State = Any


class LanguageModel(NamedTuple):
    """What a search knows of a model; R rows are the batch's, or beams of them.

    A search of `max_tokens` feeds at most `max_tokens - 1` tokens a row, which sizes a
    cache of keys and values.
    """

    step: Callable[[Array, State], tuple[Array, State]]
    """tokens i32[R], state -> logits [R V], state: feeds one token a row."""
    gather: Callable[[State, Array], State]
    """state, rows i32[P] -> state whose row i is what rows[i] was. For beams only."""
    eos: int
    """Id of the end token."""
    pad: int
    """Id that fills `Decoded.tokens` after the end."""


class Prompt(NamedTuple):
    """What a search goes on from: B rows whose prefixes the model has read."""

    state: State
    """Whatever `LanguageModel.step` wants, with B rows."""
    logits: Float[Array, "B V"]
    """Of the first token to generate, any float type; the rest is computed in float32.
    A row needs at least one finite entry."""
    length: Int[Array, "B"]
    """Tokens already read, the begin token counted."""
    record: Int[Array, "B"] | None = None
    """Which record each row is, for drawing: 0, 1, ... unless given."""


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
    """The one call form of all searches, so that a config can name any of them."""

    @property
    def max_tokens(self) -> int: ...

    def __call__(
        self, model: LanguageModel, prompt: Prompt, key: Array | None = None
    ) -> Decoded:
        """One text for each row of the prompt; only `Sample` needs the random key."""


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
        check_max_tokens(self.max_tokens)

    def __call__(
        self, model: LanguageModel, prompt: Prompt, key: Array | None = None
    ) -> Decoded:
        def choose(
            logits: Float[Array, "B V"], last: Int[Array, "B"], t: Int[Array, ""]
        ) -> tuple[Int[Array, "B"], Float[Array, "B V"]]:
            if not self.repeat:
                again = jax.nn.one_hot(last, logits.shape[-1], dtype=bool)
                logits = jnp.where((t > 0) & again, -10000.0, logits)
            return jnp.argmax(logits, axis=-1), jax.nn.log_softmax(logits)

        return _roll_out(choose, self.max_tokens, model, prompt)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draws each token from the model's distribution, sharpened and cut.

    Token t of a row is drawn with `fold_in(fold_in(key, record[row]), t)`, so a draw
    depends on the key, the row's record and t, never on the batch. The score is the
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
        check_max_tokens(self.max_tokens)
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
        self, model: LanguageModel, prompt: Prompt, key: Array | None = None
    ) -> Decoded:
        """Raises ValueError without a key."""
        if key is None:
            raise ValueError(
                "Sample draws tokens: call it with key=jax.random.key(seed)"
            )
        record = prompt.record
        if record is None:
            record = jnp.arange(len(prompt.logits))
        row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, record)

        def choose(
            logits: Float[Array, "B V"], last: Int[Array, "B"], t: Int[Array, ""]
        ) -> tuple[Int[Array, "B"], Float[Array, "B V"]]:
            sharp = logits / self.temperature
            if self.top_p < 1:
                sharp = nucleus(sharp, self.top_p)
            keys = jax.vmap(jax.random.fold_in, (0, None))(row_keys, t)
            token = jax.vmap(jax.random.categorical)(keys, sharp)
            return token, jax.nn.log_softmax(logits)

        return _roll_out(choose, self.max_tokens, model, prompt)


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
    model: LanguageModel,
    prompt: Prompt,
) -> Decoded:
    """One text a row: `choose(logits, last token, t)` gives token t and log-probs."""
    batch, pad = len(prompt.logits), model.pad

    def select(rows: _Rows, logits: Array, t: Int[Array, ""]) -> _Rows:
        token, log_prob = choose(logits.astype(jnp.float32), rows.token, t)
        paid = jnp.take_along_axis(log_prob, token[:, None], axis=-1)[:, 0]
        token = jnp.where(rows.done, pad, token).astype(jnp.int32)
        end = ~rows.done & (token == model.eos)
        return _Rows(
            text=rows.text.at[:, t].set(token),
            token=token,
            length=rows.length + ~(rows.done | end),
            total=rows.total + jnp.where(rows.done, 0.0, paid),
            done=rows.done | end,
        )

    rows = unroll(
        lambda rows, state: model.step(rows.token, state),
        select,
        size,
        _Rows(
            text=jnp.full((batch, size), pad, jnp.int32),
            token=jnp.full(batch, pad, jnp.int32),
            length=jnp.zeros(batch, jnp.int32),
            total=jnp.zeros(batch, jnp.float32),
            done=jnp.zeros(batch, bool),
        ),
        prompt.state,
        prompt.logits,
    )
    return Decoded(rows.text, rows.length, rows.total / (rows.length + rows.done))


@runtime_checkable
class Progress(Protocol):
    """What a search has found so far."""

    @property
    def done(self) -> Bool[Array, "B"]: ...


Carry = TypeVar("Carry", bound=Progress)


def unroll(
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


def check_max_tokens(max_tokens: int) -> None:
    """ValueError where a search may generate nothing."""
    if max_tokens < 1:
        raise ValueError(
            f"max_tokens is {max_tokens}; it must be at least 1, the end token counts"
        )
