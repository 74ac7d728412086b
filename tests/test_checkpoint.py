"""What was saved comes back to the bit, or is refused by name."""

import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from git_jax import sharding
from git_jax.checkpoint import Checkpoints, Store, require_same_shapes
from git_jax.sharding import Layout
from git_jax.train import State

ABOUT = {"config": {"steps": 3}, "tokenizer": "bytes:0"}


def state(step=1, average=False):
    """Three parameters, each of another placement, their moments and a counter."""
    rng = np.random.default_rng(step)

    def made(*shape):
        return jnp.array(rng.normal(size=shape), jnp.float32)

    params = {
        "embed": {"word": made(16, 8), "output_bias": made(16)},
        "decoder": {"layers": {"ffn": {"up": {"kernel": made(2, 8, 4)}}}},
    }
    moments = jax.jit(optax.adam(0.1).init)(params)
    return State(
        jnp.int32(step), params, moments, jax.tree.map(lambda x: -x, params)
    ).replace(**({} if average else {"average": None}))


def one():
    return Layout(1).mesh(jax.devices()[:1])


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of steps 1 and 2; not to be changed, `copy` gives one's own."""
    directory = tmp_path_factory.mktemp("saved")
    with Checkpoints().open(directory, ABOUT) as store:
        for step in (1, 2):
            store.save(step, state(step, average=True))
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def test_a_state_comes_back_to_the_bit_on_any_mesh(saved):
    for mesh in (one(), Layout(2, 2, 2).mesh(), Layout(8).mesh()):
        with Store(saved) as store:
            assert store.latest() == 2
            like = sharding.placed(state(average=True), mesh)
            found = store.restore(2, like)
        equal(found, state(2, average=True))
        places = [leaf.sharding for leaf in jax.tree.leaves(found)]
        assert places == [leaf.sharding for leaf in jax.tree.leaves(like)]


def test_a_part_comes_back_alone(saved):
    mesh = Layout(2, 2, 2).mesh()
    with Store(saved) as store:
        assert store.parts(1) == {"step", "params", "opt_state", "average"}
        assert store.about(1) == ABOUT
        found = store.restore_part(1, "average", mesh)
        up = store.restore_part(1, "average/decoder/layers/ffn", mesh)
        host = store.restore_part(1, "params", None)
    equal(found, state(1, average=True).average)
    equal(up, found["decoder"]["layers"]["ffn"])
    equal(host, state(1).params)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(host))
    kernel = found["decoder"]["layers"]["ffn"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 4, 2)


def test_reading_changes_nothing(copy, tmp_path):
    def seen():
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    (copy / "3.orbax-checkpoint-tmp").mkdir()  # somebody may be writing it
    before = seen()
    with Store(copy) as store:
        store.restore(store.latest(), sharding.placed(state(average=True), one()))
        assert not store.due(1000)
    with Store(tmp_path / "none") as store:
        assert store.latest() is None
    assert seen() == before


def test_a_checkpoint_is_due_every_so_many_steps(tmp_path):
    with Checkpoints(every=3).open(tmp_path, ABOUT) as store:
        assert [step for step in range(1, 10) if store.due(step)] == [3, 6, 9]


def test_a_state_of_many_devices_is_saved_whole(tmp_path):
    placed = jax.tree.map(
        lambda leaf, like: jax.device_put(leaf, like.sharding),
        state(3),
        sharding.placed(state(3), Layout(2, 2, 2).mesh()),
    )
    with Checkpoints().open(tmp_path, ABOUT) as store:
        store.save(3, placed)
        # The arrays may be given up at once: writing goes on from a copy.
        jax.tree.map(lambda leaf: leaf.delete(), placed)
        store.wait()
        assert store.parts(3) == {"step", "params", "opt_state"}
        equal(store.restore(3, sharding.placed(state(), one())), state(3))


