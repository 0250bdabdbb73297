"""Make a tokenizer of the `tokenizers` library from a SentencePiece model alone, with XLM-RoBERTa's or DeBERTa's ids.

Format: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

from paddle_ranker.errors import CheckpointError, DependencyError
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject, read_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MOST_BYTES = 64 * 1024 * 1024  # vocabularies of 250,000 tokens take 5 million
_UNIGRAM = 1
# The tokens in front of the pieces of `sentencepiece.bpe.model`, and how many of its first pieces (<unk>, <s>, </s>)
# they replace: as in fairseq, where both models come from.
Reserved = tuple[tuple[str, ...], int]
XLM_ROBERTA: Reserved = (("<s>", "<pad>", "</s>", "<unk>"), 3)
CAMEMBERT: Reserved = (("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"), 1)


@dataclass(frozen=True)
class SentencePieceModel:
    """What a SentencePiece model's file holds.

    pieces: text, score and type of each piece, in the order of their ids
    kind: 1 for Unigram, 2 for BPE
    charsmap: the precompiled rules of its normalization
    keeps_spaces: whether several spaces in a row are not one
    """

    pieces: list[tuple[str, float, int]]
    kind: int
    charsmap: bytes
    keeps_spaces: bool


def tokenizer_of_sentencepiece(
    path: Path, settings: Optional[UncheckedObject] = None, reserved: Reserved = XLM_ROBERTA
) -> Tokenizer:
    """Return the tokenizer of a SentencePiece model.

    `sentencepiece.bpe.model` gets the `reserved` tokens in front, and XLM-RoBERTa's special tokens and template; any
    other file those of DeBERTa, `[CLS]` and `[SEP]`, which are among its pieces, and DeBERTa's `do_lower_case` and
    `split_by_punct` of the `settings` in `tokenizer_config.json`.

    Raises `CheckpointError` if the file is damaged, or its model is not Unigram.
    """
    try:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    except ImportError as error:
        raise DependencyError(f"{path.name} needs tokenizers ({error}): pip install tokenizers") from None
    model = read_sentencepiece(path)
    if model.kind != _UNIGRAM:
        raise CheckpointError(f"{path}: its model is of the kind {model.kind}; only Unigram (1) is done here")
    pieces = [(text, score) for text, score, _ in model.pieces]
    if path.name == "sentencepiece.bpe.model":
        cls, sep, unknown, mask = "<s>", "</s>", "<unk>", "<mask>"
        pieces = [*((token, 0.0) for token in reserved[0]), *pieces[reserved[1] :], (mask, 0.0)]
        template = f"{cls} $A {sep}", f"{cls} $A {sep} {sep} $B {sep}"
        special = [*XLM_ROBERTA[0], mask]
    else:
        cls, sep, unknown, mask = "[CLS]", "[SEP]", "[UNK]", "[MASK]"
        pieces += [] if any(text == mask for text, _ in pieces) else [(mask, 0.0)]
        template = f"{cls} $A {sep}", f"{cls} $A {sep} $B:1 {sep}:1"
        special = ["[PAD]", cls, sep, unknown, mask]
    ids = {text: number for number, (text, _) in enumerate(pieces)}
    missing = [token for token in special if token not in ids]
    if missing:
        raise CheckpointError(f"{path}: has no {missing[0]} among its pieces: it is of another model")
    library = Tokenizer(models.Unigram(pieces, ids[unknown], False))
    of_deberta = {} if cls == "<s>" or settings is None else settings
    steps: list[Unchecked] = [normalizers.Lowercase()] if of_deberta.get("do_lower_case") is True else []
    steps += [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if not model.keeps_spaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    library.normalizer = normalizers.Sequence(steps)
    splits: list[Unchecked] = [pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    if of_deberta.get("split_by_punct") is True:
        splits.insert(0, pre_tokenizers.Punctuation(behavior="isolated"))
    library.pre_tokenizer = pre_tokenizers.Sequence(splits)
    library.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    library.post_processor = processors.TemplateProcessing(
        single=template[0], pair=template[1], special_tokens=[(token, ids[token]) for token in (cls, sep)]
    )
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return library


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a SentencePiece model's file; raises `CheckpointError` if it is damaged."""
    pieces: list[tuple[str, float, int]] = []
    kind, charsmap, keeps_spaces = _UNIGRAM, b"", False
    try:
        for number, value in _fields(read_file(path, _MOST_BYTES)):
            if number == 1:
                piece = dict(_fields(_bytes(value)))
                score = struct.unpack("<f", _bytes(piece.get(2, b"\0\0\0\0")))[0]
                pieces.append((_bytes(piece[1]).decode("utf-8"), score, _number(piece.get(3, 1))))
            elif number == 2:
                kind = _number(dict(_fields(_bytes(value))).get(3, _UNIGRAM))
            elif number == 3:
                rules = dict(_fields(_bytes(value)))
                charsmap, keeps_spaces = _bytes(rules.get(2, b"")), rules.get(4, 1) == 0
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise CheckpointError(f"{path}: damaged or not a SentencePiece model ({error}); copy it again") from None
    if len(pieces) < len(XLM_ROBERTA[0]):
        raise CheckpointError(f"{path}: holds {len(pieces)} pieces: it is no SentencePiece model; copy it again")
    return SentencePieceModel(pieces, kind, charsmap, keeps_spaces)


_Field = Union[int, bytes]


def _bytes(value: _Field) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where bytes are expected")
    return value


def _number(value: _Field) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where a number is expected")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, _Field]]:
    """Yield the number and the value of each field of a protobuf message."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, place = _varint(data, place)
        if size is None or place + size > len(data):
            raise ValueError(f"a field of the wire type {wire} at byte {place}")
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError(f"a number without an end at byte {place}")
