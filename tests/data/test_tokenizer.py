"""Three tokenizers, one protocol: ids there and back, kept with a run, told apart."""

import dataclasses
import pathlib
import pickle
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from git_jax.data import tokenizer as tokenizers
from git_jax.data.source import BadRecord, Record
from git_jax.data.tokenizer import Bytes, SentencePiece, Tokenizer, WordPiece

BERT = pathlib.Path(__file__).parents[3] / "shared/data/wordpiece/vocab.txt"
TEXTS = [
    f"a {size} {colour} {shape} to the {side} of the other"
    for size in ("small", "large")
    for colour in ("red", "green", "blue")
    for shape in ("circle", "square", "star")
    for side in ("left", "right")
]
SMALL = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\ncat\ncat\n"
ODD = [
    "",
    " ",
    "a",
    "Ünïcode ☃ 猫 \U0001f600",
    "tab\tnew\nline",
    "[SEP] </s> <s> [PAD]",
]


@dataclasses.dataclass(frozen=True)
class Told:
    """A source of these texts; the second record cannot be read."""

    lines: tuple[str, ...] = tuple(TEXTS)
    splits = ("train",)

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> Record:
        if index == 1:
            raise BadRecord("1", "odd")
        return {"id": str(index), "frames": [], "texts": (self.lines[index],)}

    def split(self, name: str) -> "Told":
        return self


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SentencePiece:
    directory = tmp_path_factory.mktemp("run")
    made = tokenizers.prepare(SentencePiece(vocabulary=320), Told(), directory)
    assert isinstance(made, SentencePiece)
    return made


@pytest.fixture
def wordpiece(tmp_path: pathlib.Path) -> WordPiece:
    path = tmp_path / "small.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\ncat\n##s\n.\n[\n]\nsep\n")
    return WordPiece(str(path))


@pytest.fixture(params=["Bytes", "SentencePiece", "WordPiece"])
def any_kind(request: pytest.FixtureRequest) -> Iterator[Tokenizer]:
    fixtures = {"SentencePiece": "model", "WordPiece": "wordpiece"}
    if request.param == "Bytes":
        return Bytes()
    return request.getfixturevalue(fixtures[request.param])


# What holds for all ------------------------------------------------------------------


@pytest.mark.parametrize("text", ODD)
def test_ids_are_in_range_and_no_text_has_ends(any_kind: Tokenizer, text: str) -> None:
    assert isinstance(any_kind, Tokenizer)
    special = {any_kind.pad, any_kind.bos, any_kind.eos}
    assert len(special) == 3
    ids = any_kind.encode(text)
    assert all(type(i) is int and 0 <= i < any_kind.size for i in ids)
    if "[SEP]" not in text or not isinstance(any_kind, WordPiece):
        assert not special & set(ids)


def test_decoding_skips_special_ids_and_reads_arrays(any_kind: Tokenizer) -> None:
    ids = any_kind.encode("a cat")
    special = [any_kind.bos, *ids[:2], any_kind.pad, *ids[2:], any_kind.eos]
    assert any_kind.decode(special) == any_kind.decode(ids) == "a cat"
    assert any_kind.decode(np.array(special, np.int32)) == "a cat"
    assert any_kind.decode([]) == ""


def test_an_id_without_a_piece_reads_as_unknown(any_kind: Tokenizer) -> None:
    ids = any_kind.encode("a cat")
    read = any_kind.decode([*ids, any_kind.size, any_kind.size + 5])
    if isinstance(any_kind, WordPiece):  # which writes nothing for it
        assert read == any_kind.decode([*ids, 1]) == "a cat"
    else:
        assert read.startswith("a cat") and len(read) > len("a cat")


def test_a_run_rebuilds_it_from_its_directory(
    any_kind: Tokenizer, tmp_path: pathlib.Path
) -> None:
    made = tokenizers.prepare(any_kind, Told(), tmp_path / "run")
    for again in (
        any_kind.load(tmp_path / "run"),
        made,
        pickle.loads(pickle.dumps(made)),
    ):
        assert again.fingerprint == any_kind.fingerprint
        assert again.encode("a cat") == any_kind.encode("a cat")
    assert len(pickle.dumps(made)) < 500


