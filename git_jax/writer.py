"""Texts for pictures, written with a model on a mesh, on any number of hosts."""

import pickle
import zlib
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from git_jax import sharding
from git_jax.data.tokenizer import Tokenizer
from git_jax.decode.search import Search
from git_jax.models.git import Git, generate

T = TypeVar("T")


@dataclass(frozen=True)
class Text:
    """What a model wrote: the text, its ids without special ones, and its score."""

    text: str
    tokens: list[int]
    score: float


class Writer:
    """Writes texts for pictures with a model on a mesh; `seed` is for `Sample`."""

    def __init__(
        self,
        model: Git,
        search: Search,
        tokenizer: Tokenizer,
        mesh: Mesh,
        *,
        seed: int = 0,
    ) -> None:
        self._tokenizer, self._mesh = tokenizer, mesh
        # The last token that is generated is not fed.
        self._room = model.embed.positions - (search.max_tokens - 1)

        def write(params: Any, batch: dict[str, jax.Array], key: jax.Array) -> Any:
            return generate(
                model,
                params,
                search,
                batch,
                eos=tokenizer.eos,
                pad=tokenizer.pad,
                key=key,
            )

        self._write = jax.jit(write, out_shardings=sharding.rows(mesh))
        self._key = jax.random.key(seed)

    def __call__(self, params: Any, arrays: dict[str, np.ndarray]) -> list[Text]:
        """One text for each of this host's rows.

        Args:
            arrays: `frames`, `frame_valid` for clips, `tokens` and `prefix_length`, as
                an evaluation batch has, and `index`, which record each row is: a search
                that draws draws the same for it in any batch. Without it a row draws by
                its place.
        """
        rows = len(arrays["prefix_length"])
        # Few widths, each the same on all hosts: every other is compiled anew.
        longest = max(from_all_hosts(int(arrays["prefix_length"].max())))
        width = longest if longest == 1 else -(-longest // 8) * 8
        width = max(longest, min(width, self._room))
        read = ("frames", "frame_valid", "tokens", "prefix_length", "index")
        batch = {name: arrays[name] for name in read if name in arrays}
        batch["tokens"] = batch["tokens"][:, :width]
        ways = sharding.row_ways(self._mesh)
        short = -rows % max(1, ways // jax.process_count())
        place = sharding.rows(self._mesh)
        batch = {
            name: jax.make_array_from_process_local_data(
                place, np.concatenate([leaf, np.repeat(leaf[-1:], short, axis=0)])
            )
            for name, leaf in batch.items()
        }
        with jax.set_mesh(self._mesh):
            found = self._write(params, batch, self._key)
        found = multihost_utils.global_array_to_host_local_array(
            found, self._mesh, place.spec
        )
        tokens, length, score = map(
            np.asarray, (found.tokens, found.length, found.score)
        )
        return [
            self._text(tokens[row, : length[row]].tolist(), float(score[row]))
            for row in range(rows)
        ]

    def _text(self, ids: list[int], score: float) -> Text:
        # Nothing keeps a model from writing a special id in the middle of a text.
        special = (self._tokenizer.pad, self._tokenizer.bos, self._tokenizer.eos)
        words = [id for id in ids if id not in special]
        return Text(self._tokenizer.decode(words), words, score)


def number(id: str) -> int:
    """What `Sample` knows a record by, in any batch, on any host: 31 bits of its id.

    Its place in the source would not do: a record that cannot be read leaves no gap in
    its batch.
    """
    return zlib.crc32(id.encode(errors="surrogatepass")) >> 1


def from_all_hosts(value: T) -> list[T]:
    """The value of every host, in their order, on every host."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(data)))
    padded = np.pad(data, (0, int(sizes.max()) - len(data)))
    parts = multihost_utils.process_allgather(padded)
    return [
        pickle.loads(part[:size].tobytes())
        for part, size in zip(parts, sizes, strict=True)
    ]
