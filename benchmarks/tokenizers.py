"""Time the ways from pairs of texts to ids, and count the rows on which their ids differ.

python -m benchmarks.tokenizers [--file pairs.tsv] [--vocab vocab.txt] [--threads 1,2]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from benchmarks.inputs import GradedPairsOptions, graded_pairs_and_vocabulary, parse_numbers
from paddle_ranker.data.records import Pair, read_records
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.folder import TokenizerFiles
from paddle_ranker.encoding.vocabulary import train_wordpiece_vocabulary, write_vocabulary
from paddle_ranker.errors import DependencyError, UsageError
from paddle_ranker.options import option, run_command
from tests.tokenizer_oracles import TOKENIZERS

_TRAINED_VOCAB_SIZE = 12_000

# A batch of queries and titles -> the ids of each pair.
Encode = Callable[[list[str], list[str]], Any]


@dataclass(frozen=True)
class BenchmarkOptions(GradedPairsOptions):
    """Options of `python -m benchmarks.tokenizers`."""

    batch_size: int = option(64, help="pairs a call", minimum=1)
    max_seq_length: int = option(128, help="longest pair in tokens", minimum=5)
    repetitions: int = option(5, help="timed passes over the file for each way", minimum=1)
    rows: Optional[int] = option(None, help="use only the file's first so many rows", minimum=1)
    threads: str = option("1", help="comma-separated: a table each, of so many cores and threads of the libraries")


@dataclass
class _Way:
    """One row of the table. `prepare` is called before each timed pass; `ids` turns what was encoded into lists."""

    name: str
    prepare: Callable[[], Encode]
    ids: Optional[Callable[[Any], list[list[int]]]] = None
    rates: list[float] = field(default_factory=list)


def run(options: BenchmarkOptions) -> None:
    """Print pairs a second, the ratio to PaddleNLP's Python tokenizer and the number of differing rows."""
    path, vocab = graded_pairs_and_vocabulary(options.file, options.vocab)
    pairs = read_records(path, Pair)[: options.rows]
    queries, titles = [pair.query for pair in pairs], [pair.title for pair in pairs]
    if not pairs:
        raise UsageError(f"{path} holds no pairs: give a file with some")
    counts = parse_numbers(options.threads, "threads")
    allowed = cores()
    if min(counts) < 1 or max(counts) > len(allowed):
        raise UsageError(f"--threads {options.threads}: this process may use {len(allowed)} cores, give 1 to that many")
    with tempfile.TemporaryDirectory() as folder:
        if vocab is None:
            write_vocabulary(folder, train_wordpiece_vocabulary(queries + titles, _TRAINED_VOCAB_SIZE))
        else:
            (Path(folder) / "vocab.txt").write_bytes(vocab.read_bytes())
        for threads in counts:
            with _threads(threads, allowed):
                _time_and_print(folder, options, path, queries, titles, threads)


def _time_and_print(
    folder: str, options: BenchmarkOptions, path: Path, queries: list[str], titles: list[str], threads: int
) -> None:
    ways = _ways(folder, options)
    for _ in range(options.repetitions):  # one after another, so that a busy moment hits all of them
        for way in ways:
            encode = way.prepare()
            start = time.perf_counter()
            for batch in _batches(queries, titles, options.batch_size):
                encode(*batch)
            way.rates.append(len(queries) / (time.perf_counter() - start))
    print(
        f"{path}: {len(queries):,} pairs in batches of {options.batch_size}, at most {options.max_seq_length} tokens, "
        f"{threads} core{'s' if threads > 1 else ''}, median of {options.repetitions} interleaved passes"
    )
    _print_table(ways, queries, titles, options.batch_size)


def _print_table(ways: Sequence[_Way], queries: list[str], titles: list[str], batch_size: int) -> None:
    reference = ways[0]
    expected = _all_ids(reference, queries, titles, batch_size)
    print(f"{'':54}{'pairs/s':>10}{'ratio':>8}  rows with other ids")
    for way in ways:
        ratio = statistics.median(a / b for a, b in zip(way.rates, reference.rates))
        differing = "-"
        if way.ids is not None:
            ids = _all_ids(way, queries, titles, batch_size)
            differing = f"{sum(a != b for a, b in zip(ids, expected)):,} of {len(expected):,}"
        print(f"{way.name:54}{statistics.median(way.rates):>10,.0f}{ratio:>7.1f}x  {differing}")


