"""Measure searches of a collection: runs of several systems on the same queries, with baselines, and a picture.

judged = read_pairs("dev.tsv", index.snapshot().documents(), "title")
runs = {"hybrid": results, **lexical_runs(texts, judged.queries, 100)}
comparison = compare_runs(judged, runs, 100)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.data.rows.field_paths import value_at
from paddle_ranker.data.rows.trec import Labels, Scores, in_order, read_qrels, read_texts
from paddle_ranker.errors import DataError, brief, quoted
from paddle_ranker.evaluation.comparison import Comparison, System, compare_systems
from paddle_ranker.evaluation.pairs import judged_runs
from paddle_ranker.evaluation.recall import label_of, notes_on, open_judged
from paddle_ranker.evaluation.report.text import systems_table
from paddle_ranker.evaluation.systems import BM25_BIGRAMS, BM25_WORDS
from paddle_ranker.lexical.tokens import STANDARD, have_spaces, letters
from paddle_ranker.metrics.measures import recall_curve
from paddle_ranker.metrics.ranking import RELEVANT, Scored
from paddle_ranker.options import RowOptions
from paddle_ranker.progress import Progress
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.snapshots.searchable import LookupRequest
from paddle_ranker.retrieval.stages.fusion import FUSIONS, Candidates, Fusion, Signal, by_score, numbers_of
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stages.weight_learning import JudgedList, rank_loss
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import WORDS
from paddle_ranker.retrieval.stored.schema import Field
from paddle_ranker.retrieval.values.typed_values import STORED
from paddle_ranker.retrieval.vectors.text_vectors import Tower, nearest
from paddle_ranker.retrieval.words.word_search import WordSearcher
from paddle_ranker.storage.plotting import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW, new_picture
from paddle_ranker.storage.prefetch import chunks

BM25_STEMS = "BM25 (stems)"
_TOKENIZERS = {BM25_WORDS: "jieba", BM25_BIGRAMS: "bigram", BM25_STEMS: STANDARD}  # of the baselines
HYBRID, RANKED = "hybrid", " + ranker"
_QUERIES = 64  # queries that are searched together
CUTS = (1, 5, 10, 20, 50, 100)
SHOWN = (*(f"r@{cut}" for cut in CUTS), "mrr@10", "ndcg@10", "map")
_COLORS = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, BLACK)


@dataclass(frozen=True)
class JudgedQueries:
    """Queries with judgments of which documents answer them.

    source: file of the judgments, for messages
    queries: texts by id
    qrels: labels as `qrels[query][document]`
    notes: one line for each reason that rows were skipped
    documents: ids of queries that are also documents, with the same id; a query is not a valid result of itself
    copies: for the id of each document that repeats an answer's text, the id of the first document with this text.
        Documents with the same text count as one answer
    """

    source: str
    queries: Mapping[str, str]
    qrels: Labels
    notes: list[str] = field(default_factory=list)
    documents: frozenset[str] = frozenset()
    copies: Mapping[str, str] = field(default_factory=dict)

    def label(self, query: str, id: str) -> int:
        """Return a document's label for a query; 0 if nobody judged the document."""
        return self.qrels[query].get(self.copies.get(id, id), 0)

    def is_judged(self, query: str, id: str) -> bool:
        """Return whether somebody judged a document for a query."""
        return self.copies.get(id, id) in self.qrels[query]

    def is_result(self, query: str, id: str) -> bool:
        """Return whether a document is a valid result of a query; False if the document is the query itself."""
        return id != query or query not in self.documents

    def depth(self, top_k: int) -> int:
        """Return how many documents to search for, so that `top_k` results are left without invalid and equal ones."""
        copies = Counter(self.copies.values())
        return top_k + bool(self.documents) + max(copies.values(), default=1) - 1

    def results(self, run: Scores, top_k: int) -> Scores:
        """Return the first `top_k` valid results (`is_result`) of each query; copies of an answer count as one."""
        cleaned: Scores = {}
        for query, scores in run.items():
            results = cleaned[query] = {}
            for id, score in scores.items():
                if self.is_result(query, id):
                    first = self.copies.get(id, id)
                    results[first] = max(score, results.get(first, score))
        return first_of(cleaned, top_k)

    @property
    def answers(self) -> list[str]:
        """The ids of the documents that answer at least one query, each once."""
        ids = (id for labels in self.qrels.values() for id, label in labels.items() if label >= RELEVANT)
        return list(dict.fromkeys(ids))


