"""Indexes in shards that processes of a cluster build: equal to those of one process, whatever is killed meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from paddle_ranker import progress as progress_module
from paddle_ranker.commands.index import BuildOptions, main
from paddle_ranker.data.rows.documents import DocumentFile
from paddle_ranker.errors import DataError
from paddle_ranker.model.load_options import ON_CPU
from paddle_ranker.options import note, note_once, options_from
from paddle_ranker.options.input_files import SeveralFiles
from paddle_ranker.progress import Progress
from paddle_ranker.retrieval.index import ingestion
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shard_builds import ShardWork
from paddle_ranker.retrieval.index.shards import open_index, shard_folders
from paddle_ranker.retrieval.stored.schema import Schema
from paddle_ranker.scale.indexing import RayBuild, _column_facts, _write_file
from paddle_ranker.scale.parts import Place
from paddle_ranker.scoring.engines.engine_registry import AUTO
from paddle_ranker.scoring.versions import versions
from tests.conftest import THOROUGH
from tests.retrieval.test_shard_builds import told, write_corpus
from tests.tiny import write_tower

pytest.importorskip("ray")
pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A corpus, a tower and the index that one process builds, in a cluster of two cores that all tests use."""
    from paddle_ranker.scale.cluster import connected

    folder = tmp_path_factory.mktemp("indexing")
    write_tower(folder / "tower")
    write_corpus(folder / "corpus.jsonl", "mixed")
    assert main([*line(folder, "one")[:-2]]) == 0
    with connected("local", cores=2):
        yield folder


def line(folder: Path, name: str) -> list[str]:
    given = ["--corpus", folder / "corpus.jsonl", "--output", folder / name, "--tower", folder / "tower"]
    return ["build", *map(str, given), "--passage_tokens", "12", "--cpu_threads", "1", "--shards", "4"]


def builders() -> set[int]:
    """Return the processes that build a shard now."""
    found = set[int]()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"ray::_build"):
                found.add(int(path.parent.name))
    return found


def test_shards_are_built_whatever_is_killed(folder: Path) -> None:
    killed = set[int]()

    def kill() -> None:
        while len(killed) < 2:
            for process in builders() - killed:
                with suppress(OSError):
                    os.kill(process, signal.SIGKILL)
                    killed.add(process)
            time.sleep(0.02)

    killing = threading.Thread(target=kill, daemon=True)
    killing.start()
    assert main([*line(folder, "several"), "--ray", "local", "--actors", "2"]) == 0
    killing.join(1)
    assert len(killed) >= 2
    assert told(folder / "several") == told(folder / "one")


