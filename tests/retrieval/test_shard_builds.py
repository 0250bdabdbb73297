"""Folders of shards against one folder with the same documents, by equality: built, searched, written to, killed."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.commands.index import main
from paddle_ranker.commands.search import main as search
from paddle_ranker.data.rows.records import DocumentRow
from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.retrieval.index import ingestion, shard_builds
from paddle_ranker.retrieval.index import shards as shards_module
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.collection_writer import CollectionWriter
from paddle_ranker.retrieval.index.ingestion import Addition
from paddle_ranker.retrieval.index.shard_builds import BUILD_STATE
from paddle_ranker.retrieval.index.shards import SHARDS, open_index, shard_folders, shard_name, write_shards
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, write_manifest
from tests.conftest import Call
from tests.retrieval.test_shards import DOCUMENTS, INFO, SHARES, vectors_of
from tests.serving_cases import OpenedSite, close_slots
from tests.tiny import write_index, write_tower

pytestmark = pytest.mark.unit


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, call: Call) -> None:
    (tmp_path / "corpus.tsv").write_text("id\ttext\na\tone\na\tother\n", encoding="utf-8")
    (tmp_path / "there").mkdir()
    for output in ("new", "there"):
        given = ("build", "--corpus", tmp_path / "corpus.tsv", "--output", tmp_path / output, "--shards", 2)
        status, _, errors = call(main, *given)
        assert status == 1 and "there are two of this id" in errors
    assert not (tmp_path / "new").exists() and not [*(tmp_path / "there").iterdir()]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Write the same documents into one folder and into a folder of three shards."""
    one, several = tmp_path / "one", tmp_path / "several"
    names = [shard_name(number) for number in range(3)]
    for folder, share in zip((one, *(several / name for name in names)), (slice(0, 60), *SHARES)):
        with Collection.create(folder, INFO) as collection:
            collection.writer.add(DOCUMENTS[share], vectors_of)
    write_shards(several, names)
    return one, several


def scored(folder: Path) -> list[object]:
    """Return the score of every document by searcher and query, and the documents: a write changes their order."""
    with open_index(folder) as index:
        asked: dict[str, Any] = {"words": ["水稻病害", "护理", "新的", "题3"]}
        asked["vectors"] = vectors_of(asked["words"])
        found = [dict(zip(*hits[:2])) for by in asked for hits in index.snapshot().search(by, asked[by], 200)]
        return [
            *found,
            {one.id: (one.text, one.fields, one.version) for one in index.snapshot().documents()},
            len(index),
        ]


def test_shards_are_written_to_as_one_folder_is(folders: tuple[Path, Path]) -> None:
    one, several = folders
    wanted = [{one.id for one in Collection.open(folder).snapshot().documents()} for folder in shard_folders(several)]
    wanted[0] |= {"new", "1", "2", "3"}  # to the smallest
    told = []
    for folder in folders:
        with open_index(folder, write=True) as writing:
            changed = [Document(id, "新的文本。老年人", {"kind": "a"}) for id in ("d00", "d35", "d59", "new")]
            added = [writing.writer.add([*changed, DOCUMENTS[6]], vectors_of)]
            rows = [
                DocumentRow("无号文本"),
                DocumentRow("无号文本"),
                DocumentRow(DOCUMENTS[9].text, None, DOCUMENTS[9].fields),
                DocumentRow("另一文本", "2"),
                DocumentRow("第三"),
            ]
            added.append(writing.writer.add_rows(rows, vectors_of))
            if folder == several:
                assert [
                    {one.id for one in Collection.open(part).snapshot().documents()} for part in writing.folders
                ] == wanted
            removed = writing.writer.remove(["d10", "d40", "d48", "none"])
            added.append(
                writing.writer.add_rows(
                    [DocumentRow(one.text, one.id, one.fields) for one in DOCUMENTS[:30]], vectors_of, sync=True
                )
            )
            with pytest.raises(DataError, match="two of this id"):
                writing.writer.add([Document("x", "甲"), Document("x", "乙")], vectors_of)
        told.append((added, removed))
    assert told[0] == told[1]
    assert scored(several) == scored(one)


