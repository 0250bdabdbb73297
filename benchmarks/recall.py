"""Measure the recall stage on real data: words, vectors, both, and a ranker behind them, with paired differences.

    python -m benchmarks.recall --set qbqtc --work_dir WORK --tower TOWER --untuned M3E
    python -m benchmarks.recall --set csl_unseen --work_dir WORK --tower TOWER --ranker RANKER
    python datasets/make_real.py && python -m benchmarks.recall --set manpages --work_dir WORK --tower TOWER

Each set becomes a BEIR folder in WORK, which other systems can read as well, and an index; then
`paddle-ranker evaluate-recall` measures.

| set | documents | queries | right |
| --- | --- | --- | --- |
| qbqtc | the 16,020 titles of train and dev | dev's 69 | label 1 or more; judged titles alone |
| csl | 1,000 papers, title and abstract | the first keyword of each | the paper, and all that name this keyword |
| csl_unseen | the abstracts | of a paper's title the words that its abstract lacks, two at least | the paper |
| manpages | manual pages, whole, without their descriptions | all descriptions, of its three splits | the page |

`csl_unseen` is a set of paraphrases that authors wrote: a title paraphrases its abstract, and the
query is what they do not share, by jieba's words; 376 papers have two such words.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from benchmarks.inputs import ROOT, real_data_file
from paddle_ranker.commands import evaluate_recall, index
from paddle_ranker.data.rows.beir import CORPUS, QRELS, QUERIES, write_beir
from paddle_ranker.data.rows.records import LabeledPair, read_records
from paddle_ranker.data.rows.trec import read_qrels
from paddle_ranker.errors import DataError, RankerError
from paddle_ranker.lexical.tokens import words
from paddle_ranker.options import Options, main_of, option

Qrels = dict[str, dict[str, int]]
LEAST_WORDS = 2  # minimum number of words of a query of csl_unseen


@dataclass(frozen=True)
class RealSet:
    """Documents and queries, texts by id, and labels of documents by query: all, and by split if the set has splits."""

    documents: dict[str, str]
    queries: dict[str, str]
    qrels: Qrels
    splits: dict[str, Qrels] = field(default_factory=dict)


def qbqtc(folder: Optional[str], split: str = "dev") -> RealSet:
    """Return a split's queries over the titles of train and dev; a title that is judged twice has the higher label."""
    rows = {name: read_records(real_data_file(folder, f"qbqtc/{name}.tsv"), LabeledPair) for name in ("train", "dev")}
    ids = {title: f"t{n}" for n, title in enumerate(dict.fromkeys(row.title for part in rows.values() for row in part))}
    names = {query: f"q{n}" for n, query in enumerate(dict.fromkeys(row.query for row in rows[split]))}
    qrels: Qrels = {}
    for row in rows[split]:
        labels = qrels.setdefault(names[row.query], {})
        labels[ids[row.title]] = max(int(row.label), labels.get(ids[row.title], 0))
    return RealSet(_swapped(ids), _swapped(names), qrels)


def csl(folder: Optional[str]) -> RealSet:
    """Return papers, with the first keyword of each as queries."""
    papers = _papers(folder)
    asked = [" ".join(paper["keywords"][:1]) for paper in papers]
    queries = {query: f"q{number}" for number, query in enumerate(dict.fromkeys(asked))}
    qrels: Qrels = {}
    for number, (paper, query) in enumerate(zip(papers, asked)):
        qrels.setdefault(queries[query], {})[f"p{number}"] = 1
        for other in paper["keywords"]:
            if other in queries:
                qrels.setdefault(queries[other], {})[f"p{number}"] = 1
    documents = {f"p{number}": f"{paper['title']}\n{paper['abstract']}" for number, paper in enumerate(papers)}
    return RealSet(documents, _swapped(queries), qrels)


def csl_unseen(folder: Optional[str]) -> RealSet:
    """Return abstracts as documents; each query consists of the title words that the abstract lacks."""
    documents, queries, qrels = {}, {}, {}
    for number, paper in enumerate(_papers(folder)):
        documents[f"p{number}"] = paper["abstract"]
        known = set(words(paper["abstract"]))
        unseen = [word for word in dict.fromkeys(words(paper["title"])) if word not in known and len(word) > 1]
        if len(unseen) >= LEAST_WORDS:
            queries[f"q{number}"] = " ".join(unseen)
            qrels[f"q{number}"] = {f"p{number}": 1}
    return RealSet(documents, queries, qrels)


