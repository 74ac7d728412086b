"""Batch s is a function of (config, s); nothing unreadable is lost or goes unseen."""

import dataclasses
import os
import pathlib
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from git_jax.data import pipeline
from git_jax.data.bad_records import Bad
from git_jax.data.folder import Folder
from git_jax.data.image import Crop
from git_jax.data.mixture import Mixture
from git_jax.data.pipeline import Batch, Loader
from git_jax.data.scenes import Scenes
from git_jax.data.source import Record
from git_jax.data.tfds import Tfds
from git_jax.data.tokenizer import Bytes
from git_jax.tasks.caption import Caption
from tests.data.conftest import Drawn, FolderMaker, Say, colours, encoded

SAY = Say()
NOW = Loader(text=20, image=Crop(8, (0.6, 1.0)), threads=0)
NOW_CLIPS = dataclasses.replace(NOW, frames=2)


def take(count: int, batches: pipeline.Batches) -> list[Batch]:
    found = [next(batches) for _ in range(count)]
    batches.close()
    return found


def train(
    source: Any, count: int, loader: Loader = NOW, task: Say = SAY, **how: Any
) -> list[Batch]:
    how = {"batch": 4, "seed": 3} | how
    return take(count, loader.batches(source, task, Bytes(), **how))


def assert_equal(some: Iterable[Batch], others: Iterable[Batch]) -> None:
    for one, other in zip(some, others, strict=True):
        assert (one.ids, one.bad) == (other.ids, other.bad)
        assert one.arrays.keys() == other.arrays.keys()
        for name, array in one.arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name])
            assert array.dtype == other.arrays[name].dtype


def said(batch: Batch) -> list[str]:
    """What each row is to say."""
    rows = zip(batch.arrays["tokens"], batch.arrays["target"], strict=True)
    return [Bytes().decode(tokens[target]) for tokens, target in rows]


def test_shapes_and_types() -> None:
    loader = dataclasses.replace(NOW, captions=2, frames=3)
    (batch,) = train(Drawn(frames=3), 1, loader)
    found = {name: (a.shape, a.dtype.name) for name, a in batch.arrays.items()}
    assert found == {
        "frames": ((4, 3, 8, 8, 3), "uint8"),
        "frame_valid": ((4, 3), "bool"),
        "tokens": ((8, 20), "int32"),
        "target": ((8, 20), "bool"),
        "valid": ((8, 20), "bool"),
    }
    assert len(batch.ids) == 4 and batch.bad == []


def test_sizes_take_turns_by_the_number_of_the_batch() -> None:
    """Of one size at a time, whatever the rank and wherever a run goes on."""
    source, loader = Drawn(), dataclasses.replace(NOW, sizes=(4, 8, 6))
    found = train(source, 5, loader)
    assert [b.arrays["frames"].shape[2] for b in found] == [4, 8, 6, 4, 8]
    assert_equal(train(source, 2, loader, start=3), found[3:])
    for rank in range(2):
        parts = train(source, 5, loader, rank=rank, ranks=2)
        for whole, part in zip(found, parts, strict=True):
            half = slice(2 * rank, 2 * rank + 2)
            np.testing.assert_array_equal(
                part.arrays["frames"], whole.arrays["frames"][half]
            )
    # What is seen at 8 is what a loader of 8 alone sees.
    alone = train(source, 5)
    np.testing.assert_array_equal(found[1].arrays["frames"], alone[1].arrays["frames"])
    # An evaluation has the one size.
    (batch,) = take(1, loader.evaluation(source, SAY, Bytes(), batch=4))
    assert batch.arrays["frames"].shape[2] == 8


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("captions, frames", [(1, 1), (3, 1), (2, 3)])
def test_shapes_are_told_without_reading(
    captions: int, frames: int, ranks: int
) -> None:
    loader = dataclasses.replace(NOW, captions=captions, frames=frames)
    (batch,) = train(Drawn(frames=frames), 1, loader, ranks=ranks)
    told = loader.shapes(4, ranks=ranks)
    assert list(told) == list(batch.arrays)
    for name, array in batch.arrays.items():
        assert (told[name].shape, told[name].dtype) == (array.shape, array.dtype)
        assert set(told[name].strides) == {0}  # it takes no room
    with pytest.raises(ValueError, match="batch=4 pictures .* by 3 processes"):
        loader.shapes(4, ranks=3)


