"""Settings of pictures, both ways: what transformers makes of them is what we make."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from git_jax.config import build, spec
from git_jax.convert import processor
from git_jax.data.image import Crop, Within

CLIP = {"image_processor_type": "CLIPImageProcessor"}
MEAN, STD = (0.1, 0.25, 0.5), (0.5, 0.25, 2.0)


def transformers() -> Any:
    return pytest.importorskip(
        "transformers", reason="requirements-parity.txt is not installed"
    )


def written(directory: Path, settings: Any, name: str = processor.NAME) -> Path:
    (directory / name).write_text(json.dumps(settings))
    return directory


def read(directory: Path) -> processor.Processor:
    found = processor.read(directory)
    assert found is not None
    return found


def pixels(read: processor.Processor, picture: np.ndarray) -> np.ndarray:
    square = build(read.image)(picture).astype(np.float64) / 255
    return (square - read.mean) / read.std


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(height, width, 3), dtype="u1")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("CLIPImageProcessorPil", {}),
        (
            "CLIPImageProcessorPil",
            dict(
                size={"shortest_edge": 35},
                crop_size=35,
                resample=2,
                image_mean=list(MEAN),
                image_std=list(STD),
            ),
        ),
        ("CLIPImageProcessorPil", dict(size=35, crop_size=35, do_normalize=False)),
        ("VideoMAEImageProcessorPil", {}),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_it_computes_what_transformers_computes(
    tmp_path: Path, kind: str, settings: dict[str, Any], nested: bool
) -> None:
    theirs = getattr(transformers(), kind)(**settings)
    if nested:
        (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
        words = transformers().BertTokenizer(str(tmp_path / "vocab.txt"))
        transformers().GitProcessor(theirs, words).save_pretrained(tmp_path)
        assert (tmp_path / processor.NESTED).exists()
    else:
        theirs.save_pretrained(tmp_path)
        assert (tmp_path / processor.NAME).exists()
    ours = read(tmp_path)
    shown = picture(53, 48)
    expected = np.asarray(theirs(shown)["pixel_values"])
    expected = expected.reshape(expected.shape[-3:]).transpose(1, 2, 0)
    np.testing.assert_allclose(pixels(ours, shown), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("filter", ["bicubic", "bilinear"])
def test_what_is_written_is_the_same_there_and_here(
    tmp_path: Path, filter: processor.Filter
) -> None:
    config = processor.config_of(spec(Crop, size=37, filter=filter), MEAN, STD)
    written(tmp_path, config)
    theirs = transformers().CLIPImageProcessorPil.from_pretrained(tmp_path)
    kept = json.loads(theirs.to_json_string())
    assert {name: kept[name] for name in config} == config
    ours = read(tmp_path)
    assert (ours.image.size, ours.image.filter) == (37, filter)
    assert (ours.mean, ours.std) == (MEAN, STD)
    shown = picture(60, 50)
    expected = np.asarray(theirs(shown)["pixel_values"][0]).transpose(1, 2, 0)
    np.testing.assert_allclose(pixels(ours, shown), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (spec(Crop, size=37), ""),
        (spec(Crop, size=37, rounding="even"), "rounding='even'.*one pixel aside"),
        (spec(Crop, size=37, long=60), "long=60.*crops a square of 37"),
        (spec(Within, short=37, long=60), "long=60.*crops a square of 37"),
    ],
)
def test_what_no_processor_does_is_told(
    image: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert processor.config_of(image, MEAN, STD)["crop_size"]["height"] == 37
    assert re.search(told, found := capsys.readouterr().err) and bool(found) == bool(
        told
    )


def test_a_directory_may_have_none(tmp_path: Path) -> None:
    assert processor.read(tmp_path) is None
    written(tmp_path, {"processor_class": "GitProcessor"}, processor.NESTED)
    assert processor.read(tmp_path) is None


def test_the_nested_file_is_asked_first_as_transformers_does(tmp_path: Path) -> None:
    small = CLIP | {"size": 32, "crop_size": 32}
    written(tmp_path, {"image_processor": small}, processor.NESTED)
    written(tmp_path, CLIP)
    assert read(tmp_path).image.size == 32
    written(tmp_path, {"processor_class": "GitProcessor"}, processor.NESTED)
    assert read(tmp_path).image.size == 224


@pytest.mark.parametrize(
    "kind",
    [
        {"feature_extractor_type": "CLIPFeatureExtractor"},
        {"image_processor_type": "CLIPImageProcessorFast"},
        {"image_processor_type": "CLIPImageProcessorPil"},
    ],
)
def test_the_class_has_had_several_names(tmp_path: Path, kind: dict[str, str]) -> None:
    assert read(written(tmp_path, kind)).std[0] == 0.26862954


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_processor_type", "ViTImageProcessor"),
        ("size", {"height": 224, "width": 224}),  # transformers squeezes to it
        ("size", {"shortest_edge": 224, "longest_edge": 300}),
        ("size", 0),
        ("size", "large"),
        ("crop_size", {"height": 224, "width": 200}),
        ("crop_size", 192),
        ("resample", 1),
        ("resample", [3]),
        ("do_resize", False),
        ("do_center_crop", False),
        ("do_rescale", False),
        ("rescale_factor", 1 / 127.5),
        ("rescale_factor", None),
        ("do_pad", True),
        ("image_mean", [0.5, 0.5]),
        ("image_mean", "CLIP"),
        ("image_std", [0.5, 0.5, None]),
        ("image_std", [0.5, 0.5, 0.0]),
    ],
)
def test_what_cannot_be_honoured_is_named(
    tmp_path: Path, key: str, value: object
) -> None:
    written(tmp_path, CLIP | {key: value})
    with pytest.raises(ValueError, match=f"{processor.NAME}: {key} is ") as caught:
        processor.read(tmp_path)
    assert repr(value) in str(caught.value)
    written(tmp_path, {"image_processor": CLIP | {key: value}}, processor.NESTED)
    nested = f"{processor.NESTED}: image_processor: {key} is "
    with pytest.raises(ValueError, match=nested):
        processor.read(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / processor.NAME).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=f"{processor.NAME} is no JSON"):
        processor.read(tmp_path)


def test_a_nested_processor_without_settings_is_named(tmp_path: Path) -> None:
    written(tmp_path, {"image_processor": "clip"}, processor.NESTED)
    with pytest.raises(ValueError, match="image_processor is 'clip'"):
        processor.read(tmp_path)
