"""Encoders that come alone: what each source calls them, and what pixels they saw."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from git_jax.config import Node
from git_jax.convert import davit, huggingface, swin, vit
from git_jax.convert.table import Table
from git_jax.nn.embed import CLIP_MEAN, CLIP_STD

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Tower:
    """One kind of encoder in transformers' files.

    Args:
        describe: its node, given its `config.json`.
        table: its names, given the module and all names that were found.
        anchor: a name that every such encoder has; what stands before it in a file is
            the place of the encoder in a larger model.
        beside: regular expressions for what such a larger model has beside it.
        mean, std: of the pixels, where no file of a processor says them.
    """

    describe: Callable[..., Node]
    table: Callable[[Any, Iterable[str]], Table]
    anchor: str
    beside: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def placed(self, module: Any, names: Iterable[str], *, where: str) -> Table:
        """The table, below what stands before the encoder's names."""
        found = list(names)
        before = [name for name in found if name.endswith(self.anchor)]
        if not before:
            raise ValueError(f"{where} has no {self.anchor}: it holds no such encoder")
        if len(before) > 1:
            raise ValueError(
                f"{where} has {' and '.join(sorted(before))}: it holds several "
                f"encoders; keep one of them in a file of its own"
            )
        prefix = before[0].removesuffix(self.anchor)
        inside = [n.removeprefix(prefix) for n in found if n.startswith(prefix)]
        whole = self.table(module, inside).below(prefix, "")
        return Table(whole.rows, whole.ignored + self.beside)


_CLIP = Tower(
    huggingface.clip,
    lambda module, _: vit.clip(module),
    "embeddings.class_embedding",
    (r"text_model\..*", "logit_scale", r"(text|visual)_projection\.weight"),
    CLIP_MEAN,
    CLIP_STD,
)
_GIT_VISION = replace(_CLIP, describe=huggingface.git_vision)
_VIT = Tower(
    huggingface.vit,
    lambda module, _: vit.google(module),
    "embeddings.cls_token",
    (r"classifier\..*",),
    HALF,
    HALF,
)
_SWIN = Tower(
    huggingface.swin,
    swin.huggingface,
    "embeddings.patch_embeddings.projection.weight",
    (r"(classifier|decoder)\..*",),
)
_DAVIT = Tower(
    huggingface.davit,
    lambda module, _: davit.huggingface(module),
    "convs.0.conv.weight",
    (r"(model\.)?(language_model|multi_modal_projector)\..*", r"lm_head\..*"),
)

# By the `model_type` of a `config.json`.
KINDS: Mapping[str, Tower] = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "git_vision_model": _GIT_VISION,
    "vit": _VIT,
    "swin": _SWIN,
    "florence2": _DAVIT,
    "florence_vision": _DAVIT,
}
