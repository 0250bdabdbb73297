"""A plugin adds a kind of content, sounds: its documents are built, searched, answered and served."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib
import io
import json
import os
import shutil
import signal
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.commands.index import main as index
from paddle_ranker.commands.search import main as search
from paddle_ranker.errors import CheckpointError, DataError, UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.collection_writer import CollectionWriter
from paddle_ranker.retrieval.index.content_staging import StagedFiles, staged_files
from paddle_ranker.retrieval.index.index_folder import IndexFolder
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES
from paddle_ranker.serving.core.byte_budget import ByteBudget
from paddle_ranker.serving.process.worker import make_app
from tests.extensions.own_content import SoundTower
from tests.serving.test_search import Site

pytestmark = [pytest.mark.parity, pytest.mark.server]
_RATE = 8000
TONES = {"deep": 100.0, "middle": 600.0, "high": 2500.0}


def tone(frequency: float) -> bytes:
    """Return a WAV file of a tenth of a second of a tone."""
    written = io.BytesIO()
    with wave.open(written, "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(_RATE)
        samples = 20000 * np.sin(2 * np.pi * frequency * np.arange(_RATE // 10) / _RATE)
        stream.writeframes(samples.astype(np.int16).tobytes())
    return written.getvalue()


def name_of(sound: bytes) -> str:
    return f"{hashlib.sha256(sound).hexdigest()}.wav"


@pytest.fixture(scope="module", autouse=True)
def sound() -> Iterator[None]:
    importlib.import_module("tests.extensions.own_content")  # as PADDLE_RANKER_PLUGINS does
    yield
    FIELD_TYPES.remove("sound")


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    (tmp_path / "tower").mkdir()
    bands = {"deep": [0, 300], "middle": [300, 1500], "high": [1500, 4000]}
    (tmp_path / "tower" / "bands.json").write_text(json.dumps(bands), encoding="utf-8")
    rows: list[dict[str, Any]] = [{"id": "silent", "text": "no recording"}]
    for name, frequency in TONES.items():
        (tmp_path / f"{name}.wav").write_bytes(tone(frequency))
        rows.append({"id": name, "text": f"recording of {frequency:.0f} Hz", "sound": f"{name}.wav"})
    rows.append({"id": "both", "text": "two recordings", "sound": ["deep.wav", "high.wav"]})
    (tmp_path / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    build = ["build", "--corpus", str(tmp_path / "corpus.jsonl"), "--output", str(tmp_path / "index")]
    build += ["--field", "sound:sound:list", "--field_tower", f"sound={tmp_path / 'tower'}"]
    assert index(build) == 0, capsys.readouterr().err
    assert "searched by words, sound" in capsys.readouterr().out
    assert index(build) == 0 and "0 new, 0 replaced, 5 as they were" in capsys.readouterr().out
    return tmp_path / "index"


def test_a_kind_of_content_is_built_searched_and_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {path.name for path in (folder / "contents").iterdir()}
    assert files == {name_of(tone(frequency)) for frequency in TONES.values()}
    with SearchEngine.open(folder, SearchSettings(("sound",)), write=True) as engine:
        found = engine.search("a deep one", 4)
        assert [one.id for one in found[:2]] == ["both", "deep"] and "silent" not in [one.id for one in found]
        assert found[0].score == pytest.approx(1.0, abs=1e-3) and found[0].fields["sound"][0] in files  # type: ignore[index]
        both = SearchEngine(engine.collection, SearchSettings())
        assert both.search("recording high", 1)[0].searchers.keys() == {"words", "sound"}
        engine.add(
            [
                Document("new", "a text", {"sound": tone(120.0)}),
                Document("path", "b", {"sound": folder.parent / "deep.wav"}),
            ]
        )
        assert {one.id for one in engine.search("deep", 4)} == {"both", "deep", "new", "path"}
        for wrong in ("deep.wav", "../tower/bands.json", "0" * 64 + ".wav", b"no sound", 5, folder / "index.json"):
            with pytest.raises(DataError, match="expected a sound"):
                engine.add([Document("wrong", "a text", {"sound": wrong})])
        engine.remove(["new"])
        engine.collection.writer.merge(None)
    assert {path.name for path in (folder / "contents").iterdir()} == files
    assert index(["info", str(folder)]) == 0 and "sound: exact; 3 components" in capsys.readouterr().out
    assert index(["check", str(folder)]) == 0
    (folder / "contents" / name_of(tone(600.0))).write_bytes(b"another")
    with pytest.raises(CheckpointError, match="not as it was written"):
        Collection.open(folder).snapshot().verify()


def test_a_killed_build_keeps_the_vectors_of_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding is slow: all is one chunk, and not half of it is done."""
    monkeypatch.setattr("paddle_ranker.retrieval.index.ingestion._FIRST_PIECE", 10)
    clock, encoded, vectors = 0.0, 0, SoundTower.vectors
    monkeypatch.setattr("paddle_ranker.retrieval.index.ingestion.time.monotonic", lambda: clock)

    def slowly(tower: SoundTower, sounds: Sequence[bytes]) -> Vectors:
        nonlocal clock, encoded
        clock, encoded = clock + len(sounds), encoded + len(sounds)  # a sound a second
        if encoded == 60:
            raise KeyboardInterrupt
        return vectors(tower, sounds)

    monkeypatch.setattr(SoundTower, "vectors", slowly)
    documents = [Document(f"d{n}", f"text {n}", {"sound": tone(300.0 + 20 * n)}) for n in range(100)]
    with Collection.open(folder, write=True) as collection, pytest.raises(KeyboardInterrupt):
        collection.writer.add(documents)
    with Collection.open(folder, write=True) as collection:
        assert collection.writer.add(documents).new == 100 and encoded <= 60 + 100 - 40
        for n in (3, 45, 99):
            (hits,) = collection.snapshot().search("sound", vectors(tower_of(folder), [tone(300.0 + 20 * n)]), 100)
            scores = dict(zip(hits.ids, hits.scores))
            assert scores[f"d{n}"] == pytest.approx(1.0, abs=1e-6) == max(scores.values())
        assert not (folder / "unfinished.json").exists()


