"""Where records come from: a folder of pictures, a prepared TFDS set, a mixture.

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
import functools
import json
import os
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

Record: TypeAlias = dict[str, Any]

METADATA = "metadata.jsonl"


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


def _within(index: int, size: int) -> int:
    """Python's rule for an index: negative counts from the end."""
    if not -size <= index < size:
        raise IndexError(f"record {index} of {size}")
    return index % size


class Lazy:
    """A frozen dataclass that is pickled as its fields, without what it has opened."""

    def __getstate__(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: self.__dict__[field.name] for field in fields}


# Folder ------------------------------------------------------------------------------


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
            file.seek(self._offsets[_within(index, len(self))])
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


# TFDS --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tfds(Lazy):
    """A prepared TFDS set, read record by record and without TensorFlow.

    path   the folder of the prepared set, the one with `dataset_info.json`; or with
           `name` the folder of many, ~/tensorflow_datasets unless given
    name   "coco_captions/2017:1.1.0"; configuration and version may be left out
    part   a split or a slice of one: "train", "validation[:500]"
    image  the feature that holds the picture, or a sequence of them, which is a clip
    text   the feature that holds the text or texts; "captions/text" is inside another
    id     the feature, a text or a number, that no two records share; without one the
           id of a record is "name/part/index"

    Pictures stay encoded, those of a clip TFDS decodes; all features but `image` are
    handed on with the record, texts as str and a sequence of dicts as a list of dicts.
    The set must have been prepared as array_record, whose records can be read in any
    order; its code is not needed.

    Raises ValueError where there is no such set, split or feature, or where its files
    cannot be read in any order.
    """

    path: str | None = None
    name: str | None = None
    part: str = "train"
    image: str = "image"
    text: str = "caption"
    id: str | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """All that are not the one of this part, or that one where it is alone."""
        own = self.part.partition("[")[0]
        return tuple(s for s in self._builder.info.splits if s != own) or (own,)

    def split(self, name: str) -> "Tfds":
        found = dataclasses.replace(self, part=name)
        found._split()
        return found

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        index = _within(index, len(self))
        id = f"{self._builder.name}/{self.part}/{index}"
        try:
            features = dict(self._records[index])
        except Exception as error:  # array_record, protobuf and Pillow have their own
            raise BadRecord(id, "unreadable record", str(error)) from error
        if self.id is not None:
            own = _feature(features, self.id)
            id = own.decode(errors="replace") if isinstance(own, bytes) else str(own)
        picture = _feature(features, self.image)
        frames = list(picture) if isinstance(picture, list | tuple) else [picture]
        texts = self._texts(id, features)
        rest = _python(self._builder.info.features, _without(features, self.image))
        return rest | {"id": id, "frames": frames, "texts": texts}

    def _texts(self, id: str, features: dict[str, Any]) -> tuple[str, ...]:
        found = _feature(features, self.text)
        several = [found] if isinstance(found, bytes | str) else list(found)
        try:
            decoded = [t if isinstance(t, str) else t.decode() for t in several]
        except UnicodeDecodeError as error:
            raise BadRecord(id, "caption not UTF-8", str(error)) from error
        if not decoded:
            raise BadRecord(id, "no caption", f"the feature {self.text!r} has none")
        if not all(text.strip() for text in decoded):
            raise BadRecord(id, "empty caption", f"{self.text} = {decoded!r}")
        return tuple(decoded)

    @functools.cached_property
    def _builder(self) -> Any:
        from tensorflow_datasets.core import read_only_builder, registered

        if self.path is None and self.name is None:
            raise ValueError(
                "a TFDS source needs --config.data.path, the folder of a prepared set, "
                "or --config.data.name, to be looked for in ~/tensorflow_datasets"
            )
        try:
            if self.name is not None:
                where = {} if self.path is None else {"data_dir": self.path}
                return read_only_builder.builder_from_files(self.name, **where)
            return read_only_builder.builder_from_directory(self.path)
        except (registered.DatasetNotFoundError, OSError) as error:
            raise ValueError(
                f"there is no prepared TFDS set with name={self.name!r} and "
                f"path={self.path!r}: prepare one with `tfds build "
                "--file_format=array_record`, and let --config.data.path name the "
                "folder that holds its dataset_info.json"
            ) from error

    def _split(self) -> Any:
        splits = self._builder.info.splits
        try:
            return splits[self.part]
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{self._builder.name} has no split {self.part!r}: it has "
                f"{', '.join(splits)}, and slices such as {next(iter(splits))}[:100]"
            ) from error

    @functools.cached_property
    def _records(self) -> Any:
        import tensorflow_datasets as tfds

        self._split()
        features = self._builder.info.features
        kinds = {
            "image": tfds.features.Image,
            "text": tfds.features.Text,
            "id": tfds.features.Tensor,  # numbers and texts
        }
        for field, kind in kinds.items():
            name, legal = getattr(self, field), list(_named(features, kind))
            if name is not None and name not in legal:
                raise ValueError(
                    f"--config.data.{field}={name!r} is no {field} of "
                    f"{self._builder.name}: it has {', '.join(legal) or 'none'}"
                )
        decoders = _undecoded(features)
        try:
            return self._builder.as_data_source(split=self.part, decoders=decoders)
        except NotImplementedError as error:
            raise ValueError(
                f"{self._builder.data_dir} was prepared as "
                f"{self._builder.info.file_format.value}, which can only be read from "
                "start to end: prepare it with `tfds build --file_format=array_record`"
            ) from error


