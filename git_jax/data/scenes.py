"""The embedded corpus: pictures drawn from (seed, split, index) alone, no files.

Levels:

- `pairs`: two things of 8 shapes and 8 colours on a textured, noisy ground, and where
  one is seen from the other.

Splits: `train`; `test`, new pictures of the same pairs of colour and shape; and
`compositional`, whose every thing has a pair of colour and shape that the other two
never show. These 8 of the 64 pairs lie on a diagonal of the table of shapes and
colours: each shape and each colour lacks exactly one (`HELD_OUT`).
"""

import functools
import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from git_jax.data import grammar
from git_jax.data.grammar import COLOURS, SHAPES, Scene, Thing

HELD_OUT = frozenset((s, COLOURS[(i + 3) % 8]) for i, s in enumerate(SHAPES))
_KINDS = {
    "compositional": tuple(sorted(HELD_OUT)),
    "train": tuple((s, c) for s in SHAPES for c in COLOURS if (s, c) not in HELD_OUT),
}
_KINDS["test"] = _KINDS["train"]
COUNTS = {"train": 1_000_000, "test": 1_000, "compositional": 1_000}
LEVELS = ("pairs",)


@dataclass(frozen=True)
class Scenes:
    """Drawn pictures with captions; record i is a pure function of the fields and i.

    `part` is one of the splits, `size` the side of the square picture in pixels (at
    least 32), `count` the number of pictures: None is 1,000,000 for `train`, which
    costs nothing as no picture exists before it is asked for, and 1,000 for the others.

    A record: `id` "scenes/pairs/test/12", `frames` one u8 [size size 3], `texts` five
    captions, `scene` the truth (`grammar.Scene`).
    """

    part: str = "train"
    level: str = "pairs"
    seed: int = 0
    size: int = 64
    count: int | None = None

    splits: ClassVar[tuple[str, ...]] = ("test", "compositional")

    def __post_init__(self) -> None:
        if self.part not in COUNTS:
            raise ValueError(
                f"scenes have no split {self.part!r}; they have {', '.join(COUNTS)}"
            )
        if self.level not in LEVELS:
            raise ValueError(
                f"scenes have no level {self.level!r}; they have {', '.join(LEVELS)}"
            )
        if self.size < 32:
            raise ValueError(
                f"size={self.size}: below 32 pixels shapes cannot be told apart"
            )
        if self.count is not None and self.count < 1:
            raise ValueError(f"count={self.count}: give at least 1 picture, or None")

    def __len__(self) -> int:
        return COUNTS[self.part] if self.count is None else self.count

    def split(self, name: str) -> "Scenes":
        """The same corpus, other pictures; another split has its own default count."""
        return self if name == self.part else replace(self, part=name, count=None)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)} in scenes/{self.part}")
        key = _key(self.seed, self.level, self.part)
        rng = random.Random(key + int(index))
        scene, picture = _pair(self.part, self.size, rng)
        return {
            "id": f"scenes/{self.level}/{self.part}/{index}",
            "frames": [picture],
            "texts": grammar.captions(scene, rng),
            "scene": scene,
        }


@functools.lru_cache(maxsize=64)
def _key(seed: int, level: str, part: str) -> int:
    name = f"git_jax scenes {seed} {level} {part}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=16).digest()) << 32


