"""Writing: a checkpoint in the form that somebody else opens, whole or not at all."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from git_jax import config as configs
from git_jax.checkpoint import Checkpoints
from git_jax.config import build, spec
from git_jax.convert import git, huggingface, processor
from git_jax.convert.checkpoint import Checkpoint
from git_jax.convert.weights import save, torch_for
from git_jax.data.tokenizer import WordPiece
from git_jax.init import Init
from git_jax.models.git import Git
from git_jax.run import Run
from git_jax.train import State


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

    Its config is one to fine-tune from: it begins with these very weights.
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

    Raises:
        ValueError: naming what of the model `GitForCausalLM` does not have.
    """
    model, words = _git(found)
    ids = {f"{name}_token_id": getattr(words, name) for name in ("pad", "bos", "eos")}
    config = huggingface.config_of(model) | ids
    arrays = git.huggingface(model).write(found.params)
    kernel, word = git.HUGGINGFACE_HEAD
    arrays.setdefault(kernel, arrays[word])
    search, image = found.config.evaluate.search, found.config.loader.image
    generation = ids | {"max_new_tokens": search.max_tokens}
    if search.get("normalise") == "huggingface":
        generation["length_penalty"] = search.penalty
    if image.get("long") is not None:
        print(
            f"loader.image.long={image.long}: no processor of transformers keeps the "
            f"aspect so; the one that is written crops a square",
            file=sys.stderr,
        )
    with _whole(target) as folder:
        save(folder / "model.safetensors", arrays)
        words.save(folder)
        for name, content in {
            "config.json": config,
            "generation_config.json": generation,
            "tokenizer_config.json": {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": True,
                "model_max_length": model.embed.positions,
                "model_input_names": ["input_ids", "attention_mask"],
            },
            "preprocessor_config.json": processor.config_of(
                model.encoder.size,
                model.pixel_mean,
                model.pixel_std,
                filter=image.filter,
            ),
        }.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def write_original(found: Checkpoint, target: Path) -> None:
    """`model.pt` and `vocab.txt` as the original release has them; needs torch.

    Raises:
        ValueError: the head is not tied to the words, as it is there.
    """
    torch = torch_for(target / "model.pt")
    model, words = _git(found)
    arrays = git.original(model).write(found.params)
    kernel, word = git.ORIGINAL_HEAD
    if not np.array_equal(arrays.setdefault(kernel, arrays[word]), arrays[word]):
        raise ValueError(
            "the head is not the word embedding, and the original release knows no "
            "other: only --to=huggingface and git_jax keep both"
        )
    with _whole(target) as folder:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        torch.save({"model": tensors}, folder / "model.pt")
        words.save(folder)


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
