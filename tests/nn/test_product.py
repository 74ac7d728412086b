"""The product that all others are: what it sums in, what it rounds and when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from git_jax.nn.product import product
from git_jax.nn.transformer import kept

SIZES = dict(zip("abcdefghijklmnopqrstuvwxyz", [2, 3, 4, 5] * 7, strict=False))
# Of linear maps, patches and words; of attention between tokens and between channels.
SUBSCRIPTS = [
    "abc,cd->abd",
    "abc,cde->abde",
    "abcd,cde->abe",
    "bhpwqc,pqcd->bhwd",
    "abd,vd->abv",
    "bgthk,bshk->bghts",
    "bghts,bshk->bgthk",
    "bthk,bthc->bhkc",
    "bhkc,bthc->bthk",
]
every = pytest.mark.parametrize("subscripts", SUBSCRIPTS)


def whole(subscripts):
    """Operands and a cotangent of nine bits: one more than bfloat16 has, and such that
    float32 holds every sum here exactly, whatever its order."""
    rng = np.random.default_rng(0)
    for letters in subscripts.replace("->", ",").split(","):
        shape = [SIZES[letter] for letter in letters]
        yield rng.integers(-511, 512, shape).astype(np.float32)


def transposed(subscripts):
    """What gives the gradients of the left and of the right operand."""
    operands, result = subscripts.split("->")
    left, right = operands.split(",")
    return f"{result},{right}->{left}", f"{left},{result}->{right}"


def narrow(array):
    """An array rounded to bfloat16, in float32."""
    return np.asarray(array, jnp.bfloat16).astype(np.float32)


@every
def test_in_float32_it_is_einsum_forward_and_backward(subscripts):
    rng = np.random.default_rng(1)
    x, y, grad = (
        jnp.array(rng.normal(size=array.shape), jnp.float32)
        for array in whole(subscripts)
    )
    found, back = jax.vjp(lambda x, y: product(subscripts, x, y), x, y)
    want, plain = jax.vjp(lambda x, y: jnp.einsum(subscripts, x, y), x, y)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(back(grad), plain(grad), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


@every
def test_in_bfloat16_a_sum_is_rounded_once_and_a_kernels_gradient_never(subscripts):
    x, kernel, grad = whole(subscripts)
    found, back = jax.vjp(
        lambda x, kernel: product(subscripts, x, kernel),
        jnp.array(x, jnp.bfloat16),
        jnp.array(kernel),
    )
    to_x, to_kernel = back(jnp.array(grad, jnp.bfloat16))
    assert [found.dtype, to_x.dtype, to_kernel.dtype] == [
        jnp.bfloat16,
        jnp.bfloat16,
        jnp.float32,
    ]
    left, right = transposed(subscripts)
    exact = np.einsum(subscripts, narrow(x), narrow(kernel))
    np.testing.assert_array_equal(np.float32(found), narrow(exact))
    want = np.einsum(left, narrow(grad), narrow(kernel))
    np.testing.assert_array_equal(np.float32(to_x), narrow(want))
    want = np.einsum(right, narrow(x), narrow(grad))
    np.testing.assert_array_equal(to_kernel, want)
    assert (narrow(kernel) != kernel).any() and (narrow(want) != want).any()


def test_another_type_for_the_result_leaves_the_sum_as_it_is():
    """Its cotangent, float32 too, is rounded before it is multiplied."""
    subscripts = "abd,vd->abv"
    x, kernel, grad = whole(subscripts)
    found, back = jax.vjp(
        lambda x, kernel: product(subscripts, x, kernel, jnp.float32),
        jnp.array(x, jnp.bfloat16),
        jnp.array(kernel),
    )
    exact = np.einsum(subscripts, narrow(x), narrow(kernel))
    assert found.dtype == jnp.float32 and (narrow(exact) != exact).any()
    np.testing.assert_array_equal(found, exact)
    to_x, to_kernel = back(jnp.array(grad))
    left, right = transposed(subscripts)
    want = np.einsum(left, narrow(grad), narrow(kernel))
    assert to_x.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.float32(to_x), narrow(want))
    want = np.einsum(right, narrow(x), narrow(grad))
    np.testing.assert_array_equal(to_kernel, want)


def test_the_backward_pass_repeats_what_has_no_name_that_is_kept():
    """Two products, four in their gradients; the first is needed again behind both."""
    x = jnp.ones((2, 3))
    kernels = jnp.ones((3, 4)), jnp.ones((4, 3))

    def products(remat, name):
        def body(x, kernels):
            for kernel in kernels:
                x = product("td,dm->tm", x, kernel)
                x = jnp.sin(checkpoint_name(x, name))
            return x

        def total(x, kernels):
            return kept(body, remat)(x, kernels).sum()

        backward = jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))(x, kernels)
        return str(backward).count(" dot_general[")

    assert products(None, "dot") == products("dots", "dot") == 6
    assert products("full", "dot") == products("dots", "another") == 8
