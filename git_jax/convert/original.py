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

# What of a model bears on its training alone, or on how it is computed.
FREE = ("*.std", "*.position_std", "*dropout", "*.scan", "*.remat", "dtype")

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
    """The model that the arrays make, without `module.` before their names.

    Raises:
        ValueError: naming the array that is missing or of another size.
    """
    vocabulary, width = _shape(theirs, "textual.embedding.words.weight", 2, where)
    positions, _ = _shape(theirs, "textual.embedding.positions.weight", 2, where)
    up = "textual.transformer.encoder.layer.{}.intermediate.dense.weight"
    mlp, _ = _shape(theirs, up.format(0), 2, where)
    return _git(
        tower(theirs, "image_encoder.", where=where),
        width=width,
        vocabulary=vocabulary,
        positions=positions,
        depth=_count(theirs, up),
        mlp=mlp,
        frames=_count(theirs, "img_temperal_embedding.{}") or 1,
        where=where,
    )


def tower(theirs: Mapping[str, np.ndarray], prefix: str, *, where: str) -> Node:
    """The CLIP tower whose arrays, by OpenAI's names, stand behind a prefix.

    Raises:
        ValueError: naming the array that is missing or of another size.
    """
    width, _, patch, _ = _shape(theirs, f"{prefix}conv1.weight", 4, where)
    up = prefix + "transformer.resblocks.{}.mlp.c_fc.weight"
    mlp, _ = _shape(theirs, up.format(0), 2, where)
    positions, _ = _shape(theirs, f"{prefix}positional_embedding", 2, where)
    side = math.isqrt(positions - 1)
    if side * side != positions - 1:
        raise ValueError(
            f"{where}: {prefix}positional_embedding has {positions - 1} positions of "
            f"patches, which make no square"
        )
    return _tower(
        size=side * patch,
        patch=patch,
        width=width,
        depth=_count(theirs, up),
        mlp=mlp,
        where=where,
    )


def like(model: Git, *, where: str) -> Node:
    """The model of the release that is as large as this one, which has a ViT.

    What its config says otherwise, the release cannot be told.

    Raises:
        ValueError: it has none of that width.
    """
    encoder, embed, decoder = model.encoder, model.embed, model.decoder
    return _git(
        _tower(
            size=encoder.size,
            patch=encoder.patch,
            width=encoder.width,
            depth=encoder.depth,
            mlp=encoder.mlp,
            where=where,
        ),
        width=decoder.width,
        vocabulary=embed.vocabulary,
        positions=embed.positions,
        depth=decoder.depth,
        mlp=decoder.mlp,
        frames=model.frames,
        where=where,
    )


def _git(
    encoder: Node,
    *,
    width: int,
    vocabulary: int,
    positions: int,
    depth: int,
    mlp: int,
    frames: int,
    where: str,
) -> Node:
    return spec(
        Git,
        encoder=encoder,
        embed=spec(
            TextEmbed,
            width=width,
            vocabulary=vocabulary,
            positions=positions,
            tied=True,
            epsilon=1e-8,
        ),
        decoder=spec(
            Stack,
            width=width,
            depth=depth,
            heads=_heads(width, where),
            mlp=mlp,
            norm="post",
            epsilon=1e-12,
            dropout=0.1,
            attention_dropout=0.1,
        ),
        frames=frames,
    )


def _tower(
    *, size: int, patch: int, width: int, depth: int, mlp: int, where: str
) -> Node:
    heads = _heads(width, where)
    return spec(
        ViT, size=size, patch=patch, width=width, depth=depth, heads=heads, mlp=mlp
    )


def _shape(
    theirs: Mapping[str, np.ndarray], name: str, rank: int, where: str
) -> tuple[int, ...]:
    """The shape of an array that every such file has, of `rank` dimensions."""
    if name not in theirs:
        raise ValueError(
            f"{where} lacks {name}: it is no whole file of the original release or of "
            f"OpenAI's CLIP; copy or download it again"
        )
    shape = theirs[name].shape
    if len(shape) != rank or 0 in shape:
        raise ValueError(
            f"{where}: {name} has the shape {shape}, not {rank} dimensions: it is of "
            f"another model"
        )
    return shape


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
