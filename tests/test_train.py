"""The laws of training, in this process; test_run.py has those of whole processes."""

import dataclasses
import json
import shutil
import types
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from git_jax import command, train, tree, writer
from git_jax import config as configs
from git_jax.checkpoint import Checkpoints
from git_jax.config import build, spec
from git_jax.data import tokenizer as tokenizers
from git_jax.data.image import Resize, Within
from git_jax.data.scenes import Scenes
from git_jax.init import Init
from git_jax.run import Run
from git_jax.sharding import Layout
from git_jax.train import Program, State, Trainer, fit, resume
from git_jax.writer import Writer
from tests import tiny

ONE = tiny.Alone()
MODEL = build(tiny.scenes().model)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    config = tiny.scenes()
    return tokenizers.prepare(
        build(config.tokenizer), build(config.data), tmp_path_factory.mktemp("words")
    )


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def losses(path):
    return [row["loss"] for row in rows(path / "metrics.jsonl")]


def checkpoints(path):
    return sorted(int(p.name) for p in (path / "checkpoints").iterdir())


def state_of(directory, config, step):
    """What a checkpoint of a run holds, as arrays of this process."""
    mesh, run = ONE.mesh(), Run(directory)
    batch = tiny.batches(config, run.tokenizer(config), 1)[0]
    trainer = Trainer.on(Program.of(config), mesh, batch)
    with run.store() as store:
        return store.restore(step, trainer.like())


def steps(config, mesh, batches):
    """The losses of a step for each batch, and the state after them."""
    trainer, found = Trainer.on(Program.of(config), mesh, batches[0]), []
    with jax.set_mesh(mesh):
        state, step = trainer.init(), trainer.step_fn()
        for batch in batches:
            state, metrics = step(state, trainer.put(batch))
            found.append(metrics)
    return jax.device_get(found), jax.device_get(state)


# A batch in parts, on one device and on eight ------------------------------------


@pytest.fixture(scope="module")
def plain(tokenizer):
    """Ten steps on one device, two texts a picture, as one part."""
    config = tiny.here(steps=20, loader__captions=2)
    batches = tiny.batches(config, tokenizer, 10)
    assert len(batches[0]["tokens"]) == 2 * len(batches[0]["frames"]) == 16
    paid = batches[0]["target"].reshape(4, -1).sum(axis=1)
    assert len(set(paid)) > 1  # parts of unequal weight
    return config, batches, *steps(config, ONE.mesh(), batches)


@pytest.mark.parametrize(
    "layout, accumulate",
    [(ONE, 4), (Layout(2, 2, 2), 1), (Layout(2, 2, 2), 2)],
    ids=["4 parts", "data 2, fsdp 2, tensor 2", "both"],
)
def test_parts_and_devices_change_nothing(plain, layout, accumulate):
    config, batches, metrics, state = plain
    config = config.copy_and_resolve_references()
    config.accumulate = accumulate
    found, after = steps(config, layout.mesh(), batches)
    for name in ("loss", "caption_accuracy", "gradient_norm"):
        np.testing.assert_allclose(
            [m[name] for m in found],
            [m[name] for m in metrics],
            rtol=1e-5 if name == "loss" else 1e-4,
            err_msg=name,
        )
    assert after.step == state.step == 10
    moved = 0.0
    for name, a, b in zip(
        tree.names(state.params),
        *map(jax.tree.leaves, (state.params, after.params)),
        strict=True,
    ):
        # Softmax does not see a key's bias: its gradient is rounding, of which Adam
        # makes a whole step.
        if not name.endswith("key/bias"):
            np.testing.assert_allclose(a, b, atol=1e-4, err_msg=name)
            moved = max(moved, abs(a).max())
    assert moved > 0.02