def manpages_folder(folder: Optional[str]) -> Path:
    """Return the BEIR folder of datasets/make_real.py: `manpages` in `folder`, else in this checkout's `datasets`."""
    made = (Path(folder) if folder else ROOT / "datasets") / "manpages" / "beir"
    if not (made / CORPUS).is_file():
        raise DataError(f"{made / CORPUS}: not there; make it with python datasets/make_real.py")
    return made


def manpages(folder: Optional[str]) -> RealSet:
    """Return the manual pages, and the queries of all splits."""
    made = manpages_folder(folder)
    documents, queries = ({row["_id"]: row["text"] for row in _lines(made / name)} for name in (CORPUS, QUERIES))
    splits = {path.stem: read_qrels(str(path)).qrels for path in sorted((made / QRELS).glob("*.tsv"))}
    return RealSet(
        documents, queries, {query: labels for qrels in splits.values() for query, labels in qrels.items()}, splits
    )


SETS: dict[str, Callable[[Optional[str]], RealSet]] = {
    "qbqtc": qbqtc,
    "csl": csl,
    "csl_unseen": csl_unseen,
    "manpages": manpages,
}


@dataclass(frozen=True)
class RecallBenchmarkOptions(Options):
    set: str = option(help="what to search", choices=tuple(SETS))
    work_dir: str = option(help="folder for the set and its index, which are kept for the next run")
    tower: str = option(help="tower that makes the vectors: the folder of a tower or of any encoder")
    untuned: Optional[str] = option(None, help="another tower or encoder to measure, without fusion")
    ranker: Optional[str] = option(None, help="ranker that orders the first results")
    learn_weights: Optional[str] = option(None, help="learn weights on other queries, and write them to this file")
    runs_folder: Optional[str] = option(None, help="folder for each system's TREC run")
    data_dir: Optional[str] = option(None, help="folder of the real data (default: PADDLE_RANKER_REAL_DATA)")
    cpu_threads: int = option(0, help="threads; 0: one a core", minimum=0)


def _papers(folder: Optional[str]) -> list[dict[str, Any]]:
    return _lines(real_data_file(folder, "csl/papers.jsonl"))


def _lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _swapped(numbers: dict[str, str]) -> dict[str, str]:
    return {id: text for text, id in numbers.items()}


def _given(options: RecallBenchmarkOptions, names: Iterable[str]) -> list[str]:
    return [part for name in names if (value := getattr(options, name)) for part in (f"--{name}", str(value))]


def write_set(made: RealSet, folder: Path) -> None:
    """Write a set as a BEIR folder, unless the folder exists."""
    if not folder.exists():
        write_beir(folder, ((id, text, {}) for id, text in made.documents.items()), made.queries, {"test": made.qrels})


def build_index(beir: Path, built: Path, tower: str, threads: int) -> None:
    """Build the index of a BEIR folder; raises `RankerError` if the command fails."""
    given = ["--corpus", str(beir / CORPUS), "--output", str(built), "--tower", tower, "--cpu_threads", str(threads)]
    if index.main(["build", *given]):
        raise RankerError(f"{built}: the index could not be built; see above")


def run(options: RecallBenchmarkOptions) -> int:
    work = Path(options.work_dir)
    folder, built = work / options.set, work / f"{options.set}-{Path(options.tower).resolve().name}"
    write_set(SETS[options.set](options.data_dir), folder)
    build_index(folder, built, options.tower, options.cpu_threads)
    others = _given(options, ("untuned", "ranker", "learn_weights", "runs_folder"))
    threads = ["--cpu_threads", str(options.cpu_threads)]
    return evaluate_recall.main(["--index", str(built), "--beir", str(folder), *others, *threads])


main = main_of(run, RecallBenchmarkOptions, __doc__)


if __name__ == "__main__":
    sys.exit(main())
