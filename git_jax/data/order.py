"""Which record is at which position, and the random numbers of each position.

    order(parts(source), seed=0)[1_000_000]       the number of a record
    generator(seed=0, position=1_000_000)         all that is random about that row

Both are functions of their arguments alone, so any batch can be made at once.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from git_jax.data.mixture import Part

SEEDS = 2**63
"""How many seeds there are: as many as JAX takes, too."""


class _Key(np.random.bit_generator.ISeedSequence):
    """Philox(_Key(a, b)) is Philox(key=(a, b)), but asks for no entropy: 3 x faster."""

    def __init__(self, *key: int):
        self._key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        assert n_words == len(self._key), n_words
        return np.array(self._key, dtype)


def check_seed(seed: int) -> None:
    """ValueError for a seed that cannot be a key."""
    if not 0 <= seed < SEEDS:
        raise ValueError(
            f"--config.seed={seed} is no seed: it must be at least 0 and less than 2^63"
        )


def generator(seed: int, position: int, attempt: int = 0) -> np.random.Generator:
    """The random numbers of one row; each attempt to fill it has its own."""
    bits = np.random.Philox(_Key(seed, position))  # type: ignore[arg-type] # a stub's gap
    return np.random.Generator(bits.jumped(attempt) if attempt else bits)


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Endless passes over `size` records, each in an order of its own.

    `self[position]` is the number of a record, from `first` on; there is no list of
    them. A record is a place (row, column) in a square that holds them all. By turns
    the row moves by what the column looks up in a random table and the column by what
    the row looks up. That is a Feistel network: no two records meet. The few places
    beyond `size` are walked through.

    Grain's own shuffle loses a record of 2^16 + 1, and takes 0.6 ms to find one of 76.
    """

    size: int
    seed: int
    first: int = 0

    def __getitem__(self, position: int) -> int:
        epoch, index = divmod(position, self.size)
        rows, columns, tables = _tables(self.size, self.seed, epoch)
        while True:
            row, column = divmod(index, columns)
            for down, along in tables:
                row = (row + down[column]) % rows
                column = (column + along[row]) % columns
            index = row * columns + column
            if index < self.size:
                return self.first + index


ENDLESS = 2**62


@functools.lru_cache(maxsize=128)
def _tables(
    size: int, seed: int, epoch: int
) -> tuple[int, int, list[tuple[list[int], list[int]]]]:
    """Rows and columns of the square, and for each of 4 rounds what to look up."""
    rows = math.isqrt(size - 1) + 1
    columns = -(-size // rows)
    rng = generator(seed, epoch)
    down = rng.integers(rows, size=(4, columns)).tolist()
    along = rng.integers(columns, size=(4, rows)).tolist()
    return rows, columns, list(zip(down, along, strict=True))


class Order(Protocol):
    def __getitem__(self, position: int) -> int: ...


def order(drawn: Sequence[Part], seed: int) -> Order:
    """The number of the record at each position, without an end.

    Each part has an order of its own and of those around any position its share.
    Raises ValueError for a seed that is negative or too large.
    """
    check_seed(seed)
    seeds = np.random.SeedSequence(seed).generate_state(len(drawn))
    shuffled = [
        Shuffled(part.size, int(own), part.start)
        for part, own in zip(drawn, seeds, strict=True)
    ]
    if len(shuffled) == 1:
        return shuffled[0]
    import grain

    endless = grain.MapDataset.range(ENDLESS)
    ordered = [endless.map(one.__getitem__) for one in shuffled]
    return grain.MapDataset.mix(ordered, [part.weight for part in drawn])
