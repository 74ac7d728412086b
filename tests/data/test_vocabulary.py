"""Word pieces are BERT's: as transformers runs it, from either file, or refused."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from git_jax.data import vocabulary
from git_jax.data.tokenizer import WordPiece

BERT = Path(__file__).parents[3] / "shared/data/wordpiece/vocab.txt"
PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] a cat ##s . sat".split()


def bert() -> Path:
    if not BERT.exists():
        pytest.skip(f"{BERT} is not here: BERT's vocabulary is not part of the project")
    return BERT


@pytest.fixture(scope="module")
def theirs() -> Any:
    reason = "requirements-parity.txt is not installed"
    return pytest.importorskip("transformers", reason=reason).BertTokenizer(str(bert()))


def strings(count: int, seed: int) -> list[str]:
    """Of words and letters of every plane, unassigned ones and special pieces."""
    draw = random.Random(seed)
    words = ["the", "cat's ", "red ", " on ", "unbelievable", "##s", " ", "x" * 101]
    odd = ["ΟΔΟΣ ", "ΣΑΣ", "ς", "İ", "ẞ", "\u0378", "\ue000", "\U0010ffff", "\u00ad"]
    odd += ["\u200b", "\ufffd", "\0", "猫", "e\u0301", "한국", "\U0001f468\u200d"]
    odd += [*vocabulary.SPECIAL, "[mask]", "[ MASK ]"]
    ranges = [(32, 127), (0, 0x300), (0x300, 0x3000), (0x3000, 0xD800)]
    ranges.append((0xE000, 0x110000))

    def part() -> str:
        pick = draw.random()
        if pick < 0.2:
            return draw.choice(words)
        return draw.choice(odd) if pick < 0.3 else chr(draw.randrange(*choice(pick)))

    def choice(pick: float) -> tuple[int, int]:
        return ranges[int(pick * 1000) % len(ranges)]

    return ["".join(part() for _ in range(draw.randrange(40))) for _ in range(count)]


def test_ids_and_texts_are_those_of_transformers(theirs: Any) -> None:
    ours, texts = WordPiece(str(bert())), strings(10_000, seed=0)
    assert sum("[MASK]" in text for text in texts) > 100
    ids = theirs(texts, add_special_tokens=False).input_ids
    assert [ours.encode(text) for text in texts] == ids
    for row in ids[:2000]:
        assert ours.decode(row) == theirs.decode(row, skip_special_tokens=True)


def test_any_ids_read_as_with_transformers(theirs: Any) -> None:
    ours, draw = WordPiece(str(bert())), random.Random(1)
    for _ in range(1000):
        row = [draw.randrange(ours.size) for _ in range(20)] + [100, 103]
        draw.shuffle(row)
        assert ours.decode(row) == theirs.decode(row, skip_special_tokens=True)


def test_what_transformers_saves_is_the_same_tokenizer(
    theirs: Any, tmp_path: Path
) -> None:
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / vocabulary.DESCRIBED).exists()
    listed, texts = WordPiece(str(bert())), strings(200, seed=2)
    for path in (tmp_path, tmp_path / vocabulary.DESCRIBED):
        ours = WordPiece(str(path))
        assert ours.fingerprint == listed.fingerprint
        assert [ours.encode(t) for t in texts] == [listed.encode(t) for t in texts]
    ours.save(tmp_path / "kept")
    assert ours.load(tmp_path / "kept").fingerprint == listed.fingerprint
    again = type(theirs)(str(tmp_path / "kept" / vocabulary.LIST))
    ids = theirs(texts, add_special_tokens=False).input_ids
    assert again(texts, add_special_tokens=False).input_ids == ids


# Without transformers: a file as it writes it ---------------------------------------


def described(**changed: Any) -> dict[str, Any]:
    ids = {piece: id for id, piece in enumerate(PIECES)}
    return json.loads(vocabulary.encoder(ids).to_str()) | changed


def written(directory: Path, content: Any) -> Path:
    path = directory / vocabulary.DESCRIBED
    path.write_text(json.dumps(content))
    return path


def model(**changed: Any) -> dict[str, Any]:
    return {"model": described()["model"] | changed}


def normalizer(**changed: Any) -> dict[str, Any]:
    return {"normalizer": described()["normalizer"] | changed}


def added(**changed: Any) -> dict[str, Any]:
    return {"added_tokens": [described()["added_tokens"][0] | changed]}


def test_a_directory_has_either_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds neither tokenizer.json nor vocab.txt"):
        _ = WordPiece(str(tmp_path)).size
    (tmp_path / vocabulary.LIST).write_text("".join(f"{p}\n" for p in PIECES))
    listed = WordPiece(str(tmp_path))
    assert listed.encode("A cats [MASK]") == [5, 6, 7, 4]
    written(tmp_path, described())
    (tmp_path / vocabulary.LIST).unlink()
    found = WordPiece(str(tmp_path))
    assert found.fingerprint == listed.fingerprint
    assert found.encode("A cats [MASK]") == [5, 6, 7, 4]


def test_truncation_and_padding_of_the_file_are_not_ours(tmp_path: Path) -> None:
    cut = {"max_length": 2, "strategy": "LongestFirst", "stride": 0}
    path = written(tmp_path, described(truncation=cut | {"direction": "Right"}))
    assert WordPiece(str(path)).encode("a cat sat.") == [5, 6, 9, 8]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (normalizer(lowercase=False), "normalizer.lowercase is False"),
        (normalizer(strip_accents=False), "normalizer.strip_accents is False"),
        ({"normalizer": None}, "normalizer.type is None"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer.type is 'White"),
        (model(unk_token="cat"), "model.unk_token is 'cat'"),
        (model(max_input_chars_per_word=50), "model.max_input_chars_per_word is 50"),
        (model(vocab={"[PAD]": 0, "a": 2}), "model.vocab has 2 pieces whose ids"),
        (model(vocab={"[UNK]": 0, "a\n": 1}), r"model.vocab has the piece 'a\\n'"),
        (model(vocab={"[UNK]": 0, "a": 1}), r"lacks \[PAD\], \[CLS\], \[SEP\]"),
        (model(vocab=3), "is no tokenizer.json"),
        (added(special=False), "added_tokens has .*'special': False"),
        (added(content="<new>", id=10), "added_tokens has .*<new>"),
        (
            {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}},
            "model.type is 'WordLevel'",
        ),
    ],
)
def test_what_is_not_lower_case_bert_is_named(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = written(tmp_path, described(added_tokens=[]) | changed)
    with pytest.raises(ValueError, match=message) as caught:
        _ = WordPiece(str(path)).size
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"do_lower_case": false}', "do_lower_case is False"),
        ('{"tokenize_chinese_chars": false}', "tokenize_chinese_chars is False"),
        ('{"strip_accents": false}', "strip_accents is False"),
        ("{", "is no JSON"),
        ("[1]", "is no JSON"),
    ],
)
def test_settings_beside_the_pieces_are_minded(
    tmp_path: Path, content: str, message: str
) -> None:
    written(tmp_path, described())
    (tmp_path / vocabulary.SETTINGS).write_text(content)
    with pytest.raises(ValueError, match=f"{vocabulary.SETTINGS}.*{message}"):
        _ = WordPiece(str(tmp_path)).size
