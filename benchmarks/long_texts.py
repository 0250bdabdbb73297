"""Compare ways to rank long texts, cut, in windows, by a passage and uncut: a paper's keywords -> its abstract, on CSL.

python -m benchmarks.long_texts --seeds 1,2,3
python -m benchmarks.long_texts --set manpages --max_seq_length 128 --seeds 1,2,3
python -m benchmarks.long_texts --uncut 512

The training command trains a small ranker from random weights on one part of the papers: keywords are queries, titles
are relevant. It re-ranks the papers that BM25 finds in the other part, by title and abstract, which are truncated to
its length, scored in windows, or scored by the window that has most of the query's tokens. With `--uncut`, all rankers
start as one small ModernBERT, and a further one is trained on whole texts and reads them uncut. A measured query is one
keyword of a paper (with all keywords together every system finds the paper), and all papers with that keyword are
relevant.

`--papers FILE` compares them on texts of your own. With `--set manpages` the papers are the Chinese manual pages of
datasets/make_real.py: a page's description is its only keyword, its first characters are its title, and the splits made
there are trained on and ranked.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np

from benchmarks.harness.quality import print_comparison
from benchmarks.harness.runs import (
    LEXICAL,
    QualityOptions,
    Run,
    RunStore,
    System,
    file_digest,
    replace_encoder,
    texts_of,
    train_cross_encoder,
)
from benchmarks.inputs import real_data_file
from benchmarks.recall import manpages, manpages_folder
from paddle_ranker.data.rows.beir import CORPUS
from paddle_ranker.data.rows.records import LabeledPair, write_records
from paddle_ranker.encoding.columns import Columns
from paddle_ranker.encoding.windows import SplitPairs, Windows
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.options import main_of, option
from paddle_ranker.retrieval.words.word_search import WordSearcher
from paddle_ranker.storage.atomic import make_folder

if TYPE_CHECKING:
    from paddle_ranker import Ranker
    from paddle_ranker.array_types import Floats

# A dict from a way's name to its windows and top_k.
WAYS: dict[str, tuple[str, Optional[int]]] = {
    "cut": ("none", None),
    "windows_max": ("max", None),
    "windows_mean_2": ("mean_top_k", 2),
    "passage": ("passage", None),
}
UNCUT = "uncut"
REFERENCE = "windows_max"
_OVERLAP, _NEGATIVES = 16, 7  # tokens that windows share; titles of other papers per training query
_OPENING, _LONGEST_PAGE = 200, 20_000  # characters of a manual page: for its title, and at most for its text


@dataclass(frozen=True)
class LongTextsOptions(QualityOptions):
    set: str = option("csl", help="papers, or manual pages", choices=("csl", "manpages"))
    papers: Optional[str] = option(
        None, help="your own texts in place of CSL: JSON lines with keywords (a list), title, abstract and category"
    )
    train_papers: int = option(600, help="number of papers to train on; the others are ranked", minimum=20)
    candidates: int = option(
        20, help="number of papers to rank per query: the relevant papers, and BM25's best others", minimum=2
    )
    max_seq_length: int = option(64, help="maximum length of a pair in tokens; abstracts are longer", minimum=16)
    epochs: int = option(3, help="epochs", minimum=1)
    uncut: int = option(0, help="maximum length of a pair for the uncut ranker; 0: no such ranker", minimum=0)


@dataclass(frozen=True)
class Paper:
    """A paper of the collection."""

    keywords: tuple[str, ...]
    title: str
    abstract: str
    category: str

    @property
    def text(self) -> str:
        return f"{self.title}。{self.abstract}"


def read_papers(path: Path) -> list[Paper]:
    """Return the papers of a JSON-lines file with keywords, an abstract and a title that no earlier paper has."""
    papers: dict[str, Paper] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["keywords"] and row["title"] and row["abstract"]:
            paper = Paper(tuple(row["keywords"]), row["title"], row["abstract"], row.get("category", ""))
            papers.setdefault(paper.title, paper)
    return list(papers.values())


def read_pages(folder: Optional[str]) -> tuple[list[Paper], list[Paper]]:
    """Return (manual pages to train on, manual pages of dev and test to rank); pages need a description."""
    made = manpages(folder)
    known: list[Paper] = []
    others: list[Paper] = []
    for split, qrels in made.splits.items():
        for query, labels in qrels.items():
            for id in labels:
                text = " ".join(made.documents[id][:_LONGEST_PAGE].split())
                paper = Paper((made.queries[query],), text[:_OPENING], text[_OPENING:], id.split(".")[-1])
                (known if split == "train" else others).append(paper)
    return known, others


def split_papers(papers: Sequence[Paper], train: int) -> tuple[list[Paper], list[Paper]]:
    """Return the papers to train on and the papers to rank; the split is the same for every seed."""
    if train > len(papers) - 2:
        raise UsageError(f"--train_papers {train}: too few of {len(papers)} papers are left to rank")
    order = np.random.default_rng(1000).permutation(len(papers))
    return [papers[i] for i in order[:train]], [papers[i] for i in order[train:]]


def training_pairs(papers: Sequence[Paper], negatives: int, seed: int, whole: bool = False) -> list[LabeledPair]:
    """Return pairs of a query with its paper's title (label 1), and with titles of other papers (label 0).

    With `whole`, the papers' texts take the place of their titles.

    A paper gives two queries: all its keywords, and one that is drawn at random, as in the measured queries. The other
    papers, at most `negatives` per query, are of the same category and lack some of the query's keywords.
    """
    random = np.random.default_rng([seed, 1])
    pairs: dict[tuple[str, str], LabeledPair] = {}
    for paper in papers:
        for chosen in (paper.keywords, (draw_keyword(paper, random),)):
            query = " ".join(chosen)
            others = [
                other for other in papers if other.category == paper.category and not set(chosen) <= set(other.keywords)
            ]
            drawn = random.permutation(len(others))[:negatives]
            for chosen_paper, label in [(paper, 1.0), *((others[i], 0.0) for i in drawn)]:
                title = chosen_paper.text if whole else chosen_paper.title
                pairs.setdefault((query, title), LabeledPair(query, title, label))
    return list(pairs.values())


def draw_keyword(paper: Paper, random: np.random.Generator) -> str:
    return paper.keywords[int(random.permutation(len(paper.keywords))[0])]


def candidates_of(papers: Sequence[Paper], count: int) -> list[LabeledPair]:
    """Return pairs of a query and a paper's text (title and abstract).

    Each distinct query, a keyword, is paired with all papers that have it (relevant), and then with the best other
    papers by BM25 (character bigrams), up to `count` papers in total, or more if more are relevant.
    """
    random = np.random.default_rng(1001)
    queries = dict.fromkeys(draw_keyword(paper, random) for paper in papers)
    words = WordSearcher.of_texts((paper.text for paper in papers), "bigram")
    pairs = []
    for query in queries:
        found, _ = words.search(query, 2 * count)
        relevant = [paper for paper in papers if query in paper.keywords]
        others = [papers[i] for i in found if papers[i] not in relevant]
        for paper in [*relevant, *others[: max(0, count - len(relevant))]]:
            pairs.append(LabeledPair(query, paper.text, float(paper in relevant)))
    return pairs


def make_start(options: LongTextsOptions, papers: Sequence[Paper], seed: int, folder: Path) -> Path:
    """Write the encoder with random parameters from which all rankers of a seed are trained; return its folder."""
    from paddle_ranker.commands.starter import StarterOptions, make_starter

    corpus = folder / "corpus.jsonl"
    lines = [json.dumps({"text": text}) for paper in papers for text in (*paper.keywords, paper.text)]
    corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    start = make_starter(
        StarterOptions(
            corpus=str(corpus),
            output_dir=str(folder / "starter"),
            vocab_size=6000,
            max_position_embeddings=max(options.max_seq_length, options.uncut),
            seed=seed,
        )
    )
    if options.uncut:
        _write_modernbert(start, seed)
    return start


def _write_modernbert(start: Path, seed: int) -> None:
    """Replace a starter's encoder by a ModernBERT of its width; the second and third of four layers are local."""
    from paddle_ranker.model.encoders.modernbert import ModernBertConfig
    from paddle_ranker.model.families import require_config

    known = require_config(start)
    config = ModernBertConfig(
        known.vocab_size,
        hidden_size=known.hidden_size,
        num_hidden_layers=4,
        num_attention_heads=known.num_attention_heads,
        intermediate_size=2 * known.hidden_size,
        max_position_embeddings=known.max_position_embeddings,
        model_type="modernbert",
    )
    replace_encoder(start, config, seed)


