"""Captions for pictures and clips, and answers to questions about them.

    python -m git_jax.caption --run=DIR a.jpg b.png
    python -m git_jax.caption --checkpoint=DIR --json --beams=1 photos/*.jpg
    python -m git_jax.caption --checkpoint=DIR --question="what is it" a.jpg
    python -m git_jax.caption --checkpoint=DIR folder_of_frames

The first prints `a.jpg: a cat on a mat`, a line a file; `--json` prints a list of
{"file", "caption", "tokens", "score"}. `--checkpoint` is a directory of transformers'
`GitForCausalLM`, or one that git_jax.convert made. To a model of clips a folder is one
clip, its pictures the frames in the order of their names, and so are all files together
with `--video`, those in folders too. Every file is read before the first caption is
written: where one cannot be, all that cannot are named and nothing is printed.

Texts are searched for as the run, or the checkpoint, is evaluated; flags change what
they name of that search and leave the rest. Where it is `Sample`, texts are drawn here
too: the k-th file's follows from `--config.seed` and k, not from `--batch`; `--beams=1`
is the way to the likeliest instead.
"""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from PIL import Image

from git_jax import command, sharding
from git_jax.config import build
from git_jax.convert import source
from git_jax.convert.hub import local
from git_jax.data import clip, image
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


@dataclass(frozen=True)
class Clip:
    """What one caption is about: a picture, or the frames of a clip in their order."""

    name: str
    files: tuple[str, ...]


def clips(arguments: Sequence[str], frames: int, *, video: bool) -> list[Clip]:
    """What the arguments name, to a model of clips of up to `frames` frames.

    Raises:
        ValueError: a clip where the model sees pictures, or a folder without any.
    """
    files = [_files(argument) for argument in arguments]
    if video:
        found = [Clip(" ".join(arguments), tuple(chain.from_iterable(files)))]
    else:
        found = [Clip(*each) for each in zip(arguments, files, strict=True)]
    for each in found:
        if frames == 1 and (video or each.files != (each.name,)):
            raise ValueError(
                f"{each.name} is a clip of {len(each.files)} frames, and the model "
                f"sees pictures (model.frames=1): name pictures, or take a model of "
                f"clips"
            )
    return found


def _files(argument: str) -> tuple[str, ...]:
    """The file that is named, or the pictures in the folder."""
    path = Path(argument)
    if not path.is_dir():
        return (argument,)
    known = Image.registered_extensions()
    inside = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in known)
    if not inside:
        raise ValueError(f"{argument} is a folder without pictures; it is no clip")
    return tuple(inside)


def captions(
    trained: Trained,
    given: Sequence[Clip],
    search: Search,
    batch: int,
    *,
    question: str | None = None,
) -> Iterator[Captioned]:
    """What a model says of each clip, in their order, `batch` of them at a time.

    Raises:
        ValueError: texts that are too long for the model, or naming every file that
            cannot be read; before the first caption.
    """
    model, loader = build(trained.config.model), build(trained.config.loader)
    asked = trained.tokenizer.encode(question) if question is not None else []
    _require_room(len(asked), search.max_tokens, model.embed.positions)
    prefix = [trained.tokenizer.bos, *asked]
    pictures = read(given, loader, model.frames)
    params = trained.parameters()
    write = Writer(
        model, search, trained.tokenizer, trained.mesh, seed=trained.config.seed
    )
    # Pictures of one size are read together: with their aspect kept, sizes differ.
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, squares in enumerate(pictures):
        sizes.setdefault(squares.shape[1:], []).append(place)
    said: dict[int, Captioned] = {}
    for places in sizes.values():
        rows = min(batch, len(places))
        for start in range(0, len(places), rows):
            part = places[start : start + rows]
            # The last batch is filled up: one of another shape would be compiled anew.
            filled = part + part[-1:] * (rows - len(part))
            arrays = {
                "tokens": np.tile(np.array(prefix, np.int32), (rows, 1)),
                "prefix_length": np.full(rows, len(prefix), np.int32),
                "index": np.array(filled, np.int32),
                **_frames([pictures[place] for place in filled], model.frames),
            }
            texts = write(params, arrays)
            for place, text in zip(part, texts, strict=False):
                name = given[place].name
                said[place] = Captioned(name, text.text, text.tokens, text.score)
            if len(sizes) == 1:
                yield from (said.pop(place) for place in part)
    yield from (said[place] for place in sorted(said))


