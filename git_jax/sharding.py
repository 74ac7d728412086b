"""The mesh, and the one table that says which dimension lies on which of its axes.

Model code names dimensions by the letters of the project and never names a mesh axis.
A parameter that no rule matches is an error, and so is a dimension that its axis does
not divide: nothing is replicated in silence.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from git_jax import tree

AXES = ("data", "fsdp", "tensor")

# Letter -> mesh axes. What is not listed is not split.
PLACEMENT: dict[str, tuple[str, ...]] = {
    "B": ("data", "fsdp"),  # rows of a batch
    "D": ("fsdp",),  # width, of parameters
    "H": ("tensor",),  # attention heads
    "M": ("tensor",),  # width inside an MLP
    "V": ("tensor",),  # vocabulary
}

# Name of a parameter, from its end -> letters of its dimensions. `_` is not split;
# a leading `layers` dimension, where there is one, is never split.
PARAMETERS: tuple[tuple[str, str], ...] = (
    (r"attention/(query|key|value)/kernel", "D H K"),
    (r"attention/(query|key|value)/bias", "H K"),
    (r"attention/out/kernel", "H K D"),
    (r"ffn/up/kernel", "D M"),
    (r"ffn/up/bias", "M"),
    (r"ffn/down/kernel", "M D"),
    (r"(project|reduce)/kernel", "_ D"),
    (r"(patches|convolve)/kernel", "_ _ _ D"),
    (r"stem_block/kernel_\d+", "_ _ _ D"),
    (r"embed/(word|output)", "V D"),
    (r"embed/output_bias", "V"),
    (r"[a-z]+_position/kernel", "_ _ _ D"),
    (r"position", "_ D"),
    (r"relative", "_ H"),
    (r"temporal", "_ D"),
    (r"cls", "_"),
    (r"(ffn/down|attention/out|project|patches|convolve|[a-z]+_position)/bias", "_"),
    (r"norm[a-z_0-9]*/(scale|bias)|[a-z]+_norm/(scale|bias)", "_"),
)


@dataclass(frozen=True)
class Layout:
    """How many devices lie along each axis of the mesh; None takes what is left.

    Args:
        data: copies of the parameters, each with its own rows of the batch.
        fsdp: rows of the batch again, the parameters split between them.
        tensor: heads, MLP width and vocabulary split.
    """

    data: int | None = None
    fsdp: int | None = 1
    tensor: int | None = 1

    def mesh(self, devices: list[Any] | None = None) -> Mesh:
        """The mesh over the given devices, by default all there are.

        Raises:
            ValueError: the axes do not multiply to the number of devices.
        """
        found = jax.devices() if devices is None else devices
        shape = {axis: getattr(self, axis) for axis in AXES}
        free = [axis for axis in AXES if shape[axis] is None]
        fixed = math.prod(size for size in shape.values() if size is not None)
        if len(free) > 1:
            raise ValueError(
                f"mesh: only one axis can take what is left, not {' and '.join(free)}"
            )
        if any(size is not None and size < 1 for size in shape.values()):
            raise ValueError(f"mesh: sizes are at least 1, got {shape}")
        if len(found) % fixed or (not free and len(found) != fixed):
            written = " x ".join(f"{axis} {shape[axis] or '?'}" for axis in AXES)
            raise ValueError(
                f"mesh: {written} does not fill {len(found)} devices; the sizes must "
                f"multiply to {len(found)}, or leave one axis none"
            )
        for axis in free:
            shape[axis] = len(found) // fixed
        grid = np.array(found).reshape([shape[axis] for axis in AXES])
        # Linen's modules work with automatic axes; jax.make_mesh makes explicit ones.
        return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))

    def fitted(self, devices: int) -> "Layout":
        """The same layout on another number of devices, for using what it trained.

        `fsdp` and `tensor` keep what divides the number and `data` takes the rest:
        data 2, fsdp 2, tensor 2 on four devices is data 1, fsdp 2, tensor 2. An axis
        only ever shrinks to a divisor, so it divides what it divided before.
        """
        tensor = math.gcd(self.tensor or devices, devices)
        fsdp = math.gcd(self.fsdp or devices, devices // tensor)
        return replace(self, data=None, fsdp=fsdp, tensor=tensor)


def constrain(x: jax.Array, letters: str) -> jax.Array:
    """Tells the compiler where the dimensions of an activation lie, inside a mesh.

    Widths of activations are whole on every device: `D` is split in parameters only.
    An array too small to be split, as the one row with which a layer is initialised, is
    left to the compiler.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    whole = {**PLACEMENT, "D": ()}
    axes = [whole.get(letter, ()) for letter in letters.split()]
    for size, split in zip(x.shape, axes, strict=True):
        if size % math.prod(mesh.shape[axis] for axis in split):
            return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


def rows(mesh: Mesh) -> NamedSharding:
    """Where the leading dimension of everything in a batch lies."""
    return NamedSharding(mesh, PartitionSpec(PLACEMENT["B"]))


def row_ways(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in PLACEMENT["B"])


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def parameters(shapes: Any, mesh: Mesh) -> Any:
    """A sharding for every array of a tree of parameters, or one that holds them.

    Optimiser moments and averages are trees whose names end as the parameters' do, so
    the same table places them. Scalars are replicated.

    Raises:
        ValueError: no rule matches a name, or an axis does not divide a dimension.
    """

    def place(name: str, leaf: Any) -> NamedSharding:
        if leaf.ndim == 0:
            return replicated(mesh)
        letters = _letters(name, leaf.ndim)
        spec = [PLACEMENT.get(letter) for letter in letters]
        for letter, axes, size in zip(letters, spec, leaf.shape, strict=True):
            _check_divides(name, letter, axes, size, mesh)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return tree.map_named(place, shapes)


def placed(shapes: Any, mesh: Mesh) -> Any:
    """The shapes of a tree, each with its place on the mesh, for restoring into."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        shapes,
        parameters(shapes, mesh),
    )


def _letters(name: str, rank: int) -> list[str]:
    for pattern, letters in PARAMETERS:
        if re.search(rf"(?:^|/)(?:{pattern})$", name):
            split = letters.split()
            split = ["_"] * ("/layers/" in f"/{name}") + split
            if len(split) != rank:
                raise ValueError(
                    f"sharding: the rule {pattern!r} gives {letters!r} to {name}, "
                    f"which has {rank} dimensions"
                )
            return split
    raise ValueError(
        f"sharding: no rule of git_jax.sharding.PARAMETERS matches {name}; add one"
    )


def _check_divides(
    name: str, letter: str, axes: tuple[str, ...] | None, size: int, mesh: Mesh
) -> None:
    for axis in axes or ():
        if size % mesh.shape[axis]:
            fits = [n for n in range(1, mesh.size + 1) if size % n == 0]
            raise ValueError(
                f"mesh.{axis}={mesh.shape[axis]} does not divide dimension {letter} of "
                f"{name}, which is {size}; {axis} can be {', '.join(map(str, fits))}"
            )
