"""What a run tells while it goes: files for programs, one live line for people.

    with Log("runs/scenes", steps=2000, done=0) as log:
        log.step(1, {"loss": 6.24, "grad_norm": 1.5}, images=64, seconds=0.1, waited=0)

    runs/scenes/metrics.jsonl   {"step": 1, "loss": 6.24, "grad_norm": 1.5, ...}
    standard error              step 1/2000   0 %   loss 6.240   640 images/s   ...

A number is written as Python's `repr` gives it, so reading it back gives the same
float; a number that is not finite, which JSON cannot say, is written as null. A line is
handed to the system as soon as it is written: a killed run loses at most half a line.
"""

import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

import rich.console
import rich.progress
import tensorboardX

from git_jax.file import write

RECENT = 50  # steps that the line's loss, speed and share of waiting are means over
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
COMPILES = "compiling the step ..."
PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal


class Log:
    """Writes the metrics and samples of one run, and shows its progress.

    Args:
      directory: the run's; made if missing.
      steps: steps the whole run has.
      done: steps already taken, as the restored checkpoint counts them. Rows of later
        steps are dropped from the files: a run that was killed wrote them, and they are
        about to be taken again. 0 begins the files anew.
      devices: what the run computes on, such as "8 x TPU v5 lite", for the page.
      main: whether this process writes and shows at all; one of all hosts does.
      stream: where the progress goes; standard error by default. A terminal gets one
        line, redrawn; anything else a new line every ten seconds.

    Raises:
      ValueError: a file of the run holds a line, other than its last, that is no JSON.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        steps: int,
        done: int = 0,
        devices: str | None = None,
        main: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self._main = main
        if not main:
            return
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        if done < steps:
            _describe(directory / "environment.json", devices)
        self._metrics = _append(directory / "metrics.jsonl", done)
        self._samples = _append(directory / "samples.jsonl", done)
        self._board = tensorboardX.SummaryWriter(
            str(directory / "tensorboard"),
            purge_step=done + 1,
            write_to_disk=done < steps,  # a finished run has nothing to add
        )
        self._pace = _Pace(steps)
        stream = sys.stderr if stream is None else stream
        self._line: _Line = (
            _LiveLine(stream, steps, done) if stream.isatty() else _PlainLine(stream)
        )
        if done < steps:
            if done:
                self.message(f"going on from step {done}")
            self._line.compile()

    def step(
        self,
        step: int,
        metrics: Mapping[str, Any],
        *,
        images: int,
        seconds: float,
        waited: float,
    ) -> None:
        """Writes the row of one step and moves the line.

        Args:
          step: its number, the first being 1.
          metrics: `loss` and whatever else was measured: numbers, or mappings of
            numbers such as `{"bad_records": {"truncated image": 3}}`.
          images: pictures in the step, over all hosts.
          seconds: how long the step took.
          waited: how many of these seconds it waited for data.

        The row holds the metrics, `seconds`, `waited` and `images_per_second`.
        """
        if not self._main:
            return
        speed = {
            "images_per_second": images / seconds if seconds > 0 else math.inf,
            "seconds": seconds,
            "waited": waited,
        }
        row = _plain({"step": step, **metrics, **speed})
        _write(self._metrics, row)
        for name, value in _numbers(row):
            if name != "step":
                self._board.add_scalar(name, value, step)
        self._pace.add(step, float(metrics["loss"]), images, seconds, waited)
        self._line.show(self._pace)

    def sample(
        self,
        step: int,
        *,
        id: str,
        caption: str,
        reference: str,
        picture: str | None = None,
    ) -> None:
        """Writes what the model said of one held-out picture after `step` steps.

        `picture` is a `data:` URI as `git_jax.report.data_uri` makes it. The page shows
        the samples of one `id` together, so one picture a run is enough for each.
        """
        if self._main:
            row: dict[str, Any] = {"step": step, "id": id}
            row |= {"caption": caption, "reference": reference}
            if picture is not None:
                row["picture"] = picture
            _write(self._samples, row)

    def message(self, text: str) -> None:
        """Shows a text above the line, which stays whole."""
        if self._main:
            self._line.message(text)

    def count(self, name: str, done: int, total: int) -> None:
        """Shows on a terminal how many pictures of what are done."""
        if self._main:
            self._line.count(name, done, total)

    def close(self) -> None:
        """Leaves the last state of the line on the screen and closes the files."""
        if not self._main:
            return
        self._line.close(self._pace)
        self._board.close()
        self._metrics.close()
        self._samples.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, one by one; none if there is no such file.

    A last line that is torn, as a kill leaves it, is passed over.

    Raises:
      ValueError: another line is no JSON object.
    """
    if not path.exists():
        return
    with open(path, "rb") as file:
        lines = enumerate(file, start=1)
        for number, line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                yield row
            elif next(lines, None) is not None:
                raise ValueError(
                    f"{path}, line {number}: {line[:80]!r} is no JSON object; delete "
                    "the line, or train in another workdir"
                )


