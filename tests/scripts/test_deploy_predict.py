"""deploy/python/predict.py: its formats, streams, outputs that are whole or not there, and what it refuses."""

from __future__ import annotations

import ast
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
import pytest

from paddle_ranker import Ranker
from paddle_ranker.data.trec import read_run
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.kinds import load_ranker
from paddle_ranker.storage import atomic
from tests.conftest import REPOSITORY, load_script
from tests.tiny import PAIRS, draw_words, write_ranker

pytestmark = pytest.mark.server
COMMAND = [sys.executable, str(REPOSITORY / "deploy/python/predict.py"), "--device", "cpu", "--cpu_threads", "1"]
QUERIES, TITLES = [list(column) for column in zip(*PAIRS)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An exported ranker of each kind, with the same parameters."""
    folder = tmp_path_factory.mktemp("deploy")
    for kind in ("pairwise", "cross_encoder"):
        write_ranker(folder / f"ranker_{kind}", kind=kind)
        export_model(load_ranker(folder / f"ranker_{kind}"), folder / kind)
    return {kind: folder / kind for kind in ("pairwise", "cross_encoder")}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.tsv"
    path.write_text("".join(f"{query}\t{title}\n" for query, title in PAIRS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def predict() -> ModuleType:
    return load_script("deploy/python/predict.py")


def test_the_project_s_output_is_found_from_elsewhere(
    predict: ModuleType,
    exported: dict[str, Path],
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    (project / "output").symlink_to(exported["pairwise"])
    monkeypatch.setattr(predict, "PROJECT", project)
    monkeypatch.chdir(elsewhere)
    command = ["--input_file", str(rows), "--device", "cpu", "--cpu_threads", "1"]
    assert predict.main(command) == 0
    found = capsys.readouterr()
    assert len(found.out.splitlines()) == len(PAIRS)
    assert f"note: ./output is not here; taking {project / 'output'}" in found.err
    assert predict.main([*command, "--model_dir", "other"]) == 1  # what is asked for is not replaced
    (elsewhere / "output").symlink_to(exported["cross_encoder"])
    capsys.readouterr()
    assert predict.main(command) == 0
    found = capsys.readouterr()
    assert "note: ./output" not in found.err and "prob: 0." in found.out  # the caller's own, a cross-encoder


def run(predict: ModuleType, folder: Path, rows: Path, *arguments: str) -> int:
    status: int = predict.main(
        ["--model_dir", str(folder), "--input_file", str(rows), "--device", "cpu", "--cpu_threads", "1", *arguments]
    )
    return status


@pytest.mark.usefixtures("same_process")
def test_the_published_lines_of_either_kind(
    predict: ModuleType, exported: dict[str, Path], rows: Path, capsys: pytest.CaptureFixture
) -> None:
    reference = Ranker.load(exported["pairwise"]).score(QUERIES, TITLES)
    for kind, digits in (("pairwise", 7), ("cross_encoder", 5)):
        assert run(predict, exported[kind], rows) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(PAIRS)
        for line, (query, title), probability in zip(lines, PAIRS, reference):
            data, _, shown = line.partition("\tprob: ")
            assert ast.literal_eval(data.removeprefix("Data: ")) == {"query": query, "title": title}
            assert shown.startswith("[") == (kind == "pairwise")
            assert float(shown.strip("[]")) == pytest.approx(probability, abs=10.0**-digits)


@pytest.mark.usefixtures("same_process")
def test_json_lines_and_runs(
    predict: ModuleType, exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = tmp_path / "rows.tsv"
    texts = [("深度学习", "农业"), ("经济", "经济增长"), ("深度学习", "神经网络"), ("深度学习", "深度")]
    rows.write_text("".join(f"{q}\t{t}\t0.{n}\n" for n, (q, t) in enumerate(texts, 1)), encoding="utf-8")
    assert run(predict, exported["pairwise"], rows, "--format", "jsonl") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["query"], one["title"]) for one in found] == texts
    assert [one["recall_score"] for one in found] == [0.1, 0.2, 0.3, 0.4]

    target = tmp_path / "run.trec"
    assert run(predict, exported["pairwise"], rows, "--format", "run", "--output_file", str(target)) == 0
    written = read_run(str(target)).run
    by_row = {f"d{row}": one["probability"] for row, one in enumerate(found, 1)}
    listed = {query: sorted(documents) for query, documents in written.items()}
    assert listed == {"q1": ["d1", "d3", "d4"], "q2": ["d2"]}
    for line in target.read_text().splitlines():
        _, _, document, _, score, _ = line.split()
        assert float(score) == pytest.approx(by_row[document], abs=1e-6)
    first = [line.split() for line in target.read_text().splitlines() if line.startswith("q1 ")]
    assert [line[3] for line in first] == ["1", "2", "3"]
    assert [float(line[4]) for line in first] == sorted((float(line[4]) for line in first), reverse=True)


@pytest.mark.usefixtures("same_process")
def test_a_cut_off_leaves_titles_out_and_says_how_many(
    predict: ModuleType, exported: dict[str, Path], rows: Path, capsys: pytest.CaptureFixture
) -> None:
    probabilities = Ranker.load(exported["pairwise"]).score(QUERIES, TITLES)
    middle = float(np.sort(probabilities)[3] + np.sort(probabilities)[2]) / 2
    assert run(predict, exported["pairwise"], rows, "--min_probability", str(middle)) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 3 and "3 of 6 pairs are below" in shown.err


def test_standard_input_gives_what_the_file_gives(exported: dict[str, Path], rows: Path) -> None:
    command = [*COMMAND, "--model_dir", str(exported["pairwise"]), "--input_file"]
    from_file = subprocess.check_output([*command, str(rows)])
    piped = subprocess.run([*command, "-"], input=rows.read_bytes(), stdout=subprocess.PIPE, check=True)
    assert piped.stdout == from_file and from_file.count(b"\n") == len(PAIRS)


@pytest.mark.usefixtures("same_process")
def test_rows_come_in_order_over_several_chunks(
    predict: ModuleType, exported: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, words = draw_words()
    rows, target = tmp_path / "rows.tsv", tmp_path / "scores.jsonl"
    texts = [(str(random.choice(words)), "".join(random.choice(words, 3))) for _ in range(300)]
    rows.write_text("".join(f"{query}\t{title}\n" for query, title in texts), encoding="utf-8")
    import paddle_ranker.scoring.files as scoring
    from paddle_ranker.scoring.scorer import chunks

    monkeypatch.setattr(scoring, "chunks", lambda items: chunks(items, 32))
    assert run(predict, exported["pairwise"], rows, "--format", "jsonl", "--output_file", str(target)) == 0
    found = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [(one["query"], one["title"]) for one in found] == texts
    reference = Ranker.load(exported["pairwise"]).score(*map(list, zip(*texts)))
    np.testing.assert_allclose([one["probability"] for one in found], reference, atol=1e-5)


@pytest.mark.usefixtures("same_process")
def test_a_bad_row_far_into_the_file_leaves_no_output(
    predict: ModuleType, exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows, target = tmp_path / "rows.tsv", tmp_path / "out.txt"
    rows.write_text("深度\t学习\n" * 40 + "深度\t\n", encoding="utf-8")
    target.write_text("older")
    assert run(predict, exported["pairwise"], rows, "--output_file", str(target)) == 1
    assert "rows.tsv, line 41" in capsys.readouterr().err
    assert target.read_text() == "older" and sorted(os.listdir(tmp_path)) == ["out.txt", "rows.tsv"]


class _FullDisk:
    def __init__(self, stream: IO[Any]):
        self.stream = stream

    def writelines(self, lines: Any) -> None:
        self.stream.write(next(iter(lines)))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.stream.name)


@pytest.mark.usefixtures("same_process")
def test_a_full_disk_is_said_and_leaves_no_half_file(
    predict: ModuleType, exported: dict[str, Path], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    @contextlib.contextmanager
    def full(path: Any) -> Any:
        with atomic.new_file(path) as stream:
            yield _FullDisk(stream)

    monkeypatch.setattr(predict, "new_file", full)
    assert run(predict, exported["pairwise"], rows, "--output_file", str(tmp_path / "out.txt")) == 1
    assert "no space left on the disk" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_an_interrupted_command_leaves_no_output(exported: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    command = [*COMMAND, "--model_dir", str(exported["pairwise"]), "--output_file", str(target), "--input_file", "-"]
    for signal_number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 130)):
        # What a shell starts in the background, these tests perhaps, ignores SIGINT, and so do its children.
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed)
        assert process.stdin is not None
        process.stdin.write("深度\t学习\n".encode() * 20_000)  # two chunks and the start of a third, which never ends
        process.stdin.flush()
        _wait_for(lambda: any(path.stat().st_size for path in tmp_path.iterdir()))
        process.send_signal(signal_number)
        assert process.wait(30) == status
        assert os.listdir(tmp_path) == []
        process.stdin.close()


def _wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.usefixtures("same_process")
def test_what_it_refuses(
    predict: ModuleType, exported: dict[str, Path], rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = exported["pairwise"]
    for target, arguments, message in (
        (tmp_path, (), "there is no model_state.pdparams in it"),
        (folder, ("--precision", "fp16"), "fp16 needs --device gpu"),
        (folder, ("--engine", "onxx"), "did you mean onnx?"),
        (folder, ("--device", "gpu:9"), "type --device cpu"),
        (folder, ("--output_file", str(tmp_path / "none" / "out")), "cannot be written there"),
    ):
        assert run(predict, target, rows, *arguments) in (1, 2)
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(exported: dict[str, Path], tmp_path: Path) -> None:
    random, words = draw_words()
    peaks = []
    for count in (20_000, 60_000):
        rows = tmp_path / f"{count}.tsv"
        with rows.open("w", encoding="utf-8") as stream:
            for _ in range(count):
                stream.write(f"{random.choice(words)}\t{''.join(random.choice(words, random.randint(1, 8)))}\n")
        command = [*COMMAND, "--model_dir", str(exported["pairwise"]), "--input_file", str(rows)]
        command += ["--output_file", str(tmp_path / "out.txt")]
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)  # else Popen would wait for it once more
        assert status == 0, (tmp_path / "said").read_text(encoding="utf-8")
        peaks.append(usage.ru_maxrss / 1024)  # Linux counts in KB
    assert peaks[1] < peaks[0] + 30  # MB; 40,000 pairs in memory are about 20
