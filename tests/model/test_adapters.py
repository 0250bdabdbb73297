"""Adapters of peft are opened with their base, equal to peft, or refused by name; no door passes over them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paddle_ranker.__main__ import main
from paddle_ranker.commands.info import facts_of
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.hugging_face import adapters
from paddle_ranker.model.hugging_face.weights import read_weights
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, identify, load_encoder
from paddle_ranker.model.pretrained import find_model
from paddle_ranker.model.ranker_folder import load_single
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.storage.foreign_config import ForeignConfig
from tests.checkout import ONCE
from tests.model.adapter_cases import ARRAYS, CONFIG, expected, write_adapter, write_base
from tests.model.family_cases import changed_config
from tests.model.test_families import write_tokenizer
from tests.model.test_foreign_settings import short_logits
from tests.pictures.picture_cases import write_steps
from tests.tiny import change_json

pytestmark = pytest.mark.parity
ANSWERS = expected()
CASES = sorted(ANSWERS)
# What peft passes over, and is refused here: it would change results if the file had what it names, or soon will.
MORE_CAREFUL = {"ensure_weight_tying", "peft_type", "target_parameters", "target_modules", "alora_invocation_tokens"}
MORE_CAREFUL |= {
    "task_type",
    "use_qalora",
    "trainable_token_indices",
    "feedforward_modules",
    "init_lora_weights",
    "layers_pattern",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_case(folder: Path, case: str) -> Path:
    """Write a case's base and adapter; return the adapter's folder."""
    base, config = write_base(folder / "base", case)
    if config["model_type"] == "bert":
        words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *(f"w{number}" for number in range(85))]
        (base / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    else:
        write_tokenizer(base, True)
    said = ANSWERS[case]
    return write_adapter(folder / "adapter", str(base), said["config"], said["shapes"])


def logits(folder: Path) -> list[float]:
    network = load_single(folder).network
    found: list[float] = short_logits(network, network.config.pad_token_id).tolist()
    return found


@ONCE
@pytest.mark.parametrize("case", CASES)
def test_each_setting_is_read_as_peft_reads_it_or_refused_by_name(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, folder, wrong = ANSWERS[case], write_case(tmp_path, case), list[Any]()
    unknown: list[str] = []
    monkeypatch.setattr(ForeignConfig, "log_unknown", lambda stated: unknown.extend(stated.unknown))
    np.testing.assert_allclose(logits(folder), said["logits"], atol=1e-5)
    assert unknown == []
    base = str(tmp_path / "base")
    for key, value, answer in said["changes"]:
        config = {**changed_config(said["config"], key, value), "base_model_name_or_path": base}
        (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        unknown.clear()
        try:
            found = logits(folder)
        except CheckpointError as error:
            if not isinstance(answer, str) and (key not in MORE_CAREFUL if answer is None else key not in str(error)):
                wrong.append((key, value, answer, str(error)))
            continue
        wanted = said["logits"] if answer is None else answer
        if not isinstance(answer, str) and not np.allclose(found, wanted, atol=2e-5):
            wrong.append((key, value, found, wanted))
        if (key in unknown) != (key == "a_key_of_tomorrow"):
            wrong.append((key, value, "unknown", unknown))
    assert wrong == [], "\n".join(map(str, wrong))


STEPS = {"": [("Transformer", ""), ("Pooling", "1_Pooling")],
         "0_Transformer": [("Transformer", "0_Transformer"), ("Pooling", "1_Pooling")]}  # fmt: skip


@pytest.mark.parametrize("inside", STEPS)
def test_an_adapter_in_a_sentence_transformers_folder_is_merged_at_every_door(tmp_path: Path, inside: str) -> None:
    """A tower of the merged weights themselves is what each door has to open."""
    adapter = write_case(tmp_path, "lora")
    arrays = load_single(adapter).network.encoder.state_dict()
    folder = tmp_path / "st"
    folder.mkdir()
    write_steps(folder, STEPS[inside])
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}), encoding="utf-8")
    for path in adapter.iterdir():
        (folder / inside).mkdir(exist_ok=True)
        (folder / inside / path.name).write_bytes(path.read_bytes())
    own, base = load_encoder(folder).network.state_dict(), load_encoder(tmp_path / "base").network.state_dict()
    names = [name for name in own if "attn" in name and "weight" in name]
    assert any(not np.array_equal(own[name].numpy(), base[name].numpy()) for name in names)
    for name in names:
        np.testing.assert_array_equal(own[name].numpy(), arrays[name].numpy())
    assert main(["convert", str(folder), str(tmp_path / "tower")]) == 0
    found, wanted = (Tower.open(path).vectors(["w1 w2", "w3"]) for path in (folder, tmp_path / "tower"))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    with pytest.raises(CheckpointError, match="is an adapter, which changes weights"):
        read_weights(folder / inside)


def test_of_several_adapters_one_is_chosen_by_its_name(tmp_path: Path) -> None:
    adapter = write_case(tmp_path, "lora")
    adapter.rename(tmp_path / "all")
    adapter = tmp_path / "all" / "law"
    adapter.mkdir()
    for name in (CONFIG, ARRAYS):
        (tmp_path / "all" / name).rename(adapter / name)
    assert find_model(f"{tmp_path / 'all'}:law") == adapter
    assert logits(find_model(f"{tmp_path / 'all'}:law")) == logits(adapter)
    with pytest.raises(CheckpointError, match=r"no such adapter; .* has law"):
        find_model(f"{tmp_path / 'all'}:other")
    for load in (partial(open_model, role=RANKER), load_encoder):
        with pytest.raises(CheckpointError, match=r"a folder of several adapters.*all:NAME, of law"):
            load(tmp_path / "all")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model_name_or_path": "/gone/base"}, "its base '/gone/base' is not on this machine"),
        ({"base_model_name_or_path": None}, "names no base"),
        ({"base_model_name_or_path": "nobody/nothing"}, "hf download nobody/nothing"),
        ({"target_modules": "("}, "has a pattern that is none"),
        ({"exclude_modules": "["}, "has a pattern that is none"),
        ({"target_modules": "((a{99}){99}){99}"}, "10,000 repetitions"),
        ({"rank_pattern": {"a" * 3000: 2}}, "2,000 characters"),
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING.*nothing can be merged"),
        ({"peft_type": "LOHA"}, "LOHA.*merge_and_unload"),
    ],
)
def test_what_cannot_be_opened_says_why(
    tmp_path: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = write_case(tmp_path, "lora")
    change_json(folder / CONFIG, **changes)
    for load in (partial(open_model, role=RANKER), load_encoder, load_single):
        with pytest.raises(CheckpointError, match=message):
            load(folder)


def test_an_adapter_of_an_adapter_is_refused_and_one_beside_its_base_is_merged(tmp_path: Path) -> None:
    folder = write_case(tmp_path, "lora")
    second = tmp_path / "second"
    second.mkdir()
    for name in (CONFIG, ARRAYS):
        (second / name).write_bytes((folder / name).read_bytes())
    change_json(second / CONFIG, base_model_name_or_path=str(folder))
    with pytest.raises(CheckpointError, match="is an adapter, too"):
        load_single(second)
    wanted = logits(folder)
    for name in (CONFIG, ARRAYS):
        (tmp_path / "base" / name).write_bytes((folder / name).read_bytes())
    assert logits(tmp_path / "base") == wanted


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = write_case(tmp_path, "lora")
    arrays = load_file(folder / ARRAYS)
    key = next(name for name in arrays if "query.lora_A" in name)
    for others, message in (
        ({key.replace("layer.0", "layer.7"): arrays[key]}, "it is of another model"),
        ({key: arrays[key][:1]}, "rank_pattern"),
        ({key: arrays[key][:, :5]}, "it is of another model"),
    ):
        save_file({**arrays, **others}, folder / ARRAYS, {"format": "pt"})
        with pytest.raises(CheckpointError, match=message):
            load_single(folder, LoadOptions())


SLOW = "((.+?)(?:.+?)?)+?[A-Z]"


@pytest.mark.parametrize(
    "key", ["target_modules", "exclude_modules", "rank_pattern", "modules_to_save", "layers_pattern"]
)
def test_no_pattern_of_a_folder_holds_the_process(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "_MOST_SECONDS", 0.05)
    folder = write_case(tmp_path, "rslora")
    value = {"rank_pattern": {SLOW: 2}, "modules_to_save": [SLOW], "layers_pattern": [SLOW]}.get(key, SLOW)
    others = {"layers_to_transform": None, "layers_pattern": None} if key == "target_modules" else {}
    change_json(folder / CONFIG, **others, **{key: value})
    with pytest.raises(CheckpointError, match=r"takes more than 0\.05 s to match"):
        load_single(folder)


def test_info_and_doctor_name_an_adapter_its_kind_its_base_and_its_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_case(tmp_path, "lora")
    wanted = f"LoRA, rank 3 (layer.0.attention.self.query 2), of {tmp_path / 'base'}"
    for command in (["info", str(folder)], ["doctor", "--model", str(folder)]):
        assert main(command) == 0
        assert wanted in capsys.readouterr().out
    change_json(folder / CONFIG, use_rslora=True, use_dora=True, rank_pattern={})
    facts = dict(facts_of(identify(folder)))
    assert facts["adapter"] == f"DoRA and rsLoRA, rank 3, of {tmp_path / 'base'}"
    change_json(write_case(tmp_path / "other", "ia3") / CONFIG, revision="abc")
    facts = dict(facts_of(identify(tmp_path / "other" / "adapter")))
    assert facts["adapter"] == f"IA³, of {tmp_path / 'other' / 'base'}, revision abc"