def read_judged(
    qrels: str, queries: str, rules: Optional[RowOptions] = None, collection: Optional[Collection] = None
) -> JudgedQueries:
    """Read qrels and the texts of their queries.

    If a document of `collection` has a query's id and text, as in BEIR (ArguAna, Quora), it is the query itself, and
    so not a valid result, unless it is judged to answer the query. Raises `DataError` if a file is malformed, or if a
    query has no text.
    """
    judged = read_qrels(qrels, rules)
    texts = read_texts(queries, judged.qrels, rules)
    of_same_id = collection.snapshot().documents_of(list(texts)) if collection is not None else {}
    itself = {
        query
        for query, document in of_same_id.items()
        if _reads_as(document.text, texts[query]) and judged.qrels[query].get(query, 0) < RELEVANT
    }
    notes = [*judged.notes]
    if of_same_id:
        others = (
            f"; {len(of_same_id) - len(itself):,} more only share its id, and count"
            if len(itself) < len(of_same_id)
            else ""
        )
        notes.append(
            f"{queries}: {len(itself):,} of {len(texts):,} queries are documents of the same id: each is left out of "
            f"its own results{others}"
        )
    return JudgedQueries(qrels, texts, judged.qrels, notes, frozenset(itself))


def _reads_as(document: str, query: str) -> bool:
    """Return whether a document's text is the query, possibly after a title."""
    return letters(document).endswith(letters(query)) if letters(query) else document.endswith(query)


def read_pairs(
    path: str, documents: Iterable[Document], title: Optional[str] = None, rules: Optional[RowOptions] = None
) -> JudgedQueries:
    """Read pairs of a query and a document, which is named by its id, its title or its text, and perhaps its label.

    documents: the documents of the collection
    title: name of the field with a document's title

    If several documents have the same text, they count as one answer, the first document. If a pair has several labels,
    the highest counts. Queries without an answer are left out, as in a training. Raises `DataError` if no document is
    called so (the message names the row), unless bad rows are skipped, or if the file has no answers.
    """
    source = open_judged(path, rules)
    rows = [(pair.query, pair.title, label_of(pair), source.line) for pair in source]
    find, labels = _DocumentNames({name for _, name, _, _ in rows}, documents, title), dict[str, dict[str, int]]()
    notes, counts = list[str](), Counter[str]()
    for query, name, label, line in rows:
        of_query = labels.setdefault(query, {})
        try:
            id = find(name)
        except DataError as error:
            if label >= RELEVANT and not source.skip_bad_rows:
                raise DataError(f"{path}, line {line}: {error}") from None
            counts[f"rows name no document of the collection, such as {quoted(name)}"] += 1
            continue
        counts["rows repeat a pair with another label: the highest counts"] += of_query.get(id, label) != label
        of_query[id] = max(label, of_query.get(id, label))
    answers = {query: judged for query, judged in labels.items() if max(judged.values(), default=0) >= RELEVANT}
    notes += notes_on(source, labels, answers)
    notes += [f"{path}: {count:,} {what}" for what, count in counts.items() if count]
    width = len(str(len(answers)))
    names = {f"q{number:0{width}}": query for number, query in enumerate(answers, start=1)}
    if find.copies:
        notes.append(f"{path}: {len(find.copies):,} documents repeat the text of an answer: they count as that answer")
    qrels = {name: answers[query] for name, query in names.items()}
    return JudgedQueries(path, names, qrels, notes, copies=find.copies)