def test_rows_hold_what_their_records_do() -> None:
    loader = dataclasses.replace(NOW, image=Crop(8, (1.0, 1.0)), captions=3)
    for batch in train(Drawn(), 5, loader, Say("say: ")):
        for row, id in enumerate(batch.ids):
            np.testing.assert_array_equal(
                batch.arrays["frames"][row, 0], Drawn()[int(id)]["frames"][0]
            )
            texts = said(batch)[3 * row : 3 * row + 3]
            assert sorted(texts) == sorted(Drawn()[int(id)]["texts"])
        for tokens, valid in zip(
            batch.arrays["tokens"], batch.arrays["valid"], strict=True
        ):
            assert Bytes().decode(tokens).startswith("say: ")
            size = valid.sum()
            assert (tokens[0], tokens[size - 1]) == (1, 2) and not tokens[size:].any()


def test_a_batch_depends_on_its_number_alone() -> None:
    source = Drawn(bad=frozenset([2, 5]))
    straight = train(source, 12)
    for start in (0, 1, 7, 11):
        assert_equal(train(source, 12 - start, start=start), straight[start:])


def test_threads_change_nothing() -> None:
    source = Drawn(bad=frozenset([2, 5]))
    for threads, prefetch in ((1, 1), (4, 3), (3, 0)):
        loader = dataclasses.replace(NOW, threads=threads, prefetch=prefetch)
        assert_equal(train(source, 12, loader), train(source, 12))


@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks_makes_the_same_global_batches(ranks: int) -> None:
    sources = Mixture(
        {"a": Drawn(7, frozenset([3])), "b": Drawn(5)}, dict(a=2.0, b=1.0)
    )
    loader = dataclasses.replace(NOW, captions=2)
    alone = train(sources, 6, loader, batch=8)
    shares = [
        train(sources, 6, loader, batch=8, rank=rank, ranks=ranks)
        for rank in range(ranks)
    ]
    for step, whole in enumerate(alone):
        parts = [share[step] for share in shares]
        assert sum((part.ids for part in parts), []) == whole.ids
        assert sum((part.bad for part in parts), []) == whole.bad
        for name, array in whole.arrays.items():
            joined = np.concatenate([part.arrays[name] for part in parts])
            np.testing.assert_array_equal(joined, array)


def test_seeds_make_other_orders_texts_and_crops() -> None:
    one, other = train(Drawn(1), 1, seed=1), train(Drawn(1), 1, seed=2)
    assert said(one[0]) != said(other[0])
    assert (one[0].arrays["frames"] != other[0].arrays["frames"]).any()
    assert train(Drawn(), 1, seed=1)[0].ids != train(Drawn(), 1, seed=2)[0].ids


def test_a_record_is_seen_with_new_texts_and_crops() -> None:
    (batch,) = train(Drawn(1, size=30), 1, batch=12)
    assert set(said(batch)) == {"first of 0", "second of 0", "third of 0"}
    assert len({picture.tobytes() for picture in batch.arrays["frames"]}) > 6


def test_a_set_smaller_than_a_batch_repeats_its_rows() -> None:
    (batch,) = train(Drawn(3), 1, batch=12)
    assert set(Counter(batch.ids).values()) == {4}


def test_a_mixture_keeps_its_shares_in_every_batch() -> None:
    sources = Mixture({"a": Drawn(3), "b": Drawn(50)}, {"a": 1.0, "b": 3.0})
    for batch in train(sources, 20):
        assert sum(id.startswith("a/") for id in batch.ids) == 1


def test_a_folder_feeds_it(folder: FolderMaker) -> None:
    path = folder([{"file_name": f"{i}.png", "text": f"text {i}"} for i in range(5)])
    for batch in train(Folder(str(path)), 3):
        assert said(batch) == [f"text {id.removesuffix('.png')}" for id in batch.ids]


