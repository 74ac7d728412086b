"""Clips in a batch: which frames of a record are seen, and where they stand.

A batch has F frames a row. A picture is a clip with F = 1; where F > 1, `frame_valid`
says which frames are real, those of a shorter clip first, and black ones follow. So a
shorter clip has the first embeddings of time, as with the released GIT.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def sampled(frames: Sequence[Any], count: int) -> Sequence[Any]:
    """`count` frames at even distances, the first and the last of them; or all.

    a b c d e f, 3 -> a c f. The published video models see 6 frames, in training and
    after it (`num_image_with_embedding: 6` of their parameter.yaml); the code that
    chose them was not released. So where they lie is ours: both ends are seen, whatever
    the length, and no distance is more than one frame longer than another. Given more
    than 6 frames, the released code drops all behind the sixth without a word.
    """
    if len(frames) <= count:
        return frames
    return [frames[i * (len(frames) - 1) // (count - 1)] for i in range(count)]


def forms(rows: int, frames: int, size: int) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Types and shapes: `frames` [rows F h w 3], `frame_valid` [rows F] where F > 1."""
    found: dict[str, tuple[type, tuple[int, ...]]] = {
        "frames": (np.uint8, (rows, frames, size, size, 3))
    }
    return found if frames == 1 else found | {"frame_valid": (np.bool_, (rows, frames))}


def room(rows: int, frames: int, size: int) -> dict[str, np.ndarray]:
    """Arrays of these forms, black and without a real frame."""
    return {
        name: np.zeros(shape, dtype)
        for name, (dtype, shape) in forms(rows, frames, size).items()
    }


def put(arrays: dict[str, np.ndarray], row: int, squares: Sequence[np.ndarray]) -> None:
    """Puts a clip of F frames or fewer into its row."""
    arrays["frames"][row, : len(squares)] = squares
    if "frame_valid" in arrays:
        arrays["frame_valid"][row, : len(squares)] = True
