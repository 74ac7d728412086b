"""Products of arrays in the type of activations, summed in float32.

Every matrix product of the models is one of these. Compilers have fast units for
products of bfloat16 whose sum is float32, forward and backward; a product that asks for
a sum of bfloat16 is done in float32 and rounded, on a CPU at a seventh of the speed.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def product(
    subscripts: str,
    x: Float[Array, "..."],
    y: Float[Array, "..."],
    out: Any = None,
) -> Float[Array, "..."]:
    """`einsum(subscripts, x, y)` with both in the type of `x`, summed in float32.

    `product("td,dm->tm", x, kernel)` of x in bfloat16 and a kernel in float32 is in
    bfloat16; the gradient of each operand is in that operand's own type, so that a
    kernel's is not rounded. `out` is another type for the result. No letter may stand
    in one operand alone. It has a backward pass and no forward-mode derivative, and a
    policy of `jax.checkpoint` sees it by a name alone, as `Linear` gives it.
    """
    wide = jnp.einsum(
        subscripts, x, y.astype(x.dtype), preferred_element_type=jnp.float32
    )
    return wide.astype(x.dtype if out is None else out)


def _forward(
    subscripts: str, x: Array, y: Array, out: Any
) -> tuple[Array, tuple[Array, Array]]:
    return product(subscripts, x, y, out), (x, y)


def _backward(
    subscripts: str, out: Any, held: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    x, y = held
    operands, result = subscripts.split("->")
    left, right = operands.split(",")
    grad = grad.astype(x.dtype)
    return (
        product(f"{result},{right}->{left}", grad, y),
        product(f"{left},{result}->{right}", x, grad, y.dtype),
    )


product.defvjp(_forward, _backward)
