"""Text to ids and back: bytes, SentencePiece, BERT's WordPiece, behind one protocol.

    Bytes().encode("cat")                                   [102, 100, 119]
    SentencePiece(path="run/tokenizer.model").encode("cat") [271, 304]
    WordPiece(path="vocab.txt").encode("cat")               [4937]

`encode` adds no special ids; the loader places them. A tokenizer is a frozen dataclass
that opens its file on first use.

By hand, from the training texts of a config:

    python -m git_jax.data.tokenizer --config=configs/scenes.py:tiny --target=FILE
"""

import dataclasses
import functools
import hashlib
import io
import os
import pathlib
import sys
from collections.abc import Iterable
from typing import Any, Literal, Protocol, runtime_checkable

from git_jax.data import source as sources
from git_jax.data import vocabulary
from git_jax.file import write


@runtime_checkable
class Tokenizer(Protocol):
    """Ids lie in 0 .. size - 1; `pad`, `bos` and `eos` are three of them."""

    @property
    def file(self) -> str | None:
        """The name of the file that `save` writes, None where none is needed."""

    @property
    def pad(self) -> int: ...

    @property
    def bos(self) -> int: ...

    @property
    def eos(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """A hash of all that defines the ids; equal fingerprints, equal ids."""

    def encode(self, text: str) -> list[int]:
        """The text alone: no bos before it and no eos behind it."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text, without pad, bos and eos; an id >= size reads as unknown."""

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Puts what defines the tokenizer into the directory of a run."""

    def load(self, directory: str | os.PathLike[str]) -> "Tokenizer":
        """The same kind of tokenizer, on what `save` put into the directory."""


def prepare(
    tokenizer: Tokenizer, source: sources.Source, directory: str | os.PathLike[str]
) -> Tokenizer:
    """The tokenizer of a run: trained on the source if need be, kept in its directory.

    What an earlier start of the run has left there is used again, so that a resumed
    run has the ids it began with and needs no other file.
    """
    kept = tokenizer.file and pathlib.Path(directory) / tokenizer.file
    if kept and not kept.exists():
        if isinstance(tokenizer, SentencePiece) and tokenizer.path is None:
            write(kept, tokenizer.train(texts(source, tokenizer)))
        else:
            tokenizer.save(directory)
    return tokenizer.load(directory)


def texts(source: sources.Source, tokenizer: "SentencePiece") -> Iterable[str]:
    """The texts of `tokenizer.records` records, spread evenly over the source."""
    count = min(len(source), tokenizer.records)
    for number in range(count):
        try:
            yield from sources.texts(source, number * len(source) // count)
        except sources.BadRecord:
            continue  # the loader counts and reports it


def check(tokenizer: Tokenizer, fingerprint: str, *, checkpoint: str) -> None:
    """ValueError where the tokenizer is not the one a checkpoint was trained with."""
    if tokenizer.fingerprint != fingerprint:
        raise ValueError(
            f"{checkpoint} was trained with another tokenizer: its fingerprint is "
            f"{fingerprint}, that of {tokenizer} is {tokenizer.fingerprint}. Use the "
            "tokenizer in the directory of the run that made the checkpoint"
        )


def _hash(kind: str, *contents: bytes) -> str:
    digest = hashlib.sha256(kind.encode())
    for content in contents:
        digest.update(len(content).to_bytes(8, "big") + content)
    return f"{kind}:{digest.hexdigest()[:16]}"


def _read(path: str, field: str) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(
            f"{field}={path!r} cannot be read ({error.strerror}): name an existing file"
        ) from error


def _pieces(tokenizer: Tokenizer, ids: Iterable[int], unknown: int) -> list[int]:
    """The ids that make text; `unknown` stands for those that no piece has."""
    special = (tokenizer.pad, tokenizer.bos, tokenizer.eos)
    known = range(tokenizer.size)
    return [int(i) if i in known else unknown for i in ids if i not in special]


@dataclasses.dataclass(frozen=True)
class Bytes:
    """UTF-8 bytes, moved up by 3: needs no file, loses nothing, makes long captions."""

    pad = 0
    bos = 1
    eos = 2
    size = 259
    file = None

    @property
    def fingerprint(self) -> str:
        return _hash("bytes")

    def encode(self, text: str) -> list[int]:
        return [byte + 3 for byte in text.encode()]

    def decode(self, ids: Iterable[int]) -> str:
        """Bytes that are not UTF-8, as a young model writes them, become U+FFFD."""
        kept = _pieces(self, ids, unknown=0xFF + 3)  # no byte of UTF-8 is 0xFF
        return bytes(id - 3 for id in kept).decode(errors="replace")

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Nothing to keep: the class is the tokenizer."""

    def load(self, directory: str | os.PathLike[str]) -> "Bytes":
        return self


@dataclasses.dataclass(frozen=True)
class SentencePiece(sources.Lazy):
    """SentencePiece, trained on the texts of the run where `path` is None.

    `kind` is the algorithm: "bpe" merges frequent neighbours until the vocabulary is
    full, so that small corpora get whole words; "unigram" prunes pieces by likelihood.
    `vocabulary` is a soft limit: the 4 special pieces, 256 bytes for letters never seen
    in training and the letters seen are always there, and few texts fill fewer pieces.
    Texts are normalised by the rule `normalisation` before they are cut: `nmt_nfkc_cf`
    is Unicode NFKC with white space cleaned up and capitals folded (as the WordPiece
    vocabulary of the released GIT), `nmt_nfkc` keeps capitals, `identity` keeps all.
    So `decode(encode(text))` is the normalised text. Training uses one thread and all
    texts in their order: the same texts make the same file, byte for byte.
    """

    path: str | None = None
    kind: Literal["bpe", "unigram"] = "bpe"
    vocabulary: int = 512
    normalisation: str = "nmt_nfkc_cf"
    records: int = 10_000
    """How many records lend their texts to the training."""

    pad = 0
    bos = 1
    eos = 2
    file = "tokenizer.model"

    @property
    def size(self) -> int:
        return self._processor.get_piece_size()

    @property
    def fingerprint(self) -> str:
        return _hash("sentencepiece", self._processor.serialized_model_proto())

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        unknown = self._processor.unk_id()
        return self._processor.decode(_pieces(self, ids, unknown))

    def save(self, directory: str | os.PathLike[str]) -> None:
        target = pathlib.Path(directory) / self.file
        write(target, self._processor.serialized_model_proto())

    def load(self, directory: str | os.PathLike[str]) -> "SentencePiece":
        return dataclasses.replace(self, path=str(pathlib.Path(directory) / self.file))

    def train(self, texts: Iterable[str]) -> bytes:
        """Learns the pieces; the result is the content of a `tokenizer.model`."""
        import sentencepiece

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                model_type=self.kind,
                vocab_size=self.vocabulary,
                hard_vocab_limit=False,
                byte_fallback=True,
                character_coverage=1.0,
                normalization_rule_name=self.normalisation,
                max_sentence_length=2**16,
                pad_id=self.pad,
                bos_id=self.bos,
                eos_id=self.eos,
                unk_id=3,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"no SentencePiece model could be trained with vocabulary="
                f"{self.vocabulary}, normalisation={self.normalisation!r}: {error}. "
                "A vocabulary needs 260 pieces and one for each letter of the texts"
            ) from error
        return model.getvalue()

    @functools.cached_property
    def _processor(self) -> Any:
        import sentencepiece

        if self.path is None:
            raise ValueError(
                "this SentencePiece tokenizer has no model yet: train one (prepare) or "
                "name one with --config.tokenizer.path=tokenizer.model"
            )
        model = _read(self.path, "--config.tokenizer.path")
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.load_from_serialized_proto(model)
        except RuntimeError as error:
            raise ValueError(
                f"--config.tokenizer.path={self.path!r} is not a SentencePiece model "
                f"({len(model):,} bytes): train one with python -m "
                "git_jax.data.tokenizer"
            ) from error
        found = processor.pad_id(), processor.bos_id(), processor.eos_id()
        if found != (self.pad, self.bos, self.eos):
            raise ValueError(
                f"--config.tokenizer.path={self.path!r} has the ids pad, bos, eos = "
                f"{found}, needed are (0, 1, 2): train it with --pad_id=0 --bos_id=1 "
                "--eos_id=2 --unk_id=3, or with python -m git_jax.data.tokenizer"
            )
        return processor


