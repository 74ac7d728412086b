"""Folders, TFDS sets and mixtures: what they hand out, and what they refuse."""

import dataclasses
import os
import pathlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from git_jax.data import source
from git_jax.data.image import decode
from git_jax.data.source import BadRecord, Folder, Mixture, Source, Tfds
from tests.data.conftest import FolderMaker, colours, encoded


def row(name: str, *texts: str, **rest: Any) -> dict[str, Any]:
    return {"file_name": name, "texts": list(texts)} | rest


def test_a_bad_record_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BadRecord("a.jpg", "empty caption", "''")))
    assert (error.id, error.reason, error.detail) == ("a.jpg", "empty caption", "''")
    assert str(error) == "a.jpg: empty caption: ''"


# Folder ------------------------------------------------------------------------------


def test_a_folder_hands_out_its_rows_in_order(folder: FolderMaker) -> None:
    rows = [
        row("a.png", "a cat", "a tom", "a cat"),
        {"file_name": "sub/b.png", "text": "zwei Hünde ☃", "label": 3, "id": "x"},
        {"file_name": "./c.png", "text": "one", "texts": ["two", "one"]},
        {"file_name": "d.png", "text": None, "texts": ["four"]},
        {"file_name": "e.png", "text": "five", "texts": None},
    ]
    records = Folder(str(folder(rows)))
    assert isinstance(records, Source)
    assert len(records) == 5
    found = [records[i] for i in range(5)]
    assert [r["id"] for r in found] == ["a.png", "sub/b.png", "c.png", "d.png", "e.png"]
    assert [r["texts"] for r in found] == [
        ("a cat", "a tom"),
        ("zwei Hünde ☃",),
        ("one", "two"),
        ("four",),
        ("five",),
    ]
    assert found[1]["label"] == 3
    assert records.texts(2) == ("one", "two")
    (picture,) = found[1]["frames"]
    np.testing.assert_array_equal(decode(picture), colours(6, 8, 1))


def test_blank_lines_a_mark_and_carriage_returns_are_no_rows(
    folder: FolderMaker,
) -> None:
    path = folder([row("a.png", "a"), row("b.png", "b")])
    metadata = path / "metadata.jsonl"
    first, second = metadata.read_bytes().splitlines()
    metadata.write_bytes(
        b"\xef\xbb\xbf" + first + b"\r\n\n  \r\n" + second  # and no end of line
    )
    records = Folder(str(path))
    assert [records[i]["texts"] for i in range(2)] == [("a",), ("b",)]


def test_indices_are_pythons(folder: FolderMaker) -> None:
    records = Folder(str(folder([row("a.png", "a"), row("b.png", "b")])))
    assert records[-1]["id"] == "b.png"
    for index in (2, -3):
        with pytest.raises(IndexError):
            records[index]


def test_a_folder_is_opened_when_it_is_used_and_pickled_closed(
    folder: FolderMaker,
) -> None:
    assert Folder("/nowhere").split("train") == Folder("/nowhere")
    records = Folder(str(folder([row(f"{i}.png", "a " * 99) for i in range(50)])))
    assert len(records) == 50
    data = pickle.dumps(records)
    assert len(data) < 300
    assert pickle.loads(data)[7]["id"] == "7.png"


def test_threads_may_share_a_folder(folder: FolderMaker) -> None:
    records = Folder(str(folder([row(f"{i}.png", f"text {i}") for i in range(40)])))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(records.__getitem__, list(range(40)) * 5))
    assert [r["texts"] for r in found] == [(f"text {i}",) for i in range(40)] * 5


