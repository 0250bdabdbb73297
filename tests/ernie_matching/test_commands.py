"""The pairwise ranker's commands as users type them: real processes, real files, from another folder."""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from paddle_ranker import Ranker
from tests.conftest import REPOSITORY
from tests.tiny import draw_words, write_encoder, write_ranker

pytestmark = pytest.mark.server  # real processes: seconds each


def run(command: str, *arguments: object, cwd: Path, **keywords: Any) -> subprocess.CompletedProcess[str]:
    """Run `python ernie_matching/<command>.py` in `cwd`."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "ernie_matching" / f"{command}.py"), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=180,
        **keywords,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny encoder, training triples, a labelled file, and pairs to score."""
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder / "encoder")
    random, words = draw_words()
    triples, labelled = ["query\ttitle\tneg_title"], ["query\ttitle\tlabel"]
    for word in words:
        other, third = random.choice(words, 2)
        triples.append(f'{word}\t{word}的"研究",{third}\t{other}的研究')
        labelled += [f"{word}\t论{word}\t1", f"{word}\tNA\t0", f"{word}\t论{other}{third}\t{int(other == word)}"]
    (folder / "train.csv").write_text("\n".join(triples) + "\n", encoding="utf-8")
    (folder / "dev.csv").write_text("\n".join(labelled) + "\n", encoding="utf-8")
    (folder / "pairs.csv").write_text("".join(f"{w}\t论{w}\t0.5\n" for w in words[:9]), encoding="utf-8")
    return folder


