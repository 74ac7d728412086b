"""Writing: a checkpoint in the form that somebody else opens, whole or not at all."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from git_jax import config as configs
from git_jax.checkpoint import Checkpoints
from git_jax.config import build, spec
from git_jax.convert import (
    defaults,
    generation,
    git,
    huggingface,
    original,
    processor,
)
from git_jax.convert.checkpoint import Checkpoint
from git_jax.convert.weights import save, torch_for
from git_jax.data.tokenizer import WordPiece
from git_jax.init import Init
from git_jax.models.git import Git
from git_jax.run import Run
from git_jax.train import State
from git_jax.vision.vit import ViT, resampled


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `target` when all of it is written.

    Raises:
        ValueError: something is there already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(
            f"--target={target} is there already: name a new folder, or remove it"
        )
    partial = target.with_name(f".{target.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        if target.exists():
            target.rmdir()
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_run(found: Checkpoint, target: Path) -> None:
    """A directory that is used as a run is: `--run`, `init.run`, `init.encoder`.

    Its config is one to fine-tune from: it begins with these very weights. It names
    them by the absolute path of the target, in `init.run` and `tokenizer.path`: as a
    run the folder may be moved, but to fine-tune from it elsewhere both are to be set.
    """
    config = configs.loads(configs.dumps(found.config)).unlock()
    words = found.tokenizer
    if words is not None:
        if words.file is not None:
            config.tokenizer.path = str(target.resolve() / words.file)
        config.init = spec(Init, run=str(target.resolve()))
    with _whole(target) as folder:
        run = Run(folder)
        configs.save(config, folder / "config.json")
        if words is not None:
            words.save(folder)
        about = run.about(config, words)
        with Checkpoints().open(run.checkpoints, about) as store:
            store.save(0, State(np.int32(0), found.params, None))
            store.wait()


def write_huggingface(found: Checkpoint, target: Path) -> None:
    """A directory that transformers opens: model, tokenizer, processor, generation.

    Positions are those of the pictures that the config's `loader` makes: transformers
    interpolates none unless each call asks for it. What it cannot be told, and changes
    what is computed by little, is told on stderr.

    Raises:
        ValueError: naming what of the model `GitForCausalLM` does not have.
    """
    model, words = _git(found)
    image, params = found.config.loader.image, found.params
    config = huggingface.config_of(model)
    if (size := processor.side(image)) != model.encoder.size:
        model, params = _resized(model, params, size)
        config["vision_config"]["image_size"] = size
    ids = {f"{name}_token_id": getattr(words, name) for name in ("pad", "bos", "eos")}
    arrays = git.huggingface(model).write(params)
    kernel, word, _ = git.HUGGINGFACE_HEAD
    arrays.setdefault(kernel, arrays[word])
    _note_epsilon(model.embed.epsilon, config["layer_norm_eps"])
    search = generation.config_of(build(found.config.evaluate.search))
    with _whole(target) as folder:
        save(folder / "model.safetensors", arrays)
        words.save(folder)
        for name, content in {
            "config.json": config | ids,
            generation.NAME: ids | search,
            "tokenizer_config.json": {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": True,
                "model_max_length": model.embed.positions,
                "model_input_names": ["input_ids", "attention_mask"],
            },
            processor.NAME: processor.config_of(
                image, model.pixel_mean, model.pixel_std
            ),
        }.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def write_original(found: Checkpoint, target: Path) -> None:
    """`model.pt` and `vocab.txt` as the original release has them; needs torch.

    Raises:
        ValueError: naming what of the model is otherwise in that release, whose code
            alone says it; what bears on training alone may be anything.
    """
    torch = torch_for(target / "model.pt")
    model, words = _git(found)
    there = original.like(model, where="--to=original")
    here, epsilon = model.embed.epsilon, there.embed.epsilon
    if here == defaults.GIT["layer_norm_eps"]:
        there.embed.epsilon = here
    free = (*original.FREE, "embed.tied")  # the arrays tell, below
    if differ := configs.difference(there, found.config.model, harmless=free):
        raise ValueError(
            f"the original release is another model than this one (there -> here): "
            f"model.{'; model.'.join(differ)}; only --to=git_jax keeps every model"
        )
    arrays = git.original(model).write(found.params)
    kernel, word, _ = git.ORIGINAL_HEAD
    if not np.array_equal(arrays.setdefault(kernel, arrays[word]), arrays[word]):
        raise ValueError(
            "the head is not the word embedding, and the original release knows no "
            "other: only --to=huggingface and git_jax keep both"
        )
    _note_epsilon(here, epsilon)
    with _whole(target) as folder:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        torch.save({"model": tensors}, folder / "model.pt")
        words.save(folder)


def _resized(model: Git, params: Any, size: int) -> tuple[Git, Any]:
    """The same model of pictures of another size, its positions interpolated."""
    there = model.encoder
    assert isinstance(there, ViT)  # as config_of has seen
    if size % there.patch:
        raise ValueError(
            f"loader.image.size={size} is not divisible by model.encoder.patch="
            f"{there.patch}, as the pictures of GitForCausalLM are: set it to "
            f"{size // there.patch * there.patch} or {there.size}"
        )
    print(
        f"loader.image.size={size} is not model.encoder.size={there.size}: positions "
        f"are written as interpolated to {size}",
        file=sys.stderr,
    )
    side = size // there.patch
    position = jnp.asarray(params["encoder"]["position"])
    position = resampled(position, there, side, side)
    encoder = params["encoder"] | {"position": np.asarray(position)}
    tower = dataclasses.replace(there, size=size, parent=None)
    resized = dataclasses.replace(model, encoder=tower, parent=None)
    return resized, params | {"encoder": encoder}


def _note_epsilon(here: float, there: float) -> None:
    if here != there:
        print(
            f"model.embed.epsilon={here} becomes {there}: in this the original release "
            f"and transformers differ; logits change by about 1e-5",
            file=sys.stderr,
        )


def _git(found: Checkpoint) -> tuple[Git, WordPiece]:
    if "model" not in found.config:
        raise ValueError(
            "this is an encoder alone: --to=git_jax makes of it what "
            "--config.init.encoder takes"
        )
    if not isinstance(found.tokenizer, WordPiece):
        raise ValueError(
            f"its words are of {type(found.tokenizer).__name__}, which no GIT "
            f"elsewhere has: only a run with the tokenizer WordPiece can be written "
            f"there"
        )
    return build(found.config.model), found.tokenizer


# What `--to` can be.
WRITERS: Mapping[str, Callable[[Checkpoint, Path], None]] = {
    "git_jax": write_run,
    "huggingface": write_huggingface,
    "original": write_original,
}
