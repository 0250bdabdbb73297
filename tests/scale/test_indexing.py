"""Indexes in shards that processes of a cluster build: equal to those of one process, whatever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from paddle_ranker.commands.index import BuildOptions, main
from paddle_ranker.errors import DataError
from paddle_ranker.model.load_options import ON_CPU
from paddle_ranker.options import note, options_from
from paddle_ranker.progress import Progress
from paddle_ranker.retrieval.index.shard_builds import ShardWork
from paddle_ranker.scale.offline import build_shards
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
        said.append(capsys.readouterr().err.splitlines()[-1].partition("document ")[2])
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
    options = options_from(BuildOptions, corpus="a", index=str(tmp_path), shards=2, ray="local")
    with Progress[None](disable=True) as progress:
        build_shards(Noting(tmp_path, tmp_path, ON_CPU, 1, False), 2, options, 1, progress)
        assert sorted(capfd.readouterr().err.splitlines()) == ["noted by 0", "noted by 1", "noted by each"]
        with pytest.raises(DataError, match="refused"):
            build_shards(Noting(tmp_path, tmp_path, ON_CPU, 1, True), 1, options, 1, progress)


def test_a_cluster_builds_shards_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--corpus", "x", "--output", str(tmp_path / "index"), "--ray", "local"]) == 2
    assert "add --shards" in capsys.readouterr().err


@pytest.mark.slow
def test_a_build_goes_on_after_its_command_was_killed(folder: Path) -> None:
    command = [sys.executable, "-m", "paddle_ranker", "index", *line(folder, "killed"), "--ray", "local"]
    for seconds in (4, 8, 9, 10, 11):
        with subprocess.Popen(command, start_new_session=True) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.kill()
    assert main([*line(folder, "killed"), "--ray", "local"]) == 0
    assert told(folder / "killed") == told(folder / "one")
