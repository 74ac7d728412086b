"""GIT on the embedded corpus of drawn scenes: no download, no files.

    bash launch/local.sh
    python -m git_jax.train --config=configs/scenes.py:tiny --workdir=runs/scenes

`tiny` is what the first command of the README trains: two-object scenes, a laptop, some
minutes. `full` and `clips` are the other levels of the corpus with the same model; they
train as they are, but nothing of them was tuned and no figure was measured.
"""

from ml_collections import ConfigDict

from git_jax.checkpoint import Checkpoints
from git_jax.config import spec
from git_jax.data.image import Crop
from git_jax.data.pipeline import Loader
from git_jax.data.scenes import CLIP, Level, Scenes
from git_jax.data.tokenizer import SentencePiece
from git_jax.decode.beam import Beam
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


def tiny() -> ConfigDict:
    """1.5 M parameters on 64-pixel scenes: minutes on two CPU cores."""
    return _base("pairs", text=24, words=512)


def full() -> ConfigDict:
    """Up to three things, handwriting and printed words. Not tuned."""
    # The longest of 30,000 captions has 33 tokens with begin and end.
    return _base("full", text=40, words=1024)


def clips() -> ConfigDict:
    """Six frames of one moving thing. Not tuned."""
    # The longest of 30,000 captions has 14 tokens with begin and end.
    return _base("clips", text=24, words=512, frames=CLIP)


def _base(level: Level, *, text: int, words: int, frames: int = 1) -> ConfigDict:
    """A level, with room for its longest caption and for the words of all."""
    width, size = 128, 64
    # 0.02, which is published, suits a width of 768; here the picture would be faint.
    std = 0.08
    config = ConfigDict()
    config.seed = 0
    config.steps = 5000
    config.batch = 32
    config.accumulate = 1
    config.model = spec(
        Git,
        encoder=spec(
            ViT,
            size=size,
            patch=16,
            stem=(16, 32, 64, 128),
            width=width,
            depth=2,
            heads=4,
            mlp=4 * width,
            std=std,
            position_std=1.0,
            scan=False,
        ),
        embed=spec(
            TextEmbed,
            width=width,
            vocabulary=words,
            positions=text,
            dropout=0.0,
            std=std,
        ),
        decoder=spec(
            Stack,
            width=width,
            depth=3,
            heads=4,
            mlp=4 * width,
            norm="post",
            activation="quick_gelu",
            epsilon=1e-12,
            std=std,
            scan=False,
        ),
        frames=frames,
    )
    config.losses = {"caption": spec(Caption)}
    # Both towers start from nothing here, so they learn at one rate.
    config.optimizer = spec(
        AdamW,
        peak=1e-3,
        rates={"encoder": 1.0},
        warmup=200,
        b2=0.95,
        weight_decay=0.05,
    )
    config.mesh = spec(Layout)
    config.data = spec(Scenes, level=level, size=size)
    config.loader = spec(
        Loader,
        text=text,
        frames=frames,
        image=spec(Crop, size=size, scale=(1.0, 1.0)),
    )
    config.tokenizer = spec(SentencePiece, vocabulary=words)
    config.task = spec(caption.Caption)
    config.checkpoint = spec(Checkpoints, every=1000)
    config.evaluate = spec(Evaluation, every=1000, search=spec(Beam, max_tokens=text))
    config.init = spec(Init)
    return config