def train(
    options: LongTextsOptions, papers: Sequence[Paper], seed: int, start: Path, folder: Path, whole: bool = False
) -> Path:
    """Train a ranker with the cross-encoder's command, on titles or `whole` texts; return its folder."""
    make_folder(folder)
    write_records(folder / "train.tsv", training_pairs(papers, _NEGATIVES, seed, whole))
    # The command requires a file to evaluate on.
    write_records(folder / "seen.tsv", training_pairs(papers[:20], _NEGATIVES, seed, whole))
    values = {
        "loss": "ranknet_bce",
        "max_seq_length": options.uncut if whole else options.max_seq_length,
        "learning_rate": 5e-4,
        "new_parts_factor": 1,
        "epochs": options.epochs,
        "seed": seed,
        "cpu_threads": options.threads,
    }
    train_cross_encoder(folder / "train.tsv", folder / "seen.tsv", start, folder / "checkpoint", values)
    return folder / "checkpoint" / "last"


class Harness:
    """Papers, candidates, and the systems that rank them: a ranker per seed in each way, and BM25."""

    def __init__(self, options: LongTextsOptions) -> None:
        self.options = options
        if options.set == "manpages":
            self.digest = file_digest(manpages_folder(options.data_dir) / CORPUS)
            self.known, self.ranked = read_pages(options.data_dir)
        else:
            path = Path(options.papers) if options.papers else real_data_file(options.data_dir, "csl/papers.jsonl")
            self.digest = file_digest(path)
            self.known, self.ranked = split_papers(read_papers(path), options.train_papers)
        pairs = candidates_of(self.ranked, options.candidates)
        self.queries, self.texts = texts_of(pairs)
        self.labels = np.array([pair.label for pair in pairs])
        self.store = RunStore(options.scores_dir)
        self.ways = (*WAYS, *([UNCUT] if options.uncut else []))

    def systems(self, seeds: Sequence[int]) -> list[System]:
        """Return the rows of the table: the ranker in each way, BM25 of words, and BM25 of bigrams."""
        by_seed = [self._of_seed(seed) for seed in seeds]
        found = [System(name, *zip(*(runs[name] for runs in by_seed))) for name in self.ways]
        return [*found, *self._lexical()]

    def _of_seed(self, seed: int) -> dict[str, Run]:
        facts = {**self.options.facts(), "data": self.digest, "seed": seed}
        with tempfile.TemporaryDirectory() as folder:
            trained = Trained(self, seed, Path(folder))
            return {name: self.store.get({**facts, "way": name}, partial(trained.run, name)) for name in self.ways}

    def _lexical(self) -> list[System]:
        systems = []
        for name in ("bm25_words", "bm25_bigrams"):
            baseline = LEXICAL[name]()
            baseline.fit([], self.texts, [])
            systems.append(System(name, (baseline.score(self.queries, self.texts),), (0.0,)))
        return systems


