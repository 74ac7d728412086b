"""Captions to score: real ones where they are, and random ones full of everything."""

import json
import pathlib
import random
import shutil
from collections.abc import Callable
from typing import Any

import pytest

COCO = pathlib.Path(__file__).parents[3] / "shared/data/coco_caption"

# What random captions are made of, a kind of word or mark to a line.
PIECES = """\
a the man dogs street sitting near Two The In It A. I. a. J.K. Plan I
can't DON'T won't isn't it's they're we'd I'll you've dogs' children's man’s don’t
cannot gonna Gotta wanna lemme gimme 'tis 'Twas 'em 'til 'cause 'n' rock'n'roll goin'
O'Neal o'clock d'Artagnan l'eau Xi'an Hawai'i y'all c'mon ol' li'l ma'am qu'il jack-o'
Mr. mrs. St. Dr Ave. Gen. Sgt. Inc. Co. Ltd. etc. Jr. Jan. Sat. Mass. mass. Miss. la.
U.S. u.s.a. D.C. Ph.D. e.g. a.m. P.M. T.V. No. no. Fig. pp. ca. vol. approx. in. v.
0 7 12 100 2014 1,000 2,345.67 3.5 .5 -4 +2 1/2 3-1/2 22 3/4 24/7 12/25/2014 1-2 1995-96
1st 22nd 1980s '80s 80's 12:30 5:45pm 16:9 50% $5 $1,000 US$20 €9 £5 30¢ #1 6'2" 5'10
555-1234 (650) 650-555-1234 3D 4x4 2-story F-16 10-year-old 90° ½ 1½ ⅔ x² mp3 5k
black-and-white T-shirt well- and/or his/her/its 1/b w/ n/a AT&T R&D q&a a_b C# c++ A+
dog.The cat.dog photo.jpg IMG_1.JPG 001.png dog!cat a.m.-p.m. U.S.-based non-U.S. St.-a
http://www.a.com/b?c=d, https://a.org www.a.com www.a.com/bc a.com/bc Google.com
me@a.com @home #tag #1a <b> </b> <unk> <br/> < > <- &amp; &lt; &quot; &nbsp; &apos;
. , ; : ? ! ?! !!! .. ... ..... - -- ---- ----- _ / \\ | & * ** ~ ^ = % # ( ) [ ] { }
" ' `` '' ` “ ” ‘ ’ « » „ … – — • ™ ° 日本 café naïve Über привет ☃ 😀 🐶 日
:) :-( ;D =P ^_^ (^^) -LRB- \u00a0 \u2009 \u200b \x85""".split(" ")
PIECES = [piece for line in PIECES for piece in line.split("\n")]


@pytest.fixture
def random_captions() -> Callable[[int, int], list[str]]:
    """`random_captions(count, seed)`: up to a dozen pieces, most between blanks."""
    return _random_captions


@pytest.fixture
def coco() -> Callable[[str], Any]:
    """`coco(file)`: the reference's scores on real captions; skips without them."""
    if not COCO.is_dir():
        pytest.skip(f"the reference's scores are not here: no {COCO}")
    return lambda name: json.loads((COCO / name).read_text())


@pytest.fixture
def stanford(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> Callable[[list[str]], list[str]]:
    """The reference's tokenizer, captions to tokens; skips where it is missing."""
    reference = pytest.importorskip(
        "pycocoevalcap.tokenizer.ptbtokenizer",
        reason="pycocoevalcap is not installed: pip install --no-deps pycocoevalcap",
    )
    if not shutil.which("java"):
        pytest.skip("the reference's tokenizer needs Java, and none is on the PATH")
    # It writes beside its own jar; the packages of a machine may be read-only.
    jar = reference.STANFORD_CORENLP_3_4_1_JAR
    (tmp_path / jar).symlink_to(pathlib.Path(reference.__file__).parent / jar)
    monkeypatch.setattr(reference, "__file__", str(tmp_path / "ptbtokenizer.py"))

    def tokens(captions: list[str]) -> list[str]:
        rows = [{"caption": caption} for caption in captions]
        return reference.PTBTokenizer().tokenize({0: rows})[0]

    return tokens


def _random_captions(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)

    def piece() -> str:
        text = draw.choice(PIECES)
        change = draw.random()
        if change < 0.08:
            return text.upper()
        if change < 0.16:
            return text.capitalize()
        if change < 0.20:
            return text[: draw.randint(0, len(text))]
        return text

    def caption() -> str:
        blank = draw.choice((1.0, 0.9, 0.6))
        text = "".join(
            piece() + " " * (draw.random() < blank) for _ in range(draw.randint(0, 12))
        )
        return text + "." * (draw.random() < 0.3)

    return [caption() for _ in range(count)]
