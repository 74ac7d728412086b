"""Weights from elsewhere, and to elsewhere.

    python -m git_jax.convert --source=DIR --target=DIR [--to=git_jax]

The source is a directory of transformers (GIT, CLIP, ViT, Swin, DaViT), the original
release's `model.pt`, OpenAI's CLIP, or a run of git_jax; its format is detected. A name
of the Hugging Face hub, such as microsoft/git-base, is downloaded first.

The target is a new directory: `--to=git_jax` (the default) makes what `--run`,
`--config.init.run` and `--config.init.encoder` take, `--to=huggingface` what
transformers opens, `--to=original` a `model.pt`.
"""

import sys
from pathlib import Path

from absl import flags

from git_jax import command
from git_jax.convert import source, target
from git_jax.convert.hub import local


def define() -> None:
    flags.DEFINE_string("source", None, "A directory, a file, or a name of the hub.")
    flags.DEFINE_string("target", None, "The directory to make.")
    flags.DEFINE_enum("to", "git_jax", list(target.WRITERS), "The target's format.")


def main(options: command.Command) -> None:
    """The command."""
    options.refuse_arguments()
    given = options.flags
    for name in ("source", "target"):
        if not given[name].value:
            raise ValueError(f"--{name} is missing: name a directory")
    if given.config or options.overrides:
        raise ValueError("--config has no part in a conversion; leave it out")
    found = source.read(local(given.source, "--source"))
    target.WRITERS[given.to](found, Path(given.target))
    print(f"{given.target}: {given.to}", file=sys.stderr)


if __name__ == "__main__":
    command.run(main, define)
