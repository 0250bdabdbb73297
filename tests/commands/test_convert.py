"""Conversion from and to transformers' folders: scores against BERT in NumPy, round trips, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import expit, softmax

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.commands.convert import ConvertOptions, convert
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.model.parameters import load_arrays
from paddle_ranker.model.ranker_folder import Fresh, start_ranker
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from tests import torch_writer
from tests.conftest import Call
from tests.numpy_bert import NumpyBert
from tests.tiny import CONFIG, PAIRS, VOCABULARY, make_network, write_encoder, write_ranker

pytestmark = pytest.mark.parity

QUERIES, TITLES = [list(column) for column in zip(*PAIRS)]
WIDTH, INNER = CONFIG.hidden_size, CONFIG.intermediate_size
BASE: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(VOCABULARY) + 3,  # a padded table: more rows than tokens
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": INNER,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def random_weights(config: Mapping[str, Any], prefix: str, labels: int = 0) -> dict[str, np.ndarray]:
    """Return weights of a transformers BERT, ERNIE or RoBERTa; `labels`: of a classifier, 0 for none."""
    draw = np.random.RandomState(3)

    def matrix(*shape: int) -> np.ndarray:
        return (0.4 * draw.randn(*shape)).astype("float32")

    tables = {"word": "vocab_size", "position": "max_position_embeddings", "token_type": "type_vocab_size"}
    weights = {f"embeddings.{name}_embeddings.weight": matrix(config[rows], WIDTH) for name, rows in tables.items()}
    if config.get("use_task_id"):
        weights["embeddings.task_type_embeddings.weight"] = matrix(config["task_type_vocab_size"], WIDTH)
    norms = ["embeddings.LayerNorm"]
    linear = []
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        linear += [(f"{layer}.attention.self.{part}", WIDTH, WIDTH) for part in ("query", "key", "value")]
        linear += [(f"{layer}.attention.output.dense", WIDTH, WIDTH)]
        linear += [(f"{layer}.intermediate.dense", INNER, WIDTH), (f"{layer}.output.dense", WIDTH, INNER)]
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    is_roberta_ranker = config["model_type"] == "roberta" and labels
    if not is_roberta_ranker:
        linear.append(("pooler.dense", WIDTH, WIDTH))
    for name in norms:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = 1 + matrix(WIDTH), matrix(WIDTH)
    for name, rows, columns in linear:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = matrix(rows, columns), matrix(rows)
    weights = {prefix + name: array for name, array in weights.items()}
    if is_roberta_ranker:
        weights.update({"classifier.dense.weight": matrix(WIDTH, WIDTH), "classifier.dense.bias": matrix(WIDTH)})
    if labels:
        head = "classifier.out_proj" if is_roberta_ranker else "classifier"
        weights.update({f"{head}.weight": matrix(labels, WIDTH), f"{head}.bias": matrix(labels)})
    return weights


def write_hf(
    folder: Path,
    weights: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    *,
    format: str = "safetensors",
    settings: Optional[Mapping[str, Any]] = None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if format == "safetensors":
        save_file(dict(weights), folder / "model.safetensors", {"format": "pt"})
    else:
        torch_writer.save(folder / "pytorch_model.bin", weights, legacy=format == "legacy")
    return folder


def to_paddle(source: Path, target: Path) -> list[str]:
    return convert(ConvertOptions(source=str(source), target=str(target)))


def to_hf(source: Path, target: Path, **options: Any) -> list[str]:
    return convert(ConvertOptions(source=str(source), target=str(target), to="hf", **options))


def oracle(folder: Path, weights: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> np.ndarray:
    """Return the logits `[pairs, labels]` of PAIRS, tokenized by the converted folder, one pair at a time."""
    encoder = load_model(folder, RANKER).row_encoder
    encoded, bert = encoder.encode(QUERIES, TITLES), NumpyBert(weights, config)
    rows = []
    for i in range(len(PAIRS)):
        ids, types = encoded.pad([i]).values()
        rows.append(bert.logits(ids, types, np.ones_like(ids))[0])
    return np.array(rows)


ARCHITECTURES = [
    ("bert", "Bert", {}),
    ("bert", "Bert", {"hidden_act": "relu", "layer_norm_eps": 1e-5}),
    ("bert", "Bert", {"hidden_act": "swish", "num_attention_heads": 4}),
    ("ernie", "Ernie", {"type_vocab_size": 4}),
    ("ernie", "Ernie", {"use_task_id": True, "task_type_vocab_size": 16}),
    ("roberta", "Roberta", {}),
    ("roberta", "Roberta", {"type_vocab_size": 1}),
]


@pytest.mark.parametrize(
    ("architecture", "format"),
    [*((one, "safetensors") for one in ARCHITECTURES), (ARCHITECTURES[0], "zip"), (ARCHITECTURES[4], "legacy")],
)
def test_a_ranker_scores_the_same(tmp_path: Path, architecture: tuple[str, str, dict[str, Any]], format: str) -> None:
    model_type, name, changes = architecture
    architectures = [f"{name}ForSequenceClassification"]
    config = {**BASE, **changes, "model_type": model_type, "architectures": architectures}
    weights = random_weights(config, f"{model_type}.", labels=1)
    to_paddle(write_hf(tmp_path / "hf", weights, config, format=format), tmp_path / "ours")
    ranker = Ranker.load(tmp_path / "ours")
    plain = {**config, "hidden_act": config["hidden_act"].replace("swish", "silu")}
    expected = oracle(tmp_path / "ours", weights, plain)[:, 0]
    np.testing.assert_allclose(ranker.score(QUERIES, TITLES), expit(expected), atol=1e-5)
    assert np.ptp(expit(expected)) > 0.01  # a thousand times the tolerance
    assert (ranker.info.kind, ranker.info.match_embeddings) == ("cross_encoder", False)


def test_two_labels_are_folded_exactly(tmp_path: Path) -> None:
    config = {**BASE, "architectures": ["BertForSequenceClassification"]}
    weights = random_weights(config, "bert.", labels=2)
    to_paddle(write_hf(tmp_path / "hf", weights, config), tmp_path / "ours")
    expected = softmax(oracle(tmp_path / "ours", weights, config), axis=1)[:, 1]
    np.testing.assert_allclose(Ranker.load(tmp_path / "ours").score(QUERIES, TITLES), expected, atol=1e-5)
    arrays = load_arrays(tmp_path / "ours" / "model_state.pdparams")
    difference = weights["classifier.weight"][1] - weights["classifier.weight"][0]
    np.testing.assert_array_equal(arrays["head.weight"][:, 0], difference)


def hidden_states(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the hidden states of PAIRS, and the inputs."""
    import paddle

    parts = start_ranker(folder, Fresh("pairwise", match_embeddings=False))
    encoded = parts.row_encoder.encode(QUERIES, TITLES)
    ids, types = encoded.pad(range(len(PAIRS))).values()
    parts.network.eval()
    mask = np.arange(ids.shape[1]) < encoded.lengths[:, None]
    hidden = parts.network.encoder(paddle.to_tensor(ids), paddle.to_tensor(types)).numpy()
    return hidden, {"input_ids": ids, "token_type_ids": types, "mask": mask}


