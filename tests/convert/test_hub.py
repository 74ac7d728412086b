"""Names of the hub, where there is no network: what is said and what is not tried."""

import pytest

from git_jax.convert.hub import local


def test_what_is_here_is_not_looked_for(tmp_path):
    assert local(str(tmp_path), "--source") == tmp_path


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"--source=someone/git.*hf download someone"):
        local("someone/git", "--source")


@pytest.mark.parametrize("name", ["nowhere", "../nowhere", "/no/where", "a/b/c", "a/"])
def test_a_path_is_no_name_of_the_hub(name):
    with pytest.raises(ValueError, match=f"--checkpoint={name}: there is no such file"):
        local(name, "--checkpoint")
