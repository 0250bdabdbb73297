"""Measure the searches of an index: recall, MRR, nDCG and MAP of words, of vectors, of both and of baselines.

paddle-ranker evaluate-recall --index index --test dev.tsv --plot recall.png
paddle-ranker evaluate-recall --index index --queries queries.tsv --qrels qrels.txt --ranker checkpoint/best
paddle-ranker evaluate-recall --index index --beir scifact
paddle-ranker evaluate-recall --index index --test dev.tsv --learn_weights weights.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker import runtime
from paddle_ranker.commands.compare import PICTURES, name_systems
from paddle_ranker.commands.search import SearchingOptions, open_search_engine
from paddle_ranker.errors import DataError, UsageError, listed
from paddle_ranker.options import given_of, json_text, main_of, note, option
from paddle_ranker.options.declare import FETCHED, FETCHED_FOLDER

if TYPE_CHECKING:
    from paddle_ranker.array_types import Floats
    from paddle_ranker.data.rows.trec import Scores
    from paddle_ranker.evaluation.comparison import Comparison
    from paddle_ranker.evaluation.retrieval import JudgedQueries, Searched
    from paddle_ranker.retrieval.stages.fusion import Fusion, Signal
    from paddle_ranker.retrieval.stages.search_engine import SearchEngine
    from paddle_ranker.retrieval.stages.weight_learning import JudgedList

LEARNED, LEARNED_RANKED, LEARNED_FIELDS = "learned weights", "ranker + learned recall weight", "learned field weights"
LEARNED_FEATURES = "learned features"
FEWEST_LABELS = 300  # minimum labels for learning weights of features
_MOST_SIGNALS, _LOG = 5, ":log"
_MEASURE = "ndcg@10"  # by which features must be better


@dataclass(frozen=True)
class EvaluateRecallOptions(SearchingOptions):
    test_file: Optional[str] = option(
        None,
        help="pairs of a query and the id, title or text of a document that answers it, or such pairs with labels",
        name="test",
        files=True,
        either=True,
    )
    qrels: Optional[str] = option(
        None, help="TREC qrels, or BEIR's, with the documents' ids, in place of --test", files=True, either=True
    )
    queries: Optional[str] = option(
        None, help="texts of the qrels' queries: id, text, tab-separated or JSON lines", files=True
    )
    beir: Optional[str] = option(
        None,
        help="a BEIR folder with queries.jsonl and qrels/, in place of --qrels and --queries",
        either=True,
        addresses=FETCHED,
    )
    split: str = option("test", help="which of a BEIR folder's qrels")
    top_k: int = option(100, help="documents of each query that are measured", minimum=1)
    baselines: bool = option(True, help="measure BM25 on words and on bigrams beside (and on stems of English)")
    untuned: Optional[str] = option(
        None,
        help="measure the vectors of another tower or encoder beside, such as the one that training started from",
        addresses=FETCHED_FOLDER,
    )
    runs: tuple[str, ...] = option((), help="TREC runs of other systems to measure beside; name=PATH", several=True)
    learn_weights: Optional[str] = option(
        None,
        help="learn the weights of searchers and fields from these judgments, and without --ranker from "
        f"{FEWEST_LABELS} labels on those of features; write them to this file, for --fusion",
    )
    signals: tuple[str, ...] = option(
        (),
        help="what --learn_weights tries beside the ranker's logit and the fused score: searchers, for their scores, "
        "and fields with numbers; FIELD:log takes log(1 + number)",
        several=True,
    )
    folds: int = option(5, help="parts of the queries; each is measured with weights of the others", minimum=2)
    plot: Optional[str] = option(None, help="write a picture of recall against k: .png, .svg or .pdf")
    runs_folder: Optional[str] = option(None, help="write each system's run to this folder, as TREC writes them")
    write_beir: Optional[str] = option(
        None, help="write documents, queries and judgments as a new BEIR folder, for other people's systems"
    )
    resamples: int = option(2000, help="draws of queries for the intervals", minimum=100)
    seed: int = option(1000, help="seed of the draws", minimum=0)
    format: str = option("text", help="form of what is printed", choices=("text", "json"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(source is not None for source in (self.test_file, self.qrels, self.beir)) != 1:
            raise UsageError("say what answers the queries: --test (query, title), --qrels or --beir; one of them")
        if (self.qrels is None) != (self.queries is None):
            raise UsageError("--qrels and --queries go together")
        for name, needed in (("split", "beir"), ("folds", "learn_weights")):
            if given_of(self, [name]) and getattr(self, needed) is None:
                raise UsageError(f"--{name} is about --{needed}: add that, or leave it out")
        if self.signals and (self.learn_weights is None or self.ranker is None):
            raise UsageError("--signals are weighed beside a ranker's logit: add --learn_weights and --ranker")
        if len(set(self.signals)) != len(self.signals) or len(self.signals) > _MOST_SIGNALS:
            raise UsageError(f"--signals: give each once, and at most {_MOST_SIGNALS}, since all their sets are tried")
        if self.plot is not None and not self.plot.lower().endswith(PICTURES):
            raise UsageError(f"--plot {self.plot}: a picture's name ends in {', '.join(PICTURES)}")


def evaluate(options: EvaluateRecallOptions) -> Comparison:
    """Search for all queries with each system, print the measures, and write the requested files."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.data.rows.beir import write_beir
    from paddle_ranker.data.rows.trec import read_run
    from paddle_ranker.evaluation.report.text import comparison_json, verdicts
    from paddle_ranker.evaluation.retrieval import (
        compare_runs,
        comparison_lines,
        draw_curves,
        search_judged,
        way_to_baseline,
    )
    from paddle_ranker.storage.atomic import check_writable, make_folder

    check_writable(options.plot, options.learn_weights)
    peers = {
        name: read_run(path, skip_bad_rows=options.skip_bad_rows).run
        for name, path in (name_systems(options.runs).items() if options.runs else ())
    }
    searcher = open_search_engine(options)
    judged = _judged(options, searcher)
    has_features = searcher.ranker is None and has_labels_for_features(judged)
    if options.learn_weights is not None and not (can_learn(searcher) or has_features):
        raise DataError(f"--learn_weights: {options.index} has one searcher, of one field; add a tower, or --ranker")
    if options.write_beir is not None:
        documents = (
            (document.id, document.text, document.fields) for document in searcher.collection.snapshot().documents()
        )
        write_beir(Path(options.write_beir), documents, judged.queries, {"test": judged.qrels})
    signals = _signals(options, searcher)
    of_numbers = {name: signal for name, signal in signals.items() if signal.is_field}
    searched = search_judged(searcher, judged, options.top_k, fields=of_numbers)
    runs, lines, nothing_learned = dict(searched.runs), list[str](), None
    if options.learn_weights is not None:
        try:
            fusion = searcher.settings.fusion
            others = [fusion] * len(judged.queries)
            if can_learn(searcher):
                fusion, others, lines = learn(options, searcher, judged, searched, runs, signals)
            if has_features:
                fusion = _with_features(options, searcher, judged, fusion, others, runs, lines)
            fusion.write(options.learn_weights, {"queries": len(judged.queries)})
            lines.append(f"{options.learn_weights}: for --fusion; measured above with weights of other queries")
        except DataError as error:  # the measures are printed first
            nothing_learned = error
    _add_others(options, searcher, judged, runs, peers)
    comparison = compare_runs(judged, runs, options.top_k, resamples=options.resamples, seed=options.seed)
    for line in comparison.pairs.notes:
        note(line)
    if options.format == "json":
        print(json_text(comparison_json(comparison), indent=2))
    else:
        way = way_to_baseline(comparison, searcher)
        print("\n".join([*verdicts(comparison), *way, *lines, *comparison_lines(comparison)]))
    if options.plot is not None:
        draw_curves(options.plot, comparison, options.top_k)
    if options.runs_folder is not None:
        _write_runs(make_folder(options.runs_folder), runs)
    if nothing_learned is not None:
        raise DataError(f"--learn_weights: {nothing_learned}; {options.learn_weights} was not written")
    return comparison


