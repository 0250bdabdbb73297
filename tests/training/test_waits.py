"""No training reads a value from the device before all parts of a step are queued: a GPU would idle meanwhile.

A CPU stands in: `paddle.device.get_device` names a GPU while a step runs, so that the code for GPUs runs.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Callable

import numpy as np
import paddle
import pytest

from cross_encoder import train_ce
from ernie_matching import train_pairwise
from multimodal_entailment import train as train_entailment
from paddle_ranker.distributed import ProcessGroup, buckets
from paddle_ranker.training.trainer import _Trainer
from pretraining import train_mlm
from recall import train_batch_neg
from tests.conftest import commands_here
from tests.entailment_cases import write_data
from tests.pretraining_runs import typed as typed_pretraining
from tests.pretraining_runs import write_corpus
from tests.tiny import write_encoder, write_tower
from tests.training_runs import typed_training

pytestmark = pytest.mark.unit

READS = ("numpy", "item", "tolist", "__bool__", "__float__", "__int__", "__index__", "__array__")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return a list that gets the line of this repository behind each read while a step is queued."""
    found: list[str] = []
    steps: list[bool] = [False]
    backward, sum_gradients, get_device = _Trainer._backward, ProcessGroup.sum_gradients, paddle.device.get_device

    def queueing(self: Any, batch: Any) -> Any:
        steps[0] = True
        return backward(self, batch)

    def queued(self: Any, network: Any) -> None:
        steps[0] = False
        sum_gradients(self, network)

    def watched(read: Callable[..., Any]) -> Callable[..., Any]:
        def counted(tensor: Any, *given: Any, **named: Any) -> Any:
            if steps[0]:
                steps[0] = False  # one read may go through others
                lines = [line for line in traceback.extract_stack() if "/site-packages/" not in line.filename]
                found.append(f"{Path(lines[-2].filename).name}: {lines[-2].line}")
                try:
                    return read(tensor, *given, **named)
                finally:
                    steps[0] = True
            return read(tensor, *given, **named)

        return counted

    monkeypatch.setattr(_Trainer, "_backward", queueing)
    monkeypatch.setattr(ProcessGroup, "sum_gradients", queued)
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0" if steps[0] else get_device())
    for name in READS:
        if hasattr(paddle.Tensor, name):
            monkeypatch.setattr(paddle.Tensor, name, watched(getattr(paddle.Tensor, name)))
    yield found


WORDS = "深度学习语言文化"
FILES = {
    "train.csv": "".join(f"研究{word}\t研究{word}水稻\t神经{word}网络\n" for word in WORDS),
    "dev.csv": "".join(f"研究{word}\t研究{word}水稻\t1\n研究{word}\t神经{word}网络\t0\n" for word in WORDS),
    "pairs.csv": "".join(f"研究{word}\t研究{word}水稻\n" for word in WORDS),
}
ALL_LOSSES = "bce+mse+margin_logit+ranknet+listnet+click_softmax+softmax+lambda"  # the last one reads ranks
ONE_STEP = ("--max_steps", "1", "--eval_step", "9", "--save_step", "9", "--device", "cpu")
TOWERS = ("--train_set_file", "pairs.csv", "--model_name_or_path", "encoder", "--batch_size", "8")
POSTS = ("--train_file", "posts.csv", "--model_name_or_path", "encoder", "--max_seq_length", "24", "--image_size", "64",
         "--validation_share", "0.15")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    write_encoder(folder / "encoder")
    write_tower(folder / "tower")
    write_corpus(folder)
    write_data(folder, 40)
    return folder


def of_pairs(*more: str, file: str = "train.csv") -> list[str]:
    return typed_training("saved", *more, train_file=file)


@pytest.mark.parametrize(
    ("command", "typed", "count"),
    [
        pytest.param(train_pairwise, of_pairs(), 0, id="pairwise"),
        pytest.param(train_pairwise, of_pairs("--gradient_accumulation_steps", "2"), 0, id="parts"),
        pytest.param(train_pairwise, of_pairs("--gradient_checkpointing"), 0, id="checkpointing"),
        pytest.param(train_pairwise, of_pairs("--stored_titles", "1"), 0, id="stored_titles"),
        pytest.param(train_pairwise, of_pairs("--lexical_features"), 0, id="lexical"),
        # The longest text on either side.
        pytest.param(train_pairwise, of_pairs("--similarity", "tower"), 2, id="similarity"),
        pytest.param(train_ce, of_pairs(file="dev.csv"), 0, id="cross_encoder"),
        pytest.param(train_ce, of_pairs("--loss", ALL_LOSSES, file="dev.csv"), 1, id="losses"),
        pytest.param(train_batch_neg, TOWERS, 0, id="recall"),
        pytest.param(
            train_batch_neg, (*TOWERS, "--micro_batch", "2", "--nested_sizes", "8", "--learned_scale"), 0, id="in_parts"
        ),
        pytest.param(train_mlm, typed_pretraining("saved"), 0, id="pretraining"),
        pytest.param(train_entailment, POSTS, 0, id="entailment"),
    ],
)
def test_a_step_reads_nothing_until_all_is_queued(
    command: Any, typed: Sequence[str], count: int, data: Path, tmp_path: Path, reads: list[str], same_process: None
) -> None:
    shown = [*typed, *ONE_STEP, "--save_dir", str(tmp_path / "saved")]
    with commands_here(data):
        assert command.main(shown) == 0
    assert len(reads) == count, reads


def test_a_numbered_gpu_for_several_processes_is_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], same_process: None
) -> None:
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with commands_here(data):
        assert train_pairwise.main(of_pairs("--device", "gpu:1")) == 2
    assert (
        "each of 2 processes takes a GPU of its own; name the GPUs by the launcher's --gpus" in capsys.readouterr().err
    )


def test_sums_of_large_arrays_go_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with equal values stand in; each slice is what the device holds."""
    slices: list[int] = []

    def doubled(tensor: paddle.Tensor) -> None:
        slices.append(int(tensor.shape[0]))
        paddle.assign(tensor + tensor, output=tensor)

    group = object.__new__(ProcessGroup)
    group.size = 2
    monkeypatch.setattr(ProcessGroup, "together", lambda self: nullcontext())
    monkeypatch.setattr("paddle_ranker.distributed.BUCKET", 4)
    monkeypatch.setattr(paddle.distributed, "all_reduce", doubled)
    values = np.arange(10, dtype="float32").reshape(2, 5)
    np.testing.assert_array_equal(group.sum(values), 2 * values)
    assert slices == [4, 4, 2]
    tensors = [paddle.zeros(shape) for shape in ([2], [1, 2], [3], [9], [1])]
    assert [len(bucket) for bucket in buckets(tensors)] == [2, 1, 1, 1]