class Trained:
    """Rankers of a seed, trained on first use, and their logits, computed once."""

    def __init__(self, harness: Harness, seed: int, folder: Path) -> None:
        self.harness, self.seed, self.folder = harness, seed, folder
        self.seconds = 0.0

    def run(self, name: str) -> Run:
        """Score the candidates in the way `name`; return their logits and the seconds of training."""
        if name == UNCUT:
            return self._cut(self._uncut_ranker), self.seconds
        windows, top_k = WAYS[name]
        if windows == "none":
            return self._cut(self._ranker), self.seconds
        split, logits = self._windows
        if windows == "passage":
            return logits[best_windows(split)], self.seconds
        pooling = Windows(self.harness.options.max_seq_length, windows, _OVERLAP, top_k)
        return pooling.pool(logits, split.offsets), self.seconds

    @cached_property
    def _start(self) -> Path:
        return make_start(self.harness.options, self.harness.known, self.seed, self.folder)

    @cached_property
    def _ranker(self) -> Ranker:
        return self._trained("of_titles", whole=False)

    @cached_property
    def _uncut_ranker(self) -> Ranker:
        return self._trained("of_texts", whole=True)

    def _trained(self, name: str, whole: bool) -> Ranker:
        from paddle_ranker import Ranker

        start, began = self._start, time.perf_counter()
        checkpoint = train(self.harness.options, self.harness.known, self.seed, start, self.folder / name, whole)
        self.seconds = time.perf_counter() - began
        return Ranker.load(checkpoint)

    def _cut(self, ranker: Ranker) -> Floats:
        harness = self.harness
        pairs = ranker.row_encoder.encode(harness.queries, harness.texts)
        print(f"seed {self.seed}: {ranker.row_encoder.truncated:,} of {len(pairs):,} pairs are too long", flush=True)
        return self._timed(f"up to {int(pairs.lengths.max()):,} tokens", ranker, pairs)

    @cached_property
    def _windows(self) -> tuple[SplitPairs, Floats]:
        ranker, harness = self._ranker, self.harness
        windows = Windows(harness.options.max_seq_length, overlap=_OVERLAP)
        (encoder,) = ranker.row_encoder.members
        split = windows.split(encoder.encode(harness.queries, harness.texts, truncate=False))
        return split, self._timed(f"in {len(split.pairs):,} windows", ranker, split.pairs)

    def _timed(self, way: str, ranker: Ranker, pairs: Columns) -> Floats:
        """Return the logits of pairs or windows; print the milliseconds per text."""
        began = time.perf_counter()
        logits = ranker.scorer.logits(pairs)
        per_text = 1000 * (time.perf_counter() - began) / len(self.harness.texts)
        print(f"seed {self.seed}: {per_text:.2f} ms a text {way}", flush=True)
        return logits


