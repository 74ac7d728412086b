"""Checkpoints with Orbax: written in the background, whole or not at all.

A checkpoint is a folder named by its step that holds the training state and the
config it was made with. It can be restored onto any mesh. A save that is cut off leaves
a folder under a temporary name, which is never read.
"""

from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from git_jax import sharding, tree


@dataclass(frozen=True)
class Checkpoints:
    """When checkpoints are written and which are kept.

    Args:
        every: steps between two checkpoints; the last step always has one.
        keep: how many of the newest stay.
        keep_period: those at multiples of this step stay for ever; None keeps none.
    """

    every: int = 1000
    keep: int = 2
    keep_period: int | None = None

    def __post_init__(self) -> None:
        for name in ("every", "keep", "keep_period"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"checkpoint.{name}={value} must be at least 1")

    def open(self, directory: Path, about: dict[str, Any]) -> "Store":
        """The store of a run to write to, made where there is none.

        `about` is kept beside every state.
        """
        return Store(directory, self, about)


class Store:
    """The checkpoints of one run; without settings they are read and never changed."""

    def __init__(
        self,
        directory: Path,
        settings: Checkpoints | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self._settings, self._about = settings, about
        if settings is None:
            options = ocp.CheckpointManagerOptions(create=False)
        else:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=settings.keep, keep_period=settings.keep_period
            )
        # Named here, so that what another process saved can be asked for its shapes.
        kinds: dict[str, Any] = {
            "state": ocp.StandardCheckpointHandler(),
            "about": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(
            self.directory, options=options, item_handlers=kinds
        )

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def due(self, step: int) -> bool:
        """Whether the state after this step is to be saved."""
        return self._settings is not None and step % self._settings.every == 0

    def save(self, step: int, state: Any) -> None:
        """Starts writing; returns as soon as the state may be changed."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(self._about)
            ),
        )

    def wait(self) -> None:
        """Returns when everything that `save` started is on the disk."""
        self._manager.wait_until_finished()

    def restore(self, step: int, like: Any) -> Any:
        """The state of a step, on the shardings of `like` (shapes are enough).

        Raises:
            ValueError: the checkpoint is damaged or has other arrays than `like`.
        """
        where = self.directory / str(step) / "state"
        require_same_shapes(str(where), self._metadata(step), like)
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))
            )
        except (MemoryError, PermissionError):
            raise
        except Exception as error:
            raise ValueError(self._damaged(step, error)) from error
        return restored.state

    def restore_part(self, step: int, part: str, mesh: Mesh | None) -> Any:
        """A part of the state, such as `params` or `average/encoder`, by its name.

        It is read onto a mesh, or with None into numpy's arrays, through no device. The
        rest is not read.
        """
        way = part.split("/")
        like = reduce(getitem, way, self._metadata(step))
        for name in reversed(way):
            like = {name: like}
        if mesh is not None:
            like = sharding.placed(like, mesh)
        # What has no sharding is restored as numpy's.
        arguments = ocp.checkpoint_utils.construct_restore_args(like)
        try:
            with ocp.PyTreeCheckpointer() as reader:
                restored = reader.restore(
                    self.directory / str(step) / "state",
                    args=ocp.args.PyTreeRestore(
                        item=like, restore_args=arguments, partial_restore=True
                    ),
                )
        except (MemoryError, PermissionError):
            raise
        except Exception as error:
            raise ValueError(self._damaged(step, error)) from error
        return reduce(getitem, way, restored)

    def about(self, step: int) -> dict[str, Any]:
        """What was kept beside the state: config and fingerprint of the tokenizer."""
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(about=ocp.args.JsonRestore())
            )
        except (MemoryError, PermissionError):
            raise
        except Exception as error:
            raise ValueError(self._damaged(step, error)) from error
        return restored.about

    def parts(self, step: int) -> set[str]:
        """The fields of the saved state that hold arrays."""
        held = self._metadata(step)
        return {name for name, part in held.items() if jax.tree.leaves(part)}

    def _metadata(self, step: int) -> dict[str, Any]:
        """Shape and type of every array of the saved state, as it is nested."""
        try:
            found = dict(self._manager.item_metadata(step).state)
        except (MemoryError, PermissionError):
            raise
        except Exception as error:
            raise ValueError(self._damaged(step, error)) from error
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), found
        )

    def _damaged(self, step: int, error: Exception) -> str:
        others = [s for s in self._manager.all_steps() if s != step]
        where = self.directory / str(step)
        way = (
            f"move that folder away to go on from step {max(others)}"
            if others
            else "there is no other checkpoint: move the folder away to start again"
        )
        reason = " ".join(str(error).split())[:200]
        return f"the checkpoint {where} cannot be read ({reason}); {way}"


def require_same_shapes(where: str, held: Any, like: Any) -> None:
    """ValueError naming the first array that two trees do not share."""
    have, want = _shapes(held), _shapes(like)
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) != want.get(name):
            raise ValueError(
                f"{where}: {name} is {have.get(name, 'absent')} there and "
                f"{want.get(name, 'absent')} in the model of the config"
            )


def _shapes(arrays: Any) -> dict[str, tuple[int, ...]]:
    shapes = [tuple(leaf.shape) for leaf in jax.tree.leaves(arrays)]
    return dict(zip(tree.names(arrays), shapes, strict=True))
