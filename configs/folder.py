r"""GIT on your own pictures, from nothing: a folder of them, a TFDS set, or both.

    python -m git_jax.train --config=configs/folder.py --config.data.path=DIR \
        --workdir=runs/folder
    python -m git_jax.caption --run=runs/folder picture.jpg

DIR holds pictures and a `metadata.jsonl` with a line for each of them:
{"file_name": "a.jpg", "text": "a cat on a mat"}, or "texts" with a list of captions.

A hundred pictures are learnt by heart, which is what the score on them says; to caption
pictures never seen takes many thousands. On 76 photographs of COCO with five captions
each, scored on those photographs, CIDEr-D is 2.8 after 500 steps, where the best
constant caption gets 0.16: three minutes on two CPU cores.
More pictures need more `steps`: 500 steps see each of 76 about 50 times.

A caption may have 54 tokens, some 40 words. Longer ones are refused as bad records;
make room for them with

    --config.loader.text=100 --config.model.embed.positions=100 \
        --config.evaluate.search.max_tokens=99

or keep the last tokens of each with `--config.loader.long=cut`.

`prepared` trains on a set that TensorFlow Datasets has prepared as array_record, read
without TensorFlow. Its names are those of `git_jax.data.builder`; for another set name
the features that hold picture and texts:

    python -m git_jax.data.builder --target=DIR --level=pairs --count=1000
    python -m git_jax.train --config=configs/folder.py:prepared \
        --config.data.path=DIR --workdir=runs/prepared
    ... --config.data.name=coco_captions/2017 --config.data.text=captions/text \
        --config.data.id=none

`mixture` draws three pictures of the folder for each one of the set:

    python -m git_jax.train --config=configs/folder.py:mixture \
        --config.data.sources.own.path=DIR --config.data.sources.scenes.path=DIR \
        --workdir=runs/mixture
"""

from ml_collections import ConfigDict

from git_jax.checkpoint import Checkpoints
from git_jax.config import spec
from git_jax.data.folder import Folder
from git_jax.data.image import Crop
from git_jax.data.mixture import Mixture
from git_jax.data.pipeline import Loader
from git_jax.data.tfds import Tfds
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


def get_config() -> ConfigDict:
    """A folder, `--config.data.path=DIR`."""
    return _base(spec(Folder))


def prepared() -> ConfigDict:
    """A prepared TFDS set below `--config.data.path=DIR`."""
    return _base(_prepared())


def mixture() -> ConfigDict:
    """A folder and a prepared set, three records to one."""
    sources = {"own": spec(Folder), "scenes": _prepared()}
    return _base(spec(Mixture, sources=sources, weights={"own": 3.0, "scenes": 1.0}))


def _prepared() -> ConfigDict:
    """What `git_jax.data.builder` writes."""
    return spec(Tfds, name="scenes/pairs", image="image", text="texts", id="id")


def _base(data: ConfigDict) -> ConfigDict:
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
    config.data = data
    config.loader = spec(Loader, text=text, captions=5, image=spec(Crop, size=size))
    config.tokenizer = spec(SentencePiece, vocabulary=words)
    config.task = spec(caption.Caption)
    config.checkpoint = spec(Checkpoints, every=200)
    config.evaluate = spec(
        Evaluation, every=100, search=spec(Beam, max_tokens=text - 1)
    )
    config.init = spec(Init)
    return config
