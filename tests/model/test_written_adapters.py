"""`convert --to peft`: what `--lora_rank` trained becomes an adapter that peft opens, and this toolkit again.

The matrices are checked by hand, and the reader of peft's adapters, which `test_adapters` holds to peft's answers, is
the way back. (peft 0.21.2 with transformers 5.23 gave the adapters of all families the logits of the whole models, to
2e-6.)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paddle_ranker import train
from paddle_ranker.__main__ import main
from paddle_ranker.commands.convert import ConvertOptions, convert
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.networks.lora import add_adapters
from paddle_ranker.model.ranker_folder import load_single, save_ranker
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.model import decoder_cases
from tests.model.adapter_cases import ARRAYS, CONFIG
from tests.model.family_cases import CASES
from tests.model.test_families import logits_of, write_folder
from tests.tiny import change_json

pytestmark = [pytest.mark.parity]
RANK = 3


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_trained(folder: Path, case: str) -> np.ndarray:
    """Write a base, `hf`, and a ranker as its training with `--lora_rank` saves it, `ranker`; return its logits."""
    model = load_single(write_folder(folder / "hf", case))
    network = model.network
    add_adapters(network.encoder, RANK)
    for name, parameter in network.named_parameters():
        if not parameter.stop_gradient and not name.endswith(".down"):
            draw = np.random.default_rng(len(name))
            change = draw.standard_normal(parameter.shape).astype(np.float32) / 10
            is_unused = name == "head.bias" and not parameter.numpy().any()  # which some families' heads lack
            parameter.set_value(parameter.numpy() + (0 if is_unused else change))
    (folder / "ranker").mkdir()
    facts: dict[str, object] = {"lora_rank": RANK, "model_name_or_path": str(folder / "hf"), "init_from_ckpt": None}
    info = RankerInfo("pairwise", model.info.max_seq_length, match_embeddings=False, training=facts)
    save_ranker(folder / "ranker", network, model.row_encoder, info)
    return logits_of(network)


def to_peft(folder: Path, **more: Any) -> list[str]:
    return convert(ConvertOptions(source=str(folder / "ranker"), target=str(folder / "adapter"), to="peft", **more))


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("roberta", "electra, wide")])
def test_a_trained_ranker_becomes_an_adapter_of_its_base_in_every_family(tmp_path: Path, case: str) -> None:
    wanted = write_trained(tmp_path, case)
    lines = to_peft(tmp_path)
    adapter, base = tmp_path / "adapter", load_file(tmp_path / "hf" / "model.safetensors")
    settings, arrays = json.loads((adapter / CONFIG).read_text()), load_file(adapter / ARRAYS)
    convert(ConvertOptions(source=str(tmp_path / "ranker"), target=str(tmp_path / "whole"), to="hf"))
    merged = load_file(tmp_path / "whole" / "model.safetensors")
    changed = [name for name in settings["target_modules"] if f"{name}.weight" in base]
    assert len(changed) == len(settings["target_modules"]) > 5
    for module in changed:
        down, up = (arrays[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
        assert (len(down), up.shape[1]) == (RANK, RANK)
        product = settings["lora_alpha"] / settings["r"] * up @ down
        np.testing.assert_allclose(base[f"{module}.weight"] + product, merged[f"{module}.weight"], atol=1e-6)
    for name, array in merged.items():
        is_new = f"base_model.model.{name}" in arrays
        same = name in base and np.array_equal(base[name], array)
        assert is_new or same or name.removesuffix(".weight") in changed, name
    assert f"LoRA, rank {RANK}, of {len(changed)} matrices of {tmp_path / 'hf'}" in lines[0]
    assert not [*adapter.glob("model*"), *adapter.glob("config.json")]
    again = load_single(adapter)
    assert again.info.kind == "pairwise"
    np.testing.assert_allclose(logits_of(again.network), wanted, atol=1e-5)


def test_both_networks_of_a_trained_tower_become_adapters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, texts = decoder_cases.write_folder(tmp_path / "hf", "embedding"), decoder_cases.TEXTS
    (tmp_path / "pairs.tsv").write_text("".join(f"query {n}\ttitle {n}\n" for n in range(40)), encoding="utf-8")
    trained = train(
        "batch-neg", model_name_or_path=str(base), train_set_file=str(tmp_path / "pairs.tsv"), towers=2, epochs=1,
        save_dir=str(tmp_path / "trained"), lora_rank=2, max_seq_length=128, batch_size=8, learning_rate=0.01,
    ).last_checkpoint  # fmt: skip
    assert main(["convert", str(trained), str(tmp_path / "adapter"), "--to", "peft"]) == 0
    assert capsys.readouterr().out.count("an adapter for peft") == 2
    for inner in ("", "query"):
        made = tmp_path / "adapter" / inner
        wanted, found = (Tower.open(path).vectors(texts) for path in (Path(str(trained)) / inner, made))
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert np.abs(found - Tower.open(base).vectors(texts)).max() > 1e-4
        assert json.loads((made / CONFIG).read_text())["task_type"] == "FEATURE_EXTRACTION"


def test_what_is_no_difference_of_a_low_rank_is_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trained(tmp_path, "xlm-roberta")
    ranker, info = tmp_path / "ranker", tmp_path / "ranker" / "ranker.json"
    stated = json.loads(info.read_text())["training"]
    weights = tmp_path / "hf" / "model.safetensors"
    arrays = load_file(weights)
    key = next(name for name in arrays if name.endswith("query.weight"))
    norm = next(name for name in arrays if name.endswith("LayerNorm.weight"))
    noise = np.random.default_rng(0).standard_normal(arrays[key].shape).astype(np.float32) / 10
    for training, changed, message in (
        ({**stated, "lora_rank": 0}, {}, "was not trained with --lora_rank.*--to hf"),
        ({**stated, "model_name_or_path": str(ranker)}, {}, "is no folder of transformers.*--to hf"),
        ({**stated, "model_name_or_path": str(tmp_path / "none")}, {}, "is no folder of transformers.*--model_name"),
        ({**stated, "lora_rank": 1}, {}, "differs from it by a matrix of a rank above 1.*--model_name"),
        (stated, {key: arrays[key] + noise}, f"a rank above {RANK}; name transformers' model"),
        (stated, {norm: arrays[norm] + 1}, "adapters are of matrices"),
        (stated, {key: arrays[key][:8]}, "query.weight|must be|size"),
    ):
        change_json(info, training=training)
        save_file({**arrays, **changed}, weights, {"format": "pt"})
        with pytest.raises(CheckpointError, match=message):
            to_peft(tmp_path)
        assert not (tmp_path / "adapter").exists()
    save_file(arrays, weights, {"format": "pt"})
    change_json(info, training={**stated, "model_name_or_path": "gone"})
    to_peft(tmp_path, model_name_or_path=str(tmp_path / "hf"))
    for name in ("query_prompt", "positive_label", "pooling"):
        with pytest.raises(UsageError, match=f"--{name} belongs to"):
            ConvertOptions(**dict[str, Any](source="a", target="b", to="peft", **{name: "mean"}))
    # An adapter is no base of another: peft opens one at a time over plain weights.
    change_json(info, training={**stated, "model_name_or_path": str(tmp_path / "adapter")})
    (tmp_path / "adapter").rename(tmp_path / "first")
    with pytest.raises(CheckpointError, match="is an adapter, too"):
        to_peft(tmp_path, model_name_or_path=str(tmp_path / "first"))
