"""Where the ids of a text stand in its row."""

import numpy as np

from git_jax.data.rows import pack_rows
from git_jax.data.tokenizer import Bytes


def test_rows_are_laid_out_for_the_loss() -> None:
    texts = [([7, 8], [4, 5, 2]), ([], [4, 2]), ([9] * 5, [2]), ([9], []), ([], [])]
    rows = pack_rows(texts, 7, Bytes())
    np.testing.assert_array_equal(
        rows.tokens,
        [
            [1, 7, 8, 4, 5, 2, 0],
            [1, 4, 2, 0, 0, 0, 0],
            [1, 9, 9, 9, 9, 9, 2],
            [1, 9, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0],
        ],
    )
    np.testing.assert_array_equal(
        rows.target,
        [
            [0, 0, 0, 1, 1, 1, 0],
            [0, 1, 1, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 1],
            [0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0],
        ],
    )
    np.testing.assert_array_equal(rows.valid.sum(axis=1), [6, 3, 7, 2, 1])
    np.testing.assert_array_equal(rows.valid, np.sort(rows.valid, axis=1)[:, ::-1])
    assert [array.dtype for array in rows] == [np.int32, bool, bool]


def test_special_ids_inside_a_text_move_no_mask() -> None:
    # WordPiece makes them of a caption that spells "[SEP]" or "[PAD]".
    plain = pack_rows([([7, 8], [4, 5, 6, 2]), ([], [4, 2])], 9, Bytes())
    spelt = pack_rows([([0, 2], [2, 0, 1, 2]), ([], [0, 2])], 9, Bytes())
    np.testing.assert_array_equal(spelt.tokens[0], [1, 0, 2, 2, 0, 1, 2, 0, 0])
    np.testing.assert_array_equal(spelt.target, plain.target)
    np.testing.assert_array_equal(spelt.valid, plain.valid)
