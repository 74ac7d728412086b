"""Swin (2103.14030), and CoSwin: Swin whose patches and merging are convolutions.

A hierarchy: each stage attends within windows of its map, every second block within
windows shifted by half; between stages four tokens become one of twice the width.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from git_jax import sharding
from git_jax.nn import window
from git_jax.nn.embed import Convolution, PatchEmbed
from git_jax.nn.transformer import (
    Activation,
    Attention,
    DropPath,
    LayerNorm,
    Linear,
    Mlp,
    Remat,
    Seen,
    kept,
    loop,
    split_last,
    stacked,
    unstacked,
)


class Block(nn.Module):
    """Attention within the windows of a map, then MLP, each on a residual."""

    width: int
    heads: int
    window: int
    mlp: int
    activation: Activation
    epsilon: float
    qkv_bias: bool
    std: float

    def setup(self) -> None:
        self.attention = Attention(
            self.width, self.heads, std=self.std, qkv_bias=self.qkv_bias
        )
        self.attention_norm = LayerNorm(self.epsilon)
        self.relative = self.param(
            "relative",
            nn.initializers.normal(self.std),
            ((2 * self.window - 1) ** 2, self.heads),
        )
        self.ffn = Mlp(self.width, self.mlp, self.activation, self.std)
        self.ffn_norm = LayerNorm(self.epsilon)
        self.drop = DropPath()

    def __call__(
        self, x: Float[Array, "R h w D"], drop: Float[Array, ""], *, shift: int
    ) -> Float[Array, "R h w D"]:
        """`shift` moves the windows down and right, `drop` is of stochastic depth.

        A map not larger than a window is one window across, and is not shifted.
        """
        side = min(self.window, *x.shape[1:3])
        if min(x.shape[1:3]) <= self.window:
            shift = 0
        y = self._attend(self.attention_norm(x), side, shift)
        x = x + self.drop(y, drop)
        flat = x.reshape(len(x), -1, self.width)
        y = self.ffn(self.ffn_norm(flat)).reshape(x.shape)
        return sharding.constrain(x + self.drop(y, drop), "B h w D")

    def _attend(
        self, x: Float[Array, "R h w D"], side: int, shift: int
    ) -> Float[Array, "R h w D"]:
        rows, high, wide, _ = x.shape
        # What fills up the last windows is seen as any token is, as in the reference.
        x = window.fill(x, side)
        _, down, across, _ = x.shape
        x = jnp.roll(x, (-shift, -shift), axis=(1, 2))
        tokens = window.cut(x, side)
        mask = None
        if shift:
            near = neighbours(down, across, side, shift)
            every = jnp.broadcast_to(near, (rows, *near.shape))
            mask = every.reshape(len(tokens), 1, side**2, side**2)
        bias = self.relative[relative_index(side, self.window)].transpose(2, 0, 1)
        seen = Seen(self.attention.remember(tokens), mask, bias[None])
        x = window.join(self.attention(tokens, [seen]), down, across)
        return jnp.roll(x, (shift, shift), axis=(1, 2))[:, :high, :wide]


class Stage(nn.Module):
    """Blocks over one map, every second one with shifted windows.

    Their parameters are stacked on a leading dimension. A pair of blocks is the layer
    that is scanned and of which `remat` keeps its share; an odd last one follows.
    """

    block: Block
    depth: int
    drop_path: tuple[float, ...]
    scan: bool
    remat: Remat | None

    def setup(self) -> None:
        x, drop = jnp.zeros((1, 1, 1, self.block.width)), jnp.zeros(())
        self.layers = self.param(
            "layers", stacked(self.block, self.depth, x, drop, shift=0)
        )

    def __call__(self, x: Float[Array, "R h w D"]) -> Float[Array, "R h w D"]:
        layers: dict[str, Any] = {
            "params": self.layers,
            "drop": jnp.array(self.drop_path, jnp.float32),
        }
        if self.has_rng("dropout") and any(self.drop_path):
            key = self.make_rng("dropout")
            layers["dropout"] = jax.random.split(key, self.depth)

        def one(x: Array, given: dict[str, Any], shift: int = 0) -> Array:
            rngs = {"dropout": given["dropout"]} if "dropout" in given else None
            params = {"params": given["params"]}
            y: Any = self.block.apply(params, x, given["drop"], shift=shift, rngs=rngs)
            return y

        def pair(x: Array, given: dict[str, Any]) -> tuple[Array, None]:
            plain, shifted = unstacked(given, 2)
            return one(one(x, plain), shifted, self.block.window // 2), None

        pairs, last = split_last(layers) if self.depth % 2 else (layers, None)
        pairs = jax.tree.map(lambda leaf: leaf.reshape(-1, 2, *leaf.shape[1:]), pairs)
        x, _ = loop(pair, x, pairs, scan=self.scan, remat=self.remat)
        return x if last is None else kept(one, self.remat)(x, last)


class Merge(nn.Module):
    """Four tokens, or with a convolution those around them too, become one."""

    width: int
    how: Literal["patches", "convolution"]
    std: float

    def setup(self) -> None:
        self.norm = LayerNorm(1e-5)
        if self.how == "convolution":
            self.convolve = _overlapping(self.width, 2, self.std)
        else:
            self.reduce = Linear((self.width,), bias=False, std=self.std)

    def __call__(self, x: Float[Array, "R h w D"]) -> Float[Array, "R h2 w2 D2"]:
        if self.how == "convolution":
            return self.norm(self.convolve(x))
        x = window.fill(x, 2)
        rows, high, wide, width = x.shape
        fours = x.reshape(rows, high // 2, 2, wide // 2, 2, width)
        # The reference has the four below each other first, then beside each other.
        fours = fours.transpose(0, 1, 3, 4, 2, 5)
        return self.reduce(self.norm(fours.reshape(rows, high // 2, wide // 2, -1)))


class Swin(nn.Module):
    """Frames in, the tokens of the last stage out, rows of the map first.

    The defaults are Swin-T. Pictures may have any size: zeros at the right and at the
    bottom fill up patches, windows and fours, as the reference has it.

    `merge="convolution"` makes CoSwin, the encoder of Florence (2111.11432) and of GIT:
    patches and merging are overlapping convolutions, each under a LayerNorm, as in CvT
    (2103.15808): 7 x 7 with stride 4, then 3 x 3 with stride 2.

    CoSwin-H's dimensions are unpublished; what is known is that GIT with it has 681 M
    parameters. Ours are embed 320, depths 2 2 22 2, heads 8 16 32 64 and window 12: a
    Swin-L that is wider and deeper by as much as GIT then lies within 1 % of it, whose
    every dimension a mesh of eight can split, and whose windows fill 384 pixels.

    Args:
        patch: side of a patch, in pixels.
        embed: width of the first stage; each stage doubles it.
        depths, heads: of each stage.
        window: side of a window, in tokens.
        mlp_ratio: width inside the MLPs over that of their tokens.
        qkv_bias: whether queries, keys and values have biases.
        drop_path: how often the last block's branches are dropped for a picture in
            training, linear from 0 at the first.
        scan: compile one pair of blocks of a stage and loop over it, as in `Stack`.
        remat: as in `Stack`, where a pair of blocks is the layer.
    """

    patch: int = 4
    embed: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    mlp_ratio: float = 4.0
    merge: Literal["patches", "convolution"] = "patches"
    activation: Activation = "gelu"
    epsilon: float = 1e-5
    qkv_bias: bool = True
    drop_path: float = 0.0
    std: float = 0.02
    scan: bool = True
    remat: Remat | None = None

    @property
    def width(self) -> int:
        """Of the tokens that come out."""
        return self.embed * 2 ** (len(self.depths) - 1)

    def setup(self) -> None:
        self._check()
        self.patches: PatchEmbed | Convolution
        if self.merge == "convolution":
            self.patches = _overlapping(self.embed, self.patch, self.std)
        else:
            self.patches = PatchEmbed(self.embed, self.patch, True, self.std)
        self.patches_norm = LayerNorm(1e-5)
        widths = [self.embed * 2**i for i in range(len(self.depths))]
        rates = iter(np.linspace(0, self.drop_path, sum(self.depths)).tolist())
        self.stages = [
            Stage(
                Block(
                    width=width,
                    heads=heads,
                    window=self.window,
                    mlp=int(self.mlp_ratio * width),
                    activation=self.activation,
                    epsilon=self.epsilon,
                    qkv_bias=self.qkv_bias,
                    std=self.std,
                    parent=None,
                ),
                depth,
                tuple(next(rates) for _ in range(depth)),
                self.scan,
                self.remat,
            )
            for width, heads, depth in zip(widths, self.heads, self.depths, strict=True)
        ]
        self.merges = [Merge(width, self.merge, self.std) for width in widths[1:]]
        self.norm_out = LayerNorm(self.epsilon)

    def _check(self) -> None:
        if not self.depths or len(self.depths) != len(self.heads):
            raise ValueError(
                f"Swin: {len(self.depths)} depths {self.depths} and {len(self.heads)} "
                f"heads {self.heads}; give one of each for every stage"
            )
        sizes = {"patch": self.patch, "embed": self.embed, "window": self.window}
        for name, size in (sizes | {"depths": min(self.depths)}).items():
            if size < 1:
                raise ValueError(f"Swin: {name} is {size}; it must be at least 1")
        if not 0 <= self.drop_path < 1:
            raise ValueError(
                f"Swin: drop_path is {self.drop_path}; it is a probability below 1"
            )

    def __call__(self, frames: Float[Array, "B F h w 3"]) -> Float[Array, "B F N D"]:
        """Encodes each frame on its own."""
        batch, count, high, wide, _ = frames.shape
        x = self.patches_norm(self._embed(frames.reshape(-1, high, wide, 3)))
        x = self.stages[0](sharding.constrain(x, "B h w D"))
        for merge, stage in zip(self.merges, self.stages[1:], strict=True):
            x = stage(merge(x))
        return self.norm_out(x).reshape(batch, count, -1, self.width)

    def _embed(self, x: Float[Array, "R h w 3"]) -> Float[Array, "R h2 w2 D"]:
        if self.merge == "convolution":
            return self.patches(x)
        x = window.fill(x, self.patch)
        rows, high, wide, _ = x.shape
        return self.patches(x).reshape(
            rows, high // self.patch, wide // self.patch, self.embed
        )


def relative_index(side: int, window: int) -> Int[np.ndarray, "T T"]:
    """Which row of the table is for a query and a key of a window of `side`.

    The table has a row for each displacement within `window`, down first. Those of 2
    are -1 0 1 both ways, and a query in the corner of the window

        q .        sees      4 3
        . .        it as     1 0

    A smaller window uses the rows of the displacements that it has.
    """
    place = np.arange(side)
    away = place[:, None] - place + window - 1
    index = away[:, None, :, None] * (2 * window - 1) + away[None, :, None, :]
    return index.reshape(side**2, side**2)


def neighbours(high: int, wide: int, side: int, shift: int) -> Bool[Array, "n 1 T T"]:
    """Which tokens of each window lay together before the map was rolled by `shift`.

    Six in a row, in windows of three shifted by one: 1 2 3 | 4 5 0. In the second
    window 4 and 5 see each other, and 0 sees itself.
    """
    down, across = (np.arange(size) >= size - shift for size in (high, wide))
    region = jnp.array(2 * down[:, None] + across)[None, :, :, None]
    region = window.cut(region, side)[:, :, 0]
    return (region[:, :, None] == region[:, None, :])[:, None]


def _overlapping(width: int, stride: int, std: float) -> Convolution:
    """CvT's: 7 x 7 with stride 4 and padding 2, 3 x 3 with stride 2 and padding 1."""
    return Convolution(width, 2 * stride - 1, stride, stride // 2, std)
