"""For notebooks and programs: `Index` builds, searches, measures and changes an index; `evaluate` measures a ranker.

    from paddle_ranker import Index, evaluate

    index = Index.build(rows, "my_index", title="name", text="description")
    index.search("quiet mouse", where={"price": {"lt": 50}}, facets=["brand"])
    evaluate("checkpoint/best", labelled_rows).report()

They do what the commands `index`, `search`, `evaluate-recall` and `evaluate` do, by the same functions.
"""

from __future__ import annotations

import functools
import html
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union, overload

from paddle_ranker.addresses import is_url
from paddle_ranker.data.rows.labels import number_of
from paddle_ranker.errors import UsageError, asking_about_keywords, brief, listed, quoted
from paddle_ranker.notes import note
from paddle_ranker.retrieval.index.index_folder import WRITER_WAIT
from paddle_ranker.retrieval.index.model_urls import lend_tower, open_url_ranker
from paddle_ranker.retrieval.index.shards import open_index
from paddle_ranker.retrieval.stages.fusion import Fusion, parse_fusion
from paddle_ranker.retrieval.stages.results import Result
from paddle_ranker.retrieval.stages.search import Search, SearchSettings, Where
from paddle_ranker.retrieval.stages.search_engine import SearchEngine, open_query_towers
from paddle_ranker.retrieval.values.bounds import check_names, check_parameters, check_sort
from paddle_ranker.retrieval.values.listing import Listing
from paddle_ranker.retrieval.values.search_defaults import DEPTH, RANK_TOP, TOP_K
from paddle_ranker.retrieval.values.typed_values import plain
from paddle_ranker.scoring.texts import list_texts
from paddle_ranker.storage.closing import Closable

if TYPE_CHECKING:
    from paddle_ranker.evaluation.comparison import Comparison
    from paddle_ranker.python_rows import Rows
    from paddle_ranker.retrieval.snapshots.searchable import Added
    from paddle_ranker.retrieval.stages.search_engine import AnyRanker
    from paddle_ranker.scoring.ranker import Ranker

Judgments = Mapping[str, Union[Mapping[str, float], Iterable[str]]]
_SHOWN = 160  # characters of a text in a table of hits


class ResultList(list[Result]):
    """Results of a query, best first; `pandas.DataFrame(results)` makes a table of the results.

    Attributes:
        query: the query, without quotes, signs and exclusions.
        total: how many documents have a word of the query and meet the filter; None if words were not searched.
        facets: how often each value occurs, by field, then by value.
        corrected: for each query word that no document has, the tuple of words that were searched instead.
        query_read_by: for each searcher whose tower reads only the beginning of the query, the number of characters
            that the tower reads.
        nothing_close: whether all results are probably unrelated: none is closer to the query than the results of
            random queries usually are.
        degraded: names of searchers, and "rank" for the ranker, that were left out, because their model behind a URL
            did not answer.
    """

    def __init__(self, search: Search, results: Iterable[Result], facets: Mapping[str, Mapping[str, int]]) -> None:
        super().__init__(results)
        self.query, self.total = search.query.text, search.total()
        self.facets = {name: {_value(key): count for key, count in counts.items()} for name, counts in facets.items()}
        self.nothing_close, self.query_read_by = search.nothing_close, dict(search.read_by)
        self.degraded = tuple(search.degraded)
        self.corrected = {correction.given: tuple(correction.to) for correction in search.query.words.corrected}

    def __repr__(self) -> str:
        lines = [
            f"{rank:4}. {_score(hit):.4f}  {f'{hit.title} | ' if hit.title else ''}" + brief(" ".join(hit.text.split()))
            for rank, hit in enumerate(self, start=1)
        ]
        return "\n".join([self._summary(), *lines])

    def _repr_html_(self) -> str:
        cells = (
            f"<tr><td>{rank}</td><td>{_score(hit):.4f}</td><td>{html.escape(hit.id)}</td>"
            f"<td>{html.escape(hit.title or '')}</td><td>{html.escape(hit.text[:_SHOWN])}</td></tr>"
            for rank, hit in enumerate(self, start=1)
        )
        head = "<tr><th></th><th>score</th><th>id</th><th>title</th><th>text</th></tr>"
        return f"<p>{html.escape(self._summary())}</p><table>{head}{''.join(cells)}</table>"

    def _summary(self) -> str:
        total = "" if self.total is None else f" of {self.total:,} that match"
        corrected = "".join(f"; {quoted(word)} searched as {listed(to)}" for word, to in self.corrected.items())
        facets = "".join(f"; {name}: {listed(f'{value} {count}' for value, count in values.items())}"
                         for name, values in self.facets.items())  # fmt: skip
        close = "; nothing is close" * self.nothing_close
        close += f"; without {listed(self.degraded)}" if self.degraded else ""
        cut = "".join(f"; {name} reads {end:,} characters of the query" for name, end in self.query_read_by.items())
        return f"{quoted(self.query)}: {len(self):,} documents{total}{close}{cut}{corrected}{facets}"