@dataclasses.dataclass(frozen=True)
class WordPiece(sources.Lazy):
    """BERT's lower-case word pieces: `BertTokenizer` of transformers, id by id.

    What the released GIT uses: bert-base-uncased, [PAD] 0, [CLS] 101 begins, [SEP] 102
    ends. `path` names a `vocab.txt`, a `tokenizer.json` or a directory with either.

    A text that spells "[SEP]", in capitals, gets the id of the end, as it did when the
    published checkpoints were trained and does where others run them: the same text is
    to be the same ids. That harms no batch, whose masks are made of lengths.

    Where `decode` meets [UNK] or [MASK] it writes nothing, as transformers does when it
    is told to skip special tokens.
    """

    path: str

    file = vocabulary.LIST

    @property
    def pad(self) -> int:
        return self._vocabulary["[PAD]"]

    @property
    def bos(self) -> int:
        return self._vocabulary["[CLS]"]

    @property
    def eos(self) -> int:
        return self._vocabulary["[SEP]"]

    @property
    def size(self) -> int:
        return len(self._vocabulary)

    @property
    def fingerprint(self) -> str:
        return _hash("wordpiece", *(piece.encode() for piece in self._vocabulary))

    def encode(self, text: str) -> list[int]:
        return self._encoder.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        unknown = self._vocabulary[vocabulary.UNKNOWN]
        return self._encoder.decode(_pieces(self, ids, unknown))

    def save(self, directory: str | os.PathLike[str]) -> None:
        lines = "".join(f"{piece}\n" for piece in self._vocabulary)
        write(pathlib.Path(directory) / self.file, lines.encode())

    def load(self, directory: str | os.PathLike[str]) -> "WordPiece":
        return dataclasses.replace(self, path=str(pathlib.Path(directory) / self.file))

    @functools.cached_property
    def _vocabulary(self) -> dict[str, int]:
        path = str(vocabulary.find(self.path))
        option = "--config.tokenizer.path"
        return vocabulary.read(_read(path, option), f"{option}={path!r}")

    @functools.cached_property
    def _encoder(self) -> Any:
        return vocabulary.encoder(self._vocabulary)


def main(command: Any) -> None:
    """Trains the tokenizer of a config on its training texts."""
    from git_jax.config import build

    config, target = command.config(), command.flags.target
    if not target:
        raise ValueError("--target is missing: name the file to write, tokenizer.model")
    tokenizer = build(config.tokenizer)
    if not isinstance(tokenizer, SentencePiece):
        raise ValueError(
            f"{tokenizer} is not trained: only --config.tokenizer=SentencePiece is"
        )
    write(target, tokenizer.train(texts(build(config.data), tokenizer)))
    made = dataclasses.replace(tokenizer, path=target)
    print(f"{target}: {made.size} pieces, {made.fingerprint}", file=sys.stderr)


def define() -> None:
    from absl import flags

    flags.DEFINE_string("target", None, "The file to write, such as tokenizer.model.")


if __name__ == "__main__":
    # The classes that a config names are those of the imported module, not of __main__.
    from git_jax import command
    from git_jax.data import tokenizer

    command.run(tokenizer.main, tokenizer.define)
