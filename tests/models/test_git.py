"""The laws of GIT's forward pass."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from git_jax import losses
from git_jax.data.image import Crop
from git_jax.data.pipeline import Loader
from git_jax.data.rows import pack_rows
from git_jax.data.scenes import Scenes
from git_jax.data.tokenizer import Bytes
from git_jax.decode.search import Greedy
from git_jax.models.git import Git, generate
from git_jax.nn import mask
from git_jax.nn.embed import Head, TextEmbed, logits
from git_jax.nn.transformer import Stack
from git_jax.sharding import Layout
from git_jax.tasks.caption import Caption
from git_jax.vision.vit import ViT
from git_jax.writer import Writer

WORDS, LENGTH = 50, 7


def git(**changes):
    """An odd little GIT: two frames, five layers of unequal towers."""
    tower = {k: changes.pop(k) for k in ("scan", "remat") if k in changes}
    return Git(
        encoder=ViT(
            size=24, patch=8, width=20, depth=2, heads=5, mlp=12, std=0.2, **tower
        ),
        embed=TextEmbed(
            24,
            changes.pop("words", WORDS),
            16,
            std=0.3,
            dropout=changes.pop("dropout", 0.0),
        ),
        decoder=Stack(
            width=24, depth=3, heads=3, mlp=40, norm="post", std=0.2, **tower
        ),
        frames=2,
        **changes,
    )


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "frames": jnp.array(rng.integers(0, 256, (3, 2, 24, 24, 3), np.uint8)),
        "tokens": jnp.array(rng.integers(0, WORDS, (3, LENGTH), np.int32)),
    }


@pytest.fixture(scope="module")
def params(batch):
    found = init(git(), batch)["params"]
    # Zeros at the beginning would hide what biases and temporal embeddings do.
    leaves, shape = jax.tree.flatten(found)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [
        leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(shape, noisy)


@partial(jax.jit, static_argnames=("model", "method"))
def run(params, batch, key=None, *, model, method):
    rngs = None if key is None else {"dropout": key}
    return model.apply({"params": params}, batch, rngs=rngs, method=method)


def init(model, batch):
    return jax.jit(model.init)(jax.random.key(0), batch)


def text(params, batch, model=None, method=None, key=None):
    batch = jax.tree.map(jnp.asarray, batch)
    return run(params, batch, key, model=model or git(), method=method)["text"]


def test_split_attention_equals_the_mask_by_levels(params, batch):
    fast, plain = text(params, batch), text(params, batch, method="by_levels")
    chex.assert_trees_all_close(fast, plain, atol=1e-5, rtol=1e-5)


def test_split_attention_equals_the_mask_where_frames_are_missing(params, batch):
    valid = np.array([[1, 1], [1, 0], [1, 0]], bool)
    short = batch | {"frame_valid": valid}
    fast, plain = text(params, short), text(params, short, method="by_levels")
    chex.assert_trees_all_close(fast, plain, atol=1e-5, rtol=1e-5)
    # And the missing frame is not read at all.
    frames = np.where(valid[..., None, None, None], batch["frames"], 9)
    other = dict(short, frames=frames)
    chex.assert_trees_all_close(fast, text(params, other), atol=1e-6)
    assert abs(text(params, batch)[1] - fast[1]).max() > 1e-3


def test_a_clip_that_is_filled_up_reads_as_it_is():
    """Scenes cut to one frame: a loader of two frames and one of one are equal."""

    class Cut(Scenes):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            return record | {"frames": record["frames"][:1]}

    def arrays(frames):
        loader = Loader(16, frames=frames, image=Crop(24), long="cut", threads=0)
        of = (Cut(level="clips", size=32, count=5), Caption(), Bytes())
        made = next(loader.batches(*of, batch=4, seed=0)).arrays
        return made, next(loader.evaluation(*of, batch=8)).arrays  # 3 rows of no record

    model = git(words=Bytes().size)
    params = init(model, arrays(2)[0])["params"] | {
        "temporal": jax.random.normal(jax.random.key(2), (2, 20))
    }
    (padded, asked), (plain, asked_plain) = arrays(2), arrays(1)
    assert padded["frame_valid"].tolist() == [[True, False]] * 4
    fast = text(params, padded, model)
    chex.assert_trees_all_close(fast, text(params, plain, model), atol=1e-5)
    mesh = Layout().mesh(jax.devices()[:1])
    write = Writer(model, Greedy(max_tokens=5), Bytes(), mesh)
    found, same = write(params, asked), write(params, asked_plain)
    assert [one.tokens for one in found[:5]] == [one.tokens for one in same[:5]]
    scores = np.array([[one.score for one in texts] for texts in (found, same)])
    chex.assert_trees_all_close(*scores[:, :5], atol=1e-5)
    assert np.isfinite(scores).all()


def test_a_later_token_changes_no_earlier_logit(params, batch):
    before = text(params, batch)
    for t in range(LENGTH):
        tokens = batch["tokens"].at[:, t].set((batch["tokens"][:, t] + 1) % WORDS)
        after = text(params, dict(batch, tokens=tokens))
        np.testing.assert_array_equal(before[:, :t], after[:, :t])
        assert abs(before[:, t:] - after[:, t:]).min(axis=-1).max() > 0


def test_gradients_flow_from_a_token_to_its_past_and_the_picture_alone(params, batch):
    """The Jacobian says the same of every weight at once."""
    frames = jnp.array(batch["frames"] / 255.0, jnp.float32)

    def at(position, word, frames):
        moved = dict(params, embed=dict(params["embed"], word=word))
        return text(moved, dict(batch, frames=frames))[0, position].sum()

    tokens = jnp.arange(LENGTH)[None].repeat(3, 0)  # all words differ
    batch = dict(batch, tokens=tokens)
    for position in (0, 3):
        word, pixels = jax.grad(at, (1, 2))(position, params["embed"]["word"], frames)
        touched = np.flatnonzero(abs(word).sum(axis=1) > 0)
        np.testing.assert_array_equal(touched, np.arange(position + 1))
        assert (abs(pixels[0]).max(axis=(1, 2, 3)) > 0).all()
        assert abs(pixels[1:]).max() == 0


def test_padding_teaches_its_row_nothing(params, batch):
    """Whose gradient the references hold at zero (`padding_idx`): here it is zero."""
    texts = [([7, 8], [9, 4, 2]), ([], [5, 6, 2]), ([3], [5, 9, 8, 2])]
    packed = pack_rows(texts, LENGTH, Bytes())._asdict()
    assert (packed["tokens"] == Bytes().pad).any(axis=1).all()
    batch = jax.tree.map(jnp.asarray, batch | packed)
    loss, embed = losses.Caption(), params["embed"]

    @jax.jit
    @jax.grad
    def learnt(word):
        outputs = git().apply(
            {"params": params | {"embed": embed | {"word": word}}}, batch
        )
        # An untied head: a tied one learns of every word that it does not choose.
        head = Head(embed["word"], embed["output_bias"])
        of = {"caption": loss.weight(batch)}
        return losses.total({"caption": loss}, outputs | {"head": head}, batch, of)[0]

    touched = np.flatnonzero(abs(learnt(embed["word"])).sum(axis=1) > 0)
    read = {Bytes().bos, *(id for prefix, words in texts for id in prefix + words[:-1])}
    assert Bytes().pad not in read and touched.tolist() == sorted(read)


def test_no_text_changes_an_image_feature(params, batch):
    """The picture's rows leave the decoder, under the square mask, as they would."""

    @jax.jit
    def rows(batch):
        def joined(m):
            x, _ = m.image(batch["frames"])
            size = x.shape[1]
            level = mask.git_levels(size, LENGTH)[None]
            both = jnp.concatenate([x, m.embed(batch["tokens"])], axis=1)
            return m.decoder(both, mask.from_levels(level))[:, :size]

        return git().apply({"params": params}, method=joined)

    other = dict(batch, tokens=batch["tokens"][:, ::-1])
    np.testing.assert_array_equal(rows(batch), rows(other))


