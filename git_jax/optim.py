"""The optimiser: AdamW with a rate per tower, a schedule, and what is left alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import optax
from jaxtyping import Array, Float

from git_jax import tree

# What weight decay acts on: matrices. Biases, norms, class tokens and positions keep
# their scale.
DECAYED = (r".*kernel(_\d+)?", r".*/word", r".*/output")


@dataclass(frozen=True)
class AdamW:
    """AdamW (1711.05101) behind a clip of the global norm.

    Args:
        peak: the learning rate at the end of the warm-up; 5e-5 for the decoder of the
            paper (section 4.1).
        rates: multiples of `peak`, by the beginning of a parameter's name; what is not
            named has 1. The paper's encoder : decoder is 1 : 5.
        warmup: steps of a linear rise from 0.
        schedule: what follows it: "cosine" to 0 at the last step, as published, or
            "constant".
        clip: largest global norm of the gradient; None does not clip.
        frozen: patterns of names of parameters that do not change. They have no
            moments, and no gradient is computed for them.
        ema: decay of an average of the parameters, which evaluation then uses; None
            keeps none.
        moments: type of the first moment; the second is float32.
    """

    peak: float = 5e-5
    rates: Mapping[str, float] = field(default_factory=lambda: {"encoder": 0.2})
    warmup: int = 500
    schedule: Literal["cosine", "constant"] = "cosine"
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip: float | None = 1.0
    frozen: tuple[str, ...] = ()
    ema: float | None = None
    moments: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.clip is not None and self.clip <= 0:
            raise ValueError(
                f"optimizer.clip={self.clip} must be above 0; none does not clip"
            )
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(
                f"optimizer.ema={self.ema} must be at least 0 and below 1; none keeps "
                f"no average"
            )
        if self.warmup < 0:
            raise ValueError(f"optimizer.warmup={self.warmup} must be at least 0")

    def learning_rate(self, steps: int) -> Callable[[Any], Float[Array, ""]]:
        """The rate of update number `step` (from 0) of a run of `steps`."""
        if self.warmup >= steps:
            raise ValueError(
                f"--config.optimizer.warmup={self.warmup} leaves nothing of "
                f"--config.steps={steps}: set the former below {steps}, or the latter "
                f"above {self.warmup}"
            )
        if self.schedule == "cosine":
            rest = optax.cosine_decay_schedule(self.peak, steps - self.warmup)
        else:
            rest = optax.constant_schedule(self.peak)
        # The first update already moves: rate 1/warmup of the peak, not 0.
        rise = optax.linear_schedule(
            self.peak / max(1, self.warmup), self.peak, max(1, self.warmup - 1)
        )
        return optax.join_schedules([rise, rest], [self.warmup])

    def transform(self, parameters: Any, steps: int) -> optax.GradientTransformation:
        """The chain for a tree of parameters (or their shapes)."""
        parts = [
            self._clip(),
            optax.scale_by_adam(self.b1, self.b2, self.epsilon, mu_dtype=self.moments),
            optax.add_decayed_weights(self.weight_decay, mask=_decayed),
            self._per_tower(parameters),
            optax.scale_by_learning_rate(self.learning_rate(steps)),
        ]
        if not self.frozen:
            return optax.chain(*parts)
        labels = jax.tree.map(
            lambda held: "frozen" if held else "trained",
            self._held(parameters),
        )
        return optax.partition(
            {"trained": optax.chain(*parts), "frozen": optax.set_to_zero()}, labels
        )

    def _clip(self) -> optax.GradientTransformation:
        if self.clip is None:
            return optax.identity()
        return optax.clip_by_global_norm(self.clip)

    def _held(self, parameters: Any) -> Any:
        """True at the parameters that do not change."""
        return tree.select(self.frozen, parameters, option="optimizer.frozen")

    def hold(self, parameters: Any) -> Any:
        """The parameters, with no gradient flowing to the frozen ones."""
        if not self.frozen:
            return parameters
        held = self._held(parameters)
        return jax.tree.map(
            lambda stop, leaf: jax.lax.stop_gradient(leaf) if stop else leaf,
            held,
            parameters,
        )

    def _per_tower(self, parameters: Any) -> optax.GradientTransformation:
        for pattern in self.rates:
            # Refuses a pattern that names nothing.
            tree.select((pattern,), parameters, option="optimizer.rates")

        def rate(name: str) -> float:
            found = [r for p, r in self.rates.items() if tree.matches(p, name)]
            return found[-1] if found else 1.0

        return optax.stateless(
            lambda updates, _: tree.map_named(
                lambda name, update: update * rate(name), updates
            )
        )


def _decayed(parameters: Any) -> Any:
    return tree.map_named(
        lambda name, _: any(tree.matches(p, name) for p in DECAYED), parameters
    )


def average(held: Any, parameters: Any, decay: float) -> Any:
    """One step of an exponential moving average of the parameters."""
    return jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), held, parameters)
