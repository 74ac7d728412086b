"""GIT on the embedded corpus of drawn scenes: no download, no files.

    bash launch/local.sh
    python -m git_jax.train --config=configs/scenes.py:tiny --workdir=runs/scenes

`tiny` is what the first command of the README trains: two-object scenes, a laptop, some
minutes.
"""

from ml_collections import ConfigDict

from git_jax.checkpoint import Checkpoints
from git_jax.config import spec
from git_jax.data.image import Crop
from git_jax.data.pipeline import Loader
from git_jax.data.scenes import Scenes
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
    width, size, words = 128, 64, 512
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
            positions=24,
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
    config.data = spec(Scenes, size=size)
    config.loader = spec(Loader, text=24, image=spec(Crop, size=size, scale=(1.0, 1.0)))
    config.tokenizer = spec(SentencePiece, vocabulary=words)
    config.task = spec(caption.Caption)
    config.checkpoint = spec(Checkpoints, every=1000)
    config.evaluate = spec(Evaluation, every=1000, search=spec(Beam, max_tokens=24))
    config.init = spec(Init)
    return config
