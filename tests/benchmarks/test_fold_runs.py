"""Cross-encoders over folds: the average of two systems by hand, and both commands on tiny data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablation, pretrained
from benchmarks.fold_runs import LINEAR, NOTHING, Harness
from benchmarks.harness.runs import System
from paddle_ranker.data.records import write_records
from tests.benchmarks.test_quality import graded_pairs
from tests.tiny import write_encoder


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """A folder that looks like the real data, with 12 train and 6 dev queries."""
    for name, pairs in (("train", graded_pairs(12, 1)), ("dev", graded_pairs(6, 2))):
        (tmp_path / "data" / "qbqtc").mkdir(parents=True, exist_ok=True)
        write_records(tmp_path / "data" / "qbqtc" / f"{name}.tsv", pairs)
    return tmp_path / "data"


@pytest.mark.unit
def test_the_average_counts_each_member_alike_and_looks_at_no_other_fold(tiny_data: Path, tmp_path: Path) -> None:
    options = pretrained.PretrainedOptions(model=NOTHING, data_dir=str(tiny_data), folds=2)
    harness = Harness(options, tmp_path)
    first, second = harness.splits[0].rows, harness.splits[1].rows
    one, two = np.zeros(48), np.zeros(48)
    one[first[0]], one[second[:2]] = 100.0, 3.0
    two[first[-1]], two[second[-2:]] = -0.01, 5.0
    blended = harness._blended("average", [System("one", (one,), (1.0,)), System("two", (two, two), (2.0, 3.0))])
    assert blended.seconds == (3.0, 4.0) and len(blended.runs) == 2
    # One of 24 is away from the rest: mean x/24, deviation x sqrt(23)/24.
    away, rest = 23 / 23**0.5, -1 / 23**0.5
    assert blended.runs[0][first[0]] == pytest.approx(away - rest)
    assert blended.runs[0][first[-1]] == pytest.approx(rest - away)
    assert blended.runs[1][first[1]] == pytest.approx(0)


@pytest.mark.unit
def test_what_is_from_nothing_does_not_hang_on_the_model(tiny_data: Path, tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder")
    other, nothing = (
        Harness(pretrained.PretrainedOptions(model=model, data_dir=str(tiny_data), folds=2), tmp_path)
        for model in (str(tmp_path / "encoder"), NOTHING)
    )
    own, same, on_ids = other.run("linear_on_own_pieces", [1, 2]), nothing.run(LINEAR, [1]), other.run(LINEAR, [1])
    assert own.name == "linear_on_own_pieces" and len(own.runs) == 1
    np.testing.assert_array_equal(own.runs[0], same.runs[0])
    assert np.abs(own.runs[0] - on_ids.runs[0]).max() > 1e-3


@pytest.mark.slow
def test_the_ablation_pairs_every_change(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        f"--model={NOTHING}", f"--data_dir={tiny_data}", "--folds=2", "--max_steps=2", "--resamples=50",
        "--changes=match,blend_linear", f"--scores_dir={tmp_path / 'runs'}", f"--json={tmp_path / 'found.json'}",
    ]  # fmt: skip
    assert ablation.main(arguments) == 0
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    figures = {s["name"]: s["measures"]["auc"]["interval"]["estimate"] for s in found["systems"]}
    assert list(figures) == ["plain", "match", LINEAR, "ranker_and_linear"]
    for change in found["changes"]:
        assert change["auc"][0] == pytest.approx(figures[change["with"]] - figures[change["without"]])
    assert [change["with"] for change in found["changes"]] == ["match", "ranker_and_linear"]
    assert figures[LINEAR] > 0.95  # the tiny data is made for it
    assert "| match embeddings " in capsys.readouterr().out
    # two folds of plain, match and the linear model, each computed once
    assert len(list((tmp_path / "runs").iterdir())) == 6
    assert pretrained.main([*arguments[:5], *arguments[6:], "--systems=plain,bm25_bigrams", "--reference=plain"]) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 8


@pytest.mark.unit
@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (ablation.main, ["--changes=size"], "--changes size: choose from match, "),
        (pretrained.main, ["--systems=plane"], "--systems plane: choose from bm25_words, "),
        (pretrained.main, ["--systems=plain,plain"], "--systems plain,plain: name each system once"),
        (
            pretrained.main,
            ["--systems=plain", "--reference=match"],
            "--reference match: is not among the systems plain",
        ),
        (pretrained.main, ["--systems=peer_1_epoch"], "--model nothing: peer_1_epoch starts from pretrained weights"),
        (pretrained.main, ["--data=kuake", "--protocol=dev"], "--protocol dev: kuake has no dev file; take cv"),
    ],
)
def test_wrong_options(
    main: object, arguments: list[str], message: str, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tiny_data / "kuake_qtr").mkdir()
    write_records(tiny_data / "kuake_qtr" / "train.tsv", graded_pairs(4, 3))
    assert callable(main)
    assert main([f"--model={NOTHING}", f"--data_dir={tiny_data}", "--folds=2", *arguments]) == 2
    assert message in capsys.readouterr().err
