"""The numbers are pycocoevalcap's, and the controls are what they claim to be."""

import contextlib
import io
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from git_jax.tasks import caption_metrics
from git_jax.tasks.caption_metrics import Cider, Metric, References

NAMES = ["BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "ROUGE_L", "CIDEr"]
WORDS = "a the red blue dog cat man on of near -lrb- 's 3\u00a01/2".split(" ")


def metrics(candidates: list[str], references: References) -> dict[str, Metric]:
    return caption_metrics.captions(candidates, references, Cider(references))


def random_set(pictures: int, seed: int) -> tuple[list[str], list[list[str]]]:
    """Few words, so that n-grams repeat; empty captions; one to five references."""
    rng = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(rng.choice(WORDS, size=rng.integers(0, 12)))

    references = [[text() for _ in range(rng.integers(1, 6))] for _ in range(pictures)]
    return [text() for _ in range(pictures)], references


@pytest.mark.parametrize("name", ["A_fakecap126", "B_human1000"])
def test_scores_of_real_captions(name: str, coco: Callable[[str], Any]) -> None:
    expected = coco(f"expected_{name}.json")
    found = metrics(
        [expected["tok_cands"][i] for i in expected["order"]],
        [expected["tok_refs"][i] for i in expected["order"]],
    )
    for ours, corpus in coco("expected_scores.json")[name].items():
        if ours != "METEOR":
            metric = found[ours.replace("Bleu", "BLEU")]
            np.testing.assert_allclose(metric.corpus, corpus, atol=1e-6)
    for theirs in ("Bleu_4", "ROUGE_L", "CIDEr"):
        np.testing.assert_allclose(
            found[theirs.replace("Bleu", "BLEU")].pictures,
            expected["per_image"][theirs],
            atol=1e-6,
        )


def test_scores_of_odd_sets(coco: Callable[[str], Any]) -> None:
    for name, case in coco("quirk_cases.json").items():
        found = metrics(
            [captions[0] for captions in case["cands"].values()],
            list(case["refs"].values()),
        )
        expected = case["expected"]
        wanted = [*expected["Bleu"], expected["ROUGE_L"], expected["CIDEr"]]
        np.testing.assert_allclose(
            [found[metric].corpus for metric in NAMES], wanted, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize(("pictures", "seed"), [(40, 0), (40, 1), (2, 2), (1, 3)])
def test_scores_of_random_captions_are_the_reference_s(
    pictures: int, seed: int
) -> None:
    pytest.importorskip(
        "pycocoevalcap",
        reason="pycocoevalcap is not installed: pip install --no-deps pycocoevalcap",
    )
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider as TheirCider
    from pycocoevalcap.rouge.rouge import Rouge

    candidates, references = random_set(pictures, seed)
    said = {i: [text] for i, text in enumerate(candidates)}
    known = dict(enumerate(references))
    with contextlib.redirect_stdout(io.StringIO()):
        corpora, each = Bleu().compute_score(known, said)
        for scorer in (Rouge(), TheirCider()):
            corpus, pictures_of = scorer.compute_score(known, said)
            corpora, each = [*corpora, corpus], [*each, pictures_of]
    found = metrics(candidates, references)
    for name, corpus, of_each in zip(NAMES, corpora, each, strict=True):
        np.testing.assert_allclose(found[name].corpus, corpus, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(
            found[name].pictures, of_each, atol=1e-9, err_msg=name
        )


def test_the_best_constant_is_the_best_of_all_references() -> None:
    for seed in range(3):
        _, references = random_set(12, seed)
        cider = Cider(references)
        caption, score = cider.best_constant()
        scores = {
            text: cider.score([text] * len(references)).corpus
            for text in itertools.chain(*references)
        }
        assert score == pytest.approx(max(scores.values()))
        assert scores[caption] == pytest.approx(score)


def test_one_picture_has_no_rare_words() -> None:
    cider = Cider([["a dog", "the dog"]])
    assert cider.score(["a dog"]).corpus == 0
    assert cider.best_constant() == ("a dog", 0)


def test_a_new_word_makes_a_caption_longer_and_no_better() -> None:
    cider = Cider([["a red dog", "a dog"], ["a blue cat"]])
    known = cider.score(["a red dog", "a blue cat"]).pictures
    other = cider.score(["a zebra red dog", "a blue cat"]).pictures
    assert other[0] < known[0] and other[1] == known[1]
