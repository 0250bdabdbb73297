"""Adapters over Qwen3, models of pictures and of sounds, by path and by the hub's names: the same as merged by hand.

peft's own answers are in `test_adapters`; here each door opens what its family has, and a folder of merged weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.array_types import Array
from paddle_ranker.recordings.transcriber import Transcriber
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests.checkout import ONCE
from tests.model.adapter_cases import ARRAYS, CONFIG
from tests.model.decoder_cases import PAIRS, TEXTS, write_folder
from tests.model.family_cases import weights
from tests.pictures import picture_cases, test_pictures
from tests.recordings import sound_cases, test_sounds

pytestmark = [pytest.mark.parity, ONCE]
QUERIES, TITLES = ([pair[side] for pair in PAIRS[:3]] for side in (0, 1))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_pictures(folder: Path, name: str) -> None:
    test_pictures.published(name, folder)


def write_sounds(folder: Path, name: str) -> None:
    test_sounds.published(name, folder)


def pictures_and_texts(folder: Path) -> Array:
    tower = Tower.open(folder)
    return np.concatenate([tower.encode_pictures(picture_cases.pictures()[:2]), tower.query_vectors(["a b", "c"])])


def letters(folder: Path) -> Array:
    return np.asarray(Transcriber.open(folder).logits(sound_cases.sounds()[:1])[0])


def scores(folder: Path) -> Array:
    return np.asarray(Ranker.load(folder).score(QUERIES, TITLES))


# Name -> what writes the base, its case, what opens it, peft's task, and ends of the names of changed modules
FAMILIES: dict[str, tuple[Callable[[Path, str], Any], str, Callable[[Path], Array], str, tuple[str, ...]]] = {
    "reranker": (write_folder, "reranker", scores, "CAUSAL_LM", ("q_proj", "o_proj", "down_proj")),
    "classifier": (write_folder, "classifier", scores, "SEQ_CLS", ("k_proj", "gate_proj")),
    "tower": (write_folder, "embedding", lambda path: Tower.open(path).vectors(TEXTS[:2]), "", ("v_proj", "up_proj")),
    "clip": (write_pictures, "clip", pictures_and_texts, "", ("q_proj", "fc1", "visual_projection")),
    "siglip": (write_pictures, "siglip", pictures_and_texts, "", ("v_proj", "out_proj")),
    "wav2vec2": (write_sounds, "wav2vec2", letters, "", ("q_proj", "intermediate_dense", "lm_head")),
}


def write_adapter(folder: Path, base: str, arrays: dict[str, Array], task: str, ends: tuple[str, ...]) -> None:
    """Write a LoRA as peft does, and a folder beside it, `merged`, with the base's weights and the products."""
    changed = {name: array for name, array in arrays.items() if name.endswith(tuple(f"{end}.weight" for end in ends))}
    assert changed
    narrow, merged = dict[str, Array](), dict(arrays)
    for name, array in changed.items():
        module = name.removesuffix(".weight")
        down, up = weights({f"{module}.A": [2, array.shape[1]], f"{module}.B": [array.shape[0], 2]}).values()
        narrow[f"base_model.model.{module}.lora_A.weight"] = down
        narrow[f"base_model.model.{module}.lora_B.weight"] = up
        merged[name] = (array + np.float32(3 / 2) * up @ down).astype(np.float32)
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": [*ends], "bias": "none"}
    stated: dict[str, Any] = {"task_type": task or None}
    if task == "SEQ_CLS":  # peft saves the head, too
        stated["modules_to_save"] = ["classifier", "score"]
        merged["score.weight"] = narrow["base_model.model.score.weight"] = arrays["score.weight"] * 2
    (folder / CONFIG).write_text(json.dumps({**settings, **stated, "base_model_name_or_path": base}))
    save_file(narrow, folder / ARRAYS, {"format": "pt"})
    save_file(merged, folder.parent / "merged" / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", FAMILIES)
def test_an_adapter_is_its_base_with_the_products_by_path_and_by_the_hubs_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, case, opened, task, ends = FAMILIES[name]
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    write(base, case)
    shutil.copytree(base, tmp_path / "merged")
    arrays = load_file(base / "model.safetensors")
    write_adapter(adapter, str(base), arrays, task, ends)
    if name == "tower":  # the library saves its steps beside the adapter
        for path in (base / "config_sentence_transformers.json", base / "modules.json", *base.glob("[12]_*")):
            (shutil.copytree if path.is_dir() else shutil.copy)(path, adapter / path.name)
    wanted, found = opened(tmp_path / "merged"), opened(adapter)
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)
    assert np.abs(found - opened(base)).max() > 1e-3
    assert main(["info", str(adapter)]) == 0
    assert f"LoRA, rank 2, of {base}" in capsys.readouterr().out
    hub = tmp_path / "hub" / "models--some--base"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc")
    shutil.copytree(base, hub / "snapshots" / "abc")
    shutil.rmtree(base)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    settings = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**settings, "base_model_name_or_path": "some/base"}))
    np.testing.assert_array_equal(opened(adapter), found)
