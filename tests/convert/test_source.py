"""Checkpoints in and out: what transformers writes is read, and what is written opens.

Directories are made by transformers itself, with random weights.
"""

import dataclasses
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from git_jax.config import build
from git_jax.convert import source, target, vit
from git_jax.convert.weights import opened, save
from git_jax.decode.beam import Beam
from git_jax.decode.search import Greedy
from git_jax.models.git import generate, shapes
from git_jax.nn import embed
from git_jax.vision.vit import ViT
from tests.convert.reference import CONFIGS
from tests.reference import assert_same_arrays, drawn, torch

transformers = pytest.importorskip(
    "transformers", reason="requirements-parity.txt is not installed"
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The models there are so small that threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
PIECES += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
PIECES += ["what", "is", "it", "?"]
IDS = dict(vocab_size=61, pad_token_id=0, bos_token_id=2, eos_token_id=3)


def made(name, folder, given=None):
    """What `save_pretrained` of a model and its processor leaves in a folder."""
    assert len(PIECES) == IDS["vocab_size"]
    folder.mkdir(exist_ok=True)
    given = given or CONFIGS[name] | IDS
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


@pytest.fixture(scope="module", params=["tiny", "odd", "tied"])
def directory(request, tmp_path_factory):
    return made(request.param, tmp_path_factory.mktemp(request.param))


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
    given = pictures(found.config.model.frames)
    ids, want = seen(directory, given, "what is it?")
    words = found.tokenizer
    assert [words.bos, *words.encode("what is it?")] == ids[0].tolist()
    assert np.ptp(want) > 1
    np.testing.assert_allclose(logits(found, given, ids), want, atol=1e-4)


def logits(found, pictures, ids):
    """Ours, at the same text, on what our own loader makes of the pictures."""
    model, image = build(found.config.model), build(found.config.loader).image
    frames = image.video([np.asarray(picture) for picture in pictures], None)
    batch = {"frames": jnp.array(frames)[None], "tokens": jnp.array(ids, jnp.int32)}
    outputs = jax.jit(model.apply)({"params": found.params}, batch)
    return embed.logits(outputs["text"], outputs["head"])[0]


def test_what_is_written_is_what_was_read(directory, tmp_path):
    """transformers -> git_jax -> transformers is the identity, and opens there."""
    target.write_run(source.read(directory), tmp_path / "run")
    with jax.transfer_guard("disallow_explicit"):  # a device may be too small for it
        run = source.read(tmp_path / "run")
    target.write_huggingface(run, tmp_path / "again")
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


END = 2.0  # added to the bias of the end token: texts end, not all at once
SEARCHES = [Greedy(8), Beam(4, 8, "huggingface", 0.6)]


@pytest.mark.parametrize("search", SEARCHES, ids=["greedy", "beam"])
def test_what_is_written_captions_the_same(tiny, tmp_path, search):
    """By `generate` there, told nothing but what lies in the directory."""
    found = source.read(tiny)
    bos, eos, pad = (IDS[f"{name}_token_id"] for name in ("bos", "eos", "pad"))
    found.params["embed"]["output_bias"][eos] += END
    found.config.evaluate.search = search
    target.write_huggingface(found, tmp_path / "there")
    model, loader = build(found.config.model), build(found.config.loader)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "there")
    there = transformers.GitForCausalLM.from_pretrained(tmp_path / "there").eval()
    colours = np.random.default_rng(2).integers(0, 256, (8, 3))
    given = [Image.new("RGB", (50, 70), tuple(map(int, c))) for c in colours]
    with torch.no_grad():
        want = there.generate(
            torch.full((8, 1), bos),
            pixel_values=processor(images=given, return_tensors="pt").pixel_values,
        )[:, 1:]
    batch = {
        "frames": jnp.array([loader.image(np.asarray(p)) for p in given])[:, None],
        "tokens": jnp.full((8, 1), bos, jnp.int32),
        "prefix_length": jnp.ones(8, jnp.int32),
    }
    run = jax.jit(lambda p: generate(model, p, search, batch, eos=eos, pad=pad))
    here, there = (
        [ids[: (*ids, eos).index(eos)] for ids in tokens.tolist()]
        for tokens in (run(found.params).tokens, want)
    )
    assert len(set(map(tuple, there))) > 1 and min(map(len, there)) < 8
    assert here == there


