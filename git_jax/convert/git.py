"""GIT: the names of Hugging Face's `GitForCausalLM` and of the original release."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from git_jax.convert import vit
from git_jax.convert.table import Row, Table, boxed, dense, layers, norm
from git_jax.models.git import Git
from git_jax.vision.vit import ViT

BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "ffn_norm": "output.LayerNorm",
}


def huggingface(model: Git) -> Table:
    """The names of `GitForCausalLM`, as transformers 5 writes them."""
    tower = vit.clip(_tower(model)).below("git.image_encoder.vision_model.", "encoder/")
    rows = [
        Row("git.embeddings.word_embeddings.weight", "embed/word"),
        Row("git.embeddings.position_embeddings.weight", "embed/position"),
        *norm("git.embeddings.LayerNorm", "embed/norm"),
        *layers("git.encoder.layer.{}.", "decoder/layers/", **BERT_LAYER),
        *dense("git.visual_projection.visual_projection.0", "project"),
        *norm("git.visual_projection.visual_projection.1", "project_norm"),
        Row("output.bias", "embed/output_bias"),
    ]
    if not model.embed.tied:
        rows.append(Row("output.weight", "embed/output"))
    if model.frames > 1:
        rows.append(Row("git.img_temporal_embedding.{}", "temporal", boxed(2)))
    ignored = (r"git\.embeddings\.position_ids", *tower.ignored)
    return Table(tower.rows + tuple(rows), ignored)


def original(model: Git) -> Table:
    """The names of a `model.pt` of the original release, without `module.`."""
    tower = vit.openai(_tower(model)).below("image_encoder.", "encoder/")
    rows = [
        Row("textual.embedding.words.weight", "embed/word"),
        Row("textual.embedding.positions.weight", "embed/position"),
        *norm("textual.embedding.layer_norm", "embed/norm"),
        *layers(
            "textual.transformer.encoder.layer.{}.", "decoder/layers/", **BERT_LAYER
        ),
        *dense("textual.visual_projection.0", "project"),
        *norm("textual.visual_projection.1", "project_norm"),
        Row("textual.output.bias", "embed/output_bias"),
    ]
    if not model.embed.tied:
        rows.append(Row("textual.output.weight", "embed/output"))
    if model.frames > 1:
        rows.append(Row("img_temperal_embedding.{}", "temporal", boxed(2)))
    return Table(tower.rows + tuple(rows), tower.ignored)


class Head(NamedTuple):
    """The head over the words, among the arrays of a model."""

    kernel: str
    words: str
    """What the kernel is where it is tied."""
    tied: str
    """Why it is, and what to do where it is not."""


HUGGINGFACE_HEAD = Head(
    "output.weight",
    "git.embeddings.word_embeddings.weight",
    "its config.json says that they are tied: set tie_word_embeddings to false there "
    "to keep both",
)
ORIGINAL_HEAD = Head(
    "textual.output.weight",
    "textual.embedding.words.weight",
    "the original release has one array for both: the file is damaged, or of a model "
    "that the release is not",
)


def without_tied_head(
    theirs: Mapping[str, np.ndarray], head: Head, *, where: str
) -> dict[str, Any]:
    """The arrays of a tied model, without the copy of the words that is its head.

    Raises:
        ValueError: the head is another array, so that the model is not tied.
    """
    rest = {name: theirs[name] for name in theirs if name != head.kernel}
    if head.kernel in theirs and head.words in theirs:
        if not np.array_equal(theirs[head.kernel], theirs[head.words]):
            raise ValueError(
                f"{where}: {head.kernel} differs from {head.words}, but {head.tied}"
            )
    return rest


def _tower(model: Git) -> ViT:
    if not isinstance(model.encoder, ViT):
        raise ValueError(
            f"a GIT with the encoder {type(model.encoder).__name__} has no names "
            f"elsewhere: the published checkpoints have a ViT"
        )
    return model.encoder