def _judged(options: EvaluateRecallOptions, engine: SearchEngine) -> JudgedQueries:
    from paddle_ranker.data.rows.beir import beir_judgments
    from paddle_ranker.evaluation.retrieval import read_judged, read_pairs

    if options.test_file is not None:
        documents, schema = engine.collection.snapshot().documents(), engine.collection.info.schema
        return read_pairs(options.test_file, documents, schema.title, options)
    if options.beir is not None:
        queries, qrels = beir_judgments(options.beir, options.split)
    else:
        assert options.qrels is not None and options.queries is not None
        queries, qrels = options.queries, options.qrels
    judged = read_judged(qrels, queries, options, engine.collection)
    answers = judged.answers
    missing = engine.collection.snapshot().missing(answers)
    if missing:
        problem = f"{qrels}: {len(missing):,} of its {len(answers):,} answers are no documents of {options.index}"
        problem += f", such as {listed(missing[:3])}"
        if len(missing) == len(answers):
            raise DataError(f"{problem}: build the index of the collection that they are of, with its ids")
        judged.notes.append(f"{problem}; they count as not found")
    return judged


def _add_others(
    options: EvaluateRecallOptions,
    engine: SearchEngine,
    judged: JudgedQueries,
    runs: dict[str, Scores],
    peers: Mapping[str, Scores],
) -> None:
    """Add the runs of the baselines, of the tower `options.untuned`, and of `peers` to `runs`.

    peers: runs of other systems, by name
    """
    from paddle_ranker.evaluation.retrieval import lexical_runs, vector_run

    schema = engine.collection.info.schema
    others: dict[str, Scores] = {}
    if options.untuned is not None:
        from paddle_ranker.model.load_options import LoadOptions
        from paddle_ranker.model.tower import texts_of
        from paddle_ranker.retrieval.index.ingestion import Cutter
        from paddle_ranker.retrieval.vectors.text_vectors import Tower

        load = LoadOptions(device=options.device, threads=options.cpu_threads)
        tower = Tower.open(options.untuned, load, options.batch_size, for_search=True)
        documents = list(engine.collection.snapshot().documents())
        cut = zip(documents, Cutter(schema, texts_of(tower.encoder)).spans(documents))
        passages = [
            (document.id, schema.model_text(document, document.text[slice(*span)]))
            for document, spans in cut
            for span in spans
        ]
        others["untuned"] = vector_run(tower, passages, judged.queries, judged.depth(options.top_k))
    if options.baselines:
        texts = {document.id: schema.model_text(document) for document in engine.collection.snapshot().documents()}
        others.update(lexical_runs(texts, judged.queries, judged.depth(options.top_k)))
    for name, run in [*others.items(), *peers.items()]:
        if name in runs:
            raise UsageError(f"two systems are named {name}: give the run a name of its own, as in mine={name}")
        runs[name] = judged.results(run, options.top_k)
        if name in peers and any(len(scores) > options.top_k for scores in run.values()):
            judged.notes.append(f"{name}: its first {options.top_k:,} documents of a query count, as of all systems")


