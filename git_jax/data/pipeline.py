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
from collections.abc import Iterator
from typing import Any, Literal, cast

import numpy as np

from git_jax.data import clip
from git_jax.data import image as pictures
from git_jax.data.bad_records import Bad, counted, summary
from git_jax.data.mixture import Part, parts
from git_jax.data.order import ENDLESS, Order, check_seed, generator, order
from git_jax.data.reader import Read, Reader, Task, Transform
from git_jax.data.rows import pack_rows
from git_jax.data.source import BadRecord, Record, Source
from git_jax.data.tokenizer import Tokenizer

ATTEMPTS = 100
"""How many records in a row may be unreadable before a batch is given up."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows of one rank. B pictures with F frames, R = B * G texts of T tokens.

    frames       u8   [B F h w 3]
    frame_valid  bool [B F]  which frames are real, where F > 1: a shorter clip comes
                             first, black follows
    tokens       i32  [R T]  bos prefix suffix eos pad...; the G texts of a picture
                             follow one another
    valid        bool [R T]  not padding
    target       bool [R T]  paid for: the suffix and eos, each from what is before it

    An evaluation batch has one text a picture, no `target`, and
    tokens         i32  [B T]   bos prefix pad...
    prefix_length  i32  [B]     how many of them are not padding, bos included
    `ids` and `records` (without frames) are then those of the first rows; rows behind
    them only fill up the batch. `bad` are the records that cannot be read: in training
    others stand for them, in an evaluation they are left out.
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


@dataclasses.dataclass(frozen=True)
class Loader:
    """How records become batches.

    text          T, tokens of a row with bos and eos
    captions      G, texts of a picture in one batch
    frames        F, frames of a row: a longer clip is sampled evenly, a shorter one
                  filled up with black; where F is 1, a clip is a bad record
    image         what makes squares of pictures: Crop or Resize
    sizes         sides of the pictures of training batches, one a batch in turn, the
                  same on every rank; none: image.size always, as in an evaluation
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
    sizes: tuple[int, ...] = ()
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
        _ = self._images  # refuses a size that is none

    @property
    def _images(self) -> list[Transform]:
        """What makes squares of the pictures of training batches, one after another."""
        image = cast(Any, self.image)
        try:
            made = [dataclasses.replace(image, size=size) for size in self.sizes]
        except (TypeError, ValueError) as error:  # no size, or an image without one
            raise ValueError(f"--config.loader.sizes={self.sizes}: {error}") from error
        return made or [self.image]

    def shapes(self, batch: int, *, ranks: int = 1) -> dict[str, np.ndarray]:
        """Zeros in the form of one rank's rows of a training batch.

        No record is read and no room is taken: each array is one zero, broadcast.
        Raises ValueError as `batches` and `evaluation` do.
        """
        self._require_one_shape()
        rows = _share(batch, ranks)
        texts = (rows * self.captions, self.text)
        forms = clip.forms(rows, self.frames, self.image.size)
        forms |= {"tokens": (np.int32, texts)}
        forms |= dict.fromkeys(("target", "valid"), (np.bool_, texts))
        return {
            name: np.broadcast_to(np.zeros((), dtype), shape)
            for name, (dtype, shape) in forms.items()
        }

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
        reader = self._reader(source, task, tokenizer)
        make = _Training(
            [dataclasses.replace(reader, image=image) for image in self._images],
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
        Raises ValueError where pictures would keep their aspect.
        """
        import grain

        self._require_one_shape()
        rows = _share(batch, ranks)
        make = _Evaluation(
            self._reader(source, task, tokenizer),
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
        reader, bad = self._reader(source, task, tokenizer), list[Bad]()
        count = min(len(source), 1000)
        for number in range(count):
            try:
                reader.training(number * len(source) // count, generator(seed, number))
                return
            except BadRecord as error:
                bad.append(Bad(error.id, error.reason, error.detail))
        raise ValueError(
            f"none of {counted(count, 'record')} of the training data can be read: "
            f"{summary(bad)}. Repair them, or name other data with --config.data"
        )

    def _require_one_shape(self) -> None:
        long = getattr(self.image, "long", None)
        if long is not None:
            raise ValueError(
                f"--config.loader.image.long={long} keeps the aspect of each picture, "
                "and a batch has one shape: score a Crop's squares, with "
                "--config.loader.image.long=none; git_jax.caption reads any shape"
            )

    def _reader(self, source: Source, task: Task, tokenizer: Tokenizer) -> Reader:
        return Reader(
            source,
            task,
            tokenizer,
            text=self.text,
            captions=self.captions,
            frames=self.frames,
            image=self.image,
            long=self.long,
            pixels=self.pixels,
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
class _Training:
    """Number of a batch -> these rows of it, each reader's turn one after another."""

    readers: list[Reader]
    order: Order
    drawn: list[Part]
    seed: int
    batch: int
    rows: range

    def __call__(self, step: int) -> dict[str, Any]:
        reader, bad = self.readers[step % len(self.readers)], list[Bad]()
        arrays = clip.room(len(self.rows), reader.frames, reader.image.size)
        ids, texts = list[str](), list[tuple[list[int], list[int]]]()
        for place, row in enumerate(self.rows):
            read = self._readable(reader, step * self.batch + row, bad)
            clip.put(arrays, place, read.frames)
            ids.append(read.record["id"])
            texts += read.texts
        packed = pack_rows(texts, reader.text, reader.tokenizer)
        return dict(arrays=arrays | packed._asdict(), ids=ids, bad=bad)

    def _readable(self, reader: Reader, position: int, bad: list[Bad]) -> Read:
        """The record, or the first readable one of those that may stand for it."""
        index, found = self.order[position], list[Bad]()
        for attempt in range(ATTEMPTS):
            rng = generator(self.seed, position, attempt)
            if attempt:
                part = self._part(index)
                index = part.start + int(rng.integers(part.size))
            try:
                result = reader.training(index, rng)
                bad += found
                return result
            except BadRecord as error:
                found.append(Bad(error.id, error.reason, error.detail))
        raise ValueError(
            f"{ATTEMPTS} draws in a row gave records that cannot be read: "
            f"{summary(found)}. Repair or remove them"
        )

    def _part(self, index: int) -> Part:
        """A mixture's share stays what it is: a record is replaced from its source."""
        return next(p for p in self.drawn if p.start <= index < p.start + p.size)


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """Number of a batch -> these rows of it."""

    reader: Reader
    batch: int
    rows: range

    def __call__(self, step: int) -> dict[str, Any]:
        reader, bad, records = self.reader, list[Bad](), list[Record]()
        count = len(self.rows)
        arrays = clip.room(count, reader.frames, reader.image.size)
        texts: list[tuple[list[int], list[int]]] = [([], [])] * count
        first = step * self.batch
        for index in range(first + self.rows.start, first + self.rows.stop):
            if index >= len(reader.source):
                break
            try:
                read = reader.evaluation(index, generator(0, index))
            except BadRecord as error:
                bad.append(Bad(error.id, error.reason, error.detail))
                continue
            place = len(records)
            clip.put(arrays, place, read.frames)
            (texts[place],) = read.texts
            records.append({k: v for k, v in read.record.items() if k != "frames"})
        packed = pack_rows(texts, reader.text, reader.tokenizer)
        arrays |= dict(
            tokens=packed.tokens,
            valid=packed.valid,
            prefix_length=packed.valid.sum(axis=1, dtype=np.int32),
        )
        ids = [record["id"] for record in records]
        return dict(arrays=arrays, ids=ids, records=records, bad=bad)