def test_microbatches_keep_texts_with_their_pictures():
    """Every picture is in one part, and every part in all devices' rows."""
    batch = {"frames": jnp.arange(8), "tokens": jnp.arange(16)[:, None] // 2}
    parts = train.microbatches(batch, 4)
    assert parts["frames"].shape == (4, 2)
    assert parts["tokens"].shape == (4, 4, 1)
    np.testing.assert_array_equal(parts["tokens"][..., 0], parts["frames"].repeat(2, 1))
    np.testing.assert_array_equal(np.sort(parts["frames"].ravel()), np.arange(8))
    # Part 0 has pictures of the first and of the last device.
    np.testing.assert_array_equal(parts["frames"][0], [0, 4])


@pytest.mark.parametrize(
    "layout, accumulate, ways", [(Layout(2, 4), 2, 8), (ONE, 3, 1), (ONE, 16, 1)]
)
def test_a_batch_that_does_not_divide_is_refused(tokenizer, layout, accumulate, ways):
    config = tiny.here(accumulate=accumulate)
    batch = tiny.batches(config, tokenizer, 1)[0]
    with pytest.raises(
        ValueError,
        match=f"batch=8 .* accumulate={accumulate} times the {ways} parts that mesh",
    ):
        Trainer.on(Program.of(config), layout.mesh(), batch)


# A run ---------------------------------------------------------------------------


def settings(**changes):
    """Six steps with all that a state can hold, a checkpoint after every second."""
    return tiny.here(
        **{
            "steps": 6,
            "checkpoint__every": 2,
            "checkpoint__keep": 9,
            "evaluate__every": 4,
            "evaluate__samples": 24,
            "optimizer__ema": 0.5,
            "model__decoder__dropout": 0.1,
            **changes,
        }
    ).lock()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, not to be changed; `copy` gives one's own."""
    directory = tmp_path_factory.mktemp("runs") / "trained"
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((train, "train_step"), (writer, "generate")):
            once = chex.assert_max_traces(getattr(module, name), n=1)
            patch.setattr(module, name, once)
        fit(settings(), directory)
    return directory


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture(scope="module")
def again(trained):
    """The same six steps by hand: the states, and the metrics read at the end."""
    config, mesh = settings(), ONE.mesh()
    batches = tiny.batches(config, Run(trained).tokenizer(config), 6)
    trainer, states, metrics = Trainer.on(Program.of(config), mesh, batches[0]), [], []
    with jax.set_mesh(mesh):
        state, step = trainer.init(), trainer.step_fn()
        states.append(jax.tree.map(jnp.copy, state))
        for batch in batches:
            before = state
            state, measured = step(state, trainer.put(batch))
            # The old state is given up, and what was measured is not.
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
            states.append(jax.tree.map(jnp.copy, state))
            metrics.append(measured)
    return jax.device_get(states), jax.device_get(metrics)


def test_a_run_keeps_what_it_promises(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "config.json",
        "tokenizer.model",
        "metrics.jsonl",
        "samples.jsonl",
        "scores.json",
        "report.html",
        "checkpoints",
        "predictions",
        "tensorboard",
    }
    assert checkpoints(trained) == [2, 4, 6]
    scores = json.loads((trained / "scores.json").read_text())
    assert set(scores) == {"train"} and scores["train"]["examples"] == 24
    assert len(rows(trained / "predictions" / "train.jsonl")) == 24
    # Every fourth step, and the last one.
    samples = [row["step"] for row in rows(trained / "samples.jsonl")]
    assert samples == [4] * 24 + [6] * 24


def test_a_line_for_each_step_with_its_loss_to_the_bit(trained, again):
    _, metrics = again
    lines = rows(trained / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line, measured in zip(lines, metrics, strict=True):
        for name, value in measured.items():
            assert np.float32(line[name]) == value
            assert line[name] == float(value)  # not rounded
        assert line["images_per_second"] > 0 and line["waited"] >= 0
    # A rate at its peak after the warm-up of two, then the cosine.
    rate = build(settings().optimizer).learning_rate(6)
    assert [line["learning_rate"] for line in lines] == [
        float(rate(i)) for i in range(6)
    ]


def test_the_checkpoints_are_the_states_of_their_steps(trained, again):
    states, _ = again
    for step in (2, 4, 6):
        chex.assert_trees_all_equal(
            jax.device_get(state_of(trained, settings(), step)), states[step]
        )


def test_the_average_is_the_plain_recursion_and_is_what_is_evaluated(trained, again):
    states, _ = again
    plain = jax.tree.map(np.float64, states[0].params)
    for state in states[1:]:
        plain = jax.tree.map(lambda a, p: 0.5 * a + 0.5 * p, plain, state.params)
    chex.assert_trees_all_close(states[-1].average, plain, atol=1e-6)
    step, params = Run(trained).parameters(ONE.mesh())
    assert step == 6
    chex.assert_trees_all_equal(jax.device_get(params), states[-1].average)
    apart = jax.tree.map(lambda a, p: abs(a - p).max(), params, states[-1].params)
    assert max(jax.tree.leaves(apart)) > 1e-4
    assert states[-1].evaluated is states[-1].average


def test_dropout_follows_from_the_step_alone(again, tokenizer):
    """Another seed, other noise; the same seed and step, the same."""
    states, metrics = again
    config, mesh = settings(), ONE.mesh()
    batch = tiny.batches(config, tokenizer, 1)[0]
    trainer = Trainer.on(Program.of(config), mesh, batch)

    def loss(state, **changes):
        program = dataclasses.replace(trainer.program, **changes)
        step = jax.jit(lambda s, b: train.train_step(s, b, program=program)[1]["loss"])
        return [
            float(step(s, batch)) for s in (state, state.replace(step=jnp.int32(1)))
        ]

    first, second = loss(states[0])
    assert first != second
    np.testing.assert_allclose(first, metrics[0]["loss"], rtol=1e-6)


def options(run, **flags):
    """A command line that gives the config of a run."""
    given = types.SimpleNamespace(config=str(run / "config.json"), **flags)
    return command.Command(given, [], [])


def test_a_finished_run_says_so_and_is_left_as_it_is(trained, capsys):
    before = {
        path: path.read_bytes()
        for name in ("checkpoints", "metrics.jsonl", "scores.json", "samples.jsonl")
        for path in [trained / name, *(trained / name).rglob("*")]
        if path.is_file()
    }
    assert train.main(options(trained, workdir=str(trained))) == 0
    told = capsys.readouterr().err
    assert "all 6 steps are done; to train on, name another --workdir and " in told
    assert f"--config.init.run={trained}" in told
    assert f"page: {trained / 'report.html'}\n" in told
    for path, kept in before.items():
        assert path.read_bytes() == kept, path


@pytest.mark.parametrize("workdir", [None, ""])  # "": of a variable that is not set
def test_a_workdir_is_required(trained, workdir):
    with pytest.raises(ValueError, match="--workdir is missing"):
        train.main(options(trained, workdir=workdir))


def test_a_half_written_checkpoint_is_as_none_and_the_rest_is_taken_again(
    copy, trained
):
    """Killed while it wrote step 6, and scored by hand before: all as if never."""
    whole = copy / "checkpoints" / "6"
    whole.rename(whole.with_name("6.orbax-checkpoint-tmp"))
    (copy / "scores.json").write_text("{}")
    fit(settings(), copy)
    assert losses(copy) == losses(trained)
    chex.assert_trees_all_equal(
        *(jax.device_get(state_of(path, settings(), 6)) for path in (copy, trained))
    )
    for name in ("scores.json", "predictions/train.jsonl", "samples.jsonl"):
        assert (copy / name).read_bytes() == (trained / name).read_bytes()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_is_refused_by_name(copy):
    for path in (copy / "checkpoints" / "6" / "state").rglob("manifest.ocdbt"):
        path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(
        ValueError, match="checkpoints/6 cannot be read.*move .* go on from step 4"
    ):
        fit(settings(), copy)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"optimizer__peak": 0.5}, "optimizer.peak: 0.003 -> 0.5"),
        ({"model__encoder__depth": 3}, "model.encoder.depth: 2 -> 3"),
        ({"seed": 4}, "seed: 3 -> 4"),
        ({"data__count": 25}, "data.count: 24 -> 25"),
        ({"steps": 9}, "steps: 6 -> 9.* --workdir that begins .*--config.init.run=/"),
    ],
)
def test_a_workdir_of_another_config_is_refused_by_the_field(trained, changes, message):
    kept = (trained / "config.json").read_bytes()
    with pytest.raises(ValueError, match=f"another config .*{message}.*"):
        fit(settings(**changes), trained)
    assert (trained / "config.json").read_bytes() == kept