class _DocumentNames:
    """Finds documents by their ids, texts or titles.

    Attributes:
        copies: for the id of each document that repeats the text of a document that was found, that document's id.
    """

    def __init__(self, wanted: Container[str], documents: Iterable[Document], title: Optional[str]):
        self._ids, self._texts, self._titles = set[str](), dict[str, list[str]](), dict[str, list[str]]()
        self.copies = dict[str, str]()
        for document in documents:
            if document.id in wanted:
                self._ids.add(document.id)
            if document.text in wanted:
                self._texts.setdefault(document.text, []).append(document.id)
            heading = value_at(document.fields, title) if title is not None else None
            if isinstance(heading, str) and heading in wanted:
                self._titles.setdefault(heading, []).append(document.id)

    def __call__(self, name: str) -> str:
        """Return a document's id; raises `DataError` if no document, or several, have the name."""
        if name in self._ids:
            return name
        if name in self._texts:
            first, *others = self._texts[name]
            self.copies.update(dict.fromkeys(others, first))
            return first
        ids = self._titles.get(name, [])
        if len(ids) > 1:
            raise DataError(f"{len(ids):,} documents have the title {quoted(name)}: give their ids, such as {ids[0]}")
        if not ids:
            raise DataError(f"no document of the collection has the id, title or text {quoted(name)}: add it")
        return ids[0]


def lexical_runs(documents: Mapping[str, str], queries: Mapping[str, str], top_k: int) -> dict[str, Scores]:
    """Return runs by system name: BM25 on words, on bigrams and, if the texts have spaces, on stems.

    documents, queries: texts by id
    top_k: number of documents per query
    """
    spaced, ids = have_spaces(documents.values()), list(documents)
    runs: dict[str, Scores] = {}
    for name, tokenizer in _TOKENIZERS.items():
        if name == BM25_STEMS and not spaced:
            continue
        words, runs[name] = WordSearcher.of_texts(documents.values(), tokenizer), {}
        for query, text in queries.items():
            numbers, scores = words.search(text, top_k)
            runs[name][query] = dict(zip((ids[number] for number in numbers.tolist()), scores.tolist()))
    return runs


def vector_run(tower: Tower, passages: Sequence[tuple[str, str]], queries: Mapping[str, str], top_k: int) -> Scores:
    """Search exactly with a tower's vectors, and return the run; a document's score is that of its best passage.

    passages: (id of the document, text of the passage) for each passage
    queries: texts by id
    top_k: number of documents per query
    """
    ids = [id for id, _ in passages]
    most = min(len(ids), top_k * max(Counter(ids).values(), default=1))  # with them, `top_k` documents are found
    vectors = np.concatenate(list(tower.stream(Progress([text for _, text in passages], desc="encode"))))
    nearest_rows, products = nearest(vectors, tower.query_vectors(list(queries.values())), most)
    run: Scores = {}
    for query, numbers, scores in zip(queries, nearest_rows.tolist(), products.tolist()):
        best = run[query] = {}
        for number, score in zip(numbers, scores):
            if len(best) < top_k:
                best.setdefault(ids[number], score)
    return run


@dataclass(frozen=True)
class Searched:
    """Results of a search engine for judged queries.

    runs: runs by system name: of the fusion, of each searcher alone, of further fusions, and of the ranker
    lists: for each query, the fused candidates; their inputs are the searchers' normalised scores
    ranked: for each query, the candidates that the ranker scored; their inputs are the logit, the share of the fused
        score, the searchers' normalised scores, and the standardised numbers of fields
    """

    runs: dict[str, Scores]
    lists: list[JudgedList]
    ranked: list[JudgedList]


