"""The tokenizer against Stanford's, and against its answers to real captions."""

from collections.abc import Callable
from typing import Any

import pytest

from git_jax.tasks import ptb

# Found by asking the reference. One caption each, so that none meets its neighbour.
CASES = {
    "A man's dog can't sit.": "a man 's dog ca n't sit",
    "I cannot, I'm gonna 'tis": "i can not i 'm gon na 't is",
    "O'Neal and the dogs' Xi'an": "o'neal and the dogs xi'an",
    "rock 'n' roll, '80s and 80's": "rock 'n' roll '80s and 80 's",
    "Mr. Lee of St. Ives, U.S.": "mr. lee of st. ives u.s.",
    "No. 5 and no. Mass. mass.": "no. 5 and no mass. mass",
    "J. Lee and plan A. The end.": "j. lee and plan a the end",
    "at 5:30 a.m. on 12/25/2014.": "at 5:30 a.m. on 12/25/2014",
    "1,000.50 is 50% of US$5, £3": "1,000.50 is 50 % of us$ 5 # 3",
    "22 3/4 and 3-1/2 and 1½": "22\u00a03/4 and 3-1/2 and 1 1/2",
    "call (650) 555-1234": "call -lrb-650-rrb-\u00a0555-1234",
    '"black-and-white" and/or AT&T': "black-and-white and/or at&t",
    "(a) [b] {c} :-) ;(": "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb- :--rrb- ;-lrb-",
    "street.There photo.jpg x_1": "street.there photo.jpg x_1",
    "http://a.com/b?c=d, www.a.com.": "http://a.com/b?c=d www.a.com",
    "me@a.com @home #tag #1 <unk>": "me@a.com @home #tag # 1 <unk>",
    "what?! -- ... ----- !": "what ?! -----",
    "café 日本 😀 ☃ tele\u00adphone": "café 日本 ☃ telephone",
    "&lt; &quot;R&amp;D&quot; &nbsp;": "< r&d",
    "": "",
}


@pytest.mark.parametrize("caption", CASES)
def test_kinds_of_words(caption: str) -> None:
    assert ptb.tokenize([caption]) == [CASES[caption]]


def test_one_line_for_each_caption() -> None:
    captions = ["a\nb", "", "c\r\nd", " ", "e\u2028f\x0bg\x85h", "\n"]
    assert ptb.tokenize(captions) == ["a b", "", "c d", "", "e f g h", ""]
    assert ptb.tokenize([]) == [""]


def test_plain_words_are_their_own_tokens() -> None:
    """Tokens of lower-case letters are what they were made of, so it is idempotent."""
    tokens = ptb.tokenize(["A dog, a cat and (so they say) two birds!"])
    assert ptb.tokenize(["a dog a cat and two birds"]) == ["a dog a cat and two birds"]
    assert tokens == ["a dog a cat and -lrb- so they say -rrb- two birds"]
    assert ptb.tokenize(tokens) == tokens


@pytest.mark.parametrize("name", ["A_fakecap126", "B_human1000"])
def test_real_captions_have_the_stored_tokens(
    name: str, coco: Callable[[str], Any]
) -> None:
    captions, expected = coco(f"set_{name}.json"), coco(f"expected_{name}.json")
    order = expected["order"]
    said = [text for id in order for text in captions["refs"][id]]
    assert ptb.tokenize(said) == [t for id in order for t in expected["tok_refs"][id]]


@pytest.mark.parametrize("seed", [0, 1])
def test_random_captions_have_the_reference_s_tokens(
    seed: int,
    random_captions: Callable[[int, int], list[str]],
    stanford: Callable[[list[str]], list[str]],
) -> None:
    captions = random_captions(1500, seed)
    pairs = zip(captions, ptb.tokenize(captions), stanford(captions), strict=True)
    assert not [pair for pair in pairs if pair[1] != pair[2]]
