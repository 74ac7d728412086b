"""A run that has trained, opened to be used on the devices that are here."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from git_jax import checkpoint, command, sharding
from git_jax import config as configs
from git_jax.config import build
from git_jax.data.tokenizer import Tokenizer
from git_jax.run import Run


@dataclass(frozen=True, eq=False)
class Trained:
    """A run, to be used on the devices that are here."""

    run: Run
    config: ConfigDict
    tokenizer: Tokenizer
    mesh: Mesh
    changed: tuple[str, ...] = ()
    """What the command line sets to another value and that bears on the results."""

    @classmethod
    def open(cls, directory: str, options: command.Command) -> "Trained":
        """The run in a directory, with what the command line sets of its config.

        Its mesh is fitted to the devices that are here, unless the command line names
        one: then that is the mesh or an error.

        Raises:
            ValueError: there is no such run, or the command line gives another config.
        """
        run = Run.open(directory)
        if options.flags.config:
            raise ValueError(
                f"--config={options.flags.config} and --run={directory}: a run keeps "
                f"its own config; leave --config out, and set fields of it with "
                f"--config.PATH=VALUE"
            )
        config = options.config(str(run.directory / "config.json"))
        layout: sharding.Layout = build(config.mesh)
        named = {path.partition(".")[0] for path, _ in options.overrides}
        if "mesh" not in named:
            layout = layout.fitted(jax.device_count())
        own = configs.load(run.directory / "config.json")
        changed = configs.difference(own, config, harmless=("mesh", "evaluate.batch"))
        trained = cls(run, config, run.tokenizer(config), layout.mesh(), tuple(changed))
        if "model" in named:
            trained._require_same_model()
        return trained

    def parameters(self) -> Any:
        """Of the newest checkpoint, on the mesh: the average where the run keeps one.

        Raises:
            ValueError: there is no checkpoint, or it is damaged.
        """
        _, params = self.run.parameters(self.mesh)
        return params

    def _require_same_model(self) -> None:
        """ValueError where the command line made a model of other parameters."""
        changed = _shapes_of(self.config)
        kept = _shapes_of(configs.load(self.run.directory / "config.json"))
        where = f"--run={self.run.directory}"
        checkpoint.require_same_shapes(where, kept, changed)


def _shapes_of(config: ConfigDict) -> Any:
    """Shapes of the parameters of a config's model."""
    model, loader = build(config.model), build(config.loader)
    size = loader.image.size
    batch = {
        "frames": jnp.zeros((1, loader.frames, size, size, 3), jnp.uint8),
        "tokens": jnp.zeros((1, loader.text), jnp.int32),
    }
    return jax.eval_shape(lambda: model.init(jax.random.key(0), batch)["params"])
