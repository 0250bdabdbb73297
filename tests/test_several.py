"""A text is never taken for a list of texts: every public door that takes several refuses one, by its parameter."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.metrics.measures import evaluate_ranking, ranking_intervals
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo

pytestmark = pytest.mark.unit
MODULES = (
    "paddle_ranker.encoding.pair_encoder", "paddle_ranker.evaluation.recall", "paddle_ranker.lexical.bm25",
    "paddle_ranker.lexical.tokens", "paddle_ranker.model.tower", "paddle_ranker.retrieval.snapshots.snapshot",
    "paddle_ranker.retrieval.index.collection_writer", "paddle_ranker.retrieval.stored.candidate_indexes",
    "paddle_ranker.retrieval.values.listing", "paddle_ranker.retrieval.stages.search",
    "paddle_ranker.retrieval.stages.query", "paddle_ranker.retrieval.stages.ranking",
    "paddle_ranker.retrieval.stages.search_engine", "paddle_ranker.retrieval.vectors.text_vectors",
    "paddle_ranker.retrieval.words.word_search", "paddle_ranker.scoring.cascade", "paddle_ranker.scoring.ranker",
    "paddle_ranker.scoring.scorer", "paddle_ranker.paddle_serving.clients.scoring_client",
    "paddle_ranker.serving.clients.http_client",
    "paddle_ranker.serving.clients.search_client", "paddle_ranker.serving.clients.teacher",
    "paddle_ranker.training.teachers",
)  # fmt: skip
SEVERAL = re.compile(r"(Optional\[|Union\[)?(Sequence|Iterable|Collection)\[(str|AnyQuery|Document|DocumentRow)\]")
# What another door has let in; tokens; what is ignored.
INNER = {"score_tokens", "text_parts", "notes_on", "ranked", "BlendedPairEncoder.encode", "BM25.fit", "best_titles"}
INNER |= {"digest_of_texts", "AnswerCache.__init__"}  # both take the texts that identify kept answers
INNER |= {"Matches.first", "Position.fits", "SortedPosition.fits", "WordPart.is_live"}
INNER |= {"EstimatedTokens.token_ends", "Ranker.scored", "SearchedQuery.has_close_words", "WordSearcher.alike"}


def doors() -> Iterator[tuple[str, Callable[..., Any], str]]:
    for name in MODULES:
        module = importlib.import_module(name)
        owners: list[Any] = [module, *(one for _, one in inspect.getmembers(module, inspect.isclass))]
        for owner in owners:
            is_abstract = inspect.isabstract(owner) and not vars(owner)
            if owner is not module and (owner.__module__ != name or is_abstract or owner.__name__.startswith("_")):
                continue
            for method, function in vars(owner).items():
                raw = function.__func__ if isinstance(function, classmethod) else function
                if (
                    not inspect.isfunction(raw)
                    or raw.__module__ != name
                    or {method, f"{owner.__name__}.{method}"} & INNER
                ):
                    continue
                if (method.startswith("_") and method != "__init__") or getattr(owner, "_is_protocol", False):
                    continue
                for parameter in inspect.signature(raw).parameters.values():
                    if SEVERAL.match(str(parameter.annotation)):
                        yield f"{getattr(owner, '__qualname__', name)}.{method}.{parameter.name}", raw, parameter.name


DOORS = {name: (function, parameter) for name, function, parameter in doors()}


def test_the_doors_are_found() -> None:
    assert {"CollectionWriter.remove.ids", "LocalSnapshot.search.queries", "LocalSnapshot.documents_of.ids",
            "SearchClient.remove.ids", "Tower.vectors.texts", "Ranker.score.titles", "Ranker.rank.titles"
            } <= set(DOORS)  # fmt: skip


def arguments_of(door: str, given: object) -> dict[str, Any]:
    function, parameter = DOORS[door]
    signature, arguments = inspect.signature(function), {}
    for name, one in signature.parameters.items():
        if name in ("self", "cls"):
            owner = door.rsplit(".", 2)[0]
            found = getattr(importlib.import_module(function.__module__), owner.rpartition(".")[2])
            arguments[name] = found if name == "cls" else bare(found)
        elif name == parameter:
            arguments[name] = given
        elif one.default is inspect.Parameter.empty:
            arguments[name] = ["a"] if SEVERAL.match(str(one.annotation)) else "a"
    return arguments


@pytest.mark.parametrize("given", ["12", "深度", b"ab", {"a": "text"}])
@pytest.mark.parametrize("door", sorted(DOORS))
def test_every_door_that_takes_several_refuses_one(door: str, given: object) -> None:
    function, parameter = DOORS[door]
    with pytest.raises(UsageError, match=rf"^(the titles of )?{parameter}(\[0\])? is ") as refused:
        list(function(**arguments_of(door, given)))  # of what yields, the first step
    assert "expected" in str(refused.value)


@pytest.mark.parametrize("given", [[1], [{"id": "a", "text": "b"}], [None], (2.5,)])
@pytest.mark.parametrize("door", sorted(DOORS))
def test_every_door_that_takes_several_names_an_item_of_another_type(door: str, given: object) -> None:
    function, parameter = DOORS[door]
    with pytest.raises(UsageError, match=rf"{parameter}(\[0\])+ is .*: expected "):
        list(function(**arguments_of(door, given)))  # of what yields, the first step


def bare(owner: type[Any]) -> Any:
    """Return an object without its state: the argument is refused before anything else is looked at."""
    return object.__new__(type(owner.__name__, (owner,), dict.fromkeys(getattr(owner, "__abstractmethods__", ()))))


@pytest.mark.parametrize("measure", [evaluate_ranking, ranking_intervals])
def test_measures_refuse_a_text_for_the_queries(measure: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"^queries is the text 'ab': expected several"):
        measure("ab", [1, 0], [0.5, 0.1])


def test_documents_are_checked_one_by_one(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("standard"), None)) as collection:
        wrong: list[tuple[Any, str]] = [
            ({"id": "b", "text": "rice"}, r"documents\[1\] is .*\(dict\): expected a Document"),
            (Document("b", 7), "its text is no text"),  # type: ignore[arg-type]
            (Document(7, "rice"), "its id is no text"),  # type: ignore[arg-type]
            (Document("b", "rice", [("n", 1)]), "its fields are"),  # type: ignore[arg-type]
            (Document("b", "rice", {7: 1}), "its fields are"),  # type: ignore[dict-item]
            (Document("b", "rice", {"n": float("inf")}), "cannot be stored"),
        ]
        for other, says in wrong:
            for given in ([Document("a", "rice"), other], iter([Document("a", "rice"), other])):
                with pytest.raises(RankerError, match=says):
                    collection.writer.add(given)
        assert not len(collection)
        document = Document("a", "rice", {"n": float("nan"), "list": [1.0, float("nan")]})
        collection.writer.add([document])
        assert collection.snapshot().document("a").fields == {"n": None, "list": [1.0, None]}
        assert collection.writer.add([document]).unchanged == 1
        with SearchEngine(collection, SearchSettings()) as engine:
            assert [one.id for one in engine.search("rice", where={"n": None, "list": {"gte": 1}})] == ["a"]
