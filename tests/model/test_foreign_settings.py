"""What a transformers folder states is honoured, refused by name, without effect, or said to be unknown."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from paddle_ranker.__main__ import main
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model.hugging_face.folder import ClassifierHead
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, load_encoder
from paddle_ranker.model.parameters import load_arrays, save_arrays
from paddle_ranker.model.ranker_folder import Fresh, load_single, start_ranker
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.storage.foreign_config import ForeignConfig
from tests.checkout import ONCE, SHORT_STEP
from tests.model.family_cases import ABSENT, CONFIGS_FILE, changed_case, changed_config, short_inputs, with_boxes
from tests.model.test_families import logits_of, write_folder, write_said
from tests.tiny import change_json, write_encoder

pytestmark = pytest.mark.parity

ANSWERS = json.loads(CONFIGS_FILE.read_text(encoding="utf-8"))
# What transformers passes over and is refused here, since files that have it are of code that does something with it.
MORE_CAREFUL = {
    "is_causal",
    "position_embedding_type",
    "embedding_size",
    "is_encoder_decoder",
    "rope_scaling",
    "pruned_heads",
}
MORE_CAREFUL |= {"pad_token_id", "rope_parameters", "use_sliding_window"}
MORE_CAREFUL |= {"adapters", "attn_logit_softcapping", "talking_head", "problem_type", "head_dim", "architectures"}


@ONCE
@pytest.mark.parametrize("case", ANSWERS)
def test_every_key_of_transformers_moves_the_same_logits_or_is_refused(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the keys without effect move nothing, and what the others do, was computed by transformers."""
    config, shapes = changed_case(case)
    unknown: list[str] = []
    wrong: list[Any] = []
    said = {"config": config, "shapes": shapes}
    robertas = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "lilt")
    folder = write_said(tmp_path / "hf", said, config["model_type"] in robertas)
    monkeypatch.setattr(ForeignConfig, "log_unknown", lambda stated: unknown.extend(stated.unknown))
    plain = ANSWERS[case]["logits"]
    for key, value, answer in [["", ABSENT, None], *ANSWERS[case]["changes"][::SHORT_STEP]]:
        (folder / "config.json").write_text(json.dumps(changed_config(config, key, value)), encoding="utf-8")
        unknown.clear()
        try:
            network = load_single(folder).network
        except CheckpointError as error:
            says_why = key in str(error) or "not in this architecture" in str(error)
            if not (key in MORE_CAREFUL if answer is None else says_why or isinstance(answer, str)):
                wrong.append((key, value, str(error)))
            continue
        wanted = np.array(plain if answer is None else answer if isinstance(answer, list) else np.nan)
        wanted = wanted if wanted.ndim < 2 else wanted[:, 0] if wanted.shape[1] == 1 else wanted[:, 1] - wanted[:, 0]
        if (
            key == "problem_type" and value not in (None, ABSENT) and len(plain[0]) == 2
        ):  # a probability of several labels is the label's
            wanted = np.array(plain)[:, 1]
        found = short_logits(network, config.get("pad_token_id", 0))
        if not np.allclose(found, wanted, atol=2e-5) and not isinstance(answer, str):
            wrong.append((key, value, found.tolist(), wanted.tolist()))
        wrong += [(key, value, "unknown")] if key in unknown and key in ANSWERS[case]["keys"] else []
    assert wrong == [], wrong


def short_logits(network: Any, pad_id: int) -> np.ndarray:
    """Return the logits of two short rows, of which `ANSWERS` has transformers'."""
    network.eval()
    ids, types, mask = short_inputs(pad_id)
    if network.config.place_limits:
        types = with_boxes(types, mask)
    ids, types = map(paddle.to_tensor, (ids, types))
    return np.asarray(network(ids, types).numpy())


