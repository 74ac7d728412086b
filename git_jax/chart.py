"""Curves over the steps of a run, as SVG that needs nothing else.

Drawn for a page: colours and fonts come from the page's style sheet by class, and the
pointer shows the values under it in the browser's own way, by `<title>`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from git_jax.markup import Markup, element

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 34  # the margins around the plot
POINTS = 400  # that a curve is drawn with at most
STOPS = 80  # that the pointer has at most, over the width


@dataclass(frozen=True)
class Curve:
    """A quantity over steps.

    Args:
      title: what it is; the unit belongs here.
      steps: rising, of any number.
      values: one for each step; NaN where there was none.
      smooth: the same, smoothed, drawn over them; None draws the values alone.
      floor: a value the axis reaches down to, None to fit the values.
      ceiling: a value the axis reaches up to, None to fit the values.
      form: how a value is written.
    """

    title: str
    steps: np.ndarray
    values: np.ndarray
    smooth: np.ndarray | None = None
    floor: float | None = None
    ceiling: float | None = None
    form: Callable[[float], str] = "{:.4g}".format


def draw(curve: Curve) -> Markup:
    """A figure with the curve, axes with ticks, and the values under the pointer."""
    low, high = _range(curve)
    y_ticks = ticks(low, high, 4)
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    first, last = float(curve.steps[0]), float(curve.steps[-1])
    across = WIDTH - LEFT - RIGHT
    down = HEIGHT - TOP - BOTTOM

    def x(step: float) -> float:
        part = (step - first) / (last - first) if last > first else 0.5
        return round(LEFT + part * across, 1)

    def y(value: float) -> float:
        part = (value - low) / (high - low)
        return round(TOP + (1 - min(max(part, 0.0), 1.0)) * down, 1)

    parts: list[Markup] = []
    for tick in y_ticks:
        parts += [
            element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(tick), y2=y(tick),
                    class_="grid"),
            element("text", curve.form(tick), x=LEFT - 8, y=y(tick) + 4,
                    text_anchor="end"),
        ]  # fmt: skip
    base = TOP + down
    for tick in ticks(first, last, 5):
        if first <= tick <= last and tick == round(tick):
            parts += [
                element("line", x1=x(tick), x2=x(tick), y1=base, y2=base + 4,
                        class_="tick"),
                element("text", f"{tick:,.0f}", x=x(tick), y=base + 17,
                        text_anchor="middle"),
            ]  # fmt: skip
    parts.append(element("text", "step", x=WIDTH - RIGHT, y=HEIGHT - 2,
                         text_anchor="end", class_="axis"))  # fmt: skip
    raw = "raw" if curve.smooth is not None else "main"
    parts.append(_line(curve.steps, curve.values, x, y, raw))
    if curve.smooth is not None:
        parts.append(_line(curve.steps, curve.smooth, x, y, "main"))
    parts += _stops(curve, x)
    return element(
        "figure",
        element("figcaption", curve.title, element("b", _latest(curve))),
        element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img",
                aria_label=f"{curve.title} over steps"),
        class_="chart",
    )  # fmt: skip


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers around `low` to `high`: 0.3, 9 -> 0 2.5 5 7.5 10."""
    rough = (high - low) / count
    if rough <= 0:
        return [low]
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= rough * (1 - 1e-9))
    numbers = range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)
    return [float(f"{n * step:.12g}") for n in numbers]


def smoothed(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Means over a window of a fortieth of the values, centred; NaN counts for none.

    With weights `w` the mean of `values` weighted by them, of the same length.
    """
    weights = np.ones(len(values)) if weights is None else weights
    known = np.isfinite(values) & np.isfinite(weights)
    reach = len(values) // 80
    sums = np.cumsum(
        np.pad(np.where(known, [values * weights, weights], 0.0), [(0, 0), (1, 0)]),
        axis=1,
    )
    index = np.arange(len(values))
    start = np.maximum(index - reach, 0)
    stop = np.minimum(index + reach + 1, len(values))
    total, weight = sums[:, stop] - sums[:, start]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, total / weight, np.nan)


def _range(curve: Curve) -> tuple[float, float]:
    """What the axis spans: without the rarest spikes, which are cut at its edge."""
    seen = curve.values[np.isfinite(curve.values)]
    low, high = np.percentile(seen, [0.5, 99.5]) if len(seen) else (0.0, 1.0)
    low = low if curve.floor is None else min(low, curve.floor)
    high = high if curve.ceiling is None else max(high, curve.ceiling)
    if high - low <= 1e-9 * max(abs(high), abs(low)):
        pad = abs(high) / 2 or 1.0
        return float(low - pad), float(high + pad)
    return float(low), float(high)


def _latest(curve: Curve) -> str:
    values = curve.values if curve.smooth is None else curve.smooth
    known = values[np.isfinite(values)]
    return curve.form(float(known[-1])) if len(known) else "none"


def _line(
    steps: np.ndarray,
    values: np.ndarray,
    x: Callable[[float], float],
    y: Callable[[float], float],
    name: str,
) -> Markup:
    """A path through the values; where they are too many, through the least and the
    greatest of each bucket, so that no spike is lost."""
    known = np.flatnonzero(np.isfinite(values))
    kept: Sequence[int] | np.ndarray = known
    if len(known) > POINTS:
        kept = []
        for bucket in np.array_split(known, POINTS // 2):
            ends = {bucket[values[bucket].argmin()], bucket[values[bucket].argmax()]}
            kept += sorted(int(i) for i in ends)
    points = " ".join(f"{x(float(steps[i]))},{y(float(values[i]))}" for i in kept)
    if len(kept) == 1:  # a line of one point cannot be seen
        place = {"cx": x(float(steps[kept[0]])), "cy": y(float(values[kept[0]]))}
        return element("circle", r=3, class_=f"dot {name}", **place)
    return element("polyline", points=points, class_=name)


def _stops(curve: Curve, x: Callable[[float], float]) -> list[Markup]:
    """Upright stripes that show their step and value under the pointer."""
    stops = np.unique(np.linspace(0, len(curve.steps) - 1, STOPS).round().astype(int))
    width = round((WIDTH - LEFT - RIGHT) / len(stops), 1)
    stripes = []
    for i in stops:
        words = [f"step {int(curve.steps[i]):,}"]
        if np.isfinite(curve.values[i]):
            words.append(curve.form(float(curve.values[i])))
        if curve.smooth is not None and np.isfinite(curve.smooth[i]):
            words.append(f"smoothed {curve.form(float(curve.smooth[i]))}")
        left = round(x(float(curve.steps[i])) - width / 2, 1)
        place = {"x": left, "y": TOP, "width": width, "height": HEIGHT - TOP - BOTTOM}
        title = element("title", "   ".join(words))
        stripes.append(element("rect", title, class_="stop", **place))
    return stripes
