"""A run that has learnt to tell four walls apart, for the tests that use a run.

It is made once, by the command that a user types, in a process with one device; its
config then says that it was made on eight, as those that a run is later used on differ.
"""

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from git_jax import config as configs
from git_jax.command import Command

ROOT = Path(__file__).parents[1]
COLOURS = {
    "red": (220, 30, 30),
    "green": (20, 160, 40),
    "blue": (30, 40, 200),
    "yellow": (230, 220, 40),
}
TEXT = 16
"""The model's longest text, with begin and end."""

CONFIG = {
    "steps": 60,
    "checkpoint.every": 60,
    "optimizer.peak": 1e-2,
    "optimizer.ema": None,
    "model.embed.dropout": 0,
    "model.embed.positions": TEXT,
    "model.decoder.dropout": 0,
    "loader.text": TEXT,
    "tokenizer.vocabulary": 290,
    "evaluate.search.max_tokens": TEXT - 1,
    "evaluate.batch": 4,
}


@functools.cache
def folder() -> Path:
    """Four pictures, red.png and so on, each with the caption `a red wall`."""
    path = Path(tempfile.mkdtemp(prefix="git_jax-walls-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    rows = []
    for name in COLOURS:
        wall(name).save(path / f"{name}.png")
        rows.append({"file_name": f"{name}.png", "text": f"a {name} wall"})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (path / "metadata.jsonl").write_text(lines)
    return path


def wall(name: str) -> Image.Image:
    """A picture that is of one colour but for a little noise."""
    noise = np.random.default_rng(len(name)).integers(-20, 20, (48, 40, 3))
    pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


@functools.cache
def run() -> Path:
    """The directory of the run."""
    path = folder() / "run"
    fields = [f"--config.{name}={value}" for name, value in CONFIG.items()]
    done = shell(
        "train",
        "--config=tests/tiny.py:folder",
        f"--config.data.path={folder()}",
        f"--workdir={path}",
        *fields,
    )
    assert done.returncode == 0, done.stderr
    kept = path / "config.json"
    config = configs.load(kept)
    with config.unlocked():
        config.mesh.update(data=2, fsdp=2, tensor=2)
    configs.save(config, kept)
    return path


def shell(
    module: str, *arguments: str | Path, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """`python -m git_jax.MODULE ARGUMENTS` as one device runs it."""
    flags = re.sub(r"\S*device_count=\d+", "", os.environ["XLA_FLAGS"])
    return subprocess.run(
        [sys.executable, "-m", f"git_jax.{module}", *map(str, arguments)],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def options(*arguments: str, **flags: Any) -> Command:
    """A command line as `command.parse` would give it: files, overrides, flags."""
    overrides = [a.removeprefix("--config.").split("=", 1) for a in arguments]
    return Command(
        flags=SimpleNamespace(config=None, **flags),  # type: ignore[arg-type]
        arguments=[],
        overrides=[(path, text) for path, text in overrides],
    )
