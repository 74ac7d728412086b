"""What people would say of a scene: captions, questions and answers.

All that is written here can be read back: `grammar.judge` finds every caption exact.
The wordings differ in frame, order of mention and the way the relation is told. Things
are named in any order, but more often in that of reading, as people do. About half keep
colour and shape apart ("a circle that is red", "one red and one blue"), so that neither
word can be learnt as a consequence of the other.
"""

import functools
import random
from typing import TypedDict

from git_jax.data.grammar import (
    DIGITS,
    OPPOSITE,
    Scene,
    Thing,
    direction,
    holds,
)

# Each way: where A is seen from B, the short form, the place in the picture, "the one"
# there, and B's own view of it.
_SEEN = {
    "left": ("to the left of", "left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right side of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath"),
}
_BRIEF = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
_HERE = {
    "left": "on the left",
    "right": "on the right",
    "above": "at the top",
    "below": "at the bottom",
}
_ONE = {"left": "left", "right": "right", "above": "upper", "below": "lower"}
_BY_IT = {
    "left": "to its left",
    "right": "to its right",
    "above": "above it",
    "below": "below it",
}

# How a thing is named: {c} its colour, {s} its shape.
_NAMES = (
    "a {c} {s}",
    "a {c} {s}",
    "a {c} {s}",
    "a {s} that is {c}",
    "a {s} coloured {c}",
    "a {s} in {c}",
)

# {A} {B} {C} name the things, {a} {b} {c} are their shapes, {p} {q} {s} their colours;
# {r} and {brief} say where A is seen from B, {t} where A is seen from C.
_ONE_THING = (
    "{A}",
    "there is {A}",
    "a picture of {A}",
    "{A} all alone",
    "just {A} and nothing else",
    "a single {p} {a}",
    "something {p}, a {a}",
    "one {a}, {p} in colour",
    "the only shape is {A}",
)
_TWO_THINGS = (
    "{A} {r} {B}",
    "{A} is {r} {B}",
    "{A} sits {r} {B}",
    "there is {A} {r} {B}",
    "a picture of {A} {r} {B}",
    "{r} {B} there is {A}",
    "{r} {B} is {A}",
    "{B} with {A} {by_it}",
    "{B}, and {by_it} {A}",
    "{A} {here} and {B} {there}",
    "{here} is {A} and {there} is {B}",
    "{here} {A}, {there} {B}",
    "the {one} one is {A}, the {other} one {B}",
    "the {one} one is {A}, the other {B}",
    "the {one} {a} is {p}, the {other} {b} is {q}",
    "{one} {p} {a}, {other} {q} {b}",
    "something {p} {r} something {q}, a {a} and a {b}",
    "a {a} {r} a {b}, one {p} and one {q}",
    "a {a} {here} and a {b} {there}, {p} and {q}",
)
_TWO_SHAPES = (  # only where the shapes differ, since they are named again
    "a {a} {brief} a {b}, the {a} {p} and the {b} {q}",
    "{A} and {B}, the {a} {here}",
)
_TWO_COLOURS = (  # only where the colours differ
    "the {p} one, a {a}, is {brief} the {q} one, a {b}",
)
_TWO_FRAMES = {  # by (shapes are the same, colours are the same)
    (False, False): _TWO_THINGS + _TWO_SHAPES + _TWO_COLOURS,
    (False, True): _TWO_THINGS + _TWO_SHAPES,
    (True, False): _TWO_THINGS + _TWO_COLOURS,
}
_THREE_THINGS = (
    "{A} {brief} {B} and {t} {C}",
    "{A} is {brief} {B} and {t} {C}",
    "there is {A} {brief} {B}, and also {C}",
    "{A} {r} {B}, plus {C}",
    "three shapes, {A} {brief} {B} and {t} {C}",
    "{C}, and then {A} {r} {B}",
    "{r} {B} is {A}, plus {C}",
    "something {p} {brief} something {q}, a {a} and a {b}, also {C}",
)
_MOVING = (
    "{A} moves {to}",
    "{A} is moving {to}",
    "{A} drifts {to}",
    "a video of {A} going {to}",
    "moving {to}, {A}",
    "there is {A} that slides {to}",
    "something {p} moves {to}, a {a}",
    "a {a} moves {to}, it is {p}",
)
_TO = {
    "left": ("left", "to the left", "towards the left"),
    "right": ("right", "to the right", "towards the right"),
    "above": ("up", "upwards", "to the top"),
    "below": ("down", "downwards", "to the bottom"),
}
_TURN = {"left": "left", "right": "right", "above": "up", "below": "down"}
_WRITING = ("with a handwritten {}", "and a handwritten {}", "plus a handwritten {}")
_LETTERING = ("and the word {}", "with the word {}", "and a sign that says {}")

