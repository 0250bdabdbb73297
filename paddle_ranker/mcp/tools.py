"""The tools of assistants: `search`, `fetch` and `search_documents`, whatever the transport of their calls.

`search` and `fetch` take and return what ChatGPT's connectors demand, name by name. `search_documents` has more:
filters, counts of values, order, and the passages that answer. Answers are data of the index's authors, and a model
reads all of them: their lengths are limited, and what was cut or left out is stated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Annotated, Any, Callable, Optional
from urllib.parse import quote, urlencode

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import NotRequired, TypedDict

from paddle_ranker.data.rows.field_paths import value_at
from paddle_ranker.errors import brief, listed, quoted
from paddle_ranker.mcp.options import SLOT
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.schema import PLACES
from paddle_ranker.retrieval.values.bounds import LEAST_COUNTS, LONGEST_QUERY
from paddle_ranker.retrieval.values.search_defaults import TOP_K
from paddle_ranker.retrieval.work.turns import Reserve
from paddle_ranker.serving.core.faults import NO_DOCUMENT, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.search_log import SearchIds
from paddle_ranker.serving.core.validation import Body, refusal
from paddle_ranker.serving.http.search_routes import SearchRequest, SearchRoutes
from paddle_ranker.serving.slots.index_slot import IndexSlot
from paddle_ranker.serving.slots.queued_search import QueuedSearch
from paddle_ranker.serving.slots.slots import Slots

MOST_TEXT = 40_000  # characters of a document's text in one answer of `fetch`
_MOST_ANSWER = 64 * 1024  # bytes of the documents in an answer of `search_documents`
_MOST_VALUE, _SHORT_VALUE = 4000, 500  # bytes of a field's value in an answer of `fetch`, and in a list
_PASSAGE, _TITLE = 500, 80  # characters of a document's best passage; of the passage that stands for a missing title
_MOST_DESCRIBED = 4000  # characters about the index's fields in a tool's description
_MOST_COUNTS = 4000  # bytes of a field's values with their counts
_LONGEST_ID, _LONGEST_TITLE, _LONGEST_URL = 512, 200, 2000  # characters
_WEB = ("http://", "https://")
_URL = "url"  # the field with a document's address, as on the search page
_MOST_FIELDS = 20  # so many values of the greatest size may a document's fields have together
_SHOWN_VALUE = 60  # characters of a field's name or value in a tool's description
_READING = ("corrected", "did_you_mean", "phrases", "unfound", "excluded", "nothing_close", "query_read", "degraded")
_SYNTAX = 'Quote words to search them as a phrase: "red shoes"; a minus before a word excludes it.'


class SearchArguments(Body):
    """Arguments of `search`."""

    query: str = Field(min_length=1, max_length=LONGEST_QUERY, description="what to search for, in natural language")


class FetchArguments(Body):
    """Arguments of `fetch`."""

    id: str = Field(min_length=1, max_length=_LONGEST_ID, description="id of a document, from the results of a search")
    start: int = Field(0, ge=0, description="character at which the text begins, to read on in a long document")


class FilteredSearchArguments(Body):
    """Arguments of `search_documents`."""

    query: str = Field(min_length=1, max_length=LONGEST_QUERY, description="what to search for, in natural language")
    where: dict[str, Any] = Field(
        default_factory=dict,
        description='only documents whose fields meet all of it: {"lang": "en", "year": {"gte": 2020, "lt": 2024}, '
        '"tags": ["a", "b"]}; a list: one of these; operators: eq, ne, gt, gte, lt, lte, in; a date: "2024-03"',
    )
    facets: list[str] = Field(
        default_factory=list, description="fields whose values are counted among all documents that match"
    )
    sort: list[str] = Field(
        default_factory=list, description="fields to order by in place of relevance, -year for the highest first"
    )
    top_k: int = Field(TOP_K, json_schema_extra={"minimum": LEAST_COUNTS["top_k"]}, description="number of results")
    offset: int = Field(0, json_schema_extra={"minimum": LEAST_COUNTS["offset"]}, description="leave out so many first")


class LinkedDocument(TypedDict):
    """A document in the results of `search`."""

    id: str
    title: str
    url: str


class LinkedDocuments(TypedDict):
    """Answer of `search`."""

    results: list[LinkedDocument]


class FetchedDocument(TypedDict):
    """Answer of `fetch`."""

    id: str
    title: str
    text: str
    url: str
    metadata: Annotated[
        dict[str, Any],
        Field(description="fields; _text: which part of a long text this is; _cut: fields that are left out or cut"),
    ]


class FoundDocument(LinkedDocument):
    """A document in the results of `search_documents`."""

    passage: Annotated[str, Field(description="part of the text that answers best; fetch has the whole text")]
    fields: dict[str, Any]
    probability: NotRequired[Annotated[float, Field(description="of relevance, if a ranker ordered the document")]]


class FoundDocuments(TypedDict):
    """Answer of `search_documents`."""

    results: list[FoundDocument]
    total: Annotated[Optional[int], Field(description="documents that match by words; null if words were not searched")]
    facets: NotRequired[dict[str, list[dict[str, Any]]]]
    left_out: NotRequired[Annotated[int, Field(description="results beyond the longest answer: ask with offset")]]
    cut: NotRequired[
        Annotated[list[str], Field(description="fields whose long values or many counts are cut; fetch has more")]
    ]
    corrected: NotRequired[list[dict[str, Any]]]
    did_you_mean: NotRequired[str]
    phrases: NotRequired[list[str]]
    unfound: NotRequired[Annotated[list[str], Field(description="phrases that no document has")]]
    excluded: NotRequired[list[str]]
    nothing_close: NotRequired[Annotated[bool, Field(description="true: the results are probably not about the query")]]
    query_read: NotRequired[Annotated[int, Field(description="characters of a long query that were read")]]
    degraded: NotRequired[list[str]]


@dataclass(frozen=True)
class ToolCall:
    """The circumstances of a tool's call.

    deadline: on `time.monotonic()`'s clock; None: the server's default
    page: address of the server, whose search page shows documents without an address of their own; None: there is none
    reserve: reserves the bytes of the answer, see `StoppableWork.run`
    state: gets the entries of the log of requests, see `Middleware`
    """

    deadline: Optional[float] = None
    page: Optional[str] = None
    reserve: Optional[Reserve] = None
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolAnswer:
    """Answer of a tool, as an object and as its JSON."""

    content: Mapping[str, Any]
    text: str

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> ToolAnswer:
        return cls(content, to_json(content).decode())


@dataclass(frozen=True)
class Tool:
    """A tool as it is described to assistants. `takes` and `gives` are JSON schemas."""

    name: str
    title: str
    description: str
    takes: Mapping[str, Any]
    gives: Mapping[str, Any]


class DocumentLinks:
    """Addresses of documents.

    Args:
        template: a field that holds the address, or a template of fields, see `LinkOptions.url`; None: the field `url`.
    """

    def __init__(self, template: Optional[str]):
        self._template, self._is_template = template or _URL, template is not None and template.startswith(_WEB)
        names = SLOT.findall(self._template) if self._is_template else [self._template]
        self._names = [] if template is None else [name for name in names if name != "id"]

    def of(self, document: Document, title: str, index: str, page: Optional[str]) -> str:
        """Return the address of a document: its own, else that of the search page, else a name that is no address."""
        own = self._filled(document) if self._is_template else value_at(document.fields, self._template)
        if isinstance(own, str) and own.startswith(_WEB) and len(own) <= _LONGEST_URL:
            return own
        if page is None:
            return f"urn:paddle-ranker:{quote(index)}:{quote(document.id, safe='')}"
        return f"{page}/?{urlencode({'q': title, 'open': document.id})}"

    def check(self, fields: Collection[str]) -> None:
        """Raise `Fault` if a field of the template is none of `fields`, those that documents of the index have."""
        for name in self._names:
            if name not in fields:
                raise Fault(
                    UNPROCESSABLE, f"no document has the field {quoted(name)}, only {listed(fields)}", field="--url"
                )

    def _filled(self, document: Document) -> Optional[str]:
        values = {name: value_at(document.fields, name) for name in self._names} | {"id": document.id}
        if not all(isinstance(value, (str, int, float)) and value != "" for value in values.values()):
            return None
        return SLOT.sub(lambda match: quote(str(values[match[1]]), safe=""), self._template)


class SearchTools:
    """The tools, answered by a server's index.

    Args:
        slots: the slots of the index, and of its tower and ranker if there are any.
        url: see `DocumentLinks`.
        keep_texts: whether queries are put into the log of requests.

    Attributes:
        schemas: JSON schemas of the tools' arguments, by the tools' names.
    """

    def __init__(self, slots: Slots, url: Optional[str] = None, *, keep_texts: bool = False):
        pipeline = QueuedSearch.of(slots)
        self._index: IndexSlot = pipeline.index
        self._links = DocumentLinks(url)
        self._routes = SearchRoutes(pipeline, SearchIds(b""), keep_texts=keep_texts)  # answers have no search ids
        self._tools: dict[str, tuple[type[Body], type, Callable[[Any, ToolCall], Awaitable[ToolAnswer]]]] = {
            "search": (SearchArguments, LinkedDocuments, self._search),
            "fetch": (FetchArguments, FetchedDocument, self._fetch),
            "search_documents": (FilteredSearchArguments, FoundDocuments, self._search_documents),
        }
        self._takes: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, (kind, *_) in self._tools.items()}
        self.schemas = {name: takes.json_schema() for name, takes in self._takes.items()}
        self._gives = {name: TypeAdapter(kind).json_schema() for name, (_, kind, _) in self._tools.items()}

    async def listed(self, deadline: Optional[float] = None) -> list[Tool]:
        """Return the tools. Descriptions name the index and its fields. Raises `Fault` until the index is loaded."""
        about = await self._routes.described(self._index.deadline(deadline))
        what = f"the index {quoted(about['name'])} ({about['documents']:,} documents)"
        told = {
            "search": (
                "Search",
                f"Search {what}. Returns id, title and url of the best documents; fetch has their text.",
            ),
            "fetch": (
                "Fetch a document",
                f"Return the text and the fields of a document of {what} by its id. At most {MOST_TEXT:,} characters "
                "of a text are returned; metadata._text says where a longer one was cut, to read on with start.",
            ),
            "search_documents": (
                "Search with filters",
                f"Search {what} with filters, counts of fields' values, and order. Returns the best passage and the "
                f"fields of each document. {_SYNTAX} top_k is at most {about['limits']['hits']}. {_fields_in(about)}",
            ),
        }
        return [Tool(name, *told[name], self.schemas[name], self._gives[name]) for name in self._tools]

    async def call(self, name: str, arguments: Mapping[str, Any], call: ToolCall) -> ToolAnswer:
        """Call a tool. Raises `Fault`, whose message the model can act on, and `KeyError` for an unknown tool."""
        *_, run = self._tools[name]
        return await run(_checked(self._takes[name], arguments), call)

    async def _search(self, asked: SearchArguments, call: ToolCall) -> ToolAnswer:
        if not asked.query.strip():
            raise Fault(UNPROCESSABLE, "is empty: say what to search for", field="query")
        return await self._run(SearchRequest(query=asked.query, snippet=_TITLE), partial(self._linked, call), call)

    async def _search_documents(self, asked: FilteredSearchArguments, call: ToolCall) -> ToolAnswer:
        request = SearchRequest(
            query=asked.query,
            where=asked.where or None,
            facets=asked.facets or None,
            sort=asked.sort or None,
            top_k=asked.top_k if "top_k" in asked.model_fields_set else None,
            offset=asked.offset,
            snippet=_PASSAGE,
            total=True,
        )
        return await self._run(request, partial(self._found, call), call)

    async def _fetch(self, asked: FetchArguments, call: ToolCall) -> ToolAnswer:
        deadline = self._index.deadline(call.deadline)
        return await self._index.run(self._fetched, asked, call, deadline=deadline, reserve=call.reserve)

    async def _run(
        self, request: SearchRequest, write: Callable[[dict[str, Any]], ToolAnswer], call: ToolCall
    ) -> ToolAnswer:
        deadline = self._index.deadline(call.deadline)
        return await self._routes.run(request, deadline, write, call.state, call.reserve)

    def _linked(self, call: ToolCall, content: Mapping[str, Any]) -> ToolAnswer:
        if content["hits"]:
            self._links.check(self._index.ready().collection.fields)
        return ToolAnswer.of({"results": [self._link(call, content, hit) for hit in content["hits"]]})

    def _link(self, call: ToolCall, content: Mapping[str, Any], hit: Mapping[str, Any]) -> LinkedDocument:
        title = _title(hit.get("title") or hit["snippet"]["text"] or hit["id"])
        document = Document(hit["id"], "", hit["fields"])
        url = self._links.of(document, title, content["index"]["name"], call.page)
        return {"id": hit["id"], "title": title, "url": url}

    def _found(self, call: ToolCall, content: Mapping[str, Any]) -> ToolAnswer:
        if content["hits"]:
            self._links.check(self._index.ready().collection.fields)
        results, cut, room = list[FoundDocument](), dict[str, None](), _MOST_ANSWER
        for hit in content["hits"]:
            fields, of_hit = _shortened(hit["fields"], _SHORT_VALUE)
            ranked = {} if "probability" not in hit else {"probability": hit["probability"]}
            found: Any = {
                **self._link(call, content, hit),
                "passage": hit["snippet"]["text"],
                "fields": fields,
                **ranked,
            }
            room -= len(to_json(found))
            if room < 0 and results:
                break
            results.append(found)
            cut.update(dict.fromkeys(of_hit))
        answer: dict[str, Any] = {"results": results, "total": content["total"]}
        if left := len(content["hits"]) - len(results):
            answer["left_out"] = left
        if "facets" in content:
            answer["facets"] = {name: _most_frequent(counts) for name, counts in content["facets"].items()}
            shorter = (name for name, counts in answer["facets"].items() if len(counts) < len(content["facets"][name]))
            cut.update(dict.fromkeys(shorter))
        if cut:
            answer["cut"] = [*cut]
        answer.update({name: content[name] for name in _READING if name in content})
        return ToolAnswer.of(answer)

    def _fetched(self, asked: FetchArguments, call: ToolCall) -> ToolAnswer:
        served = self._index.latest()
        document = served.snapshot.documents_of([asked.id]).get(asked.id)
        if document is None:
            problem = f"there is no document {quoted(asked.id)}; search returns the ids that there are"
            raise Fault(NO_DOCUMENT, problem, field="id")
        text, start = document.text, asked.start
        if start >= len(text) and start:
            raise Fault(UNPROCESSABLE, f"is {start:,}, and the text has {len(text):,} characters", field="start")
        self._links.check(served.collection.fields)
        title = _title(served.info.schema.name_of(document) or text[:_TITLE] or document.id)
        metadata, cut = _shortened(document.fields, _MOST_VALUE)
        part = text[start : start + MOST_TEXT]
        if len(part) < len(text):
            metadata["_text"] = {"start": start, "end": start + len(part), "characters": len(text)}
        if cut:
            metadata["_cut"] = cut
        url = self._links.of(document, title, served.name, call.page)
        content: FetchedDocument = {
            "id": document.id, "title": title, "text": part, "url": url, "metadata": metadata,
        }  # fmt: skip
        return ToolAnswer.of(content)


def _checked(adapter: TypeAdapter[Any], arguments: Mapping[str, Any]) -> Body:
    """Return the arguments of a tool as an object; null is as good as left out.

    Raises `Fault`, which names the wrong argument.
    """
    try:
        checked: Body = adapter.validate_python({name: value for name, value in arguments.items() if value is not None})
    except ValidationError as error:
        raise refusal(error) from error
    checked.check()
    return checked


def _shortened(fields: Mapping[str, Any], most: int) -> tuple[dict[str, Any], list[str]]:
    """Return a document's fields, of each value at most `most` bytes as JSON, and the names of those that had more.

    Of a long text the beginning is kept; other long values are left out.
    """
    given = {name: value for name, value in fields.items() if name != PLACES and value is not None}
    shown, room = dict[str, Any](), _MOST_FIELDS * most
    for name, value in given.items():
        if len(to_json(value)) > most:
            if not isinstance(value, str):
                continue
            value = f"{value[: most // 4]}…"
        room -= len(to_json(value)) + len(name)
        if room >= 0:
            shown[name] = value
    return shown, [name for name, value in given.items() if shown.get(name) != value]


def _most_frequent(counts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first values of a field with their counts, at most `_MOST_COUNTS` bytes as JSON."""
    sizes = accumulate(len(to_json(count)) for count in counts)
    return [count for count, size in zip(counts, sizes) if size <= _MOST_COUNTS]


