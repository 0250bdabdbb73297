"""A made-up collection and a search in it, which answers in the shape of `POST /v1/search`.

Small on purpose and without the project's own searchers: scores are sums over shared characters, so a test can count on
documents that move between the stages.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Optional


class Text(NamedTuple):
    """A document: its text, and what it is about, which the made-up vectors know."""

    text: str
    topic: str
    year: int
    kind: str = "新闻"


SCRIPT = "<script>document.title = 'broken'</script><b>手机</b>标题里的脚本仍是文字 & 引号\"'"
FAMILY = "一家人👨‍👩‍👧‍👦用同一部手机🇨🇳拍照，é与e\u0301都完整"
LONG = (
    "这是一篇很长的评测。"
    + "开头与价格无关，只说外观、屏幕和重量。" * 24
    + "谈到苹果手机价格时，评测认为新一代手机的定价比上一代低三百元，"
    "旧款在二手市场上的价格也随之下调。" + "后面谈的是续航与拍照。" * 12
)
TEXTS = [
    Text("苹果手机最新报价：各型号价格一览", "手机价格", 2024),
    Text("苹果价格上涨，果农迎来丰收季", "水果", 2023),
    Text("如何挑选一部适合老人的智能手机", "手机", 2021, "问答"),
    Text("iPhone 15 降价三百元，旧款同步下调", "手机价格", 2024),
    Text("二手手机回收价格怎么算", "手机价格", 2022, "问答"),
    Text("红富士苹果的营养价值与食用方法", "水果", 2020, "百科"),
    Text("手机屏幕更换费用：原装与第三方差多少", "手机价格", 2023, "问答"),
    Text("苹果公司发布第四季度财报，手机业务增长", "公司", 2024),
    Text("价格弹性：微观经济学里的需求曲线", "经济", 2019, "百科"),
    Text("新款旗舰机售价公布，入门版比去年便宜", "手机价格", 2024),
    Text("水果批发市场今日行情：苹果、香蕉、橙子", "水果", 2024),
    Text("iPhone 与安卓旗舰拍照对比评测", "手机", 2023, "评测"),
    Text("苹果手机价格为什么各国不同：税率与汇率", "手机价格", 2022, "问答"),
    Text("预付费套餐资费调整的通知", "资费", 2021, "公告"),
    Text("手机价格战再起，国产品牌全线让利", "手机价格", 2024),
    Text("苹果树的修剪与病虫害防治技术", "农业", 2018, "百科"),
    Text("学生党买机指南：两千元以内的选择", "手机价格", 2024, "评测"),
    Text("深度学习在水稻病害诊断中的研究", "农业", 2022, "论文"),
    Text("基于预训练模型的语义检索排序方法", "检索", 2023, "论文"),
    Text("深度学习框架的图优化与算子融合", "深度学习", 2023, "论文"),
    Text("老年人智能设备使用障碍的调查", "手机", 2020, "论文"),
    Text("苹果手机电池更换价格与官方售后网点", "手机价格", 2023, "问答"),
    Text("外贸手机配件的定价与物流成本", "经济", 2021, "论文"),
    Text("卷积神经网络识别苹果叶片病斑", "农业", 2021, "论文"),
    Text("Apple iPhone price list and trade-in values", "手机价格", 2024, "news"),
    Text(SCRIPT, "脚本", 2024),
    Text(FAMILY, "手机", 2024),
    Text(LONG, "手机价格", 2024, "评测"),
]
DOCUMENTS = 17_702  # what the made-up index says that it holds
TOPICS = {
    "苹果手机": "手机价格",
    "价格": "手机价格",
    "手机": "手机",
    "苹果": "水果",
    "深度学习": "深度学习",
    "病害": "农业",
}
CUT = 64  # code points of a query that the made-up ranker reads
INDEX: dict[str, Any] = {
    "name": "示例合集",
    "version": 7,
    "documents": DOCUMENTS,
    "searchers": ["words", "vectors"],
    "fusions": ["rrf", "weighted"],
    "ranker": "nano",
    "logging": True,
    "writable": False,
    "fields": {
        "kind": {"type": "string", "values": ["新闻", "问答", "百科", "评测", "论文", "公告", "news"]},
        "year": {"type": "integer"},
    },
    "examples": ["苹果手机价格", "深度学习 病害", "iPhone price", "老年人 智能手机"],
    "facets": ["kind", "year"],
    "suggest": True,
    "calibrated": True,
    "defaults": {"depth": 100, "rank_top": 50, "top_k": 10},
}

Scores = dict[int, float]


def ngrams(text: str, n: int) -> set[str]:
    return {text[start : start + n] for start in range(len(text) - n + 1)}


def by_words(query: str, documents: Sequence[int]) -> Scores:
    """Return BM25-like scores: for each shared bigram its rarity; documents without one are not found."""
    found = {}
    for number in documents:
        shared = ngrams(query, 2) & ngrams(TEXTS[number].text, 2)
        rarity = [math.log(len(TEXTS) / sum(one in text.text for text in TEXTS) + 1) for one in shared]
        if shared:
            found[number] = sum(rarity) * 8 / math.sqrt(len(TEXTS[number].text) + 20)
    return found


def by_vectors(query: str, documents: Sequence[int]) -> Scores:
    """Return cosine-like scores: of shared characters, and of the topic."""
    topic = next((topic for word, topic in TOPICS.items() if word in query), "")
    found = {}
    for number in documents:
        text = TEXTS[number]
        shared = len(set(query) & set(text.text)) / math.sqrt(len(set(query)) * len(set(text.text)))
        about = 0.35 if text.topic == topic else 0.1 if text.topic[:2] == topic[:2] else 0.0
        score = 0.25 + 0.4 * shared + about + zlib.crc32(text.text.encode()) % 100 / 2000
        if shared or about:
            found[number] = min(score, 0.99)
    return found


def ranked(scores: Mapping[int, float]) -> dict[int, int]:
    """Return the rank of each document, best first, equal scores by number."""
    order = sorted(scores, key=lambda number: (-scores[number], number))
    return {number: rank for rank, number in enumerate(order, 1)}


def highlights_of(query: str, text: str) -> list[dict[str, int]]:
    """Return the longest parts of a text that the query has, too; the level is their length, three at the most."""
    found, place = [], 0
    while place < len(text):
        longest = next((n for n in range(min(12, len(text) - place), 0, -1) if text[place : place + n] in query), 0)
        if longest > 1 or (longest == 1 and text[place] in "价机"):
            found.append({"start": place, "end": place + longest, "level": min(longest, 3)})
        place += max(longest, 1)
    return found[:40]


FILTERS: dict[str, Callable[[Any, Any], bool]] = {
    "gte": lambda value, end: value >= end,
    "lte": lambda value, end: value <= end,
    "lt": lambda value, end: value < end,
    "in": lambda value, choices: value in choices,
}


def passes(text: Text, condition: Mapping[str, Any]) -> bool:
    for field, wanted in condition.items():
        value = getattr(text, field)
        if isinstance(wanted, dict):
            if not all(FILTERS[sign](value, end) for sign, end in wanted.items()):
                return False
        elif value not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def facets_of(query: str, asked: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Count values among what words find, each field without its own filter; years by fives."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in asked.get("facets") or ():
        where = {field: wanted for field, wanted in (asked.get("where") or {}).items() if field != name}
        among = [number for number, text in enumerate(TEXTS) if passes(text, where)]
        numbers = by_words(query, among) if query.strip() else among
        values = [getattr(TEXTS[number], name) for number in numbers]
        if name == "year":
            ranges = [{"gte": begin, "lt": begin + 5} for begin in (2015, 2020)]
            counted = [(one, sum(one["gte"] <= value < one["lt"] for value in values)) for one in ranges]
        else:
            counted = sorted(((value, values.count(value)) for value in set(values)), key=lambda one: (-one[1], one[0]))
        found[name] = [{"value": value, "count": count} for value, count in counted if count]
    return found


def snippet_of(hit: dict[str, Any], size: Optional[int]) -> dict[str, Any]:
    """Return a hit as a server sends it if `snippet` is asked for: with a passage in place of the text."""
    text, passage = hit.get("text"), hit.get("passage")
    if size is None or not isinstance(text, str):
        return hit
    start = passage.get("start", 0) if isinstance(passage, dict) else 0
    start = max(0, min(start if type(start) is int else 0, len(text) - size))
    snippet: dict[str, Any] = {"text": text[start : start + size], "start": start, "end": min(len(text), start + size)}
    marks = hit.get("highlights")
    if isinstance(marks, list) and all(isinstance(one, dict) and type(one.get("start")) is int for one in marks):
        marks = [
            {**one, "start": one["start"] - start, "end": one["end"] - start}
            for one in marks
            if type(one.get("end")) is int and start <= one["start"] and one["end"] <= start + size
        ]
    others = {name: value for name, value in hit.items() if name not in ("text", "passage", "highlights")}
    return {**others, "snippet": {**snippet, "of": len(text), "highlights": marks}}


def suggestions_of(typed: str) -> list[dict[str, str]]:
    """Return texts, and the examples as queries, that begin with what was typed."""
    known = [*((one, "query") for one in INDEX["examples"]), *((text.text, "title") for text in TEXTS)]
    return [{"text": text, "from": source} for text, source in known if text.startswith(typed)][:8]


class Stages(NamedTuple):
    """Scores by document of each stage that was asked."""

    words: Optional[Scores]
    vectors: Optional[Scores]
    fused: Scores
    logits: Optional[Scores]


def stages_of(query: str, asked: Mapping[str, Any]) -> Stages:
    documents = [number for number, text in enumerate(TEXTS) if passes(text, asked.get("where") or {})]
    by = asked.get("by") or ["words", "vectors"]
    words = by_words(query, documents) if "words" in by else None
    vectors = by_vectors(query, documents) if "vectors" in by else None
    fused: Scores = {}
    for scores in (words, vectors):
        for number, rank in ranked(scores or {}).items():
            share = 1 / (60 + rank) if asked.get("fusion") != "weighted" else (scores or {})[number] / 20
            fused[number] = fused.get(number, 0.0) + share
    if not asked.get("rank_top"):
        return Stages(words, vectors, fused, None)
    topic = next((topic for word, topic in TOPICS.items() if word in query), "")
    logits = {}
    for number in fused:
        shared = len(ngrams(query, 2) & ngrams(TEXTS[number].text, 2)) / max(1, len(ngrams(query, 2)))
        noise = zlib.crc32(TEXTS[number].text.encode()) % 1000 / 800
        logits[number] = -2.6 + 3.2 * shared + (2.4 if TEXTS[number].topic == topic else 0.0) + noise
    return Stages(words, vectors, fused, logits)


def signals_of(query: str, number: int, stages: Stages, ranks: Mapping[str, Mapping[int, int]]) -> dict[str, Any]:
    """Return what `explain` adds: each signal's value, and what it added to the fused score or to the logit."""
    signals: dict[str, Any] = {}
    for name in ("words", "vectors"):
        scores = getattr(stages, name)
        if scores and number in scores:
            added = round(1 / (60 + ranks[name][number]), 4)
            signals[name] = {"value": round(scores[number], 3), "added": added, "to": "fused"}
    if "words" in signals:
        parts = highlights_of(query, TEXTS[number].text)
        terms: dict[str, Any] = {}
        for part in parts:
            term = TEXTS[number].text[part["start"] : part["end"]]
            own = terms.setdefault(
                term, {"term": term, "added": round(1.4 * len(term), 1), "level": part["level"], "at": []}
            )
            own["at"].append([part["start"], part["end"]])
        signals["words"]["terms"] = list(terms.values())[:6]
    if stages.logits is not None:
        level = max((one["level"] for one in highlights_of(query, TEXTS[number].text)), default=0)
        match = round(0.31 * level - 0.2, 2)
        signals["ranker"] = {
            "value": round(stages.logits[number] - match, 2),
            "added": round(stages.logits[number] - match, 2),
            "to": "ranked",
        }
        signals["match"] = {"value": level, "added": match, "to": "ranked"}
    return signals


