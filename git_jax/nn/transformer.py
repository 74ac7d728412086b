"""The one transformer of the project: attention, MLP, layer and stack.

A stack runs in two ways over the same parameters. `Stack.__call__` reads one sequence
under any mask. `prefixed`, `remember` and `extend` read two parties: a *prefix* (the
image) that sees only itself, and a text that sees the prefix and its own past. The two
ways are equal; the second never builds the square mask, does nothing for the prefix in
the last layer beyond its keys and values, and lets any number of texts (captions,
questions, beams) share one prefix.

Arrays are computed in the type of the input: parameters are float32 and are cast to it,
norms, attention logits and softmax are float32 always. Dropout acts where `apply` is
given a `dropout` key.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from string import ascii_letters
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from git_jax import sharding
from git_jax.nn.product import product

# What is cheaper to compute again than to keep: the backward pass finds its operands.
light = partial(jax.checkpoint, prevent_cse=False)

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": light(lambda x: jax.nn.gelu(x, approximate=False)),
    "gelu_tanh": light(lambda x: jax.nn.gelu(x, approximate=True)),
    "quick_gelu": light(lambda x: x * jax.nn.sigmoid(1.702 * x)),
}
Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]

# What the backward pass finds in memory; all else is computed again. "dots" keeps what
# matrix products with parameters gave, by the name `Linear` gives it, "full" a layer's
# input.
REMAT: dict[str, Any] = {
    "dots": jax.checkpoint_policies.save_only_these_names("dot"),
    "full": jax.checkpoint_policies.nothing_saveable,
}
Remat = Literal["dots", "full"]


class Memory(NamedTuple):
    """What a party can be asked for: its keys and values, `[... B H S K]` each.

    Heads stand before what is remembered, as the two products of attention want them:
    what is remembered once and asked often is not turned around each time.
    """

    keys: Float[Array, "... H S K"]
    values: Float[Array, "... H S K"]


class Seen(NamedTuple):
    """A memory as some queries see it.

    The memory may have fewer rows than the queries: `R = B * G` query rows, `G`
    consecutive ones of which share a row of it. `mask` is boolean, broadcastable to
    `[R H T S]`; None lets every query see every key. `bias` is added to the logits and
    is broadcastable to them likewise: a relative position bias is `[1 H T S]`.
    """

    memory: Memory
    mask: Bool[Array, "..."] | None = None
    bias: Float[Array, "..."] | None = None


class Reader(NamedTuple):
    """A layer that goes on behind a prefix: its parameters, and what it remembers."""

    params: Any
    prefix: Seen


@struct.dataclass
class Cache:
    """The texts' own keys and values while they are being written.

    `R = B * L` rows are `L` ways on from each of `B` texts (beams). The ways of a text
    share its memory, in which each has a lane of `S` slots to write in; what a row has
    read may lie in any of them. So a row that goes on from another one takes over what
    that one has read by its `past`, and no key is ever copied.

    memory   of each layer, `[B H L*S K]`
    past     which slots hold what the row has read
    length   how much the row has read; its next token goes to that slot of its lane
    """

    memory: tuple[Memory, ...]
    past: Bool[Array, "R LS"]
    length: Int[Array, " R"]

    @property
    def lanes(self) -> int:
        """How many rows share a memory."""
        return len(self.length) // len(self.memory[0].keys)

    @property
    def slots(self) -> int:
        """How many slots a memory has, in all lanes."""
        return self.past.shape[1]

    def take(self, rows: Int[Array, " P"]) -> "Cache":
        """The cache whose row `i` is what row `rows[i]` was.

        Rows of one lane may be repeated, `[0 0 0 1 1 1]`, which gives them lanes; after
        that each is replaced by one that shares its memory.
        """
        more = len(rows) // len(self.length) - 1
        room = (0, more * self.slots)
        memory = jax.tree.map(
            lambda held: jnp.pad(held, ((0, 0), (0, 0), room, (0, 0))), self.memory
        )
        past = jnp.pad(self.past, ((0, 0), room))
        return Cache(memory, past[rows], self.length[rows])


class Linear(nn.Module):
    """`x @ kernel + bias`, over the last `contract` dimensions of `x`."""

    features: tuple[int, ...]
    contract: int = 1
    bias: bool = True
    std: float = 0.02

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        inputs = x.shape[-self.contract :]
        kernel = self.param(
            "kernel", nn.initializers.normal(self.std), inputs + self.features
        )
        # "abcd,cdef->abef" for two rows, two inputs and two features.
        letters = ascii_letters[: x.ndim + len(self.features)]
        rows, rest = (
            letters[: x.ndim - self.contract],
            letters[x.ndim - self.contract :],
        )
        features = rest[self.contract :]
        y = product(f"{letters[: x.ndim]},{rest}->{rows}{features}", x, kernel)
        y = checkpoint_name(y, "dot")
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, self.features)
            y = y + bias.astype(x.dtype)
        return y


class LayerNorm(nn.Module):
    """Layer normalisation with float32 statistics, returned in the type of `x`."""

    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return _normalised(x, scale, bias, self.epsilon)


@partial(light, static_argnums=3)
def _normalised(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"],
    epsilon: float,
) -> Float[Array, "... D"]:
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    y = centred * jax.lax.rsqrt(variance + epsilon)
    return (y * scale + bias).astype(x.dtype)


class Dropout(nn.Module):
    """Dropout where a `dropout` key is given, the identity elsewhere."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return nn.Dropout(self.rate)(x, deterministic=not self.has_rng("dropout"))


