"""How fast we are beside transformers' `GitForCausalLM`, on the CPU of this machine.

    python benchmarks/against_transformers.py [--quick]

git-base with random weights, the same on both sides; 8 pictures of 224 pixels, 40 text
tokens, two threads. For each row of the table two processes are started, one a side;
both warm up (ours compiles), are found to compute the same thing, and are then timed in
turn. A row's ratio is median over median; peak memory is that of each process, from its
birth to its last run, torch or compiler included. Each row is added to a file too, with
all the times: `results/against_transformers.json` here, or what `--results` names.

What is timed:

| task | transformers | git_jax |
|---|---|---|
| train | `model(**inputs, labels=labels)`, backward, `AdamW.step` | `train_step` |
| train, alike | the same with the head on the text only, as ours | `train_step` |
| forward | `model(**inputs, labels=labels)` without gradients | loss of `apply` |
| caption | `generate`, 4 beams, 20 tokens, no end token | `generate` with `Beam` |

In bfloat16 torch trains under autocast, as its users do, and the other tasks have
weights of bfloat16; ours has float32 weights and `dtype="bfloat16"`.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results" / "against_transformers.json"
TASKS = ("train", "train, alike", "forward", "caption")
DTYPES = ("float32", "bfloat16")
PICTURES, SIDE, TEXT, BEAMS, WRITTEN, THREADS = 8, 224, 40, 4, 20, 2
BEGIN, PAD = 101, 0
# How far the losses of the two sides may be apart, dropout off.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}


class Case(NamedTuple):
    """One thing done by one side: run once to be timed, and its value to compare."""

    run: Callable[[], Any]
    value: np.ndarray


def inputs() -> dict[str, np.ndarray]:
    """Pictures, already normalised, and texts that fill their rows."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1000, 30522, (PICTURES, TEXT))
    tokens[:, 0] = BEGIN
    pixels = rng.normal(size=(PICTURES, 1, SIDE, SIDE, 3))
    return {"frames": pixels.astype(np.float32), "tokens": tokens.astype(np.int32)}


def draw(folder: str) -> None:
    """Saves git-base with random weights that keep activations at their size."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.GitForCausalLM(transformers.GitConfig(vision_config={}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)


def theirs(task: str, dtype: str, folder: str) -> Case:
    """transformers, as its documentation has it used."""
    import torch
    import transformers

    torch.set_num_threads(THREADS)
    narrow = dtype == "bfloat16" and not task.startswith("train")
    model = transformers.GitForCausalLM.from_pretrained(
        folder,
        attn_implementation="eager",
        dtype=torch.bfloat16 if narrow else torch.float32,
    ).eval()
    given = inputs()
    pixels = torch.tensor(given["frames"][:, 0]).permute(0, 3, 1, 2).contiguous()
    tokens = torch.tensor(given["tokens"]).long()
    batch = {
        "pixel_values": pixels.to(model.dtype),
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
    }
    if task == "caption":
        return their_caption(model, batch)
    autocast = partial(
        torch.autocast, "cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"
    )

    def loss() -> Any:
        with autocast():
            return model(**batch, labels=tokens).loss

    def loss_alike() -> Any:
        with autocast():
            text = model.git(**batch, use_cache=False).last_hidden_state[:, -TEXT:-1]
            logits = model.output(text)
            return torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), tokens[:, 1:].flatten()
            )

    fn = loss_alike if task == "train, alike" else loss
    no_grad = torch.no_grad()(fn)
    value = no_grad().float().numpy()
    if task == "forward":
        return Case(no_grad, value)
    return Case(their_step(model, fn), value)


def their_caption(model: Any, batch: dict[str, Any]) -> Case:
    def caption() -> Any:
        return model.generate(
            pixel_values=batch["pixel_values"],
            input_ids=batch["input_ids"][:, :1],
            num_beams=BEAMS,
            do_sample=False,
            max_new_tokens=WRITTEN,
            eos_token_id=None,
            pad_token_id=PAD,
        )

    return Case(caption, caption().numpy()[:, 1:])


def their_step(model: Any, loss: Callable[[], Any]) -> Callable[[], float]:
    import torch

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)

    def step() -> float:
        found = loss()
        found.backward()
        optimizer.step()
        optimizer.zero_grad()
        return found.item()

    step()
    return step


def ours(task: str, dtype: str, folder: str) -> Case:
    """git_jax, through the functions that its commands call."""
    import jax
    import jax.numpy as jnp

    from git_jax import losses
    from git_jax.config import build
    from git_jax.convert import git, huggingface
    from git_jax.convert.weights import opened
    from git_jax.models.git import shapes

    config = json.loads((Path(folder) / "config.json").read_text())
    node = huggingface.git(config, where=folder)
    node.dtype = dtype
    model = build(node)
    with opened(Path(folder)) as weights:
        params = git.huggingface(model).read(weights, shapes(model), where=folder)
    params = jax.device_put(params)
    given = {name: jnp.asarray(array) for name, array in inputs().items()}
    if task == "caption":
        return our_caption(model, params, given["frames"])
    batch = given | {"target": jnp.ones((PICTURES, TEXT), bool)}
    parts = {"caption": losses.Caption(smoothing=0.0)}

    @jax.jit
    def forward(params: Any, batch: Any) -> Any:
        outputs = model.apply({"params": params}, batch)
        weight = {name: part.weight(batch) for name, part in parts.items()}
        return losses.total(parts, outputs, batch, weight)[0]

    value = np.asarray(forward(params, batch))
    if task == "forward":
        return Case(lambda: forward(params, batch).block_until_ready(), value)
    return Case(our_step(model, params, batch, parts), value)


def our_caption(model: Any, params: Any, frames: Any) -> Case:
    import jax
    import jax.numpy as jnp

    from git_jax.decode.beam import Beam
    from git_jax.models.git import generate

    beam = Beam(beams=BEAMS, max_tokens=WRITTEN, normalise="huggingface")

    @jax.jit
    def caption(params: Any, frames: Any) -> Any:
        prefix = {
            "frames": frames,
            "tokens": jnp.full((PICTURES, 1), BEGIN, jnp.int32),
            "prefix_length": jnp.ones(PICTURES, jnp.int32),
        }
        return generate(model, params, beam, prefix, eos=-1, pad=PAD).tokens

    tokens = np.asarray(caption(params, frames))
    return Case(lambda: caption(params, frames).block_until_ready(), tokens)


def our_step(
    model: Any, params: Any, batch: Any, parts: dict[str, Any]
) -> Callable[[], float]:
    import jax
    import jax.numpy as jnp

    from git_jax import train
    from git_jax.optim import AdamW

    # As torch.optim.AdamW: one rate, no clip.
    adamw = AdamW(warmup=0, schedule="constant", clip=None, rates={})
    program = train.Program(model, parts, adamw, steps=1000)
    opt_state = adamw.transform(params, program.steps).init(params)
    held = [train.State(jnp.int32(0), params, opt_state)]
    step_fn = jax.jit(partial(train.train_step, program=program), donate_argnums=0)

    def step() -> float:
        held[0], metrics = step_fn(held[0], batch)
        jax.block_until_ready(held[0])
        return float(metrics["loss"])

    step()
    return step


SIDES = {"transformers": theirs, "git_jax": ours}


def serve(pipe: Connection, side: str, task: str, dtype: str, folder: str) -> None:
    """One side's process: its value, then a time for each word, then its memory."""
    case = SIDES[side](task, dtype, folder)
    case.run()
    pipe.send(case.value)
    while pipe.recv() == "run":
        before = time.perf_counter()
        case.run()
        pipe.send(time.perf_counter() - before)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def check(task: str, dtype: str, values: dict[str, np.ndarray]) -> None:
    """That both sides computed the same thing; captions of bfloat16 may differ."""
    a, b = values.values()
    if task != "caption":
        np.testing.assert_allclose(a, b, atol=TOLERANCE[dtype], rtol=0)
    elif dtype == "float32":
        np.testing.assert_array_equal(a, b)
    else:
        assert a.shape == b.shape == (PICTURES, WRITTEN)


