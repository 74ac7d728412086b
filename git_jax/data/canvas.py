"""Drawing: grounds, shapes, handwriting and letters on small pictures.

Made for the training loop. What costs time is made once per size and kept (`_bank` and
the masks); a picture of 64 pixels with two shapes is then a sum of two crops and two
blends, about 40 microseconds.

A canvas is u8 [h 3w]: the channels of a pixel lie side by side in its row, so that
every operation runs along contiguous rows. What is added to it is signed, kept as u8
modulo 256: grounds and inks stay at least `MARGIN` from 0 and from 255 and the noise
stays within it, so nothing ever has to be clipped. A mask is i16 [h 3w], 0 to 128: a
product with a difference of two bytes still fits 16 bits.
"""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_TILTS = (-10, -5, 0, 5, 10)  # degrees
_INKS = 16  # shades of each colour
MARGIN = 24
RGB = {
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
        for name, rgb in RGB.items()
    }
    return _Bank(
        size,
        np.repeat(textures, 3, axis=2).astype(np.int16).astype(np.uint8),
        np.tile(tints, size).astype(np.uint8),
        np.clip(noises, -MARGIN, MARGIN).astype(np.int16).astype(np.uint8),
        {
            name: np.clip(ink, MARGIN, 255 - MARGIN).astype(np.int16)
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
            pattern = _clouds(wide, int(rng.integers(4, 12)), rng)
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


def ground(size: int, rng: random.Random) -> np.ndarray:
    """A fresh canvas of size x size pixels: a texture in a dull colour."""
    bank = _bank(size)
    tint = bank.tints[int(rng.random() * len(bank.tints))]
    texture = bank.textures[int(rng.random() * len(bank.textures))]
    return _crop(texture, size, rng) + tint


def ink(colour: str, size: int, rng: random.Random) -> np.ndarray:
    """A shade of the colour to paint on canvases of this size: i16 [3*size]."""
    return _bank(size).inks[colour][int(rng.random() * _INKS)]


def paint(
    canvas: np.ndarray, mask: np.ndarray, ink: np.ndarray, x: int, y: int
) -> None:
    """Covers the canvas with ink where the mask says so, its corner at pixel (x, y)."""
    height, width = mask.shape
    under = canvas[y : y + height, 3 * x : 3 * x + width]
    under += (((ink[:width] - under) * mask) >> 7).astype(np.uint8)


def grain(size: int, rng: random.Random) -> np.ndarray:
    """The noise of a sensor, from hardly any to rough, to `expose` canvases with."""
    noises = _bank(size).noises
    return noises[int(rng.random() * len(noises))]


def expose(canvas: np.ndarray, grain: np.ndarray, rng: random.Random) -> np.ndarray:
    """The picture: the canvas with a stretch of the noise, u8 [size size 3]."""
    size = len(canvas)
    return (canvas + _crop(grain, size, rng)).reshape(size, size, 3)


def _crop(tile: np.ndarray, size: int, rng: random.Random) -> np.ndarray:
    """A window of a tile [S 3S]: [size 3*size]."""
    spare = len(tile) - size + 1
    x, y = int(rng.random() * spare), int(rng.random() * spare)
    return tile[y : y + size, 3 * x : 3 * (x + size)]


def plate(width: int, height: int) -> np.ndarray:
    """A mask that covers a rectangle."""
    return np.full((height, 3 * width), 128, np.int16)


@functools.lru_cache(maxsize=4096)
def digit(index: int, side: int) -> np.ndarray:
    """Scan `index` of the handwriting (see `handwriting`), enlarged to a square."""
    scan = handwriting()[0][index]
    grey = Image.fromarray(scan).resize((side, side), Image.Resampling.BICUBIC)
    return _as_mask(np.asarray(grey, np.float64) / 255)


@functools.lru_cache(maxsize=1)
def handwriting() -> tuple[np.ndarray, np.ndarray]:
    """Scanned digits, u8 [1437 8 8] with ink at 255, and their classes [1437].

    They are the training part of the set that ships with scikit-learn (Alpaydin and
    Kaynak, Optical Recognition of Handwritten Digits, UCI 1998) under the stratified
    split below. Its 360 test scans are nobody's training data: no picture shows one.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans, classes = load_digits(return_X_y=True)
    scans, _, classes, _ = train_test_split(
        scans, classes, test_size=360, stratify=classes, random_state=0
    )
    grey = np.rint(scans * (255 / 16)).astype(np.uint8)
    return grey.reshape(-1, 8, 8), classes


@functools.lru_cache(maxsize=4096)
def letters(word: str, height: int) -> np.ndarray:
    """A word in a font of so many pixels, Pillow's own, cropped to its ink."""
    font = ImageFont.load_default(height)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(word))
    paper = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(paper).text((-left, -top), word, fill=255, font=font)
    return _as_mask(np.asarray(paper, np.float64) / 255)


def _as_mask(cover: np.ndarray) -> np.ndarray:
    """[h w] of 0..1 -> i16 [h 3w] of 0..128."""
    return np.repeat(np.rint(128 * cover), 3, axis=1).astype(np.int16)


def shape(name: str, side: int, rng: random.Random) -> np.ndarray:
    """The mask of a shape, a little tilted, that fits a square of side pixels."""
    return shape_mask(name, side, int(rng.random() * len(_TILTS)))


@functools.lru_cache(maxsize=4096)
def shape_mask(name: str, side: int, tilt: int) -> np.ndarray:
    """How much of each pixel the shape covers; `tilt` counts through `_TILTS`."""
    fine = 8 if side <= 32 else 4  # points a pixel, each way
    at = (np.arange(side * fine) + 0.5) / (side * fine / 2) - 1
    turn = np.deg2rad(_TILTS[tilt])
    x = at * np.cos(turn) + at[:, None] * np.sin(turn)
    y = at[:, None] * np.cos(turn) - at * np.sin(turn)
    inside = _INSIDE[name](x, y).reshape(side, fine, side, fine)
    return _as_mask(inside.mean(axis=(1, 3)))


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
