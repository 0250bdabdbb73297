"""Outputs that are no regular files: written to as they are, by every door that writes files."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable

import pytest

from paddle_ranker.data.rows.formats import write_rows
from paddle_ranker.data.rows.records import LabeledPair, write_records
from paddle_ranker.data.rows.trec import write_run
from paddle_ranker.errors import DataError, RankerError, one_line
from paddle_ranker.options import note
from paddle_ranker.storage.atomic import check_writable, new_file, new_folder
from paddle_ranker.storage.plotting import new_picture
from paddle_ranker.storage.streams import is_standard_output, is_stream
from tests.conftest import REPOSITORY, largest_file

pytestmark = pytest.mark.unit
ROWS = [("q", "t", "n"), ("q", "t2", "n")]


@contextmanager
def reading(fifo: Path) -> Iterator[list[bytes]]:
    """Read a FIFO to its end beside the block; the list holds what came when the block has ended."""
    os.mkfifo(fifo)
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    thread.start()
    yield read
    thread.join(60)
    assert not thread.is_alive(), "nobody wrote into the FIFO"


def picture(path: Path) -> None:
    with new_picture(path, 1, 1, 40) as figure:
        figure.add_subplot()


def text(path: Path) -> None:
    with new_file(path) as stream:
        stream.write("文\n")


DOORS: dict[str, Callable[[Path], object]] = {
    "a.txt": text,
    "a.tsv": lambda path: write_rows(str(path), ("a", "b", "c"), ROWS, header=True),
    "a.jsonl.gz": lambda path: write_rows(str(path), ("a", "b", "c"), ROWS, header=True),
    "a.parquet": lambda path: write_rows(str(path), ("a", "b", "c"), ROWS, header=True),
    "a.trec": lambda path: write_run(str(path), [("q", "d", 1.0)], "tag"),
    "a.pdf": picture,
    "a.png": picture,
    "a.svg": picture,
}


def shape(name: str, content: bytes) -> object:
    """Return what two files that say the same have in common: pictures hold the time at which they were made."""
    return (content[:4], len(content) // 1000) if name.endswith((".pdf", ".svg")) else content


@pytest.mark.parametrize("name", DOORS)
def test_every_door_writes_into_a_fifo_what_it_writes_into_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with reading(tmp_path / name) as read:
        DOORS[name](tmp_path / name)
    DOORS[name](tmp_path / "file" / name)
    assert read and shape(name, read[0]) == shape(name, (tmp_path / "file" / name).read_bytes())
    assert stat.S_ISFIFO(os.stat(tmp_path / name).st_mode)
    assert sorted(os.listdir(tmp_path)) == sorted(["file", name])  # nothing unfinished


def test_links_stay_links_to_files_and_to_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old", encoding="utf-8")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "new").symlink_to("not_yet")
    for name in ("link", "null", "new"):
        check_writable(tmp_path / name)
        text(tmp_path / name)
        assert (tmp_path / name).is_symlink()
    assert (tmp_path / "real").read_text(encoding="utf-8") == "文\n"
    assert (tmp_path / "not_yet").read_text(encoding="utf-8") == "文\n"
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_an_open_file_is_gone_on_with_where_it_stands(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as log:
        log.write(b"before\n")
        for folder in ("/dev/fd", "/proc/self/fd", f"/proc/{os.getpid()}/fd"):
            name = f"{folder}/{log.fileno()}"
            assert is_stream(name)
            write_records(name, [LabeledPair("q", "t", 1)])
        log.write(b"after\n")
    rows = [b"query\ttitle\tlabel", b"q\tt\t1"] * 3
    assert (tmp_path / "log").read_bytes().splitlines() == [b"before", *rows, b"after"]
    assert is_standard_output("/dev/stdout") and not is_standard_output(tmp_path / "log")
    assert is_standard_output("-") and not is_standard_output("./-")


def test_a_folder_is_not_exchanged_for_what_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RankerError, match="is no folder"), new_folder(tmp_path / "fifo", replace=True):
        pytest.fail("begun")
    assert stat.S_ISFIFO(os.stat(tmp_path / "fifo").st_mode)
    (tmp_path / "old").mkdir()
    (tmp_path / "link").symlink_to("old")
    with new_folder(tmp_path / "link", replace=True) as folder:
        (folder / "new").touch()
    assert (tmp_path / "link").is_symlink() and (tmp_path / "old" / "new").exists()
    for name in (tmp_path, tmp_path / "nowhere" / "file"):
        with pytest.raises(DataError, match="cannot be written there"):
            check_writable(name)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "link", "old"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("name", ["a.tsv", "a.parquet", "a.txt"])
def test_a_full_disk_has_a_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as failed:
        DOORS[name](tmp_path / name)
    assert failed.value.filename == str(tmp_path / name)


def test_what_ran_out_of_space_unnoticed_is_named(tmp_path: Path) -> None:
    target = tmp_path / "export"
    with largest_file(4096), pytest.raises(OSError, match="File too large") as failed, new_folder(target) as folder:
        with suppress(OSError), (folder / "parameters").open("wb", buffering=0) as stream:
            stream.write(bytes(4096))  # as Paddle does, whose next write fails without a word
            stream.write(b"more")
        int("Cannot read tensor desc size")  # raises, and so does what reads the half of the file
    assert failed.value.filename == str(target) and os.listdir(tmp_path) == []


def command(*arguments: object, **keywords: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "paddle_ranker", *map(str, arguments)]
    return subprocess.run(line, cwd=REPOSITORY, text=True, timeout=120, stderr=subprocess.PIPE, **keywords)  # type: ignore[call-overload]


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    """A file of 200 queries with a good and a bad title each."""
    path = tmp_path / "graded.tsv"
    path.write_text("".join(f"q{n}\tgood {n}\t1\nq{n}\tbad {n}\t0\n" for n in range(200)), encoding="utf-8")
    return path


def make_triples(graded: Path, output: str, **keywords: object) -> subprocess.CompletedProcess[str]:
    return command("make-triples", "--input_file", graded, "--output_file", output, **keywords)


def test_make_triples_writes_to_standard_output_and_into_devices(graded: Path, tmp_path: Path) -> None:
    made = make_triples(graded, "/dev/stdout", stdout=subprocess.PIPE)
    assert made.returncode == 0, made.stderr
    lines = made.stdout.splitlines()
    assert len(lines) == 201 and lines[0] == "query\ttitle\tneg_title"
    assert made.stderr == "wrote 200 triples to /dev/stdout (queries: 200)\n"  # beside what was written, not in it

    dashed = make_triples(graded, "-", stdout=subprocess.PIPE)
    assert (dashed.returncode, dashed.stdout) == (0, made.stdout) and not (REPOSITORY / "-").exists()

    with (tmp_path / "made.tsv").open("w", encoding="utf-8") as out:
        out.write("first\n")
        out.flush()
        done = make_triples(graded, "/dev/stdout", stdout=out)
    assert done.returncode == 0
    assert (tmp_path / "made.tsv").read_text(encoding="utf-8").splitlines() == ["first", *lines]

    done = make_triples(graded, "/dev/null", stdout=subprocess.PIPE)
    assert done.returncode == 0 and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_closed_pipe_ends_quietly_and_after_the_files(graded: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = make_triples(graded, "/dev/stdout", stdout=closed)
        assert (done.returncode, done.stderr) == (0, "")
        scores = [tmp_path / "one.tsv", tmp_path / "two.tsv"]
        for every, path in zip((7, 3), scores):
            path.write_text("score\n" + "".join(f"{n % every}\n" for n in range(400)), encoding="utf-8")
        files = ["--test_file", graded, "--report", tmp_path / "report.html", "--per_query", tmp_path / "q.tsv"]
        few = ["--resamples", 100, "--permutations", 1000, "--baselines", "false"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}  # the first line that is printed fails
        done = command("compare", *scores, *files, *few, stdout=closed, env=environment)
        assert done.returncode == 0 and "Traceback" not in done.stderr
    assert (tmp_path / "report.html").exists() and (tmp_path / "q.tsv").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize(("output", "named"), [("/dev/full", "/dev/full"), ("/dev/null", "standard output")])
def test_a_full_output_is_named(graded: Path, output: str, named: str) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = make_triples(graded, output, stdout=full)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"no space left on the disk of {named}" in done.stderr


@pytest.mark.parametrize("make", [new_folder, new_file])
@pytest.mark.parametrize(
    "error", [RankerError, lambda text: OSError(28, "No space left on device", text), lambda text: RuntimeError(text)]
)
def test_errors_and_notes_name_what_is_written_not_its_temporary_place(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], Any],
    error: Callable[[str], Exception],
) -> None:
    target = tmp_path / "target"

    def write() -> None:
        with make(target) as made:
            (inside,) = tmp_path.glob(".unfinished-*")
            assert str(inside) == str(getattr(made, "name", "")) or inside == made
            note(f"note: {inside}: odd")
            raise error(f"{inside}/part")

    with pytest.raises((RankerError, OSError, RuntimeError)) as caught:
        write()
    assert capsys.readouterr().err == f"note: {target}: odd\n"
    assert f"{target}/part" in one_line(caught.value) and ".unfinished" not in one_line(caught.value)
    assert [*tmp_path.iterdir()] == []
    missing = tmp_path / "none" / "target"
    with pytest.raises(OSError, match=re.escape(f"'{missing}'")), make(missing):
        pass