def words_run(engine: SearchEngine, judged: JudgedQueries, top_k: int, fields: Mapping[str, float]) -> Scores:
    """Search by words with the given weights of fields; return a run of up to `top_k` documents per query."""
    depth = max(engine.settings.depth, judged.depth(top_k))
    asking = LookupRequest(WORDS, list(judged.queries.values()), depth, fields=fields, titles=True)
    run: Scores = {}
    title = engine.settings.fusion.title
    for query, hits in zip(judged.queries, engine.collection.snapshot().begin_search(asking)()):
        candidates = Candidates.of({WORDS: hits}, title)
        order, scores = Fusion(title=title).best(candidates, depth)
        run[query] = dict(zip((candidates.ids[row] for row in order), scores.tolist()))
    return judged.results(run, top_k)


def rank_losses(run: Scores, judged: JudgedQueries, top_k: int) -> Floats:
    """Return the `rank_loss` of each query's relevant documents in a run, `[queries]`.

    A relevant document that the run lacks has the rank `top_k` + 1.
    """
    losses = []
    for query in judged.queries:
        ranks = {id: rank for rank, id in enumerate(run[query], start=1)}
        relevant = [id for id, label in judged.qrels[query].items() if label >= RELEVANT]
        losses.append(rank_loss([ranks.get(id, top_k + 1) for id in relevant]))
    return np.array(losses)


def search_judged(
    engine: SearchEngine,
    judged: JudgedQueries,
    top_k: int,
    fusion: Optional[Fusion] = None,
    fields: Optional[Mapping[str, Signal]] = None,
) -> Searched:
    """Search for all judged queries; each run has up to `top_k` documents of a query.

    If the fusion has equal weights, there is also a run for each other method in `FUSIONS`, since the collection
    decides which method is best.

    fusion: replaces the fusion of `engine`
    fields: signals by the field's name; their standardised numbers are added to the inputs of `Searched.ranked`
    """
    fusion, names = fusion or engine.settings.fusion, engine.searchers
    first, others, measured = names[0], dict[str, Fusion](), top_k
    top_k = judged.depth(top_k)
    if len(names) > 1:
        first = HYBRID
        if not fusion.weights:
            others = {f"{HYBRID} ({method})": Fusion(method) for method in FUSIONS if method != fusion.method}
    searched = Searched({name: {} for name in dict.fromkeys((first, *names, *others))}, [], [])
    if engine.ranker is not None:
        searched.runs[f"{first}{RANKED}"] = {}
    for part in chunks(Progress(judged.queries.items(), desc="search", unit="query"), _QUERIES):
        searches = engine.run([text for _, text in part], top_k, fusion=fusion)
        for (query, _), search in zip(part, searches):
            candidates = search.fused.candidates
            best = by_score(search.fused.scores, candidates.ids)[:top_k]
            ids, of_best = [candidates.ids[row] for row in best], search.fused.scores[best].tolist()
            searched.lists.append(_judged_list(query, candidates, judged, top_k))
            for name, of_searcher, ranks in zip(names, candidates.scores.T, candidates.ranks.T):
                rows = np.flatnonzero((ranks > 0) & (ranks <= top_k))
                searched.runs[name][query] = {candidates.ids[row]: float(of_searcher[row]) for row in rows}
            searched.runs[first][query] = dict(zip(ids, of_best))
            for name, other in others.items():
                order, scores = other.best(candidates, top_k)
                searched.runs[name][query] = {candidates.ids[row]: score for row, score in zip(order, scores.tolist())}
        if engine.ranker is None:
            continue
        for (query, _), search in zip(part, searches):
            candidates = search.fused.candidates
            searched.runs[f"{first}{RANKED}"][query] = in_order(candidates.ids[row] for row in search.page.shown)
            numbers = [
                signal.standardised(numbers_of(engine.collection.snapshot().values(name, candidates.ids)))
                for name, signal in (fields or {}).items()
            ]
            signals = np.column_stack([fusion.shares(candidates), candidates.normalised, *numbers])
            logits = search.ranking.logits
            scored = [row for row in search.page.order[: len(logits)] if judged.is_result(query, candidates.ids[row])]
            inputs = np.array([[logits[row], *signals[row]] for row in scored])
            inputs = inputs.reshape(-1, 1 + signals.shape[1])
            labels = np.array([judged.label(query, candidates.ids[row]) for row in scored], np.float64)
            ids = [candidates.ids[row] for row in scored]
            searched.ranked.append(JudgedList(query, ids, inputs, labels, candidates.titled[scored]))
    return replace(searched, runs={name: judged.results(run, measured) for name, run in searched.runs.items()})


