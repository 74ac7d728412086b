"""How a checkpoint of Hugging Face wants its pictures, and how ours are told there.

    read(Path("git-base")).image    spec(Crop, size=224)

`preprocessor_config.json` holds the settings, or `processor_config.json` does, under
`image_processor`, as transformers 5 writes them.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from git_jax.config import Node, spec
from git_jax.convert import settings
from git_jax.data.image import Crop, Filter

NAME, NESTED = "preprocessor_config.json", "processor_config.json"

# Pillow's numbers.
FILTERS: dict[int, Filter] = {2: "bilinear", 3: "bicubic"}

# What a file leaves out when it is the default of the class there.
_COMMON: dict[str, Any] = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "do_convert_rgb": True,
    "do_pad": False,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": _COMMON
    | {
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
    "VideoMAEImageProcessor": _COMMON
    | {
        "resample": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
}


CHANNELS = "not a number for each of 3 channels"


@dataclass(frozen=True)
class Processor:
    """What becomes of a picture before the model sees it.

    Args:
        image: for `loader.image`; it evaluates as the processor there does.
        mean: of the pixels, per channel, for `model.pixel_mean`.
        std: likewise.
        where: the file, and the place in it, that says so.
    """

    image: Node
    mean: tuple[float, ...]
    std: tuple[float, ...]
    where: str


def read(directory: Path) -> Processor | None:
    """The processor that lies in a directory, None where none does.

    It is taken at its word. The published video checkpoints declare VideoMAE's
    processor, bilinear with 0.5 as mean and deviation, although the original release
    was trained with CLIP's: what is computed here is what transformers computes.

    Raises:
        ValueError: naming the file, the key and the value that has no counterpart here.
    """
    for name, nested in ((NESTED, True), (NAME, False)):  # transformers' preference
        path = directory / name
        given: Any = settings.read(path) if path.is_file() else None
        where = str(path)
        if nested and given is not None:
            given, where = given.get("image_processor"), f"{path}: image_processor"
        if given is not None:
            if not isinstance(given, Mapping):
                raise ValueError(f"{where} is {given!r}, not a set of settings")
            return _processor(given, where)
    return None


def side(image: Node) -> int:
    """The shorter side of the pictures that `loader.image` makes."""
    return image.get("size", image.get("short"))


def config_of(
    image: Node, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """The `preprocessor_config.json` with which CLIPImageProcessor is `loader.image`.

    What that class does otherwise is told on stderr.
    """
    size = side(image)
    if image.get("long") is not None:
        print(
            f"loader.image.long={image.long}: no processor of transformers keeps the "
            f"aspect so; the one that is written crops a square of {size}",
            file=sys.stderr,
        )
    elif image.get("rounding") == "even":
        print(
            "loader.image.rounding='even': the processors of transformers round down; "
            "of some pictures the square that is cropped lies one pixel aside",
            file=sys.stderr,
        )
    (resample,) = (number for number, name in FILTERS.items() if name == image.filter)
    return {
        "image_processor_type": "CLIPImageProcessor",
        **_COMMON,
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "resample": resample,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def _processor(given: Mapping[str, Any], where: str) -> Processor:
    held = DEFAULTS[_kind(given, where)] | dict(given)

    def refuse(key: str, why: str) -> NoReturn:
        raise ValueError(f"{where}: {key} is {held[key]!r}, {why}")

    for key in ("do_resize", "do_center_crop"):
        if not held[key]:
            refuse(key, "but pictures here become squares of one size: set it to true")
    if held["do_pad"]:
        refuse("do_pad", "but pictures here are cropped, never padded: set it to false")
    factor = held["rescale_factor"] if held["do_rescale"] else 1
    if not isinstance(factor, int | float) or not math.isclose(factor, 1 / 255):
        key = "rescale_factor" if held["do_rescale"] else "do_rescale"
        refuse(key, "but 255 is one here: only true and 1/255 are read")
    if held["resample"] not in list(FILTERS):  # which may be of any type
        names = " and ".join(f"{number}, {name}," for number, name in FILTERS.items())
        refuse("resample", f"a filter of Pillow that is not read: {names} are")
    size = _size(held["size"])
    if size is None:
        refuse(
            "size",
            'but pictures keep their aspect here: it must be {"shortest_edge": n}',
        )
    if _side(held["crop_size"]) != size:
        refuse("crop_size", f"not a square as large as the short side, {size}")
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if held["do_normalize"]:
        mean = _channels(held["image_mean"]) or refuse("image_mean", CHANNELS)
        std = _channels(held["image_std"]) or refuse("image_std", CHANNELS)
        if min(std) <= 0:
            refuse("image_std", "which pixels cannot be divided by")
    image = spec(Crop, size=size, filter=FILTERS[held["resample"]])
    return Processor(image, mean, std, where)


def _kind(given: Mapping[str, Any], where: str) -> str:
    """The class of a processor, by which its defaults are known."""
    old = "feature_extractor_type"  # and its class was a FeatureExtractor
    key = "image_processor_type" if "image_processor_type" in given else old
    kind = str(given.get(key)).replace("FeatureExtractor", "ImageProcessor")
    kind = kind.removesuffix("Fast").removesuffix("Pil")
    if kind not in DEFAULTS:
        raise ValueError(
            f"{where}: {key} is {given.get(key)!r}; only {' and '.join(DEFAULTS)} are "
            f"read"
        )
    return kind


def _size(value: Any) -> int | None:
    """The short side, of what says no more than that."""
    if isinstance(value, Mapping):
        value = value.get("shortest_edge") if set(value) == {"shortest_edge"} else None
    return _whole(value)


def _side(value: Any) -> int | None:
    """The side of a square."""
    if isinstance(value, Mapping):
        value = value.get("height") if value.get("height") == value.get("width") else 0
    return _whole(value)


def _whole(value: Any) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if good else None


def _channels(value: Any) -> tuple[float, float, float] | None:
    """One number for all channels, or one for each."""
    values = [value] * 3 if isinstance(value, int | float) else value
    if not isinstance(values, list) or len(values) != 3:
        return None
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        return None
    red, green, blue = (float(v) for v in values)
    return red, green, blue
