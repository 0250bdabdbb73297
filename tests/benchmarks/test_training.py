"""The training-speed benchmark: its batches, its clock, its peers' mathematics, and the command itself."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from benchmarks import training
from benchmarks.harness.report import Speeds, print_speeds
from benchmarks.inputs import ROOT
from benchmarks.peers.answers import Pace
from benchmarks.peers.work import (
    BenchmarkExamples,
    BenchmarkTriples,
    TrainingWork,
    batches_forever,
    typical_batches,
)
from paddle_ranker.encoding.batching import BatchPlan, training_batches
from paddle_ranker.encoding.columns import EncodedPairs
from tests.tiny import CONFIG, make_network

pytestmark = pytest.mark.unit
INSTALL = f"needs PyTorch: {training.TORCH_INSTALL}"


def test_typical_batches_stand_at_equal_distances_of_the_sorted_window() -> None:
    lengths = np.arange(40)[::-1].copy()  # sorted into batches of 4: tokens 0-3, 4-7, ..., 36-39
    rows = typical_batches(lengths, batch_size=4, count=2, seed=0)
    # 10 batches, 2 wanted: the middle batch of each half, batch 2 (tokens 8-11) and batch 7 (tokens 28-31).
    assert sorted(lengths[rows].tolist()) == [8, 9, 10, 11, 28, 29, 30, 31]


def test_the_trainer_forms_the_typical_batches_again() -> None:
    lengths = np.random.default_rng(0).permutation(400)
    rows = typical_batches(lengths, batch_size=8, count=3, seed=0)
    batches = list(training_batches(BenchmarkExamples(lengths[rows]), BatchPlan(8, seed=5), epoch=2))
    chosen = [set(rows[i : i + 8]) for i in range(0, 24, 8)]
    assert all(set(rows[batch]) in chosen for (batch,) in batches) and len(batches) == 3


def test_every_system_trains_the_batches_of_the_trainer() -> None:
    lengths = np.array([3, 4, 5, 6, 7, 3, 4])
    pairs = EncodedPairs(np.zeros(32, np.int32), np.append(0, np.cumsum(lengths)), np.full(7, 2, np.int32))
    work = TrainingWork({}, 0, [], batch_size=3, padded_length=8, threads=1, seed=4)
    batches = batches_forever(work, BenchmarkTriples(pairs, pairs))
    plan = BatchPlan(3, seed=4)
    for epoch in (1, 2):
        for (expected,) in training_batches(BenchmarkExamples(lengths), plan, epoch):
            np.testing.assert_array_equal(next(batches), expected)


def test_the_pace_counts_the_triples_of_each_round() -> None:
    answers = io.StringIO()
    pace = Pace(io.StringIO("2\n1\n"), answers, "triples")
    with pytest.raises(SystemExit):
        for triples in (5, 6, 7, 8, 9):
            pace.tick(triples)
    ready, first, second = (json.loads(line) for line in answers.getvalue().splitlines())
    assert ready == {"ready": True}
    assert (first["triples"], second["triples"]) == (11, 7)
    assert first["seconds"] > 0


def test_a_worker_loads_its_work_without_paddle() -> None:
    # Once Paddle is loaded it is too late to choose the math library's code path.
    code = "import sys, benchmarks.peers.work, benchmarks.peers.training_worker; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_published_peer_gives_our_logits_with_the_same_parameters() -> None:
    from benchmarks.peers.published import PublishedRanker

    ours = make_network(match=False, initializer_range=0.02)
    shape = {name: value for name, value in dataclasses.asdict(CONFIG).items() if name != "model_type"}
    peer = PublishedRanker(shape)
    names = {"encoder": "ptm", "head": "similarity"}
    renamed = {f"{names[name.split('.', 1)[0]]}.{name.split('.', 1)[1]}": v for name, v in ours.state_dict().items()}
    missing, left_over = peer.set_state_dict(renamed)
    assert not missing and not left_over
    peer.eval()
    ids, types = (paddle.to_tensor(array) for array in _batch())
    np.testing.assert_allclose(peer(ids, types).numpy()[:, 0], ours(ids, types).numpy(), atol=1e-5)


def test_the_pytorch_peer_gives_our_logits_with_the_same_parameters() -> None:
    torch = pytest.importorskip("torch", reason=INSTALL)
    from benchmarks.peers.torch_training import TorchRanker

    ours = make_network(match=False)
    peer = TorchRanker(dataclasses.asdict(CONFIG))
    arrays = {name: torch.from_numpy(value.numpy()) for name, value in ours.state_dict().items()}
    peer.load_state_dict(_torch_names(arrays, torch, CONFIG.num_hidden_layers))
    peer.eval()
    ids, types = _batch()
    logits = peer(torch.from_numpy(ids), torch.from_numpy(types)).detach().numpy()
    np.testing.assert_allclose(logits, ours(paddle.to_tensor(ids), paddle.to_tensor(types)).numpy(), atol=1e-4)


def _batch() -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.RandomState(0).randint(5, CONFIG.vocab_size, (4, 12))
    ids[1, 8:] = 0
    return ids, np.tile((np.arange(12) > 5).astype("int64"), (4, 1))


def _torch_names(arrays: dict, torch: object, layers: int) -> dict:
    """Rename and transpose this toolkit's parameters to those of `TorchRanker`."""
    embeddings = {"words": "word", "positions": "position", "types": "token_type"}
    named = {
        f"{theirs}.weight": arrays[f"encoder.embeddings.{ours}_embeddings.weight"]
        for theirs, ours in embeddings.items()
    }
    for kind in ("weight", "bias"):
        named[f"norm.{kind}"] = arrays[f"encoder.embeddings.layer_norm.{kind}"]
        for theirs, ours in {"pooler": "encoder.pooler.dense", "head": "head"}.items():
            named[f"{theirs}.{kind}"] = arrays[f"{ours}.{kind}"].t()
        for i in range(layers):
            prefix = f"encoder.encoder.layers.{i}"
            for part in ("linear1", "linear2", "norm1", "norm2"):
                named[f"layers.{i}.{part}.{kind}"] = arrays[f"{prefix}.{part}.{kind}"].t()
            inputs = [arrays[f"{prefix}.self_attn.{which}_proj.{kind}"].t() for which in "qkv"]
            named[f"layers.{i}.self_attn.in_proj_{kind}"] = torch.cat(inputs)  # type: ignore[attr-defined]
            named[f"layers.{i}.self_attn.out_proj.{kind}"] = arrays[f"{prefix}.self_attn.out_proj.{kind}"].t()
    return named


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    rows = [f"查询{i}\t标题{i}{'文' * (i % 5)}{label}\t{label}" for i in range(6) for label in (0, 1, 2)]
    (tmp_path / "graded.tsv").write_text("\n".join(["query\ttitle\tlabel", *rows]) + "\n", encoding="utf-8")
    # So that a vocabulary is trained on the file.
    monkeypatch.setenv("PADDLE_RANKER_REAL_DATA", str(tmp_path / "nowhere"))
    status = training.main(
        ["--file", str(tmp_path / "graded.tsv"), "--shapes", "tiny", "--systems", "ours,torch", "--rounds", "1",
         "--steps", "1", "--batch_size", "4"]
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert status == 0
    assert "tiny: 1 batches of 4 triples" in shown
    assert "this toolkit: train_pairwise.py" in shown
    try:
        import torch  # noqa: F401
    except ImportError:
        assert f"to have them: {training.TORCH_INSTALL}" in shown
    else:
        assert "PyTorch fp32" in shown


def test_a_ratio_is_the_first_system_s_speed_over_the_row_s(capsys: pytest.CaptureFixture) -> None:
    speeds = {name: Speeds([speed, speed], [speed, speed]) for name, speed in (("a", 8.0), ("b", 6.0))}
    print_speeds(speeds, "pairs", width=4, digits=0)
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()[1:3]] == ["1.00", "1.33"]


def test_an_unknown_shape_is_named(capsys: pytest.CaptureFixture) -> None:
    assert training.main(["--shapes", "huge"]) == 2
    assert "--shapes huge: choose from tiny, nano, medium" in capsys.readouterr().err
