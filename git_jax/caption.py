"""Captions for picture files, from a run.

    python -m git_jax.caption --run=DIR a.jpg b.png
    python -m git_jax.caption --run=DIR --json --beams=1 photos/*.jpg

The first prints `a.jpg: a cat on a mat`, a line a file; the second prints a JSON list
of {"file", "caption", "tokens", "score"}. Every file is read before the first caption
is written: where one cannot be, all that cannot are named and nothing is printed.
"""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from absl import flags

from git_jax import command
from git_jax.config import build
from git_jax.data import image
from git_jax.data.pipeline import Loader
from git_jax.decode.beam import Beam
from git_jax.decode.search import Greedy, Search
from git_jax.trained import Trained
from git_jax.writer import Writer


@dataclass(frozen=True)
class Captioned:
    """What a model says of a file.

    tokens   the generated ids, without begin, end and padding
    score    what the search ranks by, see `Beam` and `Greedy`
    """

    file: str
    caption: str
    tokens: list[int]
    score: float


def captions(
    trained: Trained, files: Sequence[str], search: Search, batch: int
) -> Iterator[Captioned]:
    """What a run says of each file, in their order, `batch` of them at a time.

    Raises:
        ValueError: naming every file that cannot be read, before the first caption.
    """
    pictures = read(files, build(trained.config.loader))
    model, params = build(trained.config.model), trained.parameters()
    write = Writer(
        model, search, trained.tokenizer, trained.mesh, seed=trained.config.seed
    )
    rows = min(batch, len(files))
    prefix = np.full((rows, 1), trained.tokenizer.bos, np.int32)
    for start in range(0, len(files), rows):
        part = pictures[start : start + rows]
        # The last batch is filled up: a batch of another shape would be compiled anew.
        filled = np.stack(part + part[-1:] * (rows - len(part)))
        arrays = {
            "frames": filled[:, None],
            "tokens": prefix,
            "prefix_length": np.ones(rows, np.int32),
            "index": np.arange(start, start + rows, dtype=np.int32),
        }
        texts = write(params, arrays)
        for file, text in zip(files[start:], texts[: len(part)], strict=False):
            yield Captioned(file, text.text, text.tokens, text.score)


def read(files: Sequence[str], loader: Loader) -> list[np.ndarray]:
    """The squares that the model sees of each file, u8 [h w 3].

    Raises:
        ValueError: naming every file that cannot be read.
    """

    def square(file: str) -> np.ndarray | str:
        try:
            picture = image.decode(file, pixels=loader.pixels)
        except image.BadPicture as error:
            missing = error.reason == "missing file"  # then the detail names the file
            return error.detail if missing else f"{file}: {error}"
        return loader.image.video([picture], None)[0]

    with ThreadPoolExecutor() as threads:
        found = list(threads.map(square, files))
    faults = [fault for fault in found if isinstance(fault, str)]
    if faults:
        raise ValueError(
            f"{len(faults)} of {len(files)} files cannot be read, so nothing was "
            f"captioned; leave out or mend\n  " + "\n  ".join(faults)
        )
    return [picture for picture in found if not isinstance(picture, str)]


def search_of(
    run: Search, *, beams: int, max_tokens: int | None, normalise: Any
) -> Search:
    """The search that the flags ask for; what they leave open is the run's own."""
    longest = run.max_tokens if max_tokens is None else max_tokens
    if beams == 1:
        return Greedy(longest)
    # An exponent belongs to the formula that it was chosen for.
    same = isinstance(run, Beam) and run.normalise == normalise
    penalty = run.penalty if isinstance(run, Beam) and same else None
    return Beam(beams, longest, normalise, penalty)


def define() -> None:
    flags.DEFINE_string("run", None, "A run's directory: its newest checkpoint.")
    flags.DEFINE_bool("json", False, "Print a JSON list instead of lines.")
    flags.DEFINE_integer(
        "beams",
        4,
        "Beams of the search. 1 is greedy search, whose score is the mean log-"
        "probability of a token.",
    )
    flags.DEFINE_integer(
        "max_tokens",
        None,
        "Generated tokens at most, the end token counted. Unless given, as many as the "
        "run is evaluated with.",
    )
    flags.DEFINE_enum(
        "normalise",
        "gnmt",
        ["gnmt", "huggingface"],
        "How beams of unequal length compare: by ((5 + length) / 6) ** penalty, as the "
        "released GIT, or by length ** penalty; one beam has nothing to compare. The "
        "penalty is the run's own where it names one for that formula, else 0.6 and "
        "1.0.",
    )
    flags.DEFINE_integer(
        "batch", None, "Pictures at a time. Unless given, as the run is evaluated."
    )
    # Flags may follow files.
    flags.FLAGS.set_gnu_getopt()


def main(options: command.Command) -> None:
    """The command."""
    given, files = options.flags, options.arguments
    if not given.run:
        raise ValueError("--run is missing: name the directory of a run")
    if not files:
        raise ValueError("no picture is named: add files, such as a.jpg b.png")
    trained = Trained.open(given.run, options)
    settings = build(trained.config.evaluate)
    search = search_of(
        settings.search,
        beams=given.beams,
        max_tokens=given.max_tokens,
        normalise=given.normalise,
    )
    batch = settings.batch if given.batch is None else given.batch
    if batch < 1:
        raise ValueError(f"--batch={batch} must be at least 1")
    # A file's name need not be UTF-8.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    found = captions(trained, files, search, batch)
    if given.json:
        print(json.dumps([asdict(each) for each in found], indent=1))
        return
    for each in found:
        print(f"{each.file}: {' '.join(each.caption.split())}", flush=True)


if __name__ == "__main__":
    command.run(main, define)
