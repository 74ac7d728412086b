"""The laws of the conversion engine: out is what came in, and nothing is left over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from git_jax.convert.table import CONVOLUTION, FLAT, Row, Table, linear

TABLE = Table(
    rows=(
        Row("conv.weight", "patches/kernel", CONVOLUTION),
        Row("layers.{}.q.weight", "layers/query/kernel", linear()),
        Row("layers.{}.q.bias", "layers/query/bias", FLAT),
        Row("layers.{}.out.weight", "layers/out/kernel", linear(2)),
        Row("both.weight", ("left/kernel", "right/kernel"), linear()),
        Row("norm.weight", "norm/scale"),
    ),
    ignored=(r"buffer\.\d+",),
)
DEPTH, D, H, K = 3, 6, 2, 3
OURS = {
    "patches": {"kernel": (4, 5, 3, D)},
    "layers": {
        "query": {"kernel": (DEPTH, D, H, K), "bias": (DEPTH, H, K)},
        "out": {"kernel": (DEPTH, H, K, D)},
    },
    "left": {"kernel": (D, 7)},
    "right": {"kernel": (D, 7)},
    "norm": {"scale": (D,)},
}
SHAPES = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
    OURS,
    is_leaf=lambda leaf: isinstance(leaf, tuple),
)


@pytest.fixture
def theirs():
    rng = np.random.default_rng(0)
    shapes = {"conv.weight": (D, 3, 4, 5), "both.weight": (14, D), "norm.weight": (D,)}
    for layer in range(DEPTH):
        shapes[f"layers.{layer}.q.weight"] = (H * K, D)
        shapes[f"layers.{layer}.q.bias"] = (H * K,)
        shapes[f"layers.{layer}.out.weight"] = (D, H * K)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def test_out_is_what_came_in(theirs):
    written = TABLE.write(TABLE.read(theirs, SHAPES, where="there"))
    assert written.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)


def test_the_same_function(theirs):
    """What came in computes what it did there."""
    ours = TABLE.read(theirs, SHAPES, where="there")
    rng = np.random.default_rng(1)
    x, mixed = rng.normal(size=(5, D)), rng.normal(size=(5, H, K))
    query = np.einsum("td,dhk->thk", x, ours["layers"]["query"]["kernel"][1])
    np.testing.assert_allclose(
        query.reshape(5, -1), x @ theirs["layers.1.q.weight"].T, rtol=1e-6
    )
    out = np.einsum("thk,hkd->td", mixed, ours["layers"]["out"]["kernel"][2])
    want = mixed.reshape(5, -1) @ theirs["layers.2.out.weight"].T
    np.testing.assert_allclose(out, want, rtol=1e-6)
    right = x @ ours["right"]["kernel"]
    np.testing.assert_allclose(right, (x @ theirs["both.weight"].T)[:, 7:], rtol=1e-6)


def test_below(theirs):
    table = TABLE.below("a.", "b/")
    given = {f"a.{name}": array for name, array in theirs.items()}
    given["a.buffer.7"] = np.zeros(3)
    ours = table.read(given, {"b": SHAPES}, where="there")
    given.pop("a.buffer.7")
    assert table.write(ours).keys() == given.keys()


def test_a_buffer_is_passed_over(theirs):
    TABLE.read(theirs | {"buffer.3": np.zeros(2)}, SHAPES, where="there")


def test_leftover(theirs):
    theirs["layers.3.q.bias"] = np.zeros(6)
    theirs["other"] = np.zeros(6)
    with pytest.raises(ValueError, match=r"there.*beside it layers\.3\.q\.bias, other"):
        TABLE.read(theirs, SHAPES, where="there")


def test_missing(theirs):
    del theirs["layers.1.q.bias"]
    with pytest.raises(ValueError, match=r"there.*lacks layers\.1\.q\.bias"):
        TABLE.read(theirs, SHAPES, where="there")


@pytest.mark.parametrize("name", ["layers.0.q.weight", "both.weight", "norm.weight"])
def test_another_size(theirs, name):
    theirs[name] = np.zeros((15, 5), np.float32)
    with pytest.raises(ValueError, match=rf"there: {name} has the shape \(15, 5\)"):
        TABLE.read(theirs, SHAPES, where="there")


def test_another_orientation_is_refused(theirs):
    """As many numbers in another shape are another array."""
    theirs["both.weight"] = np.zeros((D, 14), np.float32)
    with pytest.raises(ValueError, match=r"both.weight has the shape \(6, 14\)"):
        TABLE.read(theirs, SHAPES, where="there")


def test_a_model_that_the_table_does_not_know(theirs):
    more = SHAPES | {"more": {"bias": SHAPES["norm"]["scale"]}}
    with pytest.raises(AssertionError, match="more/bias"):
        TABLE.read(theirs, more, where="there")
