"""The caption task: texts to learn, scores that are whole, files of captions."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from git_jax.data.scenes import Scenes
from git_jax.tasks.caption import Caption, score_captions, score_files

RECORDS = [
    {"id": "a", "frames": [b"A"], "texts": ("A dog runs.", "The dog is running.")},
    {"id": "b", "frames": [b"B"], "texts": ("Two men ride a brown horse.",)},
    {"id": "c", "frames": [b"C"], "texts": ("A cat sleeps on a red sofa.",)},
]
SAID = {"a": "a dog runs", "b": "two men on a horse", "c": "a cat on a sofa"}


def test_examples_are_distinct_while_they_last() -> None:
    rng = np.random.default_rng(0)
    record = {"id": "x", "frames": [b"x"], "texts": ("p", "q", "r")}
    for _ in range(10):
        examples = Caption().examples(record, rng, 5)
        said = [example.suffix for example in examples]
        assert sorted(said[:3]) == ["p", "q", "r"] and len(set(said[3:])) == 2
    assert examples[0].frames == [b"x"] and examples[0].prefix == ""
    assert Caption().examples(record | {"texts": ()}, rng, 2) == []


def test_examples_are_a_function_of_the_random_numbers() -> None:
    record = {"id": "x", "frames": [], "texts": tuple("abcdefgh")}
    first, second = (
        Caption().examples(record, np.random.default_rng(7), 3) for _ in range(2)
    )
    assert first == second


def test_the_score_is_whole_and_has_its_controls() -> None:
    scores = Caption().score(SAID, RECORDS)
    assert set(scores) == {
        *("BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "ROUGE_L", "CIDEr"),
        *("CIDEr_constant", "CIDEr_shuffled", "examples"),
    }
    assert scores["examples"] == 3
    assert scores["CIDEr"] > scores["CIDEr_shuffled"]
    assert scores["CIDEr_constant"] > scores["CIDEr_shuffled"]
    reordered = dict(reversed(SAID.items()))
    assert Caption().score(reordered, RECORDS) == scores


def test_captions_that_ignore_the_picture_are_caught() -> None:
    records = [Scenes(part="test")[i] for i in range(40)]
    blind = {record["id"]: records[0]["texts"][0] for record in records}
    scores = Caption().score(blind, records)
    assert scores["CIDEr"] == pytest.approx(scores["CIDEr_shuffled"])
    assert scores["CIDEr"] <= scores["CIDEr_constant"] + 1e-12
    assert scores["caption_exact"] < 0.1

    seeing = {record["id"]: record["texts"][0] for record in records}
    scores = Caption().score(seeing, records)
    assert scores["CIDEr"] > 3 * scores["CIDEr_shuffled"]
    assert scores["object_accuracy"] == scores["caption_exact"] == 1


def test_scores_of_each_have_the_score_as_their_mean() -> None:
    each = Caption().each(SAID, RECORDS)
    assert list(each) == ["a", "b", "c"]
    whole = Caption().score(SAID, RECORDS)["CIDEr"]
    assert np.mean(list(each.values())) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("said", "records", "fault"),
    [
        ({"a": "x", "c": "y"}, RECORDS, "the id 'b' is without a caption"),
        (SAID | {"d": "x", "e": "y"}, RECORDS, "the ids 'd', 'e' are with a caption"),
        (SAID, [*RECORDS, RECORDS[1]], "'b' is there twice"),
        (SAID, [*RECORDS[:2], RECORDS[2] | {"texts": ()}], "'c' is with an empty list"),
        ({}, [], "nothing to score"),
    ],
)
def test_a_partial_result_is_no_score(said: Any, records: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Caption().score(said, records)


def write(path: pathlib.Path, content: Any) -> pathlib.Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_files_score_as_their_captions_do(tmp_path: pathlib.Path) -> None:
    references = {r["id"]: list(r["texts"]) for r in RECORDS}
    said = write(tmp_path / "p.json", SAID)
    known = write(tmp_path / "r.json", references)
    scores = score_files(said, known)
    whole = Caption().score(SAID, RECORDS)
    assert scores == {name: whole[name] for name in scores} and len(scores) == 6
    # As tokens, "runs." and "runs" are two words.
    assert score_files(said, known, tokens=True)["CIDEr"] < scores["CIDEr"]


@pytest.mark.parametrize(
    ("said", "known", "fault"),
    [
        ("{", {}, "p.json is not JSON"),
        (["a"], {}, r"p.json holds \[\"a\"\]; write {id: caption}"),
        ('{"a": "x", "a": "y"}', {"a": ["x"]}, "p.json: 'a' is there twice"),
        ({"a": ["x"]}, {"a": ["x"]}, "p.json: 'a' has .* not one caption"),
        ({"a": "x"}, {"a": "x"}, "r.json: 'a' has .* not a list of captions"),
        ({"a": "x"}, {"a": [1]}, "r.json: 'a' has .* not a list of captions"),
        ({"a": "x"}, {"a": []}, "the id 'a' is with an empty list"),
        ({"a": "x"}, {"b": ["x"]}, "r.json: the id 'b' is without a caption"),
        ({}, {}, "nothing to score"),
    ],
)
def test_bad_files(tmp_path: pathlib.Path, said: Any, known: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        score_files(write(tmp_path / "p.json", said), write(tmp_path / "r.json", known))


def test_unreadable_files(tmp_path: pathlib.Path) -> None:
    known = write(tmp_path / "r.json", {"a": ["x"]})
    with pytest.raises(ValueError, match="none.json cannot be read: No such file"):
        score_files(tmp_path / "none.json", known)
    (tmp_path / "latin.json").write_bytes('{"a": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="latin.json is not UTF-8"):
        score_files(tmp_path / "latin.json", known)


@pytest.mark.parametrize("name", ["A_fakecap126", "B_human1000"])
def test_scores_of_real_captions(name: str, coco: Callable[[str], Any]) -> None:
    given = coco(f"set_{name}.json")
    scores = score_captions(given["cands"], given["refs"])
    for theirs, value in coco("expected_scores.json")[name].items():
        if theirs != "METEOR":
            ours = scores[theirs.replace("Bleu", "BLEU")]
            assert ours == pytest.approx(value, abs=1e-6), theirs


def test_scores_of_random_captions_are_the_reference_s(
    random_captions: Callable[[int, int], list[str]],
    stanford: Callable[[list[str]], list[str]],
) -> None:
    """Tokens and numbers together: raw captions in, the published score out."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    captions = iter(random_captions(400, 5))
    known = {str(i): [next(captions) for _ in range(1 + i % 5)] for i in range(100)}
    # Pieces of a reference, so that there is something to score.
    said = {i: texts[0][: 1 + 7 * int(i) % 80] for i, texts in known.items()}
    tokens = iter(stanford([text for texts in known.values() for text in texts]))
    gts = {i: [next(tokens) for _ in texts] for i, texts in known.items()}
    res = {i: [text] for i, text in zip(said, stanford([*said.values()]), strict=True)}

    expected = Bleu().compute_score(gts, res, verbose=0)[0]
    expected += [scorer.compute_score(gts, res)[0] for scorer in (Rouge(), Cider())]
    names = ("BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "ROUGE_L", "CIDEr")
    ours = score_captions(said, known)
    assert [ours[name] for name in names] == pytest.approx(expected, abs=1e-9)
    assert ours["CIDEr"] > 1
