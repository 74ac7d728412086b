"""What tests against live references share: their weights and their gradients."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from git_jax import tree

torch = pytest.importorskip("torch", reason="requirements-parity.txt is not installed")


def drawn(module, seed):
    """Every parameter drawn anew, small enough that activations keep their size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            matrix = parameter.dim() > 1 and "embed" not in name
            scale = parameter[0].numel() ** -0.5 if matrix else 0.3
            gain = "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(gain + scale * noise)
    return module


def assert_same_gradients(found, want, zero="attention/key/bias"):
    """Within 1e-4 of each array's norm.

    Key biases move every score of a query alike: their gradient is truly zero, and both
    sides must find it below 1e-6 of the whole. `zero` is how their names end.
    """
    norm = np.linalg.norm
    whole = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(found)))
    for key, here, there in zip(
        tree.names(found), *map(jax.tree.leaves, (found, want)), strict=True
    ):
        if key.endswith(zero):
            assert norm(here) < 1e-6 * whole, key
            assert norm(there) < 1e-6 * whole, key
        else:
            assert norm(there) > 0, key
            assert norm(here - there) < 1e-4 * norm(there), key


def assert_same_arrays(found, want):
    """Under the same names, to the bit."""
    assert found.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


class Pair(NamedTuple):
    """An encoder there and the same one here."""

    there: Any
    model: Any
    table: Any
    theirs: dict[str, np.ndarray]
    params: Any

    @classmethod
    def of(cls, there, model, table):
        frames = jnp.zeros((1, 1, 32, 32, 3))
        shapes = jax.eval_shape(model.init, jax.random.key(0), frames)["params"]
        theirs = {k: v.detach().numpy() for k, v in there.state_dict().items()}
        params = table.read(theirs, shapes, where="there")
        return cls(there, model, table, theirs, params)


def pictures(size):
    """Two of them, and as torch has them."""
    drawn = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    return jnp.array(drawn), torch.tensor(drawn).permute(0, 3, 1, 2)


@functools.partial(jax.jit, static_argnums=0)
def _tokens_and_gradients(model, params, pixels, weights):
    """Tokens, and the gradients of their sum under weights."""

    def weighted(params):
        tokens = model.apply({"params": params}, pixels[:, None])[:, 0]
        return (tokens * weights).sum(), tokens

    gradients, tokens = jax.grad(weighted, has_aux=True)(params)
    return tokens, gradients


def assert_same_encoder(pair, pixels, want, **zero):
    """Tokens are `want`, which `pair.there` made of the pixels; so are gradients."""
    pair.there.zero_grad()
    weights = np.random.default_rng(2).normal(size=want.shape).astype(np.float32)
    (want * torch.tensor(weights)).sum().backward()
    given = pair.model, pair.params, pixels, weights
    tokens, gradients = _tokens_and_gradients(*given)
    want = want.detach().numpy()
    assert np.ptp(want) > 1  # or equality would mean little
    np.testing.assert_allclose(tokens, want, atol=1e-4, rtol=0)
    found = {name: value.grad.numpy() for name, value in pair.there.named_parameters()}
    there = pair.table.read(found, pair.params, where="gradients")
    assert_same_gradients(gradients, there, **zero)
