"""BERT's word pieces: the files that list them, and the encoder that they make.

    read(b"[PAD]\\n[UNK]\\n[CLS]\\n[SEP]\\ncat\\n", "vocab.txt")["cat"]    4

A `vocab.txt` has a piece a line, whose number is its id. A `tokenizer.json` is what the
`tokenizers` library writes, and transformers since version 5; it could describe any
tokenizer, so all but its pieces is held to what BERT's, in lower case, would be.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIST, DESCRIBED, SETTINGS = "vocab.txt", "tokenizer.json", "tokenizer_config.json"

UNKNOWN = "[UNK]"
NEEDED = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]")
SPECIAL = (*NEEDED, "[MASK]")

# What BertTokenizer is told beside its files, where it makes lower-case pieces.
_SETTINGS = {"do_lower_case": True, "tokenize_chinese_chars": True}


def find(path: str | os.PathLike[str]) -> Path:
    """The file with the pieces: `path` itself, or the one in the directory `path`.

    Raises:
        ValueError: the directory has none, or settings for other pieces.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    _require_settings(path / SETTINGS)
    for name in (DESCRIBED, LIST):  # transformers' preference
        if (path / name).is_file():
            return path / name
    raise ValueError(f"{path} holds neither {DESCRIBED} nor {LIST}")


def read(data: bytes, where: str) -> dict[str, int]:
    """The ids by their pieces, in the order of the ids, of the content of either file.

    Raises:
        ValueError: naming the file `where` and what of it is not BERT's.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} is not UTF-8 at byte {error.start}: name a {LIST} with a piece a "
            f"line"
        ) from error
    described = where.rstrip("'\"").endswith(".json")
    vocabulary = _described(text, where) if described else _listed(text, where)
    if missing := [piece for piece in NEEDED if piece not in vocabulary]:
        raise ValueError(
            f"{where} ({len(vocabulary):,} pieces) lacks {', '.join(missing)}: name "
            f"the {LIST} of a BERT model, such as bert-base-uncased"
        )
    return vocabulary


def encoder(vocabulary: Mapping[str, int]) -> Any:
    """A `tokenizers.Tokenizer`: transformers' BertTokenizer, id by id.

    So the special pieces are found in a text that spells them, in capitals and before
    anything else is done to it: "a [MASK]" has two ids.
    """
    import tokenizers

    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(dict(vocabulary), unk_token=UNKNOWN)
    )
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece(prefix="##", cleanup=True)
    made.add_special_tokens([piece for piece in SPECIAL if piece in vocabulary])
    return made


def _listed(text: str, where: str) -> dict[str, int]:
    pieces = text.removesuffix("\n").split("\n")
    pieces = [piece.removesuffix("\r") for piece in pieces]
    vocabulary = {piece: id for id, piece in enumerate(pieces)}
    if len(vocabulary) < len(pieces):
        twice = next(p for id, p in enumerate(pieces) if vocabulary[p] != id)
        raise ValueError(
            f"{where} has the piece {twice!r} more than once: ids are line numbers, so "
            f"each line must be different"
        )
    return vocabulary


def _described(text: str, where: str) -> dict[str, int]:
    import tokenizers

    try:
        # Read and written again, so that what a file leaves out is there.
        whole = json.loads(tokenizers.Tokenizer.from_str(text).to_str())
    except Exception as error:  # the library raises no other kind
        reason = " ".join(str(error).split())[:150]
        raise ValueError(f"{where} is no {DESCRIBED} ({reason})") from None
    found = whole["model"].get("vocab")
    if whole["model"].get("type") != "WordPiece":
        raise ValueError(
            f"{where}: model.type is {whole['model'].get('type')!r}, not 'WordPiece': "
            f"it is no tokenizer of BERT"
        )
    vocabulary = dict(sorted(found.items(), key=lambda item: item[1]))
    if list(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError(
            f"{where}: model.vocab has {len(vocabulary):,} pieces whose ids are not 0 "
            f".. {len(vocabulary) - 1:,}"
        )
    if broken := [piece for piece in vocabulary if "\n" in piece or "\r" in piece]:
        raise ValueError(
            f"{where}: model.vocab has the piece {broken[0]!r}, which no line of a "
            f"{LIST} can hold"
        )
    _require_same(whole, json.loads(encoder(vocabulary).to_str()), where)
    return vocabulary


def _require_same(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], where: str
) -> None:
    """ValueError naming the first setting that would make other ids."""
    for part in ("normalizer", "pre_tokenizer", "model"):
        there, here = theirs[part] or {}, ours[part]
        for key in [key for key in here if key != "vocab"]:
            if there.get(key) != here[key]:
                raise ValueError(
                    f"{where}: {part}.{key} is {there.get(key)!r}; in the lower-case "
                    f"BERT that is read here it is {here[key]!r}"
                )
    for token in theirs["added_tokens"]:
        if token not in ours["added_tokens"]:
            raise ValueError(
                f"{where}: added_tokens has {token!r}; only {', '.join(SPECIAL)} may "
                f"be there, as special tokens with their ids in model.vocab"
            )


def _require_settings(path: Path) -> None:
    if not path.is_file():
        return
    try:
        held = dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        raise ValueError(f"{path} is no JSON object: copy it again") from None
    if held.get("strip_accents") is False:
        raise ValueError(f"{path}: strip_accents is False; pieces here have none")
    for key, value in _SETTINGS.items():
        if held.get(key, value) != value:
            raise ValueError(
                f"{path}: {key} is {held[key]!r}; only the lower-case BERT, where it "
                f"is {value!r}, is read here"
            )