def can_learn(engine: SearchEngine) -> bool:
    """Return whether there are weights to learn: there are several searchers or fields, or there is a ranker."""
    return len(engine.searchers) > 1 or engine.ranker is not None or _has_fields(engine)


def _has_fields(engine: SearchEngine) -> bool:
    return "words" in engine.searchers and len(engine.collection.info.schema.words) > 1


def _signals(options: EvaluateRecallOptions, engine: SearchEngine) -> dict[str, Signal]:
    """Return the signals that `--signals` names, with weight 0; raises `DataError` for fields without numbers."""
    import numpy as np

    from paddle_ranker.retrieval.stages.fusion import Signal, numbers_of
    from paddle_ranker.retrieval.values.typed_values import TYPES

    signals = {}
    for choice in options.signals:
        name, log = choice.removesuffix(_LOG), choice.endswith(_LOG)
        if name in engine.searchers and not log:
            signals[name] = Signal(0.0)
            continue
        type = TYPES[engine.collection.snapshot().type_of(name)]
        values_by_document = (
            type.values(document.fields.get(name)) for document in engine.collection.snapshot().documents()
        )
        values = [document_values for document_values in values_by_document if document_values]
        numbers = numbers_of(values)
        if not values or np.isnan(numbers).any() or (log and numbers.min() < 0):
            has = "no document has it" if not values else "some values are below 0" if log else "it has other values"
            raise DataError(
                f"--signals {choice}: is neither a searcher ({', '.join(engine.searchers)}) nor a field with "
                f"numbers: {has}"
            )
        signals[name] = Signal.of_values(numbers, log)
    return signals


