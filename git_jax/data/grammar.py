"""What is true of a scene, and what of that a text says.

A scene is plain Python (`Scene`): things with shape, colour, centre and size in pixels,
y pointing down. `wording.py` writes English about it; here `parse` reads any text back
and `judge` counts what is true.

The measure, per split: `object_accuracy = sum(right) / sum(total)` with, per picture,
`right` the things of the caption matched one to one to things of the scene by shape and
colour, and `total = max(things in the scene, things in the caption)`: a missing and a
surplus thing both count as wrong. `caption_exact` is the share of captions that name
all things, at least one true relation where the scene has two things or more, the
handwriting, the word and the motion where there are any, and state nothing else.

A relation is true of a and b where the offset of their centres points that way more
than, or as much as, it points across: each direction owns a quarter of the compass.
"a above b" and "b below a" are the same relation.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "ring", "crescent")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan", "white", "black")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
DIGITS = tuple("zero one two three four five six seven eight nine".split())


class Thing(TypedDict):
    """One drawn shape; `centre` is (x, y) and `size` the side of its square, pixels."""

    shape: str
    colour: str
    centre: tuple[float, float]
    size: int


class Scene(TypedDict):
    """All that is in a picture; `motion` is where the one thing of a clip goes.

    A scene that was read from a prepared set lacks what its level never has.
    """

    objects: list[Thing]
    digits: list[int]
    words: list[str]
    motion: str | None


def direction(a: Thing, b: Thing) -> str:
    """Where a is seen from b: a at (10, 30), b at (40, 25) -> "left"."""
    dx, dy = a["centre"][0] - b["centre"][0], a["centre"][1] - b["centre"][1]
    if abs(dx) >= abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def holds(a: Thing, way: str, b: Thing) -> bool:
    """Whether "a `way` b" is true; on an exact diagonal both of its directions are."""
    dx, dy = a["centre"][0] - b["centre"][0], a["centre"][1] - b["centre"][1]
    along, across = {
        "left": (-dx, dy),
        "right": (dx, dy),
        "above": (-dy, dx),
        "below": (dy, dx),
    }[way]
    return along > 0 and along >= abs(across)


# --- reading -----------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """What a text says. A thing is (shape, colour), None where the text leaves it out.

    `relations` are (i, way, j): thing i is `way` thing j; `loose` counts relation words
    that join no two things.
    """

    objects: tuple[tuple[str | None, str | None], ...] = ()
    relations: tuple[tuple[int, str, int], ...] = ()
    digits: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    motions: tuple[str, ...] = ()
    loose: int = 0


_C, _S = f"(?:{'|'.join(COLOURS)})", f"(?:{'|'.join(SHAPES)})"
_THAT = r"(?:that\ is|which\ is|that\ s|is|coloured|colored|painted|in)"
_WAY = {
    "left": "left",
    "right": "right",
    "above": "above",
    "over": "above",
    "higher": "above",
    "below": "below",
    "under": "below",
    "underneath": "below",
    "beneath": "below",
    "lower": "below",
    "top": "above",
    "bottom": "below",
    "upper": "above",
    "leftmost": "left",
    "rightmost": "right",
    "up": "above",
    "upwards": "above",
    "down": "below",
    "downwards": "below",
}
# Longest readings first; the text is lower case, words parted by single spaces.
_TOKENS = re.compile(
    rf"""\b(?:
      handwritten\ (?P<digit>{"|".join(DIGITS)}|\d)
    | (?:the\ word|says|reads)\ (?P<word>\w+)
    | (?:go|goes|going|move|moves|moving|drifts|drifting|slides|sliding)
      \ (?:to(?:wards)?\ the\ )?
      (?P<motion>left|right|upwards|up|downwards|down|top|bottom)
    | (?P<owner>(?:the\ )?)(?:
        (?<=the\ )(?P<shape5>{_S})\ (?P<colour5>{_C})(?!\ (?:{_S}|one)\b)
      | (?P<shape1>{_S})\ {_THAT}\ (?P<colour1>{_C})(?!\ (?:{_S}|one)\b)
      | (?P<colour2>{_C})\ (?P<shape2>{_S})
      | (?P<colour3>{_C})(?:\ (?:one|shape|thing))?
      | (?P<shape4>{_S})
      )
    | (?:(?:to|on|at|by)\ )?its\ (?P<by_it>left|right)
    | (?:(?:to|on|at)\ )?(?:the\ )?(?P<side>left|right)(?:\ hand)?(?:\ side)?\ of
    | on\ (?P<on>top)\ of
    | (?P<relation>above|over|higher|below|underneath|under|beneath|lower(?=\ than))
      (?:\ than)?
    | (?:(?:on|at|in|to)\ )?(?:the\ )?
      (?P<place>leftmost|rightmost|left|right|top|bottom|upper|lower)
      (?:\ (?:one|side|half))?
    | (?P<it>it)
    | (?P<also>and)
    )\b""",
    re.VERBOSE,
)


def parse(text: str) -> Reading:
    """Reads what a text says of things; words it does not know are passed over.

    "above a blue square there is a circle that is red" ->
    objects (("square", "blue"), ("circle", "red")), relations ((1, "above", 0),).
    Any text gives a reading: no exception, and never more than the text says.
    """
    draft = _Draft()
    clean = " ".join(re.findall(r"[^\W_]+", text.lower()))
    for token in _TOKENS.finditer(clean):
        draft.read(token)
    return draft.finish()


@dataclass
class _Draft:
    """The tokens of a text so far: mentions of things, and events between them."""

    mentions: list[list[str | None]] = field(default_factory=list)
    events: list[tuple[str, str | int]] = field(default_factory=list)
    digits: list[int] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    motions: list[str] = field(default_factory=list)

    def read(self, token: re.Match[str]) -> None:
        found = {key: value for key, value in token.groupdict().items() if value}
        if digit := found.get("digit"):
            self.digits.append(int(digit) if digit.isdigit() else DIGITS.index(digit))
        elif "word" in found:
            self.words.append(found["word"])
        elif "motion" in found:
            self.motions.append(_WAY[found["motion"]])
        elif "by_it" in found:
            self.events += [("way", found["by_it"]), ("it", "")]
        elif way := found.get("side") or found.get("on") or found.get("relation"):
            self.events.append(("way", _WAY[way]))
        elif "place" in found:
            self.events.append(("place", _WAY[found["place"]]))
        elif "it" in found or "also" in found:
            self.events.append(("it" if "it" in found else "also", ""))
        else:
            named = {key[:-1]: value for key, value in found.items()}
            self.mention(named.get("shape"), named.get("colour"), "owner" in found)

    def mention(self, shape: str | None, colour: str | None, known: bool) -> None:
        """Notes a thing; "the circle" goes back to a circle that was named before."""
        for index, (s, c) in enumerate(self.mentions if known else ()):
            if shape and colour:
                again = (s, c) in ((shape, None), (None, colour))
            else:
                again = s == shape if shape else c == colour
            if again:
                self.mentions[index] = [shape or s, colour or c]
                self.events.append(("thing", index))
                return
        self.mentions.append([shape, colour])
        self.events.append(("thing", len(self.mentions) - 1))

    def related(self) -> tuple[list[tuple[int, str, int]], int]:
        """The relations between mentions, and how many relation words join nothing."""
        relations: list[tuple[int, str, int]] = []
        loose = 0
        for at, (kind, way) in enumerate(self.events):
            if kind != "way":
                continue
            before = [int(value) for k, value in self.events[:at] if k == "thing"]
            after = [int(value) for k, value in self.events[at:] if k == "thing"]
            it = self.events[at + 1 : at + 2] == [("it", "")]
            also = self.events[max(at - 1, 0) : at] == [("also", "")]
            if it and len(before) > 1:  # B with A above it
                pair = before[-1], before[-2]
            elif it and before and after:  # B, and above it A
                pair = after[0], before[0]
            elif also and relations and after:  # A above B and left of C
                pair = relations[-1][0], after[0]
            elif before and after:  # A above B
                pair = before[-1], after[0]
            elif len(after) > 1:  # above B is A
                pair = after[1], after[0]
            else:
                loose += 1
                continue
            relations.append((pair[0], str(way), pair[1]))
        return relations, loose

    def placed(self) -> tuple[dict[int, str], int]:
        """Which mention is said to be where, and how many places nothing is at."""
        kinds = [kind for kind, _ in self.events if kind in ("thing", "place")]
        ahead = kinds[:1] == ["place"]  # "on the left A", not "A on the left"
        places: dict[int, str] = {}
        loose = 0
        for at, (kind, way) in enumerate(self.events):
            if kind != "place":
                continue
            side = self.events[at:] if ahead else self.events[at::-1]
            thing = next((int(value) for k, value in side if k == "thing"), None)
            if thing is None or thing in places:
                loose += 1
            else:
                places[thing] = str(way)
        return places, loose

    def finish(self) -> Reading:
        relations, loose = self.related()
        placed, nowhere = self.placed()
        # "something red above something blue, a circle and a square": colours without
        # shape and shapes without colour belong together in the order of mention.
        bare = [i for i, (s, c) in enumerate(self.mentions) if s is None]
        plain = [i for i, (s, c) in enumerate(self.mentions) if c is None]
        twins = list(zip(bare, plain, strict=False))
        for i, j in twins:
            self.mentions[min(i, j)] = [self.mentions[j][0], self.mentions[i][1]]
        same = {max(twin): min(twin) for twin in twins}
        kept = [i for i in range(len(self.mentions)) if i not in same]
        rank = {i: kept.index(same.get(i, i)) for i in range(len(self.mentions))}
        stated = [(rank[i], way, rank[j]) for i, way, j in relations]
        stated += _beside({rank[i]: way for i, way in placed.items()}, len(kept))
        clear = [relation for relation in stated if relation[0] != relation[2]]
        return Reading(
            objects=tuple((self.mentions[i][0], self.mentions[i][1]) for i in kept),
            relations=tuple(dict.fromkeys(clear)),
            digits=tuple(self.digits),
            words=tuple(self.words),
            motions=tuple(self.motions),
            loose=loose + nowhere + len(stated) - len(clear),
        )


def _beside(places: dict[int, str], count: int) -> list[tuple[int, str, int]]:
    """{0: "left", 1: "right"} -> [(0, "left", 1)]; one place is enough for two."""
    if len(places) == 1 and count == 2:
        [(thing, way)] = places.items()
        return [(thing, way, 1 - thing)]
    return [
        (i, way, j)
        for i, way in places.items()
        for j, other in places.items()
        if i < j and other == OPPOSITE[way]
    ]


# --- judging -----------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """`right` of `total` things; `exact`: all, a true relation and nothing else."""

    right: int
    total: int
    exact: bool


def judge(caption: str, scene: Scene) -> Verdict:
    """Holds a caption against the truth; see the head of this file for the measure.

    "a red circle above a blue square", of just that -> Verdict(2, 2, True);
    "a red circle above a green square, and a star" -> Verdict(1, 3, False).
    """
    said = parse(caption)
    left = list(scene["objects"])
    found: dict[int, Thing] = {}
    for index, (shape, colour) in enumerate(said.objects):
        for place, thing in enumerate(left):
            if (thing["shape"], thing["colour"]) == (shape, colour):
                found[index] = thing
                del left[place]
                break
    total = max(len(scene["objects"]), len(said.objects))
    true = all(
        i in found and j in found and holds(found[i], way, found[j])
        for i, way, j in said.relations
    )
    motion = scene.get("motion")
    motions = () if motion is None else (motion,)
    exact = (
        len(found) == total
        and true
        and not said.loose
        and (bool(said.relations) or total < 2)
        and sorted(said.digits) == sorted(scene.get("digits", ()))
        and sorted(said.words) == sorted(scene.get("words", ()))
        and said.motions == motions
    )
    return Verdict(len(found), total, exact)


def accuracy(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """The two measures over many pictures; both are 0 where there are none."""
    judged = list(verdicts)
    return {
        "object_accuracy": sum(v.right for v in judged)
        / max(1, sum(v.total for v in judged)),
        "caption_exact": sum(v.exact for v in judged) / max(1, len(judged)),
    }
