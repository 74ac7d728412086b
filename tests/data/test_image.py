"""Every kind of picture is read right or refused with a reason."""

import pathlib
import pickle
import struct
import zlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from git_jax.data.image import BadPicture, Crop, Resize, Within, decode
from git_jax.nn.embed import CLIP_MEAN, CLIP_STD, normalise_pixels
from tests.data.conftest import colours, encoded


def reason(picture: Any, **how: Any) -> str:
    with pytest.raises(BadPicture) as caught:
        decode(picture, **how)
    assert caught.value.detail
    return caught.value.reason


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    """A PNG by hand, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + name
        + data
        + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


# Read right --------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_keep_every_pixel(format: str) -> None:
    picture = colours(5, 9)
    how = {"lossless": True} if format == "WEBP" else {}
    np.testing.assert_array_equal(decode(encoded(picture, format, **how)), picture)


def test_a_path_an_array_and_bytes_are_one(tmp_path: pathlib.Path) -> None:
    picture = colours(5, 9)
    (tmp_path / "a.png").write_bytes(encoded(picture))
    for given in (
        picture,
        encoded(picture),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
    ):
        np.testing.assert_array_equal(decode(given), picture)


# What the camera stored, of what was before it, by EXIF's number: where row 0 and
# column 0 lie.
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[::-1],
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
    8: lambda p: p.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_turns_the_picture_upright(orientation: int, format: str) -> None:
    upright, exif = colours(4, 7), Image.Exif()
    exif[0x0112] = orientation
    how = {"lossless": True} if format == "WEBP" else {}
    stored = np.ascontiguousarray(STORED[orientation](upright))
    read = decode(encoded(stored, format, exif=exif, **how))
    np.testing.assert_array_equal(read, upright)


def test_exif_turns_a_jpeg() -> None:
    upright, exif = np.zeros((16, 32, 3), np.uint8), Image.Exif()
    upright[:, 16:] = 255
    exif[0x0112] = 6
    stored = np.ascontiguousarray(STORED[6](upright))
    read = decode(encoded(stored, "JPEG", exif=exif, quality=95))
    np.testing.assert_allclose(read.astype(int), upright, atol=8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\xff\xff\xff\xff"]
)
def test_broken_exif_spoils_nothing(exif: bytes) -> None:
    assert decode(encoded(colours(8, 8), "JPEG", exif=exif)).shape == (8, 8, 3)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(format: str) -> None:
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    read = decode(encoded(ink, format))
    np.testing.assert_allclose(read.astype(int), [[[255, 0, 0]] * 8] * 8, atol=3)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(format: str) -> None:
    grey = np.array([[0, 128, 129, 257, 1000, 32768, 65280, 65535]], np.uint16)
    expected = np.round(grey / 257).astype(np.uint8)[:, :, None].repeat(3, 2)
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(grey), format)), expected
    )


def test_sixteen_bits_in_colour() -> None:
    rows = b"\0" + struct.pack(">6H", 0, 65535, 0x8000, 0x1234, 0, 65535)
    read = decode(png(2, 1, 16, 2, rows))
    np.testing.assert_array_equal(read, [[[0, 255, 0x80], [0x12, 0, 255]]])


def test_grey_black_and_white() -> None:
    grey = colours(4, 6)[:, :, 0]
    three = grey[:, :, None].repeat(3, 2)
    np.testing.assert_array_equal(decode(encoded(grey)), three)
    bits = Image.fromarray(grey > 127)
    expected = np.where(grey > 127, 255, 0)[:, :, None].repeat(3, 2)
    np.testing.assert_array_equal(decode(encoded(bits)), expected)


def test_transparency_lies_over_white() -> None:
    red = np.full((1, 3, 4), (255, 0, 0, 0), np.uint8)
    red[0, :, 3] = 0, 51, 255
    expected = [[[255, 255, 255], [255, 204, 204], [255, 0, 0]]]
    np.testing.assert_array_equal(decode(encoded(red)), expected)
    np.testing.assert_array_equal(decode(red), expected)
    grey = np.array([[[0, 0], [0, 255]]], np.uint8)
    np.testing.assert_array_equal(decode(encoded(grey)), [[[255] * 3, [0] * 3]])


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_palette_with_a_transparent_colour(format: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(
        decode(encoded(image, format)), [[[10, 20, 30], [200, 100, 50]]]
    )
    np.testing.assert_array_equal(
        decode(encoded(image, format, transparency=0)), [[[255] * 3, [200, 100, 50]]]
    )


def test_one_transparent_colour_without_a_palette() -> None:
    picture = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    read = decode(encoded(picture, transparency=(1, 2, 3)))
    np.testing.assert_array_equal(read, [[[255] * 3, [4, 5, 6]]])
    read = decode(encoded(picture[:, :, 0], transparency=4))
    np.testing.assert_array_equal(read, [[[1] * 3, [255] * 3]])
    deep = Image.fromarray(np.array([[0, 65535, 257]], np.uint16))
    read = decode(encoded(deep, transparency=0))
    np.testing.assert_array_equal(read, [[[255] * 3, [255] * 3, [1] * 3]])


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(format: str) -> None:
    frames = [Image.new("RGB", (4, 4), c) for c in ((255, 0, 0), (0, 0, 255))]
    how = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **how)
    np.testing.assert_array_equal(decode(data), np.array(frames[0]))


def test_arrays() -> None:
    grey = colours(3, 4)[:, :, 0]
    three = grey[:, :, None].repeat(3, 2)
    for given in (grey, grey[:, :, None], grey.astype(np.uint16) * 257):
        read = decode(given)
        np.testing.assert_array_equal(read, three)
        assert read.dtype == np.uint8


# Refused with a reason ---------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_half_a_file_is_refused(format: str) -> None:
    data = encoded(colours(64, 64), format)
    assert reason(data[: len(data) // 2]) in ("truncated image", "broken image")


def test_a_truncated_jpeg_is_named_so() -> None:
    assert reason(encoded(colours(64, 64), "JPEG")[:-300]) == "truncated image"


def test_what_is_no_picture_is_refused(tmp_path: pathlib.Path) -> None:
    assert reason(b"") == "empty file"
    assert reason(b"<html>not found</html>") == "not an image"
    assert reason(tmp_path / "none.png") == "missing file"
    assert reason(tmp_path) == "missing file"
    (tmp_path / "zero.png").write_bytes(b"")
    assert reason(str(tmp_path / "zero.png")) == "empty file"


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = png(50_000, 50_000, 8, 2, b"\0" * 1000)
    assert reason(bomb) == "decompression bomb"
    assert Image.MAX_IMAGE_PIXELS == 1024**3 // 4 // 3


def test_the_limit_of_pixels_can_be_set() -> None:
    picture = encoded(colours(10, 10))
    assert decode(picture, pixels=100).shape == (10, 10, 3)
    with pytest.raises(
        BadPicture, match="10 x 10 .* 99 pixels.*--config.loader.pixels"
    ):
        decode(picture, pixels=99)


def test_more_than_pillows_own_limit_can_be_allowed(monkeypatch: Any) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode(encoded(colours(10, 10))).shape == (10, 10, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.full((4, 4), 70_000, np.int32),
        np.full((4, 4), -1, np.int32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint16),
        np.zeros(4, np.uint8),
    ],
)
def test_pixels_without_a_known_white_are_refused(array: np.ndarray) -> None:
    assert reason(array) == "unknown pixels"


def test_a_float_picture_is_refused() -> None:
    image = Image.fromarray(np.zeros((4, 4), np.float32))
    assert reason(encoded(image, "TIFF")) == "unknown pixels"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_any_damage_is_read_or_refused(format: str) -> None:
    whole, rng = encoded(colours(24, 24), format), np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=rng.integers(1, 9)):
            data[place] = rng.integers(256)
        try:
            read = decode(bytes(data), pixels=10_000)
        except BadPicture as error:
            assert error.detail
        else:
            assert read.dtype == np.uint8 and read.shape[2:] == (3,)


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BadPicture("empty file", "zero bytes")))
    assert (error.reason, error.detail) == ("empty file", "zero bytes")
    assert isinstance(error, ValueError)


# Squares -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_resize_is_the_middle_of_the_whole_resized_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, height, width = (int(n) for n in rng.integers((8, 8, 8), (64, 200, 200)))
    picture = colours(height, width, seed)
    short = min(height, width)
    tall, wide = int(size * height / short), int(size * width / short)
    whole = Image.fromarray(picture).resize((wide, tall), Image.Resampling.BICUBIC)
    top, left = (tall - size) // 2, (wide - size) // 2
    expected = np.asarray(whole)[top : top + size, left : left + size]
    np.testing.assert_array_equal(Resize(size)(picture), expected)


@pytest.mark.parametrize("upright", [False, True])
def test_a_margin_is_rounded_as_transformers_or_as_torchvision(upright: bool) -> None:
    """Their center_crop cuts from margin // 2, CenterCrop from round(margin / 2.0)."""
    differ = set()
    for margin in range(24):
        picture = colours(20, 20 + margin)
        down = picture[:, margin // 2 : margin // 2 + 20]
        start = int(round(margin / 2.0))
        even = picture[:, start : start + 20]
        if upright:
            picture, down, even = (p.swapaxes(0, 1) for p in (picture, down, even))
        for square in (Resize(20), Crop(20)):
            np.testing.assert_array_equal(square(picture), down)
        for square in (Resize(20, rounding="even"), Crop(20, rounding="even")):
            np.testing.assert_array_equal(square(picture), even)
        if (down != even).any():
            differ.add(margin)
    assert differ == {3, 7, 11, 15, 19, 23}


def plain(
    picture: np.ndarray, height: int, width: int, filter: Image.Resampling
) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((width, height), filter))


