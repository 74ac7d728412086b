"""The four GITs have as many parameters as the paper says, by its own way to count."""

import importlib.util
from pathlib import Path

import pytest

from git_jax import command
from git_jax.config import build

ROOT = Path(__file__).parents[1]


def parameters():
    """benchmarks/parameters.py, which prints the README's table."""
    path = ROOT / "benchmarks" / "parameters.py"
    spec = importlib.util.spec_from_file_location("parameters", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counts(variant):
    model = build(command.load(f"{ROOT}/configs/git.py:{variant}").model)
    return parameters().counts(model)


@pytest.mark.parametrize(
    "variant, encoder, paper, tied, untied",
    [
        ("base", 85_799_424, 128_918_784, 153_178_170, 176_619_066),
        ("large", 303_179_776, 346_495_744, 370_755_130, 394_196_026),
    ],
)
def test_the_released_sizes_to_the_last_one(variant, encoder, paper, tied, untied):
    found = counts(variant)
    assert found["encoder"] == encoder
    assert found["decoder"] == 42_527_232
    assert found["paper"] == paper
    assert (found["tied"], found["untied"]) == (tied, untied)


@pytest.mark.parametrize("variant, paper", [("huge", 681e6), ("git2", 5.1e9)])
def test_the_unreleased_sizes_within_a_hundredth(variant, paper):
    assert abs(counts(variant)["paper"] / paper - 1) < 0.01
