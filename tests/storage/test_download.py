"""The downloader against a real HTTP server on this machine, well-behaved and not."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from demo_world.files import write_demo
from paddle_ranker.storage.download import BLOCK
from tests.conftest import REPOSITORY, load_script
from tests.started import free_ports

pytestmark = pytest.mark.unit
SET, ARCHIVE = "literature_search_rank", "/literature_search_rank.zip"
TEXTS = {
    "data/train.csv": "委婉语\t委婉语,文化,跨文化交际\t1\n" * 3000,
    "data/dev_pairwise.csv": "query\ttitle\tlabel\n" + "委婉语\t委婉语\t1\n",
    "data/test.csv": "委婉语\t委婉语\n",
}


script = load_script("datasets/download.py")


def make_zip(texts: dict[str, str], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive of `texts`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return buffer.getvalue()


class _Server(ThreadingHTTPServer):
    content: dict[str, bytes]
    cut_after: list[int]  # the next transfers stop after so many bytes
    etag: str
    ranges: list[str]  # the Range headers seen, "" where there was none


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        body = self.server.content.get(self.path)
        asked = self.headers.get("Range", "")
        self.server.ranges.append(asked)
        if body is None:
            self.send_error(404)
            return
        start = 0
        if asked and self.headers.get("If-Range") == self.server.etag:
            start = int(asked[len("bytes=") : -1])
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", self.server.etag)
        self.end_headers()
        cut = self.server.cut_after.pop(0) if self.server.cut_after else len(body)
        self.wfile.write(body[start : start + cut])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    http = _Server(("127.0.0.1", 0), _Handler)
    http.content = {ARCHIVE: make_zip(TEXTS)}
    http.cut_after, http.etag, http.ranges = [], '"one"', []
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield http
    http.shutdown()
    http.server_close()
    thread.join()


def run(server: _Server, folder: Path, *more: str, dataset: str = SET) -> int:
    """Run the command on `server`; return its exit status."""
    base = f"http://127.0.0.1:{server.server_address[1]}"
    return int(script.main(["--dataset", dataset, "--output_dir", str(folder), "--base_url", base, *more]))


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error line; anything else on standard error but progress bars is a failure."""
    lines = [
        line for line in capsys.readouterr().err.replace("\r", "\n").split("\n") if "error:" in line or "Trace" in line
    ]
    assert len(lines) == 1 and "Traceback" not in lines[0]
    return lines[0]


