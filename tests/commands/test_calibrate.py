"""Calibrating, cutting off and long texts through the commands."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from cross_encoder import evaluate as evaluate_ce
from cross_encoder import predict as predict_ce
from ernie_matching import evaluate, predict_pairwise, train_pairwise
from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.commands.calibrate import CalibrateOptions, _advise
from paddle_ranker.errors import UsageError
from paddle_ranker.metrics.calibration import FEW_QUERIES, calibration_measures, fit, fit_out_of_fold
from paddle_ranker.metrics.logistic import LinearModel
from paddle_ranker.model.blend import save_blend
from paddle_ranker.model.folder import load_single
from paddle_ranker.model.info import RankerInfo
from tests.tiny import HAN, PAIRS, draw_words, write_ranker

pytestmark = pytest.mark.parity
CPU = ["--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ranker(tmp_path_factory.mktemp("calibrate") / "ranker")


def write_dev(path: Path, folder: Path, sign: float = 1.0, queries: int = 60, shifted: bool = True) -> Path:
    """Write labelled pairs whose relevance follows the ranker's own logits, half as surely as it says."""
    random, words = draw_words(queries)
    pairs = [(f"{word}{number}", "".join(random.choice(HAN, 6))) for number, word in enumerate(words) for _ in range(6)]
    logits = logit(Ranker.load(folder).score(*[list(column) for column in zip(*pairs)]))
    relevant = random.random_sample(len(pairs)) < expit(sign * 0.5 * (logits - shifted * np.median(logits)))
    rows = [f"{query}\t{title}\t{int(label)}\n" for (query, title), label in zip(pairs, relevant)]
    path.write_text("query\ttitle\tlabel\n" + "".join(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def dev(folder: Path) -> Path:
    return write_dev(folder.parent / "dev.tsv", folder)


@pytest.fixture(scope="module")
def calibrated(folder: Path, dev: Path) -> Path:
    assert main(["calibrate", str(folder), str(dev), "--output", str(folder.parent / "calibrated"), *CPU]) == 0
    return folder.parent / "calibrated"


def columns(dev: Path) -> tuple[list[str], list[str], np.ndarray]:
    rows = [line.split("\t") for line in dev.read_text(encoding="utf-8").splitlines()[1:]]
    return [row[0] for row in rows], [row[1] for row in rows], np.array([float(row[2]) for row in rows])


def test_the_command_fits_what_the_functions_fit(folder: Path, dev: Path, calibrated: Path) -> None:
    queries, titles, labels = columns(dev)
    logits = logit(Ranker.load(folder).score(queries, titles))
    info = RankerInfo.read(calibrated)
    assert info and info.calibration
    expected = fit("platt", labels, logits)
    assert info.calibration.scale == pytest.approx(expected.scale, rel=1e-4)
    assert info.calibration.shift == pytest.approx(expected.shift, rel=1e-3, abs=1e-4)
    out_of_fold = fit_out_of_fold("platt", queries, labels, logits, 5)
    figures = info.calibration.figures
    for name, row in (("as_trained", logits), ("fitted", expected.apply(logits)), ("out_of_fold", out_of_fold)):
        assert figures[name] == pytest.approx(calibration_measures(labels, row), abs=1e-4)
    assert figures["out_of_fold"]["cross_entropy"] < figures["as_trained"]["cross_entropy"]
    facts = info.calibration.fitted_on
    assert (facts["file"], facts["pairs"], facts["queries"]) == ("dev.tsv", 360, 60)
    assert facts["relevant"] == int(labels.sum())
    assert str(info.calibration) in (calibrated / "README.md").read_text(encoding="utf-8")
    assert "Not calibrated" in (folder / "README.md").read_text(encoding="utf-8")


def test_every_scorer_applies_it(
    folder: Path, calibrated: Path, dev: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries, titles = [list(column) for column in zip(*PAIRS)]
    found = RankerInfo.read(calibrated)
    assert found and found.calibration
    expected = expit(found.calibration.apply(logit(Ranker.load(folder).score(queries, titles))))
    ranker = Ranker.load(calibrated)
    np.testing.assert_allclose(ranker.score(queries, titles), expected, atol=1e-5)
    alone = ranker.rank(queries[0], titles[:1])[0].probability
    assert alone == pytest.approx(expected[0], abs=1e-5)
    assert np.abs(expected - Ranker.load(folder).score(queries, titles)).max() > 0.05

    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"{q}\t{t}\n" for q, t in PAIRS), encoding="utf-8")
    capsys.readouterr()
    assert predict_pairwise.main(["--params_path", str(calibrated), "--input_file", str(pairs), *CPU]) == 0
    printed = [ast.literal_eval(line)["pred_prob"] for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(printed, expected, atol=1e-5)
    assert main(["rank", "--params_path", str(calibrated), "--input_file", str(pairs), "--format", "jsonl", *CPU]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose([line["titles"][0]["probability"] for line in lines], expected, atol=1e-5)

    figures = []
    for source in (folder, calibrated):
        assert evaluate.main(["--init_from_ckpt", str(source), "--test_file", str(dev), *CPU]) == 0
        figures.append(re.findall(r"eval_dev auc:\S+|margin_loss: \S+", capsys.readouterr().out))
    assert figures[0] == figures[1] and len(figures[0]) == 2  # the order is the same, and what it was trained by


def test_the_cross_encoders_evaluation_prints_calibrated_cross_entropy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_ranker(tmp_path / "ce", kind="cross_encoder")
    dev = write_dev(tmp_path / "dev.tsv", folder)
    assert main(["calibrate", str(folder), str(dev), *CPU]) == 0  # into the folder itself
    info = RankerInfo.read(folder)
    assert info and info.calibration
    capsys.readouterr()
    assert evaluate_ce.main(["--init_from_ckpt", str(folder), "--test_file", str(dev), *CPU]) == 0
    printed = float(re.findall(r"cross_entropy: (\S+)", capsys.readouterr().out)[0])
    assert printed == pytest.approx(info.calibration.figures["fitted"]["cross_entropy"], abs=1e-4)


def test_in_place_and_away_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = write_ranker(tmp_path / "own")
    dev = write_dev(tmp_path / "dev.tsv", own, shifted=False)
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    link = tmp_path / "best"
    link.symlink_to("own")
    temperature = ["--method", "temperature", "--folds", "3"]
    assert main(["calibrate", str(link), *temperature, str(dev), *CPU]) == 0  # options between the two are fine
    printed = capsys.readouterr().out
    assert "temperature, out of fold (3 folds of queries)" in printed and "calibrated: " in printed
    info = RankerInfo.read(own)
    assert info and info.calibration and info.calibration.shift == 0 and info.calibration.method == "temperature"
    changed = {path.name for path in own.iterdir() if before.get(path.name) != path.read_bytes()}
    assert changed == {"ranker.json", "README.md"}
    again = Ranker.load(own).info.calibration
    assert (
        main(["calibrate", str(own), str(dev), *temperature, *CPU]) == 0
    )  # fitted to raw logits again, not to its own
    assert Ranker.load(own).info.calibration == again
    assert main(["calibrate", str(own / "model_state.pdparams"), "--remove", *CPU]) == 0
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    capsys.readouterr()
    assert main(["calibrate", str(own), "--remove", *CPU]) == 0
    assert "has no calibration" in capsys.readouterr().out


def rows(queries: int, label: Any) -> str:
    return "".join(f"q{i}\t{HAN[i % 9]}{HAN[j]}\t{label(i, j)}\n" for i in range(queries) for j in range(4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (rows(20, lambda i, j: 1), "one class only, 80 of its 80 pairs are relevant"),
        (rows(20, lambda i, j: 0), "one class only, 0 of its 80 pairs are relevant"),
        (rows(9, lambda i, j: j % 2), "9 queries with 18 relevant and 18 other pairs are too few"),
        (rows(20, lambda i, j: int(i < 2 and j == 0)), "20 queries with 2 relevant and 78 other pairs are too few"),
    ],
)
def test_files_that_cannot_calibrate(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "dev.tsv").write_text(content, encoding="utf-8")
    before = (folder / "ranker.json").read_bytes()
    assert main(["calibrate", str(folder), str(tmp_path / "dev.tsv"), *CPU]) == 1
    error = capsys.readouterr().err
    assert message in error and "dev.tsv" in error and error.count("\n") == 1
    assert (folder / "ranker.json").read_bytes() == before


def test_a_ranker_that_orders_the_wrong_way_round(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = write_dev(tmp_path / "dev.tsv", folder, sign=-1.0)
    assert main(["calibrate", str(folder), str(dev), *CPU]) == 1
    assert "orders these pairs the wrong way round" in capsys.readouterr().err


def test_few_queries_are_advised_against(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dev = write_dev(tmp_path / "dev.tsv", folder, queries=16)
    assert main(["calibrate", str(folder), str(dev), "--output", str(tmp_path / "new"), *CPU]) == 0
    printed = capsys.readouterr()
    assert re.search(r"less that as trained: [+-]\d\.\d{4} \[[+-]\d\.\d{4}, [+-]\d\.\d{4}\] \(95% over", printed.out)
    assert re.search(r"over (\d+) random halves of the 16: .* the fit made [1-9]\d* of \1 halves worse", printed.out)
    assert "advice: leave the ranker as trained: 16 queries are too few" in printed.err
    assert "So few queries do not tell" in (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert main(["calibrate", str(folder), str(dev), "--output", str(tmp_path / "new"), *CPU]) == 1
    assert "is there already" in capsys.readouterr().err


def test_few_queries_mend_what_is_far_off(capsys: pytest.CaptureFixture[str]) -> None:
    options = CalibrateOptions(ranker="r", dev_file="dev.tsv")
    _advise(options, 50, np.array([[0.3, 0.1], [0.4, 0.2]]))
    printed = capsys.readouterr()
    assert "as trained 0.3025 to 0.3975, by a fit to the other half 0.1025 to 0.1975" in printed.out
    assert "the fit made 0 of 2 halves worse" in printed.out and "50 are few, and on others" in printed.err
    for errors in (np.array([[0.3, 0.1], [0.1, 0.2]]), np.empty((0, 2))):
        _advise(options, 50, errors)
        assert "advice: leave the ranker as trained (paddle-ranker calibrate r --remove): 50" in capsys.readouterr().err


def test_many_queries_are_not_advised_against(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dev = write_dev(tmp_path / "dev.tsv", folder, queries=FEW_QUERIES)
    assert main(["calibrate", str(folder), str(dev), "--output", str(tmp_path / "new"), *CPU]) == 0
    printed = capsys.readouterr()
    assert "halves" not in printed.out and not printed.err
    assert "So few queries" not in (tmp_path / "new" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "DEV_FILE is required"),
        (["dev.tsv", "--remove"], "--remove takes a calibration away"),
        (["--remove", "--method", "platt"], "--remove takes a calibration away"),
        (["--remove", "--folds", "7"], "--remove takes a calibration away: leave out --folds"),
        (["--remove", "--windows", "max"], "--remove takes a calibration away: leave out --windows"),
        (["dev.tsv", "--method", "isotonic"], "--method isotonic: choose from platt, temperature"),
        (["dev.tsv", "--windwos", "max"], "unknown option --windwos (did you mean --windows?)"),
    ],
)
def test_wrong_command_lines(folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str) -> None:
    assert main(["calibrate", str(folder), *more]) == 2
    assert message in capsys.readouterr().err


def test_training_on_says_that_it_leaves_the_calibration_out(
    calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, words = draw_words(12)
    (tmp_path / "train.tsv").write_text("".join(f"{w}\t论{w}\t的研究\n" for w in words), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("".join(f"{w}\t论{w}\t1\n{w}\t的\t0\n" for w in words), encoding="utf-8")
    files = ["--train_file", str(tmp_path / "train.tsv"), "--test_file", str(tmp_path / "dev.tsv")]
    how = ["--save_dir", str(tmp_path / "c"), "--init_from_ckpt", str(calibrated), "--epochs", "1", *CPU]
    assert train_pairwise.main([*files, *how]) == 0
    assert f"the calibration of {calibrated} is left out" in capsys.readouterr().out
    info = RankerInfo.read(tmp_path / "c" / "last")
    assert info and info.calibration is None


def test_transformers_get_it_folded_into_the_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_ranker(tmp_path / "ranker", match=False)
    values = json.loads((folder / "ranker.json").read_text())
    values["calibration"] = {"method": "platt", "scale": 0.25, "shift": 1.5}
    (folder / "ranker.json").write_text(json.dumps(values))
    assert main(["convert", str(folder), str(tmp_path / "hf"), "--to", "hf"]) == 0
    assert "folded the calibration into the head" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "back")]) == 0
    queries, titles = [list(column) for column in zip(*PAIRS)]
    back = Ranker.load(tmp_path / "back")
    assert back.info.calibration is None and back.info.training["folded into the head"] == "sigmoid(0.25 * logit + 1.5)"
    np.testing.assert_allclose(back.score(queries, titles), Ranker.load(folder).score(queries, titles), atol=1e-6)


@pytest.fixture(scope="module")
def to_rank(folder: Path) -> Path:
    titles = ["".join(np.roll(HAN, shift)[: 3 + shift]) for shift in range(8)]
    path = folder.parent / "to_rank.tsv"
    path.write_text("".join(f"{q}\t{t}\n" for q in ("深度学习", "教育") for t in titles), encoding="utf-8")
    return path


def test_a_list_is_cut_off_at_a_probability(folder: Path, to_rank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [line.split("\t") for line in to_rank.read_text(encoding="utf-8").splitlines()]
    ranker = Ranker.load(folder)
    scores = ranker.score([p[0] for p in pairs], [p[1] for p in pairs])
    cut = float(np.sort(scores)[10] + np.sort(scores)[11]) / 2  # five of sixteen stay
    files = ["--params_path", str(folder), "--input_file", str(to_rank), *CPU, "--min_probability", str(cut)]
    kept = {(p[0], p[1]) for p, score in zip(pairs, scores) if score >= cut}

    capsys.readouterr()
    assert predict_pairwise.main(files) == 0
    printed = capsys.readouterr()
    lines = [ast.literal_eval(line) for line in printed.out.splitlines()]
    assert [(line["query"], line["title"]) for line in lines] == [(p[0], p[1]) for p in pairs if (p[0], p[1]) in kept]
    assert len(lines) == 5
    assert printed.err == f"11 of 16 pairs are below --min_probability {cut:g} and left out\n"

    assert main(["rank", *files, "--format", "jsonl"]) == 0
    ranked = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["query"] for line in ranked] == ["深度学习", "教育"]  # a query without titles is still told of
    assert {(line["query"], title["title"]) for line in ranked for title in line["titles"]} == kept
    for line in ranked:
        titles = [p[1] for p in pairs if p[0] == line["query"]]
        own = ranker.rank(line["query"], titles, min_probability=cut)
        assert [title["title"] for title in line["titles"]] == [found.title for found in own]

    assert predict_pairwise.main([*files[:-1], "0"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 16 and "left out" not in printed.err
    assert predict_pairwise.main([*files[:-1], "1.5"]) == 2
    with pytest.raises(UsageError, match="from 0 to 1"):
        ranker.rank("教育", ["x"], min_probability=1.5)
    best = ranker.rank("教育", titles, top_k=2, min_probability=0.0)
    assert best == ranker.rank("教育", titles)[:2]


def test_the_cross_encoders_list_is_cut_off_too(tmp_path: Path, to_rank: Path, capsys: Any) -> None:
    folder = write_ranker(tmp_path / "ce", kind="cross_encoder")
    assert predict_ce.main(["--params_path", str(folder), "--test_set", str(to_rank), *CPU]) == 0
    everything = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines()]
    cut = sorted(line["pred_prob"] for line in everything)[9] + 1e-7
    more = ["--min_probability", str(cut)]
    assert predict_ce.main(["--params_path", str(folder), "--test_set", str(to_rank), *CPU, *more]) == 0
    kept = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines()]
    assert 0 < len(kept) < len(everything)
    assert kept == [line for line in everything if line["pred_prob"] >= cut]


def test_long_texts_in_windows(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = [("深度学习", "农业" * 30 + "深度学习"), ("教育", "".join(HAN) * 3), ("法律", "教育")]
    path = tmp_path / "long.tsv"
    path.write_text("".join(f"{q}\t{t}\n" for q, t in long), encoding="utf-8")
    files = ["--params_path", str(folder), "--input_file", str(path), *CPU]
    windows = ["--windows", "mean_top_k", "--window_overlap", "5", "--window_top_k", "3"]
    assert predict_pairwise.main([*files, *windows]) == 0
    printed = capsys.readouterr()
    found = [ast.literal_eval(line)["pred_prob"] for line in printed.out.splitlines()]
    ranker = Ranker.load(folder, windows="mean_top_k", window_overlap=5, window_top_k=3)
    np.testing.assert_allclose(found, ranker.score(*[list(c) for c in zip(*long)]), atol=1e-6)
    assert printed.err == "2 pairs were scored in windows of 32 tokens that share 5\n"
    assert predict_pairwise.main(files) == 0
    printed = capsys.readouterr()
    assert printed.err == "2 pairs were cut to 32 tokens\n"
    assert ast.literal_eval(printed.out.splitlines()[2])["pred_prob"] == pytest.approx(found[2], abs=1e-6)
    assert predict_pairwise.main([*files, "--window_overlap", "5"]) == 2
    assert "--window_overlap 5 is of no use without --windows" in capsys.readouterr().err
    assert predict_pairwise.main([*files, "--windows", "max", "--window_overlap", "14"]) == 2
    assert "must be at least 0 and below 14" in capsys.readouterr().err


def test_evaluation_in_windows(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random, words = draw_words(10)
    rows = [(w, "".join(random.choice(HAN, 60)), i % 2) for w in words for i in range(4)]
    path = tmp_path / "dev.tsv"
    path.write_text("".join(f"{q}\t{t}\t{label}\n" for q, t, label in rows), encoding="utf-8")
    arguments = ["--init_from_ckpt", str(folder), "--test_file", str(path), *CPU]
    printed, noted = [], []
    for more in ([], ["--windows", "max"]):
        assert evaluate.main([*arguments, *more]) == 0
        out, err = capsys.readouterr()
        printed.append(out)
        noted.append(err)
    assert "40 pairs were cut to 32 tokens" in noted[0]  # where prediction says it, too
    assert "40 pairs were scored in windows of 32 tokens that share 8" in noted[1]
    from sklearn.metrics import roc_auc_score

    scores = Ranker.load(folder, windows="max").score([r[0] for r in rows], [r[1] for r in rows])
    assert f"eval_dev auc:{roc_auc_score([r[2] for r in rows], scores):.3f}" in printed[1]


def test_a_calibration_of_other_scores_is_noted(
    folder: Path, calibrated: Path, dev: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("教育\t法律\n", encoding="utf-8")
    files = ["--params_path", str(calibrated), "--input_file", str(path), *CPU]
    capsys.readouterr()
    assert predict_pairwise.main(files) == 0
    assert capsys.readouterr().err == ""
    for more in (["--windows", "max"], ["--max_seq_length", "16"]):
        assert predict_pairwise.main([*files, *more]) == 0
        assert "note: the ranker was calibrated with pairs of up to 32 tokens, cut" in capsys.readouterr().err
    windows = ["--windows", "max", "--max_seq_length", "16"]
    assert main(["calibrate", str(folder), str(dev), "--output", str(tmp_path / "new"), *CPU, *windows]) == 0
    assert predict_pairwise.main(["--params_path", str(tmp_path / "new"), *files[2:], *windows]) == 0
    assert "note:" not in capsys.readouterr().err
    assert Ranker.load(tmp_path / "new").info.max_seq_length == 32  # the ranker's own length stays its default


def test_a_blend_is_calibrated_like_a_ranker(tmp_path: Path) -> None:
    for number in (1, 2):
        write_ranker(tmp_path / str(number), seed=number)
    members = [load_single(tmp_path / str(number)) for number in (1, 2)]
    blend = tmp_path / "blend"
    blend.mkdir()
    save_blend(blend, members, LinearModel(np.array([0.5, 0.25]), 0.1), {}, {})
    dev = write_dev(tmp_path / "dev.tsv", blend)
    assert main(["calibrate", str(blend), str(dev), "--output", str(tmp_path / "new"), *CPU]) == 0
    ranker, queries, titles = Ranker.load(tmp_path / "new"), *[list(column) for column in zip(*PAIRS)]
    assert ranker.info.calibration and Ranker.load(blend).info.calibration is None
    expected = expit(ranker.info.calibration.apply(logit(Ranker.load(blend).score(queries, titles))))
    np.testing.assert_allclose(ranker.score(queries, titles), expected, atol=1e-5)
    assert main(["calibrate", str(tmp_path / "new"), "--remove", *CPU]) == 0
    assert Ranker.load(tmp_path / "new").info == Ranker.load(blend).info