def feature_lists(
    engine: SearchEngine, judged: JudgedQueries, fusion: Fusion
) -> tuple[list[JudgedList], tuple[str, ...]]:
    """Return the first documents of each query's fused list with their features, and the names of the features.

    The result is the input of `learn_features`. A query without results has no list.

    fusion: replaces the fusion of `engine`; learned features in it are ignored, and so is the engine's ranker
    """
    lists, names, fusion = list[JudgedList](), tuple[str, ...](), replace(fusion, features={})
    engine = SearchEngine(engine.collection, engine.settings)
    for part in chunks(Progress(judged.queries.items(), desc="search", unit="query"), _QUERIES):
        for (query, _), search in zip(part, engine.run([text for _, text in part], fusion=fusion)):
            if not search.fused.order:
                continue
            top, features = search.ranking.list_features()
            names, ids = features.names, [search.fused.candidates.ids[row] for row in top]
            rows = [row for row, id in enumerate(ids) if judged.is_result(query, id)]
            ids = [ids[row] for row in rows]
            labels = np.array([judged.label(query, id) for id in ids], np.float64)
            is_judged = np.array([judged.is_judged(query, id) for id in ids], bool)
            lists.append(JudgedList(query, ids, features.values[rows], labels, judged=is_judged))
    return lists, names


def _judged_list(query: str, candidates: Candidates, judged: JudgedQueries, top_k: int) -> JudgedList:
    """Return, with their labels, the candidates that at least one searcher ranks among its first `top_k`."""
    ranks = candidates.ranks
    rows = np.flatnonzero(((ranks > 0) & (ranks <= top_k)).any(axis=1))
    rows = np.array([row for row in rows.tolist() if judged.is_result(query, candidates.ids[row])], np.int64)
    ids = [candidates.ids[row] for row in rows]
    labels = np.array([judged.label(query, id) for id in ids], np.float64)
    return JudgedList(query, ids, candidates.normalised[rows], labels, candidates.titled[rows])


def first_of(run: Scores, top_k: int) -> Scores:
    """Return the first `top_k` documents of each query in a run.

    The order is trec_eval's: by score in single precision, then by id, both descending.
    """

    def key(result: tuple[str, float]) -> tuple[float, bytes]:
        return float(np.float32(result[1])), result[0].encode()

    return {
        query: dict(sorted(scores.items(), key=key, reverse=True)[:top_k]) if len(scores) > top_k else scores
        for query, scores in run.items()
    }


def held_out_runs(held_out: Mapping[str, Mapping[str, float]], fused: Scores, top_k: int) -> Scores:
    """Return a run of up to `top_k` documents per query.

    Documents with scores in `held_out` come first, in the order of these scores. They are followed by the remaining
    documents of `fused`.
    """
    run = {}
    for query, scores in held_out.items():
        others = (id for id in fused[query] if id not in scores)
        run[query] = in_order([*sorted(scores, key=lambda id: -scores[id]), *others][:top_k])
    return run


