"""Checkpoints in and out: what transformers writes is read, and what is written opens.

Directories are made by transformers itself, with random weights.
"""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from git_jax import config as configs
from git_jax.config import build
from git_jax.convert import source, target
from git_jax.convert.weights import opened, save
from git_jax.nn import embed
from tests import walls
from tests.convert.test_git import CONFIGS
from tests.reference import assert_same_arrays, drawn, torch

transformers = pytest.importorskip(
    "transformers", reason="requirements-parity.txt is not installed"
)

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
PIECES += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
PIECES += ["what", "is", "it", "?"]
IDS = dict(vocab_size=61, pad_token_id=0, bos_token_id=2, eos_token_id=3)


@pytest.fixture(scope="module", params=["tiny", "odd", "tied"])
def directory(request, tmp_path_factory):
    """What `save_pretrained` of a model and its processor leaves."""
    assert len(PIECES) == IDS["vocab_size"]
    folder = tmp_path_factory.mktemp(request.param)
    given = CONFIGS[request.param] | IDS
    size = given["vision_config"]["image_size"]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    model = transformers.GitForCausalLM(transformers.GitConfig(**given))
    drawn(model, 0).save_pretrained(folder)
    processor = transformers.GitProcessor(
        transformers.CLIPImageProcessor(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        ),
        transformers.BertTokenizer(str(folder / "vocab.txt")),
    )
    processor.save_pretrained(folder)
    return folder


def seen(folder, pictures, text):
    """Logits of transformers at a text, on what its own processor makes of pictures."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.GitForCausalLM.from_pretrained(folder).eval()
    pixels = processor(images=pictures, return_tensors="pt").pixel_values
    ids = processor(text=text, add_special_tokens=False, return_tensors="pt").input_ids
    ids = torch.cat([torch.full((1, 1), model.config.bos_token_id), ids], dim=1)
    clips = model.config.num_image_with_embedding is not None
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=pixels[None] if clips else pixels)
    return ids.numpy(), out.logits[0, -ids.shape[1] :].numpy()


def pictures(count):
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8))
        for _ in range(count)
    ]


def test_a_directory_of_transformers_says_the_same_here(directory):
    """Processor, tokenizer and model together: from pictures and text to logits."""
    found = source.read(directory)
    model, loader = build(found.config.model), build(found.config.loader)
    given = pictures(model.frames)
    ids, want = seen(directory, given, "what is it?")
    words = found.tokenizer
    assert [words.bos, *words.encode("what is it?")] == ids[0].tolist()
    frames = loader.image.video([np.asarray(picture) for picture in given], None)
    batch = {"frames": jnp.array(frames)[None], "tokens": jnp.array(ids, jnp.int32)}
    outputs = jax.jit(model.apply)({"params": found.params}, batch)
    logits = embed.logits(outputs["text"], outputs["head"])[0]
    assert np.ptp(want) > 1
    np.testing.assert_allclose(logits, want, atol=1e-4)


def test_what_is_written_is_what_was_read(directory, tmp_path):
    """transformers -> git_jax -> transformers is the identity, and opens there."""
    target.write_run(source.read(directory), tmp_path / "run")
    target.write_huggingface(source.read(tmp_path / "run"), tmp_path / "again")
    with opened(directory) as before, opened(tmp_path / "again") as after:
        want = dict(before)
        if "output.weight" not in want:  # transformers leaves out the copy
            want["output.weight"] = want["git.embeddings.word_embeddings.weight"]
        assert_same_arrays(dict(after), want)
    frames = source.read(directory).config.model.frames
    ids, want = seen(directory, pictures(frames), "what is it?")
    ids_again, again = seen(tmp_path / "again", pictures(frames), "what is it?")
    np.testing.assert_array_equal(ids, ids_again)
    np.testing.assert_array_equal(want, again)
