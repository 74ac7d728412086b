"""The embedded corpus: what is drawn, where it comes from, what it never shows."""

import concurrent.futures
import hashlib
import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest

from git_jax.data import canvas
from git_jax.data.grammar import COLOURS, SHAPES
from git_jax.data.scenes import CLIP, COUNTS, HELD_OUT, KINDS, Scenes
from git_jax.data.source import Source

LEVELS = ("pairs", "full", "clips")
PARTS = tuple(COUNTS)


def digest(record: dict) -> str:
    rest = {key: value for key, value in record.items() if key != "frames"}
    seen = hashlib.sha256(repr(sorted(rest.items())).encode())
    for frame in record["frames"]:
        seen.update(frame.tobytes())
    return seen.hexdigest()


def test_is_a_source():
    train = Scenes()
    assert isinstance(train, Source)
    assert train.splits == ("test", "compositional")
    assert len(train) >= 100_000
    assert [len(train.split(name)) for name in train.splits] == [1000, 1000]
    assert train.split("train") is train
    assert Scenes(count=8).split("test").split("train") == train
    assert train[-1]["id"] == f"scenes/pairs/train/{len(train) - 1}"
    assert train[np.int64(3)]["id"] == "scenes/pairs/train/3"
    with pytest.raises(IndexError, match="picture 8 of 8 in scenes/train"):
        Scenes(count=8)[8]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"part": "val"}, "no split 'val'; they have train, test, compositional"),
        ({"level": "hard"}, "no level 'hard'; they have pairs, full, clips"),
        ({"size": 16}, "size=16"),
        ({"size": 10**9}, "at most 4,096 pixels"),
        ({"count": 0}, "count=0"),
        ({"count": 2**70}, "at most 4,294,967,296"),
    ],
)
def test_what_there_is_not_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Scenes(**fields)
    if "part" in fields:
        with pytest.raises(ValueError, match=message):
            Scenes().split(fields["part"])


def test_a_picture_depends_on_its_index_alone():
    # Another process, another order, several threads and a pickled copy agree.
    corpora = [Scenes(level=level) for level in LEVELS]
    program = (
        "import sys; sys.path[:0] = ['tests/data', '.']\n"
        "from test_scenes import Scenes, digest\n"
        "print(*[digest(Scenes(level=level)[i])"
        f" for level in {LEVELS} for i in (5, 0, 3)])"
    )
    there = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    indices = range(6)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for corpus in corpora:
            here = [digest(corpus[index]) for index in indices]
            copy = pickle.loads(pickle.dumps(corpus))
            assert here == list(threads.map(lambda i, c=copy: digest(c[i]), indices))
            assert here == [digest(corpus[index]) for index in indices]
            assert [here[5], here[0], here[3]] == there[:3]
            del there[:3]


def test_seed_split_and_level_give_other_pictures():
    corpora = [
        Scenes(part=part, level=level, seed=seed)
        for part, level, seed in itertools.product(PARTS, LEVELS, (0, 1))
    ]
    first = {corpus[0]["frames"][0].tobytes() for corpus in corpora}
    assert len(first) == len(corpora)
    some = {Scenes()[index]["frames"][0].tobytes() for index in range(100)}
    assert len(some) == 100


def test_held_out_pairs_lie_on_a_latin_diagonal():
    assert sorted(shape for shape, _ in HELD_OUT) == sorted(SHAPES)
    assert sorted(colour for _, colour in HELD_OUT) == sorted(COLOURS)
    assert len(KINDS["train"]) == 56
    assert not HELD_OUT & set(KINDS["train"])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("part", PARTS)
def test_splits_show_their_pairs_and_no_others(part, level):
    shown = set()
    for index in range(400):
        scene = Scenes(part=part, level=level, size=32)[index]["scene"]
        kinds = [(thing["shape"], thing["colour"]) for thing in scene["objects"]]
        assert len(set(kinds)) == len(kinds)
        shown.update(kinds)
    assert shown == set(KINDS[part])


@pytest.mark.parametrize("size", (32, 64, 100))
@pytest.mark.parametrize("level", LEVELS)
def test_things_are_whole_apart_and_off_the_diagonal(level, size):
    counts, turns = set(), set()
    for index in range(200):
        record = Scenes(level=level, size=size)[index]
        things = record["scene"]["objects"]
        counts.add(len(things))
        assert len(record["frames"]) == (CLIP if level == "clips" else 1)
        for frame in record["frames"]:
            assert frame.shape == (size, size, 3) and frame.dtype == np.uint8
        for thing in things:
            x, y = thing["centre"]
            assert thing["size"] / 2 < min(x, y)
            assert max(x, y) < size - thing["size"] / 2
            assert 0.18 * size < thing["size"] < 0.62 * size
        for a, b in itertools.combinations(things, 2):
            offsets = [
                abs(p - q) for p, q in zip(a["centre"], b["centre"], strict=True)
            ]
            assert max(offsets) > (a["size"] + b["size"]) / 2
            assert min(offsets) <= 0.75 * max(offsets)
            turns.add(offsets[0] > offsets[1])
    assert counts == {"pairs": {2}, "full": {1, 2, 3}, "clips": {1}}[level]
    assert level == "clips" or len(turns) == 2