def test_an_error_of_a_shard_is_that_of_one_process(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = list[str]()
    for ray in ([], ["--ray", "local"]):
        assert main([*line(folder, "refused"), "--field", "kind:number", *ray]) == 1
        lines = capsys.readouterr().err.splitlines()  # Ray's own news may follow the error
        said.append(next(one for one in lines if "--skip_bad_rows" in one).partition("document ")[2])
    # Of several shards, any may be the first to find such a document.
    assert said[0].partition(":")[2] == said[1].partition(":")[2] and "kind is" in said[0]


def test_notes_of_the_processes_of_shards_are_printed(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Noting(ShardWork):  # pickled as a whole
        def build_counted(self, number: int) -> None:
            note("noted by each")
            note(f"noted by {number}")
            if self.skip_bad_rows:
                raise DataError("refused")

    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "cut.json").write_text("{}")
    cluster = RayBuild(None, 1)
    with Progress[None](disable=True) as progress:
        cluster.build(Noting(tmp_path, tmp_path, ON_CPU, 1, False), 2, progress)
        assert sorted(capfd.readouterr().err.splitlines()) == ["noted by 0", "noted by 1", "noted by each"]
        with pytest.raises(DataError, match="refused"):
            cluster.build(Noting(tmp_path, tmp_path, ON_CPU, 1, True), 1, progress)


TABLE = 'id,title,text,price\nt0,"a ""red"" box","first line\nsecond line, of a cell","1.234,50"\n'
FILES: dict[str, tuple[dict[str, str | bytes], list[str], int]] = {
    "tables, files and rows that cannot be read": (
        {
            "a.csv": TABLE + "".join(f't{n},title {n},"text\n{n}, more","{n}.000,5"\n' for n in range(1, 30)) + "bad\n",
            "b.tsv": b"id\ttext\n" + "".join(f"g{n}\t第{n}篇文本\n" for n in range(20)).encode("gb18030"),
            "c.csv": 'id,text\nx,"never closed\n',
            "d.csv.gz": b"\x1f\x8b no gzip",
            "e.jsonl": "".join(f'{{"id": "e{n}", "text": "e {n}", "sizes": [{n}]}}\n' for n in range(20)) + "{,\n[]\n",
        },
        ["--skip_bad_rows", "true"],
        0,
    ),
    "rows that are refused": (
        {"a.csv": f"{TABLE}t1,short\n", "b.csv": TABLE.replace("t0", "t2"), "c.jsonl": '{"id": "c", "text": ""}\n{'},
        [],
        1,
    ),
    "texts that repeat": (
        {f"{name}.txt": "".join(f"text {n * n % 53 + step}\n" for n in range(40)) for step, name in enumerate("abc")},
        [],
        0,
    ),
    "numbers between ids": (
        {
            "a.jsonl": "".join(f'{{"text": "text {n}"}}\n{{"id": "{n * 5}", "text": "own {n}"}}\n' for n in range(12)),
            "b.jsonl": "".join(f'{{"text": "text {n * 3}"}}\n{{"text": "own {n}"}}\n' for n in range(12)),
        },
        [],
        0,
    ),
    "an id that repeats": (
        {
            "a.csv": TABLE + "".join(f"a{n},title,text {n},{n}\n" for n in range(20)),
            "b.csv": TABLE.replace("t0", "u0") + "a7,title,another,1\n",
        },
        [],
        1,
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_each_file_is_read_by_a_task(
    case: str,
    folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files, more, status = FILES[case]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress_module, "BAR_AFTER", 600.0)
    monkeypatch.setattr(ingestion, "AT_ONCE", 7)  # ids are given to so many rows at once, also of two files
    seen = list[tuple[object, ...]]()
    for ray in ([], ["--ray", "local"]):
        given = ["build", "--corpus", *sorted(files), "--output", "index", "--shards", "3", "--report", "report.tsv"]
        note_once.cache_clear()
        assert main([*given, *more, *ray]) == status, capfd.readouterr().err
        built: object = None
        if not status:
            shards = [Collection.open(shard) for shard in shard_folders("index")]
            documents = [list(shard.snapshot().documents()) for shard in shards]
            assert all(documents)
            built = documents, open_index("index").info.next_id
            shutil.rmtree("index")
        out, err = capfd.readouterr()
        seen.append((out, err.splitlines(), Path("report.tsv").read_bytes(), built, [*tmp_path.glob("index/*")]))
    for plain, by_tasks in zip(*seen):
        assert plain == by_tasks


def test_a_process_notes_the_same_in_each_of_its_tasks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TABLE)
    rows = DocumentFile(tmp_path / "a.csv", options_from(BuildOptions, corpus=tmp_path / "a.csv", index="index"))
    first, second = (_column_facts(rows, {}, Place.here())["notes"] for _ in range(2))
    assert first == second and first.startswith(f"{tmp_path}/a.csv: a table, columns separated by commas")


def test_a_file_or_folder_that_a_machine_has_not_is_named(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(TABLE)
    corpus = SeveralFiles([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
    rows = DocumentFile(corpus, options_from(BuildOptions, corpus=corpus, index="index"))

    def said(target: Path) -> object:
        return _write_file(part, {}, Place.here(), facts, Schema(), target, 1, versions(AUTO)).get("error")

    part = rows.files()[1]
    facts = part.column_facts()
    assert said(tmp_path) is None and [path.name for path in tmp_path.glob("rows-*.jsonl")] == ["rows-000001.jsonl"]
    (tmp_path / "b.csv").write_text(TABLE + "t1,another,text,1\n")
    for target, what in ((tmp_path, tmp_path / "b.csv"), (tmp_path / "unshared" / "cut", tmp_path / "unshared")):
        assert f"{what}: " in str(said(target)) and socket.gethostname() in str(said(target))


def test_a_cluster_builds_shards_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--corpus", "x", "--output", str(tmp_path / "index"), "--ray", "local"]) == 2
    assert "add --shards" in capsys.readouterr().err


@pytest.mark.slow
def test_a_build_goes_on_after_its_command_was_killed(folder: Path) -> None:
    command = [sys.executable, "-m", "paddle_ranker", "index", *line(folder, "killed"), "--ray", "local"]
    for seconds in (4, 8, 9, 10, 11) if THOROUGH else (8, 10):
        with subprocess.Popen(command, start_new_session=True) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.kill()
    assert main([*line(folder, "killed"), "--ray", "local"]) == 0
    assert told(folder / "killed") == told(folder / "one")
