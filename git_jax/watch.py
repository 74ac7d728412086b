"""What a run is watched for while it goes: its metrics, and whether it has to stop.

A run stops for a loss that is no number, for too many bad records, and for a signal.
"""

import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from git_jax import checkpoint
from git_jax.data import pipeline
from git_jax.data.bad_records import BadRecords
from git_jax.file import write
from git_jax.log import Log
from git_jax.run import Run


@dataclass(frozen=True)
class Pending:
    """A step that was sent to the device and whose metrics are not here yet."""

    step: int
    metrics: dict[str, Array]
    batch: pipeline.Batch


class Watch:
    """Reads the metrics of a step when they come, and stops a run that went wrong."""

    def __init__(
        self,
        log: Log,
        bad: BadRecords,
        store: checkpoint.Store,
        batches: pipeline.Batches,
    ) -> None:
        self.log, self._bad, self._store, self._batches = log, bad, store, batches
        self.pending: Pending | None = None
        self.restart()

    def restart(self) -> None:
        """Begins to count the time of a step, and how much of it waits for data."""
        self._clock, self._waited = time.perf_counter(), self._batches.waited

    def settle(self) -> None:
        """Waits for the pending step, if there is one, and looks at what it gave.

        Raises:
            ValueError: loss or gradient is no number, or too many records are bad.
        """
        if self.pending is None:
            return
        pending, self.pending = self.pending, None
        metrics = jax.device_get(pending.metrics)
        clock, waited = self._clock, self._waited
        self.restart()
        rows = len(pending.batch.ids)
        try:
            told = self._bad.add(pending.step, pending.batch.bad, rows)
            if told is not None:
                self.log.message(told)
        finally:
            counts = self._bad.counts
            self.log.step(
                pending.step,
                metrics | ({"bad_records": counts} if counts else {}),
                images=rows * jax.process_count(),
                seconds=self._clock - clock,
                waited=self._waited - waited,
            )
        require_finite(pending, metrics, self._store)


def require_finite(
    pending: Pending, metrics: Mapping[str, Any], store: checkpoint.Store
) -> None:
    """Stops a run whose loss or gradient is no number, and says on which records."""
    wrong = [
        name
        for name in ("loss", "gradient_norm")
        if not np.isfinite(metrics[name]).all()
    ]
    if not wrong:
        return
    path = Run(store.directory.parent).not_finite
    values = {name: str(metrics[name]) for name in wrong}
    found = {"step": pending.step, **values, "records": pending.batch.ids}
    write(path, f"{json.dumps(found, indent=1)}\n".encode())
    store.wait()
    latest = store.latest()
    kept = "no checkpoint yet" if latest is None else f"the checkpoint of step {latest}"
    raise ValueError(
        f"step {pending.step}: {' and '.join(wrong)} is not finite. The records of its "
        f"batch are in {path}; {kept} is as it was. Look at these records, or go on "
        f"from here in another --workdir with --config.init.run={path.parent} and a "
        f"lower optimizer.peak or optimizer.clip"
    )


class Terminated(Exception):
    """The run was asked to stop by a signal and has saved its state."""

    def __init__(self, signal: signal.Signals, step: int) -> None:
        super().__init__(f"stopped by {signal.name}; step {step} is saved")
        self.signal = signal


class Termination:
    """Which signal asked to stop: a scheduler's SIGTERM or Ctrl-C, None where none did.

    A second Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None

    def __enter__(self) -> "Termination":
        caught = (signal.SIGTERM, signal.SIGINT)
        self._before = {one: signal.signal(one, self._ask) for one in caught}
        return self

    def _ask(self, number: int, _: Any) -> None:
        self.asked = signal.Signals(number)
        signal.signal(number, self._before[self.asked])

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
