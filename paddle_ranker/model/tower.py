"""Towers: models that turn a text into a vector, so that similar texts have similar vectors. Needs no Paddle.

A tower's folder holds `tower.json` beside the files of its encoder. One network serves queries and texts; if queries
have a separate tower, it is in the subfolder `query`. Prompts may precede queries and other texts.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from paddle_ranker.encoding.columns import EncodedTexts
from paddle_ranker.encoding.pair_encoder import LengthCheck, PairEncoder
from paddle_ranker.errors import CheckpointError, quoted, refuse_text
from paddle_ranker.model.opened import TOKENS, ArraySpec, ExportFacts, Signature
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.storage.untrusted import read_versioned

INFO_FILE = "tower.json"
KIND = "tower"
FORMAT_VERSION = 2  # for towers with a lexical part or `cut_from`, which older toolkits would ignore; otherwise 1
VECTOR = "vector"
QUERY_FOLDER = "query"  # subfolder of the separate query tower
# The pooler's output, the first token's state, the mean of all states, their maximum per dimension.
POOLINGS = ("pooler", "first", "mean", "max")
SIMILARITIES = ("cosine", "dot")


@dataclass(frozen=True)
class TowerInfo:
    """Contents of `tower.json`.

    size: dimensions of a vector
    pooling: one of `POOLINGS`
    output_layer: whether a linear layer follows the pooling
    output_tanh: whether tanh follows that layer
    normalize: whether vectors have length 1, so that their product is their cosine
    similarity: comparison of vectors: cosine, or dot if their length matters
    query_prompt, text_prompt: text that precedes every query, and every other text
    lexical_size: number of the last dimensions that say which words a text has (`LexicalVector`)
    nested_sizes: smaller numbers of first dimensions that are good vectors after normalising, ascending (Kusupati et
        al., 2022, "Matryoshka Representation Learning")
    cut_from: dimensions before the cut to `size`, if vectors are normalised before the cut, as by
        sentence-transformers' `truncate_dim` after Normalize; otherwise 0
    towers: 2 if queries have a separate tower, in the folder `QUERY_FOLDER`
    """

    max_seq_length: int
    size: int
    pooling: str = "pooler"
    output_layer: bool = False
    output_tanh: bool = False
    normalize: bool = True
    similarity: str = "cosine"
    query_prompt: str = ""
    text_prompt: str = ""
    lexical_size: int = 0
    nested_sizes: tuple[int, ...] = ()
    cut_from: int = 0
    towers: int = 1
    training: dict[str, object] = field(default_factory=dict)
    results: dict[str, object] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    export: Optional[ExportFacts] = None
    kind: str = KIND
    calibration: None = None
    format_version: int = FORMAT_VERSION

    @classmethod
    def read(cls, folder: Path) -> Optional[TowerInfo]:
        """Read the folder's `tower.json`; None if there is none.

        Raises `CheckpointError` if the file is damaged, or a newer version of the toolkit wrote it.
        """
        path = folder / INFO_FILE
        if not path.is_file():
            return None
        values = read_versioned(path, FORMAT_VERSION)
        try:
            known = {f.name for f in dataclasses.fields(cls)}
            info = cls(**{name: value for name, value in values.items() if name in known})
            info = dataclasses.replace(info, nested_sizes=tuple(info.nested_sizes))
            sound = info.pooling in POOLINGS and min(info.size, info.max_seq_length) > 0 and info.towers in (1, 2)
            sound = sound and info.similarity in SIMILARITIES and 0 <= info.lexical_size < info.size
            sound = sound and (info.normalize or not info.lexical_size)
            sound = sound and (info.cut_from == 0 or (info.size < info.cut_from and not info.lexical_size))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error})") from error
        if not sound:
            found = f"pooling {quoted(info.pooling)}, size {quoted(info.size)}, {quoted(info.towers)} towers"
            raise CheckpointError(f"{path}: damaged ({found})")
        return info

    def write(self, folder: Path) -> None:
        """Write `tower.json` into `folder`."""
        with new_file(folder / INFO_FILE) as stream:
            values = {
                **dataclasses.asdict(self),
                "format_version": FORMAT_VERSION if self.lexical_size or self.cut_from else 1,
            }
            stream.write(json.dumps(values, ensure_ascii=False, indent=2) + "\n")


@dataclass(frozen=True)
class TextEncoder:
    """Encoder of queries and texts as columns for a tower: `[CLS] prompt text [SEP]`.

    tokens: the tokenizer, with the maximum length
    """

    tokens: PairEncoder
    query_prompt: str = ""
    text_prompt: str = ""

    def encode(self, texts: Sequence[str], check: Optional[LengthCheck] = None) -> EncodedTexts:
        """Encode texts of the collection; `check` may refuse them by their lengths with prompts."""
        refuse_text(texts, "texts")
        if self.text_prompt:
            texts = [self.text_prompt + text for text in texts]
        return self.tokens.encode_single(texts, check)

    def encode_queries(self, queries: Sequence[str], check: Optional[LengthCheck] = None) -> EncodedTexts:
        """Encode queries; `check` as in `encode`."""
        refuse_text(queries, "queries")
        if self.query_prompt:
            queries = [self.query_prompt + query for query in queries]
        return self.tokens.encode_single(queries, check)

    @property
    def room(self) -> int:
        """The number of tokens of a text that the tower reads, without special tokens and the prompt."""
        taken = self.tokens.template.text_tokens + self.tokens.count_tokens(self.text_prompt)
        return self.tokens.max_seq_length - taken

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Write the tokenizer's files into `folder`."""
        self.tokens.save(folder)


def signature_of(info: TowerInfo) -> Signature:
    """Return the inputs and outputs of a tower."""
    return Signature(TOKENS, (ArraySpec(VECTOR, "float32", (None, info.size), tolerance=1e-5),), read=(VECTOR,))
