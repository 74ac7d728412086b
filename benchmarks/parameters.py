"""How many parameters each GIT has, from shapes alone.

    python benchmarks/parameters.py

The paper counts the encoder, the projection and the decoder's layers, and leaves out
the embeddings of words and positions and the head; `tied` and `untied` count all.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from git_jax import command
from git_jax.config import build
from git_jax.models.git import Git

CONFIG = Path(__file__).parents[1] / "configs" / "git.py"
NAMES = {"base": "GIT_B", "large": "GIT_L", "huge": "GIT", "git2": "GIT2"}


def counts(model: Git) -> dict[str, int]:
    """Numbers of parameters by part, and the three sums of them."""

    def parts(model: Git) -> dict[str, int]:
        batch = {
            "frames": jnp.zeros((1, 1, 224, 224, 3)),
            "tokens": jnp.zeros((1, 1), jnp.int32),
        }
        params: Any = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
        return {
            name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part))
            for name, part in params.items()
        }

    def tied(yes: bool) -> Git:
        embed = dataclasses.replace(model.embed, tied=yes, parent=None)
        return dataclasses.replace(model, embed=embed)

    found = parts(tied(True))
    paper = sum(found[name] for name in ("encoder", "project", "project_norm"))
    return {
        "encoder": found["encoder"],
        "decoder": found["decoder"],
        "paper": paper + found["decoder"],
        "tied": sum(found.values()),
        "untied": sum(parts(tied(False)).values()),
    }


def main() -> None:
    print("| model | encoder | decoder layers | paper's count | tied | untied |")
    print("|---|---|---|---|---|---|")
    for variant, name in NAMES.items():
        found = counts(build(command.load(f"{CONFIG}:{variant}").model))
        print(f"| {name} | " + " | ".join(f"{n:,}" for n in found.values()) + " |")


if __name__ == "__main__":
    main()