def test_a_tfds_set_feeds_it(prepared: Tfds) -> None:
    loader = dataclasses.replace(NOW, text=40)
    for batch in train(prepared, 3, loader):
        assert all(id.startswith("small/train/") for id in batch.ids)
        assert {one.reason for one in batch.bad} <= {"empty caption"}
    clips = dataclasses.replace(prepared, image="clip", text="captions/text")
    (batch,) = train(clips, 1, NOW_CLIPS)
    assert set(said(batch)) <= {"one", "two"}


def test_scenes_pass_through_untouched() -> None:
    scenes, task = Scenes(size=32), Caption()
    loader = dataclasses.replace(NOW, text=200, image=Crop(32, (1.0, 1.0)), captions=5)
    (batch,) = train(scenes, 1, loader, task)
    for row, id in enumerate(batch.ids):
        record = scenes[int(id.rpartition("/")[2])]
        assert record["id"] == id
        np.testing.assert_array_equal(batch.arrays["frames"][row], record["frames"])
        assert set(said(batch)[5 * row : 5 * row + 5]) == set(record["texts"])


WORKERS = """
import dataclasses, sys
from absl import flags
import numpy as np
from git_jax.data.folder import Folder
from git_jax.data.image import Crop
from git_jax.data.mixture import Mixture
from git_jax.data.pipeline import Loader
from git_jax.data.scenes import Scenes
from git_jax.data.tokenizer import Bytes
from git_jax.tasks.caption import Caption

def main():
    flags.FLAGS(sys.argv)
    loader = Loader(text=200, image=Crop(32), threads=1, prefetch=1)
    found = []
    for workers in (0, 2):
        loader = dataclasses.replace(loader, workers=workers)
        batches = loader.batches(
            Scenes(size=32), Caption(), Bytes(), batch=2, seed=0, start=3
        )
        found.append([next(batches) for _ in range(4)])
        batches.close()
    for one, other in zip(*found, strict=True):
        assert one.ids == other.ids
        for name in one.arrays:
            np.testing.assert_array_equal(one.arrays[name], other.arrays[name])

if __name__ == "__main__":
    main()
"""


def test_processes_change_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "main.py").write_text(WORKERS)
    root = str(pathlib.Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(tmp_path / "main.py")],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_waiting_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 10.0, 13.0])
    monkeypatch.setattr(pipeline.time, "perf_counter", lambda: next(clock))
    batches = pipeline.Batches(iter([{"arrays": {}, "ids": []}] * 2))
    next(batches)
    assert batches.waited == 2
    next(batches)
    assert batches.waited == 5


def test_loaders_and_their_parts_pickle() -> None:
    assert pickle.loads(pickle.dumps(NOW)) == NOW


def test_impossible_settings_are_named() -> None:
    with pytest.raises(ValueError, match="batch=4 pictures .* by 3 processes"):
        train(Drawn(), 1, ranks=3)
    with pytest.raises(ValueError, match="--config.batch=1.* must be at most 1,048"):
        train(Drawn(), 1, batch=2**70)
    wrong = "100 draws .* 1 x number of frames .*it has 2, --config.loader.frames=1"
    with pytest.raises(ValueError, match=wrong):
        train(Drawn(1, frames=2), 1)
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=f"--config.seed={seed} is no seed"):
            train(Drawn(), 1, seed=seed)
        with pytest.raises(ValueError, match=f"--config.seed={seed} is no seed"):
            NOW.refuse_unreadable(Drawn(), SAY, Bytes(), seed)
    assert len(train(Drawn(), 1, seed=2**63 - 1)[0].ids) == 4
    for field, value in (
        ("text", 2),
        ("captions", 0),
        ("frames", 0),
        ("threads", -1),
        ("prefetch", -1),
        ("workers", -1),
        ("text", 2**70),
        ("prefetch", 2**70),
        ("pixels", 0),
        ("bad_fraction", 1.5),
        ("long", "wrap"),
    ):
        with pytest.raises(ValueError, match=f"--config.loader.{field}={value!r}"):
            dataclasses.replace(NOW, **{field: value})


# Records that cannot be read ---------------------------------------------------------