def learn(
    options: EvaluateRecallOptions,
    engine: SearchEngine,
    judged: JudgedQueries,
    searched: Searched,
    runs: dict[str, Scores],
    signals: dict[str, Signal],
) -> tuple[Fusion, list[Fusion], list[str]]:
    """Learn the weights of searchers, fields and signals.

    Returns a fusion with these weights; for each query a fusion with weights that were learned from other folds'
    queries, without the last stage; and lines for the report.

    runs: dict to which runs are added in which each query is searched with weights learned from other queries
    """
    import numpy as np

    from paddle_ranker.evaluation.retrieval import held_out_runs, search_judged
    from paddle_ranker.metrics.logistic import folds_of
    from paddle_ranker.retrieval.stages.fusion import TITLE, Fusion
    from paddle_ranker.retrieval.stages.weight_learning import (
        Learned,
        learn_recall_weight,
        learn_title,
        learn_weights,
        weighted,
        with_title,
    )

    names, fusion, lines = engine.searchers, engine.settings.fusion, list[str]()
    method, recall_weight = "weighted" if len(names) > 1 else fusion.method, 0.0
    of_numbers = {name: signal for name, signal in signals.items() if signal.is_field}
    columns = {name: number for number, name in enumerate((*names, *of_numbers), start=2) if name in signals}
    configured = engine.collection.info.schema.weights_by(fusion.fields)
    counting: dict[str, Signal] = {}

    def built(field_weights: tuple[float, ...]) -> dict[str, float]:
        return {} if field_weights == engine.collection.info.schema.weights else _named(engine, field_weights)

    # `others` has, for each query, weights of fields that were learned from other folds.
    by_fields, others = configured, [configured] * len(judged.queries)
    if _has_fields(engine):
        by_fields, others = _learn_fields(options, engine, judged, runs, lines)
    # All other weights are learned from searches that use these weights of fields, again those of other folds.
    of_fields = {
        field_weights: searched if field_weights == configured else search_judged(
            engine, judged, options.top_k, replace(fusion, fields=_named(engine, field_weights)), of_numbers
        )
        for field_weights in dict.fromkeys([by_fields, *others] if len(names) > 1 or searched.ranked else [])
    }  # fmt: skip
    of_query = dict(zip(judged.queries, others))
    fused = {
        query: next(iter(of_fields[field_weights].runs.values()))[query]
        for query, field_weights in of_query.items()
        if of_fields
    }
    alone = Learned(dict.fromkeys(names, 1.0), {}, [dict.fromkeys(names, 1.0)] * len(judged.queries))
    learned = {
        field_weights: learn_weights(searches.lists, names, options.folds) if len(names) > 1 else alone
        for field_weights, searches in of_fields.items()
    }

    def title_of(lists: Sequence[JudgedList], weights: Mapping[str, float]) -> float:
        scores = {candidates.query: weighted(candidates, weights) for candidates in lists}
        return learn_title(lists, scores, options.folds)[0]

    def lists_by(field_weights: tuple[float, ...]) -> tuple[Learned, list[JudgedList]]:
        """Return the searchers' weights and lists of searches with the given weights of fields."""
        return learned.get(field_weights, alone), of_fields.get(field_weights, searched).lists

    held_out_fusions, held_out = list[Fusion](), dict[str, Mapping[str, float]]()
    fold_of, titles = folds_of(len(judged.queries), options.folds), dict[int, float]()
    for number, (query, fold, field_weights) in enumerate(zip(judged.queries, fold_of.tolist(), others)):
        by_searchers, lists = lists_by(field_weights)
        own = by_searchers.others[number]
        if fold not in titles:
            titles[fold] = title_of([lists[row] for row in np.flatnonzero(fold_of != fold).tolist()], own)
        held_out[query] = with_title(lists[number], weighted(lists[number], own), titles[fold])
        held_out_fusions.append(
            Fusion(method, own if len(names) > 1 else {}, title=titles[fold], fields=built(field_weights))
        )
    by_searchers, lists = lists_by(by_fields)
    weights, title = dict(by_searchers.weights) if len(names) > 1 else {}, title_of(lists, by_searchers.weights)
    if len(names) > 1:
        runs[LEARNED] = held_out_runs(held_out, fused, options.top_k)
        shown = ", ".join(f"{name} {weight:.3f}" for name, weight in weights.items())
        is_equal = " (equal: the queries do not tell better ones)" if by_searchers.is_equal else ""
        lines.append(f"learned weights: {shown}{is_equal}")
    if searched.ranked:

        def learned_without(left_out: str) -> tuple[Mapping[str, float], Scores]:
            """Learn weights without the signal `left_out`; return them, and a run with weights from other folds."""
            tried = {name: column for name, column in columns.items() if name != left_out}
            learned_by = {
                field_weights: learn_recall_weight(
                    searches.ranked,
                    options.folds,
                    searches.lists if weights else (),
                    tried,
                    recall=left_out != "recall",
                )
                for field_weights, searches in of_fields.items()
            }
            by_others = {
                query: learned_by[field_weights].held_out.get(query, {}) for query, field_weights in of_query.items()
            }
            own_lists = [of_fields[own].ranked[row] for row, own in enumerate(others)]
            own_title, held_out = learn_title(own_lists, by_others, options.folds)
            return {**learned_by[by_fields].weights, TITLE: own_title}, held_out_runs(held_out, fused, options.top_k)

        last, runs[LEARNED_RANKED] = learned_without("")
        title = last[TITLE]
        recall_weight = last["recall"]
        counting = {name: replace(signal, weight=last[name]) for name, signal in signals.items() if last[name]}
        lines.append(f"learned recall weight: {recall_weight:.3f} beside the ranker's logit")
        if signals:
            shown = ", ".join(f"{name} {signal.weight:+.3f}" for name, signal in counting.items()) or "none"
            lines.append(f"learned signals: {shown} (the others' worth is not established)")
            for name in ("recall", *counting):
                runs[f"{LEARNED_RANKED}, without {name}"] = learned_without(name)[1]
    if title != 1:
        lines.append(f"learned weight of whole titles: {title:g}")
    return Fusion(method, weights, recall_weight, title, built(by_fields), counting), held_out_fusions, lines


