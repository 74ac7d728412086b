"""GIT: A Generative Image-to-text Transformer for Vision and Language (2205.14100)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from git_jax import sharding
from git_jax.decode.search import Decoded, LanguageModel, Prompt, Search
from git_jax.nn import embed, mask
from git_jax.nn.transformer import Cache, LayerNorm, Linear, Reader, Stack


class Git(nn.Module):
    """An image encoder, a projection, and one transformer over image and text.

    Args:
        encoder: frames `[B F h w 3]` to tokens `[B F N D']`, whose width it names
            `width`.
        embed: words to vectors and back.
        decoder: the transformer; its width is that of `embed`.
        frames: the most frames of a clip; more than one gives each frame a learned
            embedding, added before the projection (section 3.3 of the paper).
        dtype: type of all arrays but parameters, norms, softmax and loss.
        pixel_mean, pixel_std: of the pixels, per channel.
        epsilon: of the LayerNorm behind the projection.
    """

    encoder: nn.Module
    embed: embed.TextEmbed
    decoder: Stack
    frames: int = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    pixel_mean: tuple[float, ...] = embed.CLIP_MEAN
    pixel_std: tuple[float, ...] = embed.CLIP_STD
    epsilon: float = 1e-5

    def setup(self) -> None:
        width = self.decoder.width
        if self.embed.width != width:
            raise ValueError(
                f"embed.width {self.embed.width} is not decoder.width {width}; text "
                f"and image meet at one width"
            )
        self.project = Linear((width,), std=self.decoder.std)
        self.project_norm = LayerNorm(self.epsilon)
        if self.frames > 1:
            shape = (self.frames, self.encoder.width)
            self.temporal = self.param("temporal", nn.initializers.zeros, shape)

    def __call__(self, batch: Mapping[str, Array]) -> dict[str, Any]:
        """Reads pictures and the texts behind them, all positions at once.

        Args:
            batch: `frames`, `tokens` and, for clips of unequal length, `frame_valid`;
                `tokens` may hold several consecutive rows for each picture. Padding
                stands behind a text, where none of its words can see it.

        Returns:
            `text` `[R T D]`, the decoder's vectors at the text, and `head`, which
            `losses` and `embed.logits` turn them into words with.
        """
        image, image_mask = self.image(batch["frames"], batch.get("frame_valid"))
        text = self.embed(batch["tokens"], dtype=self.dtype)
        text = self.decoder.prefixed(
            image, text, mask=mask.causal(text.shape[1]), prefix_mask=image_mask
        )
        return {"text": text, "head": self.embed.head()}

    def by_levels(self, batch: Mapping[str, Array]) -> dict[str, Any]:
        """`__call__` in one sequence under the square mask by levels.

        The definition that the fast path is held equal to. Each picture has one text.
        """
        image, image_mask = self.image(batch["frames"], batch.get("frame_valid"))
        text = self.embed(batch["tokens"], dtype=self.dtype)
        size = image.shape[1]
        level = mask.git_levels(size, text.shape[1])[None]
        valid = jnp.ones((len(image), level.shape[1]), bool)
        if image_mask is not None:
            valid = valid.at[:, :size].set(image_mask[:, 0, 0])
        both = self.decoder(
            jnp.concatenate([image, text], axis=1), mask.from_levels(level, valid)
        )
        return {"text": both[:, size:], "head": self.embed.head()}

    def image(
        self,
        frames: Array,
        frame_valid: Bool[Array, "B F"] | None = None,
    ) -> tuple[Float[Array, "B N D"], Bool[Array, "B 1 1 N"] | None]:
        """Image tokens at the decoder's width, and which of them may be seen."""
        count = frames.shape[1]
        if count > self.frames:
            raise ValueError(
                f"a clip of {count} frames does not fit a model of {self.frames}; "
                f"sample fewer frames or raise model.frames"
            )
        pixels = embed.normalise_pixels(
            frames, self.pixel_mean, self.pixel_std, self.dtype
        )
        features = self.encoder(pixels)
        if self.frames > 1:
            temporal = self.temporal[:count, None].astype(features.dtype)
            features = features + temporal
        batch, _, size, width = features.shape
        image = self.project_norm(self.project(features.reshape(batch, -1, width)))
        seen = None
        if frame_valid is not None:
            seen = jnp.repeat(frame_valid, size, axis=1)[:, None, None]
        return sharding.constrain(image, "B T D"), seen

    def remember(
        self, frames: Array, frame_valid: Bool[Array, "B F"] | None = None
    ) -> list[Reader]:
        """All that any text needs of the pictures, computed once."""
        return self.decoder.remember(*self.image(frames, frame_valid))

    def extend(
        self,
        tokens: Int[Array, "R T"],
        valid: Bool[Array, "R T"],
        cache: Cache,
        readers: Sequence[Reader],
    ) -> tuple[Float[Array, "R V"], Cache]:
        """Writes on: `T` more tokens a row, scores of the word after the last valid.

        Args:
            tokens: the next tokens of each row, padding behind them.
            valid: which of them are not padding; at least one in each row.
            cache: what has been written so far, from `start` or from here.
            readers: from `remember`; a picture serves `R / B` rows.
        """
        position = cache.length[:, None] + jnp.arange(tokens.shape[1])
        x = self.embed(tokens, position, dtype=self.dtype)
        x, cache = self.decoder.extend(x, readers, cache, valid)
        last = valid.sum(axis=1, keepdims=True)[..., None] - 1
        x = jnp.take_along_axis(x, last, axis=1)[:, 0]
        return embed.logits(x, self.embed.head()), cache

    def start(self, rows: int, size: int) -> Cache:
        """An empty cache for `rows` texts of at most `size` tokens."""
        if size > self.embed.positions:
            raise ValueError(
                f"texts of {size} tokens do not fit the model's "
                f"{self.embed.positions} positions; ask for fewer tokens"
            )
        return self.decoder.empty_cache(rows, size, self.dtype)