def test_the_filter_is_bicubic_or_bilinear() -> None:
    picture = colours(40, 40)
    for name in ("bicubic", "bilinear"):
        expected = plain(picture, 16, 16, Image.Resampling[name.upper()])
        np.testing.assert_array_equal(Resize(16, name)(picture), expected)
        whole = Crop(16, (1.0, 1.0), name)
        np.testing.assert_array_equal(whole(picture), expected)
        drawn = whole(picture, np.random.default_rng(0))
        np.testing.assert_array_equal(drawn, expected)
    with pytest.raises(ValueError, match="filter='nearest' is none of bicubic, bili"):
        Resize(16, "nearest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rounding='up' is none of down, even"):
        Crop(16, rounding="up")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [224, 75])
def test_pixels_are_those_of_transformers(photos: pathlib.Path, size: int) -> None:
    reason = "requirements-parity.txt is not installed"
    transformers = pytest.importorskip("transformers", reason=reason)
    theirs = transformers.CLIPImageProcessorPil(size=size, crop_size=size)
    margins, files = set(), sorted((photos / "images").iterdir())
    for file in files:
        picture = decode(file)
        height, width = picture.shape[:2]
        margins.add(int(size * max(height, width) / min(height, width)) % 4)
        expected = theirs(Image.open(file))["pixel_values"][0].transpose(1, 2, 0)
        frames = jnp.asarray(Resize(size)(picture))[None, None]
        ours = normalise_pixels(frames, CLIP_MEAN, CLIP_STD, "float32")[0, 0]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    assert len(files) == 76 and len(margins) == 4


