"""The tiny run that the tests of training train: seconds, and every part a real one.

As a config file it is what the tests in processes of their own are given:
`--config=tests/tiny.py:scenes`.
"""

from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from git_jax.checkpoint import Checkpoints
from git_jax.config import build, spec
from git_jax.data.folder import Folder
from git_jax.data.image import Crop
from git_jax.data.pipeline import Loader
from git_jax.data.scenes import Scenes
from git_jax.data.tokenizer import SentencePiece
from git_jax.decode.search import Greedy
from git_jax.evaluate import Evaluation
from git_jax.init import Init
from git_jax.losses import Caption
from git_jax.models.git import Git
from git_jax.nn.embed import TextEmbed
from git_jax.nn.transformer import Stack
from git_jax.optim import AdamW
from git_jax.sharding import Layout
from git_jax.tasks import caption
from git_jax.vision.vit import ViT

WORDS, SIZE, WIDTH = 384, 32, 16


@dataclass(frozen=True)
class Alone(Layout):
    """A mesh of one device, however many there are."""

    def mesh(self, devices: list[Any] | None = None) -> Mesh:
        return super().mesh(jax.devices()[:1] if devices is None else devices)


def scenes() -> ConfigDict:
    """Dropout, an average, towers of two rates: whatever a resumed run could lose."""
    config = ConfigDict()
    config.seed = 3
    config.steps = 30
    config.batch = 8
    config.accumulate = 1
    config.model = spec(
        Git,
        encoder=spec(
            ViT, size=SIZE, patch=8, width=WIDTH, depth=2, heads=2, mlp=2 * WIDTH
        ),
        embed=spec(TextEmbed, width=WIDTH, vocabulary=WORDS, positions=48),
        decoder=spec(
            Stack,
            width=WIDTH,
            depth=2,
            heads=2,
            mlp=2 * WIDTH,
            norm="post",
            dropout=0.1,
        ),
    )
    config.losses = {"caption": spec(Caption)}
    config.optimizer = spec(AdamW, peak=3e-3, warmup=2, ema=0.9)
    config.mesh = spec(Layout)
    config.data = spec(Scenes, size=SIZE, count=24)
    config.loader = spec(Loader, text=40, image=spec(Crop, size=SIZE))
    config.tokenizer = spec(SentencePiece, vocabulary=WORDS)
    config.task = spec(caption.Caption)
    config.checkpoint = spec(Checkpoints, every=3)
    config.evaluate = spec(
        Evaluation,
        every=1000,
        splits=("train",),
        batch=24,
        search=spec(Greedy, max_tokens=40),
    )
    config.init = spec(Init)
    return config


def folder() -> ConfigDict:
    """The same on a folder of pictures, to be named with `--config.data.path`."""
    config = scenes()
    config.data = spec(Folder)
    return config


def here(**changes: Any) -> ConfigDict:
    """`scenes` for this process: on one of its devices, without dropout or average.

    `changes` are fields by their path: `here(steps=4, optimizer__peak=1e-3)`.
    """
    config = scenes()
    config.mesh = spec(Alone)
    config.model.embed.dropout = config.model.decoder.dropout = 0.0
    config.optimizer.ema = None
    config.loader.threads = 0
    for path, value in changes.items():
        *way, last = path.split("__")
        node = config
        for part in way:
            node = node[part]
        node[last] = value
    return config


def batches(config: ConfigDict, tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """The arrays of the first batches of a config."""
    given = build(config.loader).batches(
        build(config.data),
        build(config.task),
        tokenizer,
        batch=config.batch,
        seed=config.seed,
    )
    return [next(given).arrays for _ in range(count)]