def _pair(part: str, size: int, rng: random.Random) -> tuple[Scene, np.ndarray]:
    """Two things side by side or one above the other, never near the diagonal."""
    bank = _bank(size)
    kinds = _distinct(_KINDS[part], 2, rng)
    sides = [_side(0.22, 0.44, size, rng) for _ in kinds]
    gap = max(2, size // 20)
    # Along the axis of the relation: rim, one thing, gap, the other, rim.
    room = size - 2 - gap - sides[0] - sides[1]
    low = int(rng.random() * (room + 1))
    shift = int(rng.random() * (room - low + 1))
    along = 1 + low, 1 + low + sides[0] + gap + shift
    reach = 0.7 * (along[1] + sides[1] / 2 - along[0] - sides[0] / 2)
    # Across it: anywhere, but off by at most 0.7 of the offset along.
    first = _between(1, size - 1 - sides[0], rng)
    middle = first + sides[0] / 2 - sides[1] / 2
    second = _between(
        max(1, math.ceil(middle - reach)),
        min(size - 1 - sides[1], int(middle + reach)),
        rng,
    )
    corners = [(along[0], first), (along[1], second)]
    if rng.random() < 0.5:
        corners = [(y, x) for x, y in corners]
    canvas = _ground(bank, rng)
    things: list[Thing] = []
    for (shape, colour), side, (x, y) in zip(kinds, sides, corners, strict=True):
        mask = _mask(shape, side, int(rng.random() * len(_TILTS)))
        _paint(canvas, mask, bank.inks[colour][int(rng.random() * _INKS)], x, y)
        things.append(
            {
                "shape": shape,
                "colour": colour,
                "centre": (x + side / 2, y + side / 2),
                "size": side,
            }
        )
    scene: Scene = {"objects": things, "digits": [], "words": [], "motion": None}
    return scene, _expose(canvas, bank, rng)


def _distinct(kinds: tuple, count: int, rng: random.Random) -> list:
    """`count` different ones of few; quicker than `rng.sample`."""
    chosen: list = []
    while len(chosen) < count:
        kind = kinds[int(rng.random() * len(kinds))]
        if kind not in chosen:
            chosen.append(kind)
    return chosen


def _between(low: float, high: float, rng: random.Random) -> int:
    """A whole number, both ends included."""
    return int(low) + int(rng.random() * (int(high) - int(low) + 1))


def _side(low: float, high: float, size: int, rng: random.Random) -> int:
    """A thing's side in pixels, a share low to high of the picture's, in few steps."""
    # Few different sides keep the cache of masks small where pictures are large.
    step = max(1, size // 64)
    return step * _between(low * size / step, high * size / step, rng)


# --- drawing -----------------------------------------------------------------------
# A canvas is u8 [h 3w]: the channels of a pixel side by side in its row, so that every
# operation runs along contiguous rows. What is added to it is signed, kept as u8 modulo
# 256: grounds and inks stay at least _MARGIN from 0 and 255 and the noise stays within
# it, so nothing ever has to be clipped. A mask is i16 [d 3d], 0 to 128: a product with
# a difference of two bytes still fits 16 bits.

_TILTS = (-10, -5, 0, 5, 10)  # degrees
_INKS = 16  # shades of each colour
_MARGIN = 24
_RGB = {
    "red": (214, 30, 36),
    "green": (30, 150, 50),
    "blue": (36, 64, 216),
    "yellow": (250, 220, 30),
    "purple": (140, 36, 170),
    "cyan": (30, 205, 215),
    "white": (235, 235, 235),
    "black": (20, 20, 20),
}


@dataclass(frozen=True)
class _Bank:
    """What every picture of one size draws from, made once."""

    size: int
    textures: np.ndarray  # u8 [K S 3S], around 0
    tints: np.ndarray  # u8 [T 3*size], the ground's colour
    noises: np.ndarray  # u8 [N S 3S], around 0
    inks: dict[str, np.ndarray]  # colour -> i16 [_INKS 3*size]


@functools.lru_cache(maxsize=4)
def _bank(size: int) -> _Bank:
    rng = np.random.Generator(np.random.Philox(key=20220527))
    wide = size + size // 2
    textures = np.stack([_texture(wide, kind, rng) for kind in range(64)])
    level = rng.uniform(95, 170, (64, 1))
    tints = level + rng.uniform(-16, 16, (64, 3))
    noises = np.stack(
        [rng.normal(0, deviation, (wide, 3 * wide)) for deviation in (2, 4, 6, 8, 10)]
    )
    inks = {
        name: np.tile(rgb + rng.uniform(-12, 12, (_INKS, 3)), size)
        for name, rgb in _RGB.items()
    }
    return _Bank(
        size,
        np.repeat(textures, 3, axis=2).astype(np.int16).astype(np.uint8),
        np.tile(tints, size).astype(np.uint8),
        np.clip(noises, -_MARGIN, _MARGIN).astype(np.int16).astype(np.uint8),
        {
            name: np.clip(ink, _MARGIN, 255 - _MARGIN).astype(np.int16)
            for name, ink in inks.items()
        },
    )


def _texture(wide: int, kind: int, rng: np.random.Generator) -> np.ndarray:
    """One of stripes, checks, clouds, grain, dots or a slope: f64 [wide wide]."""
    y, x = np.mgrid[:wide, :wide] / wide
    turn = rng.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    often = rng.uniform(12, 40)
    strength = rng.uniform(6, 18)
    match kind % 6:
        case 0:
            pattern = np.sin(u * often * 2)
        case 1:
            pattern = np.sign(np.sin(u * often) * np.sin(v * often))
        case 2:
            pattern = _clouds(wide, rng.integers(4, 12), rng)
        case 3:
            pattern = _clouds(wide, wide // 3, rng)
        case 4:
            pattern = np.where(np.sin(u * often) * np.sin(v * often) > 0.6, 1.0, -0.3)
        case _:
            pattern = 3 * (u - u.mean()) + 0.5 * _clouds(wide, 8, rng)
    return strength * np.clip(pattern, -1.8, 1.8)


def _clouds(wide: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Random values on a grid of cells, smoothly joined: f64 [wide wide]."""
    grid = rng.uniform(-1.4, 1.4, (cells + 2, cells + 2))
    at = np.linspace(0, cells, wide)
    cell = at.astype(int)
    part = at - cell
    part = part * part * (3 - 2 * part)
    rows = grid[cell] * (1 - part)[:, None] + grid[cell + 1] * part[:, None]
    return rows[:, cell] * (1 - part) + rows[:, cell + 1] * part


def _ground(bank: _Bank, rng: random.Random) -> np.ndarray:
    tint = bank.tints[int(rng.random() * len(bank.tints))]
    return _crop(bank.textures, bank.size, rng) + tint


def _crop(tiles: np.ndarray, size: int, rng: random.Random) -> np.ndarray:
    """A window of one of the tiles: i16 [size 3*size]."""
    spare = tiles.shape[1] - size + 1
    x, y = int(rng.random() * spare), int(rng.random() * spare)
    tile = tiles[int(rng.random() * len(tiles))]
    return tile[y : y + size, 3 * x : 3 * (x + size)]


def _paint(
    canvas: np.ndarray, mask: np.ndarray, ink: np.ndarray, x: int, y: int
) -> None:
    height, width = mask.shape
    under = canvas[y : y + height, 3 * x : 3 * x + width]
    under += (((ink[:width] - under) * mask) >> 7).astype(np.uint8)


def _expose(canvas: np.ndarray, bank: _Bank, rng: random.Random) -> np.ndarray:
    """Adds the noise of the sensor; -> u8 [size size 3]."""
    canvas += _crop(bank.noises, bank.size, rng)
    return canvas.reshape(bank.size, bank.size, 3)


@functools.lru_cache(maxsize=4096)
def _mask(shape: str, side: int, tilt: int) -> np.ndarray:
    """How much of each pixel the shape covers: i16 [side 3*side], 0 to 128."""
    fine = 8 if side <= 32 else 4  # points a pixel, each way
    at = (np.arange(side * fine) + 0.5) / (side * fine / 2) - 1
    turn = np.deg2rad(_TILTS[tilt])
    x = at * np.cos(turn) + at[:, None] * np.sin(turn)
    y = at[:, None] * np.cos(turn) - at * np.sin(turn)
    inside = _INSIDE[shape](x, y).reshape(side, fine, side, fine)
    cover = np.rint(128 * inside.mean(axis=(1, 3)))
    return np.repeat(cover, 3, axis=1).astype(np.int16)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Within one of ten triangles between a tip at radius 1 and a notch at 0.42.
    radius, angle = np.hypot(x, y), np.arctan2(x, -y)
    turn = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    tip, notch = np.array([1.0, 0.0]), 0.42 * np.array([np.cos(0.628), np.sin(0.628)])
    px, py = radius * np.cos(turn), radius * np.sin(turn)
    return (notch[0] - tip[0]) * (py - tip[1]) > (notch[1] - tip[1]) * (px - tip[0])


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = 1.24 * x, 0.1 - 1.24 * y
    return (x * x + y * y - 1) ** 3 < x * x * y**3


# Whether a point of the square -1..1, y down, is in the shape; all fit the unit circle.
_INSIDE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda x, y: np.hypot(x, y) < 0.98,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) < 0.8,
    "triangle": lambda x, y: (y < 0.6) & (1.85 * np.abs(x) - y < 0.98),
    "star": _star,
    "cross": lambda x, y: (
        (np.minimum(np.abs(x), np.abs(y)) < 0.27)
        & (np.maximum(np.abs(x), np.abs(y)) < 0.95)
    ),
    "heart": _heart,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.77) < 0.21,
    "crescent": lambda x, y: (np.hypot(x, y) < 0.98) & (np.hypot(x - 0.45, y) > 0.78),
}