def _hit(
    query: str,
    number: int,
    asked: Mapping[str, Any],
    stages: Stages,
    ranks: Mapping[str, Mapping[int, int]],
    rank: int,
) -> dict[str, Any]:
    text = TEXTS[number]
    shown: dict[str, Any] = {
        name: {"rank": ranks[name][number], "score": round(getattr(stages, name)[number], 4)}
        for name in ("words", "vectors", "fused")
        if number in ranks.get(name, {})
    }
    hit: dict[str, Any] = {
        "id": f"doc-{number}",
        "rank": rank,
        "text": text.text,
        "fields": {"kind": text.kind, "year": text.year, "url": f"https://example.org/{number}"},
        "passage": {"start": 0, "end": min(64, len(text.text))},
        "highlights": highlights_of(query, text.text),
        "stages": shown,
    }
    if stages.logits is not None:
        hit["logit"] = round(stages.logits[number], 3)
        hit["probability"] = round(1 / (1 + math.exp(-stages.logits[number])), 3)
        shown["ranked"] = {"rank": rank}
    if text.text is LONG:
        hit["passage"] = {"start": LONG.index("谈到"), "end": LONG.index("谈到") + 64}
        hit["highlights"] = [one for one in hit["highlights"] if one["start"] >= hit["passage"]["start"]]
    if asked.get("explain"):
        hit["signals"] = signals_of(query, number, stages, ranks)
    return hit