class DropPath(nn.Module):
    """Stochastic depth (1603.09382): a row is dropped whole with the given probability.

    It acts where a `dropout` key is given, on what a residual is about to add; rows
    that stay are made larger for those that do not: at 0.5, 1 2 3 becomes 2 0 6.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "R ..."], rate: Float[Array, ""]
    ) -> Float[Array, "R ..."]:
        if not self.has_rng("dropout"):
            return x
        stays = jax.random.bernoulli(
            self.make_rng("dropout"), 1 - rate, (len(x), *(1,) * (x.ndim - 1))
        )
        return jnp.where(stays, x / (1 - rate).astype(x.dtype), 0)


def _logits(query: Float[Array, "R T H K"], seen: Seen) -> Float[Array, "R H T S"]:
    rows, length, heads, width = query.shape
    keys, mask = seen.memory.keys, seen.mask
    group = rows // keys.shape[0]
    logits = product(
        "bgthk,bhsk->bghts",
        query.reshape(-1, group, length, heads, width),
        keys,
        jnp.float32,
    ).reshape(rows, heads, length, keys.shape[2])
    logits *= width**-0.5
    if seen.bias is not None:
        logits += seen.bias
    if mask is None:
        return logits
    if 1 < mask.shape[0] < rows:
        mask = jnp.repeat(mask, group, axis=0)
    return jnp.where(mask, logits, jnp.finfo(jnp.float32).min)


def _read(
    weights: Float[Array, "R H T S"], values: Float[Array, "B H S K"]
) -> Float[Array, "R T H K"]:
    rows, heads, length, size = weights.shape
    group = rows // values.shape[0]
    return product(
        "bghts,bhsk->bgthk",
        weights.reshape(-1, group, heads, length, size),
        values,
    ).reshape(rows, length, heads, values.shape[-1])


class Attention(nn.Module):
    """Multi-head attention over several memories with one softmax.

    `qkv_bias` is whether queries, keys and values have biases; the output has one.
    """

    width: int
    heads: int
    dropout: float = 0.0
    std: float = 0.02
    qkv_bias: bool = True

    def setup(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not divisible by heads {self.heads}; give a "
                f"number of heads that divides it"
            )
        head = (self.heads, self.width // self.heads)
        self.query = Linear(head, bias=self.qkv_bias, std=self.std)
        self.key = Linear(head, bias=self.qkv_bias, std=self.std)
        self.value = Linear(head, bias=self.qkv_bias, std=self.std)
        self.out = Linear((self.width,), contract=2, std=self.std)
        self.drop = Dropout(self.dropout)

    def remember(self, x: Float[Array, "R T D"]) -> Memory:
        """The keys and values of `x`, for itself and for others."""
        keys = sharding.constrain(self.key(x), "B T H K")
        values = sharding.constrain(self.value(x), "B T H K")
        return Memory(keys.swapaxes(1, 2), values.swapaxes(1, 2))

    def __call__(
        self, x: Float[Array, "R T D"], seen: Sequence[Seen]
    ) -> Float[Array, "R T D"]:
        query = sharding.constrain(self.query(x), "B T H K")
        logits = jnp.concatenate([_logits(query, s) for s in seen], axis=-1)
        weights = self.drop(jax.nn.softmax(logits).astype(x.dtype))
        ends = list(accumulate(s.memory.keys.shape[2] for s in seen))
        parts = jnp.split(weights, ends[:-1], axis=-1)
        read = [_read(w, s.memory.values) for w, s in zip(parts, seen, strict=True)]
        return self.out(sum(read[1:], start=read[0]))


class Mlp(nn.Module):
    """Two linear maps with an activation between them."""

    width: int
    mlp: int
    activation: Activation = "gelu"
    std: float = 0.02

    def setup(self) -> None:
        self.up = Linear((self.mlp,), std=self.std)
        self.down = Linear((self.width,), std=self.std)

    def __call__(self, x: Float[Array, "R T D"]) -> Float[Array, "R T D"]:
        hidden = sharding.constrain(self.up(x), "B T M")
        return self.down(ACTIVATIONS[self.activation](hidden))


class Layer(nn.Module):
    """Self-attention, then MLP, each on a residual.

    `norm="pre"` is `x + f(norm(x))` (ViT, CLIP, GPT), `norm="post"` is
    `norm(x + f(x))` (BERT and GIT's decoder).
    """

    width: int
    heads: int
    mlp: int
    norm: Literal["pre", "post"] = "pre"
    activation: Activation = "gelu"
    epsilon: float = 1e-5
    dropout: float = 0.0
    attention_dropout: float = 0.0
    std: float = 0.02

    def setup(self) -> None:
        self.attention = Attention(
            self.width, self.heads, self.attention_dropout, self.std
        )
        self.attention_norm = LayerNorm(self.epsilon)
        self.ffn = Mlp(self.width, self.mlp, self.activation, self.std)
        self.ffn_norm = LayerNorm(self.epsilon)
        self.drop = Dropout(self.dropout)

    def remember(self, x: Float[Array, "R T D"]) -> Memory:
        """Keys and values of `x`, the layer's input."""
        return self.attention.remember(
            self.attention_norm(x) if self.norm == "pre" else x
        )

    def __call__(
        self, x: Float[Array, "R T D"], seen: Sequence[Seen]
    ) -> Float[Array, "R T D"]:
        if self.norm == "pre":
            x = x + self.drop(self.attention(self.attention_norm(x), seen))
            x = x + self.drop(self.ffn(self.ffn_norm(x)))
        else:
            x = self.attention_norm(x + self.drop(self.attention(x, seen)))
            x = self.ffn_norm(x + self.drop(self.ffn(x)))
        return sharding.constrain(x, "B T D")

    def alone(
        self, x: Float[Array, "R T D"], mask: Bool[Array, "..."] | None
    ) -> Float[Array, "R T D"]:
        """The layer over one sequence under a mask."""
        return self(x, [Seen(self.remember(x), mask)])

    def after(
        self,
        prefix: Float[Array, "B N D"],
        x: Float[Array, "R T D"],
        prefix_mask: Bool[Array, "..."] | None,
        mask: Bool[Array, "..."] | None,
    ) -> tuple[Float[Array, "R T D"], Seen]:
        """The layer over a text behind a prefix, and what it sees of the prefix."""
        seen = Seen(self.remember(prefix), prefix_mask)
        return self(x, [seen, Seen(self.remember(x), mask)]), seen

    def both(
        self,
        prefix: Float[Array, "B N D"],
        x: Float[Array, "R T D"],
        prefix_mask: Bool[Array, "..."] | None,
        mask: Bool[Array, "..."] | None,
    ) -> tuple[Float[Array, "B N D"], Float[Array, "R T D"]]:
        """The layer over a prefix and over a text behind it."""
        x, seen = self.after(prefix, x, prefix_mask, mask)
        return self(prefix, [seen]), x


def stacked(
    layer: nn.Module, depth: int, *args: Any, **kwargs: Any
) -> Callable[[Array], dict[str, Any]]:
    """Makes the parameters of `depth` equal layers, on a leading dimension."""

    def init(key: Array) -> dict[str, Any]:
        def one(key: Array) -> dict[str, Any]:
            return layer.init(key, *args, **kwargs)["params"]

        return jax.vmap(one)(jax.random.split(key, depth))

    return init


def kept(
    body: Callable[..., Any], remat: Remat | None, *, prevent_cse: bool = True
) -> Callable[..., Any]:
    """`body`, of which the backward pass keeps only what `remat` says."""
    if remat is None:
        return body
    return jax.checkpoint(body, policy=REMAT[remat], prevent_cse=prevent_cse)


def loop(
    body: Callable[..., tuple[Any, Any]],
    carry: Any,
    layers: Any,
    *,
    scan: bool,
    remat: Remat | None,
) -> tuple[Any, Any]:
    """`carry, outputs = body(carry, layers[i])` for each layer, rematerialised.

    `layers` is a tree of what is stacked over them; so are the outputs.
    """
    body = kept(body, remat, prevent_cse=not scan)
    depth = jax.tree.leaves(layers)[0].shape[0]
    if scan or depth == 0:
        return jax.lax.scan(body, carry, layers)
    outputs = []
    for given in unstacked(layers, depth):
        carry, output = body(carry, given)
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


class Stack(nn.Module):
    """`depth` equal layers, their parameters stacked on a leading dimension.

    Args:
        scan: compile one layer and loop over it; False writes the layers out, which
            compiles longer and gives the compiler more to fuse. The results are equal.
        remat: what is kept for the backward pass, a name of `REMAT`; None: all.
        final_norm: a LayerNorm on what leaves the last layer.
    """

    width: int = 768
    depth: int = 6
    heads: int = 12
    mlp: int = 3072
    norm: Literal["pre", "post"] = "pre"
    activation: Activation = "gelu"
    epsilon: float = 1e-5
    dropout: float = 0.0
    attention_dropout: float = 0.0
    std: float = 0.02
    final_norm: bool = False
    scan: bool = True
    remat: Remat | None = None

    def setup(self) -> None:
        for name in ("width", "depth", "heads", "mlp"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"a transformer's {name} is {getattr(self, name)}; it must be at "
                    f"least 1"
                )
        x = jnp.zeros((1, 1, self.width))
        layers = stacked(self.layer, self.depth, x, None, method="alone")
        self.layers = self.param("layers", layers)
        if self.final_norm:
            self.norm_out = LayerNorm(self.epsilon)

    @property
    def layer(self) -> Layer:
        """The layer that the stack repeats, without parameters of its own."""
        return Layer(
            width=self.width,
            heads=self.heads,
            mlp=self.mlp,
            norm=self.norm,
            activation=self.activation,
            epsilon=self.epsilon,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            std=self.std,
            parent=None,
        )

    def _scanned(self) -> dict[str, Any]:
        """What each layer is given: its parameters and, in training, its key."""
        scanned: dict[str, Any] = {"params": self.layers}
        if self.has_rng("dropout") and (self.dropout or self.attention_dropout):
            key = self.make_rng("dropout")
            scanned["dropout"] = jax.random.split(key, self.depth)
        return scanned

    def _loop(
        self, body: Callable[..., tuple[Any, Any]], carry: Any, scanned: Any
    ) -> tuple[Any, Any]:
        return loop(body, carry, scanned, scan=self.scan, remat=self.remat)

    def _apply(self, given: dict[str, Any], *args: Any, method: str) -> Any:
        rngs = {"dropout": given["dropout"]} if "dropout" in given else None
        return self.layer.apply(
            {"params": given["params"]}, *args, rngs=rngs, method=method
        )

    def _out(self, x: Float[Array, "R T D"]) -> Float[Array, "R T D"]:
        return self.norm_out(x) if self.final_norm else x

    def __call__(
        self, x: Float[Array, "R T D"], mask: Bool[Array, "..."] | None = None
    ) -> Float[Array, "R T D"]:
        """One sequence under one mask (None: every token sees every token)."""

        def body(x: Array, given: dict[str, Any]) -> tuple[Array, None]:
            return self._apply(given, x, mask, method="alone"), None

        x, _ = self._loop(body, x, self._scanned())
        return self._out(x)

    def prefixed(
        self,
        prefix: Float[Array, "B N D"],
        x: Float[Array, "R T D"],
        *,
        mask: Bool[Array, "..."] | None,
        prefix_mask: Bool[Array, "..."] | None = None,
    ) -> Float[Array, "R T D"]:
        """A text behind a prefix that does not see it; `R / B` texts share a prefix.

        Equal to `__call__` on the two joined, under the mask by levels, and read at
        the text. The last layer computes only keys and values for the prefix.
        """

        def body(
            carry: tuple[Array, Array], given: dict[str, Any]
        ) -> tuple[tuple[Array, Array], None]:
            return self._apply(given, *carry, prefix_mask, mask, method="both"), None

        def end(carry: tuple[Array, Array], given: dict[str, Any]) -> Array:
            x, _ = self._apply(given, *carry, prefix_mask, mask, method="after")
            return x

        first, last = split_last(self._scanned())
        carry, _ = self._loop(body, (prefix, x), first)
        return self._out(kept(end, self.remat)(carry, last))

    def remember(
        self,
        prefix: Float[Array, "B N D"],
        prefix_mask: Bool[Array, "..."] | None = None,
    ) -> list[Reader]:
        """The layers, each with the prefix's keys and values in it, `[B H N K]`."""

        def body(prefix: Array, given: dict[str, Any]) -> tuple[Array, Memory]:
            memory = self._apply(given, prefix, method="remember")
            seen = [Seen(memory, prefix_mask)]
            return self._apply(given, prefix, seen, method="__call__"), memory

        first, last = split_last(self._scanned())
        prefix, memory = self._loop(body, prefix, first)
        top = self._apply(last, prefix, method="remember")
        memories = [*unstacked(memory, self.depth - 1), top]
        return [
            Reader(layer, Seen(held, prefix_mask))
            for layer, held in zip(
                unstacked(self.layers, self.depth), memories, strict=True
            )
        ]

    def extend(
        self,
        x: Float[Array, "R T D"],
        readers: Sequence[Reader],
        cache: Cache,
        valid: Bool[Array, "R T"],
    ) -> tuple[Float[Array, "R T D"], Cache]:
        """`T` more tokens of a text behind what `remember` gave.

        Row `r` goes on at its own `cache.length[r]`; its tokens come first and what
        is not `valid` is padding behind them, to be written over by the next call.
        Layers are written out, never scanned: where tokens are written one by one, a
        scan takes each layer's parameters out of the stack for every token.
        """
        row, lanes, slot = jnp.arange(len(x)), cache.lanes, jnp.arange(cache.slots)
        lane = (row % lanes) * (cache.slots // lanes)
        start = lane + cache.length
        reach = start[:, None] + jnp.arange(x.shape[1])
        # What is not its own row's lane any more, as padding may be, is not written.
        own = reach < (lane + cache.slots // lanes)[:, None]
        place = jnp.where(own, reach, cache.slots)
        new = slot >= start[:, None]
        mask = cache.past[:, None] | new[:, None] & (slot <= reach[..., None])

        memory = []
        for reader, held in zip(readers, cache.memory, strict=True):
            given = {"params": reader.params}
            more = self._apply(given, x, method="remember")
            held = jax.tree.map(
                lambda held, more: held.at[row[:, None] // lanes, :, place].set(
                    more.swapaxes(1, 2), mode="drop"
                ),
                held,
                more,
            )
            seen = [reader.prefix, Seen(held, mask[:, None])]
            x = self._apply(given, x, seen, method="__call__")
            memory.append(held)
        count = valid.sum(axis=1, dtype=jnp.int32)
        past = cache.past | new & (slot < (start + count)[:, None])
        return self._out(x), Cache(tuple(memory), past, cache.length + count)

    def empty_cache(self, rows: int, size: int, dtype: Any = jnp.float32) -> Cache:
        """A cache for `rows` texts of at most `size` tokens each."""
        shape = (rows, self.heads, size, self.width // self.heads)
        zeros = jnp.zeros(shape, dtype)
        return Cache(
            (Memory(zeros, zeros),) * self.depth,
            jnp.zeros((rows, size), bool),
            jnp.zeros(rows, jnp.int32),
        )


# Splits, not slices: the gradient of a split is one concatenation, that of a slice is
# a sum over as many arrays of the whole size.


def unstacked(tree: Any, depth: int) -> list[Any]:
    """What is stacked on the leading dimension, one by one."""
    leaves, structure = jax.tree.flatten(tree)
    if depth == 0:
        return []
    layers = [[part[0] for part in jnp.split(leaf, depth)] for leaf in leaves]
    return [jax.tree.unflatten(structure, layer) for layer in zip(*layers, strict=True)]


def split_last(tree: Any) -> tuple[Any, Any]:
    """All but the last of what is stacked on the leading dimension, and the last."""
    leaves, structure = jax.tree.flatten(tree)
    split = [jnp.split(leaf, [len(leaf) - 1]) for leaf in leaves]
    first = jax.tree.unflatten(structure, [low for low, _ in split])
    return first, jax.tree.unflatten(structure, [high[0] for _, high in split])
