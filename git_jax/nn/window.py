"""Windows of a map: cut it up, so that attention stays within each, and join it again.

A map of 3 x 5 in windows of 2: `.` are zeros, which attention sees as it does tokens.

    a b c d e        a b  c d  e .
    f g h i j        f g  h i  j .
    k l m n o
                     k l  m n  o .
                     . .  . .  . .
"""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def fill(x: Shaped[Array, "B h w D"], side: int) -> Shaped[Array, "B h2 w2 D"]:
    """Zeros at the right and at the bottom, up to multiples of `side`."""
    _, high, wide, _ = x.shape
    return jnp.pad(x, ((0, 0), (0, -high % side), (0, -wide % side), (0, 0)))


def cut(x: Shaped[Array, "B h w D"], side: int) -> Shaped[Array, "r T D"]:
    """The windows of a map of any size, `T = side * side`: rows of windows first."""
    x = fill(x, side)
    rows, high, wide, width = x.shape
    x = x.reshape(rows, high // side, side, wide // side, side, width)
    return x.swapaxes(2, 3).reshape(-1, side * side, width)


def join(x: Shaped[Array, "r T D"], high: int, wide: int) -> Shaped[Array, "B h w D"]:
    """The inverse of `cut`: the map of `high` by `wide` that the windows were."""
    side = round(x.shape[1] ** 0.5)
    down, across = -(-high // side), -(-wide // side)
    x = x.reshape(-1, down, across, side, side, x.shape[-1]).swapaxes(2, 3)
    return x.reshape(-1, down * side, across * side, x.shape[-1])[:, :high, :wide]
