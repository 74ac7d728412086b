"""AdamW by the book, a rate per tower, and what is left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from git_jax import tree
from git_jax.optim import AdamW, average

STEPS = 20


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)

    def made(*shape):
        return jnp.array(rng.normal(size=shape), jnp.float32)

    return {
        "encoder": {
            "stem": {"kernel_0": made(3, 3, 2, 3)},
            "patches": {"kernel": made(3, 4), "bias": made(4)},
            "cls": made(4),
            "position": made(5, 4),
        },
        "embed": {
            "word": made(6, 4),
            "output": made(6, 4),
            "output_bias": made(6),
            "position": made(5, 4),
            "norm": {"scale": made(4), "bias": made(4)},
        },
        "decoder": {"layers": {"ffn": {"up": {"kernel": made(2, 4, 7)}}}},
    }


def is_matrix(name):
    return name.endswith(("kernel", "kernel_0", "word", "output"))


def gradients(params, count):
    """Of unequal sizes, so that some are clipped and some are not."""
    rng = np.random.default_rng(1)
    for step in range(count):
        yield jax.tree.map(
            lambda leaf, size=0.02 * 4**step: jnp.array(
                size * rng.normal(size=leaf.shape), jnp.float32
            ),
            params,
        )


def follow(transform, params, grads):
    """The parameters after these gradients, and the moments."""

    @jax.jit
    def step(params, moments, gradient):
        updates, moments = transform.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments

    moments = jax.jit(transform.init)(params)
    for gradient in grads:
        params, moments = step(params, moments, gradient)
    return params, moments


def by_the_book(optimizer, params, grads, steps):
    """Algorithm 2 of 1711.05101 with a clip, in float64, leaf by leaf."""
    names = tree.names(params)
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params)]
    first, second = [0.0 for _ in leaves], [0.0 for _ in leaves]
    for t, gradient in enumerate(grads, start=1):
        given = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(gradient)]
        norm = np.sqrt(sum((leaf**2).sum() for leaf in given))
        scale = min(1, (optimizer.clip or np.inf) / norm)
        warm = min(1, t / max(1, optimizer.warmup))
        share = max(0, t - 1 - optimizer.warmup) / (steps - optimizer.warmup)
        rate = optimizer.peak * warm * 0.5 * (1 + np.cos(np.pi * share))
        for i, name in enumerate(names):
            g = given[i] * scale
            first[i] = optimizer.b1 * first[i] + (1 - optimizer.b1) * g
            second[i] = optimizer.b2 * second[i] + (1 - optimizer.b2) * g**2
            m = first[i] / (1 - optimizer.b1**t)
            v = second[i] / (1 - optimizer.b2**t)
            matrix = is_matrix(name)
            tower = 0.2 if name.startswith("encoder") else 1.0
            update = m / (np.sqrt(v) + optimizer.epsilon)
            update += optimizer.weight_decay * matrix * leaves[i]
            leaves[i] = leaves[i] - rate * tower * update
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def test_it_is_adamw_by_the_book(params):
    # 1 - 0.999^t has four digits in float32, and 1 - 0.95^t has six.
    optimizer = AdamW(peak=0.05, warmup=2, weight_decay=0.3, clip=1.0, b2=0.95)
    grads = list(gradients(params, 6))
    norms = [float(optax.tree.norm(gradient)) for gradient in grads]
    assert min(norms) < 1 < max(norms)
    found, _ = follow(optimizer.transform(params, STEPS), params, grads)
    plain = by_the_book(optimizer, params, grads, STEPS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        found,
        plain,
    )


def test_without_towers_and_schedule_it_is_optax_adamw(params):
    optimizer = AdamW(
        peak=0.05, rates={}, warmup=0, schedule="constant", clip=None, b2=0.95
    )
    grads = list(gradients(params, 4))
    found, _ = follow(optimizer.transform(params, STEPS), params, grads)
    decayed = tree.map_named(lambda name, _: is_matrix(name), params)
    plain = optax.adamw(0.05, b2=0.95, weight_decay=0.01, mask=decayed)
    theirs, _ = follow(plain, params, grads)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
        found,
        theirs,
    )


def test_the_encoder_moves_a_fifth_of_the_decoder():
    """Equal parameters under equal gradients: the updates are 1 : 5."""
    leaf = jnp.linspace(-1, 1, 12).reshape(3, 4)
    twins = {"encoder": {"kernel": leaf}, "decoder": {"kernel": leaf}}
    transform = AdamW(warmup=3, weight_decay=0.1).transform(twins, STEPS)
    moments = transform.init(twins)
    for gradient in gradients({"kernel": leaf}, 3):
        both = {"encoder": gradient, "decoder": gradient}
        updates, moments = transform.update(both, moments, twins)
        slow, fast = updates["encoder"]["kernel"], updates["decoder"]["kernel"]
        assert abs(fast).min() > 0
        # Two roundings of float32 apart at most.
        np.testing.assert_allclose(5 * slow, fast, rtol=2.5e-7)


def test_the_last_rate_that_fits_a_name_counts(params):
    optimizer = AdamW(rates={"encoder": 0.5, "encoder/cls": 0.0}, clip=None)
    found, _ = follow(optimizer.transform(params, 1000), params, gradients(params, 1))
    still = jax.tree.map(lambda a, b: bool((a == b).all()), found, params)
    assert still["encoder"]["cls"]
    assert not still["encoder"]["position"]


@pytest.mark.parametrize(
    "schedule, warmup, rates",
    [
        # A rise to the peak at the end of the warm-up, half of it half way on.
        ("cosine", 10, {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 30: 0.5, 50: 0.0}),
        ("constant", 10, {0: 0.1, 9: 1.0, 10: 1.0, 49: 1.0}),
        ("cosine", 0, {0: 1.0, 25: 0.5, 50: 0.0}),
        ("cosine", 1, {0: 1.0, 1: 1.0, 50: 0.0}),
    ],
)
def test_the_schedule(schedule, warmup, rates):
    rate = AdamW(peak=2.0, schedule=schedule, warmup=warmup).learning_rate(50)
    for step, share in rates.items():
        np.testing.assert_allclose(rate(step), 2 * share, atol=1e-6)
    values = [float(rate(step)) for step in range(51)]
    assert np.diff(values[: max(1, warmup)]).min(initial=1) > 0
    assert np.diff(values[warmup:]).max() <= 0
    assert min(values[:50]) > 0  # every update moves


def test_weight_decay_acts_on_matrices_alone(params):
    """Without gradients nothing but the decay moves a parameter."""
    optimizer = AdamW(
        peak=0.5, rates={}, warmup=0, schedule="constant", weight_decay=0.1
    )
    still = jax.tree.map(jnp.zeros_like, params)
    found, _ = follow(optimizer.transform(params, STEPS), params, [still])
    for name, after, before in zip(
        tree.names(params), *map(jax.tree.leaves, (found, params)), strict=True
    ):
        matrix = is_matrix(name)
        np.testing.assert_allclose(
            after, before * (0.95 if matrix else 1), rtol=1e-6, err_msg=name
        )


def test_frozen_parameters_stay_and_have_no_moments(params):
    optimizer = AdamW(frozen=("encoder", "embed/word"), warmup=0)
    grads = list(gradients(params, 3))
    found, moments = follow(optimizer.transform(params, STEPS), params, grads)
    held = tree.select(optimizer.frozen, params, option="frozen")
    for name, stays, after, before in zip(
        tree.names(params), *map(jax.tree.leaves, (held, found, params)), strict=True
    ):
        assert (after == before).all() == stays, name
    named = [name for name in tree.names(moments) if "/mu/" in name or "/nu/" in name]
    assert not [name for name in named if "encoder" in name or "word" in name]
    assert len(named) == 2 * jax.tree.leaves(held).count(False)
    # The others move as they do alone: the frozen ones have no part in the norm.
    rest = dict(params, embed={k: v for k, v in params["embed"].items() if k != "word"})
    del rest["encoder"]
    alone = AdamW(rates={}, warmup=0).transform(rest, STEPS)
    grads = [
        {
            "embed": {k: v for k, v in g["embed"].items() if k != "word"},
            "decoder": g["decoder"],
        }
        for g in grads
    ]
    theirs, _ = follow(alone, rest, grads)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        theirs["decoder"],
        found["decoder"],
    )


def test_no_gradient_is_computed_for_frozen_parameters(params):
    optimizer = AdamW(frozen=("encoder",))

    def loss(params):
        return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))

    found = jax.grad(lambda p: loss(optimizer.hold(p)))(params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(found["encoder"]))
    assert all(leaf.any() for leaf in jax.tree.leaves(found["decoder"]))
    assert AdamW().hold(params) is params


def test_the_first_moment_can_be_bfloat16(params):
    optimizer = AdamW(moments="bfloat16", warmup=0)
    found, moments = follow(
        optimizer.transform(params, STEPS), params, gradients(params, 2)
    )
    kinds = {
        kind: {
            leaf.dtype.name
            for name, leaf in zip(
                tree.names(moments), jax.tree.leaves(moments), strict=True
            )
            if f"/{kind}/" in f"/{name}/"
        }
        for kind in ("mu", "nu")
    }
    assert kinds == {"mu": {"bfloat16"}, "nu": {"float32"}}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"float32"}


def test_the_average_is_the_plain_recursion(params):
    held, plain = params, jax.tree.map(np.float64, params)
    for i, gradient in enumerate(gradients(params, 3)):
        moved = jax.tree.map(lambda p, g, i=i: p + (1 + i) * g, params, gradient)
        held = average(held, moved, 0.9)
        plain = jax.tree.map(lambda a, p: 0.9 * a + 0.1 * np.float64(p), plain, moved)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        held,
        plain,
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            dict(warmup=20),
            "--config.optimizer.warmup=20 leaves nothing of --config.steps=20",
        ),
        (dict(rates={"encode": 0.2}), "'encode'.*encoder/cls"),
        (dict(frozen=("decoder/layer",)), "'decoder/layer'.*decoder/layers"),
        (dict(clip=0.0), "optimizer.clip=0.0.*none"),
        (dict(ema=1.0), "optimizer.ema=1.0.*below 1"),
        (dict(warmup=-1), "optimizer.warmup=-1"),
    ],
)
def test_what_cannot_be_meant_is_refused(params, changes, message):
    with pytest.raises(ValueError, match=message):
        AdamW(**{"warmup": 2, **changes}).transform(params, STEPS)
