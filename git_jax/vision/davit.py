"""DaViT (2204.03645): attention over windows of a map, then over its channels.

A hierarchy of stages, each behind a convolution that shrinks the map. A layer of a
stage is two blocks: in the spatial one tokens of a window see each other, in the
channel one the channels of a group see each other, each over all tokens of the map.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from git_jax import sharding
from git_jax.nn import window
from git_jax.nn.embed import Convolution
from git_jax.nn.product import product
from git_jax.nn.transformer import (
    Activation,
    Attention,
    DropPath,
    LayerNorm,
    Mlp,
    Remat,
    Seen,
    loop,
    stacked,
)


class WindowAttention(Attention):
    """Attention between the tokens of each window of a map."""

    window: int = 12

    def over(self, x: Float[Array, "R h w D"]) -> Float[Array, "R h w D"]:
        """What fills up the last windows is seen as any token is, as in Florence-2."""
        tokens = window.cut(x, self.window)
        y = self(tokens, [Seen(self.remember(tokens))])
        return window.join(y, *x.shape[1:3])


class ChannelAttention(Attention):
    """Attention between the channels of each group; its heads are the groups.

    A channel's query, key and value are what it is at all tokens of a map, so logits
    are scaled by the number of tokens where attention between tokens has the width.
    """

    def over(self, x: Float[Array, "R h w D"]) -> Float[Array, "R h w D"]:
        tokens = x.reshape(len(x), -1, self.width)
        query, memory = self.query(tokens), self.remember(tokens)
        logits = product("bthk,bhtc->bhkc", query, memory.keys, jnp.float32)
        logits *= tokens.shape[1] ** -0.5
        weights = self.drop(jax.nn.softmax(logits).astype(x.dtype))
        read = product("bhkc,bhtc->bthk", weights, memory.values)
        return self.out(read).reshape(x.shape)


class Position(nn.Module):
    """A 3 x 3 convolution of each channel alone, on a residual: tokens learn where they
    are from the edges of the map, at any size (section 3.3 of 2102.10882)."""

    std: float

    @nn.compact
    def __call__(self, x: Float[Array, "R h w D"]) -> Float[Array, "R h w D"]:
        kernel = self.param(
            "kernel", nn.initializers.normal(self.std), (3, 3, 1, x.shape[-1])
        )
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return x + depthwise(x, kernel, bias).astype(x.dtype)


# Of the nine shifted maps the backward pass would else keep every one.
@jax.checkpoint
def depthwise(
    x: Float[Array, "R h w D"],
    kernel: Float[Array, "3 3 1 D"],
    bias: Float[Array, " D"],
) -> Float[Array, "R h w D"]:
    """The convolution with zeros around the map, in float32.

    Written out because compilers fuse nine products and their sum; as a convolution in
    as many groups as channels it takes XLA 6 (backward) to 30 times as long on a CPU.
    """
    _, high, wide, _ = x.shape
    around = jnp.pad(x.astype(jnp.float32), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = jnp.broadcast_to(bias, x.shape)
    for down in range(3):
        for across in range(3):
            near = around[:, down : down + high, across : across + wide]
            y += near * kernel[down, across, 0]
    return y


class Block(nn.Module):
    """Attention, then MLP, each on a residual and each behind a `Position`."""

    attention: WindowAttention | ChannelAttention
    mlp: int
    activation: Activation
    epsilon: float
    std: float

    def setup(self) -> None:
        self.attention_position = Position(self.std)
        self.attention_norm = LayerNorm(self.epsilon)
        self.ffn_position = Position(self.std)
        self.ffn_norm = LayerNorm(self.epsilon)
        self.ffn = Mlp(self.attention.width, self.mlp, self.activation, self.std)
        self.drop = DropPath()

    def __call__(
        self, x: Float[Array, "R h w D"], drop: Float[Array, ""]
    ) -> Float[Array, "R h w D"]:
        """`drop` is the probability of stochastic depth."""
        x = self.attention_position(x)
        x = x + self.drop(self.attention.over(self.attention_norm(x)), drop)
        x = self.ffn_position(x)
        flat = x.reshape(len(x), -1, x.shape[-1])
        y = self.ffn(self.ffn_norm(flat)).reshape(x.shape)
        return sharding.constrain(x + self.drop(y, drop), "B h w D")


class Layer(nn.Module):
    """A spatial block and a channel block, with the stochastic depth of each."""

    spatial: Block
    channel: Block

    def __call__(
        self, x: Float[Array, "R h w D"], drop: Float[Array, "2"]
    ) -> Float[Array, "R h w D"]:
        return self.channel(self.spatial(x, drop[0]), drop[1])


class Stage(nn.Module):
    """Layers over one map, their parameters stacked on a leading dimension."""

    layer: Layer
    drop_path: tuple[tuple[float, float], ...]
    scan: bool
    remat: Remat | None

    def setup(self) -> None:
        width = self.layer.spatial.attention.width
        x, drop = jnp.zeros((1, 1, 1, width)), jnp.zeros(2)
        self.layers = self.param(
            "layers", stacked(self.layer, len(self.drop_path), x, drop)
        )

    def __call__(self, x: Float[Array, "R h w D"]) -> Float[Array, "R h w D"]:
        depth = len(self.drop_path)
        layers: dict[str, Any] = {
            "params": self.layers,
            "drop": jnp.array(self.drop_path, jnp.float32),
        }
        if self.has_rng("dropout") and np.any(self.drop_path):
            layers["dropout"] = jax.random.split(self.make_rng("dropout"), depth)

        def body(x: Array, given: dict[str, Any]) -> tuple[Any, None]:
            rngs = {"dropout": given["dropout"]} if "dropout" in given else None
            params = {"params": given["params"]}
            return self.layer.apply(params, x, given["drop"], rngs=rngs), None

        x, _ = loop(body, x, layers, scan=self.scan and depth > 1, remat=self.remat)
        return x


class Patches(nn.Module):
    """A convolution that shrinks the map, under a LayerNorm or behind one."""

    width: int
    patch: int
    stride: int
    padding: int
    order: Literal["pre", "post"]
    epsilon: float
    std: float

    def setup(self) -> None:
        self.convolve = Convolution(
            self.width, self.patch, self.stride, self.padding, self.std
        )
        self.norm = LayerNorm(self.epsilon)

    def __call__(self, x: Float[Array, "R h w c"]) -> Float[Array, "R h2 w2 D"]:
        if self.order == "pre":
            x = self.convolve(self.norm(x))
        else:
            x = self.norm(self.convolve(x))
        return sharding.constrain(x, "B h w D")


class DaViT(nn.Module):
    """Frames in, the tokens of the last stage out, rows of the map first.

    The defaults are DaViT-Base as Florence-2 has it (2311.06242). Pictures may have any
    size: zeros at the right and at the bottom fill up windows, and convolutions leave
    out what their stride does not reach, as in that reference. 224 x 224 pixels become
    7 x 7 tokens.

    The encoder of GIT2 is a DaViT of 4.8 B parameters; that size is what is published
    of it, so the dimensions that configs give it are ours.

    Args:
        patch, stride, padding: of the convolution in front of each stage, square.
        patch_norm: its LayerNorm, before ("pre") or after it.
        widths, depths, heads, groups: of each stage; `groups` are of its channels.
        window: side of a window, in tokens.
        mlp_ratio: width inside the MLPs over that of their tokens.
        qkv_bias: whether queries, keys and values have biases.
        drop_path: how often the last block's branches are dropped for a picture in
            training, linear from 0 at the first.
        scan: compile one layer of a stage and loop over it, as in `Stack`.
        remat: as in `Stack`, where a spatial and a channel block are the layer.
    """

    patch: tuple[int, ...] = (7, 3, 3, 3)
    stride: tuple[int, ...] = (4, 2, 2, 2)
    padding: tuple[int, ...] = (3, 1, 1, 1)
    patch_norm: tuple[Literal["pre", "post"], ...] = ("post", "pre", "pre", "pre")
    widths: tuple[int, ...] = (128, 256, 512, 1024)
    depths: tuple[int, ...] = (1, 1, 9, 1)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    groups: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 12
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    epsilon: float = 1e-5
    qkv_bias: bool = True
    drop_path: float = 0.1
    std: float = 0.02
    scan: bool = True
    remat: Remat | None = None

    @property
    def width(self) -> int:
        """Of the tokens that come out."""
        return self.widths[-1]

    def setup(self) -> None:
        self._check()
        self.patches = [
            Patches(*fields, self.epsilon, self.std)
            for fields in zip(
                self.widths,
                self.patch,
                self.stride,
                self.padding,
                self.patch_norm,
                strict=True,
            )
        ]
        rates = np.linspace(0, self.drop_path, 2 * sum(self.depths)).reshape(-1, 2)
        ends = np.cumsum(self.depths)
        self.stages = [
            Stage(
                self._layer(stage),
                tuple(map(tuple, rates[end - depth : end].tolist())),
                self.scan,
                self.remat,
            )
            for stage, (depth, end) in enumerate(zip(self.depths, ends, strict=True))
        ]

    def _layer(self, stage: int) -> Layer:
        """The layer that a stage repeats, without parameters of its own."""
        width = self.widths[stage]
        fields: dict[str, Any] = {
            "std": self.std,
            "qkv_bias": self.qkv_bias,
            "parent": None,
        }
        spatial = WindowAttention(
            width, self.heads[stage], window=self.window, **fields
        )
        channel = ChannelAttention(width, self.groups[stage], **fields)

        def block(attention: WindowAttention | ChannelAttention) -> Block:
            mlp = int(width * self.mlp_ratio)
            kinds = self.activation, self.epsilon, self.std
            return Block(attention, mlp, *kinds, parent=None)

        return Layer(block(spatial), block(channel), parent=None)

    def _check(self) -> None:
        least = {"widths": 1, "patch": 1, "stride": 1, "padding": 0, "depths": 1}
        least |= {"heads": 1, "groups": 1}
        stages = len(self.widths)
        for name in (*least, "patch_norm"):
            given = getattr(self, name)
            if not stages or len(given) != stages:
                raise ValueError(
                    f"DaViT: {stages} widths {self.widths} and {len(given)} of "
                    f"{name}, {given}; give one of each for every stage"
                )
        for name, smallest in least.items():
            if min(getattr(self, name)) < smallest:
                raise ValueError(
                    f"DaViT: {name} are {getattr(self, name)}; each must be at least "
                    f"{smallest}"
                )
        for name in ("heads", "groups"):
            for width, parts in zip(self.widths, getattr(self, name), strict=True):
                if width % parts:
                    raise ValueError(
                        f"DaViT: width {width} is not divisible by {name} {parts}; "
                        f"give a number of {name} that divides it"
                    )
        if self.window < 1:
            raise ValueError(f"DaViT: window is {self.window}; it must be at least 1")
        if not 0 <= self.drop_path < 1:
            raise ValueError(
                f"DaViT: drop_path is {self.drop_path}; it is a probability below 1"
            )

    def __call__(self, frames: Float[Array, "B F h w 3"]) -> Float[Array, "B F N D"]:
        """Encodes each frame on its own."""
        batch, count, high, wide, _ = frames.shape
        x = frames.reshape(-1, high, wide, 3)
        for patches, stage in zip(self.patches, self.stages, strict=True):
            x = stage(patches(x))
        return x.reshape(batch, count, -1, self.width)