def test_bad_records_are_replaced_and_reported() -> None:
    source = Drawn(10, bad=frozenset([2, 5, 6]))
    batches = train(source, 5)  # two passes
    assert not {"2", "5", "6"} & {id for batch in batches for id in batch.ids}
    bad = [one for batch in batches for one in batch.bad]
    assert set(bad) == {Bad(f"{i}", "odd", f"{i} is odd") for i in (2, 5, 6)}
    assert len(bad) >= 6  # each pass meets each of them, and a replacement may be bad
    assert_equal(batches, train(source, 5))


def test_other_rows_do_not_notice_a_bad_one() -> None:
    whole, holed = train(Drawn(), 5), train(Drawn(bad=frozenset([4])), 5)
    for one, other in zip(whole, holed, strict=True):
        for row, id in enumerate(one.ids):
            if id != "4":
                assert other.ids[row] == id
                np.testing.assert_array_equal(
                    one.arrays["frames"][row], other.arrays["frames"][row]
                )


def test_a_mixtures_bad_record_is_replaced_from_its_own_source() -> None:
    sources = Mixture(
        {"a": Drawn(4, frozenset([0, 1, 2])), "b": Drawn(50)}, {"a": 1.0, "b": 1.0}
    )
    for batch in train(sources, 10):
        assert batch.ids.count("a/3") == 2
        assert all(one.id.startswith("a/") for one in batch.bad)


@pytest.mark.parametrize(
    "picture, reason",
    [
        (b"", "empty file"),
        (b"text", "not an image"),
        (encoded(colours(64, 64), "JPEG")[:-300], "truncated image"),
        (encoded(colours(80, 80)), "decompression bomb"),
    ],
)
def test_unreadable_pictures(folder: FolderMaker, picture: bytes, reason: str) -> None:
    names = ("bad.png", "good.png")
    pictures = {"bad.png": picture, "good.png": encoded(colours(9, 9))}
    path = folder([{"file_name": n, "text": "a"} for n in names], pictures)
    loader = dataclasses.replace(NOW, pixels=5000)
    (batch,) = train(Folder(str(path)), 1, loader)
    assert batch.ids == ["good.png"] * 4
    assert {(one.id, one.reason) for one in batch.bad} == {("bad.png", reason)}
    # An evaluation leaves it out, and says so.
    (batch,) = loader.evaluation(Folder(str(path)), Say(), Bytes(), batch=2)
    assert batch.ids == [record["id"] for record in batch.records] == ["good.png"]
    assert not batch.arrays["frames"][1].any()
    assert [(one.id, one.reason) for one in batch.bad] == [("bad.png", reason)]


def test_an_evaluation_of_unequal_shapes_is_refused_before_a_run_trains() -> None:
    loader = dataclasses.replace(NOW, image=Crop(8, long=12))
    refused = r"loader.image.long=12 keeps the aspect.*long=none"
    with pytest.raises(ValueError, match=refused):
        loader.shapes(4)
    with pytest.raises(ValueError, match=refused):
        list(loader.evaluation(Drawn(4), SAY, Bytes(), batch=1))


def test_a_set_without_a_readable_record_is_refused_first() -> None:
    nothing = Drawn(3, bad=frozenset(range(3)))
    with pytest.raises(
        ValueError, match="none of 3 records .*3 x odd .0, 1, 2; the fir"
    ):
        NOW.refuse_unreadable(nothing, Say(), Bytes())
    with pytest.raises(
        ValueError, match="100 draws in a row gave records that cannot be read: 3 x odd"
    ):
        train(nothing, 1)
    NOW.refuse_unreadable(Drawn(3, frozenset([0, 1])), Say(), Bytes())


def test_one_readable_record_is_enough_to_begin() -> None:
    class Counting(Drawn):
        def __getitem__(self, index: int) -> Record:
            asked.append(index)
            return super().__getitem__(index)

    asked = list[int]()
    NOW.refuse_unreadable(Counting(1000), Say(), Bytes())
    assert len(asked) == 1


