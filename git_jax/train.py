"""Pre-training and fine-tuning: the one loop.

    python -m git_jax.train --config=configs/scenes.py:tiny --workdir=DIR

The same command on the same directory goes on where it stopped.
"""

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from git_jax import checkpoint, command, losses, optim, report, sharding
from git_jax.config import build
from git_jax.data import pipeline
from git_jax.data.bad_records import BadRecords
from git_jax.data.tokenizer import Tokenizer
from git_jax.evaluate import Evaluator
from git_jax.init import Init
from git_jax.log import Log
from git_jax.run import Run
from git_jax.vision import vit
from git_jax.watch import Pending, Terminated, Termination, Watch

Arrays = Mapping[str, np.ndarray]


@struct.dataclass
class State:
    """All that changes while a run goes on; what a checkpoint holds.

    `step` is i32[], the number of updates made. Trees of shapes and of shardings have
    this form too, so no field is held to be an array.
    """

    step: Any
    params: Any
    opt_state: Any
    average: Any = None

    @property
    def evaluated(self) -> Any:
        """The parameters that captions are written with: the average, where kept."""
        return self.params if self.average is None else self.average


@dataclass(frozen=True, eq=False)
class Program:
    """All that a step is made of and that does not change."""

    model: nn.Module
    losses: Mapping[str, losses.Loss]
    optimizer: optim.AdamW
    steps: int
    accumulate: int = 1
    seed: int = 0

    @classmethod
    def of(cls, config: ConfigDict) -> "Program":
        """The program that a config describes."""
        for name in ("steps", "batch", "accumulate"):
            if config[name] < 1:
                raise ValueError(f"{name}={config[name]} must be at least 1")
        return cls(
            model=build(config.model),
            losses=build(config.losses),
            optimizer=build(config.optimizer),
            steps=config.steps,
            accumulate=config.accumulate,
            seed=config.seed,
        )


def train_step(
    state: State, batch: Mapping[str, Array], *, program: Program
) -> tuple[State, dict[str, Float[Array, ""]]]:
    """One update from one batch. Pure: the random numbers follow from the step."""
    key = jax.random.fold_in(jax.random.key(program.seed), state.step)
    weights = {name: loss.weight(batch) for name, loss in program.losses.items()}

    def loss_fn(params: Any, part: dict[str, Array], key: Array) -> tuple[Array, Any]:
        outputs: Any = program.model.apply(
            {"params": program.optimizer.hold(params)}, part, rngs={"dropout": key}
        )
        return losses.total(program.losses, outputs, part, weights)

    grads, metrics = accumulated(loss_fn, state.params, batch, key, program.accumulate)
    transform = program.optimizer.transform(state.params, program.steps)
    updates, opt_state = transform.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average, decay = state.average, program.optimizer.ema
    if decay is not None:
        average = optim.average(average, params, decay)
    metrics |= {
        "gradient_norm": optax.tree.norm(grads),
        "learning_rate": program.optimizer.learning_rate(program.steps)(state.step),
    }
    return State(state.step + 1, params, opt_state, average), metrics


def accumulated(
    loss_fn: Any, params: Any, batch: Mapping[str, Array], key: Array, count: int
) -> tuple[Any, dict[str, Float[Array, ""]]]:
    """Gradient and metrics of a batch in `count` parts, one after the other.

    Losses are sums over a part divided by the weight of the whole batch, so the parts'
    gradients add up to that of the whole.
    """
    gradient = jax.grad(loss_fn, has_aux=True)
    if count == 1:
        return gradient(params, batch, key)

    def add(total: Any, given: tuple[dict[str, Array], Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(params, *given)), None

    parts = microbatches(batch, count)
    keys = jax.random.split(key, count)
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    shapes = jax.eval_shape(gradient, params, first, keys[0])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, (parts, keys))
    return total


