"""Calibrating, cutting off and long texts through the commands."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from cross_encoder import evaluate as evaluate_ce
from ernie_matching import evaluate, predict_pairwise, train_pairwise
from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.metrics.auc import roc_auc
from paddle_ranker.metrics.calibration import FEW_QUERIES
from paddle_ranker.metrics.calibration_fitting import calibration_measures, fit, fit_out_of_fold
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from tests.conftest import Call
from tests.export_cases import write_two_members
from tests.tiny import HAN, PAIRS, QUERIES, TITLES, change_json, draw_words, write_ranker

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


def test_every_scorer_applies_it(folder: Path, calibrated: Path, dev: Path, tmp_path: Path, call: Call) -> None:
    found = RankerInfo.read(calibrated)
    assert found and found.calibration
    plain = Ranker.load(folder).score(QUERIES, TITLES)
    expected = expit(found.calibration.apply(logit(plain)))
    ranker = Ranker.load(calibrated)
    np.testing.assert_allclose(ranker.score(QUERIES, TITLES), expected, atol=1e-5)
    assert ranker.rank(QUERIES[0], TITLES[:1])[0].probability == pytest.approx(expected[0], abs=1e-5)
    assert np.abs(expected - plain).max() > 0.05
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"{q}\t{t}\n" for q, t in PAIRS), encoding="utf-8")
    files = ["--params_path", calibrated, "--input_file", pairs, *CPU]
    printed = [ast.literal_eval(line)["pred_prob"] for line in call(predict_pairwise.main, *files)[1].splitlines()]
    np.testing.assert_allclose(printed, expected, atol=1e-5)
    lines = [json.loads(line) for line in call(main, "rank", *files, "--format", "jsonl")[1].splitlines()]
    np.testing.assert_allclose([line["titles"][0]["probability"] for line in lines], expected, atol=1e-5)
    measured = [call(evaluate.main, "--model", source, "--test", dev, *CPU)[1] for source in (folder, calibrated)]
    figures = [re.findall(r"eval_dev auc:\S+|margin_loss: \S+", printed) for printed in measured]
    assert figures[0] == figures[1] and len(figures[0]) == 2  # the order is the same, and what it was trained by


def test_the_cross_encoders_evaluation_prints_calibrated_cross_entropy(tmp_path: Path, call: Call) -> None:
    folder = write_ranker(tmp_path / "ce", kind="cross_encoder")
    dev = write_dev(tmp_path / "dev.tsv", folder)
    assert call(main, "calibrate", folder, dev, *CPU)[0] == 0  # into the folder itself
    info = RankerInfo.read(folder)
    assert info and info.calibration
    _, printed, _ = call(evaluate_ce.main, "--model", folder, "--test", dev, *CPU)
    [found] = re.findall(r"cross_entropy: (\S+)", printed)
    assert float(found) == pytest.approx(info.calibration.figures["fitted"]["cross_entropy"], abs=1e-4)


def test_in_place_and_away_again(tmp_path: Path, call: Call) -> None:
    own = write_ranker(tmp_path / "own")
    dev = write_dev(tmp_path / "dev.tsv", own, shifted=False)
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    link = tmp_path / "best"
    link.symlink_to("own")
    temperature = ["--method", "temperature", "--folds", 3]
    status, printed, _ = call(main, "calibrate", link, *temperature, dev, *CPU)  # options between the two are fine
    assert status == 0 and "temperature, out of fold (3 folds of queries)" in printed
    assert re.search(r"calibration error out of fold: 0\.\d{4} \[0\.\d{4}, 0\.\d{4}\] \(95% over queries", printed)
    info = RankerInfo.read(own)
    assert info and info.calibration and info.calibration.shift == 0 and info.calibration.method == "temperature"
    changed = {path.name for path in own.iterdir() if before.get(path.name) != path.read_bytes()}
    assert changed == {"ranker.json", "README.md"}
    again = Ranker.load(own).info.calibration
    assert call(main, "calibrate", own, dev, *temperature, *CPU)[0] == 0  # to raw logits again, not to its own
    assert Ranker.load(own).info.calibration == again
    assert call(main, "calibrate", own / "model_state.pdparams", "--remove", *CPU)[0] == 0
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    status, printed, _ = call(main, "calibrate", own, "--remove", *CPU)
    assert status == 0 and "has no calibration" in printed


def test_a_ranker_that_orders_the_wrong_way_round(folder: Path, tmp_path: Path, call: Call) -> None:
    status, _, errors = call(main, "calibrate", folder, write_dev(tmp_path / "dev.tsv", folder, sign=-1.0), *CPU)
    assert status == 1 and "orders these pairs the wrong way round" in errors


@pytest.mark.parametrize("queries", [16, FEW_QUERIES])
def test_few_queries_are_advised_against(folder: Path, tmp_path: Path, call: Call, queries: int) -> None:
    dev = write_dev(tmp_path / "dev.tsv", folder, queries=queries)
    line = ["calibrate", folder, dev, "--output", tmp_path / "new", *CPU]
    status, printed, errors = call(main, *line)
    few, card = queries < FEW_QUERIES, (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert status == 0 and "out of fold" in printed and ("So few queries do not tell" in card) == few
    assert ("advice: leave the ranker as trained" in errors) == few == bool(errors)
    status, _, errors = call(main, *line)
    assert status == 1 and "is there already" in errors


def test_training_on_says_that_it_leaves_the_calibration_out(calibrated: Path, tmp_path: Path, call: Call) -> None:
    _, words = draw_words(12)
    (tmp_path / "train.tsv").write_text("".join(f"{w}\t论{w}\t的研究\n" for w in words), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("".join(f"{w}\t论{w}\t1\n{w}\t的\t0\n" for w in words), encoding="utf-8")
    files = ["--train_file", tmp_path / "train.tsv", "--test_file", tmp_path / "dev.tsv", "--save_dir", tmp_path / "c"]
    status, printed, _ = call(train_pairwise.main, *files, "--init_from_ckpt", calibrated, "--epochs", 1, *CPU)
    assert status == 0 and f"the calibration of {calibrated} is left out" in printed
    info = RankerInfo.read(tmp_path / "c" / "last")
    assert info and info.calibration is None


def test_transformers_get_it_folded_into_the_head(tmp_path: Path, call: Call) -> None:
    folder = write_ranker(tmp_path / "ranker", match=False)
    change_json(folder / "ranker.json", calibration={"method": "platt", "scale": 0.25, "shift": 1.5})
    status, printed, _ = call(main, "convert", folder, tmp_path / "hf", "--to", "hf")
    assert status == 0 and "folded the calibration into the head" in printed
    assert call(main, "convert", tmp_path / "hf", tmp_path / "back")[0] == 0
    back = Ranker.load(tmp_path / "back")
    assert back.info.calibration is None and back.info.training["folded into the head"] == "sigmoid(0.25 * logit + 1.5)"
    np.testing.assert_allclose(back.score(QUERIES, TITLES), Ranker.load(folder).score(QUERIES, TITLES), atol=1e-6)


@pytest.fixture(scope="module")
def to_rank(folder: Path) -> Path:
    titles = ["".join(np.roll(HAN, shift)[: 3 + shift]) for shift in range(8)]
    path = folder.parent / "to_rank.tsv"
    path.write_text("".join(f"{q}\t{t}\n" for q in ("深度学习", "教育") for t in titles), encoding="utf-8")
    return path


def test_a_list_is_cut_off_at_a_probability(folder: Path, to_rank: Path, call: Call) -> None:
    pairs = [tuple(line.split("\t")) for line in to_rank.read_text(encoding="utf-8").splitlines()]
    ranker = Ranker.load(folder)
    scores = ranker.score(*[list(column) for column in zip(*pairs)])
    cut = float(np.sort(scores)[10] + np.sort(scores)[11]) / 2  # five of sixteen stay
    files = ["--params_path", folder, "--input_file", to_rank, *CPU, "--min_probability"]
    kept = [pair for pair, score in zip(pairs, scores) if score >= cut]
    status, printed, errors = call(predict_pairwise.main, *files, cut)
    lines = [ast.literal_eval(line) for line in printed.splitlines()]
    assert status == 0 and [(line["query"], line["title"]) for line in lines] == kept and len(kept) == 5
    assert errors == f"11 of 16 pairs are below --min_probability {cut:g} and left out\n"
    ranked = [json.loads(line) for line in call(main, "rank", *files, cut, "--format", "jsonl")[1].splitlines()]
    assert [line["query"] for line in ranked] == ["深度学习", "教育"]  # a query without titles is still told of
    assert {(line["query"], title["title"]) for line in ranked for title in line["titles"]} == set(kept)
    titles = [title for query, title in pairs if query == "教育"]
    own = ranker.rank("教育", titles, min_probability=cut)
    assert [title["title"] for title in ranked[1]["titles"]] == [found.title for found in own]
    _, printed, errors = call(predict_pairwise.main, *files, 0)
    assert len(printed.splitlines()) == 16 and "left out" not in errors
    best = ranker.rank("教育", titles, top_k=2, min_probability=0.0)
    assert best == ranker.rank("教育", titles)[:2]


def test_long_texts_in_windows(folder: Path, tmp_path: Path, call: Call) -> None:
    long = [("深度学习", "农业" * 30 + "深度学习"), ("教育", "".join(HAN) * 3), ("法律", "教育")]
    path = tmp_path / "long.tsv"
    path.write_text("".join(f"{q}\t{t}\n" for q, t in long), encoding="utf-8")
    files = ["--params_path", folder, "--input_file", path, *CPU]
    windows = ["--windows", "mean_top_k", "--window_overlap", "5", "--window_top_k", "3"]
    status, printed, errors = call(predict_pairwise.main, *files, *windows)
    assert (status, errors) == (0, "2 pairs were scored in windows of 32 tokens that share 5\n")
    found = [ast.literal_eval(line)["pred_prob"] for line in printed.splitlines()]
    ranker = Ranker.load(folder, windows="mean_top_k", window_overlap=5, window_top_k=3)
    np.testing.assert_allclose(found, ranker.score(*[list(c) for c in zip(*long)]), atol=1e-6)
    status, printed, errors = call(predict_pairwise.main, *files)
    assert (status, errors) == (0, "2 pairs were cut to 32 tokens\n")
    assert ast.literal_eval(printed.splitlines()[2])["pred_prob"] == pytest.approx(found[2], abs=1e-6)


def test_evaluation_in_windows(folder: Path, tmp_path: Path, call: Call) -> None:
    random, words = draw_words(10)
    rows = [(w, "".join(random.choice(HAN, 60)), i % 2) for w in words for i in range(4)]
    path = tmp_path / "dev.tsv"
    path.write_text("".join(f"{q}\t{t}\t{label}\n" for q, t, label in rows), encoding="utf-8")
    arguments = ["--init_from_ckpt", folder, "--test_file", path, *CPU]
    assert "40 pairs were cut to 32 tokens" in call(evaluate.main, *arguments)[2]  # where prediction says it, too
    _, printed, errors = call(evaluate.main, *arguments, "--windows", "max")
    assert "40 pairs were scored in windows of 32 tokens that share 8" in errors
    scores = Ranker.load(folder, windows="max").score([r[0] for r in rows], [r[1] for r in rows])
    assert f"eval_dev auc:{roc_auc([r[2] for r in rows], scores):.3f}" in printed


def test_a_calibration_of_other_scores_is_noted(
    folder: Path, calibrated: Path, dev: Path, tmp_path: Path, call: Call
) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("教育\t法律\n", encoding="utf-8")
    files, windows = ["--input_file", path, *CPU], ["--windows", "max", "--max_seq_length", 16]
    assert call(main, "calibrate", folder, dev, "--output", tmp_path / "new", *CPU, *windows)[0] == 0
    for ranker, more, is_noted in (
        (calibrated, [], False),
        (calibrated, windows[:2], True),
        (calibrated, windows[2:], True),
        (tmp_path / "new", windows, False),
    ):
        status, _, errors = call(predict_pairwise.main, "--params_path", ranker, *files, *more)
        assert status == 0 and ("the ranker was calibrated with pairs of up to 32 tokens, cut" in errors) == is_noted
    assert Ranker.load(tmp_path / "new").info.max_seq_length == 32  # the ranker's own length stays its default


def test_it_is_fitted_to_what_searches_find(folder: Path, tmp_path: Path, call: Call) -> None:
    dev, index = write_dev(tmp_path / "dev.tsv", folder), tmp_path / "index"
    queries, titles, labels = columns(dev)
    known = dict(zip(zip(queries, titles), labels))
    documents = [Document(f"{n}", title, {"name": query}) for n, (query, title) in enumerate(known)]
    documents += [Document(f"u{one.id}", one.text[::-1], one.fields) for one in documents[::5]]  # without labels
    schema = Schema((Field("name", "text", title=True),), template="{text}")
    with Collection.create(index, IndexInfo(WordsInfo("bigram"), None, schema=schema)) as collection:
        collection.writer.add(documents)
    with SearchEngine.open(index, SearchSettings(rank_top=20), ranker=folder) as engine:
        found = engine.run([*dict.fromkeys(queries)], top_k=20)
    rows = [(one.query.text, result.text, result.logit) for one in found for result in one.results()]
    there = np.array([(query, text) in known for query, text, _ in rows])
    given = np.array([known.get((query, text), 0.0) for query, text, _ in rows])
    logits = np.array([logit for _, _, logit in rows], float)
    line = ["calibrate", folder, dev, "--index", index, "--rank_top", 20, *CPU]
    for name, kept in (("irrelevant", np.ones(len(rows), bool)), ("left_out", there)):
        status, printed, errors = call(main, *line, "--unjudged", name, "--output", tmp_path / name)
        assert status == 0, errors
        assert f"{len(rows):,} documents found for 60 queries, {there.sum():,} of them with a label" in printed
        made = Ranker.load(tmp_path / name).info.calibration
        expected = fit("platt", given[kept], logits[kept])
        assert made and (made.scale, made.shift) == pytest.approx((expected.scale, expected.shift), rel=1e-3, abs=1e-3)
        lists = [np.sort(made.apply(np.array([*one.ranking.logits.values()]))) for one in found]
        assert made.searched and made.searched.top == 20
        assert made.searched.tenth == pytest.approx(sorted(one[-min(10, len(one))] for one in lists), abs=1e-3)
        assert made.searched.spread == pytest.approx(sorted(one.std() for one in lists), abs=1e-3)
        assert made.fitted_on["pairs"] == kept.sum() and made.fitted_on["index"] == "index"
    assert call(main, "calibrate", folder, dev, "--rank_top", 20, *CPU)[2].count("add --index") == 1


def test_a_blend_is_calibrated_like_a_ranker(tmp_path: Path, call: Call) -> None:
    blend = write_two_members(tmp_path / "blend")
    dev = write_dev(tmp_path / "dev.tsv", blend)
    assert call(main, "calibrate", blend, dev, "--output", tmp_path / "new", *CPU)[0] == 0
    before, ranker = Ranker.load(blend), Ranker.load(tmp_path / "new")
    assert ranker.info.calibration and before.info.calibration is None
    expected = expit(ranker.info.calibration.apply(logit(before.score(QUERIES, TITLES))))
    np.testing.assert_allclose(ranker.score(QUERIES, TITLES), expected, atol=1e-5)
    assert call(main, "calibrate", tmp_path / "new", "--remove", *CPU)[0] == 0
    assert Ranker.load(tmp_path / "new").info == before.info