def tower_of(folder: Path) -> SoundTower:
    return SoundTower.open(folder.parent / "tower", LoadOptions(), 1)


def test_one_bad_file_loses_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "outside.wav").write_bytes(tone(500.0))
    (tmp_path / "corpus" / "good.wav").write_bytes(tone(700.0))
    (tmp_path / "corpus" / "cut.wav").write_bytes(tone(700.0)[:20])
    (tmp_path / "corpus" / "link.wav").symlink_to(tmp_path / "outside.wav")
    values = ["good.wav", "cut.wav", "../outside.wav", str(tmp_path / "outside.wav"), "link.wav", "none.wav", 5, "."]
    rows = [{"id": f"d{n}", "text": f"text {n}", "sound": value} for n, value in enumerate(values)]
    corpus = tmp_path / "corpus" / "rows.jsonl"
    corpus.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    for number in range(1, len(rows)):
        alone = tmp_path / "corpus" / "alone.jsonl"
        alone.write_text(f"{json.dumps(rows[0])}\n{json.dumps(rows[number])}\n", encoding="utf-8")
        assert index(["add", str(folder), "--corpus", str(alone)]) == 1
        said = capsys.readouterr().err
        assert f"line 2: document 'd{number}': sound is" in said and "--skip_bad_rows" in said, said
    assert index(["add", str(folder), "--corpus", str(corpus), "--skip_bad_rows"]) == 0
    said = capsys.readouterr().out
    assert "kept 1; skipped 7 (line 2: document 'd1': sound" in said and "1 new" in said, said
    assert held(folder) == {name_of(tone(frequency)) for frequency in (*TONES.values(), 700.0)}