def test_cached_decoding_equals_the_full_forward(params, batch):
    model, variables = git(), {"params": params}
    full = run(params, batch, model=model, method=None)
    full = logits(full["text"], full["head"])
    readers = model.apply(variables, batch["frames"], method="remember")
    # Rows begin with prefixes of different lengths, then go on a token at a time.
    start = np.array([1, 4, 2])
    cache = model.start(3, LENGTH)
    valid = jnp.arange(4) < start[:, None]
    tokens = jnp.where(valid, batch["tokens"][:, :4], 49)
    found, cache = model.apply(
        variables, tokens, valid, cache, readers, method="extend"
    )
    np.testing.assert_allclose(found, full[np.arange(3), start - 1], atol=1e-5)
    for t in range(3):
        at = start + t
        one = batch["tokens"][np.arange(3), at][:, None]
        found, cache = model.apply(
            variables, one, jnp.ones((3, 1), bool), cache, readers, method="extend"
        )
        np.testing.assert_allclose(found, full[np.arange(3), at], atol=1e-5)
    np.testing.assert_array_equal(cache.length, start + 3)


def test_beams_go_on_from_each_other(params, batch):
    """Rows that take each other's place are texts like any, and no key is moved."""
    model, variables = git(), {"params": params}
    rng, lanes = np.random.default_rng(3), 4
    readers = model.apply(variables, batch["frames"], method="remember")
    extend = jax.jit(partial(model.apply, method="extend"))
    start = np.array([2, 1, 3])
    prefix, valid = batch["tokens"][:, :3], np.arange(3) < start[:, None]
    cache = model.start(3, LENGTH)
    _, cache = extend(variables, prefix, valid, cache, readers)
    texts = [list(np.asarray(row)[: start[i]]) for i, row in enumerate(prefix)]
    rows = np.repeat(np.arange(3), lanes)
    for _ in range(LENGTH - 3):
        cache = cache.take(jnp.asarray(rows))
        words = rng.integers(0, WORDS, (3 * lanes, 1), np.int32)
        texts = [[*texts[row], word] for row, (word,) in zip(rows, words, strict=True)]
        ones = np.ones_like(words, bool)
        found, cache = extend(variables, words, ones, cache, readers)
        rows = rng.integers(0, lanes, (3, lanes)) + lanes * np.arange(3)[:, None]
        rows = rows.ravel()
    tokens = np.zeros((3 * lanes, LENGTH), np.int32)
    for row, words in enumerate(texts):
        tokens[row, : len(words)] = words
    full = run(params, dict(batch, tokens=tokens), model=model, method=None)
    full = logits(full["text"], full["head"])
    last = np.array([len(words) - 1 for words in texts])
    np.testing.assert_allclose(found, full[np.arange(3 * lanes), last], atol=1e-5)


