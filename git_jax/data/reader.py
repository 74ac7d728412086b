"""One record, ready for a batch: its pictures as squares, its texts as ids."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from git_jax.data import image as pictures
from git_jax.data.clip import sampled
from git_jax.data.source import BadRecord, Record, Source
from git_jax.data.tokenizer import Tokenizer


class Example(Protocol):
    """What a task makes of a record: text given, text to be learned."""

    @property
    def frames(self) -> Sequence[Any]: ...

    @property
    def prefix(self) -> str: ...

    @property
    def suffix(self) -> str: ...


class Task(Protocol):
    def examples(
        self, record: Record, rng: np.random.Generator, count: int
    ) -> Sequence[Example]: ...


class Transform(Protocol):
    @property
    def size(self) -> int:
        """The side of its squares; of pictures whose aspect is kept, the shorter."""

    def video(
        self, frames: Sequence[np.ndarray], rng: np.random.Generator | None
    ) -> Sequence[np.ndarray]: ...


@dataclasses.dataclass(frozen=True)
class Read:
    """A record, its squares, F at most, and for each text ids of (prefix, suffix)."""

    record: Record
    frames: Sequence[np.ndarray]
    texts: list[tuple[list[int], list[int]]]


@dataclasses.dataclass(frozen=True)
class Reader:
    """Record number `index` of a source, as a task reads it; `Loader` has the fields.

    Raises BadRecord for a record that does not suit.
    """

    source: Source
    task: Task
    tokenizer: Tokenizer
    text: int
    captions: int
    frames: int
    image: Transform
    long: Literal["refuse", "cut"]
    pixels: int

    def training(self, index: int, rng: np.random.Generator) -> Read:
        """With as many texts as there are captions, suffixes ending with eos."""
        record, examples = self._examples(index, rng, self.captions)
        texts = [self._ids(example, record["id"]) for example in examples]
        return Read(record, self._squares(examples[0], record["id"], rng), texts)

    def evaluation(self, index: int, rng: np.random.Generator) -> Read:
        """With one text, of which only the prefix is given; whole and in the middle.

        Raises ValueError for a prefix that leaves no room for a word.
        """
        record, (example, *_) = self._examples(index, rng, 1)
        squares = self._squares(example, record["id"], None)
        prefix = self._prefix(example)
        if len(prefix) >= self.text:
            raise ValueError(
                f"the prefix of {record['id']!r} has {len(prefix) + 1} tokens with its "
                f"begin: raise --config.loader.text={self.text}"
            )
        return Read(record, squares, [(prefix, [])])

    def _examples(
        self, index: int, rng: np.random.Generator, count: int
    ) -> tuple[Record, Sequence[Example]]:
        record = self.source[index]
        examples = self.task.examples(record, rng, count)
        if not examples:
            raise BadRecord(record["id"], "no caption", "add a text to the record")
        return record, examples

    def _squares(
        self, example: Example, id: str, rng: np.random.Generator | None
    ) -> Sequence[np.ndarray]:
        count = len(example.frames)
        if count == 0 or (count > 1 and self.frames == 1):
            raise BadRecord(
                id,
                "number of frames",
                f"it has {count}, --config.loader.frames={self.frames}: a record needs "
                "one, and to see clips set that and --config.model.frames to more",
            )
        try:
            decoded = [
                pictures.decode(frame, pixels=self.pixels)
                for frame in sampled(example.frames, self.frames)
            ]
            return self.image.video(decoded, rng)
        except pictures.BadPicture as error:
            raise BadRecord(id, error.reason, error.detail) from error

    def _prefix(self, example: Example) -> list[int]:
        return self.tokenizer.encode(example.prefix) if example.prefix else []

    def _ids(self, example: Example, id: str) -> tuple[list[int], list[int]]:
        """(prefix, suffix with eos) that fit into T together with bos."""
        prefix = self._prefix(example)
        suffix = self.tokenizer.encode(example.suffix)
        if not suffix:
            raise BadRecord(
                id,
                "empty caption",
                f"{example.suffix!r} has no token: write a caption or remove it",
            )
        surplus = len(prefix) + len(suffix) + 2 - self.text
        if surplus > 0:
            if self.long == "refuse":
                needed = self.text + surplus
                raise BadRecord(
                    id,
                    "caption longer than T",
                    f"it has {needed} tokens with begin and end, T is "
                    f"--config.loader.text={self.text}: make room for it with "
                    f"--config.loader.text={needed} "
                    f"--config.model.embed.positions={needed} "
                    f"--config.evaluate.search.max_tokens={needed - 1}, or keep the "
                    "last tokens of such captions with --config.loader.long=cut",
                )
            suffix = suffix[max(0, surplus - len(prefix)) :]
            prefix = prefix[surplus:]
        return prefix, [*suffix, self.tokenizer.eos]
