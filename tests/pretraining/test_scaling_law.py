"""Scaling laws: the fit against known laws, the ladder against counts by hand, and the command."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paddle_ranker.errors import CheckpointError, DataError, UsageError
from paddle_ranker.storage.atomic import UNFINISHED
from pretraining import ladder, scaling_law
from pretraining.corpus import Corpus
from pretraining.ladder import Budget, Cost, Rung, ScalingLawOptions, Size, plan_ladder, refuse_repeats
from pretraining.mlm_options import TrainMlmOptions
from pretraining.power_law import LossLaw, envelope, fit_compute_law, fit_loss_law, forecast, gamma_interval
from tests.checkout import IS_MODERN
from tests.pretraining_runs import write_corpus

unit = pytest.mark.unit

SIZES, COUNTS = [5e4, 1e5, 2e5, 4e5], [1e5, 2e5, 4e5, 8e5]
N, D = (grid.ravel() for grid in np.meshgrid(SIZES, COUNTS))
LAW = LossLaw(floor=2.0, a=30.0, alpha=0.3, b=200.0, beta=0.4)
LARGER = (1e6, 1.6e6)


def noisy(share: float, seed: int = 0) -> np.ndarray:
    losses: np.ndarray = LAW.loss(N, D) * np.exp(share * np.random.RandomState(seed).randn(len(N)))
    return losses


@unit
def test_a_law_by_hand() -> None:
    law = LossLaw(floor=1.0, a=2.0, alpha=0.5, b=3.0, beta=1.0)
    assert law.loss([4, 16], [3, 6]).tolist() == pytest.approx([1 + 1 + 1, 1 + 0.5 + 0.5])
    assert law.best_parameters_exponent == pytest.approx(2 / 3)


@unit
@pytest.mark.parametrize(
    ("law", "n", "d"),
    [
        (LAW, N, D),
        # The constants published by Hoffmann et al. (2022), at sizes and token counts like theirs.
        (LossLaw(1.69, 406.4, 0.34, 410.7, 0.28), 2000 * N, 100000 * D),
        (LossLaw(0.5, 900.0, 0.7, 20.0, 0.1), N, D),
    ],
)
def test_the_constants_come_back_from_exact_losses(law: LossLaw, n: np.ndarray, d: np.ndarray) -> None:
    found = fit_loss_law(n, d, law.loss(n, d))
    assert dataclasses.astuple(found)[:5] == pytest.approx(dataclasses.astuple(law)[:5], rel=1e-4)
    assert found.undetermined == ()


@unit
def test_a_failed_run_hardly_moves_the_fit() -> None:
    losses = LAW.loss(N, D)
    losses[5] *= 1.3
    robust, squares = fit_loss_law(N, D, losses), fit_loss_law(N, D, losses, delta=1e3)
    truth = LAW.loss(N, D)
    others = np.arange(len(N)) != 5
    assert np.abs(robust.loss(N, D) - truth)[others].max() < 3e-3
    assert np.abs(squares.loss(N, D) - truth)[others].max() > 0.03


@unit
def test_intervals_hold_the_truth_and_narrow_with_the_noise() -> None:
    widths = []
    truth = {"E": 2.0, "A": 30.0, "alpha": 0.3, "B": 200.0, "beta": 0.4, "best_parameters_exponent": 0.4 / 0.7}
    order = np.random.RandomState(1).permutation(len(N))
    for share in (0.01, 0.002, 0.0):
        losses = noisy(share)
        law = fit_loss_law(N, D, losses)
        assert fit_loss_law(N[order], D[order], losses[order]).loss(*LARGER) == pytest.approx(
            law.loss(*LARGER), rel=1e-5
        )
        told = forecast(law, N, D, losses, at=LARGER, resamples=40 if share else 10)
        assert set(told.constants) == set(truth)
        for name, value in truth.items():
            assert not share or told.constants[name].low <= value <= told.constants[name].high, name
        assert told.loss.estimate == pytest.approx(float(law.loss(*LARGER)))
        assert not share or told.loss.low < LAW.loss(*LARGER) < told.loss.high
        widths.append(told.loss.high - told.loss.low)
    assert widths[1] < widths[0] / 2 and widths[2] < 1e-4  # exact losses leave no doubt
    one, other = (forecast(law, N, D, losses, at=LARGER, resamples=5) for _ in range(2))
    assert one == other


@unit
def test_a_constant_that_the_runs_do_not_determine_is_named() -> None:
    same = 2.0 + 200.0 * D**-0.4  # the same for all sizes
    assert {"alpha", "E"} & set(fit_loss_law(N, D, same + 1e-9 * N**0.1).undetermined)
    steep = 2.0 + (6e4 / N) ** 9 + 200.0 * D**-0.4
    assert "alpha" in fit_loss_law(N, D, steep).undetermined


@unit
@pytest.mark.parametrize(
    ("floor", "exponent", "noise", "determined"),
    [(1.8, 0.34, 0.003, True), (0.3, 0.34, 0.003, True), (0.0, 0.34, 0.003, False), (1.8, 0.05, 0.01, False)],
)
def test_a_floor_that_the_runs_do_not_determine_is_named(
    floor: float, exponent: float, noise: float, determined: bool
) -> None:
    n, d = (grid.ravel() for grid in np.meshgrid([1e6, 3e6, 1e7, 3e7], [1e7, 1e8, 1e9, 1e10]))
    losses = LossLaw(floor, 400.0, exponent, 400.0, 0.28 if exponent > 0.1 else exponent).loss(n, d)
    found = fit_loss_law(n, d, losses * np.exp(noise * np.random.default_rng(0).standard_normal(len(n))))
    assert ("E" in found.undetermined) is not determined, found


@unit
def test_the_envelope_by_hand() -> None:
    compute = [1, 2, 2, 4, 8, 8, 16]
    losses = [5, 4, 6, 4, 3, 3, 3.5]
    assert envelope(compute, losses).tolist() == [True, True, False, False, True, False, False]


@unit
def test_the_compute_law_goes_through_the_envelope() -> None:
    compute = np.array([1e9, 4e9, 1.6e10, 6.4e10, 1e10, 6e10])
    losses = np.concatenate([8 * compute[:4] ** -0.05, [9.0, 9.0]])  # cheaper runs beat the last two
    law = fit_compute_law(compute, losses)
    assert law is not None and law.frontier.tolist() == [True] * 4 + [False] * 2
    assert (law.scale, law.gamma) == pytest.approx((8.0, 0.05))
    assert law.loss(1e12) == pytest.approx(8 * 1e12**-0.05)
    assert fit_compute_law(compute[[0, 1, 4]], losses[[0, 1, 4]]) is None
    interval = gamma_interval(law, compute, losses, resamples=50)
    assert interval is None or interval.low == pytest.approx(0.05)  # the losses are exact, whatever is drawn
    many = np.geomspace(1e9, 1e12, 12)
    exact = fit_compute_law(many, 8 * many**-0.05)
    assert exact is not None
    interval = gamma_interval(exact, many, 8 * many**-0.05, resamples=50)
    assert interval is not None and (interval.low, interval.high) == pytest.approx((0.05, 0.05))


@unit
@pytest.mark.parametrize(
    ("n", "d", "losses", "words"),
    [
        (N[:5], D[:5], LAW.loss(N, D)[:5], "too few runs to fit: 5 of 4 sizes and 2 token counts"),
        (N[:8], D[:8], LAW.loss(N, D)[:8], "8 of 4 sizes and 2 token counts"),
        (N, D, np.where(N == 5e4, np.nan, 3.0), "a run has the value nan"),
        (N, D, np.where(N == 5e4, 0.0, 3.0), "a run has the value 0.0"),
        (N, D[1:], LAW.loss(N, D), "one value per run"),
    ],
)
def test_what_cannot_be_fitted_is_refused(n: Any, d: Any, losses: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        fit_loss_law(n, d, losses)


@unit
def test_a_size_by_hand() -> None:
    # One layer, 2 wide: attention 4 (2 x 2 + 2), feed-forward 2 x 8 + 8 + 8 x 2 + 2, two LayerNorms of 2 x 2.
    size = Size.parse("1x2")
    assert size.parameters == 24 + 42 + 8
    # Forward: 2 x 74; attention 4 x 3 x 2; half the tokens masked: 2 (2 x 2 + 5 x 2) / 2. Backward twice that.
    assert size.flops_per_token(length=3, vocab_size=5, masked_share=0.5) == 3 * (148 + 24 + 14)
    for text in ("4", "x4", "0x4", "4x", "4x8x1", "a4x8"):
        with pytest.raises(UsageError, match="give LAYERSxWIDTH"):
            Size.parse(text)


@pytest.mark.parity
@pytest.mark.parametrize("text", ["1x16", "3x48", "2x100"])
def test_its_parameters_are_those_of_the_network(text: str, tmp_path: Path) -> None:
    from pretraining.mlm_start import config_named
    from pretraining.model import MaskedLanguageModel

    size = Size.parse(text)
    (tmp_path / "shape.json").write_text(json.dumps(size.shape(32)), encoding="utf-8")
    network = MaskedLanguageModel(config_named(str(tmp_path / "shape.json"), 11, 0, "ernie"))
    assert size.parameters == sum(int(p.size) for p in network.encoder.encoder.parameters())


COSTS = {Size(1, 16): Cost(1, 3), Size(1, 32): Cost(2, 4), Size(2, 32): Cost(3, 5), Size(4, 64): Cost(10, 6)}


def planned(budget: float, seeds: Sequence[int] = (7,), **changes: Any) -> Any:
    *sizes, held_out = COSTS
    given = Budget(budget, **{"unit": "seconds", **changes})
    return plan_ladder(sizes, held_out, COSTS, given, token_counts=3, seeds=seeds)


@unit
def test_a_ladder_by_hand() -> None:
    # One step of the shortest run: (1 + 2 + 3) (1 + 2 + 4) and 10 x 2 x 4; fixed costs 3 (3 + 4 + 5) + 6.
    ladder = planned(122 * 25 + 42)
    assert [(str(rung.size), rung.steps) for rung in ladder.rungs] == [
        (size, steps) for size in ("1x16", "1x32", "2x32") for steps in (25, 50, 100)
    ]
    assert ladder.held_out == Rung(Size(4, 64), 200, 7)
    assert planned(122 * 25 + 41).held_out.steps == 192
    assert planned(122 * 25 + 42, spent=1).held_out.steps == 192


@unit
def test_seeds_share_the_budget() -> None:
    ladder = planned(5000, seeds=[7, 8])
    assert len({rung.name for rung in ladder.rungs}) == 18
    cost = sum(COSTS[rung.size].step * rung.steps + COSTS[rung.size].fixed for rung in (*ladder.rungs, ladder.held_out))
    assert cost <= 5000 < cost + 2 * 42 + 80


@unit
def test_a_budget_that_is_too_small_says_what_is_enough() -> None:
    with pytest.raises(UsageError, match=r"a budget of 1\.67 minutes is too small") as error:
        planned(100, unit="minutes", scale=1 / 60)
    enough = float(re.search(r"steps take ([\d.]+);", str(error.value))[1])  # type: ignore[index]
    assert planned(60 * enough).rungs[0].steps == 20
    with pytest.raises(UsageError):
        planned(60 * enough * 0.95)


@unit
def test_tokens_that_would_repeat_are_refused() -> None:
    ladder = planned(122 * 25 + 42)
    refuse_repeats(ladder, sequences=1600, batch_size=8, tokens=1)
    with pytest.raises(DataError, match=r"12,345 tokens.* 2\.0 times as many: tokens would repeat"):
        refuse_repeats(ladder, sequences=800, batch_size=8, tokens=12345)


@unit
def test_minutes_become_steps_by_the_speed_that_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pretraining import ladder as ladders
    from pretraining import train_mlm

    speeds = {"2x64": 800.0, "2x96": 400.0, "2x128": 200.0, "4x128": 100.0, "4x192": 50.0}  # sequences per second
    clock = [100.0]

    def train(options: TrainMlmOptions) -> Any:
        assert Path(options.save_dir).name.startswith(UNFINISHED)  # otherwise a kill would leave it there for good
        speed = speeds[Path(options.config).stem]
        clock[0] += options.max_steps * options.batch_size / speed + 0.5
        return SimpleNamespace(steps=options.max_steps, examples_per_second=speed)

    monkeypatch.setattr(train_mlm, "train", train)
    monkeypatch.setattr(ladders.time, "monotonic", lambda: clock[0])
    options = ScalingLawOptions(train_files=("a.txt",), budget_minutes=4.0)
    training = TrainMlmOptions(train_files=("a.txt",), tokenizer="tokenizer", batch_size=8)
    runs = ladders.Runs(tmp_path, options, training, sequences=10**6, tokens=10**8, vocab_size=100, identity={})
    ladder = runs.plan(started=90.0)
    measuring = 10 + 30 * 8 * (1 / 800 + 1 / 400 + 1 / 200 + 1 / 100 + 1 / 50) + 5 * 0.5
    # A step of the shortest: 8 sequences, 7 times for the counts of the ladder, 8 times for the held-out run.
    a_step = 8 * (7 * (1 / 800 + 1 / 400 + 1 / 200 + 1 / 100) + 8 / 50)
    assert ladder.rungs[0].steps == int((240 - measuring - 13 * 0.5) / a_step)
    monkeypatch.setattr(train_mlm, "train", None)
    assert runs.plan(started=0.0) == ladder  # a plan stays, whatever the machine does later
    for damaged in ("{}", "[]", '{"rungs": []}', '{"rungs": [["4x", 1, 1]]}', '{"rungs": [["4x128", "a", 1]]}'):
        (tmp_path / "plan.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=r"plan\.json: damaged .*; remove it, and it will be made again"):
            runs.plan(started=0.0)
    folder = tmp_path / "runs" / ladder.held_out.name
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"loss": 1.5}')
    with pytest.raises(CheckpointError, match=r"result\.json: damaged"):
        runs.result(ladder.held_out)


@unit
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "--budget_minutes or --budget_flops"),
        ({"budget_minutes": 1.0, "budget_flops": 1.0}, "not both"),
        ({"budget_minutes": 0.0}, "must be above 0"),
        ({"budget_minutes": 1.0, "sizes": ("2x64", "2x96")}, "too few to fit"),
        ({"budget_minutes": 1.0, "sizes": ("2x64", "2x64", "2x96", "2x128")}, "all different"),
        ({"budget_minutes": 1.0, "held_out_size": "2x64"}, "must be larger than 4x128"),
        ({"budget_minutes": 1.0, "token_counts": 2}, "at least 3"),
    ],
)
def test_options_that_cannot_work(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ScalingLawOptions(train_files=("corpus.txt",), **changes)


@unit
@pytest.mark.parametrize("share", [0.05, 0.15, 0.4, 0.5])
def test_as_many_documents_are_held_out_as_asked_for(share: float, tmp_path: Path) -> None:
    lines = [f"文档 {number}" for number in range(200)]
    (tmp_path / "text.txt").write_bytes("\n".join(lines).encode() + b"\n\xff\n")
    ladder._hold_out(Corpus([str(tmp_path / "text.txt")], skip_bad_rows=True), share, tmp_path / "out")
    kept, held = ((tmp_path / "out" / name).read_text("utf-8").splitlines() for name in ("train.txt", "eval.txt"))
    assert abs(len(held) - 200 * share) <= 1 and sorted(kept + held) == sorted(lines)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.server
@pytest.mark.skipif(not IS_MODERN, reason="trainings of test_commands.py, which run on both stacks, and arithmetic")
def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], same_process: None
) -> None:
    from pretraining import train_mlm

    monkeypatch.chdir(write_corpus(tmp_path, documents=1000))
    handler = signal.getsignal(signal.SIGTERM)
    trained: list[TrainMlmOptions] = []

    def call(*more: object, stop_at: int = 0) -> tuple[int, str, str]:
        """Call the command; a kill comes in training `stop_at`, after a saved step."""
        trained.clear()

        def train(options: TrainMlmOptions) -> Any:
            trained.append(options)
            if len(trained) == stop_at:
                train_really(dataclasses.replace(options, max_minutes=1e-9))
                raise KeyboardInterrupt
            return train_really(options)

        monkeypatch.setattr(train_mlm, "train", train)
        values = [
            "--train_files", "corpus.txt", "--vocab_size", "100", "--sizes", "1x16", "1x24", "2x24",
            "--held_out_size", "2x32", "--max_seq_length", "32", "--batch_size", "4", "--budget_flops", "6.9e9",
            "--output_dir", "out", "--device", "cpu", "--cpu_threads", "1", "--resamples", "20",
        ]  # fmt: skip
        try:
            status = scaling_law.main([*values, *map(str, more)])
        finally:
            signal.signal(signal.SIGTERM, handler)
        return (status, *capfd.readouterr())

    train_really = train_mlm.train
    status, _, errors = call("--budget_flops", "1e8")
    assert status == 2 and "too small" in errors and not trained
    status, _, errors = call("--budget_flops", "4e10")
    assert status == 1 and "tokens would repeat" in errors and not trained

    assert call(stop_at=3)[0] == 130 and len(trained) == 3
    killed = trained[-1]
    unbroken = train_really(dataclasses.replace(killed, save_dir="unbroken", resume=False))
    status, printed, errors = call()
    assert status == 0, errors
    assert len(trained) == 10 - 2 and trained[0].save_dir == killed.save_dir and trained[0].resume
    assert len({(run.save_dir, run.seed) for run in trained}) == 8
    # All are measured on the same text, and none is trained on it.
    assert len({(run.train_files, run.eval_files) for run in trained}) == 1
    train_lines, eval_lines = (
        Path(f[0]).read_text("utf-8").split("\n") for f in (killed.train_files, killed.eval_files)
    )
    every = Path("corpus.txt").read_text("utf-8").split("\n")
    assert sorted(train_lines + eval_lines) == sorted([*every, ""]) and len(eval_lines) == 1 + 50

    report = json.loads(Path("out/scaling_law.json").read_text(encoding="utf-8"))
    runs, held_out = report["runs"], report["held_out"]
    assert len(runs) == 9 and runs[2]["loss"] == unbroken.last["loss"]
    law = fit_loss_law(*([run[name] for run in runs] for name in ("parameters", "tokens", "loss")))
    predicted = float(law.loss(held_out["parameters"], held_out["tokens"]))
    assert held_out["predicted"]["estimate"] == pytest.approx(predicted)
    assert held_out["error"] == pytest.approx(held_out["loss"] - predicted)
    assert held_out["tokens"] == pytest.approx(2 * runs[2]["tokens"]) == pytest.approx(8 * runs[0]["tokens"])
    total = sum(run["flops"] for run in [*runs, held_out])
    assert 0.8 * 6.9e9 < total <= 6.9e9
    shown = re.search(r"predicted ([\d.]+) \[.*\], measured ([\d.]+), error", printed)
    assert shown and [float(one) for one in shown.groups()] == pytest.approx([predicted, held_out["loss"]], abs=1e-4)
    assert Path("out/scaling_law.png").read_bytes().startswith(b"\x89PNG")

    # A kill between the end of a training and its result costs nothing; finished work is not repeated.
    Path(killed.save_dir, "result.json").unlink()
    status, _, errors = call()
    assert status == 0 and [run.save_dir for run in trained] == [killed.save_dir], errors
    assert json.loads(Path("out/scaling_law.json").read_text(encoding="utf-8"))["runs"][2]["loss"] == runs[2]["loss"]
    status, _, errors = call("--learning_rate", "2e-3")
    assert status == 1 and "begun with another --learning_rate" in errors and not trained
