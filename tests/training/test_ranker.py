"""Options of a ranker's training outside the loop: learning rates, and the best checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from ernie_matching.train_pairwise import TrainPairwiseOptions, train
from paddle_ranker.errors import DataError
from paddle_ranker.model.families import write_config
from paddle_ranker.model.networks.bert import Encoder
from paddle_ranker.model.parameters import load_arrays, save_arrays
from paddle_ranker.training.ranker_training import start_training
from paddle_ranker.training.training_options import RankerTrainingOptions
from tests.conftest import commands_here
from tests.tiny import CONFIG, HAN, write_encoder, write_ranker, write_tokenizer

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("same_process")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder / "encoder")
    random = np.random.RandomState(0)
    words = ["".join(random.choice(HAN, 2)) for _ in range(24)]
    triples = [f"{word}\t论{word}\t{other}的研究" for word, other in zip(words, words[1:] + words[:1])]
    pairs = [
        f"{word}\t{title}\t{label}" for word in words for title, label in ((f"论{word}", 1), ("研究", 0), ("文化", 0))
    ]
    (folder / "train.csv").write_text("\n".join(triples) + "\n", encoding="utf-8")
    (folder / "dev.csv").write_text("\n".join(pairs) + "\n", encoding="utf-8")
    (folder / "one_title.csv").write_text("".join(f"{w}\t{w}\t{i % 2}\n" for i, w in enumerate(sorted(set(words)))))
    return {
        "train_file": str(folder / "train.csv"),
        "test_file": str(folder / "dev.csv"),
        "model_name_or_path": str(folder / "encoder"),
    }


def trained(tmp_path: Path, files: dict[str, str], **changes: Any) -> Path:
    """Train for six steps; return the save folder."""
    values: dict[str, Any] = {"batch_size": 8, "epochs": 2, "learning_rate": 1e-3, "eval_step": 2, "device": "cpu"}
    train(TrainPairwiseOptions(save_dir=str(tmp_path), **{**files, **values, **changes}))
    return tmp_path


def parameters(folder: Path) -> np.ndarray:
    arrays = load_arrays(folder / "last" / "model_state.pdparams")
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


@pytest.fixture(scope="module")
def plain(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    with commands_here():
        return parameters(trained(tmp_path_factory.mktemp("plain"), files))


@pytest.mark.parametrize(
    "changes",
    [{"head_learning_rate": 1e-4}, {"new_parts_factor": 2.0}, {"gradient_checkpointing": True},
     {"use_amp": True, "amp_dtype": "float16"}, {"match_embeddings": False}, {"lexical_features": True},
     {"margin": 0.9}, {"max_seq_length": 8}],
    ids=str,
)  # fmt: skip
def test_the_option_reaches_the_parameters(
    tmp_path: Path, files: dict[str, str], plain: np.ndarray, changes: dict[str, Any]
) -> None:
    changed = parameters(trained(tmp_path, files, **changes))
    assert changed.shape != plain.shape or not np.array_equal(changed, plain)


def test_the_metric_chooses_the_best_checkpoint(tmp_path: Path, files: dict[str, str]) -> None:
    settings: dict[str, Any] = {"eval_step": 1, "epochs": 4, "learning_rate": 3e-2, "save_step": 1}
    for metric in ("auc", "ndcg@10", "mrr@10", "map", "pairs_ordered"):
        folder = trained(tmp_path / metric, files, metric=metric, **settings)
        results = {
            path.name: json.loads((path / "ranker.json").read_text())["results"][metric]
            for path in folder.glob("model_*")
        }
        assert results[(folder / "best").resolve().name] == max(results.values())
        evaluated = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert {line["metric"] for line in evaluated if "evaluation" in line} == {metric}


def test_a_metric_that_the_file_cannot_give_is_an_error_before_anything_is_learned(
    tmp_path: Path, files: dict[str, str]
) -> None:
    one_title = Path(files["test_file"]).with_name("one_title.csv")
    one_label = tmp_path / "one_label.csv"
    one_label.write_text("".join(f"{w}\t论{t}\t{i % 2}\n" for i, w in enumerate(HAN[:8]) for t in HAN[:2]))
    later = {**files, "train_file": str(tmp_path / "is_not_read")}
    cases = {"ndcg@10": (one_title, "one title a query"), "pairs_ordered": (one_label, "titles of different labels")}
    for metric, (path, why) in cases.items():
        with pytest.raises(DataError, match=rf"{path.name}: .* gives no {metric} \(.*{why}\): choose --metric auc"):
            trained(tmp_path / "run", later, test_file=str(path), metric=metric)


def test_early_stopping_and_keep(tmp_path: Path, files: dict[str, str]) -> None:
    settings: dict[str, Any] = {"eval_step": 1, "save_step": 1, "epochs": 40, "keep": 2, "learning_rate": 1e-9}
    folder = trained(tmp_path / "run", files, early_stopping=3, **settings)
    assert (folder / "last").resolve().name == "model_4"  # without learning: three evaluations without improvement
    assert sorted(path.name for path in folder.glob("model_*")) == ["model_1", "model_3", "model_4"]


def part_factors(save_dir: Path, **changes: Any) -> dict[str, float]:
    options = RankerTrainingOptions(save_dir=str(save_dir), device="cpu", learning_rate=1e-3, **changes)
    return start_training(options, "pairwise").part_factors


def test_where_each_parts_learning_rate_comes_from(tmp_path: Path, files: dict[str, str]) -> None:
    encoder = files["model_name_or_path"]
    new = {"head": 10.0, "match_embeddings": 10.0}
    assert part_factors(tmp_path / "a", model_name_or_path=encoder) == new
    assert part_factors(tmp_path / "a", model_name_or_path=encoder, head_learning_rate=5e-3) == {**new, "head": 5.0}

    two_classes = tmp_path / "two_classes"
    write_tokenizer(two_classes)
    write_config(two_classes, CONFIG)
    paddle.seed(1)
    state = {f"ernie.{name}": value for name, value in Encoder(CONFIG).state_dict().items()}
    head = paddle.nn.Linear(CONFIG.hidden_size, 2)
    state.update({f"classifier.{name}": value for name, value in head.state_dict().items()})
    save_arrays(state, two_classes / "model_state.pdparams")
    folded = {"match_embeddings": 10.0, "head": 2.0}
    assert part_factors(tmp_path / "b", model_name_or_path=str(two_classes)) == folded
    ours = write_ranker(tmp_path / "ours")
    assert part_factors(tmp_path / "c", init_from_ckpt=str(ours)) == {}
    assert part_factors(tmp_path / "c", init_from_ckpt=str(ours), head_learning_rate=2e-4) == {"head": 0.2}
