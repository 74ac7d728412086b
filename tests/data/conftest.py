"""Small real parts: pictures as files, folders of them, a task, a TFDS set."""

import dataclasses
import io
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from git_jax.data.source import BadRecord, Record
from git_jax.data.tfds import Tfds

PHOTOS = pathlib.Path(__file__).parents[3] / "shared/data/photos"


def encoded(
    picture: np.ndarray | Image.Image, format: str = "PNG", **how: Any
) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, format, **how)
    return file.getvalue()


def colours(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Any picture: u8 [h w 3]."""
    return np.random.default_rng(seed).integers(
        256, size=(height, width, 3), dtype="u1"
    )


@dataclasses.dataclass(frozen=True)
class Example:
    frames: Sequence[Any]
    prefix: str
    suffix: str


@dataclasses.dataclass(frozen=True)
class Say:
    """A task: `prefix`, then texts of the record in a random order."""

    prefix: str = ""

    def examples(
        self, record: Record, rng: np.random.Generator, count: int
    ) -> list[Example]:
        texts = rng.permutation(np.array(record["texts"]))
        return [
            Example(record["frames"], self.prefix, str(texts[i % len(texts)]))
            for i in range(count)
        ]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Noise with three captions each; those whose number is in `bad` cannot be read."""

    count: int = 10
    bad: frozenset[int] = frozenset()
    frames: int = 1
    size: int = 8
    texts: tuple[str, ...] = ("first of {}", "second of {}", "third of {}")
    splits = ("train",)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        if index in self.bad:
            raise BadRecord(f"{index}", "odd", f"{index} is odd")
        frames = [
            colours(self.size, self.size, 7 * index + f) for f in range(self.frames)
        ]
        texts = tuple(text.format(index) for text in self.texts)
        return {"id": f"{index}", "frames": frames, "texts": texts, "more": index}

    def split(self, name: str) -> "Drawn":
        return self


FolderMaker = Callable[..., pathlib.Path]


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> FolderMaker:
    """folder(rows, pictures) writes metadata.jsonl and the pictures it names."""

    def make(
        rows: Sequence[dict[str, Any] | bytes],
        pictures: dict[str, bytes] | None = None,
    ) -> pathlib.Path:
        path = tmp_path / "folder"
        named = [row["file_name"] for row in rows if isinstance(row, dict)]
        small = {name: encoded(colours(6, 8, seed)) for seed, name in enumerate(named)}
        for name, data in (small if pictures is None else pictures).items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
        path.mkdir(exist_ok=True)
        (path / "metadata.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return make


@pytest.fixture(scope="session")
def photos() -> pathlib.Path:
    """76 real photographs with five captions each."""
    if not PHOTOS.is_dir():
        pytest.skip(
            f"{PHOTOS} is not here: real photographs are not part of the project"
        )
    return PHOTOS


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Tfds:
    """A TFDS set of 6 and 3 records, prepared here without TensorFlow."""
    import tensorflow_datasets as tfds

    feature = tfds.features

    class Small(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        # Looking for the code takes a package that TFDS 4.9.10 forgets to require.
        code_path = None

        def _info(self) -> Any:
            features = feature.FeaturesDict(
                {
                    "image": feature.Image(shape=(None, None, 3)),
                    "clip": feature.Sequence(feature.Image(shape=(None, None, 3))),
                    "inner": {"mask": feature.Image(shape=(None, None, 1))},
                    "caption": feature.Text(),
                    "captions": feature.Sequence({"text": feature.Text()}),
                    "label": feature.ClassLabel(num_classes=3),
                    "number": np.int64,
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _: Any) -> Any:
            train, test = self._generate_examples(6), self._generate_examples(3)
            return {"train": train, "test": test}

        def _generate_examples(self, count: int) -> Any:
            for number in range(count):
                picture = encoded(colours(5, 7, number))
                yield (
                    number,
                    {
                        "image": picture,
                        "clip": [picture, encoded(colours(5, 7, 99))],
                        "inner": {"mask": encoded(Image.new("L", (2, 2)))},
                        "caption": f"the über picture {number}" if number else "  ",
                        "captions": [{"text": t} for t in ("one", "two")[:number]],
                        "label": number % 3,
                        "number": number,
                    },
                )

    root = tmp_path_factory.mktemp("tfds")
    builder = Small(data_dir=str(root), file_format="array_record")
    builder.download_and_prepare()
    return Tfds(path=str(builder.data_dir))