@pytest.mark.parametrize("prefix", ["", "bert.", "module.bert."])
@pytest.mark.parametrize("old_names", [False, True])
def test_a_bare_encoder(tmp_path: Path, prefix: str, old_names: bool) -> None:
    weights = random_weights(BASE, prefix)
    for new, old in (("Norm.weight", "Norm.gamma"), ("Norm.bias", "Norm.beta")) if old_names else ():
        weights = {name.replace(new, old): array for name, array in weights.items()}
    weights[f"{prefix}embeddings.position_ids"] = np.arange(64)[None]
    weights["cls.predictions.bias"] = np.zeros(BASE["vocab_size"], "float32")
    lines = to_paddle(write_hf(tmp_path / "hf", weights, BASE), tmp_path / "ours")
    assert "left out" in lines[1] and lines[1].endswith("cls.predictions.bias")  # position_ids are no parameters
    hidden, inputs = hidden_states(tmp_path / "ours")
    expected = NumpyBert(weights, BASE).hidden(**inputs)
    np.testing.assert_allclose(hidden[inputs["mask"]], expected[inputs["mask"]], atol=1e-5)
    assert not (tmp_path / "ours" / "ranker.json").exists()
    with pytest.raises(CheckpointError, match="head"):
        load_model(tmp_path / "ours", RANKER)