def best_windows(split: SplitPairs) -> np.ndarray:
    """Return, for each pair, the first of its windows that have most of the query's tokens, `[pairs]`."""
    pairs, shares = split.pairs, []
    for row in range(len(pairs)):
        ids = pairs.ids[pairs.offsets[row] : pairs.offsets[row + 1]]
        shares.append(len(np.intersect1d(ids[: pairs.second_starts[row]], ids[pairs.second_starts[row] :])))
    counts = np.array(shares)
    return np.array([start + counts[start:end].argmax() for start, end in zip(split.offsets, split.offsets[1:])])


def run(options: LongTextsOptions) -> None:
    """Print the table: nDCG@10 and MRR@10 of each way, and their differences from the reference."""
    seeds = options.begin()
    harness = Harness(options)
    if not harness.labels.any():
        raise DataError("no query has a paper to find")
    systems = harness.systems(seeds)
    head = (
        f"trained on keywords -> title of {len(harness.known):,} papers; {len(set(harness.queries)):,} queries of "
        f"a keyword for {len(harness.ranked):,} others, ranked by title and abstract "
        f"among BM25's best {options.candidates}; {options.max_seq_length} tokens a pair"
    )
    measures = ("ndcg@10", "mrr@10")
    print_comparison(options, harness.queries, harness.labels, systems, REFERENCE, head, measures=measures)


main = main_of(run, LongTextsOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.long_texts")


if __name__ == "__main__":
    raise SystemExit(main())
