"""GIT on a folder of your own pictures, from nothing.

    python -m git_jax.train --config=configs/folder.py --config.data.path=DIR \
        --workdir=runs/folder
"""

from ml_collections import ConfigDict

from git_jax.checkpoint import Checkpoints
from git_jax.config import spec
from git_jax.data.image import Crop
from git_jax.data.pipeline import Loader
from git_jax.data.source import Folder
from git_jax.data.tokenizer import SentencePiece
from git_jax.decode.search import Beam
from git_jax.evaluate import Evaluation
from git_jax.losses import Caption
from git_jax.models.git import Git
from git_jax.nn.embed import TextEmbed
from git_jax.nn.transformer import Stack
from git_jax.optim import AdamW
from git_jax.sharding import Layout
from git_jax.tasks import caption
from git_jax.train import Init
from git_jax.vision.vit import ViT


def get_config() -> ConfigDict:
    """1.7 M parameters on 96-pixel pictures."""
    width, size, text, words = 128, 96, 56, 2048
    # 0.02, which is published, suits a width of 768. Here it makes the picture so faint
    # that the captions are learnt by heart before the model looks.
    std = 0.08
    config = ConfigDict()
    config.seed = 0
    config.steps = 500
    config.batch = 8
    config.accumulate = 1
    config.model = spec(
        Git,
        encoder=spec(
            ViT,
            size=size,
            patch=16,
            width=width,
            depth=4,
            heads=4,
            mlp=4 * width,
            activation="gelu",
            std=std,
            scan=False,
        ),
        embed=spec(
            TextEmbed, width=width, vocabulary=words, positions=text, dropout=0.0
        ),
        decoder=spec(
            Stack,
            width=width,
            depth=3,
            heads=4,
            mlp=4 * width,
            norm="post",
            epsilon=1e-12,
            std=std,
            scan=False,
        ),
    )
    config.losses = {"caption": spec(Caption)}
    config.optimizer = spec(
        AdamW, peak=2e-3, rates={"encoder": 1.0}, warmup=50, weight_decay=0.05
    )
    config.mesh = spec(Layout)
    config.data = spec(Folder)
    config.loader = spec(Loader, text=text, captions=5, image=spec(Crop, size=size))
    config.tokenizer = spec(SentencePiece, vocabulary=words)
    config.task = spec(caption.Caption)
    config.checkpoint = spec(Checkpoints, every=200)
    config.evaluate = spec(
        Evaluation, every=100, search=spec(Beam, max_tokens=text - 1)
    )
    config.init = spec(Init)
    return config