def names(folder: Path) -> list[str]:
    """Return every path under `folder`."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def read(folder: Path, name: str = "test.csv") -> str:
    return (folder / SET / name).read_text(encoding="utf-8")


def test_unpacks_under_the_right_name_once_and_leaves_nothing_else(server: _Server, tmp_path: Path) -> None:
    assert run(server, tmp_path) == 0
    wanted = [name.replace("data/", f"{SET}/") for name in TEXTS]
    assert names(tmp_path) == sorted([".downloads.json", *wanted])
    assert read(tmp_path, "train.csv") == TEXTS["data/train.csv"]
    assert run(server, tmp_path) == 0 and len(server.ranges) == 1  # it is not fetched twice
    (tmp_path / SET / "test.csv").unlink()
    assert run(server, tmp_path) == 0 and len(server.ranges) == 2  # but an incomplete one is
    assert read(tmp_path) == TEXTS["data/test.csv"]


def test_a_file_that_the_user_changed_is_kept(
    server: _Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(server, tmp_path)
    (tmp_path / SET / "test.csv").write_text("mine")
    assert run(server, tmp_path) == 1
    assert "--force" in one_error(capsys) and read(tmp_path) == "mine"
    assert run(server, tmp_path, "--force") == 0
    assert read(tmp_path) == TEXTS["data/test.csv"]


def test_all_fetches_both_archives_also_from_within_a_folder(server: _Server, tmp_path: Path) -> None:
    inner = {f"literature_search_data/{name}/x.csv": name for name in ("milvus", "recall", "sort")}
    server.content["/literature_search_data.zip"] = make_zip(inner)
    assert run(server, tmp_path, dataset="all") == 0
    assert (tmp_path / "recall/x.csv").read_text() == "recall" and read(tmp_path)


def test_a_transfer_that_stops_is_taken_up_where_it_stopped(server: _Server, tmp_path: Path) -> None:
    server.cut_after = [2 * BLOCK, BLOCK]
    assert run(server, tmp_path) == 0
    assert server.ranges == ["", f"bytes={2 * BLOCK}-", f"bytes={3 * BLOCK}-"]
    assert read(tmp_path, "train.csv") == TEXTS["data/train.csv"]


def test_a_truncated_transfer_is_an_error_and_the_next_run_goes_on(
    server: _Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path / "as it was", tmp_path / "changed"):
        server.cut_after = [BLOCK]
        assert run(server, folder, "--attempts", "1") == 1
        assert f"stopped after {BLOCK:,} bytes" in one_error(capsys) and not (folder / SET).exists()
        if folder.name == "changed":  # on the server: it is fetched from its start
            server.etag, server.content[ARCHIVE] = '"two"', make_zip({"data/test.csv": "new"})
        assert run(server, folder) == 0 and server.ranges[-1] == f"bytes={BLOCK}-"
        assert read(folder) == ("new" if folder.name == "changed" else TEXTS["data/test.csv"])


def test_a_part_that_is_whole_already_is_fetched_again(server: _Server, tmp_path: Path) -> None:
    body = server.content[ARCHIVE]
    (tmp_path / f"{SET}.zip.part").write_bytes(body)
    about = {"url": f"http://127.0.0.1:{server.server_address[1]}{ARCHIVE}", "validator": server.etag}
    (tmp_path / f"{SET}.zip.part.json").write_text(json.dumps(about))
    assert run(server, tmp_path) == 0
    assert server.ranges == [f"bytes={len(body)}-", ""]


@pytest.mark.parametrize(("blocks", "name"), [(32, f"{SET}.zip.part"), (80, f".{SET}.unpacked/data/train.csv")])
def test_a_disk_that_is_full_is_that_of_the_file(server: _Server, tmp_path: Path, blocks: int, name: str) -> None:
    text = "".join(hashlib.sha256(b"%d" % number).hexdigest() for number in range(1600))  # half of it when packed
    server.content[ARCHIVE] = make_zip({"data/train.csv": text}, zipfile.ZIP_DEFLATED)
    base = f"http://127.0.0.1:{server.server_address[1]}"
    typed = ["datasets/download.py", "--dataset", SET, "--base_url", base, "--output", str(tmp_path)]
    limited = ["bash", "-c", f'ulimit -f {blocks}; exec "$@"', "-", sys.executable, *typed]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(limited, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"error: {tmp_path / name}: larger than files may be here" in done.stderr


def test_checksums(server: _Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    true = hashlib.sha256(server.content[ARCHIVE]).hexdigest()
    assert run(server, tmp_path, "--sha256", "0" * 64) == 1
    message = one_error(capsys)
    assert true in message and "0" * 64 in message
    assert names(tmp_path) == []
    assert run(server, tmp_path, "--sha256", true.upper()) == 0
    # What is there already is held to it, too.
    assert run(server, tmp_path, "--sha256", true) == 0 and run(server, tmp_path, "--sha256", "0" * 64) == 1
    assert f"sha256 {true}, expected {'0' * 64}" in one_error(capsys)
    # The first download's checksum is what a later one is held to.
    server.content[ARCHIVE] = make_zip({"data/test.csv": "new"})
    assert run(server, tmp_path, "--force") == 1
    assert f"expected {true}" in one_error(capsys) and read(tmp_path, "train.csv")
    assert script.main(["--sha256", "0" * 64]) == 2  # one checksum for two archives
    assert "--dataset" in one_error(capsys)


def test_what_is_not_found_and_where_nobody_listens_is_named(
    server: _Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(server, tmp_path, dataset="literature_search_data") == 1
    assert "literature_search_data.zip: HTTP 404" in one_error(capsys)
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert script.main(["--dataset", SET, "--output_dir", str(tmp_path), "--base_url", address]) == 1
    message = one_error(capsys)
    assert "cannot be reached" in message and "make_demo.py" in message


def link_entry() -> bytes:
    """Return an archive with a symbolic link in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("data/link")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def flipped(compression: int) -> bytes:
    """Return an archive with some bits of a file's content changed."""
    body = bytearray(make_zip(TEXTS, compression))
    for place in range(60, 80):
        body[place] ^= 0x55
    return bytes(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (make_zip({"data/../../escaped.csv": "x"}), "outside"),
        (make_zip({"/tmp/escaped.csv": "x"}), "outside"),
        (make_zip({"C:\\escaped.csv": "x"}), "outside"),
        (link_entry(), "link"),
        (make_zip({"data/zeros.csv": "0" * 3_000_000}, zipfile.ZIP_DEFLATED), "zip bomb"),
        (flipped(zipfile.ZIP_STORED), "CRC"),
        (flipped(zipfile.ZIP_DEFLATED), "not a sound zip"),
        (b"<html>log in first</html>", "not a sound zip"),
        (make_zip({"other/x.csv": "x"}), "expected the folders data"),
    ],
)
def test_archives_that_are_refused(
    server: _Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], body: bytes, words: str
) -> None:
    folder = tmp_path / "datasets"
    server.content[ARCHIVE] = body
    assert run(server, folder) == 1
    assert words in one_error(capsys)
    assert names(tmp_path) == []


def test_no_space_on_the_disk_and_a_file_for_a_folder(
    server: _Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    assert run(server, tmp_path / "file") == 1
    assert "--output" in one_error(capsys)
    usage = script.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(script.shutil, "disk_usage", lambda path: usage)
    assert run(server, tmp_path) == 1
    assert "no space" in one_error(capsys)


def test_demo_data_gives_way_and_other_data_does_not(
    server: _Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_demo(tmp_path, seed=7, size=100, queries=20)
    folder = tmp_path / SET
    (folder / "test.csv.orig").write_text("mine")
    assert run(server, tmp_path) == 1
    assert "other data" in one_error(capsys)
    (folder / "test.csv.orig").rename(folder / "test.csv.part")
    with (folder / "dev_pairwise.csv").open("a", encoding="utf-8") as stream:
        stream.write("a row of my own\tx\t1\n")
    assert run(server, tmp_path) == 1
    assert "other data" in one_error(capsys) and server.ranges == []
    write_demo(tmp_path, seed=7, size=100, queries=20)
    assert run(server, tmp_path) == 0
    assert read(tmp_path, "dev_pairwise.csv") == TEXTS["data/dev_pairwise.csv"]


def test_runs_as_a_script_from_another_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(REPOSITORY / "datasets" / "download.py"), "--datset", "all"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "download.py: error: unknown option --datset (did you mean --dataset?); see download.py --help"
    )
