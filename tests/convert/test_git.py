"""GIT is the reference's GIT: forward, loss and every gradient, with random weights.

`GitForCausalLM` of transformers runs live. Weights and inputs are drawn afresh from a
seed, all of them, so that no bias or scale is hidden by its first value.
"""

import dataclasses
import functools

import chex
import jax
import numpy as np
import optax
import pytest

from git_jax import losses
from git_jax.convert import huggingface
from git_jax.nn import embed
from git_jax.optim import AdamW
from tests.convert.reference import CONFIGS, pair, pixels
from tests.reference import assert_same_arrays, assert_same_gradients

torch = pytest.importorskip("torch", reason="requirements-parity.txt is not installed")
transformers = pytest.importorskip(
    "transformers", reason="requirements-parity.txt is not installed"
)


def inputs(made, *, frames=1, size=None, rows=3, length=9, seed=1):
    """Random pictures, normalised, and texts of different lengths, padded behind."""
    rng = np.random.default_rng(seed)
    high, wide = size or (made.model.encoder.size,) * 2
    lengths = rng.integers(3, length + 1, rows)
    lengths[0] = length
    valid = np.arange(length) < lengths[:, None]
    words = rng.integers(3, made.model.embed.vocabulary, (rows, length))
    return {
        "frames": rng.normal(size=(rows, frames, high, wide, 3)).astype(np.float32),
        "tokens": np.where(valid, words, 0).astype(np.int32),
        "valid": valid,
        "target": valid & (np.arange(length) > 0),
    }


def there(made, batch, **more):
    """The reference on a batch."""
    return made.there(
        input_ids=torch.tensor(batch["tokens"]).long(),
        attention_mask=torch.tensor(batch["valid"]).long(),
        pixel_values=pixels(made, batch["frames"]),
        **more,
    )


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params, batch):
    outputs = model.apply({"params": params}, batch)
    return embed.logits(outputs["text"], outputs["head"])


@pytest.mark.parametrize(
    "name, frames, size",
    [
        ("tiny", 1, None),
        ("tied", 1, None),
        ("odd", 6, None),
        ("odd", 2, None),
        ("tiny", 1, (48, 24)),
        ("tiny", 1, (24, 24)),
        ("odd", 3, (28, 49)),
        ("GIT_B", 1, None),
    ],
)
def test_the_same_logits(name, frames, size):
    made = pair(name)
    batch = inputs(made, frames=frames, size=size)
    more = {"interpolate_pos_encoding": True} if size else {}
    with torch.no_grad():
        want = there(made, batch, **more).logits[:, -batch["tokens"].shape[1] :].numpy()
    found = logits(made.model, made.params, batch)
    valid = batch["valid"]
    assert np.ptp(want[valid]) > 1  # or equality would mean little
    np.testing.assert_allclose(found[valid], want[valid], atol=1e-4, rtol=0)


def labelled(made, batch):
    """Loss of the reference, and its gradients by our names."""
    labels = np.where(batch["target"], batch["tokens"], -100)
    made.there.zero_grad()
    loss = there(made, batch, labels=torch.tensor(labels).long()).loss
    loss.backward()
    gradients = {
        name: np.zeros(value.shape, np.float32)
        if value.grad is None
        else value.grad.numpy().copy()
        for name, value in made.there.named_parameters()
        if name in made.theirs
    }
    return float(loss.detach()), made.table.read(gradients, made.params, where="grads")


@functools.partial(jax.jit, static_argnums=0)
def ours(model, params, batch):
    loss = losses.Caption(smoothing=0.0)

    def mean(params):
        outputs = model.apply({"params": params}, batch)
        parts = {"caption": loss}
        return losses.total(parts, outputs, batch, {"caption": loss.weight(batch)})[0]

    return jax.value_and_grad(mean)(params)


