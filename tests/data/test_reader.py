"""A record as its task reads it: what becomes of its texts, and what is refused."""

import dataclasses

import numpy as np
import pytest

from git_jax.data.image import Crop
from git_jax.data.order import generator
from git_jax.data.reader import Reader
from git_jax.data.source import BadRecord
from git_jax.data.tokenizer import Bytes
from tests.data.conftest import Drawn, Say

READER = Reader(
    Drawn(1),
    Say(),
    Bytes(),
    text=20,
    captions=1,
    frames=1,
    image=Crop(8),
    long="refuse",
    pixels=1000,
)
RNG = generator(0, 0)


def reader(suffix: str, prefix: str = "", **fields: object) -> Reader:
    """READER for a record with one text."""
    source = Drawn(1, texts=(suffix,))
    return dataclasses.replace(READER, source=source, task=Say(prefix), **fields)


def test_texts_become_ids() -> None:
    (text,) = reader("cat", "a ").training(0, RNG).texts
    assert text == (Bytes().encode("a "), [*Bytes().encode("cat"), Bytes().eos])
    several = dataclasses.replace(READER, captions=3).training(0, RNG)
    said = {Bytes().decode(suffix) for _, suffix in several.texts}
    assert said == set(several.record["texts"])


def test_a_caption_without_a_token_is_a_bad_record() -> None:
    with pytest.raises(BadRecord, match="0: empty caption: '' has no token"):
        reader("").training(0, RNG)


def test_a_long_caption_is_a_bad_record_by_default() -> None:
    with pytest.raises(BadRecord, match="caption longer than T") as caught:
        reader("nineteen letters ab").training(0, RNG)
    message = str(caught.value)
    assert "21 tokens with begin and end, T is --config.loader.text=20" in message
    for flag in (
        "--config.loader.text=21 --config.model.embed.positions=21",
        "--config.evaluate.search.max_tokens=20",
        "--config.loader.long=cut",
    ):
        assert flag in message
    assert reader("nineteen letters ab", text=21).training(0, RNG).texts


@pytest.mark.parametrize("prefix", ["", "ab", "a prefix of twenty le", "p" * 60])
@pytest.mark.parametrize("suffix", ["x", "short", "exactly 18 letters", "l" * 40])
def test_cutting_keeps_the_last_tokens(prefix: str, suffix: str) -> None:
    (text,) = reader(suffix, prefix, long="cut").training(0, RNG).texts
    assert Bytes().decode(text[0] + text[1]) == (prefix + suffix)[-18:]
    assert Bytes().decode(text[1]) == suffix[-18:]
    assert text[1][-1] == Bytes().eos


def test_evaluation_minds_no_caption_but_the_prefix() -> None:
    read = reader("l" * 99, "p" * 19).evaluation(0, RNG)
    assert read.texts == [(Bytes().encode("p" * 19), [])]
    with pytest.raises(ValueError, match="prefix of '0' has 21 tokens.*text=20"):
        reader("l" * 99, "p" * 20).evaluation(0, RNG)


def test_evaluation_sees_the_middle_whole() -> None:
    first, second = (READER.evaluation(0, generator(seed, 0)) for seed in range(2))
    np.testing.assert_array_equal(first.frames, READER.source[0]["frames"])
    np.testing.assert_array_equal(first.frames, second.frames)


def test_a_clip_is_no_picture_and_nothing_is_neither() -> None:
    for frames, seen in ((2, 1), (0, 1), (0, 2)):
        of = dataclasses.replace(READER, source=Drawn(1, frames=frames), frames=seen)
        with pytest.raises(BadRecord, match=f"frames: it has {frames}, .*={seen}"):
            of.training(0, RNG)
