"""Runs as a scheduler sees them: processes of their own, killed, stopped, gone on.

The laws of one step are in test_train.py. Here a run is killed where nobody expects it,
then asked to stop, then finished, and is held against one that nothing happened to.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from git_jax.run import Run
from git_jax.train import Program, Trainer
from tests import tiny

ROOT = Path(__file__).parents[1]
STEPS = tiny.scenes().steps


def start(module, *arguments):
    """A process on one device."""
    flags = os.environ["XLA_FLAGS"].split()
    one = [flag for flag in flags if "device_count" not in flag]
    return subprocess.Popen(
        [sys.executable, "-m", f"git_jax.{module}", *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": " ".join(one)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Its exit code and what it wrote."""
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def train(directory):
    often = "--config.evaluate.every=6"  # samples at steps that are saved as well
    return start(
        "train", "--config=tests/tiny.py:scenes", often, f"--workdir={directory}"
    )


def stop(process, directory, number, after):
    """Sends a signal as soon as the step `after` is written down."""
    path = directory / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= after:
            process.send_signal(number)
            break
        time.sleep(0.001)
    return finish(process)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def checkpoints(directory):
    names = [path.name for path in (directory / "checkpoints").iterdir()]
    return sorted(int(name) for name in names if name.isdigit())


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(directory):
    """A run that nothing happened to."""
    code, out, err = finish(train(directory / "whole"))
    assert code == 0, err
    assert out == ""  # standard output belongs to programs
    return directory / "whole"


@pytest.fixture(scope="module")
def broken(directory, whole):
    """A run that was killed, then asked to stop, then left alone."""
    rng, path = random.Random(20), directory / "broken"
    code, _, err = stop(train(path), path, signal.SIGKILL, rng.randrange(4, STEPS // 2))
    assert code == -signal.SIGKILL, err
    killed = len((path / "metrics.jsonl").read_text().splitlines())
    assert killed < STEPS and not (path / "scores.json").exists()
    after = rng.randrange(killed + 1, STEPS - 3)
    code, _, err = stop(train(path), path, signal.SIGTERM, after)
    assert code == 128 + signal.SIGTERM, err
    stopped = checkpoints(path)[-1]
    assert after <= stopped < STEPS
    assert f"stopped by SIGTERM; step {stopped} is saved" in err
    assert rows(path / "metrics.jsonl")[-1]["step"] == stopped
    code, _, err = finish(train(path))
    assert code == 0, err
    return path


def test_two_processes_do_not_train_in_one_directory(tmp_path):
    run = Run(tmp_path)
    with run.alone():
        with pytest.raises(ValueError, match=f"--workdir={tmp_path} is being trained"):
            with run.alone():
                pass
    with run.alone():
        pass


def state_of(directory):
    config = tiny.scenes()
    batch = tiny.batches(config, Run(directory).tokenizer(config), 1)[0]
    trainer = Trainer.on(Program.of(config), tiny.Alone().mesh(), batch)
    with Run(directory).store() as store:
        assert store.latest() == STEPS
        return jax.device_get(store.restore(STEPS, trainer.like()))


def test_a_run_that_was_killed_and_stopped_ends_to_the_bit_as_one_that_was_not(
    whole, broken
):
    states = [state_of(path) for path in (whole, broken)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)
    assert states[0].step == STEPS and states[0].average is not None
    lines = [rows(path / "metrics.jsonl") for path in (whole, broken)]
    for a, b in zip(*lines, strict=True):
        for name in ("step", "loss", "gradient_norm", "caption_accuracy"):
            assert a[name] == b[name]
    assert [line["step"] for line in lines[0]] == list(range(1, STEPS + 1))
    for name in ("tokenizer.model", "config.json", "scores.json", "samples.jsonl"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def test_the_newest_checkpoints_are_kept(whole, broken):
    assert checkpoints(whole) == checkpoints(broken) == [STEPS - 3, STEPS]


def test_a_run_is_rebuilt_from_its_directory_alone(whole, tmp_path):
    """Moved, and scored by a fresh process that is given nothing else."""
    scores = json.loads((whole / "scores.json").read_text())
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("config.json", "tokenizer.model", "checkpoints"):
        (moved / name).symlink_to(whole / name)
    code, out, err = finish(start("evaluate", f"--run={moved}"))
    assert code == 0, err
    assert json.loads(out) == scores == json.loads((moved / "scores.json").read_text())
    assert scores["train"]["examples"] == 24
    assert {"CIDEr", "CIDEr_constant", "CIDEr_shuffled", "BLEU_4", "ROUGE_L"} <= set(
        scores["train"]
    )


def test_what_a_user_can_mend_is_one_line_and_no_trace(whole):
    process = start(
        "train",
        "--config=tests/tiny.py:scenes",
        "--config.optimizer.peak=0.5",
        f"--workdir={whole}",
    )
    code, out, err = finish(process)
    assert (code, out) == (1, "")
    error = err.splitlines()[-1]
    assert error.startswith("error: ") and "optimizer.peak: 0.003 -> 0.5" in error
    assert "Traceback" not in err
