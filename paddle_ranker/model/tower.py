"""Towers: models that turn a text, a picture or a sound into a vector, so that similar inputs have similar vectors.

Needs no Paddle.

A tower's folder holds `tower.json` beside the files of its encoder. One network serves queries and texts; if queries
have a separate tower, it is in the subfolder `query`. Prompts may precede queries and other texts. Each tower says
what it reads: a CLIP is a tower that reads pictures, with a tower in `query` that reads texts.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple, Optional, Union

from paddle_ranker.encoding.columns import PICTURE, TEXT, EncodedPairs, EncodedTexts, FileEncoder
from paddle_ranker.encoding.pair_encoder import TOKENS_OF_CHARACTER, LengthCheck, PairEncoder
from paddle_ranker.errors import CheckpointError, UsageError, listed, quoted, refuse_text
from paddle_ranker.model.load_options import POOLINGS
from paddle_ranker.model.model_kind import TOKENS, ArraySpec, ExportFacts, Signature
from paddle_ranker.registry import Registry
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.storage.declared import Between, Count, Length, OneOf, Width, WidthOrNone, read_declared
from paddle_ranker.storage.untrusted import read_versioned

INFO_FILE = "tower.json"
KIND = "tower"
FORMAT_VERSION = 1
VECTOR = "vector"
QUERY_FOLDER = "query"  # subfolder of the separate query tower
SIMILARITIES = ("cosine", "dot")


@dataclass(frozen=True)
class TowerInfo:
    """Contents of `tower.json`.

    reads: input of the tower: text, or a name in `FILE_INPUTS`, such as picture
    picture_size: height and width in pixels of the pictures that a tower of pictures takes
    max_seq_length: maximum length of a text in tokens; for a picture or sound, the number of tokens that take as long
    size: dimensions of a vector
    output_layer: whether a linear layer follows the pooling
    output_tanh: whether tanh follows the output layer
    normalize: whether vectors have length 1, so that their inner product is their cosine
    similarity: how vectors are compared: cosine, or dot if their lengths matter
    query_prompt, text_prompt: text that precedes every query, and every other text
    titled: whether a text is read after its title, `[CLS] title [SEP] text [SEP]`, as RocketQA's encoders of paragraphs
        read it; a text without a title has an empty one
    lexical_size: number of a vector's last dimensions, which encode the text's words (`LexicalVector`)
    nested_sizes: ascending sizes below `size` to which vectors can be cut; a vector's first dimensions, normalised, are
        then a good vector (Kusupati et al., 2022, "Matryoshka Representation Learning")
    cut_from: size of vectors that are normalised and then cut to `size`, as by sentence-transformers' `truncate_dim`
        after Normalize; 0: vectors are not cut
    towers: 2 if queries have a separate tower, in the folder `QUERY_FOLDER`; else 1
    """

    max_seq_length: Length
    size: Width
    pooling: Annotated[str, OneOf(*POOLINGS)] = "pooler"
    output_layer: bool = False
    output_tanh: bool = False
    normalize: bool = True
    similarity: Annotated[str, OneOf(*SIMILARITIES)] = "cosine"
    query_prompt: str = ""
    text_prompt: str = ""
    titled: bool = False
    lexical_size: WidthOrNone = 0
    nested_sizes: Annotated[tuple[Width, ...], Between(0, 100)] = ()
    cut_from: WidthOrNone = 0
    towers: Annotated[int, Between(1, 2)] = 1
    reads: str = TEXT
    picture_size: Annotated[tuple[Length, ...], Between(0, 2)] = ()
    training: dict[str, object] = field(default_factory=dict)
    results: dict[str, object] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    export: Optional[ExportFacts] = None
    kind: str = KIND
    calibration: None = None
    format_version: Count = FORMAT_VERSION

    @classmethod
    def read(cls, folder: Path) -> Optional[TowerInfo]:
        """Read the folder's `tower.json`; None if there is none.

        Raises `CheckpointError` if the file is damaged, or another version of the toolkit wrote it.
        """
        path = folder / INFO_FILE
        if not path.is_file():
            return None
        return read_declared(cls, path, read_versioned(path, FORMAT_VERSION))

    def __post_init__(self) -> None:
        if self.reads != TEXT and self.reads not in FILE_INPUTS:
            raise CheckpointError(f"reads is {quoted(self.reads)}, expected one of {listed((TEXT, *FILE_INPUTS))}")
        cut, nested = self.cut_from, self.nested_sizes
        for fault, is_so in (
            (f"lexical_size is {self.lexical_size}, expected less than size", self.lexical_size >= self.size),
            ("lexical_size needs normalize", self.lexical_size and not self.normalize),
            (f"cut_from is {cut}, expected 0 or more than size", cut and (self.size >= cut or self.lexical_size)),
            (
                f"picture_size is {listed(self.picture_size)}, expected a height and a width for pictures alone",
                len(self.picture_size) != (2 if self.reads == PICTURE else 0),
            ),
            ("lexical_size needs texts", self.lexical_size and self.reads != TEXT),
            (
                "titled needs texts, without text_prompt and lexical_size",
                self.titled and (self.text_prompt or self.lexical_size or self.reads != TEXT),
            ),
            (
                f"nested_sizes are {listed(nested)}, expected ascending sizes below {self.size}",
                list(nested) != sorted({*nested}) or (nested and nested[-1] >= self.size),
            ),
        ):
            if is_so:
                raise CheckpointError(fault)

    def write(self, folder: Path) -> None:
        """Write `tower.json` into `folder`."""
        with new_file(folder / INFO_FILE) as stream:
            stream.write(json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=2) + "\n")


class TitledText(str):
    """Text of a document, `title text`, of which a titled tower reads both parts apart."""

    before: str  # the title; `title` is a method of `str`
    text: str

    @classmethod
    def of(cls, whole: str, title: str, text: str) -> TitledText:
        titled = cls(whole)
        titled.before, titled.text = title, text
        return titled


@dataclass(frozen=True)
class TextEncoder:
    """Encoder of queries and texts as columns for a tower: `[CLS] prompt text [SEP]`.

    tokens: the tokenizer, with the maximum length
    titled: whether texts are read after their titles, `[CLS] title [SEP] text [SEP]`, with token type 1 for the text
        (`rocketqa/reader/reader_de_predict.py` of PaddlePaddle/RocketQA)

    Raises `CheckpointError` if a prompt leaves too little room for a text.
    """

    tokens: PairEncoder
    query_prompt: str = ""
    text_prompt: str = ""
    titled: bool = False
    reads: ClassVar[str] = TEXT

    def __post_init__(self) -> None:
        most = self.tokens.max_seq_length - self.tokens.template.text_tokens
        for name in ("query_prompt", "text_prompt"):
            self.tokens.require_room(getattr(self, name), name, most)

    def encode(
        self, texts: Sequence[str], check: Optional[LengthCheck] = None, titles: Optional[Sequence[str]] = None
    ) -> EncodedColumns:
        """Encode texts other than queries, after `text_prompt`; `check` may refuse them by their token counts.

        titles: title of each text (default: those of `TitledText`, else empty ones)

        Raises `UsageError` for titles, unless the tower is `titled`.
        """
        refuse_text(texts, "texts")
        if titles is not None:
            refuse_text(titles, "titles")
            if not self.titled:
                raise UsageError("titles were given, and the tower reads texts alone: put each title before its text")
            if len(titles) != len(texts):
                raise UsageError(f"{len(titles)} titles and {len(texts)} texts: give one title for each text")
        if self.titled:
            if titles is None:
                titles = [text.before if isinstance(text, TitledText) else "" for text in texts]
                texts = [text.text if isinstance(text, TitledText) else text for text in texts]
            return self.tokens.encode(titles, texts, check=check)
        return self.tokens.encode_single(texts, check, self.text_prompt)

    def encode_queries(self, queries: Sequence[str], check: Optional[LengthCheck] = None) -> EncodedColumns:
        """Encode queries, after `query_prompt`; `check` as in `encode`."""
        refuse_text(queries, "queries")
        encoded = self.tokens.encode_single(queries, check, self.query_prompt)
        # Queries of a titled tower share batches with its texts.
        return EncodedPairs.of_texts(encoded) if self.titled else encoded

    def query_read(self, query: str) -> Optional[int]:
        """Return how many code points of a query are read, from its start; None if all are."""
        most = self.max_length - self.tokens.template.text_tokens
        if len(self.query_prompt) + len(query) <= most // TOKENS_OF_CHARACTER:
            return None
        end = self.tokens.characters_of(query, most, self.query_prompt)
        return None if end >= len(query) else end

    @property
    def max_length(self) -> int:
        """Maximum length of a text in tokens."""
        return self.tokens.max_seq_length

    @property
    def truncated(self) -> int:
        """Number of texts that were cut to `max_length`."""
        return self.tokens.truncated

    @property
    def room(self) -> int:
        """Maximum length of a text in tokens, without special tokens and `text_prompt`."""
        template = self.tokens.template
        special = template.pair_tokens if self.titled else template.text_tokens
        taken = special + self.tokens.count_tokens("", self.text_prompt)
        return self.tokens.max_seq_length - taken

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Write the tokenizer's files into `folder`."""
        self.tokens.save(folder)