def test_a_strip_is_cut_before_it_is_enlarged() -> None:
    strip = np.zeros((1, 2**22, 3), np.uint8)
    strip[0, 2**21 - 8 : 2**21 + 8] = 255
    for picture in (strip, strip.swapaxes(0, 1)):
        assert (Resize(224)(picture) == 255).all()


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    picture = colours(16, 16)
    assert Resize(16)(picture) is picture
    assert Crop(16)(picture) is picture
    crop = Crop(16, scale=(1.0, 1.0))(picture, np.random.default_rng(0))
    np.testing.assert_array_equal(crop, picture)
    assert np.shares_memory(crop, picture)


def test_without_a_generator_the_crop_is_the_middle() -> None:
    picture = colours(20, 31)
    np.testing.assert_array_equal(Crop(16)(picture), Resize(16)(picture))


def test_crops_are_squares_of_the_drawn_area() -> None:
    picture = np.indices((100, 100)).transpose(1, 2, 0).astype(np.uint8)
    picture = np.concatenate([picture, picture[:, :, :1]], axis=2)
    rng = np.random.default_rng(0)
    seen = np.array([Crop(50, (0.25, 0.64))._square(100, 100, rng) for _ in range(500)])
    top, left, side = seen.T
    assert side.min() >= 50 and side.max() <= 80
    assert (top >= 0).all() and (top + side <= 100).all()
    assert (left >= 0).all() and (left + side <= 100).all()
    assert abs((side**2).mean() / 10_000 - 0.445) < 0.02  # the area is uniform
    assert abs((top / (100 - side)).mean() - 0.5) < 0.05
    assert (top != left).mean() > 0.9


