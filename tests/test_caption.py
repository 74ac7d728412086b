"""Captions for files: what a shell gets, and what it is told when it gets nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from git_jax.caption import Clip, captions, clips, opened, read, search_of
from git_jax.config import build, spec
from git_jax.convert import source, target
from git_jax.convert.checkpoint import Checkpoint
from git_jax.data.image import Crop
from git_jax.data.pipeline import Loader
from git_jax.data.tokenizer import WordPiece
from git_jax.decode.beam import Beam
from git_jax.decode.search import Greedy, Sample
from git_jax.evaluate import Evaluation
from git_jax.models.git import Git, generate, shapes
from git_jax.nn.embed import TextEmbed
from git_jax.nn.transformer import Stack
from git_jax.sharding import Layout
from git_jax.trained import Trained
from git_jax.vision.vit import ViT
from tests import walls


@pytest.fixture(scope="module")
def trained() -> Trained:
    """The run on one device: what is compiled for eight takes longer."""
    opened = Trained.open(str(walls.run()), walls.options())
    return replace(opened, mesh=Layout().mesh(jax.devices()[:1]))


@pytest.fixture
def files() -> list[str]:
    return [str(walls.folder() / f"{name}.png") for name in walls.COLOURS]


def named(files: list[str]) -> list[Clip]:
    return clips(files, 1, video=False)


def test_a_shell_gets_a_json_list_and_nothing_else(tmp_path: Path) -> None:
    """Pictures of all kinds, flags behind files, on a run of another machine."""
    red, blue = walls.wall("red"), walls.wall("blue")
    red.convert("CMYK").save(tmp_path / "print.jpg")
    blue.quantize(8).save(tmp_path / "palette.png")
    red.save(tmp_path / "moving.gif", save_all=True, append_images=[blue])
    blue.convert("RGBA").save(tmp_path / "a name: with blanks.webp")
    names = ["print.jpg", "palette.png", "moving.gif", "a name: with blanks.webp"]
    done = walls.shell(
        "caption", f"--run={walls.run()}", *names, "--json", "--batch=3", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [list(each) for each in found] == [
        ["file", "caption", "tokens", "score"]
    ] * 4
    assert [each["file"] for each in found] == names
    assert [each["caption"] for each in found] == ["a red wall", "a blue wall"] * 2
    assert all(type(id) is int for each in found for id in each["tokens"])
    assert all(each["score"] < 0 for each in found)


def test_a_shell_gets_a_line_for_each_file(files: list[str]) -> None:
    done = walls.shell("caption", f"--run={walls.run()}", "--beams=1", *files)
    assert done.returncode == 0, done.stderr
    lines = [
        f"{file}: a {name} wall"
        for file, name in zip(files, walls.COLOURS, strict=True)
    ]
    assert done.stdout.splitlines() == lines


def test_a_shell_is_told_of_every_bad_file_and_nothing_is_captioned(
    files: list[str], tmp_path: Path
) -> None:
    (tmp_path / "empty.jpg").touch()
    done = walls.shell(
        "caption", f"--run={walls.run()}", *files, "nope.jpg", "empty.jpg", cwd=tmp_path
    )
    assert done.returncode == 1 and done.stdout == ""
    assert "2 of 6 files" in done.stderr
    assert "nope.jpg: No such file" in done.stderr
    assert "empty.jpg: empty file" in done.stderr
    assert "Traceback" not in done.stderr


def test_files_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    walls.wall("red").resize((200, 200)).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("a letter")
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    names = ["whole.jpg", "cut.jpg", "text.jpg", "bomb.png", "nope.png"]
    with pytest.raises(ValueError) as error:
        read(named([str(tmp_path / name) for name in names]), Loader(), 1)
    for name, reason in (
        ("cut.jpg", "truncated image"),
        ("text.jpg", "not an image"),
        ("bomb.png", "decompression bomb"),
        ("nope.png", "No such file"),
    ):
        assert any(
            str(tmp_path / name) in line and reason in line
            for line in str(error.value).splitlines()
        )
    assert "whole.jpg" not in str(error.value)


def test_a_clip_is_refused_by_a_model_of_pictures(tmp_path: Path) -> None:
    walls.wall("red").save(tmp_path / "b.png")
    walls.wall("red").save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no frame")
    inside = (str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    assert clips([str(tmp_path)], 6, video=False) == [Clip(str(tmp_path), inside)]
    one = clips(["a.png", "b.png"], 6, video=True)
    assert one == [Clip("a.png b.png", ("a.png", "b.png"))]
    both = clips(["c.png", str(tmp_path)], 6, video=True)
    assert both == [Clip(f"c.png {tmp_path}", ("c.png", *inside))]
    for files, video in (([str(tmp_path)], False), (["a.png", "b.png"], True)):
        with pytest.raises(ValueError, match="clip of 2 frames.*model.frames=1"):
            clips(files, 1, video=video)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty is a folder without pictures"):
        clips([str(tmp_path / "empty")], 6, video=False)


def test_pictures_are_read_as_the_evaluation_reads_them(trained: Trained) -> None:
    loader, source = build(trained.config.loader), build(trained.config.data)
    batch = next(
        loader.evaluation(
            source, build(trained.config.task), trained.tokenizer, batch=4
        )
    )
    files = [str(walls.folder() / id) for id in batch.ids]
    squares = read(named(files), loader, 1)
    np.testing.assert_array_equal(np.stack(squares), batch.arrays["frames"])


def test_the_captions_are_those_that_the_run_was_scored_on(
    trained: Trained, files: list[str]
) -> None:
    rows = (walls.run() / "predictions/train.jsonl").read_text().splitlines()
    scored = {row["id"]: row["caption"] for row in map(json.loads, rows)}
    search = build(trained.config.evaluate).search
    found = list(captions(trained, named(files), search, 4))
    assert {Path(each.file).name: each.caption for each in found} == scored


def test_a_caption_does_not_depend_on_its_batch(
    trained: Trained, files: list[str]
) -> None:
    """Not even one that is drawn."""
    files, search = files + files[:1], Sample(8, temperature=3.0)
    whole = list(captions(trained, named(files), search, 100))
    parts = list(captions(trained, named(files), search, 2))
    assert len(whole) == len(parts) == 5
    for one, other in zip(whole, parts, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-5)
        assert replace(one, score=0) == replace(other, score=0)
    # The same picture in another place is drawn for afresh.
    assert whole[0].tokens != whole[4].tokens


def test_eight_devices_say_what_one_says(trained: Trained, files: list[str]) -> None:
    """Data 2, fsdp 2, tensor 2 as the config says; three pictures are filled up."""
    spread = Trained.open(str(walls.run()), walls.options())
    assert dict(spread.mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    one = list(captions(trained, named(files[:3]), Greedy(15), 4))
    eight = list(captions(spread, named(files[:3]), Greedy(15), 4))
    assert [each.tokens for each in one] == [each.tokens for each in eight]
    np.testing.assert_allclose(
        [each.score for each in one], [each.score for each in eight], rtol=1e-5
    )


def test_tokens_are_the_generated_ids_without_special_ones(
    trained: Trained, files: list[str]
) -> None:
    tokenizer = trained.tokenizer
    for search in (Greedy(15), Beam(4, 15), Beam(4, 15, "huggingface")):
        for each in captions(trained, named(files), search, 4):
            assert not {tokenizer.pad, tokenizer.bos, tokenizer.eos} & set(each.tokens)
            assert tokenizer.decode(each.tokens) == each.caption
            assert tokenizer.encode(each.caption) == each.tokens


def test_at_most_so_many_tokens_are_generated_the_end_counted(
    trained: Trained, files: list[str]
) -> None:
    whole = list(captions(trained, named(files), Greedy(15), 4))
    exact = len(whole[0].tokens) + 1
    assert list(captions(trained, named(files[:1]), Greedy(exact), 4))[0].tokens == (
        whole[0].tokens
    )
    short = list(captions(trained, named(files[:1]), Greedy(2), 4))[0]
    assert short.tokens == whole[0].tokens[:2]


def test_flags_choose_the_search() -> None:
    own = Beam(beams=2, max_tokens=9, normalise="huggingface", penalty=2.0)
    for search in (own, Greedy(7, repeat=False), Sample(8, top_p=0.5)):
        assert search_of(search) == search
        assert search_of(search, max_tokens=3) == replace(search, max_tokens=3)
    assert search_of(own, beams=3) == Beam(3, 9, "huggingface", 2.0)
    assert search_of(own, normalise="huggingface") == own
    assert search_of(own, normalise="gnmt") == Beam(2, 9, "gnmt", None)
    assert search_of(own, beams=1, max_tokens=5) == Greedy(5)
    assert search_of(own, beams=1, repeat=False) == Greedy(9, repeat=False)
    assert search_of(Greedy(7, repeat=False), beams=1) == Greedy(7, repeat=False)
    assert search_of(Greedy(7, repeat=False), repeat=True) == Greedy(7)
    assert search_of(Greedy(7), beams=4) == Beam(4, 7)
    assert search_of(Sample(8), beams=2, normalise="gnmt") == Beam(2, 8)


@pytest.mark.parametrize(
    "own, given, message",
    [
        (Beam(), dict(beams=1, normalise="gnmt"), "--normalise=gnmt.*add --beams=4"),
        (Greedy(), dict(normalise="gnmt"), "--normalise=gnmt.*add --beams=4"),
        (Beam(), dict(repeat=False), "--norepeat is a rule of greedy.*--beams=1"),
        (Greedy(), dict(beams=2, repeat=True), "--repeat is a rule of greedy"),
        (Sample(), dict(repeat=False), "--norepeat is a rule of greedy"),
        (Greedy(), dict(beams=0), "beams is 0"),
    ],
)
def test_a_flag_of_another_search_is_refused(
    own: Any, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        search_of(own, **given)


# Checkpoints of others, questions and clips --------------------------------------

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "what", "is", "it", "a", "red", "wall")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as transformers has it, of a model of clips of up to 3 frames."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    model = spec(
        Git,
        encoder=spec(ViT, size=16, patch=8, width=16, depth=1, heads=2, mlp=16),
        embed=spec(TextEmbed, width=16, vocabulary=len(PIECES), positions=16),
        decoder=spec(
            Stack,
            width=16,
            depth=2,
            heads=2,
            mlp=16,
            norm="post",
            epsilon=1e-12,
            dropout=0.1,
        ),
        frames=3,
    )
    config = ConfigDict({"model": model})
    config.loader = spec(Loader, frames=3, image=spec(Crop, size=16))
    config.evaluate = spec(Evaluation, search=spec(Beam, max_tokens=6))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        shapes(build(model)),
    )
    words = WordPiece(str(folder / "vocab.txt"))
    target.write_huggingface(Checkpoint(config, params, words), folder / "git")
    return folder / "git"


def of(checkpoint: Path) -> Trained:
    flags: dict[str, Any] = {"run": None, "checkpoint": str(checkpoint)}
    line = walls.options(**flags)
    found = opened(line.flags, line)
    return replace(found, mesh=Layout().mesh(jax.devices()[:1]))


def test_a_question_is_a_prefix_and_a_folder_a_clip(
    published: Path, files: list[str], tmp_path: Path
) -> None:
    """What is said is what the model writes behind the question, of those frames."""
    trained = of(published)
    frames = tmp_path / "clip"
    frames.mkdir()
    for i, file in enumerate(files[:2]):
        Image.open(file).save(frames / f"{i}.png")
    given = clips([str(frames), files[0]], 3, video=False)
    (clip, picture) = captions(trained, given, Greedy(6), 4, question="what is it")
    squares = read(given, build(trained.config.loader), 3)
    assert [len(each) for each in squares] == [2, 1]
    model, words = build(trained.config.model), trained.tokenizer
    prefix = [words.bos, *words.encode("what is it")]
    assert prefix == [2, 4, 5, 6]
    for found, seen in ((clip, squares[0]), (picture, squares[1])):
        batch = {
            "frames": jax.numpy.array(seen)[None],
            "tokens": jax.numpy.array([prefix], jax.numpy.int32),
            "prefix_length": jax.numpy.array([len(prefix)]),
        }
        want = jax.jit(
            lambda params, batch: generate(
                model, params, Greedy(6), batch, eos=words.eos, pad=words.pad
            )
        )(trained.parameters(), batch)
        ids = want.tokens[0, : want.length[0]].tolist()
        assert found.tokens == [id for id in ids if id not in (0, 2, 3)]
        np.testing.assert_allclose(found.score, want.score[0], atol=1e-5)
    # All files as one clip are that clip.
    together = clips(files[:2], 3, video=True)
    (again,) = captions(trained, together, Greedy(6), 4, question="what is it")
    assert again.tokens == clip.tokens and again.file == " ".join(files[:2])


def test_a_shell_asks_a_published_checkpoint_about_a_folder(
    published: Path, files: list[str], tmp_path: Path
) -> None:
    """With the search that lies beside the weights."""
    for i, file in enumerate(files[:2]):
        Image.open(file).save(tmp_path / f"{i}.png")
    asked = [f"--checkpoint={published}", "--json", "--question=what is it"]
    named = [str(tmp_path), files[2]]
    done = walls.shell("caption", *asked, *named)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    trained = of(published)
    search = build(trained.config.evaluate).search
    assert search == Beam(4, 6, "huggingface", 1.0)
    given = clips(named, 3, video=False)
    want = list(captions(trained, given, search, 4, question="what is it"))
    assert [each["file"] for each in found] == named
    assert [each["tokens"] for each in found] == [each.tokens for each in want]


def test_a_question_that_does_not_fit_is_refused_before_anything_is_read(
    published: Path,
) -> None:
    """Of 16 positions 6 are for the answer, its last token not fed but begin is."""
    trained, given = of(published), clips(["nope.png"], 3, video=False)
    fits, hold = "nope.png: No such file", "--question has {} tokens; .* hold {}: {}"
    for question, answer, told in (
        (10, 6, fits),
        (11, 6, hold.format(11, 10, "shorten it to 10, or add --max_tokens=5 or less")),
        (4, 16, hold.format(4, 0, "add --max_tokens=12 or less$")),
        (16, 6, hold.format(16, 10, "shorten it to 10$")),
        (16, 16, hold.format(16, 0, "shorten it, and lower --max_tokens")),
        (0, 16, fits),
        (0, 17, "17 tokens .* the model's 16 positions: add --max_tokens=16 or less"),
    ):
        asked = {"question": "is " * question if question else None}
        with pytest.raises(ValueError, match=told):
            next(captions(trained, given, Greedy(answer), 4, **asked))


def test_pictures_of_any_shape_keep_their_order(
    published: Path, tmp_path: Path
) -> None:
    """With their aspect kept, those of one shape are read together, each as alone."""
    trained = of(published)
    config = ConfigDict(trained.config, convert_dict=False).unlock()
    config.loader.image.long = 32
    trained = replace(trained, config=config)
    shapes = [(40, 20), (20, 20), (40, 20), (20, 20), (40, 20)]
    rng, files = np.random.default_rng(0), []
    for i, (wide, high) in enumerate(shapes):
        files.append(str(tmp_path / f"{i}.png"))
        pixels = rng.integers(0, 256, (high, wide, 3), np.uint8)
        Image.fromarray(pixels).save(files[-1])
    given = clips(files, 3, video=False)
    seen = [each.shape[1:3] for each in read(given, build(config.loader), 3)]
    assert len(set(seen)) == 2
    together = list(captions(trained, given, Greedy(6), 2))
    assert [each.file for each in together] == files
    for i in (1, 4):
        (alone,) = captions(trained, given[i : i + 1], Greedy(6), 2)
        assert alone.tokens == together[i].tokens
        np.testing.assert_allclose(alone.score, together[i].score, atol=1e-5)


def test_a_converted_checkpoint_is_read_where_it_is_used(
    published: Path, tmp_path: Path
) -> None:
    """Opening moves nothing to a device; the arrays then lie on all of them."""
    there = source.read(published)
    target.write_run(there, tmp_path / "run")
    line = walls.options(
        "--config.mesh.fsdp=4", run=None, checkpoint=str(tmp_path / "run")
    )
    with jax.transfer_guard("disallow_explicit"):
        found = opened(line.flags, line)
    params = found.parameters()
    chex.assert_trees_all_equal(params, there.params)
    kernel = params["project"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size / 4
    assert found.tokenizer.fingerprint == there.tokenizer.fingerprint


@pytest.mark.parametrize("flag", ["run", "checkpoint"])
def test_an_encoder_has_no_captions(tmp_path: Path, flag: str) -> None:
    tower = spec(ViT, size=16, patch=8, width=16, depth=1, heads=2, mlp=16)
    params = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes(build(tower))
    )
    found = Checkpoint(ConfigDict({"encoder": tower}), params, None)
    target.write_run(found, tmp_path / "tower")
    flags = {"run": None, "checkpoint": None} | {flag: str(tmp_path / "tower")}
    line = walls.options(**flags)
    with pytest.raises(ValueError, match=f"--{flag}=.*tower is an encoder: it has no"):
        opened(line.flags, line)


def test_one_model_is_named(published: Path) -> None:
    for flags in ({}, {"run": "a", "checkpoint": "b"}):
        line = walls.options(**({"run": None, "checkpoint": None} | flags))
        with pytest.raises(ValueError, match="--run=DIR.*or --checkpoint=DIR"):
            opened(line.flags, line)
    line = walls.options(run=None, checkpoint="no/such/place")
    with pytest.raises(ValueError, match="--checkpoint=no/such/place: there is no"):
        opened(line.flags, line)