def has_labels_for_features(judged: JudgedQueries) -> bool:
    """Return whether there are enough judgments to learn weights of features."""
    return sum(map(len, judged.qrels.values())) >= FEWEST_LABELS


def _with_features(
    options: EvaluateRecallOptions,
    engine: SearchEngine,
    judged: JudgedQueries,
    fusion: Fusion,
    others: Sequence[Fusion],
    runs: dict[str, Scores],
    lines: list[str],
) -> Fusion:
    """Learn weights of features; return the fusion with them if they make it significantly better, else unchanged.

    others: for each query, a fusion with weights learned from other folds' queries. The lists of a fold, and those
        from which its weights are learned, are drawn by its fusion, so that no query has a part in its own list
    runs: dict to which a run is added in which each query has weights of features learned from other queries
    lines: list to which a line for the report is added
    """
    import numpy as np

    from paddle_ranker.evaluation.retrieval import compare_runs, feature_lists, held_out_runs
    from paddle_ranker.metrics.logistic import folds_of
    from paddle_ranker.retrieval.stages.weight_learning import learn_features, weighted

    drawn = [(fusion, feature_lists(engine, judged, fusion))]

    def lists_by(wanted: Fusion) -> list[JudgedList]:
        for known, (lists, _) in drawn:
            if known == wanted:
                return lists
        drawn.append((wanted, feature_lists(engine, judged, wanted)))
        return drawn[-1][1][0]

    lists, names = drawn[0][1]
    fold_of = folds_of(len(judged.queries), options.folds)
    scores: dict[str, Mapping[str, float]] = {query: {} for query in judged.queries}
    for fold in range(int(fold_of.max()) + 1):
        own = lists_by(others[int(np.flatnonzero(fold_of == fold)[0])])
        held_out = {query for query, of_query in zip(judged.queries, fold_of) if of_query == fold}
        weights = learn_features([candidates for candidates in own if candidates.query not in held_out], names)
        scores.update((one.query, weighted(one, weights)) for one in own if one.query in held_out)
    without = next(name for name in (LEARNED, LEARNED_FIELDS, *runs) if name in runs)
    runs[LEARNED_FEATURES] = held_out_runs(scores, runs[without], options.top_k)
    two = {name: runs[name] for name in (without, LEARNED_FEATURES)}
    compared = compare_runs(judged, two, options.top_k, resamples=options.resamples, seed=options.seed)
    if compared.measured[LEARNED_FEATURES][_MEASURE].verdict != "better":
        lines.append(f"learned features: none (no gain over {without} is established)")
        return fusion
    lines.append(f"learned features: {len(names)}, which order the first documents")
    return replace(fusion, features=learn_features(lists, names))