def test_positions_are_written_for_the_pictures_that_the_loader_makes(
    tiny, tmp_path, capsys
):
    """Which transformers would interpolate only where each call asks for it."""
    found = source.read(tiny)
    found.config.loader.image.size = 48
    target.write_huggingface(found, tmp_path / "there")
    assert (
        "loader.image.size=48 is not model.encoder.size=32" in capsys.readouterr().err
    )
    ids, want = seen(tmp_path / "there", pictures(1), "what is it?")
    np.testing.assert_allclose(logits(found, pictures(1), ids), want, atol=1e-4)
    again = source.read(tmp_path / "there").config
    assert again.model.encoder.size == again.loader.image.size == 48
    found.config.loader.image.size = 50
    with pytest.raises(ValueError, match="loader.image.size=50 is not divisible by"):
        target.write_huggingface(found, tmp_path / "again")


def edited(directory, tmp_path, name="config.json", **changes):
    """A copy of a directory with fields of one of its files changed."""
    copy = tmp_path / "edited"
    shutil.copytree(directory, copy)
    held = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps(held | changes))
    return copy


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A directory of the tiny model, to be broken in copies."""
    return made("tiny", tmp_path_factory.mktemp("whole"))


class TestBadInput:
    @pytest.mark.parametrize(
        "changes, message",
        [
            (dict(model_type="blip"), r"config.json: model_type is 'blip'"),
            (dict(hidden_act="relu"), "hidden_act is 'relu'; here are gelu"),
            (dict(num_image_with_embedding=1), "num_image_with_embedding is 1"),
            (
                dict(hidden_size=32),
                r"has the shape \(97, 24\)|has the shape \(61, 24\)",
            ),
            (dict(num_hidden_layers=3), r"lacks git\.encoder\.layer\.2\."),
            (dict(num_hidden_layers=1), r"has beside it git\.encoder\.layer\.1\."),
            (dict(vocab_size=60), "vocab_size is 60, but the tokenizer .* 61 pieces"),
            (dict(eos_token_id=4), "eos_token_id is 4, but the tokenizer .* has 3"),
            (
                dict(tie_word_embeddings=True),
                "output.weight differs from git.emb.*its config.json says",
            ),
        ],
    )
    def test_a_config_that_is_not_the_weights(self, tiny, tmp_path, changes, message):
        copy = edited(tiny, tmp_path, **changes)
        with pytest.raises(ValueError, match=message) as error:
            source.read(copy)
        assert str(copy) in str(error.value)

    def test_a_processor_that_is_not_the_weights(self, tiny, tmp_path):
        copy = edited(tiny, tmp_path, "processor_config.json")
        held = json.loads((copy / "processor_config.json").read_text())
        held["image_processor"]["size"] = {"shortest_edge": 48}
        held["image_processor"]["crop_size"] = {"height": 48, "width": 48}
        (copy / "processor_config.json").write_text(json.dumps(held))
        name = "edited/processor_config.json: image_processor: size is 48"
        with pytest.raises(ValueError, match=f"{name}.*image_size.*size to 32"):
            source.read(copy)

    @pytest.mark.parametrize(
        "name, changes, message",
        [
            ("config.json", dict(hidden_size="64"), "hidden_size is '64'; .* int"),
            ("config.json", dict(layer_norm_eps=None), "layer_norm_eps is None; .* fl"),
            ("config.json", dict(hidden_act=["gelu"]), "hidden_act is .*; .* str"),
            ("config.json", dict(tie_word_embeddings=0), "tie_word_.* is 0; .* bool"),
            ("config.json", dict(num_hidden_layers=0), ".* depth is 0"),
            (
                "config.json",
                dict(num_attention_heads=5),
                "num_attention_heads is 5, which does not divide hidden_size, 24",
            ),
            ("config.json", dict(vision_config=[1]), r"vision_config is \[1\], not a"),
            (
                "config.json",
                dict(vision_config=dict(image_size=32, patch_size=5)),
                "vision_config: patch_size is 5, which does not divide image_size, 32",
            ),
            ("generation_config.json", dict(max_length="5"), "max_length is '5'"),
        ],
    )
    def test_a_setting_of_another_type(self, tiny, tmp_path, name, changes, message):
        copy = edited(tiny, tmp_path, name, **changes)
        with pytest.raises(ValueError, match=f"{copy / name}: {message}"):
            source.read(copy)

    def test_words_that_are_broken(self, tiny, tmp_path):
        copy = edited(tiny, tmp_path)
        (copy / "tokenizer.json").unlink()
        (copy / "vocab.txt").write_text("[PAD]\na\n")
        with pytest.raises(ValueError, match=f"^{copy / 'vocab.txt'}.*lacks"):
            source.read(copy)

    def test_weights_that_are_cut_off(self, tiny, tmp_path):
        copy = edited(tiny, tmp_path)
        path = copy / "model.safetensors"
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(ValueError, match=r"model\.safetensors .*no whole"):
            source.read(copy)

    def test_a_file_of_a_directory(self, tiny):
        with pytest.raises(ValueError, match=r"name its folder, /.*config.json"):
            source.read(tiny / "model.safetensors")

    def test_no_words(self, tiny, tmp_path):
        copy = edited(tiny, tmp_path)
        for name in ("vocab.txt", "tokenizer.json"):
            (copy / name).unlink(missing_ok=True)
        with pytest.raises(ValueError, match="edited.*vocab.txt"):
            source.read(copy)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ValueError, match="there is no such file or folder"):
            source.read(tmp_path / "none")
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(ValueError, match="config.json is no JSON"):
            source.read(tmp_path)

    def test_a_target_that_is_there_is_kept(self, tiny, tmp_path):
        (tmp_path / "mine").write_text("precious")
        with pytest.raises(ValueError, match="is there already"):
            target.write_run(source.read(tiny), tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_the_spelling_of_transformers_4(tmp_path):
    """Video checkpoints on the hub say `temperal`; transformers 5 loads zeros there."""
    directory = made("odd", tmp_path / "odd")
    with opened(directory) as weights:
        old = dict(weights.renamed(lambda name: name.replace("temporal", "temperal")))
    save(directory / "model.safetensors", old)
    found = source.read(directory).params["temporal"]
    np.testing.assert_array_equal(found[2], old["git.img_temperal_embedding.2"][0, 0])
    assert np.abs(found).min() > 0


RELEASED = CONFIGS["tied"] | IDS | dict(hidden_size=64, num_attention_heads=1)
RELEASED["vision_config"] = CONFIGS["tied"]["vision_config"] | dict(
    hidden_size=128, num_attention_heads=2
)


@pytest.fixture(scope="module")
def like_the_release(tmp_path_factory):
    """A directory of a model that the original release could be: heads of 64, tied."""
    return made("tied", tmp_path_factory.mktemp("like"), RELEASED)


class TestOriginal:
    """The original release's `model.pt`."""

    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_there_and_back(self, like_the_release, tmp_path, prefix, capsys):
        want = source.read(like_the_release)
        target.write_original(want, tmp_path / "original")
        # The release says 1e-8 where transformers says 1e-12.
        assert "model.embed.epsilon=1e-12 becomes 1e-08" in capsys.readouterr().err
        path = tmp_path / "original" / "model.pt"
        held = torch.load(path, weights_only=True)["model"]
        held["image_encoder.proj"] = torch.zeros(128, 8)  # CLIP's, which GIT never used
        torch.save({"model": {prefix + k: v for k, v in held.items()}}, path)
        found = source.read(tmp_path / "original")
        chex.assert_trees_all_equal(found.params, want.params)
        # Its CenterCrop rounds as torchvision's.
        assert found.config.loader.image.rounding == "even"
        assert want.config.loader.image.rounding == "down"
        there, here = build(want.config.model), build(found.config.model)
        assert here == dataclasses.replace(
            there, embed=dataclasses.replace(there.embed, epsilon=1e-8)
        )
        target.write_original(found, tmp_path / "again")
        target.write_huggingface(found, tmp_path / "there")
        told = capsys.readouterr().err
        assert "model.embed.epsilon=1e-08 becomes 1e-12" in told
        assert "loader.image.rounding='even'" in told
        again = source.read(tmp_path / "there")
        chex.assert_trees_all_equal(again.params, want.params | again.params)

    @pytest.mark.parametrize(
        "path, value, message",
        [
            ("encoder.heads", 4, "model.encoder.heads: 2 -> 4"),
            ("encoder.activation", "gelu", "activation: 'quick_gelu' -> 'gelu'"),
            ("encoder.epsilon", 1e-6, "model.encoder.epsilon: 1e-05 -> 1e-06"),
            ("encoder.stem", (8,), r"model.encoder.stem: \(\) -> \(8,\)"),
            ("encoder.class_token", False, "encoder.class_token: True -> False"),
            ("encoder.norm_before", False, "encoder.norm_before: True -> False"),
            ("encoder.patch_bias", True, "encoder.patch_bias: False -> True"),
            ("decoder.heads", 2, "model.decoder.heads: 1 -> 2"),
            ("decoder.norm", "pre", "model.decoder.norm: 'post' -> 'pre'"),
            ("decoder.activation", "gelu_tanh", "decoder.activation: 'gelu' -> 'gelu_"),
            ("decoder.epsilon", 1e-5, "model.decoder.epsilon: 1e-12 -> 1e-05"),
            ("decoder.final_norm", True, "model.decoder.final_norm: False -> True"),
            ("embed.epsilon", 1e-5, "model.embed.epsilon: 1e-08 -> 1e-05"),
            ("epsilon", 1e-6, "model.epsilon: 1e-05 -> 1e-06"),
            ("pixel_mean", (0.5, 0.5, 0.5), r"model.pixel_mean: .* -> \(0.5, 0.5"),
            ("pixel_std", (0.5, 0.5, 0.5), r"model.pixel_std: .* -> \(0.5, 0.5"),
            ("decoder.width", 65, "a width of 65 is not made of heads of 64"),
        ],
    )
    def test_another_model_is_refused(
        self, like_the_release, tmp_path, path, value, message
    ):
        found = source.read(like_the_release)
        *way, last = path.split(".")
        node = found.config.model
        for part in way:
            node = node[part]
        node[last] = value
        with pytest.raises(ValueError, match=message):
            target.write_original(found, tmp_path / "original")
        assert not (tmp_path / "original").exists()

    def test_what_bears_on_training_alone_may_be_anything(
        self, like_the_release, tmp_path
    ):
        found = source.read(like_the_release)
        model = found.config.model
        model.decoder.dropout = model.embed.dropout = 0.3
        model.encoder.scan, model.decoder.remat, model.dtype = False, "full", "bfloat16"
        model.encoder.std = model.encoder.position_std = 1.0
        target.write_original(found, tmp_path / "original")

    @pytest.mark.parametrize(
        "name",
        [
            "textual.embedding.words.weight",
            "textual.embedding.positions.weight",
            "textual.transformer.encoder.layer.0.intermediate.dense.weight",
            "image_encoder.conv1.weight",
            "image_encoder.positional_embedding",
            "image_encoder.transformer.resblocks.0.mlp.c_fc.weight",
        ],
    )
    def test_an_array_that_is_broken_or_not_there(
        self, like_the_release, tmp_path, name
    ):
        target.write_original(source.read(like_the_release), tmp_path / "original")
        path = tmp_path / "original" / "model.pt"
        held = torch.load(path, weights_only=True)["model"]
        torch.save(held | {name: torch.zeros(3)}, path)
        with pytest.raises(ValueError, match=f"{path}: {name} has the shape \\(3,\\)"):
            source.read(tmp_path / "original")
        torch.save({k: v for k, v in held.items() if k != name}, path)
        with pytest.raises(ValueError, match=f"{path} (lacks {name}|is no GIT)"):
            source.read(tmp_path / "original")

    def test_a_head_of_its_own(self, like_the_release, tmp_path):
        target.write_original(source.read(like_the_release), tmp_path / "original")
        path = tmp_path / "original" / "model.pt"
        held = torch.load(path, weights_only=True)["model"]
        held["textual.output.weight"] = held["textual.output.weight"] + 1
        torch.save(held, path)
        with pytest.raises(ValueError, match=f"{path}: textual.output.*one array") as e:
            source.read(tmp_path / "original")
        assert "config.json" not in str(e.value)

    def test_no_words(self, like_the_release, tmp_path):
        target.write_original(source.read(like_the_release), tmp_path / "original")
        (tmp_path / "original" / "vocab.txt").unlink()
        for named in (tmp_path / "original", tmp_path / "original" / "model.pt"):
            with pytest.raises(
                ValueError, match="model.pt.*vocab.txt of bert-base-unc"
            ):
                source.read(named)


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("embed.epsilon", 1e-5, "model.embed.epsilon is 1e-05 and must be 1e-12"),
        ("decoder.epsilon", 1e-5, "model.embed.epsilon is 1e-12 and must be 1e-05"),
    ],
)
def test_one_epsilon_is_all_that_transformers_has(tiny, tmp_path, path, value, message):
    found = source.read(tiny)
    part, name = path.split(".")
    found.config.model[part][name] = value
    with pytest.raises(ValueError, match=message):
        target.write_huggingface(found, tmp_path / "there")


