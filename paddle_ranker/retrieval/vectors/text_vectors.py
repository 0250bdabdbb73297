"""Towers at work: vectors of texts and pictures, and exact search among them.

tower = Tower.open("checkpoint/best")
vectors = tower.vectors(titles)
numbers, cosines = nearest(vectors, tower.query_vectors(["query"]), 10)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.array_types import Array, Integers, Vectors
from paddle_ranker.encoding.columns import PICTURE, Columns, FileEncoder
from paddle_ranker.errors import UsageError, refuse_text
from paddle_ranker.model.load_options import DEFAULT_OPTIONS, LoadOptions
from paddle_ranker.model.model_folder import ANY_TOWER, find_with_tokenizer, identify
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.model.tower import QUERY_FOLDER, VECTOR, RowsOfTower, TextEncoder, TowerInfo, texts_of
from paddle_ranker.retrieval.vectors.exact_search import nearest as nearest
from paddle_ranker.scoring.engines.engine import Engine
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.scoring.scorer import BatchRunner
from paddle_ranker.storage.prefetch import CHUNK, chunks_by_length, prefetch

if TYPE_CHECKING:
    from paddle_ranker.data.files.pictures import Source

_SHORTEST = 1e-12  # as Paddle's and PyTorch's normalize
_CHARACTERS = 1 << 22  # characters of texts that are encoded at a time


class Tower:
    """Tower that computes vectors of queries, and of texts or files to search.

    Args:
        engine: computes the tower's network.
        encoder: encodes its texts or files.
        batch_size: as for `BatchRunner`.
        queries: a separate tower for queries, if there is one.
        scaled: whether vectors are scaled to length 1 after the engine.
    """

    def __init__(
        self,
        engine: Engine,
        encoder: RowsOfTower,
        batch_size: int = 256,
        queries: Optional[Tower] = None,
        scaled: bool = False,
    ):
        self.encoder, self.scaled = encoder, scaled
        self._queries = queries or self
        self._runner = BatchRunner(engine, encoder.max_length, batch_size)

    @classmethod
    def open(
        cls,
        source: Union[str, Path],
        options: LoadOptions = DEFAULT_OPTIONS,
        batch_size: int = 256,
        *,
        for_search: bool = False,
        folder: Path = Path(),
    ) -> Tower:
        """Open a trained or exported tower, or an encoder as a tower: see `read_tower` in `model.tower_network`.

        source: a folder, its parameter file, or a PaddleNLP name. If texts are computed in int8, a separate tower for
            queries computes in fp32
        for_search: scale vectors to length 1 if the tower compares them by cosine, so that inner products are cosines
        folder: folder to which relative paths of files are relative

        Raises `CheckpointError` for the folder of another kind of model. Raises `UsageError` for a pooling or a vector
        size that an exported tower does not have, and for a length in tokens if the tower reads no texts.
        """
        runtime.prepare(threads=0)  # commands have called this before, other programs may not
        tower = cls._open(source, options, batch_size, for_search, folder)
        if options.max_seq_length is not None and not any(
            isinstance(part.encoder, TextEncoder) for part in (tower, tower._queries)
        ):
            reads = tower.encoder.reads
            raise UsageError(f"--max_seq_length {options.max_seq_length}: {source} reads {reads}s alone; leave it out")
        return tower

    @classmethod
    def _open(
        cls, source: Union[str, Path], options: LoadOptions, batch_size: int, for_search: bool, folder: Path
    ) -> Tower:
        path = resolve_model(str(find_with_tokenizer(source, options.model_name)))
        opened = open_model(path, ANY_TOWER, options)
        info, is_scaled = opened.info, bool(options.normalize) or (for_search and opened.info.similarity == "cosine")
        if options.pooling not in (None, info.pooling) or (options.normalize is False and info.normalize):
            made = f"pooling {info.pooling}{', length 1' if info.normalize else ''}"
            raise UsageError(f"{source}: was exported with {made}; leave out --pooling and --normalize")
        queries = None
        if info.towers == 2:
            inner = (path.parent if path.is_file() else path) / QUERY_FOLDER
            precision = "fp32" if options.precision == "int8" else options.precision
            options = dataclasses.replace(options, precision=precision)
            queries = cls._open(inner, options, batch_size, for_search, folder)
        rows = opened.row_encoder
        rows = rows if isinstance(rows, TextEncoder) else rows.in_folder(folder)
        return cls(opened.engine, rows, batch_size, queries, is_scaled and not info.normalize)

    def vectors(self, texts: Sequence[str], titles: Optional[Sequence[str]] = None) -> Vectors:
        """Return the vectors of texts that are searched, `[n, size]`.

        titles: title of each text, for a tower that reads titles before texts, as RocketQA's encoders of paragraphs do
            (default: empty ones)

        Raises `UsageError` for titles if the tower reads texts alone.
        """
        refuse_text(texts, "texts")
        if titles is None:
            return self.compute(self.encoder.encode(texts))
        refuse_text(titles, "titles")
        return self.compute(texts_of(self.encoder).encode(texts, titles=titles))

    def query_vectors(self, queries: Sequence[str]) -> Vectors:
        """Return the vectors of queries, `[n, size]`."""
        refuse_text(queries, "queries")
        return self._queries.compute(self._queries.encoder.encode_queries(queries))

    def query_read(self, query: str) -> Optional[int]:
        """Return how many code points of a query are read, from its start; None if all are."""
        encoder = self._queries.encoder
        return encoder.query_read(query) if isinstance(encoder, TextEncoder) else None

    def encode_pictures(self, pictures: Sequence[Union[Source, Array]]) -> Vectors:
        """Return the vectors of pictures, `[n, size]`, for searches by a picture or among pictures.

        pictures: paths, files' bytes, or RGB pixels `[height, width, 3] uint8`

        Raises `ImageError` for data that is no picture, `UsageError` if the tower reads no pictures.
        """
        tower = self.reading(PICTURE)
        assert isinstance(tower.encoder, FileEncoder)
        return tower.compute(tower.encoder.encode(pictures))

    def reading(self, what: str) -> Tower:
        """Return the tower that computes the vectors of an input, which is this one or that of queries.

        Raises `UsageError` if neither reads it.
        """
        for tower in (self, self._queries):
            if tower.encoder.reads == what:
                return tower
        raise UsageError(f"the tower reads no {what}s, and {what}s were given: give a tower that reads {what}s")

    @property
    def reads(self) -> frozenset[str]:
        """Inputs that the tower computes vectors of, such as picture and text: see `TowerInfo`."""
        return frozenset((self.encoder.reads, self._queries.encoder.reads))

    def compute(self, columns: Columns) -> Vectors:
        """Return the vectors of encoded inputs, `[n, size]`, in their order."""
        vectors: Vectors = self._runner.run(columns)[VECTOR]
        return normalised(vectors) if self.scaled else vectors

    @property
    def cut(self) -> int:
        """Number of texts and queries that were truncated to the tower's maximum length."""
        return sum(tower.encoder.truncated for tower in {self, self._queries})

    def stream(self, texts: Iterable[str], queries: bool = False) -> Iterator[Vectors]:
        """Yield the vectors of texts, some thousand at a time, so that a file of any size can be encoded.

        While vectors are computed, the next texts are tokenized. Without texts, one empty array is yielded.

        queries: whether the texts are queries
        """
        refuse_text(texts, "texts")
        tower = self._queries if queries else self
        encode = tower.encoder.encode_queries if queries else tower.encoder.encode
        is_empty = True
        with prefetch(map(encode, text_parts(texts))) as waiting:
            for columns in waiting:
                is_empty = False
                yield tower.compute(columns)
        if is_empty:
            yield tower.compute(encode([]))


