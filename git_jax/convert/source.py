"""Reading: a published checkpoint, whatever its format, which is detected."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from git_jax import config as configs
from git_jax.checkpoint import Checkpoints
from git_jax.config import Node, build, spec
from git_jax.convert import git, huggingface, original, processor, tower, vit
from git_jax.convert.checkpoint import Checkpoint
from git_jax.convert.table import Table
from git_jax.convert.weights import Weights, opened
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
        raise ValueError(f"--source={source}: there is no such file or folder")
    described = source / "config.json"
    if source.is_file() and (source.parent / "config.json").is_file():
        raise ValueError(
            f"--source={source} is one file of a checkpoint: name its folder, "
            f"--source={source.parent}, whose config.json says what the weights are"
        )
    if not described.is_file():
        with opened(source) as weights:
            return _of_weights_alone(weights.without("module."), source)
    if is_run(source):
        return _of_run(source)
    given = _json(described)
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
    given = _json(described)
    return "model_type" not in given and ("model" in given or "encoder" in given)


def _of_huggingface(source: Path, given: Mapping[str, Any]) -> Checkpoint:
    """A directory of `GitForCausalLM`, its tokenizer and its processor."""
    where = str(source / "config.json")
    node = huggingface.git(given, where=where)
    words = WordPiece(str(source))
    if words.size != node.embed.vocabulary:
        raise ValueError(
            f"{where}: vocab_size is {node.embed.vocabulary}, but the tokenizer beside "
            f"it has {words.size} pieces"
        )
    held = huggingface.DEFAULTS | dict(given)
    for name in ("pad", "bos", "eos"):
        if (id := held[f"{name}_token_id"]) != getattr(words, name):
            raise ValueError(
                f"{where}: {name}_token_id is {id}, but the tokenizer beside it has "
                f"{getattr(words, name)}"
            )
    image, pixels = spec(Crop, size=node.encoder.size), processor.read(source)
    if pixels is not None:
        if pixels.image.size != node.encoder.size:
            raise ValueError(
                f"{source}: its processor makes pictures of {pixels.image.size} "
                f"pixels, but the weights have positions for {node.encoder.size} "
                f"(vision_config.image_size in {where})"
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
            theirs, shapes(model), where=str(weights.where)
        )
    config = _config(node, image, source)
    config.evaluate.search = _search(source, node)
    return Checkpoint(config, params, words)


def _search(source: Path, model: Node) -> Node:
    """How captions are found, by `generation_config.json` where there is one."""
    path = source / "generation_config.json"
    held = _json(path) if path.is_file() else {}
    longest = held.get("max_new_tokens") or held.get("max_length", 41) - 1
    found = spec(Beam, max_tokens=max(1, min(longest, model.embed.positions - 1)))
    if (penalty := held.get("length_penalty")) is not None:
        found.normalise, found.penalty = "huggingface", float(penalty)
    return found


def _of_weights_alone(weights: Weights, source: Path) -> Checkpoint:
    """A file of the original release or of OpenAI's, which has no config beside it."""
    where = str(weights.where)
    if original.is_git(weights):
        node = original.git(weights, where=where)
        model = build(node)
        theirs = git.without_tied_head(weights, git.ORIGINAL_HEAD, where=where)
        params = git.original(model).read(theirs, shapes(model), where=where)
        words = WordPiece(str(source if source.is_dir() else source.parent))
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
    return _encoder(node, weights, table, CLIP_MEAN, CLIP_STD)


def _of_tower(source: Path, given: Mapping[str, Any], kind: tower.Tower) -> Checkpoint:
    """An encoder in a directory of transformers, alone or in a larger model."""
    node = kind.describe(given.get("vision_config", given), where=str(source))
    pixels = processor.read(source)
    mean = kind.mean if pixels is None else pixels.mean
    std = kind.std if pixels is None else pixels.std
    with opened(source) as weights:
        table = kind.placed(build(node), weights, where=str(weights.where))
        return _encoder(node, weights, table, mean, std)


def _encoder(
    node: Node,
    weights: Weights,
    table: Table,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Checkpoint:
    params = table.read(weights, shapes(build(node)), where=str(weights.where))
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


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object")
    return found