def _title(text: str) -> str:
    """Return a title on one line, at most `_LONGEST_TITLE` characters."""
    text = " ".join(text[: 2 * _LONGEST_TITLE].split()) or text[:_LONGEST_TITLE]
    return text if len(text) <= _LONGEST_TITLE else f"{text[: _LONGEST_TITLE - 1]}…"


def _fields_in(about: Mapping[str, Any]) -> str:
    """Describe the fields of an index for a model that writes filters; `about` is what `GET /v1/index` shows."""
    if not about["fields"]:
        return "Documents have no fields for where, facets and sort."
    lines, room = ["Fields for where and sort:"], _MOST_DESCRIBED
    for name, known in about["fields"].items():
        kind = f"{known['type']}{', several' if known.get('list') else ''}"
        if "values" in known:
            kind += f", one of {', '.join(brief(to_json(value).decode(), _SHOWN_VALUE) for value in known['values'])}"
        elif "min" in known:
            kind += f", from {known['min']} to {known['max']}"
        if words := " ".join(str(known[part]) for part in ("label", "unit") if part in known):
            kind += f" ({words})"
        lines.append(f"- {to_json(brief(name, _SHOWN_VALUE)).decode()}: {kind}")
        room -= len(lines[-1])
        if room < 0:
            lines[-1] = f"- and {len(about['fields']) - len(lines) + 2:,} more"
            break
    facets = f"Fields for facets: {', '.join(about['facets'])}." if about["facets"] else "No field suits facets."
    return "\n".join([*lines, brief(facets, _MOST_DESCRIBED)])
