"""From pixels and words to vectors, and from vectors to words."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from git_jax import sharding
from git_jax.nn.product import product
from git_jax.nn.transformer import ACTIVATIONS, Activation, Dropout, LayerNorm

# The statistics of CLIP's training pictures, with which every GIT was trained.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def normalise_pixels(
    frames: UInt8[Array, "B F h w 3"] | Float[Array, "B F h w 3"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: str,
) -> Float[Array, "B F h w 3"]:
    """Bytes become `(x / 255 - mean) / std`; floats are taken as normalised."""
    if frames.dtype == jnp.uint8:
        frames = (frames / 255.0 - jnp.array(mean)) / jnp.array(std)
    return frames.astype(dtype)


class PatchEmbed(nn.Module):
    """Cuts pictures into patches and maps each to a vector; rows of patches first.

    A convolution whose stride is its size, written as one matrix product. Pixels at the
    right and at the bottom that fill no patch are not seen, as by that convolution.
    """

    width: int
    patch: int
    bias: bool = False
    std: float = 0.02

    @nn.compact
    def __call__(self, frames: Float[Array, "B h w c"]) -> Float[Array, "B N D"]:
        rows, high, wide, channels = frames.shape
        p = self.patch
        if high < p or wide < p:
            raise ValueError(
                f"a picture of {high} x {wide} pixels holds no patch of {p} x {p}; "
                f"use larger pictures or smaller patches"
            )
        kernel = self.param(
            "kernel", nn.initializers.normal(self.std), (p, p, channels, self.width)
        )
        whole = frames[:, : high // p * p, : wide // p * p]
        patches = whole.reshape(rows, high // p, p, wide // p, p, channels)
        tokens = product("bhpwqc,pqcd->bhwd", patches, kernel)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.width,))
            tokens += bias.astype(frames.dtype)
        return tokens.reshape(rows, -1, self.width)


def resample(
    grid: Float[Array, "h w D"], high: int, wide: int
) -> Float[Array, "h2 w2 D"]:
    """A grid of vectors, such as the positions of patches, at another size.

    Bicubic interpolation as torch has it for `mode="bicubic", align_corners=False`,
    with which CLIP's, GIT's and ViT's positions are fitted to pictures of other sizes:
    cubics with a = -0.75 (jax.image has -0.5), edges repeated, no antialias.
    """
    if grid.shape[:2] == (high, wide):
        return grid
    down, across = (_cubic(*s) for s in zip((high, wide), grid.shape, strict=False))
    return jnp.einsum("ih,jw,hwd->ijd", down, across, grid)


def _cubic(out: int, size: int) -> np.ndarray:
    """Weights of `size` points in each of `out` points between them, `[out size]`."""
    a = -0.75
    centre = (np.arange(out) + 0.5) * (size / out) - 0.5
    near = np.floor(centre).astype(int)
    weights = np.zeros((out, size))
    for tap in range(-1, 3):
        x = np.abs(centre - near - tap)
        inner = ((a + 2) * x - (a + 3)) * x * x + 1
        outer = a * (((x - 5) * x + 8) * x - 4)
        column = np.clip(near + tap, 0, size - 1)
        np.add.at(weights, (np.arange(out), column), np.where(x <= 1, inner, outer))
    return weights.astype(np.float32)


class Convolution(nn.Module):
    """A convolution with zeros around the map: how hierarchies embed and shrink.

    A side of `n` becomes `(n + 2 * padding - kernel) // stride + 1`: 7 x 7 with stride
    4 and padding 2 makes 56 of 224.
    """

    width: int
    kernel: int
    stride: int
    padding: int
    std: float = 0.02

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h2 w2 D"]:
        side = self.kernel - 2 * self.padding
        if min(x.shape[1:3]) < side:
            raise ValueError(
                f"a map of {x.shape[1]} x {x.shape[2]} is too small for a convolution "
                f"of {self.kernel} x {self.kernel} with padding {self.padding}; use "
                f"sides of {side} or more"
            )
        kernel = self.param(
            "kernel",
            nn.initializers.normal(self.std),
            (self.kernel, self.kernel, x.shape[-1], self.width),
        )
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        y = jax.lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            window_strides=(self.stride,) * 2,
            padding=((self.padding,) * 2,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + bias.astype(x.dtype)


class ConvStem(nn.Module):
    """Convolutions, 3 x 3 with stride 2, each under an activation.

    In front of the patches they let a small transformer learn to see in a fraction of
    the steps (Early Convolutions Help Transformers See Better, 2106.14881). Each halves
    the sides of the picture.
    """

    widths: tuple[int, ...]
    activation: Activation

    @nn.compact
    def __call__(self, frames: Float[Array, "B h w 3"]) -> Float[Array, "B h2 w2 c"]:
        x = frames
        for i, width in enumerate(self.widths):
            kernel = self.param(
                f"kernel_{i}",
                nn.initializers.he_normal(),
                (3, 3, x.shape[-1], width),
            )
            x = jax.lax.conv_general_dilated(
                x,
                kernel.astype(x.dtype),
                window_strides=(2, 2),
                padding="SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = ACTIVATIONS[self.activation](x)
        return x


class Head(NamedTuple):
    """What turns a vector into scores of words."""

    kernel: Float[Array, "V D"]
    bias: Float[Array, " V"]


def logits(x: Float[Array, "... D"], head: Head) -> Float[Array, "... V"]:
    """Scores of the vocabulary, float32, from vectors of any type."""
    rows = "abc"[: x.ndim - 1]
    scores = product(f"{rows}d,vd->{rows}v", x, head.kernel, jnp.float32)
    return scores + head.bias


class TextEmbed(nn.Module):
    """Word and position embeddings under a LayerNorm, and the head over the words.

    There is no token-type embedding. A tied head has the word embedding for its
    kernel (the original release), an untied one a kernel of its own (the Hugging Face
    port); both have a bias. The pad token has a row like any other, where the
    references hold its gradient at zero (`padding_idx`): padding stands behind a text,
    where no word that is paid for sees it, so as an input it has none here either.

    Args:
        vocabulary: rows of the word embedding, at least the tokenizer's size.
        positions: the longest text.
        tied: whether the head is the word embedding.
        epsilon: of the LayerNorm, 1e-8 in the original release.
    """

    width: int = 768
    vocabulary: int = 30522
    positions: int = 1024
    tied: bool = True
    epsilon: float = 1e-8
    dropout: float = 0.1
    std: float = 0.02

    def setup(self) -> None:
        normal = nn.initializers.normal(self.std)
        shape = (self.vocabulary, self.width)
        self.word = self.param("word", normal, shape)
        self.position = self.param("position", normal, (self.positions, self.width))
        self.norm = LayerNorm(self.epsilon)
        self.drop = Dropout(self.dropout)
        self.output_bias = self.param(
            "output_bias", nn.initializers.zeros, (self.vocabulary,)
        )
        if not self.tied:
            self.output = self.param("output", normal, shape)

    def __call__(
        self,
        tokens: Int[Array, "R T"],
        position: Int[Array, "R T"] | None = None,
        dtype: str = "float32",
    ) -> Float[Array, "R T D"]:
        """Vectors of tokens; positions count from 0 unless they are given."""
        length = tokens.shape[1]
        if length > self.positions:
            raise ValueError(
                f"a text of {length} tokens does not fit the {self.positions} "
                f"positions of the model; shorten it or raise embed.positions"
            )
        if position is None:
            place = self.position[None, :length]
        else:
            place = self.position[position]
        x = self.norm(self.word[tokens] + place)
        return sharding.constrain(self.drop(x.astype(dtype)), "B T D")

    def head(self) -> Head:
        """The map from the decoder's vectors to scores of words."""
        return Head(self.word if self.tied else self.output, self.output_bias)