def test_an_encoder_without_a_pooler_gets_none_that_looks_trained(tmp_path: Path) -> None:
    weights = {name: array for name, array in random_weights(BASE, "").items() if "pooler" not in name}
    lines = to_paddle(write_hf(tmp_path / "hf", weights, BASE), tmp_path / "ours")
    assert "no pooler" in lines[0]
    parts = start_ranker(tmp_path / "ours", Fresh("pairwise", match_embeddings=False))
    assert parts.new_parts == ["encoder.pooler.dense", "head"]
    to_hf(tmp_path / "ours", tmp_path / "back")
    assert sorted(load_file(tmp_path / "back" / "model.safetensors")) == sorted(weights)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("format", ["safetensors", "zip"])
def test_half_precision(tmp_path: Path, half: str, format: str) -> None:
    weights, expected, types = random_weights(BASE, ""), {}, {}
    for name, array in weights.items():
        if half == "float16":
            types[name] = array.astype("float16")
            expected[name] = types[name].astype("float32")
        else:
            types[name] = (array.view("uint32") >> 16).astype("uint16")
            expected[name] = (types[name].astype("uint32") << 16).view("float32")
    folder = write_hf(tmp_path / "hf", types, BASE, format=format)
    if format == "safetensors" and half == "bfloat16":  # the NumPy side of the library has no name for it
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes().replace(b'"U16"', b'"BF16"').replace(b"{", b"{", 1))
        size = int.from_bytes(path.read_bytes()[:8], "little") + len(types)  # a letter more for each tensor
        path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])
    to_paddle(folder, tmp_path / "ours")
    to_hf(tmp_path / "ours", tmp_path / "back")
    for name, array in load_file(tmp_path / "back" / "model.safetensors").items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("format", ["safetensors", "zip"])
