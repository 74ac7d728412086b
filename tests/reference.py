"""What tests against live references share: their weights and their gradients."""

import jax
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