def _require_room(question: int, answer: int, positions: int) -> None:
    """ValueError where a model cannot read a question and write an answer, in tokens.

    The begin token is fed too, the last token of an answer is not.
    """
    if answer > positions:
        raise ValueError(
            f"a text of {answer} tokens does not fit the model's {positions} "
            f"positions: add --max_tokens={positions} or less"
        )
    if question + answer > positions:
        room, left = positions - answer, positions - question
        ways = [f"shorten it to {room}"] if room else []
        ways += [f"add --max_tokens={left} or less"] if left > 0 else []
        raise ValueError(
            f"--question has {question} tokens; before an answer of {answer}, the "
            f"model's {positions} positions hold {room}: "
            + (", or ".join(ways) or "shorten it, and lower --max_tokens")
        )


def _frames(pictures: Sequence[np.ndarray], frames: int) -> dict[str, np.ndarray]:
    """Clips [f h w 3] of up to `frames` frames as a batch has them."""
    shape = (len(pictures), frames, *pictures[0].shape[1:])
    arrays = {"frames": np.zeros(shape, np.uint8)}
    if frames > 1:
        arrays["frame_valid"] = np.zeros(shape[:2], bool)
    for row, squares in enumerate(pictures):
        clip.put(arrays, row, list(squares))
    return arrays


def read(given: Sequence[Clip], loader: Loader, frames: int) -> list[np.ndarray]:
    """What the model sees of each clip, u8 [f h w 3], at most `frames` frames.

    Raises:
        ValueError: naming every file that cannot be read.
    """

    def decoded(file: str) -> np.ndarray | str:
        try:
            return image.decode(file, pixels=loader.pixels)
        except image.BadPicture as error:
            missing = error.reason == "missing file"  # then the detail names the file
            return error.detail if missing else f"{file}: {error}"

    def seen(each: Clip) -> np.ndarray | list[str]:
        found = [decoded(file) for file in clip.sampled(each.files, frames)]
        if faults := [fault for fault in found if isinstance(fault, str)]:
            return faults
        pictures = [frame for frame in found if not isinstance(frame, str)]
        try:
            return np.stack(loader.image.video(pictures, None))
        except image.BadPicture as error:
            return [f"{each.name}: {error}"]

    with ThreadPoolExecutor() as threads:
        found = list(threads.map(seen, given))
    faults = [fault for each in found if isinstance(each, list) for fault in each]
    if faults:
        count = sum(min(len(each.files), frames) for each in given)
        raise ValueError(
            f"{len(faults)} of {count} files cannot be read, so nothing was "
            f"captioned; leave out or mend\n  " + "\n  ".join(faults)
        )
    return [squares for squares in found if not isinstance(squares, list)]


def opened(given: Any, options: command.Command) -> Trained:
    """The model that the flags name.

    Raises:
        ValueError: they name none or two, or there is no such model.
    """
    if bool(given.run) == bool(given.checkpoint):
        raise ValueError(
            "name a model: --run=DIR, the directory of a run, or --checkpoint=DIR, one "
            "of transformers or one that git_jax.convert made"
        )
    if given.run:
        return Trained.open(given.run, options)
    directory = local(given.checkpoint, "--checkpoint")
    if source.is_run(directory):
        return Trained.open(str(directory), options, "--checkpoint")
    found = source.read(directory)
    tokenizer = found.tokenizer
    if tokenizer is None:
        raise ValueError(
            f"--checkpoint={given.checkpoint} is an encoder: it has no text"
        )

    def load(mesh: Mesh) -> Any:
        return jax.device_put(found.params, sharding.parameters(found.params, mesh))

    where = f"--checkpoint={given.checkpoint}"
    return Trained.of(found.config, lambda _: tokenizer, load, options, where)


