"""How a checkpoint of Hugging Face is to be searched, and how ours is told there.

    read(Path("git-base"), positions=1024)    spec(Beam, max_tokens=40)

`generation_config.json` holds the settings.
"""

import sys
from pathlib import Path
from typing import Any

from git_jax.config import Node, spec
from git_jax.convert import settings
from git_jax.decode.beam import Beam
from git_jax.decode.search import Greedy, Sample, Search

NAME = "generation_config.json"

# None where it counts whether a file says anything.
DEFAULTS: dict[str, Any] = {
    "max_new_tokens": None,
    "max_length": None,  # the begin token counted
    "num_beams": None,
    "length_penalty": 1.0,
}

# What no search here has, where a file says more than this.
NEUTRAL: dict[str, Any] = {
    "do_sample": False,
    "early_stopping": False,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
}


def read(directory: Path, *, positions: int) -> Node:
    """The search that a directory asks for, of a model of so many positions.

    A file that names beams or a penalty for length is taken at its word; one beam is
    greedy search. Where it names neither, as beside the published checkpoints, and
    where there is none, it is the search that the original release was scored with,
    four beams normalised as there, although transformers would search greedily.

    Raises:
        ValueError: naming the file, the key and the value that makes no search.
    """
    path = directory / NAME
    given = settings.read(path) if path.is_file() else {}
    given = {key: value for key, value in given.items() if value is not None}
    held = settings.held(given, DEFAULTS, where=str(path))
    for key in ("max_new_tokens", "max_length", "num_beams"):
        if held[key] is not None and held[key] < 1:
            raise ValueError(f"{path}: {key} is {held[key]}; it must be at least 1")
    for key, neutral in NEUTRAL.items():
        if given.get(key, neutral) != neutral:
            print(
                f"{path}: {key} is {given[key]!r}, which no search here has; it is "
                f"passed over",
                file=sys.stderr,
            )
    longest = held["max_new_tokens"] or (held["max_length"] or 41) - 1
    longest = max(1, min(longest, positions - 1))
    if held["num_beams"] == 1:
        return spec(Greedy, max_tokens=longest)
    if held["num_beams"] is None and "length_penalty" not in given:
        return spec(Beam, max_tokens=longest)
    return spec(
        Beam,
        beams=held["num_beams"] or 4,
        max_tokens=longest,
        normalise="huggingface",
        penalty=held["length_penalty"],
    )


def config_of(search: Search) -> dict[str, Any]:
    """The settings with which transformers searches so, or as nearly as it can.

    A search that it does not have is told on stderr.
    """
    found: dict[str, Any] = {"max_new_tokens": search.max_tokens, "num_beams": 1}
    same = False
    if isinstance(search, Greedy):
        same = search.repeat
    elif isinstance(search, Sample):
        same = True
        sharpened = {"temperature": search.temperature, "top_p": search.top_p}
        found |= {"do_sample": True, "top_k": 0} | sharpened
    elif isinstance(search, Beam):
        found["num_beams"] = search.beams
        if search.normalise == "huggingface":
            same = search.beams > 1  # of one beam it makes greedy search
            found["length_penalty"] = 1.0 if search.penalty is None else search.penalty
    if not same:
        print(
            f"evaluate.search is {search!r}, which transformers does not have: with "
            f"the {NAME} that is written its captions may be others",
            file=sys.stderr,
        )
    return found