class Evaluation:
    """Measures of an index's searches or of a ranker, compared with baselines.

    Attributes:
        comparison: all measures, with intervals and differences.
    """

    def __init__(self, comparison: Comparison, advice: Sequence[str] = ()) -> None:
        self.comparison, self._advice = comparison, advice

    def report(self) -> str:
        """Return the verdicts of the comparison, how to search as a baseline that is ahead, and a table, as text."""
        from paddle_ranker.evaluation.report.text import verdicts
        from paddle_ranker.evaluation.retrieval import comparison_lines

        return "\n".join([*verdicts(self.comparison), *self._advice, *comparison_lines(self.comparison)])

    __repr__ = report


class Improvement:
    """Result of `Index.improve`.

    Attributes:
        fusion: file of the learned weights, for `search(fusion=...)`, if they are recommended; else None.
        ranker: folder of the new ranker, for `search(ranker=...)`, if it is recommended; else None.
    """

    def __init__(self, folder: Path, recommended: Optional[str], report: str) -> None:
        from paddle_ranker.commands.improve import FUSION_FILE, NEW_RANKER, RANKER_FOLDER

        is_ranker = recommended == NEW_RANKER
        self.fusion = None if recommended is None or is_ranker else str(folder / FUSION_FILE)
        self.ranker = folder / RANKER_FOLDER if is_ranker else None
        self._report = report

    def report(self) -> str:
        """Return the comparison of what was learned with today's search, and the recommendation, as text."""
        return self._report

    __repr__ = report


def evaluate(ranker: Union[Ranker, str, Path], rows: Rows, *, baselines: bool = True) -> Evaluation:
    """Measure a ranker on labelled pairs; compare it with BM25 and a linear model, as the command `evaluate` does.

    Args:
        ranker: a `Ranker`, a model folder, or a name of the Hugging Face hub.
        rows: a data frame, an iterable of mappings, or the path of a labelled file. Each row has `query`, `title` and
            `label`; a title is relevant if its label is at least 1.
        baselines: whether to measure the baselines, too.

    Raises `DataError` if a row lacks a value, or if no measure can be computed on the rows.
    """
    from paddle_ranker.evaluation.comparison import System, compare_systems
    from paddle_ranker.evaluation.measuring_options import BaselineOptions
    from paddle_ranker.evaluation.pairs import read_labelled
    from paddle_ranker.evaluation.systems import baseline_systems
    from paddle_ranker.python_rows import as_file
    from paddle_ranker.scoring.ranker import Ranker

    name, ranker = ("ranker", ranker) if isinstance(ranker, Ranker) else (Path(ranker).name, Ranker.load(ranker))
    with as_file(rows) as path:
        pairs = read_labelled(path)
        systems = [System(name, pairs.spread(ranker.score(*pairs.texts(name), logits=True)), "model")]
        if baselines:
            others, notes = baseline_systems(pairs, BaselineOptions(test_file=path))
            systems += others
            pairs.notes.extend(notes)
    for line in pairs.notes:
        note(line)
    return Evaluation(compare_systems(pairs, systems))


