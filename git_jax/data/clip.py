"""Clips in a batch: which frames of a record are seen, and where they stand.

A batch has F frames a row. A picture is a clip with F = 1; where F > 1, `frame_valid`
says which frames are real, those of a shorter clip first, and black ones follow.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def sampled(frames: Sequence[Any], count: int) -> Sequence[Any]:
    """`count` frames at even distances, the first and the last of them; or all.

    a b c d e f, 3 -> a c f. GIT sees 6 frames of a video (section 3.3 of 2205.14100);
    the code that chose them was not released.
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