def test_a_resumed_run_needs_only_its_directory(
    any_kind: Tokenizer, tmp_path: pathlib.Path
) -> None:
    tokenizers.prepare(any_kind, Told(), tmp_path / "run")
    moved = any_kind.load("/nowhere")
    again = tokenizers.prepare(moved, Told(), tmp_path / "run")
    assert again.fingerprint == any_kind.fingerprint


def test_fingerprints_tell_them_apart(
    model: SentencePiece, wordpiece: WordPiece
) -> None:
    kinds = (Bytes(), model, wordpiece)
    assert len({kind.fingerprint for kind in kinds}) == 3
    tokenizers.check(model, model.fingerprint, checkpoint="runs/a")
    with pytest.raises(
        ValueError, match="runs/a was trained with another .*bytes:"
    ) as e:
        tokenizers.check(model, Bytes().fingerprint, checkpoint="runs/a")
    assert model.fingerprint in str(e.value)


# Bytes -------------------------------------------------------------------------------


def test_bytes_lose_nothing() -> None:
    assert Bytes().encode("cat") == [102, 100, 119]
    for text in (*ODD, "\0\x7f", "".join(map(chr, range(1, 3000)))):
        assert Bytes().decode(Bytes().encode(text)) == text
    assert Bytes().decode([0xC3 + 3]) == "\ufffd"


# SentencePiece -----------------------------------------------------------------------


def test_training_repeats_to_the_byte() -> None:
    kind = SentencePiece(vocabulary=320)
    first, second = kind.train(TEXTS), kind.train(iter(TEXTS))
    assert first == second
    assert first != kind.train(TEXTS[::-1] + ["a purple pentagon"])


def test_pieces_are_words_of_the_texts(model: SentencePiece) -> None:
    assert len(model.encode(TEXTS[0])) < len(Bytes().encode(TEXTS[0])) * 0.7
    assert (model.pad, model.bos, model.eos) == (0, 1, 2)
    assert 260 < model.size <= 320


def test_round_trip_is_the_normalised_text(model: SentencePiece) -> None:
    for text in TEXTS:
        assert model.decode(model.encode(text)) == text
    assert model.decode(model.encode("  A ﬁne  CAT ☃\n 猫 ")) == "a fine cat ☃ 猫"


def test_the_limit_of_pieces_is_soft() -> None:
    assert len(SentencePiece(vocabulary=5000).train(["a b", "b a"])) > 0


def test_too_small_a_vocabulary_is_named() -> None:
    with pytest.raises(ValueError, match="vocabulary=100.* needs 260 pieces"):
        SentencePiece(vocabulary=100).train(TEXTS)
    with pytest.raises(ValueError, match="normalisation='none'"):
        SentencePiece(normalisation="none").train(TEXTS)
    with pytest.raises(ValueError, match="no SentencePiece model could be trained"):
        SentencePiece().train([])


def test_a_prepared_run_is_not_trained_again(tmp_path: pathlib.Path) -> None:
    kind = SentencePiece(vocabulary=320)
    first = tokenizers.prepare(kind, Told(), tmp_path)
    again = tokenizers.prepare(kind, Told(("something else",) * 3), tmp_path)
    assert again.fingerprint == first.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.model"]


def test_training_reads_records_spread_over_the_source() -> None:
    lines = Told(tuple(f"text {i}" for i in range(100)))
    found = list(tokenizers.texts(lines, SentencePiece(records=4)))
    assert found == ["text 0", "text 25", "text 50", "text 75"]
    assert len(list(tokenizers.texts(lines, SentencePiece()))) == 99  # one is bad