def test_a_crop_is_cut_out_and_never_mirrored() -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:, 20:] = 255
    for seed in range(20):
        crop = Crop(20, (0.5, 1.0))(picture, np.random.default_rng(seed)).astype(int)
        assert (crop[:, 0] <= crop[:, -1]).all()


def test_a_wide_picture_gives_its_middle_as_in_torchvision() -> None:
    picture = colours(30, 60)
    crop = Crop(30, (0.8, 1.0))(picture, np.random.default_rng(0))
    np.testing.assert_array_equal(crop, picture[:, 15:45])


def test_one_crop_for_all_frames() -> None:
    clip = [colours(40, 40, 1)] * 3
    first, second, third = Crop(20, (0.3, 0.6)).video(clip, np.random.default_rng(5))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)
    one = Crop(20, (0.3, 0.6))(clip[0], np.random.default_rng(5))
    np.testing.assert_array_equal(first, one)


@pytest.mark.parametrize("transform", [Crop(8), Resize(8), Within(8, 9)])
def test_frames_of_two_sizes_are_refused(transform: Crop | Resize) -> None:
    with pytest.raises(BadPicture, match="frames differ"):
        transform.video([colours(9, 9), colours(9, 10)], np.random.default_rng(0))


# Whole pictures ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ((480, 640), (480, 640)),
        ((427, 640), (427, 640)),
        ((640, 427), (640, 427)),
        ((500, 500), (480, 480)),
        ((100, 120), (480, 576)),  # enlarged
        ((600, 800), (480, 640)),
        ((601, 800), (480, 638)),  # 638.9 rounded down
        ((1080, 1920), (360, 640)),
        ((100, 300), (213, 639)),  # 213.3
        ((100, 301), (213, 641)),  # 212.6: the release exceeds its own limit by one
    ],
)
def test_within_has_the_shapes_of_the_release(
    given: tuple[int, int], seen: tuple[int, int]
) -> None:
    for turn in (1, -1):
        picture = colours(*given[::turn])
        assert Within()(picture).shape == (*seen[::turn], 3)


@pytest.mark.parametrize("seed", range(20))
def test_within_is_the_whole_picture_resized(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers((8, 8), (200, 200)))
    picture = colours(height, width, seed)
    # The larger scale of two: to a short side of 42, or to a long side of 56.
    scale = min(42 / min(height, width), 56 / max(height, width))
    short = round(scale * min(height, width))
    tall, wide = (int(short * n / min(height, width)) for n in (height, width))
    assert max(tall, wide) <= 56 + max(height, width) / min(height, width)
    expected = plain(picture, tall, wide, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(Within(42, 56)(picture), expected)


def test_within_leaves_what_fits_and_treats_a_clip_alike() -> None:
    picture = colours(42, 50)
    assert Within(42, 56)(picture) is picture
    frames = Within(21, 28).video([picture] * 3, np.random.default_rng(0))
    assert [frame.shape for frame in frames] == [(21, 25, 3)] * 3


def test_a_strip_without_width_is_a_bad_picture() -> None:
    with pytest.raises(BadPicture, match="too narrow: of 3000 x 1 no width is left"):
        Within()(np.zeros((1, 3000, 3), np.uint8))
    assert Within()(np.zeros((1000, 1, 3), np.uint8)).shape == (1000, 1, 3)


def test_a_crop_may_evaluate_whole_pictures() -> None:
    picture, crop = colours(42, 50), Crop(21, long=28)
    np.testing.assert_array_equal(crop(picture), Within(21, 28)(picture))
    assert crop(picture, np.random.default_rng(0)).shape == (21, 21, 3)


def test_fields_are_checked() -> None:
    for wrong in ((0, 640), (480, 0), (480, 2**15)):
        with pytest.raises(ValueError, match="is no width of a picture"):
            Within(*wrong)
    with pytest.raises(ValueError, match="long=480 is less than short=640"):
        Within(640, 480)
    with pytest.raises(ValueError, match="long=7 is less than short=8"):
        Crop(8, long=7)
    with pytest.raises(ValueError, match="size=0"):
        Resize(0)
    with pytest.raises(ValueError, match=r"scale=\(0.9, 0.8\)"):
        Crop(8, (0.9, 0.8))