def test_a_workdir_that_is_no_run_is_refused(tmp_path, trained):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--workdir=.*file is a file"):
        fit(settings(), tmp_path / "file")
    with pytest.raises(ValueError, match="--workdir=.*/x cannot be written .Not a dir"):
        fit(settings(), tmp_path / "file" / "x")
    (tmp_path / "part" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match="checkpoints but no config.json"):
        fit(settings(), tmp_path / "part")
    for place, message in (
        (tmp_path / "no", "no such folder"),
        (tmp_path, "no config"),
    ):
        with pytest.raises(ValueError, match=f"--run={place}.*{message}"):
            Run.open(str(place))
    with pytest.raises(ValueError, match="--run= is empty"):
        Run.open("")


def test_a_start_that_failed_does_not_stand_in_the_way(tmp_path):
    """What was mistyped is typed again, into the same directory."""
    run = Run(tmp_path / "run")
    run.begin(settings(seed=3))
    run.begin(settings(seed=4))
    assert configs.load(run.directory / "config.json").seed == 4
    (run.checkpoints / "5").mkdir(parents=True)
    with pytest.raises(ValueError, match="seed: 4 -> 5"):
        run.begin(settings(seed=5))


@pytest.mark.parametrize("name", ["steps", "batch", "accumulate"])
def test_counts_are_at_least_one(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be at least 1"):
        Program.of(settings(**{name: 0}))


def test_a_tokenizer_that_is_not_the_checkpoints_is_refused(copy):
    other = build(spec(tokenizers.SentencePiece, vocabulary=300))
    (copy / "tokenizer.model").write_bytes(other.train(["a cat and a dog"] * 9))
    with pytest.raises(
        ValueError, match="checkpoints/6 was trained with another token"
    ):
        fit(settings(), copy)


def test_a_vocabulary_without_room_for_the_tokenizer_is_refused(tmp_path):
    config = settings(model__embed__vocabulary=128)
    with pytest.raises(ValueError, match=r"model.embed.vocabulary=128 has no room"):
        fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # a start that was refused left nothing


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(loader__image__size=36), r"loader.image.size=36.*encoder.patch=8.*32 or"),
        (dict(loader__sizes=(32, 44)), r"loader.sizes=44.*last 4 pixels.*40 or 48"),
        (dict(loader__sizes=(32, 4)), r"loader.sizes=4 .*: take 8$"),
        (dict(loader__sizes=(0, 32)), r"loader.sizes=\(0, 32\): size=0 is no width"),
        (
            dict(loader__image=spec(Within, short=32, long=48)),
            r"loader.image.long=48 keeps the aspect",
        ),
    ],
)
def test_pictures_whose_edge_would_not_be_seen_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(settings(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_trace_of_the_step_for_each_size(tokenizer, monkeypatch):
    config = tiny.here(steps=20, loader__sizes=(24, 32))
    batches = tiny.batches(config, tokenizer, 6)
    assert {batch["frames"].shape[2] for batch in batches} == {24, 32}
    twice = chex.assert_max_traces(train.train_step, n=2)
    monkeypatch.setattr(train, "train_step", twice)
    metrics, state = steps(config, ONE.mesh(), batches)
    assert state.step == 6 and np.isfinite([m["loss"] for m in metrics]).all()


def test_a_start_that_is_refused_leaves_what_was_there(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"has no room"):
        fit(settings(model__embed__vocabulary=128), tmp_path / "run")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


# Beginning with another run ------------------------------------------------------


def made_of(monkeypatch):
    """Bytes of new arrays that are there as the first state is made, and given up."""
    peak, before, first = [], jax.live_arrays(), Trainer.init

    def init(self, given):
        known = {id(leaf) for leaf in before}
        new = [leaf for leaf in jax.live_arrays() if id(leaf) not in known]
        peak.append(sum(leaf.nbytes for leaf in new))
        state = first(self, given)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
        return state

    monkeypatch.setattr(Trainer, "init", init)
    return peak


def test_a_run_begins_with_the_parameters_of_another(
    trained, again, tokenizer, tmp_path, monkeypatch
):
    config, last = settings(), again[0][-1]
    batch = tiny.batches(config, tokenizer, 1)[0]
    trainer = Trainer.on(Program.of(config), ONE.mesh(), batch)
    with build(config.checkpoint).open(tmp_path / "none", {}) as store:
        drawn, _ = resume(trainer, store, Init(), tokenizer)
        peak = made_of(monkeypatch)
        state, done = resume(trainer, store, Init(str(trained)), tokenizer)
    # They were all there was before they became the state's.
    assert peak == [sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))]
    assert done == state.step == 0
    chex.assert_trees_all_equal(jax.device_get(state.params), last.average)
    chex.assert_trees_all_equal(jax.device_get(state.average), last.average)
    chex.assert_trees_all_equal(state.opt_state, drawn.opt_state)
    # Each can be given up on its own.
    held = jax.tree.leaves(state.params), jax.tree.leaves(state.average)
    assert all(a is not b for a, b in zip(*held, strict=True))


