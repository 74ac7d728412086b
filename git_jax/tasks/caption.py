"""Captioning: a picture in, one sentence about it out.

The score is the published one (CIDEr-D, BLEU, ROUGE-L on Penn Treebank tokens), beside
two controls that need no model: `CIDEr_constant`, the best that one caption for all
pictures can get, and `CIDEr_shuffled`, what the same captions get on other pictures. A
model that does not look scores no better than they do.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from git_jax.data import grammar
from git_jax.data.source import Record
from git_jax.tasks import caption_metrics, ptb


@dataclass(frozen=True)
class Example:
    """One text of a picture: `prefix` is given to the model, `suffix` is to be said."""

    frames: Sequence[Any]
    prefix: str
    suffix: str


@dataclass(frozen=True)
class Caption:
    """Says what a picture shows; scored against what people said."""

    def examples(
        self, record: Record, rng: np.random.Generator, count: int
    ) -> list[Example]:
        """`count` captions of the record, each once before any comes again.

        Two texts and a count of three: [b a b]. None where the record has no text.
        """
        texts = record["texts"]
        chosen: list[int] = []
        while texts and len(chosen) < count:
            chosen.extend(rng.permutation(len(texts)).tolist())
        return [Example(record["frames"], "", texts[i]) for i in chosen[:count]]

    def references(self, record: Record) -> tuple[str, ...]:
        return tuple(record["texts"])

    def score(
        self, predictions: Mapping[str, str], records: Sequence[Record]
    ) -> dict[str, float]:
        """All captions of a split against all its records.

        Args:
            predictions: one caption for each record, by the record's id.
            records: id, texts and, of drawn scenes, the scene; pictures are not needed.

        Returns:
            BLEU_1 .. BLEU_4, ROUGE_L, CIDEr, CIDEr_constant, CIDEr_shuffled, examples;
            where all records have a scene, object_accuracy and caption_exact too.

        Raises:
            ValueError: an id is missing, unknown or there twice, or a record has no
                text: a score over the others would not be the score of the set.
        """
        said, known = self._tokens(predictions, records)
        cider = caption_metrics.Cider(known)
        metrics = caption_metrics.captions(said, known, cider)
        scores = {name: metric.corpus for name, metric in metrics.items()}
        scores["CIDEr_constant"] = cider.best_constant()[1]
        scores["CIDEr_shuffled"] = cider.score(_shuffled(said)).corpus
        scores["examples"] = len(records)
        if all("scene" in record for record in records):
            scores |= grammar.accuracy(
                grammar.judge(predictions[record["id"]], record["scene"])
                for record in records
            )
        return scores

    def each(
        self, predictions: Mapping[str, str], records: Sequence[Record]
    ) -> dict[str, float]:
        """The CIDEr of every record by id; their mean is the CIDEr of `score`."""
        said, known = self._tokens(predictions, records)
        pictures = caption_metrics.Cider(known).score(said).pictures
        ids = (record["id"] for record in records)
        return dict(zip(ids, pictures.tolist(), strict=True))

    def _tokens(
        self, predictions: Mapping[str, str], records: Sequence[Record]
    ) -> tuple[list[str], list[list[str]]]:
        references: dict[str, tuple[str, ...]] = {}
        for record in records:
            if record["id"] in references:
                raise ValueError(f"the record {record['id']!r} is there twice")
            references[record["id"]] = self.references(record)
        return _tokens(predictions, references)


def score_captions(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    tokens: bool = False,
) -> dict[str, float]:
    """BLEU_1 .. BLEU_4, ROUGE_L and CIDEr of captions by id, as pycocoevalcap's.

    Args:
        tokens: both are Penn Treebank tokens already, words joined by blanks.

    Raises:
        ValueError: the ids are not the same, or one has no reference.
    """
    _same_ids(predictions, references)
    if tokens:
        said = [predictions[id] for id in references]
        known = [list(texts) for texts in references.values()]
    else:
        said, known = _tokens(predictions, references)
    metrics = caption_metrics.captions(said, known, caption_metrics.Cider(known))
    return {name: metric.corpus for name, metric in metrics.items()}


def score_files(
    predictions: str | Path, references: str | Path, *, tokens: bool = False
) -> dict[str, float]:
    """`score_captions` of two JSON files: {id: caption} and {id: [caption, ...]}.

    Raises:
        ValueError: a file that cannot be read as that, naming it and the id.
    """
    said = _read(Path(predictions), "{id: caption}")
    known = _read(Path(references), "{id: [caption, ...]}")
    for id, caption in said.items():
        if not isinstance(caption, str):
            raise ValueError(
                f"{predictions}: {id!r} has {_short(caption)}, not one caption: "
                "write {id: caption}"
            )
    for id, texts in known.items():
        if not (isinstance(texts, list) and all(isinstance(t, str) for t in texts)):
            raise ValueError(
                f"{references}: {id!r} has {_short(texts)}, not a list of captions: "
                "write {id: [caption, ...]}"
            )
    try:
        return score_captions(said, known, tokens=tokens)
    except ValueError as error:
        raise ValueError(f"{predictions} against {references}: {error}") from error


def _tokens(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Tokens of the captions and of the references, both in the references' order."""
    _same_ids(predictions, references)
    words = iter(ptb.tokenize(text for texts in references.values() for text in texts))
    known = [[next(words) for _ in texts] for texts in references.values()]
    return ptb.tokenize(predictions[id] for id in references), known


def _same_ids(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> None:
    if not references:
        raise ValueError("there is nothing to score: no picture has references")
    missing = [id for id in references if id not in predictions]
    unknown = [id for id in predictions if id not in references]
    bare = [id for id, texts in references.items() if not texts]
    for ids, fault in (
        (missing, "without a caption; every picture needs one"),
        (unknown, "with a caption and without references; leave it out"),
        (bare, "with an empty list of references; a score needs at least one"),
    ):
        if ids:
            raise ValueError(f"{_some(ids)} {fault}")


def _some(ids: Sequence[str]) -> str:
    names = ", ".join(repr(id) for id in ids[:3])
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return f"the id {names}{more} is" if len(ids) == 1 else f"the ids {names}{more} are"


def _shuffled(captions: Sequence[str]) -> list[str]:
    """Every caption on another picture: one cycle through all, always the same one."""
    order = np.random.default_rng(0).permutation(len(captions))
    shuffled = list(captions)
    for here, there in zip(order, np.roll(order, 1), strict=True):
        shuffled[here] = captions[there]
    return shuffled


def _read(path: Path, form: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"{path}: {twice!r} is there twice; keep one of them")
        return found

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    try:
        found = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}; write {form}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {_short(found)}; write {form}")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
