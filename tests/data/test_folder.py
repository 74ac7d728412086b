"""A folder of pictures: what it hands out, and what it refuses."""

import os
import pathlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from git_jax.data.folder import Folder
from git_jax.data.image import decode
from git_jax.data.source import BadRecord, Source
from tests.data.conftest import FolderMaker, colours, encoded


def row(name: str, *texts: str, **rest: Any) -> dict[str, Any]:
    return {"file_name": name, "texts": list(texts)} | rest


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
