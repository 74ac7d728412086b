"""The embedded corpus: pictures drawn from (seed, split, index) alone, no files.

Levels, all on textured, noisy grounds:

- `pairs`: two things of 8 shapes and 8 colours, and where one is seen from the other.
- `full`: one to three things; beside fewer than three there may be a handwritten digit
  and a printed word. With questions, each with ten answers, and a class `label`: the
  colour and shape of the largest thing.
- `clips`: six frames of one moving thing; with questions, the label is where it goes.

Splits: `train`; `test`, new pictures of the same pairs of colour and shape; and
`compositional`, whose every thing has a pair of colour and shape that the other two
never show. These 8 of the 64 pairs lie on a diagonal of the table of shapes and
colours, so that each shape and each colour lacks exactly one (`HELD_OUT`). `test` and
`compositional` show no scan of handwriting that `train` does; printed words are those
of one list in all splits: a word never seen could not be read after little training.
"""

import functools
import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, cast

import numpy as np

from git_jax.data import canvas, wording
from git_jax.data.grammar import COLOURS, SHAPES, Scene, Thing

HELD_OUT = frozenset((s, COLOURS[(i + 3) % 8]) for i, s in enumerate(SHAPES))
_SEEN = tuple((s, c) for s in SHAPES for c in COLOURS if (s, c) not in HELD_OUT)
KINDS = {"train": _SEEN, "test": _SEEN, "compositional": tuple(sorted(HELD_OUT))}
COUNTS = {"train": 1_000_000, "test": 1_000, "compositional": 1_000}
MOST = 2**32  # pictures of one split: each has a number of its own (see `_key`)
Split = Literal["train", "test", "compositional"]
Level = Literal["pairs", "full", "clips"]
CLIP = 6  # frames, as many as GIT samples from a video

_WORDS = tuple(
    "bakery bank bar bike boat bus cafe cake car city clean coast coffee cold "
    "corner deli dock door east entry exit farm ferry film fire fish flour food "
    "fresh fruit fuel garden gate gift gold grill hall help home honey hotel ice "
    "inn keys lake lane late lift main map market metro milk mill music news north "
    "office open park pay pier pizza plaza pool post press pull push rail rent "
    "river road room sale school seat shop slow soap soup south spa stage stop "
    "store street sun taxi tea ticket tools tour town train tram vet walk water "
    "west wine wood yard zone".split()
)


@dataclass(frozen=True)
class Scenes:
    """Drawn pictures with captions; record i is a pure function of the fields and i.

    `part` is one of the splits, `size` the side of the square picture in pixels (at
    least 32), `count` the number of pictures: None is 1,000,000 for `train`, which
    costs nothing as no picture exists before it is asked for, and 1,000 for the others.

    A record: `id` "scenes/pairs/test/12", `frames` u8 [size size 3] each, `texts` five
    captions, `scene` the truth (`grammar.Scene`) and, but for `pairs`, `questions`
    (`wording.Question`) and `label`.
    """

    part: Split = "train"
    level: Level = "pairs"
    seed: int = 0
    size: int = 64
    count: int | None = None

    splits: ClassVar[tuple[str, ...]] = ("test", "compositional")

    def __post_init__(self) -> None:
        if self.part not in COUNTS:
            raise ValueError(
                f"scenes have no split {self.part!r}; they have {', '.join(COUNTS)}"
            )
        if self.level not in LEVELS:
            raise ValueError(
                f"scenes have no level {self.level!r}; they have {', '.join(LEVELS)}"
            )
        if self.size < 32:
            raise ValueError(
                f"size={self.size}: below 32 pixels shapes cannot be told apart"
            )
        if self.size > 2**12:
            raise ValueError(f"size={self.size}: draw at most {2**12:,} pixels a side")
        if self.count is not None and not 1 <= self.count <= MOST:
            raise ValueError(
                f"count={self.count}: give at least 1 picture and at most {MOST:,}, or "
                "None"
            )

    def __len__(self) -> int:
        return COUNTS[self.part] if self.count is None else self.count

    def split(self, name: str) -> "Scenes":
        """The same corpus, other pictures; another split has its own default count."""
        if name == self.part:
            return self
        return replace(self, part=cast(Split, name), count=None)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = self._dice(index)
        plan = LEVELS[self.level](self.part, self.size, rng)
        record: dict[str, Any] = {
            "id": f"scenes/{self.level}/{self.part}/{index % len(self)}",
            "texts": wording.captions(plan.scene, rng),
            "scene": plan.scene,
        }
        if plan.label is not None:
            record["label"] = plan.label
            record["questions"] = wording.questions(plan.scene, KINDS[self.part], rng)
        return record | {"frames": _draw(plan, self.size, rng)}

    def texts(self, index: int) -> tuple[str, ...]:
        """The captions of a picture that is not drawn."""
        rng = self._dice(index)
        return wording.captions(
            LEVELS[self.level](self.part, self.size, rng).scene, rng
        )

    def _dice(self, index: int) -> random.Random:
        if not -len(self) <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)} in scenes/{self.part}")
        key = _key(self.seed, self.level, self.part)
        return random.Random(key + int(index) % len(self))


