"""Time the ways from pairs of texts to ids, and count the rows on which their ids differ.

python -m benchmarks.tokenizers [--file pairs.tsv] [--vocab vocab.txt]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.inputs import GradedPairsOptions, graded_pairs_and_vocabulary
from paddle_ranker.data.rows.records import Pair, read_records
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
from paddle_ranker.encoding.vocabulary import train_wordpiece_vocabulary, write_vocabulary
from paddle_ranker.errors import DependencyError, UsageError
from paddle_ranker.options import main_of, option
from tests.tokenizer_oracles import TOKENIZERS

_TRAINED_VOCAB_SIZE = 12_000

# A function from a batch of queries and titles to the ids of each pair.
Encode = Callable[[list[str], list[str]], Any]


@dataclass(frozen=True)
class BenchmarkOptions(GradedPairsOptions):
    batch_size: int = option(64, help="pairs a call", minimum=1)
    max_seq_length: int = option(128, help="longest pair in tokens", minimum=5)
    repetitions: int = option(5, help="number of timed passes over the file for each way", minimum=1)


@dataclass
class _Way:
    """A row of the table: a way to encode pairs; `ids` turns its output into lists."""

    name: str
    encode: Encode
    ids: Callable[[Any], list[list[int]]]
    rates: list[float] = field(default_factory=list)


def run(options: BenchmarkOptions) -> None:
    """Print pairs per second, the ratio to PaddleNLP's Python tokenizer, and the number of differing rows."""
    path, vocab = graded_pairs_and_vocabulary(options.file, options.vocab)
    pairs = read_records(path, Pair)
    queries, titles = [pair.query for pair in pairs], [pair.title for pair in pairs]
    if not pairs:
        raise UsageError(f"{path} holds no pairs: give a file with some")
    with tempfile.TemporaryDirectory() as folder:
        if vocab is None:
            write_vocabulary(folder, train_wordpiece_vocabulary(queries + titles, _TRAINED_VOCAB_SIZE))
        else:
            (Path(folder) / "vocab.txt").write_bytes(vocab.read_bytes())
        ways = _ways(Path(folder), options.max_seq_length)
    batches = list(_batches(queries, titles, options.batch_size))
    for _ in range(options.repetitions):  # the ways take turns, so that a busy moment affects all of them
        for way in ways:
            start = time.perf_counter()
            for batch in batches:
                way.encode(*batch)
            way.rates.append(len(queries) / (time.perf_counter() - start))
    print(
        f"{path}: {len(queries):,} pairs in batches of {options.batch_size}, at most {options.max_seq_length} tokens, "
        f"median of {options.repetitions} interleaved passes"
    )
    _print_table(ways, batches)


def _print_table(ways: Sequence[_Way], batches: Sequence[tuple[list[str], list[str]]]) -> None:
    reference = ways[0]
    found = [[row for batch in batches for row in way.ids(way.encode(*batch))] for way in ways]
    print(f"{'':54}{'pairs/s':>10}{'ratio':>8}  rows with other ids")
    for way, ids in zip(ways, found):
        ratio = statistics.median(a / b for a, b in zip(way.rates, reference.rates))
        differing = f"{sum(a != b for a, b in zip(ids, found[0])):,} of {len(ids):,}"
        print(f"{way.name:54}{statistics.median(way.rates):>10,.0f}{ratio:>7.1f}x  {differing}")


def _ways(folder: Path, length: int) -> list[_Way]:
    try:
        from paddlenlp.transformers import ErnieTokenizer
    except ImportError as error:
        raise DependencyError(f"the comparison needs PaddleNLP ({error}): pip install paddlenlp") from None
    paddle = ErnieTokenizer.from_pretrained(str(folder))

    def paddle_encode(queries: list[str], titles: list[str]) -> Any:
        return paddle(queries, titles, max_length=length, truncation="longest_first")

    ways = [_Way("PaddleNLP's ErnieTokenizer (Python)", paddle_encode, lambda encoded: encoded["input_ids"])]
    for backend in ("builtin", "tokenizers", "fast_tokenizer"):
        with suppress(ImportError):
            encoder = PairEncoder.from_folder(folder, length)
            encoder._tokenizer = TOKENIZERS[backend](TokenizerFiles.read(folder))  # in place of the built-in one
            ways.append(_Way(f"PairEncoder, backend {backend}", encoder.encode, _pair_ids))
    return ways


def _pair_ids(pairs: Any) -> list[list[int]]:
    return [pairs[i].tolist() for i in range(len(pairs))]


def _batches(queries: list[str], titles: list[str], size: int) -> Iterator[tuple[list[str], list[str]]]:
    for start in range(0, len(queries), size):
        yield queries[start : start + size], titles[start : start + size]


main = main_of(run, BenchmarkOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
