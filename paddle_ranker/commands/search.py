"""Search an index for a query, or for a file of queries: by words and vectors, and then by a ranker.

paddle-ranker search --index index "query"
paddle-ranker search --index index "query" --ranker checkpoint/best --explain --where "year>=2020"
paddle-ranker search --index pictures --like photo.jpg
paddle-ranker search --index index "" --where "year>=2020" --sort -year,title
paddle-ranker search --index index --input queries.tsv --output run.trec --top_k 100
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker import runtime
from paddle_ranker.addresses import is_url
from paddle_ranker.data.files.cell_formats import cell_text
from paddle_ranker.errors import UsageError, brief, listed, quoted, spelling_hint
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import json_text, main_of, note, option, refuse_given
from paddle_ranker.options.declare import ANY_TEXT, FETCHED, FOLDER_OR_URL
from paddle_ranker.options.input_files import split_paths
from paddle_ranker.retrieval.index.model_urls import ModelUrl, open_url_ranker
from paddle_ranker.retrieval.snapshots.vector_search import search_method
from paddle_ranker.retrieval.stages.fusion import FUSIONS, RRF_K, parse_fusion
from paddle_ranker.retrieval.stages.search_options import SYNONYMS, MilvusOptions
from paddle_ranker.retrieval.values.search_defaults import DEPTH, FUSION, RANK_TOP
from paddle_ranker.scoring.scoring_options import OF_MODEL, ScoringOptions

if TYPE_CHECKING:
    from paddle_ranker.retrieval.index.collection import Collection
    from paddle_ranker.retrieval.stages.fusion import FeatureParts
    from paddle_ranker.retrieval.stages.results import Result
    from paddle_ranker.retrieval.stages.search import Search, SearchSettings
    from paddle_ranker.retrieval.stages.search_engine import AnyRanker, SearchEngine
    from paddle_ranker.retrieval.values.filters import Filter

FORMATS = ("text", "json", "trec")
_SHOWN, _LISTED = 10, 100
_QUERIES = 64  # queries that are searched together
_SAMPLED = 1 << 16  # bytes of a field's values, among which a similar value is looked for
_SHOWN_CHARACTERS = 300  # most characters shown of a text; in JSON, texts are whole
_SHOWN_FEATURES = 4  # most features shown of a result, the heaviest
_RANKED = ("rank_top", "recall_weight", *OF_MODEL)
_OF_SCORES = ("fusion", "weights", "depth", "ef", "nprobe", "ranker", "explain")
_OF_QUERIES = ("by", "literal", "synonyms", *_OF_SCORES)


def fusion_help() -> str:
    kinds = "; ".join(f"{name}, {kind.what}" for name, kind in FUSIONS.items())
    return f"how the lists of several searchers become one: {kinds}; or a file of improve or evaluate-recall"


@dataclass(frozen=True)
class SearchingOptions(ScoringOptions, MilvusOptions):
    """Options of commands that search an index."""

    index: str = option(
        help=f"the index folder, as index build makes it; {os.pathsep!r} between several that were built alike: they "
        "are searched together",
        joins=os.pathsep,
        addresses=FETCHED,
    )
    by: str = option("", help="search by this alone: words, or vectors (default: by all that the index has)", joins=",")
    fusion: str = option(FUSION, help=fusion_help)
    weights: str = option("", help="weights of the searchers, words=1,vectors=2 (default: 1 each)", joins=",")
    depth: int = option(DEPTH, help="documents that each searcher finds before fusion; at least --top_k", minimum=1)
    ef: Optional[int] = option(None, help="how many vectors a graph index (HNSW) looks at", minimum=1)
    nprobe: Optional[int] = option(None, help="how many lists of an inverted index (IVF) are looked at", minimum=1)
    literal: bool = option(
        False, help='search words as they are written: no corrections, synonyms, "phrases", +words and -words'
    )
    synonyms: Optional[str] = option(None, help=SYNONYMS, addresses=FETCHED)
    tower: Optional[str] = option(
        None,
        help="URL of the tower with which the index was built, if that is behind one, http://HOST/v1#MODEL",
        addresses=ANY_TEXT,
    )
    ranker: Optional[str] = option(
        None,
        help="order the first results with this ranker: a model folder, or the URL of a service, "
        "http://HOST/v1/rerank#MODEL",
        addresses=FOLDER_OR_URL,
    )
    rank_top: int = option(RANK_TOP, help="results that --ranker orders", minimum=1)
    recall_weight: Optional[float] = option(
        None,
        help="how much the fused score, as a share of the highest, adds to the ranker's logit (default: 0, or that of "
        "the file of --fusion)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.literal and self.synonyms is not None:
            raise UsageError("--literal searches words as they are written, without --synonyms: leave one out")
        if self.ranker is None:
            refuse_given(self, _RANKED, "is about how a ranker scores or orders: add --ranker, or leave it out")
        elif is_url(self.ranker):
            ModelUrl.parse(self.ranker, "--ranker")
            refuse_given(self, OF_MODEL, "is about a ranker that is opened here, and --ranker is a URL: leave it out")
        if self.tower is not None:
            ModelUrl.parse(self.tower, "--tower")

    def settings(self) -> SearchSettings:
        from dataclasses import replace

        from paddle_ranker.retrieval.stages.search import SearchSettings
        from paddle_ranker.retrieval.words.synonyms import Synonyms

        fusion = parse_fusion(self.fusion, self.weights)
        if self.recall_weight is not None:
            fusion = replace(fusion, recall_weight=self.recall_weight)
        by = tuple(name for name in self.by.split(",") if name)
        synonyms = None if self.synonyms is None else Synonyms(Path(self.synonyms))
        reading = self.literal, False, synonyms
        return SearchSettings(by, fusion, self.depth, self.rank_top, self.ef, self.nprobe, *reading, self.milvus_uri)


@dataclass(frozen=True)
class SearchOptions(SearchingOptions):
    query: Optional[str] = option(
        None,
        help="what to search for; or give --input or --like. '': list documents, the newest first if there is a field "
        "of dates",
        positional=True,
        addresses=ANY_TEXT,
    )
    input_file: Optional[str] = option(
        None, help="queries: a text a line, or id and text, tab-separated or JSON lines", name="input", files=True
    )
    like: Optional[str] = option(
        None, help="search for documents like this file, such as a picture, with or without a query", addresses=FETCHED
    )
    output_file: Optional[str] = option(None, help="file to write (default: standard output)", name="output")
    top_k: Optional[int] = option(
        None, help=f"results of each query (default: {_SHOWN} as text, else {_LISTED})", minimum=1
    )
    where: Optional[str] = option(
        None,
        help="only documents whose fields meet this: lang=zh, 'year>=2020 and lang in zh,en'",
        joins=" and ",
        addresses=ANY_TEXT,
    )
    sort: str = option(
        "",
        help="order all that match by these fields instead of scores, the next where one is equal; -year: the highest "
        "first (default: by scores)",
        joins=",",
    )
    group_by: Optional[str] = option(
        None,
        help="show only the best result of each value of this field; content: of nearly the same texts",
        addresses=ANY_TEXT,
    )
    format: Optional[str] = option(
        None, help="text, a line of JSON a query, or a TREC run (default: text; with --output by its name)",
        choices=FORMATS,
    )  # fmt: skip
    explain: bool = option(False, help="show each searcher's score and rank of a result, in text")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.like is not None and self.input_file is not None:
            raise UsageError("--like is searched with one query: leave out --input")
        if self.like is None and (self.query is None) == (self.input_file is None):
            raise UsageError(
                "say what to search for: a query, --like FILE, --input FILE, or '' for a list of documents"
            )
        if self.lists_documents:
            refuse_given(self, _OF_QUERIES, "stands beside an empty query, which lists documents: leave one out")
        elif self.sort:
            refuse_given(self, _OF_SCORES, "is about scores, and --sort orders by fields: leave one out")
        if self.form == "trec" and (self.lists_documents or self.sort):
            raise UsageError("a run in TREC's format has scores, and a list of documents has none: add --format json")
        if self.explain and self.form != "text":
            raise UsageError(f"--explain is shown in text, not in {self.form}: leave it out, or add --format text")

    @property
    def lists_documents(self) -> bool:
        return self.query is not None and not self.query.strip() and self.like is None

    @property
    def form(self) -> str:
        if self.format is not None or self.output_file is None:
            return self.format or "text"
        from paddle_ranker.data.rows.formats import JSON_EXTENSIONS

        return "json" if self.output_file.lower().removesuffix(".gz").endswith(JSON_EXTENSIONS) else "trec"


def open_search_engine(options: SearchingOptions, *, has_query: bool = True) -> SearchEngine:
    """Open the index and the ranker that the options name; print a note on how the index is searched.

    has_query: whether something is searched for; else documents are listed, which needs no tower
    """
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.retrieval.stages.search_engine import SearchEngine

    tower = LoadOptions(device=options.device, threads=options.cpu_threads)
    ranker = ranker_of(options) if options.ranker is not None else None
    folders = split_paths(options.index)
    engine = SearchEngine.open(
        folders if len(folders) > 1 else options.index,
        options.settings(),
        ranker=ranker,
        tower=options.tower,
        options=tower,
        batch_size=options.batch_size,
        has_query=has_query,
    )
    if has_query:
        note(how_searched(engine))
    return engine


def ranker_of(options: SearchingOptions) -> AnyRanker:
    from paddle_ranker.model.model_folder import RANKER
    from paddle_ranker.scoring.loading import open_model
    from paddle_ranker.scoring.ranker import Ranker

    assert options.ranker is not None
    if is_url(options.ranker):
        return open_url_ranker(options.ranker, options.batch_size)
    return Ranker(
        open_model(options.ranker, RANKER, LoadOptions.of(options)),
        options.batch_size,
        windows=options.windows,
        window_overlap=options.window_overlap,
        window_top_k=options.window_top_k,
    )


def how_searched(engine: SearchEngine) -> str:
    """Return a line that names the index and its searchers, each with its search method."""
    collection, settings = engine.collection, engine.settings
    info, parts = collection.info, []
    for name in engine.searchers:
        if name == "words" and info.words is not None:
            parts.append(f"words ({search_method(info, name)}, {info.words.tokenizer})")
        else:
            parts.append(f"{name} ({search_method(info, name, settings.ef, settings.nprobe)})")
    lists = f", {settings.depth:,} of each by {settings.fusion.method}" if len(parts) > 1 else ""
    method = f"{lists} with k = {RRF_K}" if lists and settings.fusion.method == "rrf" else lists
    ranked = f"; the ranker orders the first {settings.rank_top:,}" if engine.ranker else ""
    is_one = collection.folder not in collection.folders
    folders = listed(map(str, [collection.folder] if is_one else collection.folders))
    return f"{folders}: {len(collection):,} documents by {' and '.join(parts)}{method}{ranked}"


def how_filtered(collection: Collection, where: Filter, shown: str) -> str:
    """Return a line that states how many documents meet a filter; if none does, the line names similar values."""
    snapshot = collection.snapshot()
    count = snapshot.matching(None).count(where)
    samples, near = snapshot.field_values(_SAMPLED) if count == 0 else {}, ""
    for condition in where.conditions:
        if (
            condition.field in samples
            and samples[condition.field].type == "keyword"
            and condition.operator in ("=", "in")
        ):
            texts = [str(value.of) for value in samples[condition.field].values]
            for text in (str(value) for value in condition.values):
                near += (
                    f"; {condition.field} = {text}{hint}"
                    if text not in texts and (hint := spelling_hint(text, texts))
                    else ""
                )
    return f"--where {brief(shown)}: {count:,} of {len(collection):,} documents meet it{near}"


def search(options: SearchOptions) -> None:
    """Search, and print or write the results."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.retrieval.stages.search import filter_of
    from paddle_ranker.retrieval.values.bounds import check_parameters
    from paddle_ranker.retrieval.values.listing import Listing
    from paddle_ranker.storage.atomic import check_writable
    from paddle_ranker.storage.prefetch import chunks
    from paddle_ranker.storage.streams import output_free_for

    check_writable(options.output_file)
    queries = {"1": options.query or ""}
    if options.input_file is not None:
        from paddle_ranker.data.rows.trec import read_queries

        queries = read_queries(options.input_file, options)
    where = filter_of(options.where)
    sort = tuple(options.sort.split(",")) if options.sort else ()
    check_parameters(Listing(where=where, sort=sort))
    searcher = open_search_engine(options, has_query=not options.lists_documents)
    if where is not None:
        note(how_filtered(searcher.collection, where, options.where or ""))
    like = None if options.like is None else Path(options.like)
    top_k = options.top_k or (_SHOWN if options.form == "text" else _LISTED)

    def lines() -> Iterator[str]:
        rows: Iterable[tuple[str, str]] = queries.items()
        if options.input_file is not None:
            from paddle_ranker.progress import Progress

            rows = Progress(rows, desc="search", unit="query")
        for part in chunks(rows, _QUERIES):
            searches = searcher.run(
                [text for _, text in part], top_k, where, group_by=options.group_by, sort=sort, like=like
            )
            for (id, query), finished in zip(part, searches):
                if (end := finished.query.parsed.read) is not None:
                    note(f"{quoted(query)}: has {len(query):,} characters; the first {end:,} are read")
                for name, end in finished.read_by.items():
                    note(f"{quoted(query)}: too long for the tower of {name}, which reads the first {end:,} characters")
                if finished.degraded:
                    note(f"{quoted(query)}: without {listed(finished.degraded)}, which does not answer: degraded")
                if finished.nothing_close and finished.page.shown:
                    note(f"{quoted(query)}: nothing is close; the documents below are the nearest")
                for read in finished.query.words.corrected:
                    note(f"{quoted(query)}: no document has {quoted(read.given)}; searched {listed(read.to)}")
                yield from _lines(options, id, query, finished)

    if options.output_file is None:
        for line in lines():
            print(line)
        return
    from paddle_ranker.data.rows.formats import new_data_file

    with output_free_for(options.output_file), new_data_file(options.output_file) as stream:
        stream.writelines(f"{line}\n".encode() for line in lines())


