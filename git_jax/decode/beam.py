"""Beam search: several texts of a picture at once, and the best of them.

`Beam` keeps R = B * beams rows, the beams of one picture side by side, and first calls
`gather(state, [0 0 0 1 1 1 ...])` to get them. From then on a row is only ever replaced
by a row of its own picture, so a state may hold what depends on the picture alone (keys
and values of the image) once a picture, shared by its beams, and `gather` may leave
that part as it is. A `gather` that takes `rows % beams` inside each picture, not `rows`
of all, also keeps a batch that is split over devices where it is.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from git_jax.decode.search import (
    Decoded,
    LanguageModel,
    Prompt,
    State,
    check_max_tokens,
    unroll,
)


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
        check_max_tokens(self.max_tokens)
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
        self, model: LanguageModel, prompt: Prompt, key: Array | None = None
    ) -> Decoded:
        """Raises ValueError with a vocabulary of fewer than two tokens."""
        batch, vocabulary = prompt.logits.shape
        if vocabulary < 2:
            raise ValueError(
                f"the vocabulary has {vocabulary} token; a beam search needs at least "
                "2, the end token and one more"
            )

        def feed(beams: _Beams, state: State) -> tuple[Array, State]:
            rows = jnp.arange(batch)[:, None] * self.beams + beams.parent
            return model.step(beams.token.ravel(), model.gather(state, rows.ravel()))

        def select(beams: _Beams, logits: Array, t: Int[Array, ""]) -> _Beams:
            return self._select(beams, logits, t, prompt.length, model.eos)

        beams = unroll(
            feed,
            select,
            self.max_tokens,
            self._start(batch, model.pad),
            model.gather(prompt.state, jnp.repeat(jnp.arange(batch), self.beams)),
            jnp.repeat(prompt.logits, self.beams, axis=0),
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


def _pick(values: Array, beams: Int[Array, "B K"]) -> Array:
    """[B L ...], [B K] -> [B K ...]: for each picture the named ones of its own."""
    beams = beams.reshape(*beams.shape, *[1] * (values.ndim - 2))
    return jnp.take_along_axis(values, beams, axis=1)
