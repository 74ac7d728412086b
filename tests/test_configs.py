"""Every config file describes runs that exist: they build, and shard whole."""

import importlib.util
import inspect
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from git_jax import command
from git_jax import config as configs
from git_jax.config import REQUIRED, build
from git_jax.data import tokenizer as tokenizers
from git_jax.models.git import generate
from git_jax.sharding import Layout
from git_jax.train import Program, Trainer

ROOT = Path(__file__).parents[1]
WHOLE = Layout(data=2, fsdp=2, tensor=2)


def variants() -> list[str]:
    """configs/scenes.py:tiny, ...: each function that makes a config by itself."""
    found = []
    for path in sorted((ROOT / "configs").glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, value in inspect.getmembers(module, inspect.isfunction):
            own = value.__module__ == path.stem and not name.startswith("_")
            if own and not inspect.signature(value).parameters:
                found.append(f"{path}" if name == "get_config" else f"{path}:{name}")
    return found


@dataclass(frozen=True)
class Words:
    """The three ids that search and loader need of a tokenizer."""

    pad: int = 0
    bos: int = 1
    eos: int = 2


@pytest.fixture(scope="module", params=variants(), ids=lambda name: Path(name).name)
def config(request: pytest.FixtureRequest) -> ConfigDict:
    config = command.load(request.param)
    sources = config.data.get("sources", {}).values()
    for node in (config.data, config.tokenizer, *sources):
        if node.get("path") is REQUIRED:
            node.path = "a/file/or/folder/of/the/user"
    return config.lock()


def test_it_has_what_every_run_has(config: ConfigDict) -> None:
    for field in ("seed", "steps", "batch", "accumulate"):
        assert isinstance(config[field], int)
    assert config.checkpoint.every <= config.steps
    assert set(config) >= {"data", "loader", "tokenizer", "task", "evaluate", "init"}


def test_it_is_kept_with_a_run_and_read_back(config: ConfigDict) -> None:
    assert configs.difference(config, configs.loads(configs.dumps(config))) == []


def test_it_builds_whole(config: ConfigDict) -> None:
    built = build(config)
    assert set(built) == set(config)
    if hasattr(built["tokenizer"], "vocabulary"):
        room = config.model.embed.vocabulary
        assert built["tokenizer"].vocabulary <= room


@pytest.mark.parametrize("layout", [WHOLE, Layout()], ids=["2x2x2", "data"])
def test_every_parameter_has_its_place(config: ConfigDict, layout: Layout) -> None:
    """The table places every array, and splits every matrix as far as the mesh goes."""
    mesh = layout.mesh()
    trainer = Trainer.on(
        Program.of(config), mesh, build(config.loader).shapes(config.batch)
    )
    shapes = jax.tree.leaves(trainer.shapes.params)
    places = jax.tree.leaves(trainer.placed.params)
    assert len(shapes) == len(places)
    whole = sum(math.prod(leaf.shape) for leaf in shapes)
    here = sum(
        math.prod(place.shard_shape(leaf.shape))
        for leaf, place in zip(shapes, places, strict=True)
    )
    # Norms and biases are on every device; they are a few in a hundred at most.
    split = mesh.shape["fsdp"] * mesh.shape["tensor"]
    assert here <= whole * (1 / split + 0.05)


def test_a_step_and_a_caption_fit_the_model(config: ConfigDict) -> None:
    """The sizes of loader, model and search agree: pictures, positions, vocabulary."""
    mesh = Layout().mesh(jax.devices()[:1])
    batch = build(config.loader).shapes(config.batch)
    trainer = Trainer.on(Program.of(config), mesh, batch)
    state, metrics = jax.eval_shape(trainer.step_fn(), trainer.shapes, batch)
    assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, trainer.shapes)
    assert metrics["loss"].shape == ()

    search: Any = build(config.evaluate).search
    words = Words()
    begin = {
        "frames": batch["frames"],
        "tokens": np.full((config.batch, 1), words.bos, np.int32),
        "prefix_length": np.ones(config.batch, np.int32),
    }
    found = jax.eval_shape(
        lambda params, batch: generate(
            trainer.program.model,
            params,
            search,
            batch,
            eos=words.eos,
            pad=words.pad,
            key=jax.random.key(0),
        ),
        trainer.shapes.params,
        begin,
    )
    assert found.tokens.shape == (config.batch, search.max_tokens)


@pytest.mark.parametrize("variant", ["tiny", "full", "clips"])
def test_every_caption_of_a_level_fits(variant: str, tmp_path: Path) -> None:
    config = command.load(f"{ROOT}/configs/scenes.py:{variant}")
    config.tokenizer.records = 1000
    source: Any = build(config.data)
    tokenizer = tokenizers.prepare(build(config.tokenizer), source, tmp_path)
    longest = max(
        len(tokenizer.encode(text)) + 2  # begin and end
        for part in (source, *map(source.split, source.splits))
        for index in range(500)
        for text in part.texts(index)
    )
    assert longest <= config.loader.text
    assert len(source[0]["frames"]) == config.loader.frames == config.model.frames


def test_a_misspelt_field_is_refused_with_the_legal_names(config: ConfigDict) -> None:
    for path, legal in (
        ("model.encoder.dept", "depth"),
        ("optimizer.peek", "peak"),
        ("loader.image.sizes", "size"),
        ("step", "steps"),
    ):
        with pytest.raises(ValueError) as error:
            command.override(config, path, "3")
        name = path.rpartition(".")[2]
        assert f"{name!r}" in str(error.value) and legal in str(error.value)


def test_a_mistyped_field_is_refused_with_its_type(config: ConfigDict) -> None:
    with pytest.raises(ValueError, match=r"Stack\.depth is int, not 'deep'"):
        command.override(config, "model.decoder.depth", "deep")