def test_documents_are_found_by_an_example(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = folder.parent / "example.wav"
    example.write_bytes(tone(2800.0))
    site = Site(index=folder)
    url = "data:audio/wav;base64," + base64.b64encode(example.read_bytes()).decode()

    def by_command(like: Path, *more: str) -> list[str]:
        assert search(["--index", str(folder), "--format", "json", "--like", str(like), *more]) == 0
        return [one["id"] for one in json.loads(capsys.readouterr().out)["results"]]

    def by_server(**asked: Any) -> list[str]:
        hits = site.search(**{"query": "", **asked})["hits"]
        return [hit["id"] for hit in hits]

    try:
        with SearchEngine.open(folder, SearchSettings()) as engine:
            # A file is like those with the same energy in the same bands, whatever the words are.
            found = engine.search("", 3, like=example)
            assert [one.id for one in found] == ["both", "high", "middle"] and {*found[0].searchers} == {"sound"}
            assert found[1].score == pytest.approx(1.0, abs=1e-3)
            assert engine.search("", 3, like=example.read_bytes()) == found
            ids = [one.id for one in found]
            assert by_command(example, "--top_k", "3") == ids == by_server(like={"sound": url}, top_k=3)
            assert by_server(like={"sound": url}, top_k=3, explain=True, total=True) == ids
            first = site.search("", like={"sound": url}, top_k=2, cursor="")
            assert by_server(like={"sound": url}, top_k=2, cursor=first["cursor"]) == [*ids[2:], "deep"]
            # A document is not among those like it.
            ids = [one.id for one in engine.search("", 3, like="high")]
            assert ids == ["both", "middle", "deep"] == by_server(like={"id": "high"}, top_k=3)
            assert site.ask("GET", '/v1/search?like={"id":"high"}&top_k=3').json()["hits"][0]["id"] == "both"
            # Words and a filter stand beside it.
            found = engine.search("100 Hz", 5, like=example)
            ids = [one.id for one in found]
            assert {name for one in found for name in one.searchers} == {"words", "sound"}
            assert {"deep", "high"} <= {*ids[:3]} and by_command(example, "100 Hz", "--top_k", "5") == ids
            assert by_server(query="100 Hz", like={"sound": url}, top_k=5) == ids
            assert [one.id for one in engine.search("", like=example, where="sound!=null")][:2] == ["both", "high"]
            for like, problem in (
                ("nothing", "there is no document 'nothing'"),
                ("silent", "document 'silent' has no vector"),
                (folder / "index.json", "expected a sound"),
                (folder / "none", "cannot be read"),
                (b"", "expected a sound"),
            ):
                with pytest.raises(UsageError, match=problem):
                    engine.search("", like=like)
                if isinstance(like, Path):
                    assert search(["--index", str(folder), "--like", str(like)]) == 2
                    assert problem in capsys.readouterr().err
            with pytest.raises(UsageError, match="beside sort"):
                engine.search("", like="high", sort=["sound"])
        for wrong, problem in (
            ({}, "expected"),
            ({"id": "high", "sound": url}, "expected"),
            ({"picture": url}, "expected"),
            ({"sound": "deep.wav"}, "must be a data: URL"),
            ({"sound": url[:60]}, "expected a sound"),
            ({"id": "nothing"}, "there is no document"),
        ):
            refused = site.ask("POST", "/v1/search", {"like": wrong})
            assert refused.status_code == 422 and problem in refused.text, refused.text
            assert refused.json()["error"].startswith("like")
        listed = site.ask("POST", "/v1/search", {"top_k": 1}).json()  # neither a query nor an example: all documents
        assert len(listed["hits"]) == 1 and "sort" in listed
    finally:
        site.close()


def test_shards_find_the_files_of_each_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shrill.wav").write_bytes(tone(3500.0))
    (tmp_path / "more.jsonl").write_text('{"id": "shrill", "text": "more", "sound": "shrill.wav"}\n', encoding="utf-8")
    build = ["build", "--corpus", str(tmp_path / "more.jsonl"), "--output", str(tmp_path / "more")]
    build += ["--field", "sound:sound:list", "--field_tower", f"sound={tmp_path / 'tower'}"]
    assert index(build) == 0
    with SearchEngine.open([folder, tmp_path / "more"], SearchSettings(("sound",))) as shards:
        found = [one.fields["sound"] for one in shards.search("a high one", 5) if one.id in ("high", "shrill")]
        assert [one.id for one in shards.search("", 3, like="shrill")] == ["both", "high", "middle"]
        assert [shards.collection.snapshot().files.read(str(name)) for name in sorted(map(str, found))]
        assert len(found) == 2
    shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(UsageError, match="copies"):
        SearchEngine.open([folder, tmp_path / "copy"])


def test_a_folder_from_elsewhere_names_no_file_outside_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    files, name = Collection.open(folder).snapshot().files, name_of(tone(100.0))
    for outside in ("../index.json", str(tmp_path / "secret"), f"../contents/{name}", ""):
        with pytest.raises(CheckpointError, match="no content"):
            files.read(outside)
    (folder / "contents" / name).unlink()
    (folder / "contents" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="missing"):
        files.read(name)
    manifest = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    for key, value in (
        ("name", "../sound"),
        ("name", "vectors"),
        ("tower", None),
        ("tower", {"folder": "..", "digest": ""}),
    ):
        changed = {**manifest, "more_vectors": [{**manifest["more_vectors"][0], key: value}]}
        (folder / "index.json").write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(CheckpointError, match="damaged"):
            Collection.open(folder)


def test_a_server_answers_with_sounds_and_takes_them(folder: Path) -> None:
    site = Site(index=folder, writable=True)
    try:
        (hit, *_) = site.search("a high one", by=["sound"], top_k=1)["hits"]
        (content, *_) = hit["contents"]["sound"]
        assert hit["stages"]["sound"]["score"] == pytest.approx(1.0, abs=1e-3) and content["media_type"] == "audio/wav"
        answer = site.ask("GET", f"/v1/contents/{name_of(tone(2500.0))}")
        assert (answer.status_code, answer.content) == (200, tone(2500.0))
        assert answer.headers["content-type"] == "audio/wav" and answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        for wrong in ("0" * 64 + ".wav", name_of(tone(2500.0))[:-4] + ".html", "..%2Findex.json", "index.json"):
            assert site.ask("GET", f"/v1/contents/{wrong}").status_code == 404, wrong
        url = "data:audio/wav;base64," + base64.b64encode(tone(2000.0)).decode()
        posted = {"id": "posted", "text": "by a caller", "sound": url}
        for mode in ("add", "add", "replace"):
            done = site.ask("POST", "/v1/documents", {"documents": [posted], "mode": mode})
            assert done.status_code == 200, done.text
        assert site.ask("GET", "/v1/documents/posted").json()["fields"] == {"sound": name_of(tone(2000.0))}
        assert {hit["id"] for hit in site.search("high", by=["sound"], top_k=3)["hits"]} == {"both", "high", "posted"}
        for wrong in ("deep.wav", str(folder / "index.json"), "data:audio/wav;base64,AAAA", "data:audio/wav;base64,%"):
            refused = site.ask("POST", "/v1/documents", {"documents": [{**posted, "sound": wrong}]})
            assert refused.status_code == 422 and "expected a sound" in refused.text, refused.text
        assert site.ask("GET", "/v1/index").json()["searchers"] == ["words", "sound"]
    finally:
        site.close()


def held(folder: Path) -> set[str]:
    """Return the names of all files of documents below an index folder, staged ones too."""
    return {path.name for one in folder.glob("contents*") for path in one.iterdir()}


def test_a_file_is_there_as_long_as_a_document_has_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, names = held(folder), [name_of(tone(1000.0 + n)) for n in range(4)]
    urls = ["data:audio/wav;base64," + base64.b64encode(tone(1000.0 + n)).decode() for n in range(4)]
    site = Site(index=folder, writable=True)

    def post(*sounds: Any, mode: str = "replace", more: Any = ()) -> int:
        documents = [{"id": f"p{n}", "text": "a text", "sound": sound, **dict(more)} for n, sound in enumerate(sounds)]
        return site.ask("POST", "/v1/documents", {"documents": documents, "mode": mode}).status_code

    def status(name: str) -> int:
        return site.ask("GET", f"/v1/contents/{name}").status_code

    try:
        refused = (
            post(urls[0], "deep.wav"),
            post(urls[0], urls[1], more={f"field{n}": n for n in range(1001)}),
            site.ask(
                "POST", "/v1/documents", {"documents": [{"id": "a", "text": "b", "sound": urls[0]}] * 2}
            ).status_code,
            site.ask("PATCH", "/v1/documents", {"documents": [{"id": "none", "sound": urls[0]}]}).status_code,
            site.ask("PATCH", "/v1/documents", {"documents": [{"id": "deep", "sound": [urls[0], "x"]}]}).status_code,
        )
        assert refused == (422, 422, 422, 404, 422)
        with monkeypatch.context() as patch:

            def fail(*_: Any) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(IndexFolder, "write_info", fail)
            assert post(urls[0]) == 503
        assert held(folder) == before
        assert post(urls[0], urls[1]) == 200 and held(folder) == {*before, *names[:2]}
        assert post(urls[2], mode="add") == 409 and held(folder) == {*before, *names[:2]}
        # A file that several have stays until the last of them goes.
        assert post(urls[1], names[1]) == 200 and held(folder) == {*before, names[1]}
        assert (status(names[0]), status(names[1])) == (404, 200)
        assert post(names[0]) == 422
        assert site.ask("PATCH", "/v1/documents", {"documents": [{"id": "p0", "sound": None}]}).status_code == 200
        assert status(names[1]) == 200
        assert site.ask("DELETE", "/v1/documents", {"ids": ["p1"]}).status_code == 200
        assert status(names[1]) == 404 and held(folder) == before
        # What another program puts there, no document has.
        (folder / "contents" / names[3]).write_bytes(tone(1003.0))
        assert status(names[3]) == 404
    finally:
        site.close()


@pytest.mark.parametrize("point", ["publish", "_replace", "_commit", "write_info"])
def test_a_killed_addition_leaves_no_file(folder: Path, point: str) -> None:
    before, wave = held(folder), tone(1234.0)
    process = os.fork()
    if not process:
        try:
            owner: Any = {"publish": StagedFiles, "write_info": IndexFolder}.get(point, CollectionWriter)
            setattr(owner, point, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            with Collection.open(folder, write=True) as collection:
                collection.writer.add([Document("killed", "a text", {"sound": wave})])
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
    assert held(folder) > before
    reading = Collection.open(folder)
    assert len(reading) == 5
    with Collection.open(folder, write=True) as collection:
        assert held(folder) == before
        other = staged_files(collection.snapshot().files)  # of another addition, which goes on
        kept = other.keep(Document("a", "b", {"sound": wave}), collection.info.schema)
    with Collection.open(folder, write=True) as collection:
        assert name_of(wave) in held(folder)
        assert collection.writer.add([kept], files=other).new == 1
        other.close()
        assert held(folder) == {*before, name_of(wave)} and collection.snapshot().files.read(name_of(wave)) == wave


def test_what_is_no_plain_file_is_not_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(tone(100.0))
    path = folder / "contents" / name_of(tone(100.0))
    makers: dict[str, Callable[[], object]] = {
        "a link out": lambda: path.symlink_to(tmp_path / "secret"),
        "a link to another": lambda: path.symlink_to(name_of(tone(600.0))),
        "a link to itself": lambda: path.symlink_to(path.name),
        "a link to a device": lambda: path.symlink_to("/dev/zero"),
        "a pipe": lambda: os.mkfifo(path),
        "a folder": path.mkdir,
        "nothing": lambda: None,
    }
    site = Site(index=folder, writable=True)
    try:
        for what, make in makers.items():
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            make()
            assert site.ask("GET", f"/v1/contents/{path.name}").status_code == 404, what
        (folder / "contents").rename(tmp_path / "moved")
        (folder / "contents").symlink_to(tmp_path / "moved")
        assert site.ask("GET", f"/v1/contents/{name_of(tone(600.0))}").status_code == 404
    finally:
        site.close()


def test_a_large_file_is_streamed_in_ranges_outside_the_budget(folder: Path) -> None:
    name, budget = name_of(tone(600.0)), ByteBudget(1 << 20)
    path = folder / "contents" / name
    size = path.write_bytes(tone(600.0) + bytes(3 << 20))
    whole, most = path.read_bytes(), 0
    site = Site(index=folder)
    site.app = make_app(site.slots, site.config, site.metrics, budget=budget)

    async def asked(**headers: str) -> tuple[int, dict[bytes, bytes], bytes]:
        nonlocal most
        sent: list[Any] = []

        async def send(message: Any) -> None:
            nonlocal most
            most = max(most, budget.held)
            sent.append(message)

        async def receive() -> Any:
            await asyncio.sleep(60)

        given = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
        scope = {"type": "http", "method": "GET", "path": f"/v1/contents/{name}", "headers": given, "query_string": b""}
        await site.app({**scope, "http_version": "1.1", "asgi": {"spec_version": "2.3"}}, receive, send)
        body = b"".join(one.get("body", b"") for one in sent[1:])
        return sent[0]["status"], dict(sent[0]["headers"]), body

    def ask(**headers: str) -> tuple[int, dict[bytes, bytes], bytes]:
        return site.loop.run_until_complete(asked(**headers))

    try:
        status, headers, body = ask()
        assert (status, body == whole) == (200, True) and headers[b"accept-ranges"] == b"bytes"
        for stated, begin, end in (
            ("0-0", 0, 1),
            ("5-9", 5, 10),
            (f"{size - 3}-", size - 3, size),
            ("-4", size - 4, size),
        ):
            status, headers, body = ask(range=f"bytes={stated}")
            assert (status, body) == (206, whole[begin:end])
            assert headers[b"content-range"] == f"bytes {begin}-{end - 1}/{size}".encode()
        assert ask(range="bytes=0-99", if_range='"another"')[0] == 200
        assert ask(range=f"bytes={size}-")[0] == 416
        status, _, body = ask(range="bytes=" + ",".join(f"{n}-{n}" for n in range(0, 2000, 2)))
        assert (status, len(body)) == (200, size)  # instead of a thousand parts
        assert most <= 64 * 1024
        path.unlink()
        assert ask()[0] == 404 and budget.held == 0
    finally:
        site.close()