def test_a_killed_write_of_several_shards_is_whole_or_not_at_all(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, written = folders[1], list[Path]()
    ids = [next(Collection.open(one).snapshot().documents()).id for one in shard_folders(folder)]

    def killed(where: Path, info: IndexInfo) -> None:
        if len(written) == steps:
            raise KeyboardInterrupt
        written.append(where)
        write_manifest(where, info)

    def texts() -> set[str]:
        with open_index(folder) as index:
            return {one.text for one in index.snapshot().documents_of(ids).values()}

    for steps in range(7):  # three manifests that are pending, then the three of the shards
        written.clear()
        before, change = texts(), [Document(id, f"第{steps}次") for id in ids]
        with monkeypatch.context() as patch, open_index(folder, write=True) as writing:
            patch.setattr(shards_module, "write_manifest", killed)
            if steps < 6:
                with pytest.raises(KeyboardInterrupt):
                    writing.writer.add(change, vectors_of)
            else:
                writing.writer.add(change, vectors_of)
        after = texts()
        assert after == (before if steps < 3 else {f"第{steps}次"})
        open_index(folder, write=True).close()
        assert texts() == after and [len(Collection.open(one)) for one in shard_folders(folder)] == [7, 33, 20]
        assert {path.name for path in folder.iterdir()} == {SHARDS, *map(shard_name, range(3))}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "damaged"),
        ('{"format": 9, "shards": []}', "shards of format 9.*build it anew"),
        ('{"format": 1, "shards": ["shard-0000", "../one"]}', "damaged"),
        ('{"format": 1, "shards": ["shard-0000", "shard-0000"]}', "damaged"),
        ('{"format": 1, "shards": ["shard-0000", "shard-0009"]}', "shard-0009: is no index"),
    ],
)
def test_what_is_no_folder_of_shards_is_refused(folders: tuple[Path, Path], content: str, match: str) -> None:
    (folders[1] / SHARDS).write_text(content)
    with pytest.raises(CheckpointError, match=match):
        open_index(folders[1])