def search_of(
    own: Search,
    *,
    beams: int | None = None,
    max_tokens: int | None = None,
    normalise: str | None = None,
    repeat: bool | None = None,
) -> Search:
    """The search that the flags ask for; what they leave open is the model's own.

    Raises:
        ValueError: a flag of beams without them, or of greedy search with them.
    """
    kind = type(own) if beams is None else Greedy if beams == 1 else Beam
    if normalise is not None and kind is not Beam:
        raise ValueError(
            f"--normalise={normalise} says how beams compare, and this search has "
            f"none: add --beams=4, or leave it out"
        )
    if repeat is not None and kind is not Greedy:
        raise ValueError(
            f"--{'' if repeat else 'no'}repeat is a rule of greedy search: add "
            f"--beams=1, or leave it out"
        )
    found: Any = own if isinstance(own, kind) else kind()
    given: dict[str, Any] = {
        "beams": beams if kind is Beam else None,
        "max_tokens": own.max_tokens if max_tokens is None else max_tokens,
        "normalise": normalise,
        "repeat": repeat,
    }
    if kind is Beam and normalise not in (None, found.normalise):
        # An exponent belongs to the formula that it was chosen for.
        found = replace(found, penalty=None)
    return replace(found, **{k: v for k, v in given.items() if v is not None})


def define() -> None:
    flags.DEFINE_string("run", None, "A run's directory: its newest checkpoint.")
    flags.DEFINE_string(
        "checkpoint",
        None,
        "A directory of GitForCausalLM, or of git_jax.convert, or a name of the hub.",
    )
    flags.DEFINE_string(
        "question", None, "A question to answer about each picture, the answer alone."
    )
    flags.DEFINE_bool(
        "video", False, "All files, those in folders too, are the frames of one clip."
    )
    flags.DEFINE_bool("json", False, "Print a JSON list instead of lines.")
    flags.DEFINE_integer(
        "beams",
        None,
        "Beams of the search; 1 is greedy search, whose score is the mean log-"
        "probability of a token. Unless given, the search is the one that the run or "
        "the checkpoint is evaluated with.",
    )
    flags.DEFINE_integer(
        "max_tokens",
        None,
        "Generated tokens at most, the end token counted. Unless given, as in "
        "evaluation.",
    )
    flags.DEFINE_enum(
        "normalise",
        None,
        ["gnmt", "huggingface"],
        "How beams of unequal length compare: by ((5 + length) / 6) ** penalty, as the "
        "released GIT, or by length ** penalty. Unless given, as in evaluation. The "
        "penalty is evaluation's where it names one for that formula, else 0.6 and "
        "1.0.",
    )
    flags.DEFINE_bool(
        "repeat",
        None,
        "Whether greedy search may write a token twice in a row; --norepeat is the "
        "original release's rule. Unless given, as in evaluation, else it may.",
    )
    flags.DEFINE_integer(
        "batch", None, "Pictures at a time. Unless given, as in evaluation."
    )
    # Flags may follow files.
    flags.FLAGS.set_gnu_getopt()


def main(options: command.Command) -> None:
    """The command."""
    given, files = options.flags, options.arguments
    if not files:
        raise ValueError("no picture is named: add files, such as a.jpg b.png")
    trained = opened(given, options)
    settings = build(trained.config.evaluate)
    search = search_of(
        settings.search,
        beams=given.beams,
        max_tokens=given.max_tokens,
        normalise=given.normalise,
        repeat=given.repeat,
    )
    batch = settings.batch if given.batch is None else given.batch
    if batch < 1:
        raise ValueError(f"--batch={batch} must be at least 1")
    named = clips(files, trained.config.model.frames, video=given.video)
    # A file's name need not be UTF-8.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    found = captions(trained, named, search, batch, question=given.question)
    if given.json:
        print(json.dumps([asdict(each) for each in found], indent=1))
        return
    for each in found:
        print(f"{each.file}: {' '.join(each.caption.split())}", flush=True)


if __name__ == "__main__":
    command.run(main, define)