def training(data: Path, *more: object) -> list[object]:
    files = ["--train_file", data / "train.csv", "--test_file", data / "dev.csv"]
    small = ["--model_name_or_path", data / "encoder", "--device", "cpu", "--batch_size", 8, "--epochs", 2]
    return [*files, *small, "--learning_rate", 1e-3, "--eval_step", 5, "--logging_steps", 5, *more]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The save folder of a training through the command, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    done = run("train_pairwise", *training(data), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "checkpoint", done.stdout


def test_training_prints_the_published_lines_and_leaves_the_published_files(trained: tuple[Path, str]) -> None:
    checkpoint, printed = trained
    assert re.search(r"^global step 10, epoch: 2, batch: 5, loss: \d\.\d{5}, speed: \d+\.\d\d step/s$", printed, re.M)
    assert len(re.findall(r"^eval_dev auc:[01]\.\d{3}$", printed, re.M)) == 2
    assert sorted(path.name for path in (checkpoint / "model_10").iterdir()) == [
        "README.md",
        "config.json",
        "model_state.pdparams",
        "ranker.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    assert (checkpoint / "last").resolve().name == "model_10"


def test_evaluation_agrees_with_scikit_learn_and_with_training(
    trained: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    checkpoint, printed = trained
    arguments = ["--init_from_ckpt", checkpoint / "last", "--test_file", data / "dev.csv", "--device", "cpu"]
    done = run("evaluate", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in (data / "dev.csv").read_text().splitlines()[1:]]
    scores = Ranker.load(checkpoint / "last").score([row[0] for row in rows], [row[1] for row in rows])
    auc = roc_auc_score([int(row[2]) for row in rows], scores)
    assert done.stdout.splitlines()[0] == f"eval_dev auc:{auc:.3f}"
    assert re.findall(r"eval_dev auc:\S+", printed)[-1] == f"eval_dev auc:{auc:.3f}"
    by_file = run(
        "evaluate", *arguments[:1], checkpoint / "last" / "model_state.pdparams", *arguments[2:], cwd=tmp_path
    )
    assert by_file.stdout == done.stdout
    margins = [
        float(re.findall(r"margin_loss: (\S+)", run("evaluate", *arguments, "--margin", m, cwd=tmp_path).stdout)[0])
        for m in (0.5, 2.0)
    ]
    assert margins[0] < margins[1]
    assert "pairs_ordered: " in done.stdout


def test_prediction_prints_a_line_a_pair_and_the_fast_one_the_same(
    trained: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    checkpoint, _ = trained
    arguments = ["--params_path", checkpoint / "best", "--input_file", data / "pairs.csv", "--device", "cpu"]
    done = run("predict_pairwise", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    rows = [line.split("\t") for line in (data / "pairs.csv").read_text().splitlines()]
    assert [list(line) for line in lines] == [["query", "title", "recall_score", "pred_prob"]] * 9
    assert [(line["query"], line["title"]) for line in lines] == [(row[0], row[1]) for row in rows]
    expected = Ranker.load(checkpoint / "best").score([row[0] for row in rows], [row[1] for row in rows])
    np.testing.assert_allclose([line["pred_prob"] for line in lines], expected, atol=1e-6)
    assert run("predict_pairwise_fast", *arguments, cwd=tmp_path).stdout == done.stdout
    one_by_one = run("predict_pairwise", *arguments, "--batch_size", 1, cwd=tmp_path)
    scores = [ast.literal_eval(line)["pred_prob"] for line in one_by_one.stdout.splitlines()]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_training_goes_on_from_a_checkpoint(trained: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    checkpoint, printed = trained
    again = ["--init_from_ckpt", checkpoint / "last" / "model_state.pdparams", "--learning_rate", 1e-12, "--epochs", 1]
    done = run("train_pairwise", *training(data, *again), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # At a rate of nothing the scores stay what they were.
    assert re.findall(r"eval_dev auc:\S+", done.stdout)[-1] == re.findall(r"eval_dev auc:\S+", printed)[-1]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        (["--epoch", 3], 2, "unknown option --epoch (did you mean --epochs?)"),
        (["--batch_size", 0], 2, "--batch_size 0: must be at least 1"),
        (["--batch_size", "many"], 2, "--batch_size: invalid int value: 'many'"),
        (["--warmup_proportion", 1.5], 2, "--warmup_proportion 1.5: must be below 1"),
        (["--loss", "margin_logits"], 2, "did you mean margin_logit?"),
        (["--device", "tpu"], 2, "--device tpu: choose from cpu, gpu, xpu, npu"),
        (["--train_file", "trian.csv"], 1, "trian.csv"),
        (["--model_name_or_path", "./nowhere"], 1, "./nowhere: there is no such model folder"),
        (["--init_from_ckpt", "nowhere.pdparams"], 1, "nowhere.pdparams"),
        (["--max_seq_length", 65], 1, "above the 64 positions"),
        (["--test_file", "/dev/null"], 1, "/dev/null"),
    ],
)
def test_wrong_command_lines_end_in_one_line(
    data: Path, tmp_path: Path, change: list[object], status: int, message: str
) -> None:
    done = run("train_pairwise", *training(data, *change), cwd=tmp_path)
    assert done.returncode == status
    assert message in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert not (tmp_path / "checkpoint" / "last").exists()


def test_debug_shows_the_traceback(data: Path, tmp_path: Path) -> None:
    done = run("train_pairwise", *training(data, "--train_file", "trian.csv", "--debug"), cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_a_typing_error_shows_without_waiting_for_paddle(data: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    assert run("train_pairwise", *training(data, "--epoch", 3), cwd=tmp_path).returncode == 2
    assert time.monotonic() - began < 5


def test_the_gpu_that_is_not_there(data: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = run("train_pairwise", *training(data, "--device", "gpu"), cwd=tmp_path, env=environment)
    assert done.returncode == 1 and "type --device cpu" in done.stderr and done.stderr.count("\n") == 1
    arguments = [a for a in training(data, "--max_steps", 1) if a not in ("--device", "cpu")]
    done = run("train_pairwise", *arguments, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("device: ")] == [
        line for line in done.stderr.splitlines() if line.startswith("device: cpu (")
    ]
    assert done.stderr.count("device: cpu (") == 1
    told = json.loads((tmp_path / "checkpoint" / "last" / "ranker.json").read_text(encoding="utf-8"))
    assert told["training"]["device"] == "cpu"


def test_bad_rows_stop_or_are_counted(data: Path, tmp_path: Path) -> None:
    lines = (data / "train.csv").read_text(encoding="utf-8").splitlines()
    lines[16] = "only\ttwo"
    (tmp_path / "bad.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    stopped = run("train_pairwise", *training(data, "--train_file", tmp_path / "bad.csv"), cwd=tmp_path)
    assert stopped.returncode == 1 and "bad.csv, line 17: 2 columns, expected 3" in stopped.stderr
    skipping = ["--train_file", tmp_path / "bad.csv", "--skip_bad_rows", "--max_steps", 1]
    counted = run("train_pairwise", *training(data, *skipping), cwd=tmp_path)
    assert counted.returncode == 0
    assert "kept 39; skipped 1 (line 17: 2 columns, expected 3)" in counted.stdout


def test_an_unwritable_place_is_found_before_training(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("train_pairwise", *training(data, "--save_dir", "file/checkpoint"), cwd=tmp_path)
    assert done.returncode == 1 and "file/checkpoint: cannot write there" in done.stderr
    assert "global step" not in done.stdout


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(data: Path, tmp_path: Path) -> None:
    # A limit on file sizes stands in for a full disk: writing the parameters fails part of the way.
    limit = 3000
    done = run(
        "train_pairwise",
        *training(data),
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1, done.stderr
    assert "checkpoint of step 5 could not be written" in done.stderr and "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == [".lock", "metrics.jsonl"]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_keeps_its_checkpoints(data: Path, tmp_path: Path, signal_number: int) -> None:
    arguments = training(data, "--epochs", 10_000, "--save_step", 5)
    script = str(REPOSITORY / "ernie_matching" / "train_pairwise.py")
    process = subprocess.Popen(
        [sys.executable, "-u", script, *map(str, arguments)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that a shell started in the background ignore Ctrl-C, and their children would.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("global step 15,"):
            break
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    found = re.search(r"interrupted \(at step (\d+) of 50000; the last good checkpoint is .*model_(\d+)\)", errors)
    assert found and found[1] == found[2] and (tmp_path / "checkpoint" / f"state_{found[1]}").is_dir()
    assert "Traceback" not in errors
    to_go_on = shlex.split(errors.splitlines()[-1])
    assert to_go_on[:3] == ["to", "go", "on:"] and to_go_on[-1] == "--resume"
    assert Ranker.load(tmp_path / "checkpoint" / "last").score(["深"], ["深"]).shape == (1,)


def test_an_export_that_runs_out_of_space_says_so(trained: tuple[Path, str], tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    arguments = ["--params_path", trained[0] / "last", "--output_path", tmp_path / "export"]
    done = run("export_model", *arguments, cwd=tmp_path, preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.endswith(f"{tmp_path}/export: larger than files may be here (ulimit -f); raise that limit\n")
    assert list(tmp_path.iterdir()) == []


def test_a_hostile_checkpoint_is_refused(data: Path, tmp_path: Path) -> None:
    folder = write_ranker(tmp_path / "ranker")
    mark = tmp_path / "executed"
    (folder / "model_state.pdparams").write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
    arguments = ["--params_path", folder, "--input_file", data / "pairs.csv", "--device", "cpu"]
    done = run("predict_pairwise", *arguments, cwd=tmp_path)
    assert done.returncode == 1 and "refused" in done.stderr and not mark.exists()


def test_an_encoder_without_a_head_does_not_score_at_random(data: Path, tmp_path: Path) -> None:
    arguments = ["--params_path", data / "encoder", "--input_file", data / "pairs.csv", "--device", "cpu"]
    done = run("predict_pairwise", *arguments, cwd=tmp_path)
    assert done.returncode == 1 and "is an encoder without a ranking head" in done.stderr and done.stdout == ""


def test_a_name_that_cannot_be_fetched_fails_within_seconds(data: Path, tmp_path: Path) -> None:
    nowhere = {**os.environ, "PADDLE_RANKER_CACHE": str(tmp_path), "HOME": str(tmp_path)}
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    began = time.monotonic()
    arguments = training(data, "--model_name_or_path", "ernie-3.0-nano-zh")
    done = run("train_pairwise", *arguments, cwd=tmp_path, env={**nowhere, **proxies})
    assert done.returncode == 1
    assert "ernie-3.0-nano-zh is not on this machine and could not be fetched" in done.stderr
    assert "local folder" in done.stderr and done.stderr.count("\n") == 1
    assert time.monotonic() - began < 60


def test_one_class_only_is_an_error_that_says_so(trained: tuple[Path, str], tmp_path: Path) -> None:
    checkpoint, _ = trained
    (tmp_path / "ones.csv").write_text("深\t深\t1\n学\t学\t1\n", encoding="utf-8")
    arguments = ["--init_from_ckpt", checkpoint / "last", "--test_file", tmp_path / "ones.csv", "--device", "cpu"]
    done = run("evaluate", *arguments, cwd=tmp_path)
    assert done.returncode == 1 and "class" in done.stderr


def test_head_closing_the_pipe_is_no_error(trained: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    checkpoint, _ = trained
    many = tmp_path / "many.csv"
    many.write_text((data / "pairs.csv").read_text(encoding="utf-8") * 2000, encoding="utf-8")
    script = REPOSITORY / "ernie_matching" / "predict_pairwise.py"
    line = f"{sys.executable} {script} --params_path {checkpoint}/last --input_file {many} --device cpu | head -n 1"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.stdout.count("\n") == 1 and "Traceback" not in done.stderr and "rror" not in done.stderr


def test_the_rank_command_orders_each_querys_titles(trained: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    checkpoint, _ = trained
    (tmp_path / "pairs.csv").write_text("深\t水稻\n学\t深度\n深\t深度\n深\t老年\n", encoding="utf-8")
    command = [sys.executable, "-m", "paddle_ranker", "rank", "--params_path", checkpoint / "last", "--device", "cpu"]
    more = ["--input_file", tmp_path / "pairs.csv", "--top_k", 2, "--format", "jsonl"]
    done = subprocess.run(
        [*map(str, command), *map(str, more)], cwd=tmp_path, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    lines = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    assert [line["query"] for line in lines] == ["深", "学"]
    expected = Ranker.load(checkpoint / "last").rank("深", ["水稻", "深度", "老年"], top_k=2)
    assert [t["title"] for t in lines[0]["titles"]] == [t.title for t in expected]