@pytest.mark.parametrize("level", LEVELS)
def test_the_picture_shows_what_the_scene_says(level):
    # The pixel in a thing's middle has its colour, but in rings and crescents,
    # whose middle is empty: there the ground shows, which is dull.
    for index in range(100):
        record = Scenes(level=level, size=64)[index]
        for thing in record["scene"]["objects"]:
            x, y = (int(at) for at in thing["centre"])
            pixel = record["frames"][0][y - 1 : y + 1, x - 1 : x + 1].mean((0, 1))
            nearest = min(
                canvas.RGB, key=lambda name: np.abs(canvas.RGB[name] - pixel).sum()
            )
            if thing["shape"] not in ("ring", "crescent"):
                assert nearest == thing["colour"]
            elif thing["shape"] == "ring":
                assert np.ptp(pixel) < 70 and 30 < pixel.mean() < 230


def test_a_clip_moves_where_it_says():
    ways = {"left": (1, -1), "right": (1, 1), "above": (0, -1), "below": (0, 1)}
    seen = set()
    for index in range(40):
        record = Scenes(level="clips")[index]
        motion = record["scene"]["motion"]
        axis, sign = ways[motion]
        first, last = (record["frames"][at].astype(int) for at in (0, -1))
        # What is new in the last frame lies ahead of what was there in the first.
        thing = record["scene"]["objects"][0]
        start = thing["centre"][1 - axis]
        changed = np.argwhere(np.abs(last - first).max(-1) > 60)[:, axis]
        assert len(changed)
        ahead = changed[np.abs(changed - start) > thing["size"] / 2 + 1]
        assert np.all(sign * (ahead - start) > 0) and len(ahead)
        seen.add(motion)
    assert seen == set(ways)


def test_labels_name_the_largest_thing_or_the_motion():
    for index in range(100):
        record = Scenes(level="full", size=32)[index]
        largest = max(record["scene"]["objects"], key=lambda thing: thing["size"])
        assert record["label"] == f"{largest['colour']} {largest['shape']}"
    labels = {Scenes(level="clips", size=32)[i]["label"] for i in range(40)}
    assert labels == {f"moving {way}" for way in ("left", "right", "up", "down")}
    assert "label" not in Scenes()[0]


def test_handwriting_is_the_training_part_alone():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans, classes = canvas.handwriting()
    assert scans.shape == (1437, 8, 8) and classes.shape == (1437,)
    pixels, labels = load_digits(return_X_y=True)
    _, kept_out, _, _ = train_test_split(
        pixels, labels, test_size=360, stratify=labels, random_state=0
    )
    shown = {scan.tobytes() for scan in scans}
    for scan in kept_out:
        grey = np.rint(scan * (255 / 16)).astype(np.uint8)
        assert grey.tobytes() not in shown


def test_full_has_writing_and_words():
    scenes = [Scenes(level="full", size=32)[index]["scene"] for index in range(300)]
    assert {digit for scene in scenes for digit in scene["digits"]} == set(range(10))
    assert len({word for scene in scenes for word in scene["words"]}) > 30


def test_captions_need_no_picture():
    for level in LEVELS:
        corpus = Scenes(level=level, size=32)
        assert [corpus.texts(i) for i in range(9)] == [
            corpus[i]["texts"] for i in range(9)
        ]


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_whole_and_none_is_like_another(name):
    def mask(shape: str, tilt: int = 2) -> np.ndarray:
        return canvas.shape_mask(shape, 28, tilt)[:, ::3] / 128

    for tilt in range(5):
        edge = mask(name, tilt)
        assert edge.max() == 1 and 0.15 < edge.mean() < 0.85
        assert edge[0].mean() < 0.5 and edge[:, 0].mean() < 0.5
    for other in SHAPES:
        if other != name:
            shared = np.minimum(mask(name), mask(other)).sum()
            assert shared / np.maximum(mask(name), mask(other)).sum() < 0.8


def test_grounds_and_inks_leave_room_for_the_noise():
    # Sums are taken modulo 256; nothing may come around.
    bank = canvas._bank(32)
    noise = bank.noises.astype(np.int8)
    assert np.abs(noise.astype(int)).max() <= canvas.MARGIN
    grounds = bank.textures.astype(np.int8).astype(int)
    tints = bank.tints.astype(int)
    assert tints.min() + grounds.min() >= canvas.MARGIN
    assert tints.max() + grounds.max() <= 255 - canvas.MARGIN
    for ink in bank.inks.values():
        assert ink.min() >= canvas.MARGIN and ink.max() <= 255 - canvas.MARGIN