def test_texts_share_a_picture(params, batch):
    """Two texts behind one picture are what each is behind a picture of its own."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, WORDS, (6, LENGTH), np.int32)
    shared = text(params, dict(batch, tokens=tokens))
    alone = dict(frames=np.repeat(batch["frames"], 2, axis=0), tokens=tokens)
    chex.assert_trees_all_close(shared, text(params, alone), atol=1e-5)


def test_remat_computes_again_what_it_says(params, batch):
    """Of the products in a backward pass: "dots" repeats attention's, "full" all."""

    def products(remat):
        model = git(remat=remat)

        def total(params):
            return model.apply({"params": params}, batch)["text"].sum()

        return str(jax.make_jaxpr(jax.grad(total))(params)).count(" dot_general[")

    none, dots, full = map(products, (None, "dots", "full"))
    assert none < dots < full


@pytest.mark.parametrize(
    "changes", [dict(scan=False), dict(remat="full"), dict(remat="dots", scan=False)]
)
def test_scan_and_remat_change_nothing(params, batch, changes):
    """Forward and backward, written out or rematerialised, are those of the scan."""

    def gradient(model):
        def loss(params):
            return jnp.square(text(params, batch, model)).mean()

        return jax.jit(jax.value_and_grad(loss))(params)

    chex.assert_trees_all_close(
        gradient(git()), gradient(git(**changes)), atol=1e-6, rtol=1e-5
    )


