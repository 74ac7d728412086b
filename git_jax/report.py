"""The page a run leaves behind: `python -m git_jax.report --run=runs/scenes`.

`report.html` is one file that needs no other and no network: scores beside their
controls, curves, captions becoming true, a gallery, the config, the environment. It is
made of what lies in the run's directory, and whatever is missing yet is said to be:

    config.json        the resolved config           metrics.jsonl   a row a step
    scores.json        {split: {metric: number,      samples.jsonl   captions on the way
                       "step": of the parameters}}   environment.json
    predictions/<split>.jsonl
        {"id", "caption", "references": [...], "CIDEr": 1.2, "picture": "data:..."}
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from git_jax import command, file, gallery
from git_jax.chart import Curve, draw, smoothed
from git_jax.log import clock, rows
from git_jax.markup import Content, Markup, element, join

TIMES_SHUFFLED = 1.5  # a score below so many times the control's gets a warning
TINY = 96  # pixels up to which a picture is kept exact and shown with its pixels

SPLITS = {  # what the pictures of a split are
    "train": "pictures it was trained on",
    "test": "held-out pictures",
    "compositional": "pictures of colours on shapes that never met in training",
}
SHARES = {  # metrics that are shares of a whole: what they are called, what they say
    "object_accuracy": (
        "objects right",
        "Of all objects, those named with the right colour and shape; an object named "
        "that is not there counts as one more that is wrong.",
    ),
    "caption_exact": (
        "captions wholly right",
        "Captions that name every object, a true relation, and nothing else.",
    ),
}
CURVES = {"loss", "learning_rate", "images_per_second", "seconds", "waited", "step"}


def write(directory: str | Path) -> Path:
    """Writes `report.html` of the run in `directory` and returns its path.

    Raises ValueError: no such folder, or a file in it that is not what it should be.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"no run to report on: {directory} is no folder")
    path = directory / "report.html"
    file.write(path, page(directory).encode())
    return path


def data_uri(picture: np.ndarray, side: int = 256) -> str:
    """A picture, u8 [h w 3], as a `data:` URI of at most `side` pixels a side.

    Up to 96 pixels a side it is a PNG and exact, else a JPEG.
    """
    image = Image.fromarray(picture)
    image.thumbnail((side, side))
    kind = "png" if max(image.size) <= TINY else "jpeg"
    data = io.BytesIO()
    image.save(data, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def page(directory: Path) -> Markup:
    """The whole document."""
    config = _read(directory / "config.json")
    metrics = list(rows(directory / "metrics.jsonl"))
    scores = {
        split: found
        for split, found in _read(directory / "scores.json").items()
        if isinstance(found, dict)
    }
    said = directory / "predictions"  # a split may be a path, as "a/test" of a mixture
    files = {
        path.relative_to(said).with_suffix("").as_posix(): path
        for path in sorted(said.rglob("*.jsonl"))
    }
    predictions = {
        split: list(rows(files[split])) for split in [*scores, *files] if split in files
    }
    samples = list(rows(directory / "samples.jsonl"))
    environment = _read(directory / "environment.json")
    name = directory.resolve().name
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width"),
        element("title", f"{name}, a run of git_jax"),
        element("style", Markup(style)),
    )
    body = element(
        "body",
        element("header", element("div", "git_jax", class_="kicker"),
                element("h1", name), _facts(config, metrics, environment)),
        element("main", _scores(scores), _curves(metrics),
                _pictures(samples, predictions), _config(config),
                _environment(environment)),
        element("footer", "Made of the files beside it by ",
                element("code", f"python -m git_jax.report --run={directory}")),
    )  # fmt: skip
    return join(Markup("<!doctype html>\n"), element("html", head, body, lang="en"))


# ---------------------------------------------------------------------------- sections


def _facts(
    config: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any],
) -> Markup:
    facts = []
    if metrics:
        last, steps = metrics[-1]["step"], config.get("steps")
        of = f" of {steps:,}" if isinstance(steps, int) else ""
        facts.append(f"{last:,}{of} steps")
        pictures = np.nansum(
            _column(metrics, "images_per_second") * _column(metrics, "seconds")
        )
        facts.append(f"{pictures:,.0f} pictures seen")
        training = np.nansum(_column(metrics, "seconds"))
        facts.append(f"{clock(float(training))} of training")
        facts.append(
            f"{_waiting(metrics):.1%} of it waiting for data".replace("%", " %")
        )
        replaced = metrics[-1].get("bad_records", {})
        if replaced:
            reasons = ", ".join(f"{count:,} {why}" for why, count in replaced.items())
            facts.append(f"unreadable records replaced: {reasons}")
    if "devices" in environment:
        facts.append(str(environment["devices"]))
    return element("p", " · ".join(facts) or "No step was taken yet.", class_="facts")