def test_the_newest_stay_and_those_of_a_period(tmp_path):
    with Checkpoints(keep=2, keep_period=3).open(tmp_path, ABOUT) as store:
        for step in range(1, 8):
            store.save(step, {"step": jnp.int32(step)})
        store.wait()
    left = sorted(int(path.name) for path in tmp_path.iterdir())
    assert left == [3, 6, 7]


def test_a_half_written_checkpoint_is_passed_over(copy):
    half = copy / "3.orbax-checkpoint-tmp"
    (half / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    (half / "state.orbax-checkpoint-tmp" / "manifest.ocdbt").write_bytes(b"half")
    with Checkpoints().open(copy, ABOUT) as store:
        assert store.latest() == 2
        equal(
            store.restore(2, sharding.placed(state(average=True), one())),
            state(2, average=True),
        )
        # The step that was cut off is taken again and saved.
        store.save(3, state(3, average=True))
        store.wait()
        assert store.latest() == 3
        equal(
            store.restore(3, sharding.placed(state(average=True), one())),
            state(3, average=True),
        )


# Orbax gives up at the first array it cannot read; the futures of the others then find
# its event loop closed and say so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["removed", "truncated"])
def test_a_damaged_file_is_an_error_that_names_the_checkpoint_or_of_no_effect(
    copy, damage
):
    """Every file of a checkpoint in turn: never other numbers, never a strange error.

    The newest is damaged, so the way out is the one before it.
    """
    folder, refused = copy / "2", []
    want = state(2, average=True)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        kept = path.read_bytes()
        if damage == "removed":
            path.unlink()
        else:
            path.write_bytes(kept[: len(kept) // 2])
        with Store(copy) as store:
            latest = store.latest()
            if latest == 2:  # else it counts as one that was never finished
                for read in (
                    lambda: store.restore(2, sharding.placed(want, one())),
                    lambda: store.restore_part(2, "params", one()),
                    lambda: store.restore_part(2, "params", None),
                    lambda: store.about(2),
                ):
                    try:
                        found = read()
                    except ValueError as error:
                        refused.append(path)
                        message = str(error)
                        assert f"{folder} cannot be read" in message
                        assert "move that folder away to go on from step 1" in message
                    else:
                        if isinstance(found, State):
                            equal(found, want)
                        elif found != ABOUT:
                            equal(found, want.params)
        path.write_bytes(kept)
    assert len(refused) >= 3
    with Store(copy) as store:
        equal(store.restore(2, sharding.placed(want, one())), want)
    gc.collect()  # what is to be said of these reads is said here


def test_an_empty_folder_says_how_to_begin_again(copy):
    shutil.rmtree(copy / "1")
    shutil.rmtree(copy / "2" / "state")
    with Store(copy) as store:
        with pytest.raises(ValueError, match="2 cannot be read.*no other.*move"):
            store.restore(2, sharding.placed(state(average=True), one()))
    shutil.rmtree(copy / "2")
    with Store(copy) as store:
        assert store.latest() is None


def test_arrays_of_other_shapes_are_refused_by_name(saved):
    other = state(average=True)
    other.params["embed"]["word"] = jnp.zeros((24, 8))
    with Store(saved) as store:
        with pytest.raises(
            ValueError,
            match=r"2/state: params/embed/word is \(16, 8\) there and \(24, 8\) in",
        ):
            store.restore(2, sharding.placed(other, one()))
        with pytest.raises(ValueError, match=r"average/.* is \(.*\) there and absent"):
            store.restore(2, sharding.placed(state(), one()))


def test_same_shapes_are_the_same_whatever_lies_in_them():
    require_same_shapes("here", state(1), jax.eval_shape(lambda: state(2)))
    with pytest.raises(ValueError, match="here: average/.* is absent there and"):
        require_same_shapes("here", state(), state(average=True))


@pytest.mark.parametrize("field", ["every", "keep", "keep_period"])
def test_no_checkpoints_are_refused(tmp_path, field):
    with pytest.raises(ValueError, match=f"checkpoint.{field}=0"):
        Checkpoints(**{field: 0}).open(tmp_path, ABOUT)