def test_what_is_no_model_of_ours_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="has no model yet"):
        SentencePiece().encode("a")
    with pytest.raises(
        ValueError, match="path='/none' cannot be read .*name an existing"
    ):
        SentencePiece("/none").encode("a")
    (tmp_path / "bad").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not a SentencePiece model .8 bytes."):
        _ = SentencePiece(str(tmp_path / "bad")).size
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(tmp_path / "other"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    foreign = SentencePiece(str(tmp_path / "other.model"))
    with pytest.raises(ValueError, match=r"pad, bos, eos = \(-1, 1, 2\).*--pad_id=0"):
        foreign.encode("a")


def test_the_command_trains_from_a_config(tmp_path: pathlib.Path) -> None:
    config, target = tmp_path / "config.py", tmp_path / "made" / "tokenizer.model"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"not looked at")
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "texts": ["a cat on a mat", "a dog on a log"]}\n'
    )
    config.write_text(
        "from ml_collections import ConfigDict\n"
        "from git_jax.config import spec\n"
        "from git_jax.data.folder import Folder\n"
        "from git_jax.data.tokenizer import Bytes, SentencePiece\n"
        "def make(kind):\n"
        "    return ConfigDict(dict(data=spec(Folder), tokenizer=spec(kind)))\n"
        "def get_config():\n"
        "    return make(SentencePiece)\n"
        "def plain():\n"
        "    return make(Bytes)\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "git_jax.data.tokenizer", *arguments],
            capture_output=True,
            text=True,
            cwd=pathlib.Path(__file__).parents[2],
        )

    data, out = f"--config.data.path={folder}", f"--target={target}"
    done = run(f"--config={config}", data, out)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "pieces" in done.stderr
    assert (
        SentencePiece(str(target)).decode(SentencePiece(str(target)).encode("a cat"))
        == "a cat"
    )
    for wrong, message in (
        ((f"--config={config}", data), "--target is missing"),
        ((f"--config={config}:plain", data, out), "Bytes() is not trained"),
        ((f"--config={config}", "--config.data.path=/none", out), "no folder '/none'"),
    ):
        done = run(*wrong)
        assert done.returncode == 1 and message in done.stderr
        assert "Traceback" not in done.stderr


# WordPiece ---------------------------------------------------------------------------


def test_wordpiece_finds_its_special_pieces_by_name(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("cat\n[SEP]\n[UNK]\na\n[PAD]\n[CLS]\n")
    kind = WordPiece(str(path))
    assert (kind.pad, kind.bos, kind.eos, kind.size) == (4, 5, 1, 6)
    assert kind.encode("A Cat, zebra") == [3, 0, 2, 2]


def test_a_text_that_spells_sep_means_it_in_capitals(wordpiece: WordPiece) -> None:
    assert wordpiece.encode("a [SEP] cats.") == [4, 3, 5, 6, 7]
    assert wordpiece.encode("a [sep] cats.") == [4, 8, 10, 9, 5, 6, 7]
    assert wordpiece.decode([4, 8, 10, 9, 5, 6, 7]) == "a [ sep ] cats."
    assert wordpiece.encode("[MASK]") == [8, 1, 9]  # not a piece of this vocabulary


def test_bad_vocabularies_are_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "vocab.txt"
    kind = WordPiece(str(path))
    for content, message in (
        (None, "cannot be read"),
        (b"[PAD]\n[UNK]\na\n", r"\(3 pieces\) lacks \[CLS\], \[SEP\]"),
        (SMALL.encode(), "the piece 'cat' more than once"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"", r"lacks \[PAD\]"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            _ = kind.size
        assert str(path) in str(caught.value)


def test_bert_base_uncased() -> None:
    if not BERT.exists():
        pytest.skip(f"{BERT} is not here: BERT's vocabulary is not part of the project")
    kind = WordPiece(str(BERT))
    assert (kind.pad, kind.bos, kind.eos, kind.size) == (0, 101, 102, 30522)
    expected = [2048, 8870, 10201, 2006, 1037, 5061, 8768, 1012]
    assert kind.encode("Two cats laying on a pink blanket.") == expected
    assert kind.decode(expected) == "two cats laying on a pink blanket."
    assert kind.encode("naïve") == kind.encode("Naive")
