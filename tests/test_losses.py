"""The loss is the paper's, to float64, on the tokens that are paid for alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from git_jax import losses
from git_jax.nn.embed import Head

ROWS, LENGTH, WORDS, WIDTH = 4, 7, 11, 5


@pytest.fixture(scope="module")
def outputs():
    rng = np.random.default_rng(0)
    return {
        "text": jnp.array(rng.normal(size=(ROWS, LENGTH, WIDTH)), jnp.float32),
        "head": Head(
            jnp.array(rng.normal(size=(WORDS, WIDTH)), jnp.float32),
            jnp.array(rng.normal(size=WORDS), jnp.float32),
        ),
    }


@pytest.fixture(scope="module")
def batch():
    """Prefixes of 0 to 3 tokens, then 3 that are paid for, then padding."""
    rng = np.random.default_rng(1)
    start = np.arange(ROWS)[:, None] + 1
    position = np.arange(LENGTH)
    valid = position < start + 3
    return {
        "tokens": jnp.array(np.where(valid, rng.integers(3, WORDS, valid.shape), 0)),
        "valid": jnp.array(valid),
        "target": jnp.array((position >= start) & valid),
    }


def brute_force(logits, target, smoothing, form):
    """Every word by itself, in float64."""
    logits = np.asarray(logits, np.float64)
    probability = np.exp(logits) / np.exp(logits).sum()
    loss = 0.0
    for word, p in enumerate(probability):
        wanted = 1 - smoothing if word == target else smoothing / (len(logits) - 1)
        if wanted:
            loss -= wanted * np.log(p)
            if form == "kl":
                loss += wanted * np.log(wanted)
    return loss


def mean(loss, outputs, batch):
    weights = {"caption": loss.weight(batch)}
    return losses.total({"caption": loss}, outputs, batch, weights)


@pytest.mark.parametrize("form", ["cross_entropy", "kl"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_the_mean_over_paid_tokens_by_brute_force(
    outputs, batch, form, smoothing
):
    head = outputs["head"]
    logits = np.asarray(outputs["text"], np.float64) @ np.asarray(head.kernel).T
    logits += np.asarray(head.bias)
    paid = [
        brute_force(logits[r, t - 1], batch["tokens"][r, t], smoothing, form)
        for r, t in np.argwhere(batch["target"])
    ]
    found, metrics = mean(losses.Caption(smoothing, form), outputs, batch)
    np.testing.assert_allclose(found, np.mean(paid), rtol=1e-6)
    assert metrics["loss"] == metrics["caption_loss"] == found
    right = [
        logits[r, t - 1].argmax() == batch["tokens"][r, t]
        for r, t in np.argwhere(batch["target"])
    ]
    np.testing.assert_allclose(metrics["caption_accuracy"], np.mean(right))


def test_both_forms_have_one_gradient_and_differ_by_the_published_constant(
    outputs, batch
):
    plain, released = losses.Caption(0.1), losses.Caption(0.1, "kl")
    gradient = jax.grad(lambda out, loss: mean(loss, out, batch)[0], allow_int=True)
    a, b = gradient(outputs, plain), gradient(outputs, released)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-7), a, b)
    apart = mean(plain, outputs, batch)[0] - mean(released, outputs, batch)[0]
    np.testing.assert_allclose(apart, losses.smoothing_entropy(0.1, WORDS), rtol=1e-5)
    # GIT.md 2.2: V = 30,522 words, s = 0.1.
    np.testing.assert_allclose(
        losses.smoothing_entropy(0.1, 30522), 1.357700, atol=5e-7
    )
    assert losses.smoothing_entropy(0.0, 30522) == 0


def test_smoothed_cross_entropy_of_the_released_size():
    """V = 30,522: the sum over the other words is not lost in float32."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(3, 30522)) * 4
    target = np.array([0, 777, 30521])
    found = losses.smoothed_cross_entropy(
        jnp.array(logits, jnp.float32), jnp.array(target), 0.1
    )
    plain = [
        brute_force(row, t, 0.1, "cross_entropy")
        for row, t in zip(logits, target, strict=True)
    ]
    np.testing.assert_allclose(found, plain, rtol=1e-6)


def test_the_docstrings_example():
    logits, target = jnp.array([2.0, 0.0, 0.0]), jnp.array(0)
    found = losses.smoothed_cross_entropy(logits, target, 0.0)
    np.testing.assert_allclose(found, np.log(np.e**2 + 2) - 2, rtol=1e-6)


def test_prefix_and_padding_are_not_paid_for(outputs, batch):
    """Other words there, and other vectors read there, change nothing at all."""
    loss = losses.Caption()
    before = mean(loss, outputs, batch)
    free = ~batch["target"]
    others = dict(batch, tokens=jnp.where(free, 1, batch["tokens"]))
    assert mean(loss, outputs, others) == before
    # The vector at t is read where t + 1 is paid for.
    read = jnp.pad(batch["target"][:, 1:], ((0, 0), (0, 1)))[..., None]
    moved = dict(outputs, text=jnp.where(read, outputs["text"], 9.0))
    assert mean(loss, moved, batch) == before
    changed = dict(batch, tokens=jnp.where(free, batch["tokens"], 1))
    assert mean(loss, outputs, changed)[0] != before[0]


def test_parts_of_a_batch_add_up_to_the_whole(outputs, batch):
    """Rows with 3 paid tokens and one with none: parts weigh what they pay."""
    target = batch["target"].at[1].set(False).at[2, 4:].set(False)
    batch = dict(batch, target=target)
    loss = losses.Caption()
    weights = {"caption": loss.weight(batch)}
    whole, metrics = losses.total({"caption": loss}, outputs, batch, weights)
    parts = [
        losses.total(
            {"caption": loss},
            dict(outputs, text=outputs["text"][rows]),
            {name: leaf[rows] for name, leaf in batch.items()},
            weights,
        )[1]
        for rows in (slice(0, 2), slice(2, 4))
    ]
    for name in metrics:
        np.testing.assert_allclose(
            sum(part[name] for part in parts), metrics[name], rtol=1e-6
        )
    assert np.isfinite(whole)


def test_a_batch_that_pays_for_nothing_costs_nothing(outputs, batch):
    nothing = dict(batch, target=jnp.zeros_like(batch["target"]))
    found, metrics = mean(losses.Caption(), outputs, nothing)
    assert found == metrics["caption_accuracy"] == 0


def test_losses_add_up_under_their_names(outputs, batch):
    parts = {"a": losses.Caption(0.0), "b": losses.Caption(0.1)}
    weights = {name: loss.weight(batch) for name, loss in parts.items()}
    found, metrics = losses.total(parts, outputs, batch, weights)
    np.testing.assert_allclose(found, metrics["a_loss"] + metrics["b_loss"])
    assert set(metrics) == {"loss", "a_loss", "b_loss", "a_accuracy", "b_accuracy"}


def test_a_bfloat16_model_is_paid_in_float32(outputs, batch):
    half = dict(outputs, text=outputs["text"].astype(jnp.bfloat16))
    found, _ = mean(losses.Caption(), half, batch)
    wide, _ = mean(losses.Caption(), outputs, batch)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wide, rtol=0.02)