def measure(task: str, dtype: str, folder: str, repeats: int) -> dict[str, Any]:
    """Times in turn, and peak memory, of both sides."""
    spawn = multiprocessing.get_context("spawn")
    pipes, values = {}, {}
    for side in SIDES:
        pipes[side], end = spawn.Pipe()
        arguments = (end, side, task, dtype, folder)
        spawn.Process(target=serve, args=arguments, daemon=True).start()
        end.close()
        values[side] = pipes[side].recv()  # one warms up, then the other
    check(task, dtype, values)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side, pipe in pipes.items():
            pipe.send("run")
            seconds[side].append(pipe.recv())
    memory = {}
    for side, pipe in pipes.items():
        pipe.send("stop")
        memory[side] = pipe.recv()
    return {"task": task, "dtype": dtype, "seconds": seconds, "gib": memory}


def row(found: dict[str, Any]) -> str:
    """A row of the table."""
    there, here = (found["seconds"][side] for side in SIDES)
    median = statistics.median(there) / statistics.median(here)
    gib = " / ".join(f"{found['gib'][side]:.1f}" for side in SIDES)
    return (
        f"| {found['task']} | {found['dtype']} | {statistics.median(there):.2f} | "
        f"{statistics.median(here):.2f} | {median:.2f} | "
        f"{min(there) / min(here):.2f} | {gib} |"
    )


def machine() -> dict[str, str]:
    """What the times hold for."""
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [s for s in info.read_text().splitlines() if s.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    packages = ("jax", "jaxlib", "flax", "torch", "transformers", "numpy")
    return {
        "cpu": cpu,
        "python": platform.python_version(),
        "command": " ".join(["python", *sys.argv]),
    } | {name: importlib.metadata.version(name) for name in packages}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="float32, three times")
    parser.add_argument("--repeats", type=int, default=7, help="times of each side")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--results", type=Path, default=RESULTS, help="file to write")
    options = parser.parse_args()
    if options.quick:
        options.dtypes, options.repeats = ("float32",), 3
    # Before a library counts them; both sides inherit it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    os.environ |= {"OMP_NUM_THREADS": str(THREADS), "JAX_PLATFORMS": "cpu"}
    print("| task | type | transformers, s | git_jax, s | ratio | of best | GiB |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        spawn = multiprocessing.get_context("spawn")
        drawing = spawn.Process(target=draw, args=(folder,))
        drawing.start()
        drawing.join()
        for dtype in options.dtypes:
            for task in options.tasks:
                found = measure(task, dtype, folder, options.repeats)
                rows.append(found)
                print(row(found), flush=True)
                told = json.dumps({"machine": machine(), "rows": rows}, indent=1)
                options.results.parent.mkdir(exist_ok=True)
                options.results.write_text(told)


if __name__ == "__main__":
    main()