def compare_runs(
    judged: JudgedQueries, runs: Mapping[str, Scores], top_k: int, *, resamples: int = 2000, seed: int = 1000
) -> Comparison:
    """Measure runs over all judged queries, and compare each run with the first one.

    runs: runs by system name, with up to `top_k` documents per query

    Measures at a depth beyond `top_k` are left out: R@100 of 50 documents would be R@50. A query that a run lacks
    counts 0, and a document that nobody judged counts as not relevant. Raises `DataError` as `compare_systems` does.
    """
    pairs = judged_runs(judged.source, judged.qrels, runs)
    # Titles that somebody judged not relevant count like others: only then are all measures those of a search.
    pairs = replace(pairs, judged=pairs.labels >= RELEVANT, searched=True, notes=list(judged.notes))
    systems = []
    for name, run in runs.items():
        scores, notes = pairs.of_run(run, name)
        pairs.notes.extend(notes)
        systems.append(System(name, scores, "run"))
    comparison = compare_systems(pairs, systems, ties="trec_eval", resamples=resamples, seed=seed)
    within = [name for name in comparison.measures if int(name.partition("@")[2] or 0) <= top_k]
    measured = {system: {name: values[name] for name in within} for system, values in comparison.measured.items()}
    return replace(comparison, measures=[name for name in SHOWN if name in within], measured=measured)


def comparison_lines(comparison: Comparison) -> list[str]:
    """Return the lines to print: the measures of a single system, or a table of several systems."""
    if not comparison.others:
        measured = comparison.measured[comparison.reference]
        return [f"{name}: {measured[name].interval:.4f}" for name in comparison.measures]
    return systems_table(comparison)


def way_to_baseline(comparison: Comparison, engine: SearchEngine, measure: str = "ndcg@10") -> list[str]:
    """Return a line that says how to search as the best baseline that is ahead of the index; none if none is ahead."""
    if measure not in comparison.measures:
        return []
    measured = {name: values[measure] for name, values in comparison.measured.items() if name in _TOKENIZERS}
    ahead = [name for name, values in measured.items() if values.verdict == "better"]
    if not ahead:
        return []
    name, info = max(ahead, key=lambda name: measured[name].interval.estimate), engine.collection.info
    tokenizer, changed = _TOKENIZERS[name], list[str]()
    for searched in info.schema.words:
        if searched.name in info.schema.model_fields:
            wanted = replace(searched, weight=1.0, analyser="" if tokenizer != STANDARD else searched.analyser)
        elif searched.is_text:
            wanted = Field(searched.name, STORED)
        else:
            wanted = replace(searched, weight=0.0)
        changed += [f"--field {wanted}"] if wanted != searched else []
    words = [] if info.words is not None and info.words.tokenizer == tokenizer else [f"--words {tokenizer}"]
    ways = [f"build the index anew with {' '.join([*words, *changed])}"] if words or changed else []
    ways += ["search with --by words"] if engine.searchers != (WORDS,) else []
    learned = "; weights between both are learned by evaluate-recall --learn_weights FILE" if changed else ""
    return [f"To search as {name} does, {' and '.join(ways)}{learned}."] if ways else []


def draw_curves(path: str, comparison: Comparison, most: int) -> None:
    """Draw every system's recall at each depth up to `most` documents, into a file.

    The extension of `path` chooses SVG or PDF; with any other extension the file is a PNG.
    """
    pairs, places = comparison.pairs, range(1, most + 1)
    with new_picture(path, 7.0, 4.5, 150, "--plot") as figure:
        panel = figure.subplots()
        for number, system in enumerate(comparison.systems):
            ranking = Scored(pairs.query_ids, pairs.labels, system.scores, ids=pairs.document_ids).ranking
            style, color = ("-", "--", ":")[number // len(_COLORS) % 3], _COLORS[number % len(_COLORS)]
            label = brief(system.name, 40)
            panel.plot(places, recall_curve(ranking, most), label=label, color=color, linestyle=style)
        panel.set_xscale("log")
        panel.set_xticks([cut for cut in CUTS if cut <= most], [str(cut) for cut in CUTS if cut <= most])
        panel.set_xlim(1, most)
        panel.set_ylim(0, 1)
        panel.set_xlabel("documents of each query")
        panel.set_ylabel("recall")
        panel.set_title(f"{comparison.counts['queries']:,} queries", loc="left", fontsize=10)
        panel.grid(alpha=0.3)
        panel.legend(loc="lower right", fontsize=9)