def _append(path: Path, done: int) -> TextIO:
    """Opens a file of rows for more, without the rows of steps after `done`."""
    kept = path.with_suffix(".kept")
    with open(kept, "w", encoding="utf-8") as file:
        for row in rows(path) if done else ():
            if row["step"] <= done:
                _write(file, row)
        os.fsync(file.fileno())
    os.replace(kept, path)  # whole or not at all, if this is killed too
    return open(path, "a", encoding="utf-8")


def _write(file: TextIO, row: Mapping[str, Any]) -> None:
    """Hands a row to the system: what is written outlives this process."""
    file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    file.flush()


def _describe(path: Path, devices: str | None) -> None:
    """Writes where and with what a run was started: the page's last table."""
    facts = {
        "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "system": f"{platform.platform()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    if devices is not None:
        facts = {"devices": devices, **facts}
    write(path, f"{json.dumps(facts, indent=2)}\n".encode())


def _plain(value: Any) -> Any:
    """The same value of Python's own types: what JSON can write, NaN being None."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, int):
        return value
    number = float(value)  # numpy's and jax's scalars among others
    return number if math.isfinite(number) else None


def _numbers(row: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """{"bad": {"cut": 3}, "loss": None} -> ("bad/cut", 3)."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{above}{name}/")
        elif value is not None:
            yield f"{above}{name}", value


class _Pace:
    """The last steps, and what the line says of them."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.step: int | None = None
        self._recent: deque[tuple[float, float, float, float]] = deque(maxlen=RECENT)
        self._first: tuple[float, int] | None = None

    def add(
        self, step: int, loss: float, images: float, seconds: float, waited: float
    ) -> None:
        self.step = step
        if self._first is None:  # it compiled the step, so the clock starts after it
            self._first = time.monotonic(), step
        self._recent.append((loss, images, seconds, waited))

    def words(self) -> str:
        """`loss 1.234   812 images/s   data 2 %   3:20 left`."""
        columns = zip(*self._recent, strict=True)
        loss, images, seconds, waited = (float(sum(column)) for column in columns)
        seconds = max(seconds, 1e-9)  # a clock may not have moved
        return "   ".join(
            (
                f"loss {loss / len(self._recent):.3f}",
                f"{images / seconds:,.0f} images/s",
                f"data {waited / seconds:.0%}".replace("%", " %"),
                self._left(),
            )
        )

    def _left(self) -> str:
        assert self._first is not None and self.step is not None
        start, first = self._first
        taken = self.step - first
        if self.step == self.steps:
            return "done"
        if not taken:
            return "-:-- left"
        # Saving and evaluating are part of the way, so they count.
        each = (time.monotonic() - start) / taken
        return f"{clock(each * (self.steps - self.step))} left"


def clock(seconds: float) -> str:
    """200 -> 3:20, 3725 -> 1:02:05, 100000 -> 1 d 3:46:40."""
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{minutes}:{rest:02}"
    if hours or days:
        text = f"{hours}:{minutes:02}:{rest:02}"
    return f"{days} d {text}" if days else text


def _print(console: rich.console.Console, text: str) -> None:
    """A text as it is, on one line however narrow the terminal."""
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


class Tally:
    """Where there is no run to log: messages, and on a terminal what is done of all.

        with Tally() as tally:
            tally.count("test", 300, 1000)
            tally.message("test: CIDEr 2.195")

    Args:
      stream: standard error by default. The count is one line, gone at the end, and
        anything but a terminal gets the messages alone.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        stream = sys.stderr if stream is None else stream
        self._progress = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.MofNCompleteColumn(),
            rich.progress.BarColumn(bar_width=None),
            console=rich.console.Console(file=stream),
            redirect_stdout=False,  # standard output belongs to programs
            transient=True,
            disable=not stream.isatty(),
        )
        self._task = self._progress.add_task("", total=None, visible=False)

    def count(self, name: str, done: int, total: int) -> None:
        """Shows how many pictures of what are done."""
        self._progress.update(
            self._task,
            description=name,
            completed=done,
            total=total,
            visible=True,
            refresh=True,
        )

    def message(self, text: str) -> None:
        """Shows a text above the count."""
        _print(self._progress.console, text)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()