CAPTIONS = 5


def captions(scene: Scene, rng: random.Random) -> tuple[str, ...]:
    """Five sentences, each in another frame, all true, each naming everything.

    One for a red circle above a blue square: "something blue below something red, a
    square and a circle". `rng` alone decides which; a scene has at least one thing.
    """
    things, motion = scene["objects"], scene["motion"]
    frames: tuple[str, ...]
    if motion is not None:
        frames = _MOVING
    elif len(things) == 1:
        frames = _ONE_THING
    elif len(things) == 3:
        frames = _THREE_THINGS
    else:
        alike = [things[0][part] == things[1][part] for part in ("shape", "colour")]
        frames = _TWO_FRAMES[alike[0], alike[1]]
    texts: list[str] = []
    unused = list(frames)
    for _ in range(CAPTIONS):
        frame = unused.pop(int(rng.random() * len(unused)))
        texts.append(_fill(frame, things, motion, rng))
    if scene["digits"] or scene["words"]:
        return tuple(text + _extras(scene, rng) for text in texts)
    return tuple(texts)


def _pick(options: tuple[str, ...], rng: random.Random) -> str:
    return options[int(rng.random() * len(options))]


_IN_ORDER = 0.6  # of the captions name things from left to right, from top to bottom


def _fill(
    frame: str, things: list[Thing], motion: str | None, rng: random.Random
) -> str:
    # Mostly in the order of reading, one way of naming for the whole sentence.
    order = sorted(things, key=_reading)
    if rng.random() >= _IN_ORDER:
        for last in range(len(order) - 1, 0, -1):
            other = int(rng.random() * (last + 1))
            order[last], order[other] = order[other], order[last]
    ways = tuple(direction(order[0], other) for other in order[1:])
    if motion is not None:
        ways = (motion,)
    name, seen = rng.random() * len(_NAMES), rng.random() * 3
    words = [word for thing in order for word in (thing["colour"], thing["shape"])]
    return _template(frame, int(name), int(seen), ways).format(*words)


def _reading(thing: Thing) -> float:
    """Small at the top left, large at the bottom right."""
    return sum(thing["centre"])


_FIELDS = (("A", "a", "p"), ("B", "b", "q"), ("C", "c", "s"))


@functools.lru_cache(maxsize=8192)
def _template(frame: str, name: int, seen: int, ways: tuple[str, ...]) -> str:
    """The frame with all but colours and shapes put in: "a {0} {1} above a {2} {3}"."""
    fields: dict[str, str] = {}
    for i, (whole, shape, colour) in enumerate(_FIELDS):
        fields[whole] = _NAMES[name].format(c=f"{{{2 * i}}}", s=f"{{{2 * i + 1}}}")
        fields[colour], fields[shape] = f"{{{2 * i}}}", f"{{{2 * i + 1}}}"
    if ways:
        way, back = ways[0], OPPOSITE[ways[0]]
        fields |= {
            "r": _SEEN[way][seen],
            "brief": _BRIEF[way],
            "here": _HERE[way],
            "there": _HERE[back],
            "one": _ONE[way],
            "other": _ONE[back],
            "by_it": _BY_IT[way],
            "to": _TO[way][seen],
            "t": _BRIEF[ways[-1]],
        }
    return frame.format_map(fields)


def moving(way: str) -> str:
    """The class of a clip: "moving left", "moving up"."""
    return f"moving {_TURN[way]}"


def _extras(scene: Scene, rng: random.Random) -> str:
    said = [_pick(_WRITING, rng).format(DIGITS[digit]) for digit in scene["digits"]]
    said += [_pick(_LETTERING, rng).format(word) for word in scene["words"]]
    return "".join(f", {text}" for text in said)


# --- questions ---------------------------------------------------------------------

QUESTIONS = 3
ANSWERS = 10


class Question(TypedDict):
    """A question and what ten people answered, VQAv2's form."""

    question: str
    answers: list[str]


# The question, its answer, other words for the answer, and what one may get wrong.
_Asked = tuple[str, str, tuple[str, ...], tuple[str, ...]]


