"""Ids to rows: where begin, prefix, suffix, end and padding stand."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from git_jax.data.tokenizer import Tokenizer


class Rows(NamedTuple):
    """tokens i32, target bool, valid bool: each [R T]."""

    tokens: np.ndarray
    target: np.ndarray
    valid: np.ndarray


def pack_rows(
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    size: int,
    tokenizer: Tokenizer,
) -> Rows:
    """A row of T = size tokens for each (prefix, suffix), laid out for the loss.

    [7 8], [4 5 2] -> tokens [1 7 8 4 5 2 0]   bos 1, pad 0; the suffix ends with eos 2
                      target [0 0 0 1 1 1 0]   GIT predicts the suffix alone: no loss is
                      valid  [1 1 1 1 1 1 0]   paid on the prefix, which is context
    """
    bos, padding = [tokenizer.bos], [tokenizer.pad] * size
    start = np.array([1 + len(prefix) for prefix, _ in texts])[:, None]
    stop = start + np.array([len(suffix) for _, suffix in texts])[:, None]
    assert stop.max() <= size, (stop.max(), size)
    rows = [(bos + [*prefix, *suffix] + padding)[:size] for prefix, suffix in texts]
    position = np.arange(size)
    return Rows(
        tokens=np.array(rows, np.int32),
        target=(start <= position) & (position < stop),
        valid=position < stop,
    )
