"""Records that could not be read: each is kept in a file, too many end the run."""

import json
import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from git_jax.file import write


class Bad(NamedTuple):
    """A record that could not be read and was replaced by another one."""

    id: str
    reason: str
    detail: str


class BadRecords:
    """Counts the records that were replaced and says when there are too many.

        bad = BadRecords(path, loader.bad_fraction, len(source))
        bad.resume(step, rows=step * batch)          # what earlier starts have counted
        told = bad.add(step, batch.bad, rows=batch)  # after each step

    Every one is a line of the file: {"step", "id", "reason", "detail"}. A run may go on
    while no more than `fraction` of the rows seen had to be replaced; at its beginning
    the share is taken of min(population, 10,000) rows, so that one bad record among the
    first ten ends nothing.
    """

    def __init__(
        self, path: str | os.PathLike[str], fraction: float, population: int
    ) -> None:
        self._path, self._fraction = pathlib.Path(path), fraction
        self._least = min(population, 10_000)
        self._bad, self._rows = list[Bad](), 0

    @property
    def counts(self) -> dict[str, int]:
        """How many were replaced so far, by reason."""
        return dict(Counter(bad.reason for bad in self._bad))

    def resume(self, step: int, rows: int) -> None:
        """Takes up the file as it was before `step`, when `rows` rows had been seen.

        Lines of later steps, which will be made again, are removed, and so is a last
        line that a kill left half written.
        """
        kept, self._bad, self._rows = [], [], rows
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        for line in lines:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if found["step"] < step:
                kept.append(line + b"\n")
                self._bad.append(Bad(found["id"], found["reason"], found["detail"]))
        if len(kept) < len(lines):
            write(self._path, b"".join(kept))

    def add(self, step: int, bad: Sequence[Bad], rows: int) -> str | None:
        """Counts what one batch of `rows` rows replaced. ValueError: it is too much.

        Returns what people are to be told: of the first record of a run, no more.
        """
        self._rows += rows
        if not bad:
            return None
        told = None if self._bad else self._first(bad[0])
        self._bad += bad
        lines = [json.dumps({"step": step, **one._asdict()}) + "\n" for one in bad]
        with open(self._path, "a", encoding="utf-8") as file:
            file.write("".join(lines))
        seen = max(self._rows, self._least)
        if len(self._bad) > self._fraction * seen:
            raise ValueError(
                f"{counted(len({one.id for one in self._bad}), 'record')} could not be "
                f"read, met {counted(len(self._bad), 'time')} in "
                f"{counted(self._rows, 'row')}, more than "
                f"--config.loader.bad_fraction={self._fraction} of "
                f"{counted(seen, 'row')}: {summary(self._bad)}. Repair or remove what "
                f"cannot be read (all is listed in {self._path}), or allow a larger "
                "fraction"
            )
        return told

    def _first(self, bad: Bad) -> str:
        return (
            f"{bad.id} cannot be read, so another record takes its place: {bad.reason}"
            f"{': ' if bad.detail else ''}{bad.detail} (the first of this run; all are "
            f"listed in {self._path})"
        )


def counted(number: int, noun: str) -> str:
    """1 record, 2 records, 1,000 records"""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def summary(bad: Sequence[Bad]) -> str:
    """2 x empty file (a.jpg, b.jpg; the first: ...); 1 x truncated image (c.png; ...)

    A record that was met several times counts once.
    """
    once = dict.fromkeys((one.id, one.reason) for one in bad)
    reasons = Counter(reason for _, reason in once).most_common()
    return "; ".join(
        f"{count} x {reason} ({_some(bad, reason)})" for reason, count in reasons
    )


def _some(bad: Sequence[Bad], reason: str) -> str:
    chosen = [one for one in bad if one.reason == reason]
    ids = list(dict.fromkeys(one.id for one in chosen))
    more = f", and {len(ids) - 3} more" if len(ids) > 3 else ""
    return ", ".join(ids[:3]) + more + f"; the first: {chosen[0].detail}"