def test_what_nobody_knows_is_said_by_trainings_and_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "hf", "xlm-roberta")
    change_json(folder / "config.json", alibi_slope=2.0, use_cache=False)
    tensors = {"roberta.encoder.gate.weight": np.ones(3, np.float32), "lm_head.bias": np.ones(96, np.float32)}
    save_file({**load_file(folder / "model.safetensors"), **tensors}, folder / "model.safetensors", {"format": "pt"})
    start_ranker(folder, Fresh("cross_encoder"))
    said = capsys.readouterr().err
    assert "not used: alibi_slope\n" in said and "not used: roberta.encoder.gate.weight\n" in said
    assert "use_cache" not in said and "lm_head" not in said
    other = write_folder(tmp_path / "other", "xlm-roberta")
    change_json(other / "config.json", alibi_slope=2.0)
    assert main(["doctor", "--model", str(other)]) == 0
    assert capsys.readouterr().err.count("not used: alibi_slope") == 1


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("roberta.encoder.layer.0.output.dense.weight", np.ones((16, 24), np.int8), "is of a quantised model"),
        ("roberta.encoder.layer.0.output.dense.SCB", np.ones(16, np.float32), "is of a quantised model"),
        (
            "roberta.pooler.dense.lora_A.weight",
            np.ones((2, 16), np.float32),
            "saved with its adapter unmerged.*merge_and_unload",
        ),
        ("module.classifier.dense.bias", np.ones(16, np.float32), "holds a model twice"),
    ],
)
def test_what_is_no_weight_is_refused(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    folder = write_folder(tmp_path / "hf", "xlm-roberta")
    theirs = load_file(folder / "model.safetensors")
    save_file({**theirs, name: array}, folder / "model.safetensors", {"format": "pt"})
    for load in (load_single, load_encoder):
        with pytest.raises(CheckpointError, match=message):
            load(folder)


def test_folders_of_paddlenlp_are_checked_too(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "ours")
    arrays, name = load_arrays(folder / "model_state.pdparams"), "encoder.layers.0.linear1.weight"
    save_arrays({**arrays, name: arrays[name].astype(np.int8)}, folder / "model_state.pdparams")
    with pytest.raises(CheckpointError, match=f"{name} is int8"):
        load_encoder(folder)
    change_json(folder / "config.json", pool_act="relu")
    with pytest.raises(CheckpointError, match="pool_act is 'relu'; only tanh"):
        load_encoder(folder)


def test_a_vocabulary_alone_is_a_tokenizer_of_mpnet(tmp_path: Path) -> None:
    """As in transformers 5.23."""
    folder = write_folder(tmp_path / "hf", "mpnet")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("<s>\n<pad>\n</s>\n[UNK]\n<mask>\na\n", encoding="utf-8")
    assert load_single(folder).row_encoder.encode(["a"], ["a a"])[0].tolist() == [0, 5, 2, 2, 5, 5, 2]


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_of_wrapped_models_are_read(tmp_path: Path, wrapper: str) -> None:
    folder = write_folder(tmp_path / "hf", "xlm-roberta")
    wanted = logits_of(load_single(folder).network)
    arrays = load_file(folder / "model.safetensors")
    save_file({wrapper + name: array for name, array in arrays.items()}, folder / "model.safetensors", {"format": "pt"})
    np.testing.assert_array_equal(logits_of(load_single(folder).network), wanted)


LABELS = [
    (("entailment", "not_entailment"), 0),
    (("not_entailment", "entailment"), 1),
    (("Relevant", "Irrelevant"), 0),
    (("false", "true"), 1),
    (("yes", "no"), 0),
    (("LABEL_0", "LABEL_1"), 1),
    (("0", "1"), 1),
    (("not-relevant", "relevant"), 1),
    (("不相关", "相关"), 1),
    (("蕴含", "不蕴含"), 0),
    (("是", "否"), 0),
    (("duplicate", "not duplicate"), 0),
    (("A", "B"), None),
    (("relevant", "relevant"), None),
    (("entailment", "something"), None),
]


@pytest.mark.parametrize(("labels", "place"), LABELS)
def test_names_of_classes_say_which_means_relevant(labels: tuple[str, str], place: Optional[int]) -> None:
    head = ClassifierHead(Path("config.json"), labels)
    if place is not None:
        assert head.place(None) == place
        return
    with pytest.raises(CheckpointError, match=r"as positive_label \(--positive_label NAME"):
        head.place(None)


@pytest.mark.parametrize(("labels", "place"), [(("A", "B"), None), (("yes", "no"), 0), (("LABEL_0", "LABEL_1"), 1)])
def test_the_probability_is_of_the_class_that_means_relevant(
    tmp_path: Path, labels: tuple[str, str], place: Optional[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two classes: the softmax of transformers' logits, of the class whose name says so."""
    folder, ours = write_folder(tmp_path / "hf", "roberta"), tmp_path / "ours"
    change_json(folder / "config.json", id2label=dict(enumerate(labels)), label2id={})
    logits = np.array(ANSWERS["roberta"]["logits"])
    options, line = LoadOptions(), ["convert", str(folder), str(ours)]
    if place is None:
        for load in (load_single, lambda path: start_ranker(path, Fresh("pairwise"))):
            with pytest.raises(CheckpointError, match=r"as positive_label \(--positive_label NAME"):
                load(folder)
        load_encoder(folder)  # which needs no head
        place, options = 0, LoadOptions(positive_label="0")
        line += ["--positive_label", labels[0]]
    assert main(line) == 0 and f"that of the class {labels[place]!r} ({place})" in capsys.readouterr().err
    wanted = logits[:, place] - logits[:, 1 - place]
    for source, given, sign in (
        (folder, options, 1),
        (ours, LoadOptions(), 1),
        (folder, LoadOptions(positive_label=str(1 - place)), -1),
    ):
        found = short_logits(load_single(source, given).network, 1)
        np.testing.assert_allclose(found, sign * wanted, atol=1e-5)


def test_a_class_is_asked_for_where_there_are_two_alone(tmp_path: Path) -> None:
    two, one = write_folder(tmp_path / "two", "roberta"), write_folder(tmp_path / "one", "xlm-roberta")
    options = LoadOptions(positive_label="good")
    with pytest.raises(UsageError, match="the classes are LABEL_0, LABEL_1"):
        load_single(two, options)
    with pytest.raises(UsageError, match="has one: leave it out"):
        load_single(one, options)
    with pytest.raises(UsageError, match="is none: leave it out"):
        start_ranker(write_encoder(tmp_path / "ours"), Fresh("pairwise"), options)
    change_json(two / "config.json", id2label={"0": "entailment", "1": "neutral", "2": "contradiction"})
    with pytest.raises(CheckpointError, match="tells 3 classes apart: entailment, neutral, contradiction"):
        open_model(two, RANKER)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("adapter_config.json", "model.safetensors"), "peft_type is None; LORA and IA3 are opened here"),
        (("config.json", "onnx/model.onnx"), "an ONNX file of another program, without a tokenizer"),
    ],
)
def test_folders_of_something_else_say_what_they_are(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}", encoding="utf-8")
    for load in (partial(open_model, role=RANKER), load_encoder):
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path)
