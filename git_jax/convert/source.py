"""Reading: a published checkpoint, whatever its format, which is detected."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from git_jax import config as configs
from git_jax.checkpoint import Checkpoints
from git_jax.config import Node, build, spec
from git_jax.convert import (
    defaults,
    generation,
    git,
    huggingface,
    original,
    processor,
    settings,
    tower,
    vit,
)
from git_jax.convert.checkpoint import Checkpoint
from git_jax.convert.table import Table
from git_jax.convert.weights import Weights, opened
from git_jax.data import vocabulary
from git_jax.data.folder import Folder
from git_jax.data.image import Crop
from git_jax.data.pipeline import Loader
from git_jax.data.tokenizer import WordPiece
from git_jax.decode.beam import Beam
from git_jax.evaluate import Evaluation
from git_jax.init import Init
from git_jax.losses import Caption
from git_jax.models.git import shapes
from git_jax.nn.embed import CLIP_MEAN, CLIP_STD
from git_jax.optim import AdamW
from git_jax.run import Run
from git_jax.sharding import Layout
from git_jax.tasks import caption


def read(source: Path) -> Checkpoint:
    """The checkpoint in a directory, or in the file that is named.

    Formats are told by what is there: a run of ours, a directory of transformers (GIT,
    CLIP, ViT, Swin, DaViT), the original release's or OpenAI's file of weights.

    Raises:
        ValueError: naming the file and what in it is missing, broken or unknown.
    """
    if not source.exists():
        raise ValueError(f"{source}: there is no such file or folder")
    described = source / "config.json"
    if source.is_file() and (source.parent / "config.json").is_file():
        raise ValueError(
            f"{source} is one file of a checkpoint: name its folder, {source.parent}, "
            f"whose config.json says what the weights are"
        )
    if not described.is_file():
        with opened(source) as weights:
            return _of_weights_alone(weights.without("module."), source)
    if is_run(source):
        return _of_run(source)
    given = settings.read(described)
    kind = given.get("model_type")
    if kind == "git":
        return _of_huggingface(source, given)
    if (found := tower.KINDS.get(str(kind))) is not None:
        return _of_tower(source, given, found)
    raise ValueError(
        f"{described}: model_type is {kind!r}; what can be read is git, "
        f"{', '.join(tower.KINDS)}"
    )


def is_run(source: Path) -> bool:
    """Whether this is a directory of ours: a run, or what was converted before.

    Raises:
        ValueError: its `config.json` cannot be read.
    """
    described = source / "config.json"
    if not described.is_file():
        return False
    given = settings.read(described)
    return "model_type" not in given and ("model" in given or "encoder" in given)


def _of_huggingface(source: Path, given: Mapping[str, Any]) -> Checkpoint:
    """A directory of `GitForCausalLM`, its tokenizer and its processor."""
    where = str(source / "config.json")
    node = huggingface.git(given, where=where)
    words = _words(source)
    if words.size != node.embed.vocabulary:
        raise ValueError(
            f"{where}: vocab_size is {node.embed.vocabulary}, but the tokenizer beside "
            f"it has {words.size} pieces"
        )
    for name in ("pad", "bos", "eos"):
        key = f"{name}_token_id"
        if (id := given.get(key, defaults.GIT[key])) != getattr(words, name):
            raise ValueError(
                f"{where}: {key} is {id}, but the tokenizer beside it has "
                f"{getattr(words, name)}"
            )
    size = node.encoder.size
    image, pixels = spec(Crop, size=size), processor.read(source)
    if pixels is not None:
        if pixels.image.size != size:
            raise ValueError(
                f"{pixels.where}: size is {pixels.image.size}, but the weights have "
                f"positions for pictures of {size} (vision_config.image_size in "
                f"{where}): set size and crop_size to {size}"
            )
        image = pixels.image
        node.pixel_mean, node.pixel_std = pixels.mean, pixels.std
    model = build(node)
    with opened(source) as weights:
        # transformers 4 spelt it so, and 5 does not know it any more.
        theirs: Mapping[str, np.ndarray] = weights.renamed(
            lambda name: name.replace(
                "img_temperal_embedding", "img_temporal_embedding"
            )
        )
        if model.embed.tied:
            theirs = git.without_tied_head(
                theirs, git.HUGGINGFACE_HEAD, where=str(weights.where)
            )
        params = git.huggingface(model).read(
            theirs, _shapes(model, where), where=str(weights.where)
        )
    config = _config(node, image, source)
    config.evaluate.search = generation.read(source, positions=node.embed.positions)
    return Checkpoint(config, params, words)


def _words(folder: Path) -> WordPiece:
    """The tokenizer in a folder.

    Raises:
        ValueError: naming its file, not `--config.tokenizer.path`, which nobody typed.
    """
    path = vocabulary.find(folder)
    vocabulary.read(path.read_bytes(), str(path))
    return WordPiece(str(folder))


def _shapes(module: nn.Module, where: str) -> Any:
    """Shapes of the parameters of what the settings in `where` describe.

    Raises:
        ValueError: there is no such model.
    """
    try:
        return shapes(module)
    except (ValueError, TypeError, ArithmeticError) as error:  # jax has its own
        raise ValueError(f"{where}: {error}") from None


def _of_weights_alone(weights: Weights, source: Path) -> Checkpoint:
    """A file of the original release or of OpenAI's, which has no config beside it."""
    where = str(weights.where)
    if original.is_git(weights):
        folder = source if source.is_dir() else source.parent
        lists = (vocabulary.LIST, vocabulary.DESCRIBED)
        if not any((folder / name).is_file() for name in lists):
            raise ValueError(
                f"{where} is a GIT, and its words are not beside it: put the "
                f"{vocabulary.LIST} of bert-base-uncased into {folder}"
            )
        node = original.git(weights, where=where)
        model = build(node)
        theirs = git.without_tied_head(weights, git.ORIGINAL_HEAD, where=where)
        params = git.original(model).read(theirs, _shapes(model, where), where=where)
        words = _words(folder)
        if words.size != model.embed.vocabulary:
            raise ValueError(
                f"{where} has {model.embed.vocabulary} words, but the tokenizer beside "
                f"it {words.size}"
            )
        # As its get_image_transform, whose CenterCrop is torchvision's.
        size = node.encoder.size
        image = spec(Crop, size=size, rounding="even", long=original.LONG.get(size))
        return Checkpoint(_config(node, image, source), params, words)
    prefix = "visual." if "visual.conv1.weight" in weights else ""
    if f"{prefix}conv1.weight" not in weights:
        raise ValueError(
            f"{where} is no GIT of the original release and no CLIP of OpenAI's, and "
            f"there is no config.json beside it"
        )
    node = original.tower(weights, prefix, where=where)
    table = vit.openai(build(node)).below(prefix, "")
    table = Table(table.rows, table.ignored + original.BESIDE)
    return _encoder(node, weights, table, CLIP_MEAN, CLIP_STD, where)