class _Line(Protocol):
    def show(self, pace: _Pace) -> None: ...
    def message(self, text: str) -> None: ...
    def compile(self) -> None: ...
    def count(self, name: str, done: int, total: int) -> None: ...
    def close(self, pace: _Pace) -> None: ...


class _PlainLine:
    """For a pipe or a file: a line now and then, each one whole."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: tuple[float, int] | None = None  # when, which step

    def show(self, pace: _Pace) -> None:
        now = time.monotonic()
        if self._shown is None or now - self._shown[0] >= PLAIN_EVERY:
            self._print(pace, now)

    def message(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def compile(self) -> None:
        self.message(COMPILES)

    def count(self, name: str, done: int, total: int) -> None:
        """Nothing: what was counted is told when it is done."""

    def close(self, pace: _Pace) -> None:
        if self._shown is not None and self._shown[1] != pace.step:
            self._print(pace, time.monotonic())

    def _print(self, pace: _Pace, now: float) -> None:
        assert pace.step is not None
        percent = 100 * pace.step // pace.steps
        step = f"{pace.step:{len(str(pace.steps))}}/{pace.steps}"
        self.message(f"step {step}   {percent:3} %   {pace.words()}")
        self._shown = now, pace.step


class _LiveLine:
    """For a terminal: one line with a bar, redrawn in place."""

    def __init__(self, stream: TextIO, steps: int, done: int) -> None:
        self._progress = rich.progress.Progress(
            rich.progress.TextColumn("step"),
            rich.progress.MofNCompleteColumn(),
            rich.progress.BarColumn(bar_width=None),
            rich.progress.TextColumn("{task.description}"),
            console=rich.console.Console(file=stream),
            redirect_stdout=False,  # standard output belongs to programs
            refresh_per_second=4,
            expand=True,
        )
        self._task = self._progress.add_task("done", total=steps, completed=done)
        self._progress.start()

    def show(self, pace: _Pace) -> None:
        self._progress.update(self._task, completed=pace.step, description=pace.words())

    def message(self, text: str) -> None:
        _print(self._progress.console, text)

    def compile(self) -> None:
        self._progress.update(self._task, description=COMPILES, refresh=True)

    def count(self, name: str, done: int, total: int) -> None:
        words = f"{name}: {done:,}/{total:,} pictures"
        self._progress.update(self._task, description=words, refresh=True)

    def close(self, pace: _Pace) -> None:
        if pace.step is not None:
            self.show(pace)
        self._progress.stop()
