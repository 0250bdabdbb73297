"""The benchmarks of trainings over folds: averages by hand, the data of each system, and the commands on tiny data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablation, distillation, mining, pretrained, qbqtc
from benchmarks.harness.runs import Harness, Split, System
from benchmarks.mining import FoldsOptions, Recipe, SmallRankers
from benchmarks.pretrained import LINEAR, NOTHING, Systems
from paddle_ranker.data.rows.records import LabeledPair, read_records, write_records
from paddle_ranker.errors import RankerError
from tests.benchmarks.conftest import graded_pairs, table_rows
from tests.tiny import write_encoder

unit, slow = pytest.mark.unit, pytest.mark.slow
MODEL = [f"--model={NOTHING}"]
TINY = ["--folds=2", "--hidden_size=16", "--max_steps=2", "--max_seq_length=24", "--resamples=50"]
TINY += ["--mine_options=--method=random"]  # the few titles share no words


@unit
def test_folds_are_joined_on_one_scale(tiny_data: Path) -> None:
    harness = Harness(FoldsOptions(data_dir=str(tiny_data)), "qbqtc", "cv", 2)
    score = np.random.default_rng(1).normal(size=48)
    fits = {"fold 1 of 2": (30.0, -5.0), "fold 2 of 2": (0.1, 7.0)}

    def train(split: Split, seed: int) -> tuple[np.ndarray, float]:
        scale, bias = fits[split.name]
        return scale * score[split.rows] + bias, 1.0

    (joined,) = harness.run("fit", [1], {}, train).runs
    for split in harness.splits:
        own = score[split.rows]
        np.testing.assert_allclose(joined[split.rows], (own - own.mean()) / own.std(), atol=1e-9)
    (alike,) = harness.run("alike", [1], {}, lambda split, seed: (np.full(len(split.rows), 3.0), 1.0)).runs
    assert not alike.any()


@unit
def test_the_average_counts_each_member_alike_and_looks_at_no_other_fold(tiny_data: Path, tmp_path: Path) -> None:
    options = pretrained.PretrainedOptions(model=NOTHING, data_dir=str(tiny_data), folds=2)
    rows = Systems(options, tmp_path)
    first, second = rows.harness.splits[0].rows, rows.harness.splits[1].rows
    one, two, other = (np.random.default_rng(seed).normal(size=48) for seed in (1, 2, 3))
    blended = rows._blended("average", [System("one", (one,), (1.0,)), System("two", (two, other), (2.0, 3.0))])
    assert blended.seconds == (3.0, 4.0) and len(blended.runs) == 2
    for run, member in zip(blended.runs, (two, other)):
        for part in (first, second):
            total = one[part] + member[part]
            np.testing.assert_allclose(run[part], (total - total.mean()) / total.std(), atol=1e-9)


@unit
def test_what_is_from_nothing_does_not_hang_on_the_model(tiny_data: Path, tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder")
    other, nothing = (
        Systems(pretrained.PretrainedOptions(model=model, data_dir=str(tiny_data), folds=2), tmp_path)
        for model in (str(tmp_path / "encoder"), NOTHING)
    )
    own, same, on_ids = other.run("linear_on_own_pieces", [1, 2]), nothing.run(LINEAR, [1]), other.run(LINEAR, [1])
    assert own.name == "linear_on_own_pieces" and len(own.runs) == 1
    np.testing.assert_array_equal(own.runs[0], same.runs[0])
    assert np.abs(own.runs[0] - on_ids.runs[0]).max() > 1e-3


@unit
def test_a_file_is_measured_as_a_known_data_set(tiny_data: Path, tmp_path: Path) -> None:
    known, named = (
        Systems(pretrained.PretrainedOptions(model=NOTHING, data_dir=str(tiny_data), data=data, folds=2), tmp_path)
        for data in ("qbqtc", str(tiny_data / "qbqtc" / "train.tsv"))
    )
    np.testing.assert_array_equal(known.run(LINEAR, [1]).runs[0], named.run(LINEAR, [1]).runs[0])


@slow
def test_the_ablation_pairs_every_change(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--model={NOTHING}", f"--data_dir={tiny_data}", "--folds=2", "--max_steps=2", "--resamples=50",
                 f"--scores_dir={tmp_path / 'runs'}"]  # fmt: skip
    assert ablation.main([*arguments, "--changes=match,blend_linear"]) == 0
    systems, _, changes = capsys.readouterr().out.partition("\n\n| change")
    rows = {name: [float(cell.split()[0]) for cell in cells[:2]] for name, cells in table_rows(systems).items()}
    assert list(rows) == ["plain", "match", LINEAR, "ranker_and_linear"]
    assert rows[LINEAR][0] > 0.95  # the tiny data is made for it
    gaps = table_rows("| change" + changes)
    average = "the average against the linear model alone"
    for what, with_it, without in (("match embeddings", "match", "plain"), (average, "ranker_and_linear", LINEAR)):
        assert float(gaps[what][0].split()[0]) == pytest.approx(rows[with_it][0] - rows[without][0], abs=2e-3)
    # Two folds of plain, match and the linear model, each computed once.
    assert len(list((tmp_path / "runs").iterdir())) == 6
    assert pretrained.main([*arguments, "--systems=plain,bm25_bigrams", "--reference=plain"]) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 8


def rankers_of(data: Path, folder: Path) -> tuple[SmallRankers, Split]:
    options = FoldsOptions(data_dir=str(data))
    harness = Harness(options, "qbqtc", "cv", 2)
    folder.mkdir()
    return SmallRankers(folder, harness.splits[0], harness.of(harness.splits[0]), options, seed=1), harness.splits[0]


@unit
def test_what_is_held_out_is_not_learned_from(tiny_data: Path, tmp_path: Path) -> None:
    rankers, split = rankers_of(tiny_data, tmp_path / "w")
    learned, held_out = read_records(rankers.learn, LabeledPair), read_records(rankers.held_out, LabeledPair)
    assert not {pair.query for pair in learned} & {pair.query for pair in held_out}
    assert len(held_out) == len(split.rows) and len(learned) + len(held_out) == 48


@unit
def test_a_file_is_made_once_and_a_failed_command_is_an_error(tiny_data: Path, tmp_path: Path) -> None:
    rankers, _ = rankers_of(tiny_data, tmp_path / "w")
    calls = []

    def command(arguments: object) -> int:
        calls.append(arguments)
        Path(list(arguments)[1]).write_text("x")  # type: ignore[call-overload]
        return 0

    path = rankers.file("a.tsv", command, "--out", "{out}")
    assert rankers.file("a.tsv", command, "--out", "{out}") == path and calls == [["--out", str(path)]]
    with pytest.raises(RankerError, match=r"b\.tsv could not be made"):
        rankers.file("b.tsv", lambda arguments: 1)


@unit
def test_mined_files_hold_the_same_positives_and_no_judged_negative_row(tiny_data: Path, tmp_path: Path) -> None:
    rankers, _ = rankers_of(tiny_data, tmp_path / "w")
    rows = mining.Mining(mining.MiningOptions(mine_options="--words=bigram"))
    positives = [pair for pair in read_records(rankers.learn, LabeledPair) if pair.label >= 1]
    for name, more in (("random", ["--method", "random"]), ("mined", []), ("mined_top", ["--sample", "top"])):
        found = read_records(rows._mine(name, rankers, *more), LabeledPair)
        assert [pair for pair in found if pair.label >= 1] == positives
        answers = {(pair.query, pair.title) for pair in positives}
        assert not {(pair.query, pair.title) for pair in found if pair.label == 0} & answers


@slow
def test_a_ranker_is_trained_once_and_its_last_checkpoint_scores(tiny_data: Path, tmp_path: Path) -> None:
    rankers, split = rankers_of(tiny_data, tmp_path / "w")
    recipe = Recipe(1, 16, 1e-3, 1, ("--loss=bce", "--max_steps=2"))
    scores, seconds = rankers.train("a", rankers.learn, recipe)
    assert scores.shape == (len(split.rows),) and seconds > 0
    assert rankers.train("a", rankers.learn, recipe)[0] is scores
    assert (rankers.ranker("a") / "ranker.json").is_file()


@slow
@pytest.mark.parametrize(
    "module, count, more",
    [
        (mining, 5, ["--guard=--max_score_ratio=1"]),
        (distillation, 5, ["--teacher_layers=1", "--teacher_hidden_size=32"]),
    ],
)
def test_commands(
    module: object, count: int, more: list[str], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"--data_dir={tiny_data}", *TINY, *more, f"--scores_dir={tmp_path / 'runs'}"]
    assert module.main(arguments) == 0  # type: ignore[attr-defined]
    first = capsys.readouterr().out
    assert len(table_rows(first)) == count
    assert f"{module.REFERENCE} ahead, nDCG@10" in first and "on 48 pairs of 12 queries" in first  # type: ignore[attr-defined]

    assert module.main(arguments) == 0  # type: ignore[attr-defined]  # from the cache
    again = capsys.readouterr().out
    assert table_rows(again) == table_rows(first) and "global step" not in again


@unit
@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (qbqtc.main, ["--systems=bm25"], "--systems bm25: choose from"),
        (qbqtc.main, ["--systems=ranker,ranker"], "name each system once"),
        (qbqtc.main, ["--seeds=a"], "--seeds a: give whole numbers"),
        (qbqtc.main, ["--protocol=test"], "--protocol test: choose from dev, cv"),
        (ablation.main, [*MODEL, "--changes=size"], "--changes size: choose from match, "),
        (pretrained.main, [*MODEL, "--systems=plane"], "--systems plane: choose from bm25_words, "),
        (pretrained.main, [*MODEL, "--systems=plain", "--reference=match"], "--reference match: is not among the"),
        (pretrained.main, [*MODEL, "--systems=peer_2_epochs"], "--model nothing: peer_2_epochs starts from pretrained"),
        (pretrained.main, [*MODEL, "--data=kuake", "--protocol=dev"], "--protocol dev: kuake has no dev file; take cv"),
        (mining.main, ["--systems=random,nothing"], "--systems nothing: choose from random, mined"),
        (mining.main, ["--systems=random"], "--reference mined: is not among the systems random"),
    ],
)
def test_wrong_options(
    main: Callable[[list[str]], int],
    arguments: list[str],
    message: str,
    tiny_data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tiny_data / "kuake_qtr").mkdir()
    write_records(tiny_data / "kuake_qtr" / "train.tsv", graded_pairs(4, 3))
    assert main([f"--data_dir={tiny_data}", "--folds=2", *arguments]) == 2
    assert message in capsys.readouterr().err