def mean_vector(vectors: Vectors, sizes: Optional[Integers] = None) -> Vectors:
    """Return the weighted mean of vectors, `[1, size]`, scaled to their weighted mean length.

    vectors: vectors of a file's pieces, `[n, size]`
    sizes: lengths of the pieces, which weigh the vectors, `[n]`; None: equal weights
    """
    if len(vectors) == 1:
        return vectors
    shares = np.full(len(vectors), 1 / len(vectors)) if sizes is None else sizes / sizes.sum()
    mean = (shares @ vectors)[None]
    scaled: Vectors = normalised(mean) * (shares @ np.linalg.norm(vectors, axis=1))
    return scaled.astype(np.float32)


def text_parts(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the texts in lists: many texts per list, so that sorting by length pays, but fewer if texts are long."""
    return chunks_by_length(texts, len, CHUNK, _CHARACTERS)


def open_to_compare(
    source: Union[str, Path], options: LoadOptions = DEFAULT_OPTIONS, batch_size: int = 256, folder: Path = Path()
) -> Tower:
    """Open a tower whose vectors are compared by inner product; the arguments are those of `Tower.open`.

    If the tower compares by cosine, its vectors have length 1.
    """
    path = resolve_model(str(source))
    model = identify(path)
    info = model.info
    if not isinstance(info, TowerInfo):
        from paddle_ranker.model.tower_network import read_tower

        model.require_parameters(ANY_TOWER)
        _, info = read_tower(path, options)
    if info.similarity == "cosine" and not info.normalize:
        options = dataclasses.replace(options, normalize=True)
    return Tower.open(path, options, batch_size, folder=folder)


def normalised(vectors: Vectors) -> Vectors:
    """Return the vectors, `[n, size]`, scaled to length 1; a vector of zeros stays as it is."""
    scaled: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SHORTEST)
    return scaled