def test_scan_equals_layers_one_after_the_other(params, batch):
    """The stacked parameters are those of layers applied by hand."""
    stack = git().decoder
    x = jax.random.normal(jax.random.key(2), (2, 5, 24))
    found = stack.apply({"params": params["decoder"]}, x)
    for i in range(stack.depth):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["decoder"]["layers"])
        x = stack.layer.apply({"params": layer}, x, None, method="alone")
    chex.assert_trees_all_close(found, x, atol=1e-5)


def test_a_depth_of_one(batch):
    model = git()
    model = model.clone(decoder=model.decoder.clone(depth=1))
    variables = init(model, batch)
    plain = text(variables["params"], batch, model, "by_levels")
    for scan in (True, False):
        one = model.clone(decoder=model.decoder.clone(scan=scan))
        fast = text(variables["params"], batch, one)
        chex.assert_trees_all_close(fast, plain, atol=1e-5)
        (reader,) = one.apply(variables, batch["frames"], method="remember")
        assert reader.prefix.memory.keys.shape[0] == len(batch["frames"])


def test_generation_is_greedy_under_the_full_forward(params, batch):
    """Each word is the likeliest after those before it, read without a cache."""
    prefix = dict(
        frames=batch["frames"],
        tokens=jnp.array([[1, 5, 0], [1, 0, 0], [1, 6, 7]]),
        prefix_length=jnp.array([2, 1, 3]),
    )
    found = jax.jit(
        lambda p, b: generate(git(), p, Greedy(max_tokens=5), b, eos=2, pad=0)
    )(params, prefix)
    for row in range(3):
        length = int(prefix["prefix_length"][row])
        words = list(prefix["tokens"][row, :length])
        for t in range(int(found.length[row])):
            one = dict(
                frames=batch["frames"][row : row + 1],
                tokens=jnp.array([words], jnp.int32),
            )
            out = run(params, one, model=git(), method=None)
            scores = logits(out["text"][:, -1], out["head"])[0]
            assert int(scores.argmax()) == int(found.tokens[row, t])
            words.append(int(found.tokens[row, t]))


def test_dropout_acts_where_a_key_is_given(params, batch):
    model = git(dropout=0.5)
    still = text(params, batch, model)
    chex.assert_trees_all_equal(still, text(params, batch))
    one, two, again = (
        text(params, batch, model, key=jax.random.key(k)) for k in (0, 1, 0)
    )
    chex.assert_trees_all_equal(one, again)
    assert abs(one - two).max() > 0.1
    assert abs(one - still).max() > 0.1


def test_bfloat16_is_near_float32_and_keeps_float32_where_it_matters(params, batch):
    wide = text(params, batch)
    out = run(params, batch, model=git(dtype="bfloat16"), method=None)
    assert out["text"].dtype == jnp.bfloat16
    assert logits(out["text"], out["head"]).dtype == jnp.float32
    error = jnp.linalg.norm(out["text"] - wide) / jnp.linalg.norm(wide)
    assert error < 0.03
    made = init(git(dtype="bfloat16"), batch)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}


def test_one_trace_for_batches_of_one_shape(params, batch):
    step = jax.jit(chex.assert_max_traces(lambda p, b: text(p, b), n=1))
    for shift in range(3):
        step(params, dict(batch, tokens=(batch["tokens"] + shift) % WORDS))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(frames=np.zeros((1, 3, 24, 24, 3), np.uint8)), "3 frames"),
        (dict(frames=np.zeros((1, 1, 7, 24, 3), np.uint8)), "7 x 24 pixels holds no"),
        (dict(tokens=np.zeros((1, 17), np.int32)), "17 tokens"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(params, batch, change, message):
    one = dict(frames=batch["frames"][:1], tokens=batch["tokens"][:1]) | change
    with pytest.raises(ValueError, match=message):
        text(params, one)
