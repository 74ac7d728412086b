"""The engine: foreign weights arrive, and leave, by a table of names.

A table has a row for each array of theirs: its name, what it is called here, and the
form in which it lies there.

    Row("fc.weight", "ffn/up/kernel", linear())             [out in] -> [in out]
    Row("layers.{}.norm.bias", "layers/norm/bias")          one a layer -> stacked
    Row("in_proj_weight", ("query/kernel", "key/kernel", "value/kernel"), linear())
                                                            one array -> its three parts

The same rows serve both ways, so that what goes out is what came in, to the bit. What a
table does not name is an error on either side that lists it.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from git_jax import tree

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """How an array lies there. `read` is given the shape that it has here."""

    read: Callable[[np.ndarray, Shape], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


SAME = Form(lambda array, _: array, lambda array: array)

# A convolution, [out in h w] in torch, and [h w in out] here.
CONVOLUTION = Form(
    lambda array, _: array.transpose(2, 3, 1, 0),
    lambda array: array.transpose(3, 2, 0, 1),
)

# A vector whose dimensions are told apart here, as a bias by heads, `[H K]`.
FLAT = Form(lambda array, shape: array.reshape(shape), lambda array: array.reshape(-1))


def boxed(dimensions: int) -> Form:
    """An array that has `dimensions` dimensions of one in front, there."""
    return Form(
        lambda array, shape: array.reshape(shape),
        lambda array: array.reshape((1,) * dimensions + array.shape),
    )


def linear(inputs: int = 1) -> Form:
    """torch's Linear, `[out in]`, whose first `inputs` dimensions here are its input.

    `linear()` makes a query kernel `[D H K]` of `[H*K D]`, `linear(2)` an output kernel
    `[H K D]` of `[D H*K]`.
    """

    def read(array: np.ndarray, shape: Shape) -> np.ndarray:
        return array.T.reshape(shape)

    def write(array: np.ndarray) -> np.ndarray:
        return array.reshape(math.prod(array.shape[:inputs]), -1).T

    return Form(read, write)


@dataclass(frozen=True)
class Row:
    """One array of theirs, or one of each layer, and the array or arrays made of it.

    Args:
        theirs: its name; `{}` is the number of the layer, and what it is called here
            then has a dimension of layers in front.
        ours: its name here. Several names are the parts that it is split into, equal
            ones along its first dimension there.
    """

    theirs: str
    ours: str | tuple[str, ...]
    form: Form = SAME

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.ours,) if isinstance(self.ours, str) else self.ours


def dense(theirs: str, ours: str, *, inputs: int = 1) -> list[Row]:
    """Kernel and bias of a linear map."""
    return [
        Row(f"{theirs}.weight", f"{ours}/kernel", linear(inputs)),
        Row(f"{theirs}.bias", f"{ours}/bias", FLAT),
    ]


def norm(theirs: str, ours: str) -> list[Row]:
    """Scale and bias of a LayerNorm."""
    return [
        Row(f"{theirs}.weight", f"{ours}/scale"),
        Row(f"{theirs}.bias", f"{ours}/bias"),
    ]


def layers(
    theirs: str,
    ours: str,
    *,
    query: str = "",
    key: str = "",
    value: str = "",
    joined: str = "",
    out: str,
    attention_norm: str,
    up: str,
    down: str,
    ffn_norm: str,
) -> list[Row]:
    """A transformer's layers, from what its parts are called there, below `theirs`.

    Where query, key and value lie in one array, `joined` is the beginning of its name.
    """
    heads = ("attention/query", "attention/key", "attention/value")
    if joined:
        kernels = tuple(f"{ours}{head}/kernel" for head in heads)
        biases = tuple(f"{ours}{head}/bias" for head in heads)
        rows = [
            Row(f"{theirs}{joined}weight", kernels, linear()),
            Row(f"{theirs}{joined}bias", biases, FLAT),
        ]
    else:
        rows = [
            row
            for name, head in zip((query, key, value), heads, strict=True)
            for row in dense(theirs + name, ours + head)
        ]
    return [
        *rows,
        *dense(theirs + out, f"{ours}attention/out", inputs=2),
        *norm(theirs + attention_norm, f"{ours}attention_norm"),
        *dense(theirs + up, f"{ours}ffn/up"),
        *dense(theirs + down, f"{ours}ffn/down"),
        *norm(theirs + ffn_norm, f"{ours}ffn_norm"),
    ]


@dataclass(frozen=True)
class Table:
    """All rows of a model, and what of theirs has no place here.

    Args:
        ignored: regular expressions for names that are passed over when weights come
            in: buffers that follow from the config, towers of another model.
    """

    rows: tuple[Row, ...]
    ignored: tuple[str, ...] = ()

    def below(self, theirs: str, ours: str) -> "Table":
        """The same table, for a model that is part of a larger one.

        `below("vision_model.", "encoder/")` puts both before the names.
        """
        rows = tuple(
            Row(theirs + row.theirs, tuple(ours + part for part in row.parts), row.form)
            for row in self.rows
        )
        return Table(rows, tuple(re.escape(theirs) + name for name in self.ignored))

    def read(self, theirs: Mapping[str, np.ndarray], ours: Any, *, where: str) -> Any:
        """Parameters of the shapes of `ours`, made of what was found in `where`.

        Raises:
            ValueError: naming what is missing, what is left over, or an array of
                another shape.
        """
        wanted = dict(zip(tree.names(ours), jax.tree.leaves(ours), strict=True))
        self._require_complete(wanted)
        depths = {row: self._depth(row, wanted) for row in self.rows}
        names = {name for row in self.rows for name in _each(row.theirs, depths[row])}
        _refuse_leftover(theirs, names, self.ignored, where)
        read: dict[str, np.ndarray] = {}
        for row in self.rows:
            shapes = [tuple(wanted[part].shape) for part in row.parts]
            if "{}" not in row.theirs:
                made = _read(row, theirs[row.theirs], shapes, row.theirs, where)
            else:
                layers = [
                    _read(row, theirs[name], [s[1:] for s in shapes], name, where)
                    for name in _each(row.theirs, depths[row])
                ]
                made = [np.stack(parts) for parts in zip(*layers, strict=True)]
            read |= dict(zip(row.parts, made, strict=True))
        return tree.map_named(
            lambda name, leaf: read[name].astype(leaf.dtype, copy=False), ours
        )

    def write(self, ours: Any) -> dict[str, np.ndarray]:
        """The inverse of `read`: arrays by their names there."""
        held = dict(zip(tree.names(ours), jax.tree.leaves(ours), strict=True))
        self._require_complete(held)
        written: dict[str, np.ndarray] = {}
        for row in self.rows:
            parts = [np.asarray(held[part]) for part in row.parts]
            if "{}" not in row.theirs:
                written[row.theirs] = _write(row.form, parts)
                continue
            for layer, name in enumerate(_each(row.theirs, self._depth(row, held))):
                written[name] = _write(row.form, [part[layer] for part in parts])
        return written

    def _require_complete(self, ours: Mapping[str, Any]) -> None:
        named = [part for row in self.rows for part in row.parts]
        assert len(set(named)) == len(named), "two rows make one array"
        differ = set(named) ^ ours.keys()
        assert not differ, f"the table and the model differ by {sorted(differ)}"

    def _depth(self, row: Row, ours: Mapping[str, Any]) -> int:
        return ours[row.parts[0]].shape[0]


def _each(name: str, depth: int) -> list[str]:
    return [name.format(i) for i in range(depth)] if "{}" in name else [name]


def _read(
    row: Row, array: np.ndarray, shapes: list[Shape], name: str, where: str
) -> list[np.ndarray]:
    made = []
    try:
        for part, shape in zip(np.split(array, len(shapes)), shapes, strict=True):
            read = row.form.read(part, shape)
            # As many numbers may lie in another order: going back must give its shape.
            if read.shape != shape or row.form.write(read).shape != part.shape:
                raise ValueError
            made.append(read)
    except ValueError:
        there = " and ".join(str(shape) for shape in shapes)
        raise ValueError(
            f"{where}: {name} has the shape {array.shape}, which does not make "
            f"{' and '.join(row.parts)} {there}: the checkpoint is of another size "
            f"than its config says"
        ) from None
    return made


def _write(form: Form, parts: list[np.ndarray]) -> np.ndarray:
    written = [form.write(part) for part in parts]
    whole = written[0] if len(written) == 1 else np.concatenate(written)
    return np.ascontiguousarray(whole)


def _refuse_leftover(
    theirs: Iterable[str], names: set[str], ignored: tuple[str, ...], where: str
) -> None:
    there = set(theirs)
    left = {
        name
        for name in there - names
        if not any(re.fullmatch(pattern, name) for pattern in ignored)
    }
    faults = [
        f"{what} {_listed(found)}"
        for what, found in (("lacks", names - there), ("has beside it", left))
        if found
    ]
    if faults:
        raise ValueError(
            f"{where} is not a checkpoint of this model: it {' and '.join(faults)}"
        )


def _listed(names: set[str], most: int = 20) -> str:
    listed = ", ".join(sorted(names)[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
