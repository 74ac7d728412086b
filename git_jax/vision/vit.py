"""The Vision Transformer (2010.11929), with the options of CLIP (2103.00020)."""

from collections.abc import Iterable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from git_jax import sharding
from git_jax.nn import embed
from git_jax.nn.embed import ConvStem, PatchEmbed
from git_jax.nn.transformer import Activation, LayerNorm, Remat, Stack


class ViT(nn.Module):
    """Frames in, a class token (if any) and a token for each patch out.

    Frames may have any size: positions are those of `size`, interpolated to the grid of
    patches that the picture has.

    The defaults are CLIP's ViT-B/16, GIT_B's encoder: a patch embedding without bias,
    a norm before the blocks and one on *every* token after them.

    Args:
        size: side, in pixels, of the square pictures that have a learned position for
            each patch.
        patch: side of a patch, in pixels.
        stem: widths of convolutions that halve the picture before it is cut, see
            `ConvStem`; the published models have none.
        class_token: whether a learned token stands in front of the patches.
        norm_before: CLIP's LayerNorm in front of the first block.
        patch_bias: whether the patch embedding has a bias.
        position_std: of the position embeddings at the beginning. They are added to
            patches of about unit size: a small model from scratch finds out where
            things are in half the steps where they are as large.
        scan, remat: as in `Stack`.
    """

    size: int = 224
    patch: int = 16
    stem: tuple[int, ...] = ()
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp: int = 3072
    activation: Activation = "quick_gelu"
    epsilon: float = 1e-5
    class_token: bool = True
    norm_before: bool = True
    patch_bias: bool = False
    std: float = 0.02
    position_std: float = 0.02
    scan: bool = True
    remat: Remat | None = None

    def setup(self) -> None:
        if self.patch < 1 or self.size % self.patch:
            raise ValueError(
                f"ViT: size {self.size} is not divisible by patch {self.patch}"
            )
        halved = 2 ** len(self.stem)
        if self.patch % halved:
            raise ValueError(
                f"ViT: a stem of {len(self.stem)} halves the picture to 1 / {halved}, "
                f"which does not divide patch {self.patch}"
            )
        normal = nn.initializers.normal(self.std)
        if self.stem:
            self.stem_block = ConvStem(self.stem, self.activation)
        self.patches = PatchEmbed(
            self.width, self.patch // halved, self.patch_bias, self.std
        )
        count = (self.size // self.patch) ** 2 + self.class_token
        self.position = self.param(
            "position",
            nn.initializers.normal(self.position_std),
            (count, self.width),
        )
        if self.class_token:
            self.cls = self.param("cls", normal, (self.width,))
        if self.norm_before:
            self.norm_in = LayerNorm(self.epsilon)
        self.stack = Stack(
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp=self.mlp,
            norm="pre",
            activation=self.activation,
            epsilon=self.epsilon,
            std=self.std,
            final_norm=True,
            scan=self.scan,
            remat=self.remat,
        )

    def __call__(self, frames: Float[Array, "B F h w 3"]) -> Float[Array, "B F N D"]:
        """Encodes each frame on its own."""
        batch, count, high, wide, _ = frames.shape
        x = frames.reshape(batch * count, high, wide, 3)
        x = self.patches(self.stem_block(x) if self.stem else x)
        if self.class_token:
            cls = jnp.broadcast_to(self.cls.astype(x.dtype), (len(x), 1, self.width))
            x = jnp.concatenate([cls, x], axis=1)
        position = self._position(high // self.patch, wide // self.patch)
        x = sharding.constrain(x + position.astype(x.dtype), "B T D")
        if self.norm_before:
            x = self.norm_in(x)
        x = self.stack(x)
        return x.reshape(batch, count, *x.shape[1:])

    def _position(self, high: int, wide: int) -> Float[Array, "N D"]:
        """Positions of the class token, if any, and of a grid of patches."""
        return resampled(self.position, self, high, wide)


def require_whole_patches(tower: nn.Module, sides: Iterable[int], where: str) -> None:
    """ValueError naming the side of a square that a ViT would not see to its edge."""
    if not isinstance(tower, ViT):
        return
    patch = tower.patch
    for side in sides:
        if rest := side % patch:
            near = [str(side - rest)] if side > rest else []
            near.append(str(side - rest + patch))
            raise ValueError(
                f"{where}={side} is no multiple of encoder.patch={patch}, and the last "
                f"{rest} pixels of each side would not be seen: take "
                f"{' or '.join(near)}"
            )


def resampled(
    position: Float[Array, "N D"], tower: ViT, high: int, wide: int
) -> Float[Array, "N2 D"]:
    """A tower's positions for pictures of another grid of patches."""
    side = tower.size // tower.patch
    first, rest = jnp.split(position, [int(tower.class_token)])
    grid = embed.resample(rest.reshape(side, side, -1), high, wide)
    return jnp.concatenate([first, grid.reshape(-1, rest.shape[-1])])
