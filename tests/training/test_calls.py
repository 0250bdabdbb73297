"""Training from Python: its return value, a function called at each evaluation, and the command's own checks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import paddle_ranker
from paddle_ranker import Ranker, evaluate, train
from paddle_ranker.__main__ import main
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.metrics.calibration import sigmoid
from tests.conftest import REPOSITORY
from tests.tiny import HAN, write_encoder

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("same_process")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with an encoder, `triples-0.tsv`, `triples-1.tsv`, `pairs.tsv` and `dev.tsv`; return it."""
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder / "encoder")
    random = np.random.RandomState(0)
    words = ["".join(random.choice(HAN, 2)) for _ in range(16)]
    triples = [f"{word}\t论{word}\t{other}的研究\n" for word, other in zip(words, words[1:] + words[:1])]
    for number, part in enumerate((triples[:9], triples[9:])):
        (folder / f"triples-{number}.tsv").write_text("".join(part), encoding="utf-8")
    rows = [f"{word}\t{title}\t{label}\n" for word in words for title, label in ((f"论{word}", 1), ("研究", 0))]
    (folder / "pairs.tsv").write_text("".join(rows[:16]), encoding="utf-8")
    (folder / "dev.tsv").write_text("".join(rows), encoding="utf-8")
    return folder


def options(data: Path, save: Path, **changes: Any) -> dict[str, Any]:
    files = {"train": data / "triples-*.tsv", "test": data / "dev.tsv", "model": data / "encoder", "output": save}
    return {**files, "batch_size": 4, "epochs": 2, "learning_rate": 1e-3, "eval_step": 2, "device": "cpu", **changes}


def test_what_the_run_reached_is_returned_and_a_function_sees_each_evaluation(data: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    result = train(
        "pairwise", on_evaluation=lambda step, measures: seen.append((step, measures)), **options(data, tmp_path)
    )
    assert result.finished and result.steps == 8 and [step for step, _ in seen] == [2, 4, 6, 8]
    best = max(seen, key=lambda one: one[1]["auc"])
    assert result.best["auc"] == best[1]["auc"] and set(best[1]) >= {"auc", "mrr@10", "ndcg@10"}
    assert result.best["step"] in [step for step, measures in seen if measures["auc"] == best[1]["auc"]]
    assert result.best_checkpoint == tmp_path / f"model_{result.best['step']}"
    assert result.last_checkpoint == tmp_path / "model_8" and result.last == {"step": 8, **seen[-1][1]}
    assert len(Ranker.load(result.best_checkpoint).rank("深度", ["深度", "学习"])) == 2
    trained = json.loads((tmp_path / "best" / "ranker.json").read_text(encoding="utf-8"))["training"]
    assert trained["train_file"] == f"{data / 'triples-0.tsv'}:{data / 'triples-1.tsv'}" and trained["examples"] == 16


def test_tables_in_memory_are_trained_and_measured_as_files_are(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = ["query", "title", "label"]
    pairs, dev = (pandas.read_csv(data / name, sep="\t", names=columns) for name in ("pairs.tsv", "dev.tsv"))
    of_files = train("ce", **options(data, tmp_path / "files", train=data / "pairs.tsv"))
    rows = dev.to_dict("records")
    of_tables = train("ce", **options(data, tmp_path / "tables", train=pairs, test=rows))
    assert of_tables.best == of_files.best
    again = train("ce", **options(data, tmp_path / "tables", train=pairs, test=rows), resume=True)
    assert again.steps == of_tables.steps  # the rows are told to be the same
    best = of_files.best_checkpoint
    assert best is not None
    measured = evaluate(Ranker.load(best, device="cpu"), dev, baselines=False)
    assert measured.comparison.measured["ranker"]["auc"].interval.estimate == pytest.approx(of_files.best["auc"])
    capsys.readouterr()
    assert main(["evaluate", str(best), "--test", str(data / "dev.tsv"), "--baselines"]) == 0
    printed = capsys.readouterr().out
    assert evaluate(best, rows).report().splitlines()[-1] in printed
    with pytest.raises(DataError, match="title"):
        evaluate(best, [{"query": "a", "text": "b", "label": 1}])


@pytest.mark.parametrize(("what", "file"), [("pairwise", "triples-*.tsv"), ("train-ce", "pairs.tsv")])
def test_the_function_ends_the_training(
    what: str, file: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = options(data, tmp_path / "run", train=data / file)
    result = train(what, on_evaluation=lambda step, measures: step >= 4, **values)
    assert result.finished and result.steps == 4 and result.last_checkpoint == tmp_path / "run" / "model_4"
    again = train(what, on_evaluation=lambda step, measures: True, **values, resume=True)
    assert again.steps == 4  # the run was finished
    assert re.search(r"^trained 4 steps in \d+ s, all of them before$", capsys.readouterr().out, re.MULTILINE)


def test_a_failing_function_is_the_callers_error(data: Path, tmp_path: Path) -> None:
    def fail(step: int, measures: dict[str, float]) -> bool:
        raise LookupError(f"at {step}")

    with pytest.raises(LookupError, match="at 2"):
        train("pairwise", on_evaluation=fail, **options(data, tmp_path / "run"))
    assert train("pairwise", **options(data, tmp_path / "run", max_steps=1)).steps == 1  # the folder is free again


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 0}, {"loss": "rank_net"}, {"metric": "acu"}, {"warmup_proportion": 1.0}, {"force_resume": True},
     {"train": "none-*.tsv"}, {"test_file": "other.tsv"}, {"margin": -1.0}],
)  # fmt: skip
def test_options_are_checked_as_the_command_does(
    changes: dict[str, Any], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = options(data, tmp_path / "run", **changes)
    with pytest.raises(UsageError) as caught:
        train("pairwise", **values)
    typed = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    assert main(["train-pairwise", *typed]) == 2
    assert str(caught.value).replace("\n", " ").replace("--", "") in capsys.readouterr().err.replace("--", "")
    assert not (tmp_path / "run").exists()


def test_what_is_no_training_and_what_is_no_function(data: Path, tmp_path: Path) -> None:
    given = options(data, tmp_path / "run")
    for what, more, message in (
        ("pairwize", {}, "did you mean pairwise"),
        ("pairwise", {"epoch": 3}, "unknown option epoch \\(did you mean epochs"),
        ("pairwise", {"on_evaluation": 3}, "on_evaluation 3: expected a function"),
    ):
        with pytest.raises(UsageError, match=message):
            train(what, **{**given, **more})
    with pytest.raises(UsageError, match="--train is required"):
        train("pairwise", test=data / "dev.tsv")
    with pytest.raises(DataError, match=r"none\.tsv: no such file"):
        train("pairwise", **{**given, "train": data / "none.tsv"})
    assert set(paddle_ranker.__all__) >= {"Ranker", "train"}


def test_the_page_works_as_it_is_printed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").symlink_to(data / "encoder")
    (tmp_path / "mine.tsv").symlink_to(data / "triples-0.tsv")
    (tmp_path / "dev.tsv").symlink_to(data / "dev.tsv")
    page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)  # noqa: S102
    assert len(blocks) == 6 and names["result"].finished and (tmp_path / "checkpoint" / "best").is_symlink()
    assert sigmoid(names["logits"]) == pytest.approx(names["probabilities"])
    assert f"{names['best'].probability} {names['best'].logit}\n" in capsys.readouterr().out
