"""The page of `git_jax/report.py`, its curves and its markup."""

import base64
import html.parser
import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from git_jax import chart, gallery, markup, report

PICTURE = report.data_uri(np.full((4, 4, 3), 200, np.uint8))
HOSTILE = "<script>alert('&')</script>"


class Page(html.parser.HTMLParser):
    """Elements, attributes and text of a page, which must close what it opens."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in markup.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def metrics(count):
    for step in range(1, count + 1):
        yield {
            "step": step,
            "loss": 6 / step,
            "learning_rate": 1e-3,
            "gradient_norm": None if step == 2 else 1.0,
            "bad_records": {HOSTILE: 2},
            "images_per_second": 640.0,
            "seconds": 0.1,
            "waited": 0.002,
        }


def prediction(index, caption="a dog", **more):
    row = {"id": f"p/{index:02}", "caption": caption, "references": ["a cat", "a dog"]}
    return row | {"CIDEr": float(index), "picture": PICTURE} | more


FILES = {
    "config.json": {
        "steps": 20,
        "model": {"class": "a:B", "pattern": {"tuple": ["x"]}, "note": HOSTILE},
    },
    "metrics.jsonl": list(metrics(20)),
    "scores.json": {
        HOSTILE: {
            "CIDEr": 4.2,
            "CIDEr_constant": 0.4,
            "CIDEr_shuffled": 0.6,
            "BLEU_4": 0.5,
            "object_accuracy": 0.875,
            "examples": 1000,
            "step": 4321,
        }
    },
    "samples.jsonl": [
        {"step": s, "id": HOSTILE, "caption": f"{HOSTILE} {s}", "reference": HOSTILE}
        for s in (5, 10)
    ],
    "predictions/test.jsonl": [
        prediction(i, HOSTILE, id=f"{i} {HOSTILE}", references=[HOSTILE])
        for i in range(20)
    ],
    "environment.json": {"devices": HOSTILE, "packages": {"jax": HOSTILE}},
}


def make(directory, names):
    for name in names:
        rows = FILES[name]
        jsonl(directory / name, rows if isinstance(rows, list) else [rows])
    path = report.write(directory)
    assert path == directory / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("missing", [None, *FILES])
def test_a_run_in_any_state_has_a_page(tmp_path, missing):
    make(tmp_path, [name for name in FILES if name != missing])


@pytest.mark.parametrize("name", [None, *FILES])
def test_a_run_that_has_but_one_file_has_a_page(tmp_path, name):
    make(tmp_path, [name] if name else [])


def test_the_page_holds_all_texts_as_text_and_fetches_nothing(tmp_path):
    page = make(tmp_path, FILES)
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) > 20
    links = [value for key, value in page.attributes if key in ("src", "href")]
    assert links and all(link.startswith("data:image/") for link in links)
    assert "http" not in (tmp_path / "report.html").read_text()


def test_a_picture_from_elsewhere_is_left_out(tmp_path):
    row = prediction(1, picture="https://example.com/a.png")
    jsonl(tmp_path / "predictions/test.jsonl", [row])
    text = report.write(tmp_path).read_text()
    assert "example.com" not in text and "<img" not in text


def test_the_headline_numbers_are_those_of_the_files(tmp_path):
    text = make(tmp_path, FILES).text
    assert "4.20" in text and "7.0 times what the same captions" in text
    assert "87.5 %" in text and "1,000 pictures, after step 4,321" in text
    assert "20 of 20 steps · 1,280 pictures seen · 0:02 of training" in text
    assert "2.0 % of it waiting for data" in text


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"CIDEr": 0.5, "CIDEr_shuffled": 0.45}, "it hardly looks"),
        ({"CIDEr": 0.0, "CIDEr_shuffled": 0.0}, "it hardly looks"),
        ({"CIDEr": 0.5, "CIDEr_shuffled": 0.0}, "the same captions get nothing"),
        ({"CIDEr": 0.5}, "no control was measured"),
    ],
)
def test_a_model_that_does_not_look_is_told_so(tmp_path, scores, words):
    (tmp_path / "scores.json").write_text(json.dumps({"test": scores}))
    assert words in Page(report.write(tmp_path).read_text()).text


def test_a_torn_last_row_is_passed_over(tmp_path):
    make(tmp_path, FILES)
    before = (tmp_path / "report.html").read_text()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 21, "lo')
    assert report.write(tmp_path).read_text() == before


@pytest.mark.parametrize("count", [1, 2, 5, 3000])
def test_runs_of_any_length_are_drawn(tmp_path, count):
    jsonl(tmp_path / "metrics.jsonl", metrics(count))
    page = Page(report.write(tmp_path).read_text())
    assert page.tags.count("svg") == 5
    assert "nan" not in page.text.lower()


def test_the_gallery_is_chosen_by_rule():
    rows = [prediction(i) for i in range(20)]
    chosen = gallery.choose(rows[::-1])
    assert [[row["CIDEr"] for row in part] for part in chosen.values()] == [
        [19, 18, 17, 16],
        [11, 10, 9, 8],
        [3, 2, 1, 0],
    ]
    pictured = [
        prediction(i) if i < 3 else prediction(i, picture=None) for i in range(20)
    ]
    assert [len(part) for part in gallery.choose(pictured).values()] == [3]
    assert gallery.choose([]) == {}


def test_a_word_is_true_as_often_as_a_reference_has_it():
    marked = gallery._marked("A a a dog!", ["a dog and a cat"])
    assert marked.count('class="true"') == 3
    assert marked.count('<span class="true">A</span>') == 1


@pytest.mark.parametrize(("side", "kind"), [(64, "png"), (96, "png"), (640, "jpeg")])
def test_a_picture_is_kept_in_the_page(side, kind):
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    head, data = report.data_uri(picture).split(",")
    assert head == f"data:image/{kind};base64"
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert image.shape == (min(side, 256), min(side, 256), 3)
    if kind == "png":
        np.testing.assert_array_equal(image, picture)


def test_markup_escapes_what_is_text_and_nothing_twice():
    inner = markup.element("b", "<&>", title='"')
    assert inner == '<b title="&quot;">&lt;&amp;&gt;</b>'
    outer = markup.element("p", inner, None, [1, " < ", 2.5], class_=None, data_x="y")
    assert outer == f'<p data-x="y">{inner}1 &lt; 2.5</p>'


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0.3, 9, 4, [0, 2.5, 5, 7.5, 10]),
        (1, 2000, 5, [0, 500, 1000, 1500, 2000]),
        (-1e-5, 2e-5, 3, [-1e-5, 0, 1e-5, 2e-5]),
        (3, 3, 4, [3]),
    ],
)
def test_ticks_are_round_and_around(low, high, count, expected):
    assert chart.ticks(low, high, count) == expected


def test_smoothing_is_a_mean_that_passes_gaps_over():
    values = np.arange(400.0)
    np.testing.assert_allclose(chart.smoothed(values)[5:-5], values[5:-5])
    values[200] = math.nan
    assert np.isfinite(chart.smoothed(values)).all()
    weighted = chart.smoothed(np.array([1.0, 3.0] * 200), np.array([3.0, 1.0] * 200))
    np.testing.assert_allclose(weighted[20:-20], 1.5, atol=0.1)
    assert np.isnan(chart.smoothed(np.full(3, math.nan))).all()


def test_no_spike_of_a_long_curve_is_lost():
    values = np.ones(100_000)
    values[1234], values[50_001] = 9.0, -9.0
    drawn = chart.draw(
        chart.Curve("x", np.arange(100_000), values, floor=-10.0, ceiling=10.0)
    )
    points = drawn.partition('points="')[2].partition('"')[0].split()
    assert len(points) <= chart.POINTS
    heights = [float(point.split(",")[1]) for point in points]
    assert max(heights) - min(heights) > 0.85 * (
        chart.HEIGHT - chart.TOP - chart.BOTTOM
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "scores.json").write_text("{"), "scores.json is not JSON"),
        (
            lambda run: (run / "config.json").write_text("[1]"),
            "config.json holds '[1]'",
        ),
        (lambda run: (run / "metrics.jsonl").write_text("x\n{}"), "line 1: b'x"),
        (lambda run: run.rmdir(), "no run to report on"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, spoil, message):
    run = tmp_path / "run"
    run.mkdir()
    spoil(run)
    with pytest.raises(ValueError) as error:
        report.write(run)
    assert message in str(error.value)


def test_the_command_prints_the_path_or_one_line_of_what_is_wrong(tmp_path):
    def call(*arguments):
        command = [sys.executable, "-m", "git_jax.report", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    good = call(f"--run={tmp_path}")
    assert (good.returncode, good.stdout) == (0, f"{tmp_path}/report.html\n"), good
    bad = call(f"--run={tmp_path}/nothing")
    assert bad.returncode == 1 and not bad.stdout
    assert bad.stderr.startswith("error: no run") and bad.stderr.count("\n") == 1
