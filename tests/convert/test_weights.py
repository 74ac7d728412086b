"""Files of weights: every form is read, and a broken one is named."""

import json
import os
import pickle
import shlex

import ml_dtypes
import numpy as np
import pytest

from git_jax.convert import weights

RNG = np.random.default_rng(0)
ARRAYS = {
    "a.weight": RNG.normal(size=(4, 3)).astype(np.float32),
    "a.bias": RNG.normal(size=(4,)).astype(np.float32),
    "b": RNG.normal(size=(2, 2, 5)).astype(np.float32),
}


def same(found, want=ARRAYS):
    assert found.keys() == want.keys()
    for name, array in want.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)


def sharded(folder):
    weights.save(folder / "one.safetensors", {"b": ARRAYS["b"]})
    rest = {name: array for name, array in ARRAYS.items() if name != "b"}
    weights.save(folder / "two.safetensors", rest)
    index = {name: "two.safetensors" for name in rest} | {"b": "one.safetensors"}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return path


def test_safetensors(tmp_path):
    weights.save(tmp_path / "model.safetensors", ARRAYS)
    with weights.opened(tmp_path) as found:
        same(found)
        assert found.where == tmp_path / "model.safetensors"
    with weights.opened(tmp_path / "model.safetensors") as found:
        same(found)


def test_shards(tmp_path):
    sharded(tmp_path)
    with weights.opened(tmp_path) as found:
        same(found)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_sixteen_bits_become_float32(tmp_path, dtype):
    narrow = {name: array.astype(dtype) for name, array in ARRAYS.items()}
    weights.save(tmp_path / "model.safetensors", narrow)
    with weights.opened(tmp_path) as found:
        same(found, {name: a.astype(np.float32) for name, a in narrow.items()})


def test_names(tmp_path):
    weights.save(tmp_path / "model.safetensors", ARRAYS)
    with weights.opened(tmp_path) as found:
        assert set(found.without("a.")) == {"weight", "bias", "b"}
        np.testing.assert_array_equal(found.without("a.")["bias"], ARRAYS["a.bias"])


@pytest.mark.parametrize("bytes_left", [0, 5, 60, -4])
def test_a_file_that_is_cut_off(tmp_path, bytes_left):
    path = tmp_path / "model.safetensors"
    weights.save(path, ARRAYS)
    path.write_bytes(path.read_bytes()[:bytes_left])
    with pytest.raises(ValueError, match=r"model\.safetensors .*no whole safetensors"):
        with weights.opened(tmp_path):
            pass


def test_a_missing_shard(tmp_path):
    sharded(tmp_path)
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(ValueError, match="shard two.safetensors, which is not there"):
        with weights.opened(tmp_path):
            pass


def test_a_shard_that_lacks_an_array(tmp_path):
    sharded(tmp_path)
    weights.save(tmp_path / "one.safetensors", {"c": ARRAYS["b"]})
    with pytest.raises(ValueError, match="one.safetensors holds b, which it does not"):
        with weights.opened(tmp_path):
            pass


@pytest.mark.parametrize(
    "content, message",
    [
        ("[]", "no JSON object"),
        ("{}", "no index: weight_map"),
        ('{"weight_map": ["a.weight"]}', "no index: weight_map"),
        ('{"weight_map": {"a.weight": 1}}', "no index: weight_map"),
    ],
)
def test_no_index(tmp_path, content, message):
    path = sharded(tmp_path)
    path.write_text(content)
    with pytest.raises(ValueError, match=f"index.json is {message}"):
        with weights.opened(tmp_path):
            pass


def test_nothing(tmp_path):
    with pytest.raises(ValueError, match="holds no weights: neither model.safetensors"):
        with weights.opened(tmp_path):
            pass


class TestTorch:
    torch = None

    @pytest.fixture(autouse=True)
    def _torch(self):
        self.torch = pytest.importorskip(
            "torch", reason="requirements-parity.txt is not installed"
        )
        self.tensors = {name: self.torch.tensor(a) for name, a in ARRAYS.items()}

    @pytest.mark.parametrize("zipped", [True, False])
    def test_bin(self, tmp_path, zipped):
        path = tmp_path / "pytorch_model.bin"
        self.torch.save(self.tensors, path, _use_new_zipfile_serialization=zipped)
        with weights.opened(tmp_path) as found:
            same(found)

    def test_shards(self, tmp_path):
        names = list(self.tensors)
        for i, name in enumerate(names):
            self.torch.save({name: self.tensors[name]}, tmp_path / f"{i}.bin")
        index = {"weight_map": {name: f"{i}.bin" for i, name in enumerate(names)}}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        with weights.opened(tmp_path) as found:
            same(found)

    def test_the_original_release(self, tmp_path):
        (tmp_path / "snapshot").mkdir()
        path = tmp_path / "snapshot" / "model.pt"
        self.torch.save({"model": self.tensors, "iteration": 7}, path)
        with weights.opened(tmp_path) as found:
            same(found)

    def test_bfloat16(self, tmp_path):
        narrow = {name: t.bfloat16() for name, t in self.tensors.items()}
        self.torch.save(narrow, tmp_path / "pytorch_model.bin")
        with weights.opened(tmp_path) as found:
            same(found, {name: t.float().numpy() for name, t in narrow.items()})

    def test_an_object_is_not_made(self, tmp_path):
        made = tmp_path / "made"

        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(made),)

        path = tmp_path / "pytorch_model.bin"
        with open(path, "wb") as file:
            pickle.dump(Evil(), file, protocol=2)
        with pytest.raises(ValueError, match="pytorch_model.bin .*as weights alone"):
            with weights.opened(tmp_path):
                pass
        assert not made.exists()

    @pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
    def test_a_program_is_not_run_and_the_way_out_works(self, tmp_path):
        """TorchScript, as OpenAI's CLIP comes."""
        torch = self.torch

        class Norm(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.ones(3))
                self.register_buffer("size", torch.tensor(7))

            def forward(self, x):
                return x * self.weight

        module = torch.nn.Sequential(Norm())
        path = tmp_path / "OpenAI's ViT-B-16.pt"
        torch.jit.script(module).save(path)
        with pytest.raises(ValueError, match="TorchScript archive") as error:
            with weights.opened(path):
                pass
        message = str(error.value)
        assert message.startswith(str(path))
        (program,) = shlex.split(message.partition("python -c ")[2])
        exec(program)
        with weights.opened(tmp_path / "OpenAI's ViT-B-16.weights.pt") as found:
            assert set(found) == {"0.weight", "0.size"}
            np.testing.assert_array_equal(found["0.weight"], np.ones(3))

    def test_a_damaged_directory_of_an_archive(self, tmp_path):
        path = tmp_path / "pytorch_model.bin"
        self.torch.save(self.tensors, path)
        path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\0\0", 1))
        with pytest.raises(ValueError, match="pytorch_model.bin .*cannot be read"):
            with weights.opened(tmp_path):
                pass

    def test_cut_off(self, tmp_path):
        path = tmp_path / "pytorch_model.bin"
        self.torch.save(self.tensors, path)
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(ValueError, match="pytorch_model.bin .*cut off"):
            with weights.opened(tmp_path):
                pass

    def test_no_weights(self, tmp_path):
        self.torch.save([1, 2], tmp_path / "pytorch_model.bin")
        with pytest.raises(ValueError, match="holds no tensors by name"):
            with weights.opened(tmp_path):
                pass
