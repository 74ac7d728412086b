"""What training begins with: parameters drawn anew, a run's, or a trained encoder's."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from git_jax import checkpoint
from git_jax import config as configs
from git_jax.config import build
from git_jax.data.tokenizer import Tokenizer
from git_jax.models.git import Git
from git_jax.run import Run
from git_jax.vision import vit

# What an encoder may change and still take what another one has learnt: how it is
# computed, what it is drawn with, and the size whose positions are interpolated.
FREE = ("size", "scan", "remat", "std", "position_std", "drop_path", "parent", "name")


@dataclass(frozen=True)
class Init:
    """What training begins with.

    Args:
        run: directory of a run whose parameters are taken, all of them; None draws
            them.
        encoder: directory of a converted tower, of a converted GIT or of a run, whose
            encoder is taken; None draws it. Positions are interpolated where its
            pictures had another size. The published GITs begin with a contrastively
            trained encoder and a decoder drawn anew (section 3.1 of the paper).
    """

    run: str | None = None
    encoder: str | None = None

    def __post_init__(self) -> None:
        if self.run is not None and self.encoder is not None:
            raise ValueError(
                f"init.run={self.run} brings an encoder, and init.encoder="
                f"{self.encoder} is another: set one of them to none"
            )

    def given(
        self, like: Any, model: Any, mesh: Mesh, tokenizer: Tokenizer
    ) -> dict[str, Any]:
        """The parameters that are not drawn: all, `encoder` and what is in it, or none.

        Only they are read. `like` has the shapes and places of all parameters.

        Raises:
            ValueError: naming the option, and what of the model is another there.
        """
        if self.run is not None:
            return self._of_run(self.run, like, mesh, tokenizer)
        if self.encoder is not None:
            return {"encoder": self._tower(self.encoder, like["encoder"], model, mesh)}
        return {}

    def _of_run(
        self, directory: str, like: Any, mesh: Mesh, tokenizer: Tokenizer
    ) -> dict[str, Any]:
        other = Run.open(directory, "--config.init.run")
        step, found = other.parameters(mesh)
        with other.store() as store:
            fingerprint = store.about(step)["tokenizer"]
        if fingerprint != tokenizer.fingerprint:
            raise ValueError(
                f"init.run={directory} has other words: its tokenizer is "
                f"{fingerprint}, this run's {tokenizer.fingerprint}. Take its kind of "
                f"tokenizer, with --config.tokenizer.path naming the file in "
                f"{other.directory}"
            )
        checkpoint.require_same_shapes(f"init.run={directory}", found, like)
        return found

    def _tower(self, directory: str, like: Any, model: Git, mesh: Mesh) -> Any:
        where = f"init.encoder={directory}"
        try:
            other = Run.open(directory, "--config.init.encoder")
        except ValueError as error:
            raise ValueError(
                f"{error}. Make one of published weights with python -m "
                f"git_jax.convert --source=DIR --target={directory}, or draw the "
                f"encoder anew with --config.init.encoder=none"
            ) from None
        config = configs.load(other.directory / "config.json")
        whole = build(config.model) if "model" in config else None
        there = whole.encoder if whole is not None else build(config.encoder)
        _require_same(where, there, model.encoder)
        stats = whole if whole is not None else config
        for name in ("pixel_mean", "pixel_std"):
            if tuple(getattr(stats, name)) != tuple(getattr(model, name)):
                raise ValueError(
                    f"{where} was trained with {name}={getattr(stats, name)}, "
                    f"model.{name} is {getattr(model, name)}: set it to the former"
                )
        _, found = other.parameters(mesh, "" if whole is None else "encoder")
        if isinstance(there, vit.ViT) and there.size != model.encoder.size:
            side = model.encoder.size // there.patch
            fitted = jax.jit(
                lambda position: vit.resampled(position, there, side, side),
                out_shardings=like["position"].sharding,
            )(found["position"])
            found = found | {"position": fitted}
        checkpoint.require_same_shapes(where, found, like)
        return found


def _require_same(where: str, there: nn.Module, here: nn.Module) -> None:
    """ValueError naming what two encoders differ in, beyond what they may."""
    if type(there) is not type(here):
        raise ValueError(
            f"{where} is a {type(there).__name__}, model.encoder a "
            f"{type(here).__name__}"
        )
    differ = [
        f"{field.name} is {getattr(there, field.name)!r} there and "
        f"{getattr(here, field.name)!r} in model.encoder"
        for field in dataclasses.fields(there)
        if field.name not in FREE
        and getattr(there, field.name) != getattr(here, field.name)
    ]
    if differ:
        raise ValueError(f"{where} is another encoder: {'; '.join(differ)}")