def _lines(options: SearchOptions, id: str, query: str, finished: Search) -> Iterator[str]:
    from paddle_ranker.retrieval.stored.manifest import WORDS
    from paddle_ranker.retrieval.stored.places import shown_place

    results = finished.results()
    if options.form == "trec":
        from paddle_ranker.data.rows.trec import checked_id, in_order, run_lines

        ids = [result.id for result in results]
        scores = in_order(ids) if options.ranker else {result.id: result.score for result in results}
        run = {checked_id(options.index, document): score for document, score in scores.items()}
        yield from (line.rstrip("\n") for line in run_lines({checked_id("the queries", id): run}, "paddle_ranker"))
    elif options.form == "json":
        shards = {} if finished.shards is None else {"shards": dict(finished.shards)}
        close = {"nothing_close": True} if finished.nothing_close else {}
        degraded = {"degraded": finished.degraded} if finished.degraded else {}
        hits = [_as_json(result) for result in results]
        yield json_text({"id": id, "query": query, **shards, **close, **degraded, "results": hits})
    else:
        if options.input_file is not None:
            yield f"\n{query}"
        if not results:
            advice = [
                "try other words",
                *(f"leave out --{name}" for name in ("where", "literal") if getattr(options, name)),
            ]
            of_words = "a word of " if finished.query.searchers == (WORDS,) else ""
            what = of_words + quoted(query) if query else "such a vector"
            if not options.lists_documents:  # else the note on --where says it
                note(f"no document has {what}{' and meets --where' * bool(options.where)}: {listed(advice)}")
        for rank, (result, row) in enumerate(zip(results, finished.page.shown), start=1):
            shown = result.score if result.probability is None else result.probability
            title = "" if result.title is None else f"{result.title} | "
            in_file = "" if result.place is None else shown_place(result.place)
            score = "" if finished.is_sorted else f"{shown:.4f}  "
            yield f"{rank:4}. {score}{title}{in_file and f'{in_file} | '}{_beginning(result.text)}"
            if options.explain:
                yield f"      {_explained(result, finished.fused.by_feature.get(row))}"
            if result.answer is not None:
                yield f"      {result.answer}"
            if result.similar:
                yield f"      similar: {listed(result.similar)}"


