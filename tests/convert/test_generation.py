"""How captions are searched for, both ways, in the words of transformers."""

import json
import re

import pytest

from git_jax.config import build
from git_jax.convert import generation
from git_jax.decode.beam import Beam
from git_jax.decode.search import Greedy, Sample


def read(folder, settings, positions=1024):
    (folder / generation.NAME).write_text(json.dumps(settings))
    return build(generation.read(folder, positions=positions))


@pytest.mark.parametrize(
    "settings, search",
    [
        ({}, Beam(4, 40)),
        ({"bos_token_id": 101, "transformers_version": "5.23.0"}, Beam(4, 40)),
        ({"max_new_tokens": 7}, Beam(4, 7)),
        ({"max_length": 20}, Beam(4, 19)),
        ({"max_length": None, "num_beams": None, "length_penalty": None}, Beam(4, 40)),
        ({"max_new_tokens": 5000}, Beam(4, 1023)),
        ({"num_beams": 1}, Greedy(40)),
        ({"num_beams": 1, "length_penalty": 2.0, "max_length": 1}, Greedy(1)),
        ({"num_beams": 3}, Beam(3, 40, "huggingface", 1.0)),
        ({"num_beams": 3, "length_penalty": 2}, Beam(3, 40, "huggingface", 2.0)),
        ({"length_penalty": 0.6}, Beam(4, 40, "huggingface", 0.6)),
    ],
)
def test_a_file_is_taken_at_its_word(tmp_path, settings, search):
    assert read(tmp_path, settings) == search


def test_without_a_file_it_is_the_search_of_the_original_release(tmp_path):
    assert build(generation.read(tmp_path, positions=1024)) == Beam(4, 40, "gnmt")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"max_length": "5"}, r"max_length is '5'; it must be int \| None"),
        ({"max_new_tokens": True}, "max_new_tokens is True; it must be int"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be at least 1"),
        ({"num_beams": -1}, "num_beams is -1; it must be at least 1"),
        ({"num_beams": 2.0}, "num_beams is 2.0; it must be int"),
        ({"length_penalty": [1]}, r"length_penalty is \[1\]; it must be float"),
    ],
)
def test_what_makes_no_search_is_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=f"{generation.NAME}: {message}"):
        read(tmp_path, settings)


def test_what_is_passed_over_is_told(tmp_path, capsys):
    read(tmp_path, {"early_stopping": True, "do_sample": False})
    told = capsys.readouterr().err
    assert re.search("early_stopping is True.*passed over", told)
    assert "do_sample" not in told


@pytest.mark.parametrize(
    "search, told",
    [
        (Greedy(9), ""),
        (Beam(3, 9, "huggingface", 0.5), ""),
        (Beam(3, 9), "normalise='gnmt'"),
        (Beam(1, 9, "huggingface"), "beams=1"),
        (Greedy(9, repeat=False), "repeat=False"),
        (Sample(9, 0.5, 0.9), ""),
    ],
)
def test_what_is_written_is_read_or_told(tmp_path, capsys, search, told):
    written = generation.config_of(search)
    found = capsys.readouterr().err
    assert told in found and bool(found) == bool(told)
    assert written["max_new_tokens"] == 9
    if not told and not isinstance(search, Sample):
        assert read(tmp_path, written) == search


@pytest.mark.parametrize("search", [Greedy(9), Beam(3, 9), Sample(9, 0.5, 0.9)])
def test_no_key_is_ours(search):
    transformers = pytest.importorskip(
        "transformers", reason="requirements-parity.txt is not installed"
    )
    written = generation.config_of(search)
    config = transformers.GenerationConfig(**written)
    known = transformers.GenerationConfig().to_dict().keys()
    assert written.keys() <= known
    assert {key: getattr(config, key) for key in written} == written
    config.validate(strict=True)