def _listed(asked: Mapping[str, Any], search_id: str) -> dict[str, Any]:
    numbers = [number for number, text in enumerate(TEXTS) if passes(text, asked.get("where") or {})]
    for key in reversed(asked.get("sort") or ()):
        numbers.sort(key=lambda number: getattr(TEXTS[number], key.lstrip("-")), reverse=key.startswith("-"))
    start = asked.get("offset", 0)
    hits = [
        {
            "id": f"doc-{number}",
            "rank": rank,
            "text": TEXTS[number].text,
            "fields": {"kind": TEXTS[number].kind, "year": TEXTS[number].year},
            "highlights": [],
            "stages": {"sorted": {"rank": rank}},
        }
        for rank, number in enumerate(numbers[start : start + asked.get("top_k", 10)], start + 1)
    ]
    return {
        "query": asked["query"],
        "index": {"name": INDEX["name"], "version": 7, "documents": DOCUMENTS},
        "hits": hits,
        "ranked": False,
        "sort": asked.get("sort") or [],
        "took_ms": {"sort": 1.2, "total": 2.0},
        "total": len(numbers),
        "facets": facets_of("", asked),
        "search_id": search_id,
    }


def answer(asked: Mapping[str, Any], search_id: str) -> dict[str, Any]:
    """Answer a search; without a query, list documents by number."""
    query = str(asked["query"])[:CUT]
    if not query.strip():
        return _listed(asked, search_id)
    stages = stages_of(query, asked)
    ranks = {name: ranked(scores) for name, scores in stages._asdict().items() if scores is not None}
    final = ranks.get("logits") or ranks["fused"]
    top_k = asked.get("top_k", 10)
    shown = [number for number in sorted(final, key=final.__getitem__) if final[number] <= top_k]
    out = [number for number in sorted(final, key=ranks["fused"].__getitem__)
           if ranks["fused"][number] <= top_k < final[number]]  # fmt: skip
    hits = [_hit(query, number, asked, stages, ranks, final[number]) for number in shown]
    took = {"words": 2.1, "encode": 3.0, "vectors": 0.9, "fuse": 0.1, "rank": 21.4, "total": 28.0}
    content: dict[str, Any] = {
        "query": asked["query"],
        "model": "nano",
        "index": {"name": INDEX["name"], "version": 7, "documents": DOCUMENTS},
        "hits": hits,
        "cut": len(hits),
        "exact": False,
        "took_ms": took
        if stages.logits is not None
        else {**{k: v for k, v in took.items() if k != "rank"}, "total": 6.1},
        "search_id": search_id,
    }
    if asked.get("sort"):
        content["sort"] = asked["sort"]
    if asked.get("total"):
        content["total"] = None if stages.words is None else len(stages.words)
    if asked.get("facets"):
        content["facets"] = facets_of(query, asked)
    if stages.logits is None:
        content["ranked"] = False
    else:
        content["calibrated"] = True
        if asked.get("explain"):
            content["dropped"] = [_hit(query, number, asked, stages, ranks, final[number]) for number in out]
    if len(str(asked["query"])) > CUT:
        content["query_read"] = CUT
    return content
