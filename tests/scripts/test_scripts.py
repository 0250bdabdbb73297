"""The scripts without arguments, in a copy of the checkout: from an empty checkout to a ranked list."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from paddle_ranker.model.encoder_loading import read_checkpoint
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.model.tower_network import save_tower, start_tower
from tests.checkout import IS_MODERN, ONCE, copy_checkout
from tests.conftest import REPOSITORY, THOROUGH
from tests.robustness.doc_blocks import blocks, missing
from tests.started import get, post, started
from tests.tiny import write_encoder

pytestmark = [pytest.mark.server, pytest.mark.slow]  # trains for a minute or two

SHORTER = ("--epochs", "1")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clean copy of the checkout, in a folder with a space in its name."""
    return copy_checkout(tmp_path_factory.mktemp("a checkout"))


def small_demo(folder: Path) -> Path:
    """Return a clean copy of the checkout in a folder, with a small version of the demo's data."""
    place = copy_checkout(folder / "a place")
    demo = [sys.executable, "datasets/make_demo.py", "--output_dir", "datasets", "--size", "100", "--queries", "20"]
    subprocess.run(demo, cwd=place, check=True, capture_output=True)
    return place


def script(
    checkout: Path, name: str, *arguments: str, shell: str = "bash", python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PADDLE_RANKER_PYTHON": python,
        "PADDLE_RANKER_CACHE": str(checkout / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [shell, str(checkout / "scripts" / name), *arguments]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.skipif(not IS_MODERN and not THOROUGH, reason="takes two minutes: on this stack a thorough run tries it")
def test_from_nothing_to_a_ranked_list(checkout: Path) -> None:
    done = script(checkout, "train_pairwise.sh", *(() if IS_MODERN else SHORTER))  # Paddle 2 learns as Paddle 3 does
    assert done.returncode == 0, done.stderr
    best = float(re.findall(r"best: step \d+ \(auc (\S+),", done.stdout)[0])
    assert best >= (0.88 if IS_MODERN else 0.8)  # 0.90 and more over three seeds: python -m benchmarks.demo
    assert done.stdout.count("   1. 0.") == 3  # three queries
    assert "bash scripts/evaluate.sh" in done.stdout
    if IS_MODERN:  # the README shows this output, after a set-up that is not repeated here
        [sample] = [block for block in blocks(REPOSITORY / "README.md", "README.md") if block.text.startswith("setup:")]
        assert missing(sample.text.split("\n", 1)[1], done.stdout + done.stderr, within=0.05) == []

    evaluated = script(checkout, "evaluate.sh", shell="sh")
    assert evaluated.returncode == 0, evaluated.stderr
    auc = float(re.findall(r"^eval_dev auc:(\S+)$", evaluated.stdout, re.M)[0])
    assert auc == pytest.approx(best, abs=6e-4)  # three and four digits

    predicted = script(checkout, "predict_pairwise.sh")
    lines = [line for line in predicted.stdout.splitlines() if line.startswith("{'query': ")]
    assert predicted.returncode == 0 and len(lines) == 3000
    fast = script(checkout, "predict_pairwise_fast.sh")
    assert [line for line in fast.stdout.splitlines() if line.startswith("{'query': ")] == lines

    exported = script(checkout, "export_model.sh", shell="sh")
    assert exported.returncode == 0 and "parity with the ranker" in exported.stdout, exported.stderr
    assert (checkout / "output" / "inference.predict.pdiparams").is_file()
    served = script(checkout, "export_to_serving.sh", "--fetch_alias_names", "predict", shell="sh")
    assert served.returncode == 0 and "predict (sigmoid_2.tmp_0)" in served.stdout, served.stderr
    assert (checkout / "serving_client" / "serving_client_conf.prototxt").is_file()


@ONCE
def test_the_cross_encoder_from_nothing_to_the_best_titles_of_each_query(checkout: Path) -> None:
    # Names of other releases, in the place of the demo's own options.
    names = ("--max_seq_len", "64", "--valid_steps", "20", "--max_steps", "40")
    done = script(checkout, "train_ce.sh", *names, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    best = float(re.findall(r"best: step \d+ \(auc (\S+),", done.stdout)[0])
    assert best > 0.6  # 40 steps reach this; an epoch reaches 0.8
    assert done.stdout.count("   1. 0.") == 3  # three queries
    assert "bash scripts/evaluate_ce.sh" in done.stdout

    evaluated = script(checkout, "evaluate_ce.sh", shell="sh")
    assert evaluated.returncode == 0, evaluated.stderr
    auc = float(re.findall(r"^eval_dev auc:(\S+)$", evaluated.stdout, re.M)[0])
    assert auc == pytest.approx(best, abs=6e-4) and "accuracy: " in evaluated.stdout  # three and four digits

    predicted = script(checkout, "predict_ce.sh", "--topk", "2", shell="sh")
    lines = [line for line in predicted.stdout.splitlines() if line.startswith("{'text_a': ")]
    assert predicted.returncode == 0 and len(lines) == 2 * 298  # queries of the demo's test file

    few = checkout / "few.csv"
    few.write_text("转基因甜瓜论文\t转基因甜瓜\n", encoding="utf-8")
    last = str(checkout / "checkpoint/cross_encoder/last")
    predicted = script(checkout, "predict_ce.sh", "--params_path", last, "--input_file", str(few))
    assert predicted.returncode == 0 and predicted.stdout.count("'text_b': '转基因甜瓜'") == 1

    exported = script(checkout, "export_model_ce.sh", shell="sh")
    assert exported.returncode == 0, exported.stderr
    assert (checkout / "output_ce" / "inference.pdiparams").is_file()
    served = script(checkout, "export_to_serving_ce.sh")
    assert served.returncode == 0, served.stderr
    assert (checkout / "serving_server_ce" / "inference.pdiparams").is_file()


@pytest.mark.thorough
@ONCE
def test_a_small_ranker_learns_from_the_demo_ranker(tmp_path: Path) -> None:
    place = small_demo(tmp_path)
    done = script(place, "distill.sh")
    assert done.returncode == 0, done.stderr
    shown = done.stdout.split("\nAUC\n")[1]
    figures = re.findall(r"^  (alone|taught|teacher) +([01]\.\d+) \[", shown, re.M)[:3]
    assert sorted(name for name, _ in figures) == ["alone", "taught", "teacher"]
    assert all(float(auc) > 0.5 for _, auc in figures)  # few triples reach this; all reach 0.8

    scored = place / "scored.csv"
    again = script(place, "distill.sh", str(place / "checkpoint/pairwise/best"), str(place / "few.csv"), str(scored))
    assert again.returncode == 1 and "few.csv: no such file" in again.stderr and not scored.exists()


def test_a_tower_shows_what_it_finds(checkout: Path) -> None:
    few = checkout / "pairs.csv"
    few.write_text("转基因甜瓜论文\t转基因甜瓜\n水稻\t水稻的病害\n", encoding="utf-8")
    few_steps = ("--max_steps", "2", "--batch_size", "8")
    more = (*few_steps, "--test", str(few), "--output", str(checkout / "t"), "--hnsw_m", "100")
    done = script(checkout, "train_batch_neg.sh", *more)
    assert done.returncode == 0, done.stderr
    assert "2 queries, 2 texts to search" in done.stdout and "evaluations search exactly" in done.stderr
    shown = done.stdout.partition("what this tower finds")[2]
    assert shown.count("转基因甜瓜论文") == 1 and shown.count("  水稻的病害\n") == 2 and "Next:" in shown
    assert (checkout / "t/best/tower.json").is_file()
    for name in ("train_batch_neg.sh", "train_simcse.sh"):
        assert script(checkout, name, "--epoch", "3").returncode == 2


@ONCE
def test_arguments_and_the_exit_status_are_passed_on(checkout: Path) -> None:
    for name, option, value, status in (
        ("train_pairwise.sh", "--epoch", "3", 2),
        ("train_ce.sh", "--epoch", "3", 2),
        ("evaluate.sh", "--init_from_ckpt", "nowhere", 1),
        ("predict_ce.sh", "--params_path", "nowhere", 1),
        ("export_model.sh", "--params_path", "nowhere", 1),
        ("pretrain.sh", "--init_from", "nowhere", 1),
    ):
        done = script(checkout, name, option, value)
        assert done.returncode == status and "error: " in done.stderr, name
    helped = script(checkout, "train_pairwise.sh", "--help")
    assert helped.returncode == 0 and "--train_file" in helped.stdout and "Next:" not in helped.stdout


@pytest.mark.thorough
@ONCE
def test_a_tower_s_search_is_built_measured_and_shown(tmp_path: Path) -> None:
    """Use a tower of random parameters."""
    place = small_demo(tmp_path)
    model, _ = start_tower(read_checkpoint(write_encoder(tmp_path / "encoder")), TowerInfo(16, 16, pooling="mean"))
    save_tower(place / "checkpoint/tower/best", model, model.info)
    done = script(place, "evaluate_recall.sh")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^recall@(\d+)=\d+\.\d+$", done.stdout, re.M) == ["1", "5", "10", "20", "50"]
    for name in ("hybrid", "words", "vectors", "learned weights", "BM25 (words)", "BM25 (bigrams)"):
        assert done.stdout.count(f"\n  {name}  ") == 9, name  # measures
    assert "   1. " in done.stdout and "words" in done.stdout.rpartition("   1. ")[2] and "Next:" in done.stdout
    assert (place / "checkpoint/recall_result/recall.png").read_bytes().startswith(b"\x89PNG")
    result = place / "checkpoint/recall_result/dev.tsv"
    again = script(
        place, "evaluate_recall.sh", "--test", "datasets/recall/dev.csv", "--recall_result_file", str(result)
    )
    # Only the arguments count, relative to the current folder.
    assert again.returncode == 1 and "no such file" in again.stderr


def draw_emoji(folder: Path) -> None:
    """Write a folder as datasets/make_emoji.py does, of squares in twelve colours; the last two names are unseen."""
    colours = ["red", "green", "blue", "yellow", "black", "white", "orange", "purple", "brown", "pink", "grey", "cyan"]
    rows = []
    for style, side in (("google", 30), ("twitter", 40), ("fluent", 50)):
        (folder / style).mkdir(parents=True)
        for colour in colours:
            picture = Image.new("RGBA", (64, 64))
            picture.paste(Image.new("RGBA", (side, side), colour), (5, 5))
            picture.save(folder / style / f"{colour}.png")
    for colour in colours:
        row = {"id": colour, "title": colour, "zh": f"色 {colour}", "text": f"{colour}; 色 {colour}; colour"}
        rows.append({**row, "picture": f"fluent/{colour}.png"})
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "names.txt").write_text("".join(f"{colour}\n" for colour in colours), encoding="utf-8")
    pairs = [f"{colour}\t{style}/{colour}.png\n" for colour in colours[:-2] for style in ("google", "twitter")]
    (folder / "train.tsv").write_text("".join(pairs), encoding="utf-8")
    alike = [f"google/{colour}.png\ttwitter/{colour}.png\n" for colour in colours[:-2]]
    (folder / "alike.tsv").write_text("".join(alike), encoding="utf-8")
    for language, key in (("en", "title"), ("zh", "zh")):
        lines = [f"{row['id']}\t{row[key]}\n" for row in rows]
        (folder / f"queries.{language}.tsv").write_text("".join(lines), encoding="utf-8")
    for name, some in (("qrels.txt", colours), ("qrels.unseen.txt", colours[-2:])):
        (folder / name).write_text("".join(f"{colour} 0 {colour} 1\n" for colour in some))


@pytest.mark.thorough
@ONCE
def test_the_search_of_pictures_trains_measures_and_serves(tmp_path: Path) -> None:
    """Draw the pictures, so that nothing is fetched."""
    place = copy_checkout(tmp_path / "a place")
    draw_emoji(place / "datasets/emoji")
    environment = {"PADDLE_RANKER_PYTHON": sys.executable, "PADDLE_RANKER_CACHE": str(tmp_path / "cache")}
    command = ["bash", str(place / "scripts/search_pictures.sh"), "--port", "0"]
    for trainings in (1, 0):  # the second time everything exists
        with started(command, tmp_path / f"run {trainings}", CUDA_VISIBLE_DEVICES="", **environment) as run:
            run.until(lambda: "search page: " in run.output)
            assert run.output.count("training a tower of pictures") == trainings
            shares = re.findall(r"^\| (?:English|Chinese|picture).*\| ([01]\.\d{3}) \[", run.output, re.M)
            assert len(shares) == 7 * trainings
            port = int(re.findall(r"^search page: http://127\.0\.0\.1:(\d+)/$", run.output, re.M)[0])
            picture = base64.b64encode((place / "datasets/emoji/fluent/blue.png").read_bytes()).decode()
            for request in (
                {"query": "blue", "by": ["picture"]},
                {"like": {"picture": f"data:image/png;base64,{picture}"}},
            ):
                status, found = post(port, "/v1/search", request)
                assert status == 200 and len(found["hits"]) == 10, found
            assert found["hits"][0]["id"] == "blue"
            os.killpg(run.process.pid, signal.SIGINT)
            run.until(lambda: run.process.poll() is not None, running=False)
            assert run.process.returncode in (0, 130) and "Traceback" not in run.output


@ONCE
def test_the_search_demo_makes_what_it_lacks_and_serves_the_page(tmp_path: Path) -> None:
    place = small_demo(tmp_path)
    environment = {"PADDLE_RANKER_PYTHON": sys.executable, "PADDLE_RANKER_CACHE": str(tmp_path / "cache")}
    command = ["bash", str(place / "scripts/search_demo.sh"), "--port", "0"]
    for made in (2, 0):  # number of trainings; the second time everything exists
        with started(command, tmp_path / f"run {made}", CUDA_VISIBLE_DEVICES="", **environment) as run:
            for stage in ("trained 4 steps", "trained 2 steps", "documents, searched by") if made else ():
                run.until(lambda stage=stage: stage in run.output)  # type: ignore[misc]
            run.until(lambda: "search page: " in run.output)
            assert run.output.count("search demo: training") == made
            assert "search demo: calibrating" in run.output or not made
            port = int(re.findall(r"^search page: http://127\.0\.0\.1:(\d+)/$", run.output, re.M)[0])
            status, index = get(port, "/v1/index")
            assert status == 200 and index["documents"] > 100 and len(index["examples"]) == 4
            status, found = post(port, "/v1/search", {"query": index["examples"][0], "rank_top": 50})
            assert status == 200 and found["ranked"] and len(found["hits"]) == 10
            os.killpg(run.process.pid, signal.SIGINT)  # Ctrl-C
            run.until(lambda: run.process.poll() is not None, running=False)
            assert run.process.returncode in (0, 130) and "Traceback" not in run.output