def write_corpus(path: Path, kind: str) -> Path:
    """Write a corpus of 60 documents: with ids and fields, of texts alone of which some repeat, or of both."""
    rows: list[dict[str, object]] = []
    for number, one in enumerate(DOCUMENTS):
        text = one.text + f" text number {number % 13}" * (number % 3)
        row: dict[str, object] = {"text": text} if kind == "texts" else {"id": one.id, "text": text, **one.fields}
        if kind == "mixed":
            row["id"] = str(number % 9 + 100 * (number // 9)) if number % 2 else None
        rows.append({name: value for name, value in row.items() if value is not None})
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def told(folder: Path) -> list[object]:
    """Return the documents and what searches find, in their order; vectors differ a little by the batches of texts."""
    queries = ["水稻病害", "护理 text", "number 题3"]
    with SearchEngine.open(folder, SearchSettings(("words",), depth=20)) as engine:
        index = engine.collection
        facets = ["kind"] if "kind" in index.fields else []
        found: list[object] = [(one.results(), one.total(), one.facets(facets)) for one in engine.run(queries, 20)]
        if "vectors" in index.info.searchers:
            hits = index.snapshot().search("vectors", index.snapshot().tower("vectors").query_vectors(queries), 200)
            found += [{id: pytest.approx(score, abs=1e-5) for id, score in zip(*one[:2])} for one in hits]
            found.append(sum(len(part.segment.vectors["vectors"]) for part in index.snapshot().parts))
        return [*found, list(index.snapshot().documents()), index.info.next_id]


def run(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    assert main([*map(str, arguments)]) == status, capsys.readouterr().err
    shown = capsys.readouterr()
    return shown.err if status else shown.out


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tower(tmp_path_factory.mktemp("tower") / "tower")


@pytest.mark.parametrize("kind", ["ids", "texts", "mixed"])
@pytest.mark.parametrize("has_tower", [False, True])
def test_a_build_of_shards_equals_one_folder(
    kind: str,
    has_tower: bool,
    tower: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kind != "mixed":  # a number that a row gets must not be the id of a row that is read later
        monkeypatch.setattr(ingestion, "AT_ONCE", 7)
    monkeypatch.setattr(shard_builds, "_IN_MEMORY", 16)  # what tells repeated ids and texts is on the disk
    monkeypatch.setattr(shard_builds, "_BLOCK", 4)
    corpus, one, several = write_corpus(tmp_path / "corpus.jsonl", kind), tmp_path / "one", tmp_path / "several"
    options = ["--tower", tower, "--passage_tokens", 12] if has_tower else []
    more = tmp_path / "more.jsonl"
    lines = corpus.read_text(encoding="utf-8").splitlines()
    more.write_text("\n".join([*lines[5:9], '{"text": "新的文本"}', '{"text": "新的文本"}']), encoding="utf-8")
    said, answers = [], list[list[object]]()
    for folder, shards in ((one, []), (several, ["--shards", 4])):
        out = [run(capsys, "build", "--corpus", corpus, "--output", folder, *options, *shards).splitlines()[:-1]]
        answers.append(told(folder))
        if folder == several:
            assert len({len(Collection.open(one)) for one in shard_folders(several)}) <= 2
        for more_options in (["--corpus", more], ["--corpus", more, "--sync"]):
            out.append(run(capsys, "build", "--output", folder, *options, *more_options, *shards).splitlines()[:-1])
        said.append(out)
        answers.append([*sorted(map(str, open_index(folder).snapshot().documents()))])
    assert said[0] == said[1] and answers[:2] == answers[2:]


def test_memory_does_not_grow_with_the_documents_that_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_builds, "_IN_MEMORY", 1 << 13)
    monkeypatch.setattr(shard_builds, "_BLOCK", 1 << 10)
    draw, peaks = np.random.default_rng(1), list[int]()
    for times in (10, 20, 40):
        chunks = draw.integers(1 << 64, size=(times, 1 << 12), dtype=np.uint64)
        tracemalloc.start()
        named = shard_builds._Hashes(tmp_path)
        for chunk in chunks:
            assert not named.among(chunk.tolist())
            named.add(chunk.tolist())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert all(named.among(chunk.tolist()) == chunk.tolist() for chunk in chunks)
        assert not named.among((chunks.reshape(-1) ^ np.uint64(1)).tolist())
    assert max(peaks) < 1.5 * peaks[0] and not [*tmp_path.iterdir()]


def stopping(work: Any, after: int) -> Any:
    calls = iter(range(9))

    def stop(*given: Any, **more: Any) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        return work(*given, **more)

    return stop


def test_a_build_goes_on_where_it_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, one, several = write_corpus(tmp_path / "corpus.jsonl", "texts"), tmp_path / "one", tmp_path / "several"
    run(capsys, "build", "--corpus", corpus, "--output", one)
    line = ["build", "--corpus", corpus, "--output", several, "--shards", 4]
    for stopped, begun in (("_named", 0), ("begin_shards", 0), ("add_rows", 2), ("write_shards", 4)):
        owner: Any = {"_named": Addition, "add_rows": CollectionWriter}.get(stopped, shard_builds)
        stop = stopping(getattr(owner, stopped), begun if stopped == "add_rows" else 0)
        with monkeypatch.context() as patch:
            patch.setattr(owner, stopped, stop)
            assert main([*map(str, line)]) == 130
        there = {path.parent.name: path.name for path in several.glob("shard-*/segment-*")}
        assert len(there) >= begun and not (several / SHARDS).exists()
        if stopped != "_named":
            assert "add --shards" in run(capsys, "build", "--corpus", corpus, "--output", several, status=1)
    assert "going on" in (main([*map(str, line)]), capsys.readouterr().err)[1]
    assert {path.parent.name: path.name for path in several.glob("shard-*/segment-*")} == there
    assert told(several) == told(one) and not (several / BUILD_STATE).exists()
    (tmp_path / "of_others" / "shard-0000").mkdir(parents=True)
    for more, match in (
        (["--output", several, "--shards", 3], "--shards 4, not 3"),
        (["--output", one, "--shards", 3], "--shards none, not 3"),
        (["--output", tmp_path / "of_others", "--shards", 3], "is there already"),
    ):
        assert match in run(capsys, "build", "--corpus", corpus, *more, status=1)


def test_another_corpus_begins_anew_and_ids_that_repeat_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, several = write_corpus(tmp_path / "corpus.jsonl", "ids"), tmp_path / "several"
    line = ["build", "--corpus", corpus, "--output", several, "--shards", 4]
    with monkeypatch.context() as patch:
        patch.setattr(shard_builds, "write_shards", lambda *_: 1 / 0)
        run(capsys, *line, status=1)
    lines = corpus.read_text(encoding="utf-8").splitlines()
    corpus.write_text("\n".join([*lines, lines[3]]), encoding="utf-8")
    assert "there are two of this id" in run(capsys, *line, status=1)
    corpus.write_text("\n".join(lines[:3]), encoding="utf-8")  # fewer than shards
    run(capsys, *line)
    assert [len(Collection.open(one)) for one in shard_folders(several)] == [1, 1, 1, 0]


def test_commands_take_a_folder_of_shards(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for folder in folders:
        shards = " of 3 shards" if folder == folders[1] else ""
        assert f"60 documents in {1 + 2 * bool(shards)} segments{shards}" in run(capsys, "info", folder)
        assert "whole; 60 documents" in run(capsys, "check", folder)
        assert "removed 2 of 60 documents" in run(capsys, "remove", folder, "d00", "d59")
        assert "has no documents d00" in run(capsys, "remove", folder, "d00", status=1)
    found = []
    for folder in folders:
        assert search(["--index", str(folder), "--by", "words", "水稻病害", "--format", "json"]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1] and '"id"' in found[0]


def test_an_index_is_cut_into_shards_without_computing_vectors(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in folders:
        with open_index(folder, write=True) as index:
            index.writer.remove(["d00", "d14", "d59"])
    for number, source in enumerate(folders):
        cut = tmp_path / f"cut{number}"
        assert "57 documents in 4 shards" in run(capsys, "shard", source, "--output", cut, "--shards", 4)
        assert [len(Collection.open(one)) for one in shard_folders(cut)] == [14, 14, 14, 15]
        assert "whole; 57 documents" in run(capsys, "check", cut)
        assert scored(cut) == scored(source)
        documents = [one.id for one in open_index(cut).snapshot().documents()]
        assert documents == [one.id for one in open_index(source).snapshot().documents()]
        assert "is there already" in run(capsys, "shard", source, "--output", cut, "--shards", 4, status=1)
    several = SearchEngine.open([tmp_path / "cut0"], SearchSettings(("words",)))
    assert len(several.collection.folders) == 4 and several.search("水稻")


def test_a_server_adds_to_shards_and_takes_up_what_others_add(tower: Path, tmp_path: Path) -> None:
    names, answers = [shard_name(number) for number in range(3)], []
    documents = [Document(f"d{n}", f"深度学习{n % 5}水稻", {"year": 2000 + n}) for n in range(30)]
    for folder, share in zip(
        [tmp_path / "one", *(tmp_path / "several" / one for one in names)],
        [slice(0, 30), *(slice(n, n + 10) for n in (0, 10, 20))],
    ):
        folder.parent.mkdir(exist_ok=True)
        write_index(folder, tower, documents[share])
    write_shards(tmp_path / "several", names)
    for folder in (tmp_path / "one", tmp_path / "several"):
        site, said = OpenedSite(index=folder, writable=True), list[Any]()
        try:
            given = [{"id": id, "text": f"老年人护理{id}"} for id in ("d1", "d15", "d29", "new")]
            said.append(site.ask("POST", "/v1/documents", {"documents": given, "mode": "replace"}).json())
            said.append(site.ask("DELETE", "/v1/documents", {"ids": ["d2", "d25"]}).json())
            with open_index(folder, write=True) as other:
                other.writer.add([Document("other", "老年人教育")])
            for query in ("老年人护理", "水稻"):
                asked = {"query": query, "top_k": 50, "total": True, "by": ["words"], "facets": ["year"]}
                answer = site.ask("POST", "/v1/search", asked).json()
                said += [
                    answer["total"],
                    answer["facets"],
                    {one["id"]: one["stages"]["words"]["score"] for one in answer["hits"]},
                ]
            said.append(site.ask("GET", "/v1/documents/d15").json())
            said.append(site.ask("GET", "/v1/index").json()["documents"])
        finally:
            close_slots(site.slots)
        answers.append(said)
    for said in answers:
        for one in said:
            if isinstance(one, dict):
                one.pop("index", None)
    assert answers[0] == answers[1] and answers[0][-1] == 30
