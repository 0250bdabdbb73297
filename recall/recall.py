"""Search a corpus by a tower's vectors: for each query, the texts with the largest cosine, best first.

The index commands keep the vectors, and also search by words:

paddle-ranker index build --corpus corpus.csv --output index --tower checkpoint/tower/best
paddle-ranker search --index index --input queries.tsv --output run.trec
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Optional

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import main_of, option, redeclare
from paddle_ranker.options.declare import FETCHED_FOLDER
from paddle_ranker.progress import Progress
from paddle_ranker.scoring.scoring_options import BatchOptions, TowerOptions

if TYPE_CHECKING:
    from paddle_ranker.array_types import Vectors

# `python recall/recall.py` puts this folder first on the path, where this file takes the name of its own package. So it
# acts as that package, and finds the modules beside it.
__path__ = [str(Path(__file__).resolve().parent)]


@dataclass(frozen=True)
class RecallOptions(TowerOptions):
    params_path: str = option(
        help="tower: a folder of a tower or of any encoder", name="model", leads=True, addresses=FETCHED_FOLDER
    )
    corpus_file: str = option(help="texts to search, one per line", name="corpus", files=True)
    similar_text_pair: str = option(
        help="queries: pairs of a query and a text that answers it", name="input", files=True,
        aliases=("--similar_text_pair_file",),
    )  # fmt: skip
    recall_result_dir: str = option("recall_result", help="folder of the file to write; made if missing")
    recall_result_file: str = option(
        "recall_result_file", help="file to write in that folder: query, text, cosine; .jsonl keeps tabs in texts"
    )
    recall_num: int = option(50, help="number of texts per query", minimum=1)
    hnsw_m: Optional[int] = option(
        None,
        help="search a graph (HNSW) with this many neighbours per text (default: search all texts exactly)",
        minimum=2,
    )
    hnsw_ef: Optional[int] = option(None, help="number of texts of the graph to look at (default: 100)", minimum=1)
    hnsw_max_elements: Optional[int] = option(
        None, help="maximum number of texts; a larger corpus is refused", minimum=1
    )
    output_emb_size: Optional[int] = option(
        None, help="required length of the tower's vectors; other towers are refused; 0: any length", minimum=0
    )
    batch_size: int = redeclare(BatchOptions, "batch_size", 64)


def recall(options: RecallOptions) -> Path:
    """Search the texts for each distinct query, and write them; return the file's path."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.data.rows.records import Pair, RecordFile
    from paddle_ranker.errors import UsageError
    from paddle_ranker.options import note
    from paddle_ranker.retrieval.vectors.text_vectors import open_to_compare
    from paddle_ranker.storage.atomic import make_folder
    from recall.results import corpus_texts, write_results

    path = make_folder(options.recall_result_dir) / options.recall_result_file
    pairs = RecordFile(options.similar_text_pair, Pair, options)
    queries = list(dict.fromkeys(pair.query for pair in pairs))
    corpus = corpus_texts(options.corpus_file, options)
    note(f"{options.similar_text_pair}: {pairs.report()} pairs, {len(queries):,} queries; {len(corpus):,} texts")
    if options.hnsw_max_elements is not None and len(corpus) > options.hnsw_max_elements:
        raise UsageError(f"--hnsw_max_elements {options.hnsw_max_elements}: {options.corpus_file} has {len(corpus):,}")
    tower = open_to_compare(options.params_path, LoadOptions.of(options), options.batch_size)
    wanted = tower.query_vectors(queries)
    if options.output_emb_size not in (None, 0, wanted.shape[1]):
        raise UsageError(f"--output_emb_size {options.output_emb_size}: the tower's have {wanted.shape[1]} numbers")
    vectors = np.concatenate(list(tower.stream(Progress(corpus, desc="encode", unit="text"))))
    write_results(str(path), _rows(queries, corpus, _search(vectors, wanted, options)))
    return path


def _search(vectors: Vectors, queries: Vectors, options: RecallOptions) -> Iterator[tuple[list[int], list[float]]]:
    """Yield the numbers and cosines of each query's texts, best first."""
    from paddle_ranker.retrieval.vectors.exact_search import nearest

    if options.hnsw_m is None and options.hnsw_ef is None:
        numbers, cosines = nearest(vectors, queries, options.recall_num)
        yield from zip(numbers.tolist(), cosines.tolist())
        return
    from paddle_ranker.retrieval.index.vector_indexes import index_of_vectors
    from paddle_ranker.retrieval.stored.manifest import VECTORS
    from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo

    defaults = VectorsInfo("faiss", vectors.shape[1])
    info = replace(
        defaults,
        structure="hnsw",
        hnsw_m=options.hnsw_m or defaults.hnsw_m,
        hnsw_ef=options.hnsw_ef or defaults.hnsw_ef,
    )
    with TemporaryDirectory() as folder, index_of_vectors(Path(folder) / "index", info, vectors) as collection:
        for hits in collection.snapshot().search(VECTORS, queries, options.recall_num):
            yield [*map(int, hits.ids)], hits.scores.tolist()


def _rows(
    queries: Sequence[str], corpus: Sequence[str], results: Iterable[tuple[list[int], list[float]]]
) -> Iterator[tuple[str, str, float]]:
    for query, (numbers, cosines) in zip(queries, results):
        for number, cosine in zip(numbers, cosines):
            yield query, corpus[number], cosine


def run(options: RecallOptions) -> None:
    print(recall(options))


main = main_of(run, RecallOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