TOWERS = {
    "CLIPVisionModel": transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    ),
    "ViTModel": transformers.ViTConfig(
        hidden_size=15,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=5,
        image_size=35,
        patch_size=7,
    ),
    "SwinModel": transformers.SwinConfig(
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=[2, 1],
        num_heads=[2, 4],
        window_size=4,
    ),
}


@pytest.mark.parametrize("kind", TOWERS)
def test_a_tower_sees_the_same_here(kind, tmp_path):
    """Read from files, kept as a run is, and equal at its own size."""
    there = drawn(getattr(transformers, kind)(TOWERS[kind]), 3).eval()
    there.save_pretrained(tmp_path / "there")
    target.write_run(source.read(tmp_path / "there"), tmp_path / "here")
    found = source.read(tmp_path / "here")
    tower = build(found.config.encoder)
    side = TOWERS[kind].image_size
    pixels = np.random.default_rng(0).normal(size=(2, side, side, 3))
    pixels = pixels.astype(np.float32)
    with torch.no_grad():
        want = there(torch.tensor(pixels).permute(0, 3, 1, 2)).last_hidden_state
        if kind == "CLIPVisionModel":
            # GIT has the norm on every token, which CLIP has on the first alone.
            want = there.post_layernorm(want)
    here = jax.jit(tower.apply)({"params": found.params}, jnp.array(pixels)[:, None])
    assert np.ptp(want.numpy()) > 1
    np.testing.assert_allclose(here[:, 0], want.numpy(), atol=1e-4)