def test_what_is_given_is_not_drawn_and_the_rest_is_as_ever(tokenizer):
    config = tiny.here()
    batch = tiny.batches(config, tokenizer, 1)[0]
    trainer = Trainer.on(Program.of(config), ONE.mesh(), batch)
    drawn = jax.device_get(trainer.init().params)
    make = jax.jit(partial(train.init_state, trainer.program, trainer.batch))

    def normals(given):
        return make.lower(given).as_text().count("erf_inv")

    encoder = {"encoder": jax.tree.map(jnp.ones_like, drawn["encoder"])}
    assert normals({}) > normals(encoder) > normals(drawn) == 0
    found = jax.device_get(trainer.init(encoder).params)
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(found["encoder"]))
    chex.assert_trees_all_equal(found, drawn | {"encoder": found["encoder"]})


def test_going_on_draws_nothing_and_asks_for_no_beginning(
    trained, tokenizer, monkeypatch
):
    config = settings()
    batch = tiny.batches(config, tokenizer, 1)[0]
    trainer = Trainer.on(Program.of(config), ONE.mesh(), batch)
    monkeypatch.setattr(train, "init_state", None)
    with Run(trained).store() as store:
        state, done = resume(trainer, store, Init("gone since"), tokenizer)
    assert done == state.step == 6


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"model__decoder__mlp": 48},
            r"decoder/layers/ffn/down/kernel is \(2, 32, 16\) there and \(2, 48, 16\)",
        ),
        ({"model__frames": 2}, "temporal is absent there"),
    ],
)
def test_another_runs_parameters_of_other_shapes_are_refused_by_name(
    trained, tokenizer, changes, message
):
    config, mesh = settings(**changes), ONE.mesh()
    batch = tiny.batches(config, tokenizer, 1)[0]
    program = Program.of(config)
    like = Trainer.on(program, mesh, batch).shapes.params
    with pytest.raises(ValueError, match=f"init.run=.*trained: {message}"):
        Init(str(trained)).given(like, program.model, mesh, tokenizer)


