"""The directory of a run: what lies where, and how a run is rebuilt from it alone.

config.json        the resolved config            tokenizer.model, vocab.txt ...
metrics.jsonl      a line for each step           samples.jsonl      captions so far
bad_records.jsonl  records that were replaced     checkpoints/       state by step
predictions/       a file for each split          scores.json        a node a split,
                                                  with the step that was scored
report.html        the page                       tensorboard/
environment.json   machine and packages           not_finite.json    only where it is so
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from git_jax import config as configs
from git_jax.checkpoint import Store
from git_jax.data import tokenizer as tokenizers
from git_jax.data.source import Source
from git_jax.file import write

# What may differ between two starts of one run: where and how it computes, how often it
# saves, how it is scored. All else would make it another run.
FREE = (
    "mesh",
    "checkpoint",
    "evaluate",
    "loader.threads",
    "loader.prefetch",
    "loader.workers",
    "loader.bad_fraction",
)

KEPT = (tokenizers.SentencePiece, tokenizers.WordPiece)
"""The tokenizers that a run keeps a file of."""


@dataclass(frozen=True)
class Run:
    """A run's directory."""

    directory: Path

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def scores(self) -> Path:
        return self.directory / "scores.json"

    @property
    def not_finite(self) -> Path:
        return self.directory / "not_finite.json"

    @contextlib.contextmanager
    def begun(self, config: ConfigDict) -> Iterator[None]:
        """Keeps the config, as `begin`, while a start is prepared.

        One that is refused leaves no folder behind where there was none.
        """
        new = not self.directory.exists()
        self.begin(config)
        try:
            yield
        except (ValueError, OSError):
            own = {"config.json", *(kind.file for kind in KEPT)}
            if new and {path.name for path in self.directory.iterdir()} <= own:
                shutil.rmtree(self.directory)
            raise

    def begin(self, config: ConfigDict) -> None:
        """Keeps the config, or holds it against the one that is there.

        A directory without a checkpoint holds nothing that could be lost: a start that
        failed there, on a mistyped path say, does not stand in the way of the next.

        Raises:
            ValueError: the directory holds a run of another config, or something else.
        """
        path = self.directory / "config.json"
        if not path.exists():
            if self.directory.exists() and not self.directory.is_dir():
                raise ValueError(f"--workdir={self.directory} is a file, not a folder")
            if self.checkpoints.exists():
                raise ValueError(
                    f"{self.directory} holds checkpoints but no config.json: it is not "
                    f"a whole run; name another --workdir"
                )
        else:
            found = configs.difference(configs.load(path), config, harmless=FREE)
            saved = self.checkpoints.is_dir() and any(
                path.name.isdigit() for path in self.checkpoints.iterdir()
            )
            if not saved:  # nor are its words kept: the texts may have been mended
                for kind in KEPT:
                    (self.directory / kind.file).unlink(missing_ok=True)
            elif found:
                further = ""
                if any(line.startswith("steps:") for line in found):
                    # Its learning rate fell to 0 by its last step.
                    further = (
                        f" that begins with what this one has learnt: "
                        f"--config.init.run={self.directory}"
                    )
                raise ValueError(
                    f"{self.directory} holds a run of another config (there, here): "
                    f"{'; '.join(found[:8])}{' ...' if len(found) > 8 else ''}. Give "
                    f"the same config to go on, or another --workdir{further}"
                )
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            configs.save(config, path)
        except OSError as error:
            raise ValueError(
                f"--workdir={self.directory} cannot be written ({error.strerror}): "
                f"name another folder"
            ) from error

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes from training in this directory meanwhile.

        Raises:
            ValueError: another one does.
        """
        with open(self.directory / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"--workdir={self.directory} is being trained in by another "
                    f"process: wait for it, stop it, or name another --workdir"
                ) from None
            yield

    @classmethod
    def open(cls, directory: str, option: str = "--run") -> "Run":
        """A run that exists; `option` is what it was named with."""
        if not directory:
            raise ValueError(f"{option}= is empty: name the directory of a run")
        run = cls(Path(directory))
        if not run.directory.is_dir():
            raise ValueError(f"{option}={directory}: there is no such folder")
        if not (run.directory / "config.json").exists():
            raise ValueError(
                f"{option}={directory} holds no config.json; name the --workdir of a "
                f"run"
            )
        return run

    def tokenizer(self, config: ConfigDict, source: Source | None = None) -> Any:
        """The run's tokenizer; with a source, trained and kept if it is not there yet.

        Raises:
            ValueError: it is not the one that the checkpoints were made with.
        """
        kind = configs.build(config.tokenizer)
        if source is None:
            held = kind.load(self.directory)
        else:
            held = tokenizers.prepare(kind, source, self.directory)
        if held.size > (room := config.model.embed.vocabulary):
            raise ValueError(
                f"model.embed.vocabulary={room} has no room for the {held.size} words "
                f"of the tokenizer; raise it to at least {held.size}"
            )
        with self.store() as store:
            step = store.latest()
            about = None if step is None else store.about(step)
        if about is not None:
            tokenizers.check(
                held, about["tokenizer"], checkpoint=str(self.checkpoints / str(step))
            )
        return held

    def store(self) -> Store:
        """The run's checkpoints, to be read."""
        return Store(self.checkpoints)

    def about(self, config: ConfigDict, tokenizer: Any) -> dict[str, Any]:
        """What is kept beside the state in every checkpoint.

        A converted encoder has no tokenizer.
        """
        return {
            "config": json.loads(configs.dumps(config)),
            "tokenizer": None if tokenizer is None else tokenizer.fingerprint,
        }

    def parameters(self, mesh: Mesh | None, below: str = "") -> tuple[int, Any]:
        """Step and parameters of the newest checkpoint, on a mesh or (None) the host.

        Where the run keeps an average of its parameters, that is what is returned. Of
        those `below` a name, such as `encoder`, no others are read.
        """
        with self.store() as store:
            step = store.latest()
            if step is None:
                raise ValueError(
                    f"{self.checkpoints} holds no finished checkpoint; train first"
                )
            part = "average" if "average" in store.parts(step) else "params"
            name = f"{part}/{below}" if below else part
            return step, store.restore_part(step, name, mesh)

    def keep_scores(self, scores: dict[str, dict[str, float]]) -> None:
        """Writes what each split scored."""
        write(self.scores, f"{json.dumps(scores, indent=1)}\n".encode())

    def keep_predictions(self, split: str, rows: list[dict[str, Any]]) -> None:
        """Writes what was said of each picture of a split."""
        path = self.directory / "predictions" / f"{split}.jsonl"
        write(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