def microbatches(batch: Mapping[str, Array], count: int) -> dict[str, Array]:
    """`[B ...]` to `[count B/count ...]`; the texts of a picture stay with it.

    Part i takes picture i of every `count` consecutive ones, so that a batch that is
    split over devices stays where it is.
    """
    pictures = len(batch["frames"])

    def split(leaf: Array) -> Array:
        group = len(leaf) // pictures
        apart = leaf.reshape(pictures // count, count, group, *leaf.shape[1:])
        rows = jnp.moveaxis(apart, 1, 0).reshape(count, -1, *leaf.shape[1:])
        return sharding.constrain(rows, " ".join(["_", "B"] + ["_"] * (leaf.ndim - 1)))

    return {name: split(leaf) for name, leaf in batch.items()}


def init_state(
    program: Program, batch: dict[str, Any], given: dict[str, Any] | None = None
) -> State:
    """The state before the first step; `batch` gives shapes (and is not read).

    `given` are parameters by the first part of their names, all below it: under `jit`
    those that would be in their place are not drawn, and the others are as ever.
    """
    key = jax.random.key(program.seed)
    zeros = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in batch.items()}
    params = program.model.init(key, zeros)["params"] | (given or {})
    opt_state = program.optimizer.transform(params, program.steps).init(params)
    average = params if program.optimizer.ema is not None else None
    return State(jnp.int32(0), params, opt_state, average)


@dataclass(frozen=True, eq=False)
class Trainer:
    """A program on a mesh: its compiled step and where its arrays lie."""

    program: Program
    mesh: Mesh
    batch: dict[str, jax.ShapeDtypeStruct]
    shapes: State
    placed: State

    @classmethod
    def on(cls, program: Program, mesh: Mesh, batch: Arrays) -> "Trainer":
        """Plans the arrays of a run whose batches look like this one.

        Raises:
            ValueError: the mesh does not divide the batch or a parameter.
        """
        pictures, ways = len(batch["frames"]), sharding.row_ways(mesh)
        if pictures * jax.process_count() % (program.accumulate * ways):
            raise ValueError(
                f"batch={pictures * jax.process_count()} is not divisible by "
                f"accumulate={program.accumulate} times the {ways} parts that "
                f"mesh.data={mesh.shape['data']} and mesh.fsdp={mesh.shape['fsdp']} "
                f"split it into"
            )
        like = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch.items()}
        shapes = jax.eval_shape(lambda: init_state(program, like))
        return cls(program, mesh, like, shapes, sharding.parameters(shapes, mesh))

    def init(self, given: dict[str, Any] | None = None) -> State:
        """The first state, made where it lies, of given parameters and drawn ones.

        The given ones are given up: they lie where they are and belong to the state.
        """
        # It runs once: on a CPU, optimising its code takes longer than running it.
        cpu = self.mesh.devices.flat[0].platform == "cpu"
        make = jax.jit(
            partial(init_state, self.program, self.batch),
            out_shardings=self.placed,
            donate_argnums=0,
            compiler_options={"xla_backend_optimization_level": 0} if cpu else None,
        )
        return make(given or {})

    def step_fn(self) -> Any:
        """`state, metrics = step(state, batch)`; the old state is given up."""

        return jax.jit(
            partial(train_step, program=self.program),
            in_shardings=(self.placed, sharding.rows(self.mesh)),
            out_shardings=(self.placed, sharding.replicated(self.mesh)),
            donate_argnums=0,
        )

    def put(self, arrays: Arrays) -> dict[str, Array]:
        """This host's rows of a batch, as part of the arrays that all hosts hold."""
        place = sharding.rows(self.mesh)
        return {
            name: jax.make_array_from_process_local_data(place, leaf)
            for name, leaf in arrays.items()
        }

    def like(self) -> State:
        """Shapes and places of the state, for restoring into."""
        return sharding.placed(self.shapes, self.mesh)