# Evaluation --------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 7, 8, 13])
def test_every_record_is_evaluated_exactly_once(count: int, ranks: int) -> None:
    shares = [
        list(
            NOW.evaluation(
                Drawn(count), Say(), Bytes(), batch=4, rank=rank, ranks=ranks
            )
        )
        for rank in range(ranks)
    ]
    assert len({len(share) for share in shares}) == 1
    order = list[str]()
    for batches in zip(*shares, strict=True):
        for batch in batches:
            assert batch.arrays["frames"].shape == (4 // ranks, 1, 8, 8, 3)
            assert [record["id"] for record in batch.records] == batch.ids
            order += batch.ids
    assert order == [str(i) for i in range(count)]


def test_evaluation_gives_the_middle_and_the_prefix() -> None:
    (batch,) = NOW.evaluation(Drawn(3), Say("what?"), Bytes(), batch=4)
    for row in range(3):
        np.testing.assert_array_equal(
            batch.arrays["frames"][row, 0], Drawn()[row]["frames"][0]
        )
        assert Bytes().decode(batch.arrays["tokens"][row]) == "what?"
        assert batch.records[row] == {
            "id": f"{row}",
            "texts": Drawn()[row]["texts"],
            "more": row,
        }
    np.testing.assert_array_equal(batch.arrays["prefix_length"], [6, 6, 6, 1])
    np.testing.assert_array_equal(batch.arrays["valid"].sum(1), [6, 6, 6, 1])
    assert (batch.arrays["tokens"][:, 0] == 1).all()
    assert {n: a.dtype.name for n, a in batch.arrays.items()} == {
        "frames": "uint8",
        "tokens": "int32",
        "valid": "bool",
        "prefix_length": "int32",
    }


@pytest.mark.parametrize("ranks", [1, 2])
def test_evaluation_leaves_out_and_lists_what_cannot_be_read(ranks: int) -> None:
    source = Drawn(7, frozenset([1, 4, 5]))  # of two ranks one has 4 and 5 alone
    batches = [
        batch
        for rank in range(ranks)
        for batch in NOW.evaluation(
            source, Say(), Bytes(), batch=4, rank=rank, ranks=ranks
        )
    ]
    assert sorted(id for batch in batches for id in batch.ids) == list("0236")
    assert sorted(bad for batch in batches for bad in batch.bad) == [
        Bad(id, "odd", f"{id} is odd") for id in "145"
    ]
    for batch in batches:
        assert [record["id"] for record in batch.records] == batch.ids
        for row, id in enumerate(batch.ids):
            np.testing.assert_array_equal(
                batch.arrays["frames"][row, 0], Drawn()[int(id)]["frames"][0]
            )
        assert not batch.arrays["frames"][len(batch.ids) :].any()


def test_clips_of_any_length_fill_their_rows() -> None:
    @dataclasses.dataclass(frozen=True)
    class Uneven(Drawn):
        """Record i has i % 5 frames."""

        def __getitem__(self, index: int) -> Record:
            record = super().__getitem__(index)
            return record | {"frames": record["frames"][: index % 5]}

    source = Uneven(5, frames=4)
    chosen = {1: [0], 2: [0, 1], 3: [0, 1, 2], 4: [0, 1, 3]}
    loader = dataclasses.replace(NOW, frames=3, image=Crop(8, (1.0, 1.0)))
    evaluated = list(loader.evaluation(source, SAY, Bytes(), batch=5))
    for batch in [*train(source, 3, loader), *evaluated]:
        assert {one[:2] for one in batch.bad} <= {("0", "number of frames")}
        valid = batch.arrays["frame_valid"]
        assert (valid.shape, valid.dtype) == ((len(batch.arrays["frames"]), 3), bool)
        for row, id in enumerate(batch.ids):
            frames, seen = source[int(id)]["frames"], chosen[int(id)]
            assert valid[row].tolist() == [place < len(seen) for place in range(3)]
            for place, frame in enumerate(seen):
                np.testing.assert_array_equal(
                    batch.arrays["frames"][row, place], frames[frame]
                )
        assert not batch.arrays["frames"][~valid].any()
        assert not valid[len(batch.ids) :].any()
    assert evaluated[0].ids == ["1", "2", "3", "4"]


def test_evaluation_keeps_no_pictures_of_a_tfds_set(prepared: Tfds) -> None:
    loader = dataclasses.replace(NOW, text=40)
    (batch,) = loader.evaluation(prepared, Say(), Bytes(), batch=6)
    assert len(batch.records) == 5 and [bad.reason for bad in batch.bad] == [
        "empty caption"
    ]
    assert not any({"image", "frames"} & set(record) for record in batch.records)
