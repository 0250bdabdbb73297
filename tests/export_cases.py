"""Rankers of every kind that is exported, with parameters drawn by NumPy: the same numbers on every stack."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import paddle

from paddle_ranker.encoding.pair_encoder import PairEncoder, never_match_ids
from paddle_ranker.export.parity import Parity
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.lexical.head import LexicalHead
from paddle_ranker.metrics.calibration import Calibration, SearchScores
from paddle_ranker.metrics.logistic import LinearModel
from paddle_ranker.model.blend import save_blend
from paddle_ranker.model.exported import ExportedRanker, open_exported
from paddle_ranker.model.families import write_config
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.model_folder import MODEL, RANKER, TrainedRanker, load_model
from paddle_ranker.model.network import RankerNetwork
from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays
from paddle_ranker.model.ranker_folder import load_single, save_ranker
from paddle_ranker.storage.atomic import made_once, new_folder
from tests.tiny import CONFIG, write_tokenizer

IS_MODERN = not paddle.__version__.startswith("2.")
WRITES_ONNX = IS_MODERN and importlib.util.find_spec("paddle2onnx") is not None
WITH_ONNX = {"match levels", "LayerNorm before", "blend", "everything"}  # cases
_SEARCHED = SearchScores(50, tuple(map(float, range(10))), (1.5,) * 10)
CALIBRATION = Calibration("platt", 0.5, -0.25, searched=_SEARCHED)
CASES: dict[str, dict[str, Any]] = {
    "plain": {"match": False},
    "match levels": {},
    "calibrated": {"calibration": CALIBRATION},
    "lexical features": {"lexical": True},
    "cross-encoder": {"kind": "cross_encoder"},
    "ernie_gram": {"model_type": "ernie_gram", "layer_norm_eps": 1e-5},
    "task id": {"use_task_id": True, "task_id": 1},
    "roberta": {"model_type": "roberta"},
    "no token types": {"type_vocab_size": 0},
    "LayerNorm before": {"normalize_before": True},
    "everything": {"lexical": True, "calibration": CALIBRATION},
    "relu, one layer": {"hidden_act": "relu", "num_hidden_layers": 1},
}


def draw(state: dict[str, Any], seed: int = 3) -> dict[str, np.ndarray]:
    """Draw parameters for a state dict by name, so that their order does not matter."""
    values = {}
    for number, name in enumerate(sorted(state)):
        random, shape = np.random.RandomState(1000 * seed + number), tuple(state[name].shape)
        value = 0.25 * random.standard_normal(shape)
        if name.endswith(("idf", "average_length", "deviation")) or ("norm" in name and name.endswith("weight")):
            value = 1.0 + np.abs(value)
        values[name] = value.astype("float32")
    return values


def write_case(
    folder: Path,
    *,
    match: bool = True,
    lexical: bool = False,
    kind: str = "pairwise",
    calibration: Any = None,
    max_seq_length: int = 32,
    seed: int = 3,
    **changes: Any,
) -> Path:
    """Write a ranker's folder with drawn parameters."""
    config = dataclasses.replace(CONFIG, **changes)
    write_tokenizer(folder, config.vocab_size)
    pair_encoder = PairEncoder.from_folder(folder, max_seq_length)
    never = never_match_ids(pair_encoder)
    head = LexicalHead(config.vocab_size, never) if lexical else None
    network = RankerNetwork(config, never if match else None, head)
    network.set_state_dict(draw(network.state_dict(), seed))
    info = RankerInfo(kind, max_seq_length, match, calibration=calibration, lexical_features=lexical)
    save_ranker(folder, network, pair_encoder, info)
    return folder


def write_two_members(folder: Path) -> Path:
    """Write a blend of two rankers of different lengths."""
    members = [
        load_single(write_case(folder.parent / "first")),
        load_single(write_case(folder.parent / "second", lexical=True, max_seq_length=20, seed=4)),
    ]
    folder.mkdir()
    save_blend(folder, members, LinearModel(np.array([0.75, 0.5]), 0.25), {}, {})
    return folder


def write_two_classes(folder: Path) -> Path:
    """Write a checkpoint in the form of the published cross-encoder: no `ranker.json`, a head of two classes."""
    write_tokenizer(folder)
    network = RankerNetwork(CONFIG, None)
    arrays = draw(network.state_dict())
    published = {f"ernie.{name[len('encoder.') :]}": value for name, value in arrays.items() if "head." not in name}
    random = np.random.RandomState(5)
    published["classifier.weight"] = random.standard_normal((CONFIG.hidden_size, 2)).astype("float32")
    published["classifier.bias"] = random.standard_normal(2).astype("float32")
    save_arrays(published, folder / PARAMETERS_FILE)
    write_config(folder, CONFIG)
    return folder


def load_case(folder: Path, name: str) -> TrainedRanker:
    """Write and load the ranker of this name."""
    writers = {"blend": write_two_members, "two classes": write_two_classes}
    path = writers[name](folder / "ranker") if name in writers else write_case(folder / "ranker", **CASES[name])
    return load_model(path, RANKER)


class CaseExport(NamedTuple):
    """An exported case: the ranker, its export, and the differences by engine."""

    parts: TrainedRanker
    exported: ExportedRanker
    parities: dict[str, Parity]


class Exports:
    """Cases by name, each exported once for all tests and processes that share `folder`.

    Tests read the folders, and change copies of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, CaseExport] = {}

    def __getitem__(self, name: str) -> CaseExport:
        if name not in self._made:
            folder = self._folder / name
            with made_once(folder) as is_missing:
                if is_missing:
                    self._make(name, folder)
            parities = {
                engine: Parity(found.pop("pairs"), found.pop("batches"), found)
                for engine, found in json.loads((folder / "parities.json").read_text(encoding="utf-8")).items()
            }
            exported = cast(ExportedRanker, open_exported(folder / "output", MODEL))
            self._made[name] = CaseExport(load_model(folder / "ranker", RANKER), exported, parities)
        return self._made[name]

    def _make(self, name: str, target: Path) -> None:
        with new_folder(target) as folder:
            onnx = WRITES_ONNX and name in WITH_ONNX
            _, parities = export_model(load_case(folder, name), folder / "output", onnx=onnx)
            noted = {engine: parity.to_dict() for engine, parity in parities.items()}
            (folder / "parities.json").write_text(json.dumps(noted), encoding="utf-8")

    def copy(self, name: str, target: Path) -> Path:
        """Copy the exported folder of a case; return its path."""
        return Path(shutil.copytree(self[name].exported.folder, target))


def network_logits(parts: TrainedRanker, input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
    """Return the logits of the dygraph network, `[batch]` float32."""
    parts.network.eval()
    with paddle.no_grad():
        logits: np.ndarray = parts.network(paddle.to_tensor(input_ids), paddle.to_tensor(token_type_ids)).numpy()
    return logits
