"""From records to batches: batch number s is a pure function of (config, s).

    loader = Loader(text=40, captions=1, image=Crop(size=64))
    for batch in loader.batches(source, task, tokenizer, batch=64, seed=0, start=500):
        batch.arrays["frames"]   # u8 [B F h w 3]

Position p = s * batch + row of the endless, shuffled sequence of records decides all of
a row: its record by the keyed order, everything random by a generator keyed with
(seed, p). Rank r of R makes the r-th block of rows of each batch. So a run resumes with
one integer, and any number of ranks sees the same global batches, row by row.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from git_jax.data import image as pictures
from git_jax.data.bad_records import Bad, summary
from git_jax.data.mixture import Part, parts
from git_jax.data.order import ENDLESS, Order, check_seed, generator, order
from git_jax.data.source import BadRecord, Record, Source
from git_jax.data.tokenizer import Tokenizer

ATTEMPTS = 100
"""How many records in a row may be unreadable before a batch is given up."""


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
    def size(self) -> int: ...

    def video(
        self, frames: Sequence[np.ndarray], rng: np.random.Generator | None
    ) -> Sequence[np.ndarray]: ...


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows of one rank. B pictures with F frames, R = B * G texts of T tokens.

    frames  u8   [B F h w 3]
    tokens  i32  [R T]   bos prefix suffix eos pad...; the G texts of a picture follow
                         one another
    valid   bool [R T]   not padding
    target  bool [R T]   paid for: the suffix and eos; token t is predicted from t - 1

    An evaluation batch has one text a picture, no `target`, and
    tokens         i32  [B T]   bos prefix pad...
    prefix_length  i32  [B]     how many of them are not padding, bos included
    present        bool [B]     False in the rows that only fill up the batch
    `ids` and `records` (without frames) are then those of the present rows, which come
    first. `bad` are the records that cannot be read: in training others stand for them,
    in an evaluation they are left out.
    """

    arrays: dict[str, np.ndarray]
    ids: list[str]
    bad: list[Bad] = dataclasses.field(default_factory=list)
    records: list[Record] = dataclasses.field(default_factory=list)


class Batches(Iterator[Batch]):
    """Batches made ahead of their use; `waited` counts the seconds they came late."""

    def __init__(self, batches: Iterator[dict[str, Any]]):
        self._batches, self.waited = batches, 0.0

    def __next__(self) -> Batch:
        start = time.perf_counter()
        try:
            return Batch(**next(self._batches))
        finally:
            self.waited += time.perf_counter() - start

    def close(self) -> None:
        """Ends the threads or processes that read ahead."""
        close = getattr(self._batches, "close", None)
        if close:
            close()


# Texts to arrays ---------------------------------------------------------------------


class Packed(NamedTuple):
    """tokens i32, target bool, valid bool: each [T], or [R T]."""

    tokens: np.ndarray
    target: np.ndarray
    valid: np.ndarray


def pack(
    prefix: Sequence[int], suffix: Sequence[int], size: int, tokenizer: Tokenizer
) -> Packed:
    """One row of T = size tokens, laid out for the loss.

    [7 8], [4 5 2] -> tokens [1 7 8 4 5 2 0]   bos 1, pad 0; the suffix ends with eos 2
                      target [0 0 0 1 1 1 0]   GIT predicts the suffix alone: no loss is
                      valid  [1 1 1 1 1 1 0]   paid on the prefix, which is context
    """
    rows = pack_rows([(prefix, suffix)], size, tokenizer)
    return Packed(rows.tokens[0], rows.target[0], rows.valid[0])