def _all_ids(way: _Way, queries: list[str], titles: list[str], batch_size: int) -> list[list[int]]:
    assert way.ids is not None
    encode = way.prepare()
    return [row for batch in _batches(queries, titles, batch_size) for row in way.ids(encode(*batch))]


def _ways(folder: str, options: BenchmarkOptions) -> list[_Way]:
    try:
        from paddlenlp.transformers import ErnieTokenizer
    except ImportError as error:
        raise DependencyError(f"the comparison needs PaddleNLP ({error}): pip install paddlenlp") from None
    length = options.max_seq_length
    paddle = ErnieTokenizer.from_pretrained(folder)

    def paddle_encode(queries: list[str], titles: list[str]) -> Any:
        return paddle(queries, titles, max_length=length, truncation="longest_first")

    ways = [_Way("PaddleNLP's ErnieTokenizer (Python)", lambda: paddle_encode, lambda encoded: encoded["input_ids"])]
    ways += _libraries_as_shipped(folder, length)
    for backend in ("builtin", "tokenizers", "fast_tokenizer"):
        with suppress(ImportError):
            tokenizer = TOKENIZERS[backend](TokenizerFiles.read(Path(folder)))
            encoder = PairEncoder.from_folder(folder, length)
            encoder._tokenizer = tokenizer  # in place of the built-in one
            ways.append(_Way(f"PairEncoder, backend {backend}", _always(encoder.encode), _pair_ids))
    builtin = PairEncoder.from_folder(folder, length)
    ways += [
        _Way(
            "PairEncoder, backend builtin, with empty caches",
            lambda: PairEncoder.from_folder(folder, length).encode,
            _pair_ids,
        ),
        _Way(
            "texts alone, backend builtin, repeated queries again",
            _always(lambda queries, titles: builtin.encode_texts(queries + titles)),
        ),
    ]
    return ways


def _libraries_as_shipped(folder: str, length: int) -> list[_Way]:
    """Return the fast libraries' own BERT and ERNIE tokenizers, those that are installed."""
    ways = []
    vocab = PairEncoder.from_folder(folder, length).token_to_id

    def encodings_ids(encodings: Any) -> list[list[int]]:
        return [encoding.ids for encoding in encodings]

    try:
        from tokenizers import BertWordPieceTokenizer

        hugging_face = BertWordPieceTokenizer(vocab, lowercase=True)
        hugging_face.enable_truncation(length)
        ways.append(
            _Way(
                "tokenizers' BertWordPieceTokenizer as shipped",
                _always(lambda queries, titles: hugging_face.encode_batch(list(zip(queries, titles)))),
                encodings_ids,
            )
        )
    except ImportError:
        pass
    try:
        from fast_tokenizer import ErnieFastTokenizer

        paddle_fast = ErnieFastTokenizer(vocab, max_sequence_len=length)
        paddle_fast.disable_padding()
        ways.append(
            _Way(
                "fast_tokenizer's ErnieFastTokenizer as shipped",
                _always(lambda queries, titles: paddle_fast.encode_batch(list(zip(queries, titles)))),
                encodings_ids,
            )
        )
    except ImportError:
        pass
    return ways


def _always(encode: Encode) -> Callable[[], Encode]:
    return lambda: encode


def _pair_ids(pairs: Any) -> list[list[int]]:
    return [pairs[i].tolist() for i in range(len(pairs))]


def _batches(queries: list[str], titles: list[str], size: int) -> Iterator[tuple[list[str], list[str]]]:
    for start in range(0, len(queries), size):
        yield queries[start : start + size], titles[start : start + size]


def cores() -> list[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


@contextmanager
def _threads(count: int, allowed: Sequence[int]) -> Iterator[None]:
    """Keep this process to so many cores where the system can, and give the libraries as many threads."""
    parallel = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if count > 1 else "false"
    with suppress(ImportError):
        import fast_tokenizer

        fast_tokenizer.set_thread_num(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, allowed[:count])
    try:
        yield
    finally:
        os.environ.pop("TOKENIZERS_PARALLELISM")
        if parallel is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = parallel
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, allowed)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, BenchmarkOptions, argv, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
