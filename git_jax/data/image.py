"""Pictures: bytes to pixels, and pixels to the square or shape that a model sees.

Pixels are np.uint8 [h w 3] and stay so until they are on the device. Interpolation is
Pillow's, whose filters widen when they shrink a picture (antialias), as CLIP and GIT
were trained with.
"""

import dataclasses
import io
import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

Encoded: TypeAlias = bytes | str | os.PathLike[str] | np.ndarray

PIXELS = 2**26
"""The largest picture that is decoded unless told otherwise: 8,192 x 8,192."""


class BadPicture(ValueError):
    """A picture that cannot be read: `reason` is a countable category.

    Reasons: "missing file", "empty file", "not an image", "truncated image", "broken
    image", "decompression bomb", "unknown pixels", "frames differ", "too narrow".
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)  # the arguments, so that it pickles
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


# Decoding ----------------------------------------------------------------------------


def decode(picture: Encoded, *, pixels: int = PIXELS) -> np.ndarray:
    """An encoded picture, its path, or an array -> np.uint8 [h w 3].

    EXIF orientation is applied, transparency is laid over white, 16 bits are scaled to
    8, of an animation the first frame is taken; palettes, greys and CMYK become RGB.
    Raises BadPicture; a picture of more than `pixels` pixels is refused before it is
    decoded.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if not isinstance(picture, bytes):
        picture = _read(picture)
    if not picture:
        raise BadPicture("empty file", "it has zero bytes: write it again or remove it")
    # Pillow and its plugins raise nearly anything on broken data.
    try:
        with _open(picture) as image:
            height, width = image.height, image.width
            if height * width > pixels:
                raise BadPicture(
                    "decompression bomb",
                    f"{width} x {height} is more than {pixels:,} pixels: shrink the "
                    "picture, or raise --config.loader.pixels if it is to be trusted",
                )
            image.load()
            return np.array(_upright(_rgb(image), _orientation(image)))
    except BadPicture:
        raise
    except UnidentifiedImageError as error:
        raise BadPicture(
            "not an image",
            f"its first bytes are {picture[:8]!r}, which no format begins with: save "
            "it as JPEG or PNG, or remove it",
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        reason = "truncated image" if _is_truncated(error) else "broken image"
        raise BadPicture(reason, f"{error} ({len(picture):,} bytes)") from error


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadPicture(
            "missing file", f"{os.fspath(path)}: {error.strerror}"
        ) from error


_GUARD = threading.Lock()


def _open(picture: bytes) -> Image.Image:
    """Image.open without Pillow's own limit, which is one for the whole process."""
    with _GUARD:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(picture))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _is_truncated(error: Exception) -> bool:
    words = ("truncated", "unexpected end", "incomplete", "not enough", "eof")
    return isinstance(error, EOFError) or any(w in str(error).lower() for w in words)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image.convert("RGB")
    if image.mode.startswith("I") or image.mode == "F":
        array = np.asarray(image)
        if "transparency" in image.info:  # one level of grey that is not to be seen
            array = np.where(array == image.info["transparency"], 65535, array)
        return Image.fromarray(_from_array(array))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    """EXIF's number for how the camera was held, 1 where nothing readable says so.

    The original release does not look at it and sees such pictures on their side.
    """
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF does not spoil the pixels
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _from_array(array: np.ndarray) -> np.ndarray:
    """u8, or 16 bits in any integer type; [h w], [h w 1], [h w 3] or [h w 4]."""
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
        return array
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise BadPicture(
            "unknown pixels",
            f"an array of shape {array.shape} is no picture: it must be [h w 3], "
            "[h w 4], [h w 1] or [h w]",
        )
    if array.dtype != np.uint8:
        array = _to_8_bits(array)
    if array.shape[2] == 4:
        colour, alpha = (
            array[:, :, :3].astype(np.uint32),
            array[:, :, 3:].astype(np.uint32),
        )
        array = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _to_8_bits(array: np.ndarray) -> np.ndarray:
    """0 .. 65,535 -> 0 .. 255, rounded."""
    low, high = array.min(), array.max()
    if not np.issubdtype(array.dtype, np.integer) or low < 0 or high > 65535:
        raise BadPicture(
            "unknown pixels",
            f"{array.dtype} from {low} to {high} has no known white: save the picture "
            "with 8 or 16 bits",
        )
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


