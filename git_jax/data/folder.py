"""A folder of pictures beside a `metadata.jsonl` as a source of records."""

import dataclasses
import functools
import json
import os
import posixpath
from collections.abc import Iterator
from typing import Any

import numpy as np

from git_jax.data.source import BadRecord, Lazy, Record, within

METADATA = "metadata.jsonl"


@dataclasses.dataclass(frozen=True)
class Folder(Lazy):
    """Pictures beside a `metadata.jsonl`, the image-folder convention.

        {"file_name": "images/a.jpg", "text": "a cat on a mat"}
        {"file_name": "b.png", "texts": ["two dogs", "dogs at play"], "label": 3}

    A row's id is its `file_name`, its texts are `text` and `texts` together; other keys
    are handed on with the record. The whole file is checked when it is first needed
    and only the place of each row is kept: 8 bytes a row. Files are looked up in one
    listing per directory, not with a question per row.

    Raises ValueError, naming file, line, value and the way out, for a folder that is
    missing or has no rows, and for a row that is not UTF-8, not JSON, names no file,
    a missing one, one outside the folder or one already named, or has no text.
    """

    path: str

    splits = ("train",)

    def split(self, name: str) -> "Folder":
        if name not in self.splits:
            raise ValueError(
                f"{self.path} has no split {name!r}: an image folder has one, 'train'; "
                "keep other splits in folders of their own"
            )
        return self

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Record:
        row = self._row(index)
        id = posixpath.normpath(row["file_name"])
        try:
            with open(os.path.join(self.path, id), "rb") as file:
                picture = file.read()
        except OSError as error:
            raise BadRecord(id, "unreadable file", str(error)) from error
        rest = {key: value for key, value in row.items() if key not in _OWN_KEYS}
        return rest | {"id": id, "frames": [picture], "texts": _texts(row)}

    def texts(self, index: int) -> tuple[str, ...]:
        return _texts(self._row(index))

    def _row(self, index: int) -> dict[str, Any]:
        with open(os.path.join(self.path, METADATA), "rb") as file:
            file.seek(self._offsets[within(index, len(self))])
            return json.loads(file.readline())

    @functools.cached_property
    def _offsets(self) -> np.ndarray:
        """Where each row starts in the file: i64 [rows]."""
        if not os.path.isdir(self.path):
            raise ValueError(
                f"there is no folder {self.path!r}: --config.data.path must name a "
                f"folder of pictures with a {METADATA}"
            )
        try:
            offsets = list(self._checked_rows())
        except OSError as error:
            raise ValueError(
                f"{os.path.join(self.path, METADATA)} cannot be opened "
                f"({error.strerror}): write one line for each picture, such as "
                '{"file_name": "a.jpg", "text": "a cat"}'
            ) from error
        if not offsets:
            raise ValueError(
                f"{os.path.join(self.path, METADATA)} has no rows: write one line for "
                'each picture, such as {"file_name": "a.jpg", "text": "a cat"}'
            )
        return np.array(offsets, np.int64)

    def _checked_rows(self) -> Iterator[int]:
        """Yields where each row starts once it was checked."""
        where = os.path.join(self.path, METADATA)
        listing, first_line = _Listing(self.path), dict[str, int]()
        offset = 0
        with open(where, "rb") as file:
            for number, line in enumerate(file, start=1):
                start, offset = offset, offset + len(line)
                if number == 1 and line.startswith(_BYTE_ORDER_MARK):
                    start += len(_BYTE_ORDER_MARK)
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                if not line.strip():
                    continue
                try:
                    id = _check(line, listing)
                    if id in first_line:
                        raise ValueError(
                            f"{id!r} was already named on line {first_line[id]}: put "
                            'all captions of a picture into one row, as "texts"'
                        )
                except ValueError as error:
                    raise ValueError(f"{where}:{number}: {error}") from error
                first_line[id] = number
                yield start


_OWN_KEYS = ("file_name", "text", "texts")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def _texts(row: dict[str, Any]) -> tuple[str, ...]:
    """`text` and `texts` of a row together, in that order, each once."""
    text = () if row.get("text") is None else (row["text"],)
    return tuple(dict.fromkeys((*text, *(row.get("texts") or ()))))


def _check(line: bytes, listing: "_Listing") -> str:
    """The id of a row of metadata, or a ValueError without the place."""
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        found = line[max(0, error.start - 20) : error.start + 20]
        raise ValueError(
            f"not UTF-8 at byte {error.start} ({found!r}): save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"not JSON ({error.msg} at column {error.colno}): {_short(line.decode())}; "
            "a row is one JSON object on one line"
        ) from error
    if not isinstance(row, dict):
        raise ValueError(
            f"{_short(row)} is not a JSON object: a row looks like "
            '{"file_name": "a.jpg", "text": "a cat"}'
        )
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(
            f"the row {_short(row)} has no file_name: add "
            '"file_name": the path of its picture, relative to the folder'
        )
    id = posixpath.normpath(name)
    if id.startswith(("/", "../")) or id in ("..", ".") or "\0" in id:
        raise ValueError(
            f"file_name {name!r} leads outside the folder: name files below it, by "
            "relative paths"
        )
    if id not in listing:
        raise ValueError(
            f"there is no file {name!r} in the folder: restore the file or remove the "
            "row"
        )
    _check_texts(row, name)
    return id


def _check_texts(row: dict[str, Any], name: str) -> None:
    text, several = row.get("text"), row.get("texts")
    if several is not None and not isinstance(several, list):
        raise ValueError(
            f"texts of {name!r} is {_short(several)}: it must be a list of strings; a "
            'single caption goes under "text"'
        )
    captions = ([] if text is None else [text]) + (several or [])
    if not captions:
        raise ValueError(
            f"the row of {name!r} has neither text nor texts: add "
            '"text": "..." or "texts": ["...", "..."], or remove the row'
        )
    for caption in captions:
        if not isinstance(caption, str):
            raise ValueError(
                f"the caption {_short(caption)} of {name!r} is not a string: write it "
                "in quotes"
            )
        if not caption.strip():
            raise ValueError(
                f"a caption of {name!r} is empty ({caption!r}): write one or remove it"
            )
        # JSON can name half of a surrogate pair, which no encoder accepts.
        if any("\ud800" <= letter <= "\udfff" for letter in caption):
            raise ValueError(
                f"the caption {_short(caption)} of {name!r} is not UTF-8 (it holds "
                "half of a surrogate pair): correct the caption"
            )


def _short(value: Any, size: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= size else text[:size] + "..."


class _Listing:
    """`name in listing`: is there such a file? Each directory is listed once."""

    def __init__(self, root: str):
        self._root, self._files = root, dict[str, frozenset[str]]()

    def __contains__(self, name: str) -> bool:
        directory, base = posixpath.split(name)
        if directory not in self._files:
            self._files[directory] = self._list(os.path.join(self._root, directory))
        return base in self._files[directory]

    @staticmethod
    def _list(directory: str) -> frozenset[str]:
        try:
            with os.scandir(directory) as entries:
                return frozenset(entry.name for entry in entries if entry.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        except OSError as error:
            raise ValueError(
                f"the folder {directory!r} cannot be listed ({error.strerror}): make "
                "it readable, or correct file_name"
            ) from error