def pack_rows(
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    size: int,
    tokenizer: Tokenizer,
) -> Packed:
    """R rows, each (prefix, suffix), as `pack` lays them out."""
    bos, padding = [tokenizer.bos], [tokenizer.pad] * size
    start = np.array([1 + len(prefix) for prefix, _ in texts])[:, None]
    stop = start + np.array([len(suffix) for _, suffix in texts])[:, None]
    assert stop.max() <= size, (stop.max(), size)
    rows = [(bos + [*prefix, *suffix] + padding)[:size] for prefix, suffix in texts]
    position = np.arange(size)
    return Packed(
        tokens=np.array(rows, np.int32),
        target=(start <= position) & (position < stop),
        valid=position < stop,
    )


# The loader --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Loader:
    """How records become batches.

    text          T, tokens of a row with bos and eos
    captions      G, texts of a picture in one batch
    frames        F, frames of every record; one with another number is a bad record
    image         what makes squares of pictures: Crop or Resize
    threads       make whole batches ahead, each its own
    prefetch      batches that may lie ready; 0 makes each when it is asked for
    workers       processes beside this one, each with `threads`, 0 for none; they need
                  a main module that can be imported again and parsed absl flags
    bad_fraction  share of unreadable records that ends a run (see BadRecords)
    long          "refuse" a text of more than T tokens as a bad record, or "cut" it to
                  its last tokens, as the released GIT does
    pixels        largest picture to decode; a larger one is a bad record
    """

    text: int = 40
    captions: int = 1
    frames: int = 1
    image: Transform = pictures.Crop()
    threads: int = 2
    prefetch: int = 4
    workers: int = 0
    bad_fraction: float = 0.01
    long: Literal["refuse", "cut"] = "refuse"
    pixels: int = pictures.PIXELS

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(
                    f"--config.loader.{name}={getattr(self, name)} must be at least "
                    f"{least} and at most {most:,}"
                )
        if not 0 <= self.bad_fraction <= 1:
            raise ValueError(
                f"--config.loader.bad_fraction={self.bad_fraction} is not a fraction: "
                "it must lie between 0 and 1"
            )
        if self.long not in ("refuse", "cut"):
            raise ValueError(
                f"--config.loader.long={self.long!r} is neither 'refuse' nor 'cut'"
            )

    def batches(
        self,
        source: Source,
        task: Task,
        tokenizer: Tokenizer,
        *,
        batch: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> Batches:
        """The rows of this rank of batch start, start + 1, ... without an end.

        A source of fewer records than a batch repeats its rows. Raises ValueError where
        `batch` rows cannot be shared evenly by the ranks.
        """
        import grain

        rows = _share(batch, ranks)
        drawn = parts(source)
        make = _Training(
            _Reader(self, source, task, tokenizer),
            order(drawn, seed),
            drawn,
            seed,
            batch,
            range(rank * rows, (rank + 1) * rows),
        )
        return self._ahead(grain.MapDataset.range(start, ENDLESS).map(make))

    def evaluation(
        self,
        source: Source,
        task: Task,
        tokenizer: Tokenizer,
        *,
        batch: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> Batches:
        """Every record exactly once over all ranks, in order, without randomness.

        All ranks have the same number of batches of the same shape. A record that
        cannot be read is left out, and listed in `bad` of the batch it would be in.
        """
        import grain

        rows = _share(batch, ranks)
        make = _Evaluation(
            _Reader(self, source, task, tokenizer),
            batch,
            range(rank * rows, (rank + 1) * rows),
        )
        steps = grain.MapDataset.range(-(-len(source) // batch))
        return self._ahead(steps.map(make))

    def refuse_unreadable(
        self, source: Source, task: Task, tokenizer: Tokenizer, seed: int = 0
    ) -> None:
        """ValueError where no record can be read, of 1,000 spread over the source.

        Ends at the first that can, which is usually the first.
        """
        check_seed(seed)
        read, bad = _Reader(self, source, task, tokenizer), list[Bad]()
        count = min(len(source), 1000)
        for number in range(count):
            try:
                read(number * len(source) // count, generator(seed, number))
                return
            except BadRecord as error:
                bad.append(Bad(error.id, error.reason, error.detail))
        raise ValueError(
            f"none of {count:,} records of the training data can be read: "
            f"{summary(bad)}. Repair them, or name other data with --config.data"
        )

    def _ahead(self, steps: Any) -> Batches:
        import grain

        ahead = self.threads and self.prefetch
        reading = grain.ReadOptions(
            num_threads=min(self.threads, self.prefetch) if ahead else 0,
            prefetch_buffer_size=self.prefetch if ahead else 0,
        )
        batches = steps.to_iter_dataset(reading)
        if self.workers:
            batches = batches.mp_prefetch(grain.MultiprocessingOptions(self.workers))
        return Batches(iter(batches))


_LIMITS = dict(
    text=(3, 2**16),
    captions=(1, 2**16),
    frames=(1, 2**16),
    threads=(0, 2**10),
    prefetch=(0, 2**10),
    workers=(0, 2**10),
    pixels=(1, 2**40),
)


def _share(batch: int, ranks: int) -> int:
    if batch < 1 or batch % ranks:
        raise ValueError(
            f"--config.batch={batch} pictures cannot be shared evenly by {ranks} "
            "processes: choose a multiple"
        )
    if batch > 2**20:
        raise ValueError(f"--config.batch={batch} must be at most {2**20:,}")
    return batch // ranks


@dataclasses.dataclass(frozen=True)
class _Read:
    """A record, ready for a batch: squares and, for each text, (prefix, suffix) ids."""

    record: Record
    frames: Sequence[np.ndarray]
    texts: list[tuple[list[int], list[int]]]


@dataclasses.dataclass(frozen=True)
class _Reader:
    loader: Loader
    source: Source
    task: Task
    tokenizer: Tokenizer

    def __call__(self, index: int, rng: np.random.Generator) -> _Read:
        """Raises BadRecord."""
        record = self.source[index]
        examples = self.task.examples(record, rng, self.loader.captions)
        if not examples:
            raise BadRecord(record["id"], "no caption", "add a text to the record")
        texts = [self._ids(example, record["id"]) for example in examples]
        return _Read(record, self.squares(examples[0].frames, record["id"], rng), texts)

    def squares(
        self, frames: Sequence[Any], id: str, rng: np.random.Generator | None
    ) -> Sequence[np.ndarray]:
        if len(frames) != self.loader.frames:
            raise BadRecord(
                id,
                "number of frames",
                f"it has {len(frames)}, --config.loader.frames={self.loader.frames}: "
                "set that to what the records of the data have",
            )
        try:
            decoded = [
                pictures.decode(frame, pixels=self.loader.pixels) for frame in frames
            ]
            return self.loader.image.video(decoded, rng)
        except pictures.BadPicture as error:
            raise BadRecord(id, error.reason, error.detail) from error

    def _ids(self, example: Example, id: str) -> tuple[list[int], list[int]]:
        """(prefix, suffix with eos) that fit into T together with bos."""
        prefix = self.tokenizer.encode(example.prefix) if example.prefix else []
        suffix = self.tokenizer.encode(example.suffix)
        if not suffix:
            raise BadRecord(
                id,
                "empty caption",
                f"{example.suffix!r} has no token: write a caption or remove it",
            )
        surplus = len(prefix) + len(suffix) + 2 - self.loader.text
        if surplus > 0:
            if self.loader.long == "refuse":
                raise BadRecord(
                    id,
                    "caption longer than T",
                    f"{self.loader.text + surplus} tokens with begin and end, "
                    f"T = {self.loader.text}: raise --config.loader.text (and with it "
                    "--config.model.embed.positions and what the search may write), or "
                    "keep the last tokens of such captions with "
                    "--config.loader.long=cut",
                )
            suffix = suffix[max(0, surplus - len(prefix)) :]
            prefix = prefix[surplus:]
        return prefix, [*suffix, self.tokenizer.eos]


@dataclasses.dataclass(frozen=True)
class _Training:
    """Number of a batch -> these rows of it."""

    read: _Reader
    order: Order
    drawn: list[Part]
    seed: int
    batch: int
    rows: range

    def __call__(self, step: int) -> dict[str, Any]:
        loader, bad, size = self.read.loader, list[Bad](), self.read.loader.image.size
        frames = np.empty((len(self.rows), loader.frames, size, size, 3), np.uint8)
        ids, texts = list[str](), list[tuple[list[int], list[int]]]()
        for place, row in enumerate(self.rows):
            read = self._readable(step * self.batch + row, bad)
            for frame, square in enumerate(read.frames):
                frames[place, frame] = square
            ids.append(read.record["id"])
            texts += read.texts
        packed = pack_rows(texts, loader.text, self.read.tokenizer)
        return dict(arrays={"frames": frames, **packed._asdict()}, ids=ids, bad=bad)

    def _readable(self, position: int, bad: list[Bad]) -> _Read:
        """The record, or the first readable one of those that may stand for it."""
        index, found = self.order[position], list[Bad]()
        for attempt in range(ATTEMPTS):
            rng = generator(self.seed, position, attempt)
            if attempt:
                part = self._part(index)
                index = part.start + int(rng.integers(part.size))
            try:
                result = self.read(index, rng)
                bad += found
                return result
            except BadRecord as error:
                found.append(Bad(error.id, error.reason, error.detail))
        raise ValueError(
            f"{ATTEMPTS} records in a row cannot be read: {summary(found)}. Repair or "
            "remove them"
        )

    def _part(self, index: int) -> Part:
        """A mixture's share stays what it is: a record is replaced from its source."""
        return next(p for p in self.drawn if p.start <= index < p.start + p.size)


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """Number of a batch -> these rows of it."""

    read: _Reader
    batch: int
    rows: range

    def __call__(self, step: int) -> dict[str, Any]:
        loader, tokenizer = self.read.loader, self.read.tokenizer
        count, size = len(self.rows), loader.image.size
        frames = np.zeros((count, loader.frames, size, size, 3), np.uint8)
        tokens = np.full((count, loader.text), tokenizer.pad, np.int32)
        tokens[:, 0] = tokenizer.bos
        length = np.ones(count, np.int32)
        records, bad = list[Record](), list[Bad]()
        first = step * self.batch
        for index in range(first + self.rows.start, first + self.rows.stop):
            if index >= len(self.read.source):
                break
            try:
                record, squares, prefix = self._example(index)
            except BadRecord as error:
                bad.append(Bad(error.id, error.reason, error.detail))
                continue
            place = len(records)
            for frame, square in enumerate(squares):
                frames[place, frame] = square
            tokens[place, 1 : 1 + len(prefix)] = prefix
            length[place] += len(prefix)
            records.append({k: v for k, v in record.items() if k != "frames"})
        arrays = dict(
            frames=frames,
            tokens=tokens,
            valid=np.arange(loader.text) < length[:, None],
            prefix_length=length,
            present=np.arange(count) < len(records),
        )
        ids = [record["id"] for record in records]
        return dict(arrays=arrays, ids=ids, records=records, bad=bad)

    def _example(
        self, index: int
    ) -> tuple[Record, Sequence[np.ndarray], Sequence[int]]:
        """A record, its squares, and the ids of its prefix."""
        loader = self.read.loader
        record = self.read.source[index]
        examples = self.read.task.examples(record, generator(0, index), 1)
        if not examples:
            raise BadRecord(record["id"], "no caption", "add a text to the record")
        example = examples[0]
        squares = self.read.squares(example.frames, record["id"], None)
        prefix = self.read.tokenizer.encode(example.prefix) if example.prefix else []
        if len(prefix) >= loader.text:
            raise ValueError(
                f"the prefix of {record['id']!r} has {len(prefix) + 1} tokens with its "
                f"begin: raise --config.loader.text={loader.text}"
            )
        return record, squares, prefix