# Transforms --------------------------------------------------------------------------


Filter: TypeAlias = Literal["bicubic", "bilinear"]
"""How pixels are interpolated: bicubic everywhere in GIT; other models differ."""

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}

Rounding: TypeAlias = Literal["down", "even"]
"""Where the middle lies, when half a margin is no whole number of pixels."""

_ROUNDINGS: dict[str, Callable[[float], int]] = {"down": math.floor, "even": round}


@dataclasses.dataclass(frozen=True)
class Resize:
    """The centre square, `size` pixels wide: how pictures are evaluated.

    The shorter side becomes `size`, the longer one int(size * long / short), and the
    middle is cut out: CLIPImageProcessor of transformers, to the bit, save that strips
    longer than 16 squares are cut first. A picture of that size comes back as it is.

    Half of an odd margin is rounded "down", as there. The original GIT was evaluated
    with torchvision's CenterCrop, which rounds it to "even": where the margin is 3, 7,
    11 ... its square lies one pixel further on, and in nothing else does it differ.
    """

    size: int = 64
    filter: Filter = "bicubic"
    rounding: Rounding = "down"

    def __post_init__(self) -> None:
        _check(self.filter, self.rounding, size=self.size)

    def __call__(
        self, picture: np.ndarray, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """u8 [h w 3] -> u8 [size size 3]. `rng` is not used: nothing is random."""
        size, (height, width) = self.size, picture.shape[:2]
        if height == width == size:
            return picture
        short = min(height, width)
        if max(height, width) > _STRIP * short:
            picture = _middle(picture, _STRIP * short, self.rounding)
            height, width = picture.shape[:2]
        tall, wide = int(size * height / short), int(size * width / short)
        scaled = _scaled(picture, tall, wide, self.filter)
        return np.ascontiguousarray(_middle(scaled, size, self.rounding))

    def video(
        self, frames: Sequence[np.ndarray], rng: np.random.Generator | None = None
    ) -> list[np.ndarray]:
        """F pictures of one size -> F squares of the same part."""
        _check_one_size(frames)
        return [self(frame) for frame in frames]


@dataclasses.dataclass(frozen=True)
class Crop:
    """A random square of `scale` of the area, scaled to `size`: how GIT is trained.

    torchvision's RandomResizedCrop with ratio 1:1, so also its way out: where no square
    of the drawn area fits after ten draws, the largest one in the middle. No flip: a
    caption may say "left". Without `rng` the picture is evaluated: by `Resize`, or
    whole, by `Within(size, long)`, where `long` is given.
    """

    size: int = 64
    scale: tuple[float, float] = (0.8, 1.0)
    filter: Filter = "bicubic"
    rounding: Rounding = "down"
    long: int | None = None

    def __post_init__(self) -> None:
        _check(self.filter, self.rounding, size=self.size)
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"scale={tuple(self.scale)} is not a range of areas: give two numbers, "
                "0 < low <= high <= 1"
            )
        _ = self._evaluated  # refuses a `long` below `size`

    @property
    def _evaluated(self) -> "Resize | Within":
        if self.long is not None:
            return Within(self.size, self.long, self.filter)
        return Resize(self.size, self.filter, self.rounding)

    def __call__(
        self, picture: np.ndarray, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """u8 [h w 3] -> u8 [size size 3], or of another shape where `long` is given."""
        return self.video([picture], rng)[0]

    def video(
        self, frames: Sequence[np.ndarray], rng: np.random.Generator | None = None
    ) -> list[np.ndarray]:
        """F pictures of one size -> the same square of each."""
        if rng is None:
            return self._evaluated.video(frames)
        _check_one_size(frames)
        height, width = frames[0].shape[:2]
        size, (top, left, side) = self.size, self._square(height, width, rng)
        cut = (frame[top : top + side, left : left + side] for frame in frames)
        return [_scaled(square, size, size, self.filter) for square in cut]

    def _square(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[int, int, int]:
        """(top, left, side) of a random square."""
        if height == width and tuple(self.scale) == (1, 1):
            return 0, 0, width
        for _ in range(10):
            side = round(math.sqrt(height * width * rng.uniform(*self.scale)))
            if 0 < side <= min(height, width):
                top = int(rng.integers(height - side + 1))
                return top, int(rng.integers(width - side + 1)), side
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side


@dataclasses.dataclass(frozen=True)
class Within:
    """The whole picture, its aspect kept: what the original GIT answers questions of.

    The shorter side becomes `short`, unless the longer one would then exceed `long`:
    then the longer one becomes `long`, save that both are rounded as in that release
    (`MinMaxResizeForTest` of its inference.py, which takes 480 and 640 for GIT_B and
    420 and 560 for GIT_L). A picture of 640 x 427 stays, as does one of 640 x 480.

    Its pictures have unequal shapes: only those of one shape can share a batch.
    """

    short: int = 480
    long: int = 640
    filter: Filter = "bicubic"

    def __post_init__(self) -> None:
        _check(self.filter, short=self.short, long=self.long)
        if self.long < self.short:
            raise ValueError(
                f"long={self.long} is less than short={self.short}: exchange them"
            )

    def __call__(
        self, picture: np.ndarray, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """u8 [h w 3] -> u8 of another [h w 3]. `rng` is not used.

        Raises BadPicture for a strip of which no width would be left.
        """
        height, width = picture.shape[:2]
        short, long = min(height, width), max(height, width)
        side = self.short
        if side * long / short > self.long:
            side = round(self.long * short / long)
        if side == 0:
            raise BadPicture(
                "too narrow",
                f"of {width} x {height} no width is left when the long side becomes "
                f"{self.long}: cut a part out",
            )
        tall, wide = int(side * height / short), int(side * width / short)
        return _scaled(picture, tall, wide, self.filter)

    def video(
        self, frames: Sequence[np.ndarray], rng: np.random.Generator | None = None
    ) -> list[np.ndarray]:
        """F pictures of one size -> F pictures of one other size."""
        _check_one_size(frames)
        return [self(frame) for frame in frames]


def _check(filter: str, rounding: str = "down", **sides: int) -> None:
    for name, side in sides.items():
        if not 1 <= side <= 2**14:
            raise ValueError(
                f"{name}={side} is no width of a picture: it must be at least 1 and at "
                f"most {2**14:,}"
            )
    if filter not in _FILTERS:
        raise ValueError(f"filter={filter!r} is none of {', '.join(_FILTERS)}")
    if rounding not in _ROUNDINGS:
        raise ValueError(f"rounding={rounding!r} is none of {', '.join(_ROUNDINGS)}")


def _check_one_size(frames: Sequence[np.ndarray]) -> None:
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        raise BadPicture(
            "frames differ",
            f"the frames of one clip have the sizes {sorted(s[:2] for s in shapes)}",
        )


# Longer pictures are cut to this many squares first: a line of 60 million pixels has a
# middle, but would not fit into memory when it is enlarged whole.
_STRIP = 16


def _middle(picture: np.ndarray, size: int, rounding: Rounding) -> np.ndarray:
    """The middle of each side longer than `size`."""
    half = (max(side - size, 0) / 2 for side in picture.shape[:2])
    top, left = map(_ROUNDINGS[rounding], half)
    return picture[top : top + size, left : left + size]


def _scaled(picture: np.ndarray, height: int, width: int, filter: Filter) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((width, height), _FILTERS[filter]))