def test_a_run_of_other_words_is_refused(trained, again):
    with pytest.raises(ValueError, match=r"other words.*tokenizer.path.*trained"):
        Init(str(trained)).given(
            again[0][0].params, MODEL, ONE.mesh(), tokenizers.Bytes()
        )


def test_a_run_that_is_not_there_is_refused(trained, again, tokenizer):
    nowhere = Init(str(trained.with_name("nowhere")))
    refused = "--config.init.run=.*nowhere: there is no such folder"
    with pytest.raises(ValueError, match=refused):
        nowhere.given(again[0][0].params, MODEL, ONE.mesh(), tokenizer)


# What must not be learnt from ----------------------------------------------------


@pytest.mark.parametrize("poisoned", [4, 5])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(
    copy, poisoned
):
    """The next step is 5, which is not saved, or 6, which would be."""
    config = settings()
    state = state_of(copy, config, 4)
    bias = state.params["embed"]["output_bias"].at[0].set(jnp.nan)
    state.params["embed"]["output_bias"] = bias
    for step in (4, 6):
        if step >= poisoned:
            shutil.rmtree(copy / "checkpoints" / str(step))
    run = Run(copy)
    about = run.about(config, run.tokenizer(config))
    with Checkpoints(keep=9).open(run.checkpoints, about) as store:
        store.save(poisoned, state.replace(step=jnp.int32(poisoned)))
    bad = poisoned + 1
    with pytest.raises(
        ValueError,
        match=f"step {bad}: loss and gradient_norm is not finite.*checkpoint of step "
        f"{poisoned} is as it was.*optimizer.peak.*optimizer.clip",
    ):
        fit(config, copy)
    assert checkpoints(copy) == [2, 4, poisoned][: poisoned - 2]
    found = json.loads((copy / "not_finite.json").read_text())
    assert found["step"] == bad and found["loss"] == "nan"
    loader = build(config.loader)
    batches = loader.batches(
        build(config.data),
        build(config.task),
        run.tokenizer(config),
        batch=8,
        seed=config.seed,
        start=poisoned,
    )
    assert found["records"] == next(batches).ids
    last = rows(copy / "metrics.jsonl")[-1]
    assert last["step"] == bad and last["loss"] is None


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Eight scenes as files, one caption each."""
    folder, source = tmp_path_factory.mktemp("pictures"), Scenes(size=tiny.SIZE)
    lines = []
    for number in range(8):
        record = source[number]
        Image.fromarray(record["frames"][0]).save(folder / f"{number}.png")
        lines.append({"file_name": f"{number}.png", "text": record["texts"][0]})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metadata.jsonl").write_text(text)
    return folder


def of_folder(path, **changes):
    config = tiny.here(
        data=tiny.folder().data,
        tokenizer__vocabulary=300,
        loader__text=56,
        model__embed__positions=64,
        **changes,
    )
    config.data.path = str(path)
    return config


def test_overfitting_eight_pictures_reaches_their_captions(pictures, tmp_path):
    config = of_folder(
        pictures,
        steps=250,
        optimizer__peak=1e-2,
        optimizer__warmup=10,
        loader__image=spec(Resize, size=tiny.SIZE),
    )
    source, mesh = build(config.data), ONE.mesh()
    tokenizer = tokenizers.prepare(build(config.tokenizer), source, tmp_path)
    batches = tiny.batches(config, tokenizer, config.steps)
    metrics, state = steps(config, mesh, batches)
    # All that is left is what smoothing asks for.
    assert metrics[-1]["caption_accuracy"] == 1
    loader, task = build(config.loader), build(config.task)
    batch = next(loader.evaluation(source, task, tokenizer, batch=8))
    search = dataclasses.replace(build(config.evaluate.search), max_tokens=56)
    write = Writer(build(config.model), search, tokenizer, mesh)
    said = [text.text for text in write(state.params, batch.arrays)]
    captions = [source[number]["texts"][0] for number in range(8)]
    assert len(set(captions)) == 8
    assert said == [tokenizer.decode(tokenizer.encode(text)) for text in captions]


@pytest.fixture
def spoilt(pictures, tmp_path):
    """The same with one picture cut short."""
    folder = shutil.copytree(pictures, tmp_path / "spoilt")
    path = folder / "5.png"
    path.write_bytes(path.read_bytes()[:200])
    return folder


def test_bad_records_are_replaced_and_counted(spoilt, tmp_path, capsys):
    config = of_folder(spoilt, steps=6, loader__bad_fraction=0.5)
    fit(config.lock(), tmp_path / "run")
    told = capsys.readouterr().err
    assert told.count("another record takes its place") == 1
    assert "5.png cannot be read" in told
    named = rows(tmp_path / "run" / "bad_records.jsonl")
    assert {row["id"] for row in named} == {"5.png"}
    counted = {
        row["step"]: row["bad_records"]
        for row in rows(tmp_path / "run" / "metrics.jsonl")
        if "bad_records" in row
    }
    reasons = {row["reason"] for row in named}
    assert len(reasons) == 1 and "truncated" in reasons.pop()
    for step, counts in counted.items():
        assert sum(counts.values()) == sum(row["step"] <= step for row in named)
    # Batch is set: each epoch of eight met it once.
    assert sum(counted[6].values()) >= 6
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert (scores["train"]["examples"], scores["train"]["unreadable"]) == (7, 1)
    assert (tmp_path / "run" / "report.html").exists()


def test_too_many_bad_records_end_the_run(spoilt, tmp_path):
    config = of_folder(spoilt, steps=6)
    with pytest.raises(
        ValueError, match=r"could not be read.*bad_fraction=0.01.*5.png.*bad_records"
    ):
        fit(config.lock(), tmp_path / "run")
    assert rows(tmp_path / "run" / "bad_records.jsonl")[0]["step"] == 1


def test_a_state_knows_what_is_evaluated():
    assert State(0, params="now", opt_state=None).evaluated == "now"
    assert State(0, params="now", opt_state=None, average="mean").evaluated == "mean"
