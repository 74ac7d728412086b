"""Captions for held-out pictures, and what they are worth.

    python -m git_jax.evaluate --run=DIR
    python -m git_jax.evaluate --predictions=p.json --references=r.json --task=caption

The first scores the newest checkpoint of a run on its splits, writes the scores to the
run and renews its page; the second scores files, without a model. Both print JSON.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from git_jax import command, report
from git_jax.config import build
from git_jax.data import pipeline
from git_jax.data.bad_records import Bad, summary
from git_jax.data.reader import Task
from git_jax.data.source import Excerpt, Record, Source
from git_jax.data.tokenizer import Tokenizer
from git_jax.decode.beam import Beam
from git_jax.decode.search import Search
from git_jax.log import Log, Tally
from git_jax.run import Run
from git_jax.tasks import caption as captions
from git_jax.trained import Trained
from git_jax.writer import Text, Writer, from_all_hosts, number


class Scored(Task, Protocol):
    """A task that says what is worth what; records are known by their id."""

    def references(self, record: Record) -> Sequence[str]:
        """What people say of a record."""
        ...

    def score(
        self, predictions: Mapping[str, str], records: Sequence[Record]
    ) -> dict[str, float]:
        """Figures of all records together, by name."""
        ...

    def each(
        self, predictions: Mapping[str, str], records: Sequence[Record]
    ) -> dict[str, float]:
        """One figure for each record, by id."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """When captions are written and how.

    Args:
        every: steps between the samples that a run shows while it trains; it shows
            some after its last step, too.
        samples: how many pictures they show; 0 shows none.
        splits: what is scored at the end; None takes those that the source names.
        examples: at most so many records of each split are scored, spread evenly over
            it; None scores all.
        batch: pictures at a time.
        search: how a caption is found.
    """

    every: int = 1000
    samples: int = 3
    splits: tuple[str, ...] | None = None
    examples: int | None = None
    batch: int = 100
    search: Search = field(default_factory=Beam)

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("samples", 0), ("batch", 1)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"evaluate.{name}={value} must be at least {least}")
        if self.examples is not None and self.examples < 1:
            raise ValueError(
                f"evaluate.examples={self.examples} must be at least 1; None scores all"
            )


Counter: TypeAlias = Callable[[str, int, int], None]
"""Is told what is counted, how many are done, and how many there are."""

GALLERY = 60
"""How many predictions of a split keep their picture, for the page to choose from."""


class Evaluator:
    """Samples while a run trains, scores when it is done."""

    def __init__(
        self, made: Mapping[str, Any], tokenizer: Tokenizer, mesh: Mesh
    ) -> None:
        """`made` is a config that was built: what of it is needed is not built again.

        Raises:
            ValueError: a split that the source lacks, or texts too long for the model.
        """
        self._settings: Evaluation = made["evaluate"]
        self._steps: int = made["steps"]
        self._source: Source = made["data"]
        self._task: Scored = made["task"]
        self._loader: pipeline.Loader = made["loader"]
        self._tokenizer, model = tokenizer, made["model"]
        for split in self.splits:
            self._source.split(split)  # refuses what is no split, before any training
        # The begin token is fed, the last that is generated is not.
        longest, room = self._settings.search.max_tokens, model.embed.positions
        if longest > room:
            raise ValueError(
                f"evaluate.search.max_tokens={longest} does not fit "
                f"model.embed.positions={room}: set "
                f"--config.evaluate.search.max_tokens to at most {room} or, in a new "
                f"run, --config.model.embed.positions to {longest} or more"
            )
        self._writer = Writer(
            model, self._settings.search, tokenizer, mesh, seed=made["seed"]
        )

    @property
    def splits(self) -> tuple[str, ...]:
        return self._settings.splits or self._source.splits

    def samples_at(self, step: int) -> bool:
        """Whether captions are shown after this step."""
        due = step % self._settings.every == 0 or step == self._steps
        return self._settings.samples > 0 and due

    def sample(self, step: int, params: Any, log: Log) -> None:
        """Captions of the first few pictures of the first split, into the log."""
        source = self._source.split(self.splits[0])
        with contextlib.closing(self._batches(source, self._settings.samples)) as few:
            batch = next(few)
        texts = self._write(params, batch)
        for row, (record, text) in enumerate(zip(batch.records, texts, strict=True)):
            reference = self._task.references(record)[0]
            log.message(f"  {record['id']}: {text.text}   ({reference})")
            log.sample(
                step,
                id=record["id"],
                caption=text.text,
                reference=reference,
                picture=report.data_uri(batch.arrays["frames"][row, 0]),
            )

    def _write(self, params: Any, batch: pipeline.Batch) -> list[Text]:
        """A text for each record of a batch."""
        index = np.zeros(len(batch.arrays["prefix_length"]), np.int32)
        index[: len(batch.ids)] = [number(id) for id in batch.ids]
        texts = self._writer(params, batch.arrays | {"index": index})
        return texts[: len(batch.ids)]

    def _batches(self, source: Source, batch: int) -> pipeline.Batches:
        """This host's rows of about `batch` records at a time."""
        ranks = jax.process_count()
        return self._loader.evaluation(
            source,
            self._task,
            self._tokenizer,
            batch=-(-min(batch, len(source)) // ranks) * ranks,
            rank=jax.process_index(),
            ranks=ranks,
        )

    def score(
        self,
        params: Any,
        run: Run | None,
        say: Callable[[str], None],
        *,
        step: int,
        count: Counter | None = None,
    ) -> dict[str, dict[str, float]]:
        """Scores every split.

        Args:
            run: keeps scores and predictions; None: nothing is kept.
            step: which the parameters are from.
            count: is told of each batch how many pictures of which split are done.
        """
        scores = {}
        for name in self.splits:
            found = from_all_hosts(self._write_split(params, name, count))
            records = [record for part in found for record in part.records]
            said = {id: text for part in found for id, text in part.said.items()}
            shown = {id: uri for part in found for id, uri in part.shown.items()}
            bad = [one for part in found for one in part.bad]
            if not records:
                raise ValueError(f"no record of {name} can be read: {summary(bad)}")
            scores[name] = self._task.score(said, records)
            if bad:
                scores[name]["unreadable"] = len(bad)
                say(f"{name}: not scored, since they cannot be read: {summary(bad)}")
            each = self._task.each(said, records)
            rows = [
                {
                    "id": record["id"],
                    "caption": said[record["id"]],
                    "references": self._task.references(record),
                    "CIDEr": each[record["id"]],
                }
                for record in records
            ]
            for row in rows:
                if row["id"] in shown:
                    row["picture"] = shown[row["id"]]
            if run is not None and jax.process_index() == 0:
                run.keep_predictions(name, rows)
            numbers = ", ".join(f"{k} {v:.4g}" for k, v in scores[name].items())
            say(f"{name}: {numbers}")
            scores[name]["step"] = step
        if run is not None and jax.process_index() == 0:
            run.keep_scores(scores)
        return scores

    def _write_split(self, params: Any, split: str, count: Counter | None) -> "Said":
        """This host's part of a split; each record is in one host's part."""
        said = Said([], {}, {}, [])
        source, examples = self._source.split(split), self._settings.examples
        if examples is not None:
            source = Excerpt(source, min(examples, len(source)))
        size, total = self._settings.batch, len(source)
        for place, batch in enumerate(self._batches(source, size)):
            if count is not None:
                count(split, min(place * size, total), total)
            texts = self._write(params, batch)
            said.records.extend(batch.records)
            said.bad.extend(batch.bad)
            for row, (id, text) in enumerate(zip(batch.ids, texts, strict=True)):
                said.said[id] = text.text
                if len(said.shown) < GALLERY:
                    picture = batch.arrays["frames"][row, 0]
                    said.shown[id] = report.data_uri(picture)
        return said


class Said(NamedTuple):
    """Records, what was said of each by id, some of the pictures by id, and the
    records that cannot be read."""

    records: list[Record]
    said: dict[str, str]
    shown: dict[str, str]
    bad: list[Bad]


def of_run(run: Run, trained: Trained) -> dict[str, dict[str, float]]:
    """Scores the newest checkpoint of a run, opened as `trained`, on its splits.

    The run keeps the scores and its page is renewed, unless the command line has other
    data or another way to write: then they are printed alone.
    """
    evaluator = Evaluator(build(trained.config), trained.tokenizer, trained.mesh)
    step, params = run.parameters(trained.mesh)
    kept = None if trained.changed else run
    with Tally() as tally:
        scores = evaluator.score(
            params, kept, tally.message, step=step, count=tally.count
        )
    if trained.changed:
        print(
            f"not kept in the run, as {', '.join(trained.changed)} differ from its own",
            file=sys.stderr,
        )
    elif jax.process_index() == 0:
        report.write(run.directory)
    return scores


def define() -> None:
    flags.DEFINE_string("run", None, "A run's directory: its newest checkpoint.")
    flags.DEFINE_string("predictions", None, "A JSON file, {id: caption}.")
    flags.DEFINE_string("references", None, "A JSON file, {id: [captions]}.")
    flags.DEFINE_enum("task", "caption", ["caption"], "What the files are about.")
    flags.DEFINE_bool("tokens", False, "The files hold PTB tokens already.")


def main(options: command.Command) -> None:
    """The command."""
    options.refuse_arguments()
    given = options.flags
    files = (given.predictions, given.references)
    scores: dict[str, Any]
    if given.tokens and given.run:
        raise ValueError("--tokens goes with --predictions; a run writes texts")
    if all(files) and (given.config or options.overrides):
        raise ValueError("--config and its fields go with --run; files need none")
    if given.run and not any(files):
        scores = of_run(Run.open(given.run), Trained.open(given.run, options))
    elif all(files) and not given.run:
        scores = captions.score_files(*files, tokens=given.tokens)
    else:
        raise ValueError(
            "give either --run=DIR, or --predictions=FILE and --references=FILE"
        )
    print(json.dumps(scores, indent=1))


if __name__ == "__main__":
    command.run(main, define)