def test_shards(tmp_path: Path, format: str) -> None:
    weights = random_weights(BASE, "bert.")
    names = sorted(weights)
    folder = write_hf(tmp_path / "hf", weights, BASE)
    (folder / "model.safetensors").unlink()
    stem, suffix = ("model", "safetensors") if format == "safetensors" else ("pytorch_model", "bin")
    places = {name: f"{stem}-0000{1 + i % 2}-of-00002.{suffix}" for i, name in enumerate(names)}
    for file in set(places.values()):
        shard = {name: weights[name] for name in names if places[name] == file}
        if format == "safetensors":
            save_file(shard, folder / file, {"format": "pt"})
        else:
            torch_writer.save(folder / file, shard)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    to_paddle(folder, tmp_path / "ours")
    to_hf(tmp_path / "ours", tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert all(np.array_equal(back[name[len("bert.") :]], weights[name]) for name in names)
    for bad, message in (
        ({**places, names[0]: "../x.bin"}, "refused, it names '../x.bin'"),
        ({**places, names[0]: f"{stem}-00003.{suffix}"}, "no such file"),
        ({**places, "more": places[names[0]]}, "more is not in"),
        ([], "damaged"),
    ):
        index.write_text(json.dumps({"weight_map": bad}))
        if bad == []:
            index.write_text("{}")
        with pytest.raises(CheckpointError, match=message):
            to_paddle(folder, tmp_path / "again")


@pytest.mark.parametrize(("model_type", "name", "changes"), ARCHITECTURES[:1] + ARCHITECTURES[3:6])
@pytest.mark.parametrize("labels", [0, 1])
def test_there_and_back_gives_equal_arrays(
    tmp_path: Path, model_type: str, name: str, changes: dict[str, Any], labels: int
) -> None:
    architecture = f"{name}{'ForSequenceClassification' if labels else 'Model'}"
    config = {**BASE, **changes, "model_type": model_type, "architectures": [architecture]}
    weights = random_weights(config, f"{model_type}." if labels else "", labels=labels)
    to_paddle(write_hf(tmp_path / "hf", weights, config), tmp_path / "ours")
    to_hf(tmp_path / "ours", tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert sorted(back) == sorted(weights)
    for key, array in back.items():
        np.testing.assert_array_equal(array, weights[key], err_msg=key)
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {key: written[key] for key in config} == config
    assert written.get("num_labels") == (1 if labels else None)
    to_paddle(tmp_path / "back", tmp_path / "again")
    ours, again = (load_arrays(tmp_path / name / "model_state.pdparams") for name in ("ours", "again"))
    assert sorted(ours) == sorted(again)
    assert all(np.array_equal(ours[key], again[key]) for key in ours)


@pytest.mark.parametrize("match", [False, True])
def test_our_ranker_for_transformers(tmp_path: Path, match: bool) -> None:
    ranker = write_ranker(tmp_path / "ours", match=match)
    if match:
        with pytest.raises(CheckpointError, match="--drop_match_embeddings"):
            to_hf(ranker, tmp_path / "hf")
        assert os.listdir(tmp_path) == ["ours"]
    lines = to_hf(ranker, tmp_path / "hf", drop_match_embeddings=match)
    assert ("the scores change" in lines[-1]) is match
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("ernie", ["ErnieForSequenceClassification"])
    assert (tmp_path / "hf" / "model.safetensors").stat().st_mode & 0o044 == 0o044  # readable by others
    weights = load_file(tmp_path / "hf" / "model.safetensors")
    expected = expit(oracle(ranker, weights, config)[:, 0])
    scores = Ranker.load(ranker).score(QUERIES, TITLES)
    assert np.allclose(scores, expected, atol=1e-5) is not match
    to_paddle(tmp_path / "hf", tmp_path / "again")
    again = Ranker.load(tmp_path / "again")
    assert (again.info.kind, again.info.max_seq_length) == ("pairwise", 32)  # as before it went
    np.testing.assert_allclose(again.score(QUERIES, TITLES), expected, atol=1e-5)


def test_match_embeddings_that_are_zero_are_left_out(tmp_path: Path) -> None:
    from paddle_ranker.model.ranker_folder import save_ranker

    write_encoder(tmp_path / "encoder")
    parts = start_ranker(tmp_path / "encoder", Fresh("pairwise"))
    (tmp_path / "ours").mkdir()
    save_ranker(tmp_path / "ours", parts.network, parts.row_encoder, parts.info)
    assert "equal scores" in to_hf(tmp_path / "ours", tmp_path / "hf")[-1]
    to_paddle(tmp_path / "hf", tmp_path / "back")
    ours, back = Ranker.load(tmp_path / "ours"), Ranker.load(tmp_path / "back")
    np.testing.assert_array_equal(ours.score(QUERIES, TITLES), back.score(QUERIES, TITLES))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalize_before": True}, "normalize_before"),
        ({"type_vocab_size": 0}, "type_vocab_size 0"),
        ({"use_task_id": True, "task_id": 1}, "task id 1"),
        ({"use_task_id": True, "model_type": "bert"}, "task types in a bert"),
        ({"hidden_act": "relu6"}, "activation relu6"),
        ({"model_type": "nezha"}, "model type nezha"),
    ],
)
def test_what_transformers_cannot_hold(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    source = write_encoder(tmp_path / "ours", **changes)
    for target in ("hf", "sentence-transformers"):
        with pytest.raises(CheckpointError, match=rf"ours: .*{message}"):
            convert(ConvertOptions(source=str(source), target=str(tmp_path / "there"), to=target))
    assert os.listdir(tmp_path) == ["ours"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "t5"}, "model_type is 't5'; .*bert, ernie, roberta, .* can be converted"),
        ({"model_type": "layoutlmv3"}, r"not for commercial use: take microsoft/layoutlm-base-uncased \(layoutlm\)"),
        ({"model_type": "qwen2"}, "this is a decoder of another family: take Qwen/Qwen3-Reranker"),
        ({"model_type": "albert"}, "take hfl/chinese-macbert-base"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"embedding_size": 8}, "embedding_size"),
        ({"num_attention_heads": 3}, "not a multiple"),
        ({"num_attention_heads": 0}, "not a usable"),
        ({"vocab_size": 10**12}, "describes an encoder of"),  # before memory is taken for it
        ({"num_hidden_layers": 10**9}, "describes an encoder of"),
        ({"hidden_size": "wide"}, "not a usable"),
        ({"vocab_size": 99}, r"word_embeddings\.weight is \[\d+, 16\], the configuration says \[99, 16\]"),
        ({"intermediate_size": 64}, r"linear1\.weight is \[16, 32\], the configuration says \[16, 64\]"),
        ({"num_hidden_layers": 3}, r"missing: encoder\.encoder\.layers\.2\."),
        ({"num_hidden_layers": 1}, r"not in this architecture: encoder\.encoder\.layers\.1\."),
        ({"use_task_id": True, "model_type": "ernie"}, "task_type_embeddings"),
        ({"architectures": ["BertForSequenceClassification"]}, r"has no classifier\.weight"),
        ({"pad_token_id": 4}, r"\[PAD\] is id 0, the model's 4"),
        ({"pad_token_id": None, "model_type": "roberta"}, r"\[PAD\] is id 0, the model's 1"),
    ],
)
def test_a_checkpoint_of_another_architecture(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    source = write_hf(tmp_path / "hf", random_weights(BASE, ""), {**BASE, **changes})
    with pytest.raises(CheckpointError, match=message):
        to_paddle(source, tmp_path / "ours")
    assert os.listdir(tmp_path) == ["hf"]


def test_three_labels_and_a_tagger_s_are_no_ranking_head(tmp_path: Path) -> None:
    for task, labels in (("Sequence", 3), ("Token", 2)):
        config = {**BASE, "architectures": [f"BertFor{task}Classification"]}
        source = write_hf(tmp_path / f"hf {task}", random_weights(config, "bert.", labels=labels), config)
        assert "classifier.weight" in to_paddle(source, tmp_path / f"ours {task}")[-1]
        assert not (tmp_path / f"ours {task}" / "ranker.json").exists()


def test_a_hostile_file_is_refused_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_hf(tmp_path / "hf", random_weights(BASE, ""), BASE, format="zip")
    command = torch_writer.call(torch_writer.name("os", "system"), torch_writer.text(f"touch {tmp_path / 'MARK'}"))
    torch_writer.write_zip(source / "pytorch_model.bin", torch_writer.pickled(command), {})
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 1
    assert "refused, it asks for os.system" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["hf"]


def test_a_folder_that_lacks_its_tokenizer_or_its_shape(tmp_path: Path) -> None:
    paddle, hf = write_encoder(tmp_path / "paddle"), write_hf(tmp_path / "hf", random_weights(BASE, ""), BASE)
    (hf / "vocab.txt").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json, .* and no vocab\.txt"):
        to_paddle(hf, tmp_path / "new")
    (hf / "sentencepiece.bpe.model").touch()
    with pytest.raises(CheckpointError, match=r"sentencepiece\.bpe\.model: holds 0 pieces"):
        to_paddle(hf, tmp_path / "new")
    (paddle / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        to_hf(paddle, tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["hf", "paddle"]


def test_a_sentence_transformers_folder(tmp_path: Path) -> None:
    write_hf(tmp_path / "hf" / "0_Transformer", random_weights(BASE, ""), BASE)
    modules = [{"idx": 0, "path": "0_Transformer", "type": "Transformer"}, {"idx": 1, "path": "1_Pooling"}]
    (tmp_path / "hf" / "modules.json").write_text(json.dumps(modules))
    to_paddle(tmp_path / "hf", tmp_path / "ours")
    assert start_ranker(tmp_path / "ours", Fresh("pairwise")).row_encoder.vocab_size == len(VOCABULARY)
    (tmp_path / "hf" / "modules.json").write_text(json.dumps([{"path": "../hf/0_Transformer"}]))
    with pytest.raises(CheckpointError, match="is a folder without a model, not a model of transformers"):
        to_paddle(tmp_path / "hf", tmp_path / "other")


def test_paddlenlp_names_are_not_turned_twice(tmp_path: Path) -> None:
    state = {name: tensor.numpy() for name, tensor in make_network(match=False).encoder.state_dict().items()}
    source = write_hf(tmp_path / "hf", state, {**BASE, "vocab_size": len(VOCABULARY)})
    to_paddle(source, tmp_path / "ours")
    kept = load_arrays(tmp_path / "ours" / "model_state.pdparams")
    assert kept.keys() == state.keys() and all((kept[name] == state[name]).all() for name in state)


def test_capitals_that_a_tokenizer_loses_are_said_and_made_small(tmp_path: Path, call: Call) -> None:
    """Of m3e-small's kind: the vocabulary of an uncased model, and a tokenizer that keeps capitals."""
    kept = write_hf(tmp_path / "hf", random_weights(BASE, ""), BASE, settings={"do_lower_case": False})
    towers = {}
    for name, more in (("kept", []), ("small", ["--lowercase"])):
        command = ["convert", kept, tmp_path / name, "--to", "tower", "--pooling", "mean", *more]
        for status, printed, _ in (call(main, *command), call(main, "doctor", "--model", tmp_path / name)):
            assert (status, "[UNK]" in printed) == (0, name == "kept")
        towers[name] = Tower.open(tmp_path / name)
    capitals, small = (towers["small"].vectors([text]) for text in ("Ab 深", "ab 深"))
    assert capitals.tobytes() == small.tobytes() == towers["kept"].vectors(["ab 深"]).tobytes()
    assert np.abs(towers["kept"].vectors(["Ab 深"]) - small).max() > 1e-3