def shapes(module: nn.Module) -> Any:
    """Shapes of the parameters of a GIT, or of an encoder alone."""
    tower = module.encoder if isinstance(module, Git) else module
    size = getattr(tower, "size", 64)
    frames = jnp.zeros((1, 1, size, size, 3))
    batch = {"frames": frames, "tokens": jnp.zeros((1, 2), jnp.int32)}
    given = batch if isinstance(module, Git) else frames
    return jax.eval_shape(module.init, jax.random.key(0), given)["params"]


def generate(
    model: Git,
    params: Any,
    search: Search,
    batch: Mapping[str, Array],
    *,
    eos: int,
    pad: int,
    key: Array | None = None,
) -> Decoded:
    """Texts for pictures: the prefix is read at once, then the search writes on.

    Args:
        batch: `frames`, `frame_valid` for clips of unequal length, and prefixes:
            `tokens` `[R P]` with padding behind each, and `prefix_length` `[R]`, both
            with the begin token; for a search that draws, `index` `[R]`, which record
            each row is.
    """
    variables = {"params": params}
    readers = model.apply(
        variables, batch["frames"], batch.get("frame_valid"), method="remember"
    )
    tokens, length = batch["tokens"], batch["prefix_length"]
    rows, size = tokens.shape

    def extend(tokens: Array, valid: Array, cache: Cache) -> tuple[Array, Cache]:
        found: Any = model.apply(
            variables, tokens, valid, cache, readers, method="extend"
        )
        return found

    def step(tokens: Array, cache: Cache) -> tuple[Array, Cache]:
        return extend(tokens[:, None], jnp.ones((len(tokens), 1), bool), cache)

    # The last token of a search is not fed.
    cache = model.start(rows, size + search.max_tokens - 1)
    valid = jnp.arange(size) < length[:, None]
    logits, cache = extend(tokens, valid, cache)
    words = LanguageModel(step, Cache.take, eos, pad)
    return search(words, Prompt(cache, logits, length, batch.get("index")), key)