def test_each_directory_is_listed_once(
    folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder([row(f"{i % 2}/{i}.png", "a") for i in range(30)])
    listed = list[str]()

    def scandir(directory: str) -> Any:
        listed.append(os.path.basename(directory))
        return scan(directory)

    scan = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    assert len(Folder(str(path))) == 30
    assert sorted(listed) == ["0", "1"]


WRONG = {
    "not UTF-8": b'{"file_name": "a.png", "text": "caf\xe9"}',
    "not JSON": b'{"file_name": "a.png", "text": "a"',
    "is not a JSON object": b'["a.png", "a"]',
    "has no file_name": b'{"text": "a", "file": "a.png"}',
    "the row .* has no file_name": b'{"file_name": "", "text": "a"}',
    "'none.png' in the folder: restore": b'{"file_name": "none.png", "text": "a"}',
    "'sub' in the folder": b'{"file_name": "sub", "text": "a"}',
    "'sub/none.png' in the folder": b'{"file_name": "sub/none.png", "text": "a"}',
    "'no/a.png' in the folder": b'{"file_name": "no/a.png", "text": "a"}',
    "'a.png/b' in the folder": b'{"file_name": "a.png/b", "text": "a"}',
    r"'\.\./a.png' leads outside": b'{"file_name": "../a.png", "text": "a"}',
    r"'sub/\.\./\.\./a.png' leads": b'{"file_name": "sub/../../a.png", "text": "a"}',
    "'/etc/passwd' leads outside": b'{"file_name": "/etc/passwd", "text": "a"}',
    r"'\.' leads outside": b'{"file_name": ".", "text": "a"}',
    "cannot be listed .File name too long": (
        b'{"file_name": "' + b"d" * 300 + b'/a.png", "text": "a"}'
    ),
    "leads outside the folder": b'{"file_name": "a\\u0000", "text": "a"}',
    "neither text nor texts": b'{"file_name": "b.png", "caption": "a"}',
    "neither text": b'{"file_name": "b.png", "texts": []}',
    "must be a list of strings": b'{"file_name": "b.png", "texts": "a"}',
    "caption 7 of 'b.png' is not a string": b'{"file_name": "b.png", "text": 7}',
    "None of 'b.png' is not a string": b'{"file_name": "b.png", "texts": ["a", null]}',
    r"caption of 'b.png' is empty \(' '\)": b'{"file_name": "b.png", "text": " "}',
    "is empty": b'{"file_name": "b.png", "texts": ["a", ""]}',
    "half of a surrogate pair": b'{"file_name": "b.png", "text": "a \\ud800"}',
    "already named on line 1: .*one row": b'{"file_name": "a.png", "text": "a"}',
    "already named on line 1": b'{"file_name": "./sub/../a.png", "text": "a"}',
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_row_is_refused_by_its_line(folder: FolderMaker, message: str) -> None:
    picture = encoded(colours(2, 2))
    rows = [row("a.png", "a"), row("sub/c.png", "c"), WRONG[message]]
    pictures = dict.fromkeys(("a.png", "b.png", "sub/c.png"), picture)
    path = folder(rows, pictures)
    with pytest.raises(ValueError, match=message) as caught:
        len(Folder(str(path)))
    assert str(caught.value).startswith(f"{path}/metadata.jsonl:3: ")


def test_what_is_no_folder_of_pictures_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"no folder '/nowhere': --config.data.path"):
        len(Folder("/nowhere"))
    with pytest.raises(
        ValueError, match=r"metadata.jsonl cannot be opened .* one line"
    ):
        len(Folder(str(tmp_path)))
    (tmp_path / "metadata.jsonl").write_bytes(b"\n\n")
    with pytest.raises(ValueError, match=r"metadata.jsonl has no rows: write one line"):
        len(Folder(str(tmp_path)))


def test_a_folder_has_one_split(folder: FolderMaker) -> None:
    records = Folder(str(folder([row("a.png", "a")])))
    assert records.splits == ("train",)
    with pytest.raises(ValueError, match="no split 'test'.*'train'"):
        records.split("test")


def test_a_file_that_vanishes_spoils_its_record_alone(folder: FolderMaker) -> None:
    path = folder([row("a.png", "a"), row("b.png", "b")])
    records = Folder(str(path))
    assert len(records) == 2
    (path / "a.png").unlink()
    with pytest.raises(BadRecord, match="a.png: unreadable file: .*No such file"):
        records[0]
    assert records[1]["id"] == "b.png"


def test_real_photographs(photos: pathlib.Path) -> None:
    records = Folder(str(photos))
    assert len(records) == 76
    for index in range(0, 76, 15):
        record = records[index]
        assert len(record["texts"]) == 5
        assert max(decode(record["frames"][0]).shape) == 256


# TFDS --------------------------------------------------------------------------------


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


# Mixture -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Record i says the i-th number; every third is bad if so wished."""

    count: int
    name: str = "n"
    bad: bool = False
    splits = ("test", "other")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> source.Record:
        if self.bad and index % 3 == 0:
            raise BadRecord(f"{index}", "odd", "it is")
        return {"id": f"{index}", "frames": [], "texts": (f"{self.name} {index}",)}

    def split(self, name: str) -> "Numbers":
        return dataclasses.replace(self, name=name)


def mixed(weight: float = 3.0) -> Mixture:
    return Mixture(
        {"b": Numbers(6, "b", True), "a": Numbers(4, "a")}, dict(a=weight, b=1.0)
    )


def test_a_mixture_is_its_sources_one_after_another() -> None:
    mixture = mixed()
    assert isinstance(mixture, Source)
    assert len(mixture) == 10
    assert [mixture[i]["id"] for i in (0, 3, 5, -1)] == ["a/0", "a/3", "b/1", "b/5"]
    assert [mixture.texts(i) for i in (3, 5)] == [("a 3",), ("b 1",)]
    with pytest.raises(BadRecord, match="b/3: odd: it is"):
        mixture[7]
    with pytest.raises(IndexError):
        mixture[10]
    assert pickle.loads(pickle.dumps(mixture))[5]["id"] == "b/1"


def test_a_mixture_has_the_splits_of_its_sources() -> None:
    assert mixed().splits == ("a/test", "a/other", "b/test", "b/other")
    assert mixed().split("b/test") == Numbers(6, "test", True)
    for name in ("test", "c/test", "a"):
        with pytest.raises(ValueError, match=f"no split '{name}'.*a/test"):
            mixed().split(name)


def test_parts_flatten_nested_mixtures() -> None:
    nested = Mixture({"x": Numbers(2), "y": mixed()}, {"x": 1.0, "y": 1.0})
    assert source.parts(nested) == [
        source.Part(0, 2, 0.5),
        source.Part(2, 4, 0.375),
        source.Part(6, 6, 0.125),
    ]
    assert source.parts(Numbers(5)) == [source.Part(0, 5, 1.0)]


def test_mistaken_mixtures_are_named() -> None:
    numbers = Numbers(3)
    with pytest.raises(ValueError, match="sources is empty"):
        Mixture({}, {})
    with pytest.raises(ValueError, match=r"\['b'\], its sources are \['a'\]"):
        Mixture({"a": numbers}, {"b": 1.0})
    for weight in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="weights.a=.* is not a positive number"):
            Mixture({"a": numbers}, {"a": weight})
    with pytest.raises(ValueError, match="source 'a' of the mixture has no records"):
        len(Mixture({"a": Numbers(0)}, {"a": 1.0}))