def test_two_encoders_in_a_file_are_both_named(tmp_path):
    there = transformers.CLIPVisionModel(TOWERS["CLIPVisionModel"])
    there.save_pretrained(tmp_path)
    with opened(tmp_path) as weights:
        arrays = dict(weights)
    twice = {f"{side}.{name}": a for side in "ab" for name, a in arrays.items()}
    save(tmp_path / "model.safetensors", twice)
    anchor = "embeddings.class_embedding"
    with pytest.raises(
        ValueError, match=f"has a.*{anchor} and b.*{anchor}: it holds s"
    ):
        source.read(tmp_path)


@pytest.mark.parametrize("whole", [False, True])
def test_openais_clip(whole, tmp_path):
    """The tower alone or beside the one for texts, by the names of OpenAI's file."""
    tower = ViT(size=16, patch=8, width=64, depth=2, heads=1, mlp=32)
    rng = np.random.default_rng(4)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes(tower)
    )
    arrays = vit.openai(tower).write(params) | {"proj": np.zeros((64, 8), np.float32)}
    if whole:
        arrays = {f"visual.{name}": array for name, array in arrays.items()}
        arrays |= {"ln_final.bias": np.zeros(4), "logit_scale": np.zeros(())}
        arrays |= {"transformer.resblocks.0.ln_1.bias": np.zeros(4)}
    torch.save({k: torch.tensor(v) for k, v in arrays.items()}, tmp_path / "clip.pt")
    found = source.read(tmp_path / "clip.pt")
    assert build(found.config.encoder) == tower
    chex.assert_trees_all_equal(found.params, params)