def _scores(scores: Mapping[str, Mapping[str, float]]) -> Markup:
    splits = [_split(split, found) for split, found in scores.items()]
    return _section(
        "Is what it says true?",
        "Each picture's caption is held against what people wrote of it. A score alone "
        "says little, so two controls stand beside it: the same captions dealt out to "
        "other pictures, and the one caption that does best when it is given to every "
        "picture. A model that did not look would score no better than they do.",
        splits or _none("The run was not scored."),
    )


def _split(split: str, found: Mapping[str, float]) -> Markup:
    heads = []
    shown = {"examples", "step"}
    if "CIDEr" in found:
        heads.append(_cider(found))
        shown |= {"CIDEr", "CIDEr_shuffled", "CIDEr_constant"}
    for name, (label, meaning) in SHARES.items():
        if name in found:
            share = f"{found[name]:.1%}".replace("%", " %")
            heads.append(_head(share, label, element("p", meaning)))
            shown.add(name)
    others = [
        element(
            "div", element("dt", name.replace("_", "-")), element("dd", f"{value:.3f}")
        )
        for name, value in found.items()
        if name not in shown and isinstance(value, int | float)
    ]
    what = SPLITS.get(split, "pictures")
    count = f"{found['examples']:,.0f} {what}" if "examples" in found else what
    if "step" in found:
        count += f", after step {found['step']:,.0f}"
    return element(
        "section",
        element("h3", split, element("span", count)),
        element("div", *heads, class_="heads"),
        element("dl", *others, class_="rest") if others else None,
        class_="split",
    )


def _cider(found: Mapping[str, float]) -> Markup:
    bars = {
        "this model": found["CIDEr"],
        "its captions, shuffled": found.get("CIDEr_shuffled"),
        "best constant caption": found.get("CIDEr_constant"),
    }
    known = {label: value for label, value in bars.items() if value is not None}
    longest = max(max(known.values()), 1e-9)
    drawn = [
        element(
            "div",
            element("span", label),
            element("i", style=f"width:{100 * max(value, 0) / longest:.1f}%"),
            element("span", f"{value:.2f}"),
            class_="bar own" if label == "this model" else "bar",
        )
        for label, value in known.items()
    ]
    return _head(
        f"{found['CIDEr']:.2f}",
        "CIDEr-D",
        *drawn,
        _against_shuffled(found),
        class_="head wide",
    )


def _against_shuffled(found: Mapping[str, float]) -> Markup:
    """What CIDEr-D means, and what it says beside the control."""
    score, control = found["CIDEr"], found.get("CIDEr_shuffled")
    words = "Agreement with how people put it, rare words counting most"
    if control is None:
        return element("p", f"{words}; no control was measured.", class_="warn")
    if score <= TIMES_SHUFFLED * control:
        words += "; but the captions fit other pictures about as well: it hardly looks."
        return element("p", words, class_="warn")
    if control <= 0:
        return element(
            "p", f"{words}; on other pictures the same captions get nothing."
        )
    times = f"{score / control:,.1f} times what the same captions get on other pictures"
    return element("p", f"{words}; {times}.")


def _head(number: str, label: str, *rest: Markup, class_: str = "head") -> Markup:
    return element(
        "div", element("b", number), element("span", label), *rest, class_=class_
    )


