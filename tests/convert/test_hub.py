"""Names of the hub, where there is no network: what is said and what is not tried."""

import pytest
from huggingface_hub.utils import filter_repo_objects

from git_jax.convert.hub import local


def test_what_is_here_is_not_looked_for(tmp_path):
    assert local(str(tmp_path), "--source") == tmp_path


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"--source=someone/git.*hf download someone"):
        local("someone/git", "--source")


@pytest.mark.parametrize(
    "there, had",
    [
        (
            ["model.safetensors", "pytorch_model.bin", "onnx/model.safetensors"],
            ["model.safetensors"],
        ),
        (
            ["model-00001-of-00002.safetensors", "pytorch_model.bin"],
            ["model-00001-of-00002.safetensors"],
        ),
        (
            ["pytorch_model.bin", "tf_model.h5", "adapter.safetensors"],
            ["pytorch_model.bin"],
        ),
    ],
)
def test_no_weights_are_downloaded_twice(monkeypatch, tmp_path, there, had):
    """What the hub would send, by the patterns that it is asked with."""
    given = [*there, "config.json", "vocab.txt", "README.md"]

    def snapshot_download(name, *, allow_patterns):
        assert name == "someone/git"
        for file in filter_repo_objects(given, allow_patterns=allow_patterns):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert local("someone/git", "--source") == tmp_path
    found = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {*had, "config.json", "vocab.txt"}


@pytest.mark.parametrize("name", ["nowhere", "../nowhere", "/no/where", "a/b/c", "a/"])
def test_a_path_is_no_name_of_the_hub(name):
    with pytest.raises(ValueError, match=f"--checkpoint={name}: there is no such file"):
        local(name, "--checkpoint")
