r"""The four GITs of the paper (2205.14100), pre-trained.

    python -m git_jax.train --config=configs/git.py:base --workdir=DIR \
        --config.data.path=PREPARED_SET --config.tokenizer.path=vocab.txt

Variants: `base` (GIT_B), `large` (GIT_L), `huge` (GIT), `git2` (GIT2). Each begins
with a contrastively trained encoder; of `base` and `large` it is OpenAI's CLIP, which
becomes what they expect by

    python -m git_jax.convert --source=openai/clip-vit-base-patch16 \
        --target=weights/clip-vit-base-patch16
    python -m git_jax.convert --source=openai/clip-vit-large-patch14 \
        --target=weights/clip-vit-large-patch14

The encoders of `huge` and `git2` were never released: name one that you have trained
with --config.init.encoder=DIR. `vocab.txt` is bert-base-uncased's.

Published: encoders of `base` and `large`, decoders of the first three, dropout, label
smoothing, rates and schedule of `huge` (section 4.1: 1e-5 for the encoder, 5e-5 for the
decoder, cosine to 0), its two epochs, pictures of 160 to 224 pixels and their crops,
texts of 40 tokens, numbers of pairs. OURS, because neither the paper nor the release
gives them: batch 4,096 (a common size for contrastive towers of this time), AdamW's
betas, decay and clip (torch's defaults and 1.0), a warm-up of 500 steps, 30 epochs of
`base` and `large` (they see as many pairs as two fifths of `huge`'s), rates and epochs
of `git2` (as `huge`; 384 pixels are told of it by others' tables, for both), bfloat16,
remat and the mesh, the shapes of both unreleased encoders and of GIT2's decoder.
"""

from ml_collections import ConfigDict

from git_jax.checkpoint import Checkpoints
from git_jax.config import Node, spec
from git_jax.data.image import Crop
from git_jax.data.pipeline import Loader
from git_jax.data.tfds import Tfds
from git_jax.data.tokenizer import WordPiece
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
from git_jax.vision.davit import DaViT
from git_jax.vision.swin import Swin
from git_jax.vision.vit import ViT

BATCH = 4096


def base() -> ConfigDict:
    """GIT_B: 10 M pairs of 4 M pictures (COCO, CC3M, SBU, Visual Genome)."""
    config = _pretrain(
        encoder=spec(ViT, size=224, patch=16, remat="dots"),
        decoder=_decoder(),
        size=224,
        steps=30 * 10_000_000 // BATCH,
    )
    # By the number of the batch, as released: iteration % 5.
    config.loader.sizes = (160, 176, 192, 208, 224)
    config.init.encoder = "weights/clip-vit-base-patch16"
    return config


def large() -> ConfigDict:
    """GIT_L: 20 M pairs of 14 M pictures (CC12M besides)."""
    tower = spec(
        ViT, size=224, patch=14, width=1024, depth=24, heads=16, mlp=4096, remat="dots"
    )
    config = _pretrain(
        encoder=tower,
        decoder=_decoder(),
        size=224,
        steps=30 * 20_000_000 // BATCH,
    )
    # Ours: the released sizes are multiples of 16, and a patch has 14.
    config.loader.sizes = (154, 168, 182, 196, 210, 224)
    config.init.encoder = "weights/clip-vit-large-patch14"
    return config


def huge() -> ConfigDict:
    """GIT: Florence's CoSwin-H, 0.8 B pairs."""
    # Ours, unpublished: a Swin whose patches and merging are convolutions, of 642 M
    # parameters where Florence's is told to have 637 M; heads are 40 wide.
    coswin = spec(
        Swin,
        patch=4,
        embed=320,
        depths=(2, 2, 22, 2),
        heads=(8, 16, 32, 64),
        window=12,
        merge="convolution",
        remat="dots",
    )
    return _pretrain(
        encoder=coswin,
        decoder=_decoder(),
        size=384,
        steps=2 * 800_000_000 // BATCH,
    )


def git2() -> ConfigDict:
    """GIT2: a DaViT of 4.8 B and a decoder of 24 layers, 12.9 B pairs."""
    # Ours, unpublished: DaViT-Giant (1.4 B: widths 384 to 3072, depths 1-1-12-3) at its
    # next width, deepened in the ratio of its stages; 4.77 B parameters.
    davit = spec(
        DaViT,
        widths=(512, 1024, 2048, 4096),
        depths=(1, 1, 22, 6),
        heads=(16, 32, 64, 128),
        groups=(16, 32, 64, 128),
        window=12,
        drop_path=0.0,  # as the other encoders: the paper drops nothing there
        remat="full",
    )
    return _pretrain(
        encoder=davit,
        # Of BERT-large's shape, which makes up the 0.3 B that are not the encoder's.
        decoder=_decoder(width=1024, depth=24, heads=16, mlp=4096, remat="full"),
        size=384,
        steps=2 * 12_900_000_000 // BATCH,
    )


def _decoder(
    *,
    width: int = 768,
    depth: int = 6,
    heads: int = 12,
    mlp: int = 3072,
    remat: str = "dots",
) -> Node:
    """The decoder, by default that of GIT_B, GIT_L and GIT."""
    return spec(
        Stack,
        width=width,
        depth=depth,
        heads=heads,
        mlp=mlp,
        norm="post",
        epsilon=1e-12,
        dropout=0.1,
        attention_dropout=0.1,
        remat=remat,
    )


def _pretrain(*, encoder: Node, decoder: Node, size: int, steps: int) -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.steps = steps
    config.batch = BATCH
    config.accumulate = 1
    config.model = spec(
        Git,
        encoder=encoder,
        embed=spec(TextEmbed, width=decoder.width),
        decoder=decoder,
        dtype="bfloat16",
    )
    config.losses = {"caption": spec(Caption)}
    config.optimizer = spec(AdamW, peak=5e-5, rates={"encoder": 0.2}, warmup=500)
    config.mesh = spec(Layout, data=1, fsdp=None)
    config.data = spec(Tfds)
    config.loader = spec(
        Loader,
        text=40,
        image=spec(Crop, size=size),
        long="cut",
        threads=16,
        prefetch=16,
    )
    config.tokenizer = spec(WordPiece)
    config.task = spec(caption.Caption)
    config.checkpoint = spec(Checkpoints, every=1000, keep_period=50_000)
    config.evaluate = spec(Evaluation, every=1000, examples=1000, search=spec(Beam))
    config.init = spec(Init)
    return config