def questions(
    scene: Scene, kinds: tuple[tuple[str, str], ...], rng: random.Random
) -> list[Question]:
    """Three questions about the scene, each with ten answers.

    At least six people give the plain answer; the others say it in other words or,
    less often, are wrong. What is asked about or answered that is not there is one of
    `kinds`, the (shape, colour) pairs of the split.
    """
    asked = _about_things(scene, kinds, rng)
    if len(scene["objects"]) > 1:
        asked += _about_relations(scene, kinds, rng)
    asked += _about_writing(scene)
    if scene["motion"] is not None:
        turn = _TURN[scene["motion"]]
        asked.append(
            (
                f"which way does the {scene['objects'][0]['shape']} move?",
                turn,
                (f"to the {turn}",) if turn in ("left", "right") else (f"{turn}wards",),
                tuple(way for way in _TURN.values() if way != turn),
            )
        )
    return [_answered(one, rng) for one in rng.sample(asked, QUESTIONS)]


def _about_things(
    scene: Scene, kinds: tuple[tuple[str, str], ...], rng: random.Random
) -> list[_Asked]:
    things = scene["objects"]
    shapes = [thing["shape"] for thing in things]
    colours = [thing["colour"] for thing in things]
    asked: list[_Asked] = []
    for shape, colour in zip(shapes, colours, strict=True):
        if shapes.count(shape) == 1:
            others = tuple(c for s, c in kinds if s == shape and c != colour)
            shades = (f"bright {colour}", f"it is {colour}")
            asked.append((f"what colour is the {shape}?", colour, shades, others))
        if colours.count(colour) == 1:
            others = tuple(s for s, c in kinds if c == colour and s != shape)
            longer = (f"a {shape}", f"{colour} {shape}")
            asked.append((f"which shape is {colour}?", shape, longer, others))
    number = len(things)
    asked.append(
        (
            "how many shapes are there?",
            str(number),
            (DIGITS[number],),
            (str(number + 1), str(number - 1)),
        )
    )
    present = list(zip(shapes, colours, strict=True))
    absent = [kind for kind in kinds if kind not in present]
    there = rng.random() < 0.5
    shape, colour = rng.choice(present if there else absent)
    asked.append((f"is there a {colour} {shape}?", *_yes(there)))
    return asked


def _about_relations(
    scene: Scene, kinds: tuple[tuple[str, str], ...], rng: random.Random
) -> list[_Asked]:
    a, b = rng.sample(scene["objects"], 2)
    way = direction(a, b)
    told = way if rng.random() < 0.5 else rng.choice([w for w in OPPOSITE if w != way])
    asked: list[_Asked] = [
        (f"is the {_called(a)} {_BRIEF[told]} the {_called(b)}?", *_yes(told == way))
    ]
    if sum(holds(thing, way, b) for thing in scene["objects"] if thing is not b) == 1:
        others = tuple(f"{c} {s}" for s, c in kinds if s in (a["shape"], b["shape"]))
        asked.append(
            (
                f"what is {_BRIEF[way]} the {_called(b)}?",
                _called(a),
                (a["shape"], f"a {_called(a)}", f"the {a['shape']}"),
                tuple(other for other in others if other != _called(a)),
            )
        )
    return asked


def _about_writing(scene: Scene) -> list[_Asked]:
    asked: list[_Asked] = []
    for number in scene["digits"]:
        others = tuple(str(other) for other in range(10) if other != number)
        asked.append(
            ("which digit is written?", str(number), (DIGITS[number],), others)
        )
    for word in scene["words"]:
        asked.append(
            (
                "what does the sign say?",
                word,
                (word.upper(), f'"{word}"'),
                (word[:-1], word[1:]),
            )
        )
    return asked


def _yes(true: bool) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    return ("yes", ("yes it is",), ("no",)) if true else ("no", ("nope",), ("yes",))


def _called(thing: Thing) -> str:
    return f"{thing['colour']} {thing['shape']}"


def _answered(asked: _Asked, rng: random.Random) -> Question:
    question, answer, others, wrong = asked
    dissent = int(5 * rng.random() ** 2)  # 0 to 4 of the ten, mostly few
    answers = [answer] * (ANSWERS - dissent)
    for _ in range(dissent):
        answers.append(_pick(wrong if wrong and rng.random() < 0.3 else others, rng))
    rng.shuffle(answers)
    return {"question": question, "answers": answers}
