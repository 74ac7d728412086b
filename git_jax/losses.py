"""Losses: pure functions of a batch and of a model's named outputs.

| output | shape | given by |
|---|---|---|
| `text` | f[R T D], the decoder's vectors at the text | Git |
| `head` | kernel [V D] and bias [V] | Git |

A loss is a *sum* over what it is paid on and a *weight* that depends on the batch
alone, so that any split into microbatches gives the gradient of the whole batch:
`sum over microbatches of total / weight of the whole`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from git_jax.nn import embed

Scalar = Float[Array, ""]


@runtime_checkable
class Loss(Protocol):
    """What the training step asks of a loss."""

    def weight(self, batch: Mapping[str, Array]) -> Scalar:
        """What `total` is divided by to give a mean."""
        ...

    def total(
        self, outputs: Mapping[str, Any], batch: Mapping[str, Array]
    ) -> dict[str, Scalar]:
        """Sums to be divided by the weight: `loss`, and others to be reported."""
        ...


@dataclass(frozen=True)
class Caption:
    """Next-token cross-entropy on the paid tokens, the one loss of GIT (equation 1).

    Label smoothing gives the target `1 - s` and every other word `s / (V - 1)`.
    `form="kl"` is the released loss, the divergence from that distribution: the
    cross-entropy less the distribution's entropy, a constant (1.3577 for s = 0.1 and
    V = 30,522), so that the two have the same gradient.
    """

    smoothing: float = 0.1
    form: Literal["cross_entropy", "kl"] = "cross_entropy"

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing={self.smoothing} must be in [0, 1)")

    def weight(self, batch: Mapping[str, Array]) -> Scalar:
        return batch["target"][:, 1:].sum().astype(jnp.float32)

    def total(
        self, outputs: Mapping[str, Any], batch: Mapping[str, Array]
    ) -> dict[str, Scalar]:
        # Position t is read to predict token t + 1.
        logits = embed.logits(outputs["text"][:, :-1], outputs["head"])
        tokens, paid = batch["tokens"][:, 1:], batch["target"][:, 1:]
        each = smoothed_cross_entropy(logits, tokens, self.smoothing)
        if self.form == "kl":
            each -= smoothing_entropy(self.smoothing, logits.shape[-1])
        right = logits.argmax(axis=-1) == tokens
        return {
            "loss": jnp.where(paid, each, 0).sum(),
            "accuracy": (right & paid).sum().astype(jnp.float32),
        }


def smoothed_cross_entropy(
    logits: Float[Array, "... V"], target: Int[Array, "..."], smoothing: float
) -> Float[Array, "..."]:
    """Cross-entropy against `1 - s` on the target and `s / (V - 1)` on each other word.

    With the logits `[2 0 0]`, target 0 and no smoothing: `log(e^2 + 2) - 2`.
    """
    other = smoothing / (logits.shape[-1] - 1)
    norm = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    if smoothing == 0:
        return norm - picked
    # The weights of the distribution sum to one, so the normaliser comes in once.
    return norm - (1 - smoothing - other) * picked - other * logits.sum(axis=-1)


def smoothing_entropy(smoothing: float, vocabulary: int) -> Scalar:
    """Entropy, in nats, of the smoothed target distribution."""
    other = smoothing / (vocabulary - 1)
    parts = jnp.array([1 - smoothing] + [other] * (smoothing > 0))
    count = jnp.array([1] + [vocabulary - 1] * (smoothing > 0))
    return -(count * parts * jnp.log(parts)).sum()


def total(
    parts: Mapping[str, Loss],
    outputs: Mapping[str, Any],
    batch: Mapping[str, Array],
    weights: Mapping[str, Scalar],
) -> tuple[Scalar, dict[str, Scalar]]:
    """The sum of the means of all losses, and each one's metrics under its name.

    `weights` are those of the whole batch, of which this one may be a part.
    """
    metrics = {
        f"{name}_{key}": value / jnp.maximum(weights[name], 1)
        for name, loss in parts.items()
        for key, value in loss.total(outputs, batch).items()
    }
    mean = sum((metrics[f"{name}_loss"] for name in parts), start=jnp.float32(0))
    return mean, {"loss": mean} | metrics