@asking_about_keywords
class Index(Closable):
    """An index folder: its documents are searched by words and by vectors, and ordered by a ranker.

        with Index("my_index") as index:
            for hit in index.search("quiet mouse"):
                print(hit.id, hit.title, hit.score)

    A search sees the index as it was when the search began; any number of threads may search at once. A method that
    changes the index waits up to 10 s for another process that is writing; when the method returns, the change is on
    disk.
    """

    def __init__(
        self, folder: Union[str, Path], *, device: str = "auto", batch_size: int = 256, tower: Optional[str] = None
    ) -> None:
        """Open an index folder; raises `CheckpointError` if the folder is damaged or is not an index.

        device: where towers and rankers compute: `cpu`, `gpu` or `auto`
        batch_size: number of texts that a tower encodes at once
        tower: URL of the tower with which the index was built, `http://HOST/v1#MODEL`, if it is not in the folder
        """
        from paddle_ranker.model.load_options import LoadOptions

        self.folder = Path(folder)
        self._options, self._batch_size = LoadOptions(device=device), batch_size
        self._collection, self._tower = open_index(folder), tower
        if tower is not None:
            lend_tower(self._collection, tower, batch_size)
        self._rankers: dict[str, AnyRanker] = {}

    def __reduce__(self) -> tuple[Callable[[], Index], tuple[()]]:
        """Pickle the folder and the options, with which the index is opened anew as it is then."""
        device = self._options.device
        how: dict[str, Any] = {"device": device, "batch_size": self._batch_size, "tower": self._tower}
        return functools.partial(Index, self.folder.absolute(), **how), ()

    @classmethod
    def build(
        cls,
        rows: Rows,
        folder: Union[str, Path],
        *,
        id: Optional[str] = None,
        title: Optional[str] = None,
        text: Optional[str] = None,
        tower: Union[str, Path, None] = None,
        device: str = "auto",
        **options: Any,
    ) -> Index:
        """Build an index of documents, and open it.

        Args:
            rows: a data frame (pandas, polars), an iterable of mappings, texts or `Document`s, or the path of a file or
                folder that `index build` accepts. If a field's values are files, each value is a `Path` or bytes.
            folder: the index folder to make. If it is an index already, the documents that it lacks are added.
            id, title, text: names of the columns with these roles; None: columns are chosen by their names and values,
                and printed.
            tower: folder or name of the tower that makes vectors, or URL of its service; None: documents are searched
                by words alone.
            device: see `Index`.
            options: other options of `index build`, such as `field="brand:text"`.
        """
        from paddle_ranker.commands.index import BuildOptions, build
        from paddle_ranker.options import options_from
        from paddle_ranker.python_rows import as_file

        columns = {f"{role}_column": name for role, name in (("id", id), ("title", title), ("text", text)) if name}
        output = os.fspath(folder)  # refuses rows in its place by their type alone, not by all their text
        if tower is not None:
            options["tower"] = os.fspath(tower)
        with as_file(rows, [id, title, text]) as corpus:
            build(options_from(BuildOptions, corpus=corpus, output=output, device=device, **columns, **options))
        return cls(folder, device=device, tower=str(tower) if is_url(tower) else None)

    def __len__(self) -> int:
        return len(self._collection)

    def __repr__(self) -> str:
        searchers = listed(self._collection.info.searchers)
        return f"Index({str(self.folder)!r}): {len(self):,} documents, searched by {searchers}"

    def close(self) -> None:
        self._collection.close()

    @overload
    def search(self, query: str = "", **options: Any) -> ResultList: ...

    @overload
    def search(self, query: Sequence[str], **options: Any) -> list[ResultList]: ...

    def search(  # type: ignore[misc]  # the overloads leave the options to this signature
        self,
        query: Union[str, Sequence[str]] = "",
        *,
        like: Union[str, Path, bytes, None] = None,
        top_k: int = TOP_K,
        offset: int = 0,
        where: Where = None,
        by: Union[str, Sequence[str]] = (),
        depth: int = DEPTH,
        facets: Union[str, Sequence[str]] = (),
        sort: Union[str, Sequence[str]] = (),
        group_by: Optional[str] = None,
        ranker: Union[Ranker, str, Path, None] = None,
        rank_top: int = RANK_TOP,
        fusion: Union[str, Fusion, None] = None,
        literal: bool = False,
        explain: bool = False,
    ) -> Union[ResultList, list[ResultList]]:
        """Search for one query or several; return a `ResultList` for a single text, else a list with one per query.

        Several queries are searched in shared batches.

        Args:
            query: a text, or a sequence of texts. If it is "", and there is no `like`, documents are listed: by `sort`,
                else the newest first if there is a field of dates.
            like: a document's id, or a file (`Path` or bytes); documents that resemble it are found.
            top_k: maximum number of results per query.
            offset: number of best results to skip.
            where: conditions on fields: "price<50 and brand=Acme", or {"price": {"lt": 50}, "brand": "Acme"}.
            by: names of searchers, such as "words"; if empty, all searchers are used.
            depth: maximum number of documents that each searcher finds before fusion.
            facets: fields whose values are counted among all documents that match.
            sort: fields to sort by instead of scores; "-year" sorts by year, highest first.
            group_by: a field; of documents with the same value, only the best is returned. "content" groups nearly
                equal texts.
            ranker: a `Ranker`, a folder, a name or the URL of a service, `http://HOST/v1/rerank#MODEL`; it orders the
                first `rank_top` documents.
            fusion: how the searchers' results are joined: "rrf", "weighted" or a file of learned weights.
            literal: whether to search without corrections, synonyms, phrases and exclusions.
            explain: whether `signals` of each result states what searchers, features and the ranker added to its score.

        Raises `UsageError` for an empty query among several, and for a field or a searcher that the index lacks.
        """
        queries = [query] if isinstance(query, str) else query
        facets, sort = ((names,) if isinstance(names, str) else names for names in (facets, sort))
        check_sort(sort, self._collection.fields)
        check_parameters(
            Listing(top_k, offset, sort=sort),
            query=query if isinstance(query, str) else None,
            like=like,
            facets=facets,
            fusion=fusion,
            ranker=ranker,
            by=by,
            literal=literal,
        )
        has_query = not isinstance(query, str) or bool(query.strip()) or like is not None
        engine = self._search_engine(by, depth, ranker, rank_top, fusion, literal, has_query=has_query)
        check_names("facets", facets, self._collection.fields)
        searches = engine.run(queries, offset + top_k, where, group_by=group_by, sort=sort, like=like)
        results: Callable[[Search], list[Result]] = Search.results
        if explain:
            from paddle_ranker.retrieval.stages.explanations import explained_results

            results = explained_results
        hits = [
            ResultList(search, results(search)[offset:], search.facets(facets) if facets else {}) for search in searches
        ]
        return hits[0] if isinstance(query, str) else hits

    def evaluate(
        self,
        judgments: Union[Judgments, Rows],
        *,
        top_k: int = 100,
        by: Union[str, Sequence[str]] = (),
        ranker: Union[Ranker, str, Path, None] = None,
        rank_top: int = RANK_TOP,
        fusion: Union[str, Fusion, None] = None,
        baselines: bool = True,
    ) -> Evaluation:
        """Measure searches on judged documents, and compare them with BM25.

        Args:
            judgments: for each query, either a dict from document id to label, where 1 and above is relevant, or the
                ids of the relevant documents. Or a table (data frame, mappings or path) with query, document (its id,
                title or text) and label.
            baselines: whether to measure BM25 of words, bigrams and stems, too.
            top_k: number of results of each query that are measured.
            by, ranker, rank_top, fusion: as in `search`.

        Raises `DataError` if no query has a relevant document. Raises `UsageError` if an id is not a text, a label is
        not a whole number, or the index lacks a judged document.
        """
        from paddle_ranker.evaluation.retrieval import (
            JudgedQueries,
            compare_runs,
            lexical_runs,
            read_pairs,
            search_judged,
            way_to_baseline,
        )
        from paddle_ranker.python_rows import as_file

        if isinstance(judgments, Mapping):
            qrels = self._qrels(judgments)
            judged = JudgedQueries("judgments", {query: query for query in qrels}, qrels)
        else:
            with as_file(judgments) as path:
                now = self._collection.snapshot()
                judged = read_pairs(path, now.documents(), now.info.schema.title)
            for line in judged.notes:
                note(line)
        engine = self._search_engine(by, DEPTH, ranker, rank_top, fusion, False)
        runs = dict(search_judged(engine, judged, top_k).runs)
        if baselines:
            schema = self._collection.info.schema
            texts = {document.id: schema.model_text(document) for document in self._collection.snapshot().documents()}
            runs.update(lexical_runs(texts, judged.queries, top_k))
        comparison = compare_runs(judged, runs, top_k)
        return Evaluation(comparison, way_to_baseline(comparison, engine))

    def improve(
        self,
        judgments: Union[Judgments, Rows],
        folder: Union[str, Path],
        *,
        model: Optional[str] = None,
        **options: Any,
    ) -> Improvement:
        """Learn weights of searches, and a ranker, from judgments; compare each with today's search on other queries.

        Args:
            judgments: as in `evaluate`; at least 20 queries need an answer.
            folder: a folder to make, with the report and what is recommended.
            model: the encoder that a ranker begins with, from 500 labels on; None: no ranker is trained.
            options: other options of `improve`, such as `fusion` and `ranker`, how searches work today.

        Raises `DataError` if too few queries have an answer.
        """
        from paddle_ranker.commands.improve import REPORT, ImproveOptions, improve
        from paddle_ranker.options import options_from
        from paddle_ranker.python_rows import as_file

        rows = judgments
        if isinstance(judgments, Mapping):
            qrels = self._qrels(judgments)
            rows = [
                {"query": query, "document_id": id, "label": label}
                for query, labels in qrels.items()
                for id, label in labels.items()
            ]
        given = {"index": str(self.folder), "output": str(folder), "model": model, "device": self._options.device}
        given["tower"] = self._tower
        with as_file(rows) as judged:
            recommended = improve(options_from(ImproveOptions, judged=judged, **given, **options))
        report = (Path(folder) / REPORT).read_text(encoding="utf-8")
        return Improvement(Path(folder), recommended, report)

    def _qrels(self, judgments: Judgments) -> dict[str, dict[str, int]]:
        """Return the labels of each query; raises `UsageError` as `evaluate` does."""
        if not judgments:
            raise UsageError("judgments: there are none; give relevant documents by query, {'query': ['id']}")
        qrels = {query: _labels_of(query, judged) for query, judged in judgments.items()}
        if missing := self._collection.snapshot().missing({id for documents in qrels.values() for id in documents}):
            raise UsageError(f"judgments: {self.folder} has no documents {listed(missing[:3])}")
        return qrels

    def add(self, rows: Rows, *, new_fields: Sequence[str] = ()) -> Added:
        """Add documents, replacing those with the same ids; return how many are new, replaced and unchanged.

        Raises `DataError` for a field whose name looks like that of a field of the index misspelt, unless it is among
        `new_fields`.
        """
        return self._write(rows, sync=False, new_fields=new_fields)

    def sync(self, rows: Rows, *, new_fields: Sequence[str] = ()) -> Added:
        """Add the documents in `rows` as `add` does, and remove all other documents; return the numbers of changes."""
        return self._write(rows, sync=True, new_fields=new_fields)

    def remove(self, ids: Iterable[str]) -> int:
        """Remove the documents with these ids; return how many of the ids the index had."""
        with self._writing() as collection:
            return int(collection.writer.remove(ids))

    def _write(self, rows: Rows, sync: bool, new_fields: Sequence[str]) -> Added:
        """Add documents to the index; with `sync`, remove all documents that are not in `rows`.

        Then merge the index's segments as far as this makes searches cheaper. Return the numbers of changes.
        """
        from paddle_ranker.options import DocumentOptions
        from paddle_ranker.options.input_files import folder_of
        from paddle_ranker.python_rows import as_file
        from paddle_ranker.retrieval.index.collection_writer import documents_for, repeated_ids_placed
        from paddle_ranker.retrieval.index.content_staging import kept_rows, staged_files
        from paddle_ranker.retrieval.index.towers import open_towers

        with self._writing() as collection, as_file(rows) as corpus:
            schema = collection.info.schema
            documents = documents_for(collection, corpus, DocumentOptions())
            vectors_of = open_towers(collection, self._options, self._batch_size, self._tower)
            with repeated_ids_placed(documents), staged_files(collection.snapshot().files) as files:
                fields = collection.info.vector_fields
                kept = kept_rows(documents, schema, files, folder_of(corpus), documents, embedded=fields)
                added = collection.writer.add_rows(
                    kept, vectors_of, sync=sync, files=files, new_fields=list_texts(new_fields, "new_fields")
                )
            collection.writer.merge()
            collection.writer.measure_floors()
            return added

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        with open_index(self.folder, write=True, wait=WRITER_WAIT) as collection:
            collection.require_address()
            yield collection
        self._collection.refresh()

    def _search_engine(
        self,
        by: Union[str, Sequence[str]],
        depth: int,
        ranker: Union[Ranker, str, Path, None],
        rank_top: int,
        fusion: Union[str, Fusion, None],
        literal: bool,
        *,
        has_query: bool = True,
    ) -> SearchEngine:
        """Return the engine for the arguments of `search`; a ranker that is given by name or folder stays open.

        has_query: whether the towers are needed
        """
        self._collection.refresh()
        settings = SearchSettings(
            (by,) if isinstance(by, str) else tuple(by), depth=depth, rank_top=rank_top, literal=literal
        )
        if fusion is not None:
            settings = replace(settings, fusion=parse_fusion(fusion) if isinstance(fusion, str) else fusion)
        if has_query:
            open_query_towers(self._collection, settings, self._options, self._batch_size)
        opened: Optional[AnyRanker] = None if isinstance(ranker, (str, Path)) else ranker
        if isinstance(ranker, (str, Path)):
            if str(ranker) not in self._rankers:
                from paddle_ranker.scoring.ranker import Ranker

                self._rankers[str(ranker)] = (
                    open_url_ranker(str(ranker), self._batch_size)
                    if is_url(ranker)
                    else Ranker.load(ranker, device=self._options.device)
                )
            opened = self._rankers[str(ranker)]
        return SearchEngine(self._collection, settings, None, opened)


def _labels_of(query: str, judged: Union[Mapping[str, float], Iterable[str]]) -> dict[str, int]:
    """Return the labels of a query's documents, by id; see `Index.evaluate`."""
    name = f"judgments of {quoted(query)}"
    labels = judged if isinstance(judged, Mapping) else dict.fromkeys(list_texts(judged, name), 1.0)
    checked = dict[str, int]()
    for id, label in zip(list_texts([*labels], name), map(plain, labels.values())):
        number = number_of(int(label) if isinstance(label, bool) else label)
        if number is None or not number.is_integer():
            raise UsageError(f"{name}: the label of {quoted(id)} is {quoted(label)}, expected a whole number")
        checked[id] = int(number)
    return checked


def _value(key: str) -> Any:
    """Return the value that a facet's key stands for; if the key stands for a range, return the key."""
    value = json.loads(key)
    return key if isinstance(value, (dict, list)) else value


def _score(hit: Result) -> float:
    return hit.score if hit.probability is None else hit.probability
