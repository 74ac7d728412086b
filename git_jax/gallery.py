"""Pictures beside what a model says of them: through the run, and at its end.

Rows are those of a run's files: samples {"step", "id", "caption", "reference"} and
predictions {"id", "caption", "references", "CIDEr"}, either with or without a "picture"
that is a `data:` URI.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from git_jax.markup import Content, Markup, element

STORIES = 6  # pictures whose captions are followed through the run
MOMENTS = 6  # captions shown of each
CARDS = 4  # pictures in each part of the gallery


def stories(samples: Sequence[Mapping[str, Any]]) -> Markup | None:
    """The first pictures that were sampled, each with its captions by step."""
    told: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in samples:
        told.setdefault(str(row["id"]), {})[int(row["step"])] = row
    cards = [_story(moments) for moments in list(told.values())[:STORIES]]
    return element("div", *cards, class_="stories") if cards else None


def _story(moments: Mapping[int, Mapping[str, Any]]) -> Markup:
    steps = sorted(moments)
    chosen = _spread(steps, MOMENTS)
    last = moments[steps[-1]]
    picture = next(
        (_picture(row) for row in moments.values() if row.get("picture")), None
    )
    lines = [
        element(
            "li",
            element("span", f"{step:,}"),
            _marked(
                moments[step]["caption"],
                [last["reference"]],
                class_="last" if step == steps[-1] else None,
            ),
        )  # fmt: skip
        for step in chosen
    ]
    return element(
        "article",
        picture,
        element("ol", *lines),
        element("p", "A person: ", last["reference"], class_="reference"),
        class_="story" if picture else "story blind",
    )


def gallery(predictions: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Markup]:
    """The best, the typical and the worst predictions of each split."""
    parts: list[Markup] = []
    for split, rows in predictions.items():
        for label, chosen in choose(rows).items():
            parts += [
                element("h3", split, element("span", label)),
                element("div", *map(_card, chosen), class_="gallery"),
            ]
    return parts


def choose(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The best, the typical and the worst of the rows that have a picture.

    Rows without a picture stand in only where no row has one; ties go by id, and too
    few rows are shown as one part.
    """
    pictured = [row for row in found if row.get("picture")] or found
    ordered = sorted(pictured, key=lambda row: (-_score(row), str(row["id"])))
    if len(ordered) < 3 * CARDS:
        return {f"all {len(ordered)}": ordered} if ordered else {}
    middle = (len(ordered) - CARDS) // 2
    return {
        "the best": ordered[:CARDS],
        "the middle": ordered[middle : middle + CARDS],
        "the worst": ordered[-CARDS:],
    }


def _card(row: Mapping[str, Any]) -> Markup:
    references = [element("li", text) for text in row["references"]]
    score = f"CIDEr-D {row['CIDEr']:.2f}" if "CIDEr" in row else None
    return element(
        "article",
        _picture(row),
        _marked(row["caption"] or "(nothing)", row["references"], name="p"),
        element(
            "div", element("span", score), element("span", row["id"]), class_="score"
        ),
        element("ul", *references),
        class_="card",
    )


def _picture(row: Mapping[str, Any]) -> Markup | None:
    source = row.get("picture")
    if not isinstance(source, str) or not source.startswith("data:image/"):
        return None  # a page that needs no network fetches nothing
    tiny = " tiny" if source.startswith("data:image/png") else ""
    return element("img", src=source, alt=str(row["id"]), class_=f"picture{tiny}")


def _marked(
    text: str, references: Sequence[str], name: str = "span", class_: str | None = None
) -> Markup:
    """The text, with the words that a reference has too set apart.

    A word counts as often as one reference has it: "a a a" against "a dog and a cat"
    is true twice.
    """
    left: Counter[str] = Counter()
    for reference in references:
        left |= Counter(re.findall(r"\w+", reference.lower()))
    parts: list[Content] = []
    for part in re.split(r"(\w+)", text):
        true = left[part.lower()] > 0
        left[part.lower()] -= true
        parts.append(element("span", part, class_="true") if true else part)
    return element(name, *parts, class_=class_)


def _spread(items: Sequence[int], count: int) -> list[int]:
    """The first and the last and evenly between them: early steps change most, so the
    places are even in the square root."""
    if len(items) <= count:
        return list(items)
    places = (np.linspace(0, 1, count) ** 2 * (len(items) - 1)).round().astype(int)
    return [items[place] for place in sorted(set(places.tolist()))]


def _score(row: Mapping[str, Any]) -> float:
    return float(row.get("CIDEr", 0.0))
