"""The original release of GIT: what a `model.pt` says of its model by its shapes.

The release keeps no config beside its weights that says all: its sizes are literals in
its code. Widths, depths, patches, positions and frames follow from the arrays; that
heads are 64 wide, the activations and the norms are those of that code.
"""

import math
from collections.abc import Mapping

import numpy as np

from git_jax.config import Node, spec
from git_jax.models.git import Git
from git_jax.nn.embed import TextEmbed
from git_jax.nn.transformer import Stack
from git_jax.vision.vit import ViT

HEAD = 64

# The models of questions saw whole pictures, their aspect kept: of each size, the most
# that the longer side may have.
LONG = {480: 640, 420: 560}

# What OpenAI's file of a whole CLIP has beside the tower: the one for texts.
BESIDE = (
    r"transformer\..*",
    r"token_embedding\.weight",
    r"positional_embedding",
    r"ln_final\..*",
    r"text_projection",
    r"logit_scale",
    r"(input_resolution|context_length|vocab_size)",
)


def is_git(names: Mapping[str, np.ndarray]) -> bool:
    """Whether these are the names of a GIT of the original release."""
    return "textual.embedding.words.weight" in names


def git(theirs: Mapping[str, np.ndarray], *, where: str) -> Node:
    """The model that the arrays make, without `module.` before their names."""
    vocabulary, width = theirs["textual.embedding.words.weight"].shape
    layer = "textual.transformer.encoder.layer.{}."
    mlp = theirs[layer.format(0) + "intermediate.dense.weight"].shape[0]
    return spec(
        Git,
        encoder=tower(theirs, "image_encoder.", where=where),
        embed=spec(
            TextEmbed,
            width=width,
            vocabulary=vocabulary,
            positions=len(theirs["textual.embedding.positions.weight"]),
            tied=True,
            epsilon=1e-8,
        ),
        decoder=spec(
            Stack,
            width=width,
            depth=_count(theirs, layer + "output.dense.weight"),
            heads=_heads(width, where),
            mlp=mlp,
            norm="post",
            epsilon=1e-12,
            dropout=0.1,
            attention_dropout=0.1,
        ),
        frames=_count(theirs, "img_temperal_embedding.{}") or 1,
    )


def tower(theirs: Mapping[str, np.ndarray], prefix: str, *, where: str) -> Node:
    """The CLIP tower whose arrays, by OpenAI's names, stand behind a prefix."""
    width, _, patch, _ = theirs[f"{prefix}conv1.weight"].shape
    block = prefix + "transformer.resblocks.{}.mlp.c_fc.weight"
    places = len(theirs[f"{prefix}positional_embedding"]) - 1
    side = math.isqrt(places)
    if side * side != places:
        raise ValueError(
            f"{where}: {prefix}positional_embedding has {places} positions of patches, "
            f"which make no square"
        )
    return spec(
        ViT,
        size=side * patch,
        patch=patch,
        width=width,
        depth=_count(theirs, block),
        heads=_heads(width, where),
        mlp=len(theirs[block.format(0)]),
    )


def _count(theirs: Mapping[str, np.ndarray], name: str) -> int:
    """How many layers have an array of this name."""
    count = 0
    while name.format(count) in theirs:
        count += 1
    return count


def _heads(width: int, where: str) -> int:
    if width % HEAD:
        raise ValueError(
            f"{where}: a width of {width} is not made of heads of {HEAD}, as all "
            f"those of the release are"
        )
    return width // HEAD