@pytest.mark.parametrize("name, frames", [("tiny", 1), ("odd", 6), ("tied", 1)])
def test_the_same_loss_and_gradients(name, frames):
    made = pair(name)
    batch = inputs(made, frames=frames)
    loss_there, gradients_there = labelled(made, batch)
    loss, gradients = ours(made.model, made.params, batch)
    assert abs(float(loss) - loss_there) < 1e-5
    assert_same_gradients(gradients, gradients_there)


def test_the_same_steps_of_adamw():
    """Fed the same gradients, with a rate a tower and decay on matrices alone."""
    made = pair("odd")
    adamw = AdamW(peak=1e-2, warmup=0, schedule="constant", clip=None, weight_decay=0.1)
    transform = adamw.transform(made.params, steps=10)
    rng = np.random.default_rng(5)
    groups = [
        dict(
            params=[parameter],
            lr=adamw.peak * (0.2 if "image_encoder" in name else 1.0),
            weight_decay=0.1 if decayed else 0.0,
        )
        for name, parameter, decayed in named(made)
    ]
    there = torch.optim.AdamW(groups, betas=(adamw.b1, adamw.b2), eps=adamw.epsilon)
    before = {k: v.detach().clone() for k, v in made.there.named_parameters()}
    params, state = made.params, transform.init(made.params)
    try:
        for _ in range(3):
            gradients = {
                k: rng.normal(size=v.shape).astype(np.float32)
                for k, v in before.items()
            }
            for name, parameter, _ in named(made):
                parameter.grad = torch.tensor(gradients[name])
            there.step()
            ours = made.table.read(gradients, made.params, where="gradients")
            updates, state = transform.update(ours, state, params)
            params = optax.apply_updates(params, updates)
        after = {k: v.detach().numpy().copy() for k, v in before.items()}
        for name, parameter, _ in named(made):
            after[name] = parameter.detach().numpy().copy()
    finally:
        with torch.no_grad():
            for name, parameter in made.there.named_parameters():
                parameter.copy_(before[name])
    want = made.table.read(after, made.params, where="after")
    chex.assert_trees_all_close(params, want, atol=1e-6, rtol=1e-6)


def named(made):
    """Parameters there, and which of them are decayed: matrices but positions."""
    for name, parameter in made.there.named_parameters():
        matrix = parameter.dim() in (2, 4) and "position" not in name
        yield name, parameter, matrix


@pytest.mark.parametrize("name", ["tiny", "odd"])
def test_bfloat16_is_as_near_to_float32_as_torchs(name):
    """The median over 8 seeds, against autocast as torch's users run it."""

    def distance(half, full, valid):
        return np.linalg.norm((half - full)[valid]) / np.linalg.norm(full[valid])

    found = []
    for seed in range(8):
        made = pair(name, seed)
        batch = inputs(made, frames=made.model.frames, seed=seed)
        length, valid = batch["tokens"].shape[1], batch["valid"]
        narrow = dataclasses.replace(made.model, dtype="bfloat16", parent=None)
        ours = [logits(m, made.params, batch) for m in (narrow, made.model)]
        with torch.no_grad():
            full = there(made, batch).logits[:, -length:].numpy()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                cast = there(made, batch).logits[:, -length:].float().numpy()
        found.append(
            [distance(*map(np.asarray, ours), valid), distance(cast, full, valid)]
        )
    here, reference = np.median(found, axis=0)
    assert here <= 1.25 * reference


@pytest.mark.parametrize("name", CONFIGS)
def test_the_round_trip_is_the_identity(name):
    made = pair(name)
    assert_same_arrays(made.table.write(made.params), made.theirs)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_round_trip_of_the_config(name):
    made = pair(name)
    again = transformers.GitConfig(**huggingface.config_of(made.model))
    ids = ("pad_token_id", "bos_token_id", "eos_token_id")  # they are the tokenizer's
    there, here = (c.to_dict() for c in (made.there.config, again))
    differ = {k for k in there.keys() | here.keys() if there.get(k) != here.get(k)}
    assert differ <= {*ids, "architectures", "dtype"}
    assert huggingface.git(here, where="again") == huggingface.git(there, where="there")
