"""A prepared TFDS set: what it hands out, and what it refuses."""

import dataclasses
import pathlib
import pickle
from typing import Any

import numpy as np
import pytest

from git_jax.data.image import decode
from git_jax.data.source import BadRecord, Source
from git_jax.data.tfds import Tfds
from tests.data.conftest import colours


def test_tfds_records(prepared: Tfds) -> None:
    assert isinstance(prepared, Source)
    assert (len(prepared), prepared.splits) == (6, ("test",))
    found = {}
    for index in range(6):
        try:
            record = prepared[index]
        except BadRecord as error:
            assert error.reason == "empty caption"
            continue
        assert record["id"] == f"small/train/{index}"
        (text,) = record["texts"]
        number = int(text.removeprefix("the über picture "))
        found[number] = decode(record["frames"][0])
        assert record["label"] == number % 3
        assert record["captions"] == [{"text": t} for t in ("one", "two")[:number]]
        assert record["caption"] == text and "image" not in record
    assert sorted(found) == [1, 2, 3, 4, 5]
    for number, picture in found.items():
        np.testing.assert_array_equal(picture, colours(5, 7, number))


def test_tfds_clips_and_several_captions(prepared: Tfds) -> None:
    clips = dataclasses.replace(prepared, image="clip", text="captions/text")
    sizes, reasons = [], []
    for index in range(6):
        try:
            record = clips[index]
        except BadRecord as error:
            reasons.append(error.reason)
            continue
        sizes.append(len(record["texts"]))
        first, second = (decode(frame) for frame in record["frames"])
        np.testing.assert_array_equal(second, colours(5, 7, 99))
        assert first.shape == (5, 7, 3)
    assert (sorted(sizes), reasons) == ([1, 2, 2, 2, 2], ["no caption"])


def test_tfds_is_found_by_its_name_and_cut_by_its_split(prepared: Tfds) -> None:
    assert prepared.path is not None
    root = pathlib.Path(prepared.path).parents[1]
    named = Tfds(path=str(root), name="small:1.0.0", part="train[2:]")
    assert len(named) == 4
    assert named[1]["id"] == "small/train[2:]/1"
    assert named[1]["texts"] == Tfds(path=str(root), name="small")[3]["texts"]
    assert named.splits == ("test",)
    assert len(named.split("test")) == 3
    assert named.split("test").splits == ("train",)
    again = pickle.loads(pickle.dumps(named))
    assert again[1]["texts"] == named[1]["texts"]


def test_tfds_records_may_bring_their_ids(prepared: Tfds) -> None:
    named = dataclasses.replace(prepared, text="captions/text", id="number")
    assert {_id(named, index) for index in range(6)} == set("012345")
    spoken = dataclasses.replace(named, id="caption").split("test")
    assert "the über picture 1" in [_id(spoken, index) for index in range(3)]


def _id(records: Source, index: int) -> str:
    try:
        return records[index]["id"]
    except BadRecord as error:
        return error.id


def test_tfds_mistakes_are_named(prepared: Tfds, tmp_path: pathlib.Path) -> None:
    def refused(match: str, **fields: Any) -> None:
        with pytest.raises(ValueError, match=match):
            len(dataclasses.replace(prepared, **fields))

    refused("needs --config.data.path", path=None)
    refused("no prepared TFDS set with .*'/nowhere'.*array_record", path="/nowhere")
    refused("no prepared TFDS set with name='other'", path=str(tmp_path), name="other")
    refused(r"small has no split 'val': it has train, test, and slices", part="val")
    refused("no split 'train.:x.'", part="train[:x]")
    refused("image='label' is no image of small: it has .*clip", image="label")
    refused("id='key' is no id of small: it has .*number", id="key")
    refused("text='title' is no text of small: it has .*captions/text", text="title")
    with pytest.raises(ValueError, match="no split 'val'"):
        prepared.split("val")


def test_tfds_of_another_format_is_refused(
    prepared: Tfds, tmp_path: pathlib.Path
) -> None:
    assert prepared.path is not None
    old = pathlib.Path(prepared.path)
    for name in ("dataset_info.json", "features.json"):
        text = (old / name).read_text()
        (tmp_path / name).write_text(text.replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="prepared as tfrecord.*=array_record"):
        len(Tfds(path=str(tmp_path)))