def _beginning(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}…"


def _explained(result: Result, features: Optional[FeatureParts]) -> str:
    """Return a result's scores, ranks and fields, and the features of its text with the largest weights, as text."""
    parts = [f"{name} {stage.score:.4f}, rank {stage.rank}" for name, stage in result.searchers.items()]
    if features is not None:
        heaviest = sorted(features.others.items(), key=lambda feature: -abs(feature[1]))[:_SHOWN_FEATURES]
        parts.append(f"features {', '.join(f'{name} {added:+.3f}' for name, added in heaviest)}")
    if len(parts) > 1 or result.probability is not None:
        parts.append(f"fused {result.score:.4f}")
    if result.probability is not None:
        parts.append(f"ranker {result.probability:.4f}, logit {result.logit:+.3f}")
    fields = "".join(f"; {name}={cell_text(value)}" for name, value in result.fields.items())
    return f"{result.id}: {'; '.join(parts)}{fields}"


def _as_json(result: Result) -> Mapping[str, Any]:
    searchers = {name: {"score": stage.score, "rank": stage.rank} for name, stage in result.searchers.items()}
    ranked = {"logit": result.logit, "probability": result.probability} if result.logit is not None else {}
    fields = {"fields": dict(result.fields)} if result.fields else {}
    title = {"title": result.title} if result.title is not None else {}
    similar = {"similar": list(result.similar)} if result.similar else {}
    return {
        "id": result.id,
        **title,
        "text": result.text,
        **fields,
        "score": result.score,
        "searchers": searchers,
        **({} if result.place is None else {"place": result.place}),
        **({} if result.answer is None else {"answer": result.answer.as_json()}),
        **ranked,
        **similar,
    }


main = main_of(search, SearchOptions, __doc__, ends_with_reader=True)
