"""Search a corpus by a tower's vectors: for each query the texts of the largest cosine, best first.

python recall/recall.py --params_path checkpoint/tower/best --corpus_file corpus.csv --similar_text_pair dev.csv
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np
from tqdm import tqdm

from paddle_ranker import runtime
from paddle_ranker.encoding.options import TokenizerOptions
from paddle_ranker.options import DeviceOptions, RowOptions, option, redeclare, run_command
from paddle_ranker.scoring.engines.registry import ENGINES
from paddle_ranker.scoring.options import BatchOptions, engine_help

if TYPE_CHECKING:
    from paddle_ranker.retrieval.vectors import Vectors

# `python recall/recall.py` puts this folder first on the path, where this file takes the name of the package that it
# is in: so it is that package, too, and finds the modules beside it.
__path__ = [str(Path(__file__).resolve().parent)]


@dataclass(frozen=True)
class RecallOptions(BatchOptions, TokenizerOptions, RowOptions, DeviceOptions):
    params_path: str = option(help="the tower: a trained or exported one's folder", name="model", leads=True)
    corpus_file: str = option(help="the texts to search, one a line", name="corpus", files=True)
    similar_text_pair: str = option(
        help="the queries: pairs of a query and a text that answers it", name="input", files=True,
        aliases=("--similar_text_pair_file", "--test"),
    )  # fmt: skip
    recall_result_dir: str = option("recall_result", help="folder of the file to write; made if missing")
    recall_result_file: str = option(
        "recall_result_file", help="file to write there: query, text, cosine; .jsonl keeps tabs in texts"
    )
    recall_num: int = option(50, help="texts of each query", minimum=1)
    max_seq_length: Optional[int] = option(None, help="longest text in tokens (default: the tower's)", minimum=5)
    model_name_or_path: Optional[str] = option(
        None, help="the model whose configuration a bare parameter file takes; a folder's own configuration wins"
    )
    engine: Optional[str] = option(None, help=engine_help, choices=ENGINES)
    batch_size: int = redeclare(BatchOptions, "batch_size", 64)


def recall(options: RecallOptions) -> Path:
    """Write what is found for each distinct query, and return the file's path."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.data.records import Pair, RecordFile
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.options import note
    from paddle_ranker.retrieval.vectors import Tower, nearest
    from paddle_ranker.storage.atomic import make_folder
    from recall.results import corpus_texts, write_results

    path = make_folder(options.recall_result_dir) / options.recall_result_file
    pairs = RecordFile(options.similar_text_pair, Pair, options)
    queries = list(dict.fromkeys(pair.query for pair in pairs))
    corpus = corpus_texts(options.corpus_file, options.skip_bad_rows)
    note(f"{options.similar_text_pair}: {pairs.report()} pairs, {len(queries):,} queries; {len(corpus):,} texts")
    tower = Tower.open(
        options.params_path,
        LoadOptions(
            engine=options.engine,
            device=options.device,
            threads=options.cpu_threads,
            model_name=options.model_name_or_path,
            max_seq_length=options.max_seq_length,
            tokenizer=options.tokenizer,
        ),
        options.batch_size,
    )
    vectors = np.concatenate(list(tower.stream(iter(tqdm(corpus, desc="encode", unit="text", disable=None)))))
    found, cosines = nearest(_unit(vectors), _unit(tower.query_vectors(queries)), options.recall_num)

    def rows() -> Iterator[tuple[str, str, float]]:
        for query, numbers, values in zip(queries, found.tolist(), cosines.tolist()):
            for number, cosine in zip(numbers, values):
                yield query, corpus[number], cosine

    write_results(str(path), rows())
    return path


def _unit(vectors: Vectors) -> Vectors:
    """Return vectors, `[n, size]`, scaled to length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def run(options: RecallOptions) -> None:
    """Search, and print the path of the file."""
    print(recall(options))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, RecallOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