@functools.lru_cache(maxsize=64)
def _key(seed: int, level: str, part: str) -> int:
    name = f"git_jax scenes {seed} {level} {part}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "big") << 32


# --- plans: what is in a picture, and where ----------------------------------------


@dataclass
class _Plan:
    """A scene, and what of it `grammar.Scene` leaves out: how the writing looks."""

    scene: Scene
    label: str | None = None
    writing: list[tuple[np.ndarray, int, int, bool]] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])


def _pair(part: str, size: int, rng: random.Random) -> _Plan:
    """Two things side by side or one above the other, never near the diagonal."""
    kinds = _distinct(KINDS[part], 2, rng)
    sides = [_side(0.30, 0.46, size, rng) for _ in kinds]
    gap = max(2, size // 20)
    # Along the axis of the relation: rim, one thing, gap, the other, rim.
    room = size - 2 - gap - sides[0] - sides[1]
    low = int(rng.random() * (room + 1))
    shift = int(rng.random() * (room - low + 1))
    along = 1 + low, 1 + low + sides[0] + gap + shift
    reach = _REACH * (along[1] + sides[1] / 2 - along[0] - sides[0] / 2)
    # Across it: anywhere, but off by at most a share of the offset along.
    first = _between(1, size - 1 - sides[0], rng)
    middle = first + sides[0] / 2 - sides[1] / 2
    second = _between(
        max(1, math.ceil(middle - reach)),
        min(size - 1 - sides[1], int(middle + reach)),
        rng,
    )
    corners = [(along[0], first), (along[1], second)]
    if rng.random() < 0.5:
        corners = [(y, x) for x, y in corners]
    return _Plan(_scene(list(map(_thing, kinds, sides, corners))))


_REACH = 0.7  # of two things' offset across their relation to that along it, at most
_UNSEEN = 200  # scanned digits that are in no picture of `train`
_SIDES = {  # of one, two or three things: the largest's share of the picture, from, to
    1: (0.30, 0.60),
    2: (0.30, 0.42),
    3: (0.28, 0.36),
}


def _full(part: str, size: int, rng: random.Random) -> _Plan:
    """One to three things and, beside fewer than three, a digit or a word or both."""
    count = _between(1, 3, rng)
    kinds = _distinct(KINDS[part], count, rng)
    digits: list[int] = []
    words: list[str] = []
    if count < 3 and rng.random() < 0.5:
        scans = len(canvas.handwriting()[1])
        seen = scans - _UNSEEN
        low, high = (0, seen) if part == "train" else (seen, scans)
        digits = [_between(low, high - 1, rng)]
    if count < 3 and rng.random() < 0.5:
        words = [rng.choice(_WORDS)]
    while True:
        sides = [_side(*_SIDES[count], size, rng)]
        sides += [_side(0.2, sides[0] / size / 1.25, size, rng) for _ in kinds[1:]]
        masks = [canvas.digit(i, _side(0.28, 0.36, size, rng)) for i in digits]
        masks += [canvas.letters(w, _side(0.19, 0.23, size, rng)) for w in words]
        boxes = [(side, side) for side in sides]
        boxes += [(mask.shape[1] // 3, len(mask)) for mask in masks]
        corners = _scatter(boxes, count, size, rng)
        if corners is not None:
            break
    things = list(map(_thing, kinds, sides, corners))
    rng.shuffle(things)
    return _Plan(
        _scene(things, [int(canvas.handwriting()[1][i]) for i in digits], words),
        label=f"{kinds[0][1]} {kinds[0][0]}",
        writing=[
            (mask, x, y, rng.random() < 0.5)
            for mask, (x, y) in zip(masks, corners[count:], strict=True)
        ],
    )


def _scatter(
    boxes: list[tuple[int, int]], count: int, size: int, rng: random.Random
) -> list[tuple[int, int]] | None:
    """Corners for boxes (w, h) that keep apart; None where a few tries did not do.

    The first `count` also keep off each other's diagonals.
    """
    placed: list[tuple[int, int]] = []
    for _ in range(60):
        width, height = boxes[len(placed)]
        if max(width, height) > size - 4:
            return None
        x, y = _between(2, size - 2 - width, rng), _between(2, size - 2 - height, rng)
        for i, ((u, v), (w, h)) in enumerate(zip(placed, boxes, strict=False)):
            if x < u + w + 2 and u < x + width + 2:
                if y < v + h + 2 and v < y + height + 2:
                    break
            across, along = sorted(
                (abs(x + width / 2 - u - w / 2), abs(y + height / 2 - v - h / 2))
            )
            if i < count and len(placed) < count and across > _REACH * along:
                break
        else:
            placed.append((x, y))
            if len(placed) == len(boxes):
                return placed
    return None


def _clip(part: str, size: int, rng: random.Random) -> _Plan:
    """One thing that crosses a third of the picture or more, along one axis."""
    (kind,) = _distinct(KINDS[part], 1, rng)
    side = _side(0.22, 0.40, size, rng)
    way = rng.choice(("left", "right", "above", "below"))
    room = size - 2 - side
    path = _between(size / 3, room, rng)
    start = 1 + _between(0, room - path, rng)
    if way in ("left", "above"):
        start, path = start + path, -path
    across = 1 + _between(0, room, rng)
    steps = [round(path * step / (CLIP - 1)) for step in range(CLIP)]
    level = way in ("left", "right")
    thing = _thing(kind, side, (start, across) if level else (across, start))
    return _Plan(
        _scene([thing], motion=way),
        label=wording.moving(way),
        steps=[(step, 0) if level else (0, step) for step in steps],
    )


LEVELS: dict[str, Callable[[str, int, random.Random], _Plan]] = {
    "pairs": _pair,
    "full": _full,
    "clips": _clip,
}


def _scene(
    things: list[Thing],
    digits: list[int] | None = None,
    words: list[str] | None = None,
    motion: str | None = None,
) -> Scene:
    return {
        "objects": things,
        "digits": digits or [],
        "words": words or [],
        "motion": motion,
    }


def _thing(kind: tuple[str, str], side: int, corner: tuple[int, int]) -> Thing:
    centre = (corner[0] + side / 2, corner[1] + side / 2)
    return {"shape": kind[0], "colour": kind[1], "centre": centre, "size": side}


def _distinct(
    kinds: tuple[tuple[str, str], ...], count: int, rng: random.Random
) -> list[tuple[str, str]]:
    """`count` different kinds, as `rng.sample` but quicker."""
    chosen: list[tuple[str, str]] = []
    while len(chosen) < count:
        kind = kinds[int(rng.random() * len(kinds))]
        if kind not in chosen:
            chosen.append(kind)
    return chosen


def _between(low: float, high: float, rng: random.Random) -> int:
    """A whole number, both ends included."""
    return int(low) + int(rng.random() * (int(high) - int(low) + 1))


def _side(low: float, high: float, size: int, rng: random.Random) -> int:
    """A side in pixels, a share low to high of the picture's, in few steps."""
    # Few different sides keep the cache of masks small where pictures are large.
    step = max(1, size // 64)
    return step * _between(low * size / step, high * size / step, rng)


def _draw(plan: _Plan, size: int, rng: random.Random) -> list[np.ndarray]:
    """The frames of a plan, u8 [size size 3] each; the noise differs between them."""
    ground = canvas.ground(size, rng)
    for mask, x, y, dark in plan.writing:
        pen, paper = ("black", "white") if dark else ("white", "black")
        if rng.random() < 0.5:  # on a sign, a pixel wider than the writing
            sign = canvas.plate(mask.shape[1] // 3 + 2, len(mask) + 2)
            canvas.paint(ground, sign, canvas.ink(paper, size, rng), x - 1, y - 1)
        canvas.paint(ground, mask, canvas.ink(pen, size, rng), x, y)
    looks = []
    for thing in plan.scene["objects"]:
        side, middle = thing["size"], thing["centre"]
        mask = canvas.shape(thing["shape"], side, rng)
        ink = canvas.ink(thing["colour"], size, rng)
        x, y = (int(at - side / 2) for at in middle)
        looks.append((mask, ink, x, y))
    frames, grain = [], canvas.grain(size, rng)
    for right, down in plan.steps:
        frame = ground.copy() if len(plan.steps) > 1 else ground
        for mask, ink, x, y in looks:
            canvas.paint(frame, mask, ink, x + right, y + down)
        frames.append(canvas.expose(frame, grain, rng))
    return frames