EncodedColumns = Union[EncodedTexts, EncodedPairs]


RowsOfTower = Union[TextEncoder, FileEncoder]


class FileInput(NamedTuple):
    """Input of towers that read files.

    field: type of the fields whose files such towers read
    rows: called with a tower's folder; returns the row encoder
    inputs: called with a tower's info; returns the inputs of its network
    model_types: published models that read such files, by transformers' names
    published: module that converts them: `bring_towers(folder, source, target)` writes the towers of a model,
        `write_published(source, target)` writes a tower as such a model and returns the name of its class. `source` is
        `folder`, or the first sentence-transformers step in it
    with_texts: those of `model_types` that also have a tower of texts, and so a tokenizer
    starter: module that makes networks from nothing, of files of `side` pixels, in a tower of files and texts or in one
        network: `add_tower(folder, side)`, whose folder has an encoder of texts in `QUERY_FOLDER`, and
        `merged(config, side, patch)`, which returns a configuration like that of an encoder of texts; "": none does
    """

    field: str
    rows: Callable[[Path], FileEncoder]
    inputs: Callable[[TowerInfo], tuple[ArraySpec, ...]]
    model_types: tuple[str, ...]
    published: str
    with_texts: tuple[str, ...] = ()
    starter: str = ""


FILE_INPUTS: Registry[FileInput] = Registry("input of towers", recipes="kind")


def texts_of(rows: RowsOfTower) -> TextEncoder:
    """Return a tower's row encoder if it encodes texts; raises `CheckpointError` if the tower reads something else."""
    if isinstance(rows, TextEncoder):
        return rows
    raise CheckpointError(f"the tower reads {rows.reads}s, and one that reads texts is needed here: give such a tower")


def signature_of(info: TowerInfo) -> Signature:
    """Return the inputs and outputs of a tower."""
    inputs = TOKENS if info.reads == TEXT else FILE_INPUTS[info.reads].inputs(info)
    return Signature(inputs, (ArraySpec(VECTOR, "float32", (None, info.size), tolerance=1e-5),), read=(VECTOR,))