def _of_tower(source: Path, given: Mapping[str, Any], kind: tower.Tower) -> Checkpoint:
    """An encoder in a directory of transformers, alone or in a larger model."""
    where = str(source / "config.json")
    if "vision_config" in given:
        given = settings.nested(given, "vision_config", where=where)
        where += ": vision_config"
    node = kind.describe(given, where=where)
    pixels = processor.read(source)
    mean = kind.mean if pixels is None else pixels.mean
    std = kind.std if pixels is None else pixels.std
    with opened(source) as weights:
        table = kind.placed(build(node), weights, where=str(weights.where))
        return _encoder(node, weights, table, mean, std, where)


def _encoder(
    node: Node,
    weights: Weights,
    table: Table,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    described: str,
) -> Checkpoint:
    found = _shapes(build(node), described)
    params = table.read(weights, found, where=str(weights.where))
    config = ConfigDict()
    config.encoder, config.pixel_mean, config.pixel_std = node, mean, std
    return Checkpoint(config, params, None)


def _of_run(source: Path) -> Checkpoint:
    """A run of ours, or what was converted before."""
    run = Run.open(str(source), "--source")
    config = configs.load(source / "config.json")
    _, params = run.parameters(None)
    words = run.tokenizer(config) if "model" in config else None
    return Checkpoint(config, params, words)


def _config(model: Node, image: Node, source: Path) -> ConfigDict:
    """A run's config around a model: what it is fine-tuned with, unless told."""
    config = ConfigDict()
    config.seed = 0
    config.steps = 1000
    config.batch = 64
    config.accumulate = 1
    config.model = model
    config.losses = {"caption": spec(Caption)}
    config.optimizer = spec(AdamW, peak=1e-5, warmup=100)
    config.mesh = spec(Layout)
    config.data = spec(Folder)
    config.loader = spec(Loader, frames=model.frames, image=image)
    config.tokenizer = spec(WordPiece, path=str(source.resolve()))
    config.task = spec(caption.Caption)
    config.checkpoint = spec(Checkpoints)
    config.evaluate = spec(Evaluation, batch=32, search=spec(Beam))
    config.init = spec(Init)
    return config
