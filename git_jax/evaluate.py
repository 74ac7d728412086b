"""Captions for held-out pictures, and what they are worth.

    python -m git_jax.evaluate --run=DIR
    python -m git_jax.evaluate --predictions=p.json --references=r.json --task=caption

The first scores the newest checkpoint of a run on its splits, writes the scores to the
run and renews its page; the second scores files, without a model. Both print JSON.
"""

import json
import pickle
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from git_jax import checkpoint, command, report, sharding
from git_jax import config as configs
from git_jax.config import build
from git_jax.data import pipeline
from git_jax.data.bad_records import Bad, summary
from git_jax.data.source import Record, Source
from git_jax.data.tokenizer import Tokenizer
from git_jax.decode.beam import Beam
from git_jax.decode.search import Search
from git_jax.log import Log
from git_jax.models.git import Git, generate
from git_jax.run import Run
from git_jax.tasks import caption as captions

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """When captions are written and how.

    Args:
        every: steps between the samples that a run shows while it trains.
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


@dataclass(frozen=True, eq=False)
class Trained:
    """A run, to be used on the devices that are here."""

    run: Run
    config: ConfigDict
    tokenizer: Tokenizer
    mesh: Mesh

    @classmethod
    def open(cls, directory: str, options: command.Command) -> "Trained":
        """The run in a directory, with what the command line sets of its config.

        Its mesh is fitted to the devices that are here, unless the command line names
        one: then that is the mesh or an error.

        Raises:
            ValueError: there is no such run, or the command line gives another config.
        """
        run = Run.open(directory)
        if options.flags.config:
            raise ValueError(
                f"--config={options.flags.config} and --run={directory}: a run keeps "
                f"its own config; leave --config out, and set fields of it with "
                f"--config.PATH=VALUE"
            )
        config = options.config(str(run.directory / "config.json"))
        layout: sharding.Layout = build(config.mesh)
        named = {path.partition(".")[0] for path, _ in options.overrides}
        if "mesh" not in named:
            layout = layout.fitted(jax.device_count())
        trained = cls(run, config, run.tokenizer(config), layout.mesh())
        if "model" in named:
            trained._require_same_model()
        return trained

    def parameters(self) -> Any:
        """Of the newest checkpoint, on the mesh: the average where the run keeps one.

        Raises:
            ValueError: there is no checkpoint, or it is damaged.
        """
        _, params = self.run.parameters(self.mesh)
        return params

    def _require_same_model(self) -> None:
        """ValueError where the command line made a model of other parameters."""
        changed = _shapes_of(self.config)
        kept = _shapes_of(configs.load(self.run.directory / "config.json"))
        where = f"--run={self.run.directory}"
        checkpoint.require_same_shapes(where, kept, changed)


def _shapes_of(config: ConfigDict) -> Any:
    """Shapes of the parameters of a config's model."""
    model, loader = build(config.model), build(config.loader)
    size = loader.image.size
    batch = {
        "frames": jnp.zeros((1, loader.frames, size, size, 3), jnp.uint8),
        "tokens": jnp.zeros((1, loader.text), jnp.int32),
    }
    return jax.eval_shape(lambda: model.init(jax.random.key(0), batch)["params"])


@dataclass(frozen=True)
class Part:
    """`count` records of a source, spread evenly over it.

    Three of eight are 0 2 5.
    """

    source: Source
    count: int

    @property
    def splits(self) -> tuple[str, ...]:
        return self.source.splits

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        return self.source[range(self.count)[index] * len(self.source) // self.count]

    def split(self, name: str) -> Source:
        return self.source.split(name)


GALLERY = 60
"""How many predictions of a split keep their picture, for the page to choose from."""


class Evaluator:
    """Samples while a run trains, scores when it is done."""

    def __init__(self, config: ConfigDict, tokenizer: Tokenizer, mesh: Mesh) -> None:
        self._settings: Evaluation = build(config.evaluate)
        self._source, self._task = build(config.data), build(config.task)
        self._loader: pipeline.Loader = build(config.loader)
        self._tokenizer = tokenizer
        for split in self.splits:
            self._source.split(split)  # refuses what is no split, before any training
        model = build(config.model)
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
            model, self._settings.search, tokenizer, mesh, seed=config.seed
        )

    @property
    def splits(self) -> tuple[str, ...]:
        return self._settings.splits or self._source.splits

    def samples_at(self, step: int) -> bool:
        """Whether captions are shown after this step."""
        return self._settings.samples > 0 and step % self._settings.every == 0

    def sample(self, step: int, params: Any, log: Log) -> None:
        """Captions of the first few pictures of the first split, into the log."""
        source = self._source.split(self.splits[0])
        batch = next(self._batches(source, self._settings.samples))
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

    def _batches(self, source: Source, batch: int) -> Iterator[pipeline.Batch]:
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
        run: Run,
        say: Callable[[str], None],
        *,
        step: int | None = None,
    ) -> dict[str, dict[str, float]]:
        """Scores every split and keeps scores and predictions in the run.

        Args:
            step: which the parameters are from; None: the newest checkpoint's.
        """
        step = run.step() if step is None else step
        scores = {}
        for name in self.splits:
            found = from_all_hosts(self._write_split(params, name))
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
            if jax.process_index() == 0:
                run.keep_predictions(name, rows)
            numbers = ", ".join(f"{k} {v:.4g}" for k, v in scores[name].items())
            say(f"{name}: {numbers}")
            if step is not None:
                scores[name]["step"] = step
        if jax.process_index() == 0:
            run.keep_scores(scores)
        return scores

    def _write_split(self, params: Any, split: str) -> "Said":
        """This host's part of a split; each record is in one host's part."""
        said = Said([], {}, {}, [])
        source, examples = self._source.split(split), self._settings.examples
        if examples is not None:
            source = Part(source, min(examples, len(source)))
        for batch in self._batches(source, self._settings.batch):
            texts = self._write(params, batch)
            said.records.extend(batch.records)
            said.bad.extend(batch.bad)
            for row, (id, text) in enumerate(zip(batch.ids, texts, strict=True)):
                said.said[id] = text.text
                if len(said.shown) < GALLERY:
                    picture = batch.arrays["frames"][row, 0]
                    said.shown[id] = report.data_uri(picture)
        return said


def number(id: str) -> int:
    """What `Sample` knows a record by, in any batch, on any host: 31 bits of its id.

    Its place in the source would not do: a record that cannot be read leaves no gap in
    its batch.
    """
    return zlib.crc32(id.encode(errors="surrogatepass")) >> 1


class Said(NamedTuple):
    """Records, what was said of each by id, some of the pictures by id, and the
    records that cannot be read."""

    records: list[Record]
    said: dict[str, str]
    shown: dict[str, str]
    bad: list[Bad]


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


def of_run(trained: Trained) -> dict[str, dict[str, float]]:
    """Scores the newest checkpoint of a run on its splits and renews the page."""
    evaluator = Evaluator(trained.config, trained.tokenizer, trained.mesh)
    step, params = trained.run.parameters(trained.mesh)
    say = partial(print, file=sys.stderr)
    scores = evaluator.score(params, trained.run, say, step=step)
    if jax.process_index() == 0:
        report.write(trained.run.directory)
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
    if given.run and not any(files):
        scores = of_run(Trained.open(given.run, options))
    elif all(files) and not given.run:
        scores = captions.score_files(*files, tokens=given.tokens)
    else:
        raise ValueError(
            "give either --run=DIR, or --predictions=FILE and --references=FILE"
        )
    print(json.dumps(scores, indent=1))


if __name__ == "__main__":
    command.run(main, define)
