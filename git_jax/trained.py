"""What has trained, a run or a checkpoint, to be used on the devices that are here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from git_jax import checkpoint, command, sharding
from git_jax import config as configs
from git_jax.config import build
from git_jax.data.tokenizer import Tokenizer
from git_jax.models.git import shapes
from git_jax.run import Run


@dataclass(frozen=True, eq=False)
class Trained:
    """A model that has trained, to be used on the devices that are here."""

    config: ConfigDict
    tokenizer: Tokenizer
    mesh: Mesh
    load: Callable[[Mesh], Any]
    """Reads the parameters onto a mesh."""
    changed: tuple[str, ...] = ()
    """What the command line sets to another value and that bears on the results."""

    def parameters(self) -> Any:
        """The parameters, on the mesh: a run's average where it keeps one.

        Raises:
            ValueError: there are none, or they are damaged.
        """
        return self.load(self.mesh)

    @classmethod
    def open(
        cls, directory: str, options: command.Command, option: str = "--run"
    ) -> "Trained":
        """The run in a directory, with what the command line sets of its config.

        `option` is what the directory was named with.

        Raises:
            ValueError: there is no such run, or the command line gives another config.
        """
        run, where = Run.open(directory, option), f"{option}={directory}"

        def load(mesh: Mesh) -> Any:
            return run.parameters(mesh)[1]

        own = configs.load(run.directory / "config.json")
        if "model" not in own:
            raise ValueError(f"{where} is an encoder: it has no text")
        return cls.of(own, run.tokenizer, load, options, where)

    @classmethod
    def of(
        cls,
        own: ConfigDict,
        tokenizer: Callable[[ConfigDict], Tokenizer],
        load: Callable[[Mesh], Any],
        options: command.Command,
        where: str,
    ) -> "Trained":
        """A model of the config `own`, with what the command line sets of it.

        Its mesh is fitted to the devices that are here, unless the command line names
        one: then that is the mesh or an error. `where` is what it was named with.
        """
        if options.flags.config:
            raise ValueError(
                f"--config={options.flags.config} and {where}: what is trained keeps "
                f"its own config; leave --config out, and set fields of it with "
                f"--config.PATH=VALUE"
            )
        config = options.overridden(own)
        layout: sharding.Layout = build(config.mesh)
        named = {path.partition(".")[0] for path, _ in options.overrides}
        if "mesh" not in named:
            layout = layout.fitted(jax.device_count())
        if "model" in named:
            held, wanted = (shapes(build(each.model)) for each in (own, config))
            checkpoint.require_same_shapes(where, held, wanted)
        changed = configs.difference(own, config, harmless=("mesh", "evaluate.batch"))
        words = tokenizer(config)
        return cls(config, words, layout.mesh(), load, tuple(changed))