def _learn_fields(
    options: EvaluateRecallOptions,
    engine: SearchEngine,
    judged: JudgedQueries,
    runs: dict[str, Scores],
    lines: list[str],
) -> tuple[tuple[float, ...], list[tuple[float, ...]]]:
    """Learn the weights of fields; return the weights, and for each query the weights learned from other folds.

    runs: dict to which a run of words is added in which each query has the weights from other folds
    lines: list to which a line for the report is added
    """
    from paddle_ranker.evaluation.retrieval import rank_losses, words_run
    from paddle_ranker.retrieval.stages.weight_learning import learn_fields

    schema, run_of = engine.collection.info.schema, dict[tuple[float, ...], "Scores"]()

    def losses_of(weights: tuple[float, ...]) -> Floats:
        run_of[weights] = words_run(engine, judged, options.top_k, _named(engine, weights))
        return rank_losses(run_of[weights], judged, options.top_k)

    configured = schema.weights_by(engine.settings.fusion.fields)
    learned, others = learn_fields(configured, losses_of, len(judged.queries), options.folds)
    runs[LEARNED_FIELDS] = {query: run_of[weights][query] for query, weights in zip(judged.queries, others)}
    shown = ", ".join(f"{field.name} {weight:g}" for field, weight in zip(schema.words, learned))
    if learned == configured:
        lines.append(f"learned field weights: {shown} (as they were: the queries do not tell better ones)")
    else:
        fields = ",".join(str(replace(field, weight=weight)) for field, weight in zip(schema.words, learned))
        lines.append(f"learned field weights: {shown}; to build them in: index build --field {fields}")
    return learned, others


def _named(engine: SearchEngine, weights: Sequence[float]) -> dict[str, float]:
    return {field.name: weight for field, weight in zip(engine.collection.info.schema.words, weights)}


def _write_runs(folder: Path, runs: dict[str, Scores]) -> None:
    from paddle_ranker.data.rows.trec import rows_of, write_run

    written: set[str] = set()
    for name, run in runs.items():
        tag = "_".join("".join(char if char.isalnum() else " " for char in name).split()) or "run"
        while tag.lower() in written:  # another system's name differs in other characters alone
            tag += "_"
        written.add(tag.lower())
        write_run(str(folder / f"{tag}.trec"), rows_of(run), tag)


main = main_of(evaluate, EvaluateRecallOptions, __doc__)