def _curves(metrics: Sequence[Mapping[str, Any]]) -> Markup:
    title, words = (
        "How it learnt",
        "A thin line is each step, a thick one its mean over a fortieth of the run; "
        "the number is where the curve ends. Point at a curve to read it.",
    )
    if not metrics:
        return _section(title, words, _none("No step was taken yet."))
    steps = _column(metrics, "step")
    seconds = _column(metrics, "seconds")
    main = []

    def add(
        title: str, values: np.ndarray, smooth: np.ndarray | None, **axis: Any
    ) -> None:
        if np.isfinite(values).any():
            main.append(draw(Curve(title, steps, values, smooth, **axis)))

    loss = _column(metrics, "loss")
    add("Loss, nats a token", loss, smoothed(loss))
    add("Learning rate", _column(metrics, "learning_rate"), None, floor=0.0)
    speed = _column(metrics, "images_per_second")
    add("Pictures a second", speed, smoothed(speed, seconds), floor=0.0,
        form="{:,.0f}".format)  # fmt: skip
    with np.errstate(invalid="ignore", divide="ignore"):
        share = _column(metrics, "waited") / seconds
    add("Share of time waiting for data", share, smoothed(share, seconds), floor=0.0,
        ceiling=0.05, form=lambda value: f"{value:.1%}".replace("%", " %"))  # fmt: skip
    others = [
        draw(Curve(name.replace("_", " "), steps, values, smoothed(values)))
        for name, values in _others(metrics).items()
        if not np.array_equal(values, loss, equal_nan=True)
    ]
    return _section(
        title,
        words,
        element("div", *main, class_="charts"),
        element("h3", "Whatever else was measured") if others else None,
        element("div", *others, class_="charts small") if others else None,
    )


def _pictures(
    samples: Sequence[Mapping[str, Any]],
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Markup:
    cards = gallery.CARDS
    return join(
        _section(
            "Captions becoming true",
            "What it said of the same few pictures on its way. Coloured words are in "
            "what a person said of the picture, too.",
            gallery.stories(samples) or _none("No samples were taken."),
        ),
        _section(
            "Pictures and what it says of them",
            "Chosen by rule, not by eye: of the pictures kept of each split, in the "
            f"order of their CIDEr-D, the {cards} best, the {cards} in the middle and "
            f"the {cards} worst. Coloured words are in one of the references, below.",
            gallery.gallery(predictions) or _none("There are no predictions."),
        ),
    )


def _config(config: Mapping[str, Any]) -> Markup:
    fields = [_field(name, value) for name, value in config.items()]
    return _section(
        "Every choice",
        "The resolved config, defaults included. Any field can be set on the command "
        "line by its path, as in --config.model.encoder.depth=6.",
        element("div", *fields, class_="tree") if fields else _none("No config.json."),
    )


def _field(name: str, value: Any) -> Markup:
    """A row for a value, a fold for a node; a tagged value as what it means."""
    label = element("span", name)
    if isinstance(value, dict) and len(value) == 1:
        (tag, held), *_ = value.items()
        if tag in ("tuple", "float", "dict"):
            return _field(name, held)
        if tag == "object":
            value = held
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, dict):
        text = value if isinstance(value, str) else json.dumps(value)
        return element("div", label, element("code", text), class_="field")
    kind = value.get("class")
    return element(
        "details",
        element("summary", label, " ", element("code", kind) if kind else None),
        *[_field(key, held) for key, held in value.items() if key != "class"],
    )


def _environment(environment: Mapping[str, Any]) -> Markup:
    facts = {
        key: ", ".join(f"{name} {version}" for name, version in value.items())
        if isinstance(value, dict)
        else value
        for key, value in environment.items()
    }
    table = [
        element("tr", element("th", key, scope="row"), element("td", value))
        for key, value in facts.items()
    ]
    return _section(
        "Where it ran",
        "The machine and the versions of the last start of the run.",
        element("table", *table) if table else _none("No environment.json."),
    )


# ------------------------------------------------------------------------------- parts


def _section(title: str, words: str, *content: Content) -> Markup:
    return element("section", element("h2", title), element("p", words), *content)


def _none(words: str) -> Markup:
    return element("div", words, class_="none")


def _column(metrics: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """f64 [rows]: NaN where a row has no such number."""
    values = [row.get(name) for row in metrics]
    return np.array(
        [value if isinstance(value, int | float) else np.nan for value in values],
        np.float64,
    )


def _others(metrics: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for row in metrics for name in row)
    columns = {name: _column(metrics, name) for name in names if name not in CURVES}
    return {name: c for name, c in columns.items() if np.isfinite(c).any()}


def _waiting(metrics: Sequence[Mapping[str, Any]]) -> float:
    total = float(np.nansum(_column(metrics, "seconds")))
    return float(np.nansum(_column(metrics, "waited"))) / total if total else 0.0


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file; none where the file is not there."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds {str(value)[:80]!r}, not an object")
    return value


def _define() -> None:
    flags.DEFINE_string("run", None, "The run's directory.")


def _main(line: command.Command) -> None:
    if not line.flags.run:
        raise ValueError("--run is missing: name a run's directory, as in --run=runs/a")
    print(write(line.flags.run))


if __name__ == "__main__":
    command.run(_main, _define)
