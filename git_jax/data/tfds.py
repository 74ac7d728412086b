"""A prepared set of TensorFlow Datasets as a source of records, without TensorFlow."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from git_jax.data.source import BadRecord, Lazy, Record, within


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
        index = within(index, len(self))
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
