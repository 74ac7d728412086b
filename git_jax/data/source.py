"""What a source of records is; `folder.py`, `tfds.py` and `mixture.py` each hold one.

A record is a dict with
    "id"      str, unique in its source
    "frames"  list of bytes (an encoded picture) or np.uint8 [h w 3], one per frame
    "texts"   tuple[str, ...]
and whatever else the source knows ("label", "questions", ...). Pictures stay encoded
until the loader needs their pixels, and nothing is read before it is asked for.

A source is a frozen dataclass: cheap to make, to compare and to send to a worker. What
it reads from disk is opened on first use and stays behind when it is pickled.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

Record: TypeAlias = dict[str, Any]


class BadRecord(Exception):
    """One record cannot be read; the others may well be fine.

    `reason` is a short category that can be counted ("truncated image"), `detail` says
    what was found and what to do about it.
    """

    def __init__(self, id: str, reason: str, detail: str = ""):
        super().__init__(id, reason, detail)  # the arguments, so that it pickles
        self.id, self.reason, self.detail = id, reason, detail

    def __str__(self) -> str:
        return f"{self.id}: {self.reason}" + (f": {self.detail}" if self.detail else "")


@runtime_checkable
class Source(Protocol):
    """Records by index, from any thread."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are evaluated when none is named."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Raises BadRecord where this record alone cannot be read."""

    def split(self, name: str) -> "Source":
        """The same source, another split. ValueError names the legal ones."""


def texts(source: Source, index: int) -> tuple[str, ...]:
    """The texts of a record, without its picture where the source can do that.

    A source may offer `texts(index)`; training a tokenizer needs no pictures.
    """
    read = getattr(source, "texts", None)
    return read(index) if read else source[index]["texts"]


def within(index: int, size: int) -> int:
    """Python's rule for an index: negative counts from the end."""
    if not -size <= index < size:
        raise IndexError(f"record {index} of {size}")
    return index % size


class Lazy:
    """A frozen dataclass that is pickled as its fields, without what it has opened."""

    def __getstate__(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: self.__dict__[field.name] for field in fields}


@dataclass(frozen=True)
class Excerpt:
    """`count` records of a source, spread evenly over it.

    Three of eight are 0 2 5.
    """

    source: Source
    count: int

    @property
    def splits(self) -> tuple[str, ...]:
        return self.source.splits

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        return self.source[range(self.count)[index] * len(self.source) // self.count]

    def split(self, name: str) -> Source:
        return self.source.split(name)
