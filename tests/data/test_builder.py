"""The scenes as a prepared TFDS set: written and read back, without TensorFlow."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from git_jax.data import builder
from git_jax.data.scenes import LEVELS, Scenes
from git_jax.data.tfds import Tfds
from git_jax.tasks.caption import Caption


@pytest.fixture(scope="module", params=LEVELS)
def prepared(request, tmp_path_factory):
    """A dozen training pictures and four of each other split: (folder, Scenes)."""
    target = tmp_path_factory.mktemp("scenes")
    source = Scenes(level=request.param, size=32, count=12)
    config = builder.Config(name=request.param, source=source, tested=4)
    builder.prepare(target, config)
    return target, source


def same(one: object, other: object) -> bool:
    """Equal in value and type, arrays to the bit."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and np.array_equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        alike = len(one) == len(other) and type(one) is type(other)
        return alike and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_reads_back_equal(prepared):
    target, source = prepared
    found = tfds.builder_from_directory(target / "scenes" / source.level / "1.0.0")
    assert set(found.info.splits) == {"train", "test", "compositional"}
    for part, count in {"train": 12, "test": 4, "compositional": 4}.items():
        examples = found.as_data_source(part)
        assert len(examples) == count
        for index in range(count):
            drawn = source.split(part)[index]
            assert same(builder.record(examples[index]), drawn)


def test_is_read_by_its_name_alone(prepared):
    target, source = prepared
    examples = tfds.data_source(
        f"scenes/{source.level}", split="test[:2]", data_dir=target
    )
    assert [e["id"].decode()[-6:] for e in examples] == ["test/0", "test/1"]
    assert "tensorflow" not in sys.modules


def test_is_a_source_like_any_prepared_set(prepared):
    target, source = prepared
    read = Tfds(path=str(target), name=f"scenes/{source.level}", text="texts")
    assert read[3]["texts"] == source[3]["texts"]
    assert len(read[3]["frames"]) == len(source[3]["frames"])
    assert set(read.splits) == set(source.splits)


def test_scenes_read_by_tfds_score_as_scenes_drawn(prepared):
    target, source = prepared
    read = Tfds(path=str(target), name=f"scenes/{source.level}", text="texts")
    drawn = [source[index] for index in range(len(source))]
    found = [read[index] for index in range(len(read))]
    for one, other in zip(found, drawn, strict=True):
        assert "image" not in one
        assert one.get("questions") == other.get("questions")
        assert one.get("label") == other.get("label")
    scores = []
    for records in drawn, found:
        # Every other caption is of the next picture, so that some are wrong.
        texts = [drawn[i + i % 2 - len(drawn)]["texts"][0] for i in range(len(drawn))]
        said = {r["id"]: t for r, t in zip(records, texts, strict=True)}
        scores.append(Caption().score(said, records))
    assert scores[0] == scores[1]
    assert 0.4 < scores[1]["caption_exact"] < 1


def test_what_is_there_is_kept_and_another_is_refused(prepared):
    target, source = prepared
    config = builder.Config(name=source.level, source=source, tested=4)
    before = sorted((p, p.stat().st_mtime_ns) for p in target.rglob("*.array_record*"))
    builder.prepare(target, config)
    after = sorted((p, p.stat().st_mtime_ns) for p in target.rglob("*.array_record*"))
    assert before == after != []
    other = Scenes(level=source.level, size=48, count=12)
    with pytest.raises(ValueError, match="holds scenes with size=32, not size=48"):
        builder.prepare(
            target, builder.Config(name=source.level, source=other, tested=4)
        )


def test_the_command_says_where_it_is(tmp_path):
    command = [sys.executable, "-m", "git_jax.data.builder", f"--target={tmp_path}"]
    small = ["--level=full", "--size=32", "--count=3", "--tested=2"]
    done = subprocess.run([*command, *small], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["path"] == str(tmp_path / "scenes" / "full" / "1.0.0")
    assert said["splits"] == {"train": 3, "test": 2, "compositional": 2}
    examples = tfds.data_source("scenes/full", split="train", data_dir=tmp_path)
    assert same(builder.record(examples[2]), Scenes(level="full", size=32)[2])
    wrong = subprocess.run([*command, "--size=8"], capture_output=True, text=True)
    assert wrong.returncode == 1 and wrong.stdout == ""
    assert wrong.stderr.splitlines()[-1].startswith("error: size=8: below 32 pixels")
