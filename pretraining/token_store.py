"""Store a corpus's tokens and word starts in files, which are made once and memory-mapped by every later run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Optional

import numpy as np

from paddle_ranker.encoding.columns import ragged_positions
from paddle_ranker.encoding.tokenizers.builtin import CONTINUATION
from paddle_ranker.encoding.tokenizers.text_rules import WordSplitter, is_chinese
from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
from paddle_ranker.errors import CheckpointError, DataError, DependencyError, RankerError
from paddle_ranker.progress import Progress
from paddle_ranker.storage.arrays import gather, map_array
from paddle_ranker.storage.atomic import made_once, new_folder, remove_unfinished
from paddle_ranker.storage.digest import json_digest
from paddle_ranker.storage.prefetch import chunks
from pretraining.corpus import Corpus

_FORMAT = 2
_LINES = 2048  # number of lines to tokenize at once
_AT_ONCE = 1024  # number of documents to read at once
_IDS, _STARTS, _OFFSETS, _FACTS = "ids.bin", "starts.bin", "offsets.bin", "facts.json"


@dataclass(frozen=True)
class TokenStore:
    """Store of a corpus's documents as tokens, without special tokens.

    `ids` `[total]` uint16 or int32; `starts` `[total]` bool, where words begin; `offsets` `[n + 1]` int64: document i
    is `ids[offsets[i]:offsets[i + 1]]`, and is not empty. The arrays are memory-mapped files.
    """

    ids: np.ndarray
    starts: np.ndarray
    offsets: np.ndarray
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def hashes(self, documents: np.ndarray) -> Iterator[int]:
        """Yield a number for each document in `documents` `[m]`; documents of equal tokens have equal numbers."""
        for number in range(0, len(documents), _AT_ONCE):
            bounds = gather(self.offsets, documents[number : number + _AT_ONCE, None] + [0, 1])
            lengths = bounds[:, 1] - bounds[:, 0]
            ids = gather(self.ids, ragged_positions(bounds[:, 0], lengths))
            yield from (hash(part.tobytes()) for part in np.split(ids, np.cumsum(lengths)[:-1]))


def tokenised(corpus: Corpus, digests: list[str], files: TokenizerFiles, folder: Path, whole_words: bool) -> TokenStore:
    """Return the tokens of a corpus from the cache in `folder`; make them if they are missing.

    Args:
        digests: `content_digest` of each of the corpus's files.
        whole_words: split Chinese into words with jieba.

    Raises `DataError` as the corpus does, `RankerError` if the tokens cannot be written.
    """
    starts = WordStarts(files, segment=whole_words)
    config = {name: value for name, value in files.config.items() if name != "tokenizer_class"}
    key = [_FORMAT, digests, corpus.rules, hashlib.sha256(files.vocabulary).hexdigest(), config, starts.segments]
    target = folder / f"tokens_{json_digest(*key)}"
    with made_once(target) as missing:
        if missing:
            remove_unfinished(folder)
            try:
                with new_folder(target) as temporary:
                    _write(temporary, corpus, files, starts)
            except OSError as error:
                raise RankerError(
                    f"{target}: the tokens could not be written there ({error.strerror or error}); make room, or "
                    "choose another --cache_dir"
                ) from error
    return _open(target)


def _write(folder: Path, corpus: Corpus, files: TokenizerFiles, starts: WordStarts) -> None:
    tokenizer = files.tokenizer()
    dtype = np.dtype(np.uint16 if files.vocab_size <= 1 << 16 else np.int32)
    unknown_id, unknown, total, document, documents = files.token_to_id[files.special_tokens["unk_token"]], 0, 0, 0, 0
    with (
        (folder / _IDS).open("wb") as ids_file,
        (folder / _STARTS).open("wb") as starts_file,
        (folder / _OFFSETS).open("wb") as offsets_file,
        Progress(desc="tokenise", unit=" texts") as bar,
    ):
        for chunk in chunks(corpus, _LINES):
            texts = [text for _, text in chunk]
            ids, lengths = tokenizer.encode(texts)
            ids_file.write(ids.astype(dtype).tobytes())
            starts_file.write(starts.of(texts, ids).tobytes())
            unknown += int((ids == unknown_id).sum())
            ends = []
            for (begins, _), length in zip(chunk, lengths.tolist()):
                if begins and total > document:  # the previous document has ended and is not empty
                    ends.append(document)
                    document = total
                total += length
            documents += len(ends)
            offsets_file.write(np.array(ends, np.int64).tobytes())
            bar.update(len(chunk))
        if total > document:
            documents += 1
            offsets_file.write(np.array([document], np.int64).tobytes())
        offsets_file.write(np.array([total], np.int64).tobytes())
    if not documents:
        raise DataError(f"{', '.join(corpus.files)}: the files hold no token; are they text?")
    facts = {
        "files": corpus.report(),
        "skipped": corpus.skipped,
        "documents": documents,
        "tokens": total,
        "unknown": unknown,
        "dtype": dtype.name,
        "words": "jieba" if starts.segments else "tokens",
    }
    (folder / _FACTS).write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _open(folder: Path) -> TokenStore:
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        arrays = []
        for name, dtype, count in (
            (_IDS, facts["dtype"], facts["tokens"]),
            (_STARTS, "bool", facts["tokens"]),
            (_OFFSETS, "int64", facts["documents"] + 1),
        ):
            with (folder / name).open("rb") as stream:
                arrays.append(map_array(stream, np.dtype(dtype)))
            if len(arrays[-1]) != count:
                raise ValueError(f"{name} holds {len(arrays[-1])} values, not {count}")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: damaged ({error}); remove it, and it will be made again") from error
    ids, starts, offsets = arrays
    return TokenStore(ids, starts, offsets, facts)


class WordStarts:
    """Rule for word starts: all tokens but `##` pieces and, with `segment`, the later ideographs of jieba's words.

    If jieba is not installed, each ideograph is a word; `segments` tells whether jieba is used.
    """

    def __init__(self, files: TokenizerFiles, segment: bool):
        self._continues = np.zeros(files.vocab_size, bool)
        for token, token_id in files.token_to_id.items():
            self._continues[token_id] = token.startswith(CONTINUATION) and len(token) > len(CONTINUATION)
        self._splitter = WordSplitter(files.rules)
        self._wanted = segment

    @cached_property
    def _segmenter(self) -> Optional[Any]:
        from paddle_ranker.lexical.tokens import jieba_segmenter

        try:
            return jieba_segmenter() if self._wanted else None
        except DependencyError:
            return None

    @property
    def segments(self) -> bool:
        """Return True if jieba joins ideographs to words."""
        return self._segmenter is not None

    def of(self, texts: Sequence[str], ids: np.ndarray) -> np.ndarray:
        """Return whether each of the `ids` of `texts` begins a word, `[total]` bool."""
        starts = ~self._continues[ids]
        if self.segments:
            # Each word of the splitter has exactly one token that does not continue another, so words and such tokens
            # match.
            joined = [begins for text in texts for begins in self._begins(self._splitter.split(text))]
            starts[np.flatnonzero(starts)] = joined
        return starts

    def _begins(self, words: list[str]) -> list[bool]:
        """Return whether each of the splitter's words begins a word of jieba."""
        begins: list[bool] = []
        for ideographs, run in groupby(words, lambda word: len(word) == 1 and is_chinese(ord(word))):
            run_words = list(run)
            if not ideographs:
                begins += [True] * len(run_words)
                continue
            assert self._segmenter is not None
            for word in self._segmenter.cut("".join(run_words), HMM=False):
                begins += [True] + [False] * (len(word) - 1)
        return begins
