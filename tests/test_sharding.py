"""Where arrays lie: the mesh, the table, and what neither can do is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from git_jax import sharding, tree
from git_jax.config import build, spec
from git_jax.losses import Caption
from git_jax.models.git import Git
from git_jax.nn.embed import TextEmbed
from git_jax.nn.transformer import Stack
from git_jax.optim import AdamW
from git_jax.sharding import Layout
from git_jax.train import Program, init_state
from git_jax.vision.vit import ViT
from tests import tiny


def shapes(program, size, length):
    """The whole state, as shapes: parameters, moments and average."""
    batch = {
        "frames": jax.ShapeDtypeStruct((2, 1, size, size, 3), jnp.uint8),
        "tokens": jax.ShapeDtypeStruct((2, length), jnp.int32),
    }
    return jax.eval_shape(lambda: init_state(program, batch))


def base(**changes):
    """GIT_B at its published size, with every parameter that an option adds."""
    return Program(
        model=Git(
            encoder=ViT(patch_bias=True, stem=(24, 48)),
            embed=TextEmbed(vocabulary=30522, tied=False),
            decoder=Stack(norm="post", final_norm=True),
            frames=6,
        ),
        losses={"caption": Caption()},
        optimizer=AdamW(ema=0.999, **changes),
        steps=1000,
    )


@pytest.mark.parametrize(
    "make, layout",
    [
        (lambda: shapes(Program.of(tiny.scenes()), 32, 40), Layout(2, 2, 2)),
        (lambda: shapes(base(), 224, 40), Layout(1, 4, 2)),
        (lambda: shapes(base(frozen=("encoder",)), 224, 40), Layout(2, 2, 2)),
    ],
    ids=["tiny", "GIT_B", "GIT_B, frozen"],
)
def test_every_array_of_the_state_has_its_place(make, layout):
    state, mesh = make(), layout.mesh()
    placed = sharding.parameters(state, mesh)
    wide = 0
    for name, shape, place in zip(
        tree.names(state), *map(jax.tree.leaves, (state, placed)), strict=True
    ):
        part = place.shard_shape(shape.shape)  # refuses what does not divide
        if name.endswith("kernel"):
            # Matrices are split by fsdp and most by tensor, too.
            assert np.prod(shape.shape) >= layout.fsdp * np.prod(part), name
            wide += np.prod(shape.shape) == mesh.size / layout.data * np.prod(part)
    assert wide


def test_git_b_is_of_its_published_size():
    """The released configuration: tied head, no class-token options of others."""
    model = Git(
        encoder=ViT(), embed=TextEmbed(), decoder=Stack(norm="post", epsilon=1e-12)
    )
    program = Program(model, {"caption": Caption()}, AdamW(), 1000)
    params = shapes(program, 224, 40).params
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == 153_178_170


def test_moments_and_average_lie_where_their_parameters_do():
    program = Program.of(tiny.scenes())
    placed = sharding.parameters(shapes(program, 32, 40), Layout(2, 2, 2).mesh())
    assert jax.tree.leaves(placed.average) == jax.tree.leaves(placed.params)
    params = dict(
        zip(tree.names(placed.params), jax.tree.leaves(placed.params), strict=True)
    )
    moments = zip(
        tree.names(placed.opt_state), jax.tree.leaves(placed.opt_state), strict=True
    )
    held = [
        (place, params[name.partition(f"/{kind}/")[2]])
        for name, place in moments
        for kind in ("mu", "nu")
        if f"/{kind}/" in name
    ]
    assert len(held) == 2 * len(params)
    assert all(place == params_place for place, params_place in held)


def test_an_axis_that_does_not_divide_a_dimension_is_refused_by_name():
    state = shapes(Program.of(tiny.scenes()), 32, 40)
    with pytest.raises(
        ValueError, match=r"mesh.tensor=4 .* H of .*/key/.* is 2; tensor can be 1, 2"
    ):
        sharding.parameters(state, Layout(2, 1, 4).mesh())
    config = tiny.scenes()
    config.model.encoder.update(width=20, mlp=32)
    state = shapes(Program.of(config), 32, 40)
    with pytest.raises(
        ValueError, match=r"mesh.fsdp=8 .* D of encoder/.* is 20; fsdp can be 1, 2, 4"
    ):
        sharding.parameters(state.params, Layout(1, 8, 1).mesh())


def test_a_parameter_without_a_rule_is_refused_by_name():
    mesh = Layout(8).mesh()
    with pytest.raises(ValueError, match="no rule .* matches params/head/weight; add"):
        sharding.parameters({"params": {"head": {"weight": jnp.zeros((2, 2))}}}, mesh)
    with pytest.raises(ValueError, match="'V D' to embed/word, which has 3 dim"):
        sharding.parameters({"embed": {"word": jnp.zeros((2, 2, 2))}}, mesh)


@pytest.mark.parametrize(
    "layout, shape",
    [
        (Layout(), (8, 1, 1)),
        (Layout(2, 2, 2), (2, 2, 2)),
        (Layout(None, 2, 2), (2, 2, 2)),
        (Layout(1, None, 2), (1, 4, 2)),
        (Layout(4, 2, None), (4, 2, 1)),
    ],
)
def test_the_free_axis_takes_what_is_left(layout, shape):
    mesh = layout.mesh()
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.devices.shape == shape
    assert sharding.row_ways(mesh) == shape[0] * shape[1]


@pytest.mark.parametrize(
    "layout, message",
    [
        (Layout(3), "data 3 x fsdp 1 x tensor 1 does not fill 8 devices.*none"),
        (Layout(None, 3), r"data \? x fsdp 3 x tensor 1 does not fill 8"),
        (Layout(1, 1, 1), "does not fill 8 devices"),
        (Layout(4, 4, 1), "does not fill 8 devices"),
        (Layout(None, None), "only one axis .* data and fsdp"),
        (Layout(0), "at least 1"),
        (Layout(-1), "at least 1"),
    ],
)
def test_a_mesh_that_does_not_fill_the_devices_is_refused(layout, message):
    with pytest.raises(ValueError, match=f"mesh: .*{message}"):
        layout.mesh()


def test_a_layout_of_a_config_reaches_the_mesh():
    assert build(spec(Layout, fsdp=4)).mesh().devices.shape == (2, 4, 1)


@pytest.mark.parametrize(
    "layout, devices, shape",
    [
        (Layout(2, 2, 2), 4, (1, 2, 2)),
        (Layout(2, 2, 2), 8, (2, 2, 2)),
        (Layout(2, 2, 2), 1, (1, 1, 1)),
        (Layout(1, 4, 2), 6, (3, 1, 2)),
        (Layout(1, None, 2), 8, (1, 4, 2)),
    ],
)
def test_a_layout_is_fitted_to_fewer_devices(layout, devices, shape):
    mesh = layout.fitted(devices).mesh(jax.devices()[:devices])
    assert mesh.devices.shape == shape


def test_activations_are_placed_inside_a_mesh_and_left_alone_outside():
    x = jnp.zeros((4, 6, 8))
    assert sharding.constrain(x, "B T D") is x
    mesh = Layout(2, 2, 2).mesh()
    placed = jax.jit(lambda x: sharding.constrain(x, "B T M"))
    with jax.set_mesh(mesh):
        assert placed(x).sharding.spec == PartitionSpec(
            ("data", "fsdp"), None, "tensor"
        )
        # D is split in parameters only, and one row cannot be split.
        whole = jax.jit(lambda x: sharding.constrain(x, "B T D"))(x)
        assert whole.sharding.spec == PartitionSpec(("data", "fsdp"))
        assert placed(x[:1]).sharding.is_fully_replicated