def fit(config: ConfigDict, directory: Path) -> None:
    """Trains, goes on training, or finds that all is done; then scores and reports.

    Raises:
        ValueError: what a user can mend; the last good checkpoint stays.
        Terminated: SIGTERM or Ctrl-C came, and the state is saved.
    """
    run, made = Run(directory), build(config)
    source, task, loader = made["data"], made["task"], made["loader"]
    program, mesh = Program.of(config), made["mesh"].mesh()
    with run.begun(config):
        share = {"batch": config.batch, "ranks": jax.process_count()}
        shapes, tower = loader.shapes(**share), program.model.encoder
        vit.require_whole_patches(tower, [loader.image.size], "loader.image.size")
        vit.require_whole_patches(tower, loader.sizes, "a size of loader.sizes")
        tokenizer = run.tokenizer(config, source)
        loader.refuse_unreadable(source, task, tokenizer, config.seed)
        trainer = Trainer.on(program, mesh, shapes)
        evaluator = Evaluator(made, tokenizer, mesh)
    about = run.about(config, tokenizer)
    main = jax.process_index() == 0
    writing = made["checkpoint"].open(run.checkpoints, about)
    lock = run.alone() if main else contextlib.nullcontext()
    with lock, writing as store, jax.set_mesh(mesh):
        state, done = resume(trainer, store, made["init"], tokenizer)
        with Log(
            directory,
            steps=config.steps,
            done=done,
            devices=f"{mesh.size} x {mesh.devices.flat[0].device_kind}",
            main=main,
        ) as log:
            if done < config.steps:
                # Of an earlier step, scored by hand; of a start that is mended.
                run.scores.unlink(missing_ok=True)
                run.not_finite.unlink(missing_ok=True)
                bad = BadRecords(
                    directory / "bad_records.jsonl", loader.bad_fraction, len(source)
                )
                bad.resume(done + 1, rows=done * config.batch)
                rank = jax.process_index()
                batches = loader.batches(
                    source,
                    task,
                    tokenizer,
                    seed=config.seed,
                    start=done,
                    rank=rank,
                    **share,
                )
                watch = Watch(log, bad, store, batches)
                state = loop(trainer, state, batches, watch, store, evaluator)
            else:
                log.message(
                    f"{directory}: all {config.steps} steps are done; to train on, "
                    f"name another --workdir and --config.init.run={directory}"
                )
            if not run.scores.exists():
                evaluator.score(
                    state.evaluated,
                    run,
                    log.message,
                    step=config.steps,
                    count=log.count,
                )
    if main:
        print(f"page: {report.write(directory)}", file=sys.stderr)


def resume(
    trainer: Trainer, store: checkpoint.Store, init: Init, tokenizer: Tokenizer
) -> tuple[State, int]:
    """The newest saved state, else the first one; and how many steps it has seen."""
    step = store.latest()
    if step is None:
        like, model = trainer.like().params, trainer.program.model
        return trainer.init(init.given(like, model, trainer.mesh, tokenizer)), 0
    return store.restore(step, trainer.like()), step


def loop(
    trainer: Trainer,
    state: State,
    batches: pipeline.Batches,
    watch: Watch,
    store: checkpoint.Store,
    evaluator: Evaluator,
) -> State:
    """Takes the steps that are left; the metrics of one are read during the next."""
    step_fn, steps = trainer.step_fn(), trainer.program.steps
    with Termination() as termination, contextlib.closing(batches):
        for step in range(int(state.step) + 1, steps + 1):
            batch = next(batches)
            state, metrics = step_fn(state, trainer.put(batch.arrays))
            watch.settle()
            watch.pending = Pending(step, metrics, batch)
            asked = termination.asked  # once: it may come at any time
            saves = store.due(step) or step == steps or asked is not None
            samples = evaluator.samples_at(step)
            if saves or samples:
                # Before anything is kept, this very step must have been finite.
                watch.settle()
            if samples:  # first: a run that goes on from a checkpoint has its samples
                evaluator.sample(step, state.evaluated, watch.log)
                watch.restart()
            if saves:
                store.save(step, state)
            if asked is not None:
                store.wait()
                raise Terminated(asked, step)
    store.wait()
    return state


def define() -> None:
    flags.DEFINE_string("workdir", None, "Where the run is kept; made if missing.")


def main(options: command.Command) -> int:
    """The command."""
    options.refuse_arguments()
    config = options.config()
    if not options.flags.workdir:
        raise ValueError("--workdir is missing: name a folder for the run")
    try:
        fit(config, Path(options.flags.workdir))
    except Terminated as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.signal
    return 0


if __name__ == "__main__":
    command.run(main, define)
