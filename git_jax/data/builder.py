"""The embedded scenes as a prepared TFDS set, made and read without TensorFlow.

    python -m git_jax.data.builder --target=DIR --level=full --size=64 --count=10000

writes `DIR/scenes/full/1.0.0` as array_record: the first `count` pictures of `train`,
and all of `test` and `compositional`. It is read like any other set:

    tfds.data_source("scenes/full", split="test", data_dir=DIR)
    Tfds(path=DIR, name="scenes/full", part="train", text="texts")

The features are those of a record of `Scenes`, with its frames under `image`; a clip
has a sequence of six. What a level never has is left out. `record` turns an example
back into the record that was drawn, to the last pixel and word.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from git_jax.data import wording
from git_jax.data.scenes import CLIP, LEVELS, Scenes
from git_jax.data.tfds import rows


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """What to prepare: `source` is its training part.

    `tested` is the number of pictures of `test` and of `compositional`, None for all.
    """

    source: Scenes = Scenes()
    tested: int | None = None


class Builder(tfds.core.GeneratorBasedBuilder):
    """Prepares `Scenes`; its `config`, which has to be given, says which."""

    name = "scenes"
    VERSION = tfds.core.Version("1.0.0")
    # Beside a builder's code TFDS looks for the checksums of its downloads, by means of
    # a package that it does not require. Here nothing is downloaded.
    code_path = None

    def _info(self) -> tfds.core.DatasetInfo:
        source = self.builder_config.source
        texts = tfds.features.Sequence(tfds.features.Text())
        image = tfds.features.Image(
            shape=(source.size, source.size, 3), encoding_format="png"
        )
        thing = {
            "shape": tfds.features.Text(),
            "colour": tfds.features.Text(),
            "centre": tfds.features.Tensor(shape=(2,), dtype=np.float64),
            "size": np.int32,
        }
        features: dict[str, Any] = {
            "id": tfds.features.Text(),
            "image": image,
            "texts": texts,
            "scene": {"objects": tfds.features.Sequence(thing)},
        }
        if source.level == "full":
            features["scene"]["digits"] = tfds.features.Sequence(np.int32)
            features["scene"]["words"] = texts
        if source.level == "clips":
            features["scene"]["motion"] = tfds.features.Text()
            features["image"] = tfds.features.Sequence(image, length=CLIP)
        if source.level != "pairs":
            features["label"] = tfds.features.Text()
            features["questions"] = tfds.features.Sequence(
                {
                    "question": tfds.features.Text(),
                    "answers": tfds.features.Tensor(
                        shape=(wording.ANSWERS,), dtype=np.str_
                    ),
                }
            )
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(_made_of(self.builder_config)),
            disable_shuffling=True,  # picture i is example i
        )

    def _split_generators(self, _: Any) -> dict[str, Iterator[tuple[int, Any]]]:
        config = self.builder_config
        train = config.source.split("train")
        parts = {"train": train}
        for name in train.splits:
            parts[name] = dataclasses.replace(train.split(name), count=config.tested)
        return {name: self._generate_examples(part) for name, part in parts.items()}

    def _generate_examples(self, source: Scenes) -> Iterator[tuple[int, Any]]:
        for index in range(len(source)):
            yield index, _example(source[index], self.info.features)


def _example(record: dict[str, Any], features: Any) -> dict[str, Any]:
    frames = [io.BytesIO(_png(frame)) for frame in record["frames"]]
    example = {**record, "image": frames if len(frames) > 1 else frames[0]}
    example["scene"] = {key: record["scene"][key] for key in features["scene"]}
    return {key: example[key] for key in features}


def _png(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG", compress_level=1)
    return file.getvalue()


def record(example: Mapping[str, Any]) -> dict[str, Any]:
    """The record of `Scenes` in an example of `tfds.data_source`, pictures decoded."""
    image = example["image"]
    scene = {key: _plain(value) for key, value in example["scene"].items()}
    scene["objects"] = [
        thing | {"centre": tuple(thing["centre"])}
        for thing in _plain_rows(example["scene"]["objects"])
    ]
    still = isinstance(image, np.ndarray) and image.ndim == 3
    found: dict[str, Any] = {
        "id": _plain(example["id"]),
        "frames": [image] if still else list(image),
        "texts": tuple(_plain(example["texts"])),
        "scene": {"digits": [], "words": [], "motion": None, **scene},
    }
    if "questions" in example:
        found["label"] = _plain(example["label"])
        found["questions"] = _plain_rows(example["questions"])
    return found


def _plain_rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    return rows({name: _plain(column) for name, column in columns.items()})


def _plain(value: Any) -> Any:
    """bytes -> str, NumPy's numbers and arrays -> Python's numbers and lists."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return [_plain(one) for one in value] if isinstance(value, list) else value


def prepare(target: str | os.PathLike[str], config: Config) -> Builder:
    """Writes the set below `target`, or finds there the same one as it was written.

    Raises ValueError where another one of that level, of another size for example, is
    there already.
    """
    builder = Builder(data_dir=target, config=config, file_format="array_record")
    kept = Path(builder.data_dir) / "metadata.json"
    if kept.exists():
        found, wanted = json.loads(kept.read_text()), _made_of(config)
        other = {key: found.get(key) for key in wanted if found.get(key) != wanted[key]}
        if other:
            raise ValueError(
                f"{builder.data_dir} holds scenes with "
                + ", ".join(f"{key}={value}" for key, value in other.items())
                + ", not "
                + ", ".join(f"{key}={wanted[key]}" for key in other)
                + ": choose another --target, or remove that folder"
            )
    builder.download_and_prepare()
    return builder


def _made_of(config: Config) -> dict[str, Any]:
    source = config.source
    return {
        "level": source.level,
        "seed": source.seed,
        "size": source.size,
        "count": len(source),
        "tested": config.tested,
    }


def main() -> int:
    """The command; prints as JSON where the set is and what it holds."""
    parser = argparse.ArgumentParser(
        prog="python -m git_jax.data.builder", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--target", required=True, help="the folder to write it below")
    parser.add_argument("--level", default="pairs", help=", ".join(LEVELS))
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--seed", type=int, default=0, help="of all pictures")
    parser.add_argument("--count", type=int, default=10_000, help="pictures of train")
    parser.add_argument("--tested", type=int, help="of test, of compositional: all")
    given = parser.parse_args()
    absl.logging.set_verbosity(absl.logging.ERROR)  # not that a config is our own
    try:
        if not given.target:
            raise ValueError("--target= is empty: name the folder to write it below")
        source = Scenes("train", given.level, given.seed, given.size, given.count)
        config = Config(name=given.level, source=source, tested=given.tested)
        with contextlib.redirect_stdout(sys.stderr):  # TFDS tells what it does
            builder = prepare(given.target, config)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    splits = {name: split.num_examples for name, split in builder.info.splits.items()}
    print(json.dumps({"path": str(builder.data_dir), "splits": splits}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
