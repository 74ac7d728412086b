"""Who sees whom. Boolean masks, true where a query may look at a key.

One idea gives every mask of this project: each token has a *level*, and a query sees a
key whose level is not greater than its own.

    image 0 0 0, text 1 2 3     GIT: image sees image, text sees image and earlier text
    0 0 0 0                     bidirectional, an image encoder or BERT
    0 0 0 0 1 2                 a prefix language model
    1 2 3                       causal, GPT
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def git_levels(image: int, text: int) -> Int[Array, " L"]:
    """Levels of `image` image tokens followed by `text` text tokens.

    `git_levels(3, 2)` is `[0 0 0 1 2]`.
    """
    return jnp.concatenate([jnp.zeros(image, jnp.int32), 1 + jnp.arange(text)])


def from_levels(
    level: Int[Array, "#B L"],
    valid: Bool[Array, "#B L"] | None = None,
    segment: Int[Array, "#B L"] | None = None,
) -> Bool[Array, "B 1 L L"]:
    """The square mask of a level per token; `B` may be 1 and is broadcast.

    Levels `0 0 1 2` (two image tokens, two text tokens) give, a row for each query:

        1 1 0 0
        1 1 0 0
        1 1 1 0
        1 1 1 1

    Args:
        level: a query sees the keys whose level is at most its own.
        valid: false on padding, which no token sees.
        segment: tokens of different segments do not see each other (packing).
    """
    seen = level[:, :, None] >= level[:, None, :]
    if segment is not None:
        seen &= segment[:, :, None] == segment[:, None, :]
    if valid is not None:
        seen &= valid[:, None, :]
    return seen[:, None]


def causal(length: int) -> Bool[Array, "1 1 T T"]:
    """The mask of levels `0 1 2 ...`: a token sees itself and what came before."""
    return from_levels(jnp.arange(length)[None])