def _feature(features: Any, path: str) -> Any:
    for name in path.split("/"):
        features = features[name]
    return features


def _without(features: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A copy without the feature at `path`."""
    name, _, inside = path.partition("/")
    rest = {key: value for key, value in features.items() if key != name}
    return rest | {name: _without(features[name], inside)} if inside else rest


def _python(feature: Any, value: Any) -> Any:
    """What TFDS read, with str for bytes of text and rows for columns.

    {"text": [b"a", b"b"]} of a sequence of dicts -> [{"text": "a"}, {"text": "b"}].
    What is not UTF-8 stays bytes, and numbers stay as they are.
    """
    if hasattr(feature, "feature"):  # a sequence, which also has what its feature has
        if isinstance(value, Mapping):
            value = rows(value)
        if isinstance(value, np.ndarray) and value.dtype != object:
            return value
        if isinstance(value, np.ndarray | list | tuple):
            return [_python(feature.feature, one) for one in value]
        return value
    if isinstance(value, Mapping):
        return {name: _python(feature[name], one) for name, one in value.items()}
    return _text(value) if np.dtype(feature.np_dtype).hasobject else value


def _text(value: Any) -> Any:
    if isinstance(value, np.ndarray | list | tuple):
        return [_text(one) for one in value]
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{"a": [1, 2], "b": [3, 4]} -> [{"a": 1, "b": 3}, {"a": 2, "b": 4}]

    TFDS keeps a sequence of dicts as a dict of sequences.
    """
    values = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]


def _inner(features: Any) -> Any:
    """The features of a dict or of a sequence of dicts, or None."""
    features = getattr(features, "feature", features)
    return features if hasattr(features, "items") else None


def _named(features: Any, kind: type) -> Iterator[str]:
    """The path of each feature of that type and of each sequence of them."""
    for name, feature in features.items():
        if (inner := _inner(feature)) is not None:
            yield from (f"{name}/{path}" for path in _named(inner, kind))
        elif isinstance(getattr(feature, "feature", feature), kind):
            yield name


def _undecoded(features: Any) -> dict[str, Any]:
    """Decoders that leave each picture encoded, but for those inside a sequence."""
    import tensorflow_datasets as tfds

    decoders: dict[str, Any] = {}
    for name, feature in features.items():
        if isinstance(feature, tfds.features.Image):
            decoders[name] = tfds.decode.SkipDecoding()
        elif hasattr(feature, "items") and (inner := _undecoded(feature)):
            decoders[name] = inner
    return decoders


# Mixture -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Part:
    """Records start .. start + size of a source, drawn in proportion to weight."""

    start: int
    size: int
    weight: float


@dataclasses.dataclass(frozen=True)
class Mixture(Lazy):
    """Several sources as one: `Mixture({"a": A, "b": B}, {"a": 3, "b": 1})`.

    As a sequence it is the sources one after another, so that an evaluation sees each
    record once. The loader draws from it by weight: of any 4 records in a row 3 come
    from `a`, each source in an order of its own and begun anew when it is used up.
    Ids are "a/..." and "b/...", splits "a/test", .... Sources come in the order of
    their names, however they were written down.
    """

    sources: dict[str, Source]
    weights: dict[str, float]

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("a mixture needs a source: --config.data.sources is empty")
        if set(self.sources) != set(self.weights):
            raise ValueError(
                f"the weights of a mixture are for {sorted(self.weights)}, its sources "
                f"are {sorted(self.sources)}: give each source one weight"
            )
        for name, weight in self.weights.items():
            if not 0 < weight < float("inf"):
                raise ValueError(
                    f"--config.data.weights.{name}={weight} is not a positive number: "
                    "leave a source out of the mixture to never see it"
                )

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(
            f"{name}/{split}"
            for name in sorted(self.sources)
            for split in self.sources[name].splits
        )

    def split(self, name: str) -> Source:
        source, _, split = name.partition("/")
        if source not in self.sources or not split:
            raise ValueError(
                f"the mixture has no split {name!r}: name a source and its split, such "
                f"as {', '.join(self.splits)}"
            )
        return self.sources[source].split(split)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Record:
        name, index = self._find(index)
        try:
            record = self.sources[name][index]
        except BadRecord as error:
            raise BadRecord(f"{name}/{error.id}", error.reason, error.detail) from error
        return record | {"id": f"{name}/{record['id']}"}

    def texts(self, index: int) -> tuple[str, ...]:
        name, index = self._find(index)
        return texts(self.sources[name], index)

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        sizes = {name: len(self.sources[name]) for name in sorted(self.sources)}
        for name, size in sizes.items():
            if not size:
                raise ValueError(
                    f"the source {name!r} of the mixture has no records: leave it out"
                )
        return np.cumsum(list(sizes.values()))

    def _find(self, index: int) -> tuple[str, int]:
        index = _within(index, len(self))
        number = int(np.searchsorted(self._ends, index, side="right"))
        name = sorted(self.sources)[number]
        return name, index - int(self._ends[number]) + len(self.sources[name])


def parts(source: Source) -> list[Part]:
    """How the records of a source are to be drawn: a mixture has a part per source."""
    if not isinstance(source, Mixture):
        return [Part(0, len(source), 1.0)]
    found, start = [], 0
    total = sum(source.weights.values())
    for name in sorted(source.sources):
        inside = parts(inner := source.sources[name])
        share = source.weights[name] / total / sum(part.weight for part in inside)
        found += [
            Part(start + part.start, part.size, part.weight * share) for part in inside
        ]
        start += len(inner)
    return found
