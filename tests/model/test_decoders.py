"""Qwen3's embeddings and rerankers: equal to transformers, alone and in batches, and used as any tower or ranker."""

from __future__ import annotations

import ast
import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from paddle_ranker import Ranker, train
from paddle_ranker.__main__ import main
from paddle_ranker.commands.convert import ConvertOptions, convert
from paddle_ranker.encoding import samples
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.export import onnx
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.builtin_kinds import KINDS
from paddle_ranker.model.hugging_face import chat
from paddle_ranker.model.hugging_face.weights import load_parameters, parameters_file
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import TOWER, identify
from paddle_ranker.model.networks import qwen3
from paddle_ranker.model.networks.lora import add_adapters
from paddle_ranker.model.parameters import float32_of_bfloat16, save_arrays
from paddle_ranker.model.ranker_folder import RankerModel, load_single
from paddle_ranker.model.tower_network import load_tower
from paddle_ranker.scoring.cascade import Cascade
from paddle_ranker.scoring.loading import open_model
from tests.model.decoder_cases import CHAT, INSTRUCTION, LONGEST, PAIRS, TEXTS, expected, write_folder
from tests.tiny import change_json

HAS_ONNX = not paddle.__version__.startswith("2.")
pytestmark = pytest.mark.parity

EXPECTED = expected()
RANKERS = ("reranker", "untied", "classifier", "plain")
OPTIONS = LoadOptions(max_seq_length=LONGEST)
QUERIES, TITLES = ([pair[side] for pair in PAIRS] for side in (0, 1))


def opened(folder: Path) -> RankerModel:
    model = load_single(folder, OPTIONS)
    model.network.eval()
    return model


def outputs(network: paddle.nn.Layer, columns: Any, rows: list[int]) -> np.ndarray:
    """Return what a network computes of some rows, as one batch."""
    with paddle.no_grad():
        return np.asarray(network(*map(paddle.to_tensor, columns.pad(rows).values())).numpy())


BATCHES = ([0, 1, 2, 3, 4, 5, 6], [5], [3], [0, 1, 3, 5], [2, 6], [6, 0], [4, 2])


@pytest.mark.parametrize("block", [512, 64])
@pytest.mark.parametrize("case", RANKERS)
def test_pairs_get_the_ids_and_logits_of_transformers_in_any_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, block: int
) -> None:
    monkeypatch.setattr(qwen3, "BLOCK", block)
    folder = write_folder(tmp_path / "hf", case)
    assert identify(folder).kind is KINDS["cross_encoder"]
    model = opened(folder)
    pairs = model.row_encoder.encode(QUERIES, TITLES)
    assert [pairs[row].tolist() for row in range(len(pairs))] == EXPECTED[case]["ids"]
    wanted = np.array(EXPECTED[case]["logits"])
    for rows in BATCHES:
        np.testing.assert_allclose(outputs(model.network, pairs, rows), wanted[rows], atol=1e-5)


@pytest.mark.parametrize("block", [512, 64])
def test_texts_get_the_ids_and_vectors_of_transformers_in_any_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(qwen3, "BLOCK", block)
    folder = write_folder(tmp_path / "hf", "embedding")
    assert identify(folder).is_tower
    model = load_tower(folder, OPTIONS)
    assert (model.info.pooling, model.info.normalize, model.info.query_prompt[:9]) == ("last", True, "Instruct:")
    texts, wanted = model.texts.encode(TEXTS), EXPECTED["embedding"]
    assert [texts[row].tolist() for row in range(len(texts))] == wanted["ids"]
    for rows in ([0, 1, 2, 3, 4, 5], [1], [0, 3], [4], [5, 2]):
        np.testing.assert_allclose(outputs(model.network, texts, rows), np.array(wanted["vectors"])[rows], atol=1e-6)
    queries = model.texts.encode_queries(TEXTS[:1])
    prompted = model.texts.encode([f"{model.info.query_prompt}{TEXTS[0]}"])
    assert queries[0].tolist() == prompted[0].tolist()


def test_tokens_with_which_pairs_begin_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chat before the query once for a batch, each query once, each title once; equal to whole pairs."""
    model = opened(write_folder(tmp_path / "hf", "reranker"))
    network, pairs = model.network, model.row_encoder.encode(QUERIES, TITLES)
    computed: list[int] = []
    network.encoder.embeddings.register_forward_post_hook(lambda _, inputs, __: computed.append(inputs[0].size))
    rows = [0, 1, 3]
    shared = outputs(network, pairs, rows)
    lengths, begins = pairs.lengths[rows], pairs.second_starts[rows]
    assert computed == [int(begins[0]), 3 * int((lengths - begins).max())]
    computed.clear()
    several = outputs(network, pairs, list(range(len(PAIRS))))
    same = next(place for place, tokens in enumerate(zip(*EXPECTED["reranker"]["ids"])) if len(set(tokens)) > 1)
    rest = int((pairs.lengths - pairs.second_starts).max())
    # Tokens with which all pairs begin, the rest of three queries, the titles.
    assert computed == [same, 3 * (int(pairs.second_starts.max()) - same), len(PAIRS) * rest]
    computed.clear()
    monkeypatch.setattr(qwen3, "divide", lambda *_: None)
    np.testing.assert_allclose(outputs(network, pairs, rows), shared, atol=1e-5)
    assert computed == [3 * int(lengths.max())]
    np.testing.assert_allclose(outputs(network, pairs, list(range(len(PAIRS)))), several, atol=1e-5)


def test_a_ranker_scores_query_by_query(tmp_path: Path) -> None:
    """Each of two queries is computed once, though their pairs alternate."""
    ranker = Ranker.load(write_folder(tmp_path / "hf", "classifier"), max_seq_length=LONGEST, threads=1)
    ranker.scorer.max_tokens = 140  # two pairs, whose titles cost a quarter of the chat
    computed: list[int] = []
    embeddings = ranker.scorer.engine.network.encoder.embeddings  # type: ignore[attr-defined]
    embeddings.register_forward_post_hook(lambda _, inputs, __: computed.append(inputs[0].size))
    titles = ["x" * 10] * 4
    queries = ["yes", "no"] * 2
    found = ranker.score(queries, titles)
    pairs = ranker.row_encoder.members[0].encode(queries, titles)
    rest = int((pairs.lengths - pairs.second_starts).max())
    assert computed == [int(pairs.second_starts[0]), 2 * rest, int(pairs.second_starts[1]), 2 * rest]
    np.testing.assert_allclose(found[:2], found[2:], atol=1e-6)


def test_queries_of_which_one_begins_with_the_other_share_nothing_wrong(tmp_path: Path) -> None:
    model = opened(write_folder(tmp_path / "hf", "untied"))
    pairs = model.row_encoder.encode(["a", "a", "a b", "a b c", ""], ["x", "y z", "x", "x", "x"])
    alone = [outputs(model.network, pairs, [row])[0] for row in range(5)]
    np.testing.assert_allclose(outputs(model.network, pairs, [0, 1, 2, 3, 4]), alone, atol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("case", RANKERS)
def test_gradients_are_those_of_pytorch(tmp_path: Path, case: str, checkpointing: bool) -> None:
    model = opened(write_folder(tmp_path / "hf", case))
    model.network.train()
    model.network.encoder.gradient_checkpointing = checkpointing
    pairs = model.row_encoder.encode(QUERIES, TITLES)
    model.network(*map(paddle.to_tensor, pairs.pad(range(len(PAIRS))).values())).sum().backward()
    found = {f"model.{name}": parameter.grad for name, parameter in model.network.encoder.encoder.named_parameters()}
    for name, gradient in EXPECTED[case]["gradients"].items():
        np.testing.assert_allclose(found[name].numpy(), gradient, rtol=1e-4, atol=1e-4, err_msg=name)


def bfloat16(array: np.ndarray) -> np.ndarray:
    """Return the upper halves of float32 numbers, uint16."""
    return (array.view(np.uint32) >> 16).astype(np.uint16)


def write_shards(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write bfloat16 weights in two files with an index; NumPy has no such type, so the headers are made here."""
    names, places = sorted(arrays), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file, header, content = f"model-{number:05}-of-00002.safetensors", {}, b""
        for name in part:
            data = bfloat16(arrays[name]).tobytes()
            offsets = [len(content), len(content) + len(data)]
            header[name] = {"dtype": "BF16", "shape": list(arrays[name].shape), "data_offsets": offsets}
            content, places[name] = content + data, file
        text = json.dumps(header).encode("utf-8")
        (folder / file).write_bytes(len(text).to_bytes(8, "little") + text + content)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "model.safetensors").unlink()


def test_bfloat16_in_shards_is_opened_without_a_second_copy(tmp_path: Path) -> None:
    folder, halves = (write_folder(tmp_path / name, "reranker") for name in ("whole", "halves"))
    change_json(folder / "config.json", vocab_size=40_000)
    change_json(halves / "config.json", vocab_size=40_000)
    arrays = load_file(folder / "model.safetensors")
    words = arrays["model.embed_tokens.weight"]
    arrays["model.embed_tokens.weight"] = np.concatenate([words, np.tile(words, (133, 1))])[:40_000]
    rounded = {name: float32_of_bfloat16(bfloat16(array)) for name, array in arrays.items()}
    save_file(rounded, folder / "model.safetensors", {"format": "pt"})
    write_shards(halves, rounded)
    size = sum(array.nbytes for array in rounded.values())
    load_single(halves, OPTIONS)  # imports what opening needs
    tracemalloc.start()
    model = opened(halves)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * size
    pairs = model.row_encoder.encode(QUERIES, TITLES)
    np.testing.assert_array_equal(
        outputs(model.network, pairs, [0, 2, 5]), outputs(opened(folder).network, pairs, [0, 2, 5])
    )


def as_cross_encoder(folder: Path, chat: str, **answers: Any) -> Path:
    """Turn a folder into a CrossEncoder of sentence-transformers, with an instruction of its own."""
    types = ("base.modules.transformer.Transformer", "cross_encoder.modules.logit_score.LogitScore")
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.{kind}"}
        for number, (path, kind) in enumerate(zip(("", "1_LogitScore"), types))
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_LogitScore").mkdir()
    (folder / "1_LogitScore" / "config.json").write_text(json.dumps(answers), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(chat, encoding="utf-8")
    call = {"method": "forward", "method_output_name": "logits"}
    task = {"transformer_task": "text-generation", "module_output_name": "causal_logits"}
    kinds = {"modality_config": {"text": call, "message": {**call, "format": "flat"}}}
    (folder / "sentence_bert_config.json").write_text(json.dumps({**task, **kinds}), encoding="utf-8")
    settings = {"model_type": "CrossEncoder", "prompts": {"law": "Find the law"}, "default_prompt_name": "law"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_a_cross_encoder_states_answers_and_instruction(tmp_path: Path) -> None:
    plain = opened(write_folder(tmp_path / "plain", "reranker"))

    folder = as_cross_encoder(write_folder(tmp_path / "own", "reranker"), CHAT, true_token_id=258, false_token_id=257)
    model = opened(folder)
    assert identify(folder).kind is KINDS["cross_encoder"]
    asked = model.row_encoder.encode(["q"], ["t"])
    usual = plain.row_encoder.encode(["q"], ["t"])
    text = model.row_encoder._files.library.decode(asked[0].tolist())  # type: ignore[attr-defined]
    assert "<Instruct>: Find the law\n<Query>: q\n<Document>: t" in text
    # The answers are exchanged, so the logits change their signs.
    np.testing.assert_allclose(outputs(model.network, usual, [0]), -outputs(plain.network, usual, [0]), atol=1e-5)
    one = as_cross_encoder(write_folder(tmp_path / "one", "reranker"), CHAT, true_token_id=257)
    words = load_file(one / "model.safetensors")["model.embed_tokens.weight"]
    np.testing.assert_array_equal(opened(one).network.head.weight.numpy()[:, 0], words[257])


def test_convert_sets_the_instruction_of_a_ranker(tmp_path: Path) -> None:
    folder, target = write_folder(tmp_path / "hf", "classifier"), tmp_path / "ours"
    assert not main(["convert", str(folder), str(target), "--query_prompt", "Find the law"])
    asked = opened(target).row_encoder.encode(["q"], ["t"])
    stated = as_cross_encoder(write_folder(tmp_path / "own", "reranker"), CHAT, true_token_id=1, false_token_id=2)
    np.testing.assert_array_equal(asked[0], opened(stated).row_encoder.encode(["q"], ["t"])[0])
    assert main(["convert", str(target), str(tmp_path / "back"), "--to", "hf", "--query_prompt", "Find"]) == 2


OTHER_CHATS = {
    "a part": "{{ messages[0].content }}",
    "parts": "Judge whether the Document meets the requirements <Instruct>: <Query>: <Document>: <think>",
    "system": CHAT.replace("Judge whether", "Tell whether"),
    "end": CHAT.replace("<think>", "<think>\n"),
    "trimmed": CHAT.replace("| first }}", "| first | trim }}"),
    "escaped": CHAT.replace("| first }}", "| first | e }}"),
    "cut": CHAT.replace("| first }}", "| first | truncate(80) }}"),
    "of some": CHAT + "{% if (messages | last).content | length > 99 %}!{% endif %}",
    "without": CHAT.replace("{{ asked }}", "Find"),
    "raises": "{{ raise_exception('no') }}",
    "damaged": "{% if %}",
    "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "large": "{{ 'x' * 9999999999 }}",
}


@pytest.mark.parametrize("name", OTHER_CHATS)
def test_a_template_that_makes_another_chat_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "_SECONDS", 3)
    folder, template = write_folder(tmp_path / "chat", "reranker"), OTHER_CHATS[name]
    as_cross_encoder(folder, template, true_token_id=1, false_token_id=2)
    with pytest.raises(CheckpointError, match=r"pairs are put into the chat of Qwen3-Reranker"):
        opened(folder)


def test_the_instruction_of_a_template_is_that_of_pairs(tmp_path: Path) -> None:
    """For which none is given, wherever the template stands; without its own chat, a model is a plain classifier."""
    wanted = opened(write_folder(tmp_path / "usual", "classifier")).row_encoder.encode(["q"], ["t"])[0].tolist()
    own = opened(write_folder(tmp_path / "usual", "classifier")).row_encoder.with_query_prompt("Find the law")
    stated = CHAT.replace(INSTRUCTION, "Find the law")
    folder = write_folder(tmp_path / "hf", "classifier")
    for template, ids in ((stated, own.encode(["q"], ["t"])[0].tolist()), (CHAT, wanted)):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        assert opened(folder).row_encoder.encode(["q"], ["t"])[0].tolist() == ids
        (folder / "chat_template.jinja").unlink()
        for kept in (template, [{"name": "tools", "template": ""}, {"name": "default", "template": template}]):
            change_json(folder / "tokenizer_config.json", chat_template=kept)
            assert opened(folder).row_encoder.encode(["q"], ["t"])[0].tolist() == ids
    change_json(folder / "tokenizer_config.json", chat_template="{{ messages[0].content }}")  # of another use
    assert opened(folder).row_encoder.encode(["yes"], ["no"])[0].tolist() == [257, 258]


def test_a_short_tower_is_exported(tmp_path: Path) -> None:
    """Its length need not hold the chat of pairs, which it never reads."""
    tower = load_tower(write_folder(tmp_path / "hf", "embedding"), LoadOptions(max_seq_length=120))
    export_model(tower, tmp_path / "exported")
    found = open_model(tmp_path / "exported", TOWER).engine.run(tower.row_encoder.encode(TEXTS[:2]).pad([0, 1]))
    wanted = outputs(tower.network, tower.row_encoder.encode(TEXTS[:2]), [0, 1])
    np.testing.assert_allclose(found["vector"], wanted, atol=1e-5)


@pytest.mark.parametrize("to", ["tower", "sentence-transformers"])
def test_a_prompt_longer_than_the_model_reads_is_refused_before_a_folder_is_written(tmp_path: Path, to: str) -> None:
    folder = write_folder(tmp_path / "hf", "embedding")
    for option in ("--text_prompt", "--query_prompt"):
        assert main(["convert", str(folder), str(tmp_path / "new"), "--to", to, option, "find " * 900]) == 1
    reranker = write_folder(tmp_path / "reranker", "plain")
    assert main(["convert", str(reranker), str(tmp_path / "new"), "--query_prompt", "find " * 900]) == 1
    assert not (tmp_path / "new").exists()


def test_a_vocabulary_without_answers_is_refused(tmp_path: Path) -> None:
    folder = as_cross_encoder(write_folder(tmp_path / "chat", "reranker"), CHAT)
    for answers in ({"true_token_id": 300}, {"true_token_id": "yes"}, {}):
        (folder / "1_LogitScore" / "config.json").write_text(json.dumps(answers), encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"not in its vocabulary|expected ids of tokens"):
            opened(folder)
    mute = write_folder(tmp_path / "mute", "reranker")
    described = json.loads((mute / "tokenizer.json").read_text(encoding="utf-8"))
    described["model"]["vocab"] = {("yEs" if k == "yes" else k): v for k, v in described["model"]["vocab"].items()}
    described["model"]["merges"] = [merge for merge in described["model"]["merges"] if list(merge) != ["ye", "s"]]
    (mute / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(CheckpointError, match="no token 'yes'"):
        opened(mute)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}},
        {"use_sliding_window": True},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"type": "linear", "factor": 2.0}},
        {"is_causal": False},
        {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
        {"num_key_value_heads": 4},
        {"head_dim": 7},
        {"model_type": "qwen2"},
        {"model_type": "llama"},
        {"model_type": "gemma3_text"},
    ],
    ids=str,
)
def test_configurations_that_compute_something_else_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = write_folder(tmp_path / "hf", "reranker")
    change_json(folder / "config.json", **changes)
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        opened(folder)


def test_the_chat_needs_room(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "hf", "reranker")
    with pytest.raises(UsageError, match="max_seq_length 128: must be at least"):
        Ranker.load(folder, max_seq_length=128).score(["q"], ["t"])


def probabilities(case: str) -> np.ndarray:
    return 1 / (1 + np.exp(-np.array(EXPECTED[case]["logits"])))


@pytest.mark.parametrize("case", ["reranker", "classifier"])
def test_a_folder_is_used_as_any_ranker(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "hf", case)
    ranker = Ranker.load(folder, max_seq_length=LONGEST)
    wanted = probabilities(case)
    np.testing.assert_allclose(ranker.score(QUERIES, TITLES), wanted, atol=1e-5)
    (tmp_path / "pairs.tsv").write_text("yes or no?\tThe answer is no.\n北京\tx\n", encoding="utf-8")
    capsys.readouterr()
    assert not main(["predict", str(folder), "--input", str(tmp_path / "pairs.tsv"), "--max_seq_length", str(LONGEST)])
    printed = [ast.literal_eval(line)["pred_prob"] for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(printed, wanted[[0, 6]], atol=1e-5)


def test_a_reranker_teaches_and_is_calibrated_and_measured(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "hf", "reranker")
    queries = [f"query {number}" for number in range(10)]
    rows = [(query, f"{query[-1]} title {side}", 1 - side) for query in queries for side in (0, 1)]
    dev = tmp_path / "dev.tsv"
    dev.write_text("".join(f"{query}\t{title}\t{label}\n" for query, title, label in rows), encoding="utf-8")
    length = ["--max_seq_length", str(LONGEST)]
    assert not main(["distill", str(folder), str(dev), str(tmp_path / "scored.tsv"), *length])
    model = opened(folder)
    pairs = model.row_encoder.encode([row[0] for row in rows], [row[1] for row in rows])
    logits = outputs(model.network, pairs, list(range(len(rows))))
    taught = [line.split("\t") for line in (tmp_path / "scored.tsv").read_text(encoding="utf-8").splitlines()]
    place = taught[0].index("teacher_score")
    np.testing.assert_allclose([float(row[place]) for row in taught[1:]], logits, atol=1e-5)
    convert(ConvertOptions(source=str(folder), target=str(tmp_path / "ours")))
    calibrated = tmp_path / "calibrated"
    assert not main(["calibrate", str(tmp_path / "ours"), str(dev), "--output", str(calibrated), *length])
    ranker = Ranker.load(calibrated, max_seq_length=LONGEST)
    found = ranker.score([row[0] for row in rows], [row[1] for row in rows])
    info = ranker.info
    assert info.calibration is not None
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-info.calibration.apply(logits.astype(float)))), atol=1e-5)
    best = Cascade.load(folder, calibrated, 1, max_seq_length=LONGEST).rank(queries[0], [row[1] for row in rows[:2]])
    assert len(best) == 2
    assert not main(["evaluate", str(folder), "--test", str(dev), *length])


@pytest.mark.parametrize("case", RANKERS)
def test_the_way_to_this_toolkit_and_back_keeps_the_scores(tmp_path: Path, case: str) -> None:
    folder = write_folder(tmp_path / "hf", case)
    convert(ConvertOptions(source=str(folder), target=str(tmp_path / "ours")))
    found = Ranker.load(tmp_path / "ours", max_seq_length=LONGEST).score(QUERIES, TITLES)
    np.testing.assert_allclose(found, probabilities(case), atol=1e-5)
    convert(ConvertOptions(source=str(tmp_path / "ours"), target=str(tmp_path / "back"), to="hf"))
    config = json.loads((tmp_path / "back" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen3ForSequenceClassification"]
    theirs, back = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "back"))
    assert set(back) == {*theirs, "score.weight"}.difference({"lm_head.weight"})
    for name in set(theirs).intersection(back):
        np.testing.assert_array_equal(back[name], theirs[name], err_msg=name)
    shutil.rmtree(tmp_path / "ours")
    found = Ranker.load(tmp_path / "back", max_seq_length=LONGEST).score(QUERIES, TITLES)
    np.testing.assert_allclose(found, probabilities(case), atol=1e-5)


def test_a_calibration_and_a_bias_go_to_transformers_and_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers' head has no bias: its logits are those before the shift, and the way back has all of it."""
    ours, theirs, again = (tmp_path / name for name in ("ours", "theirs", "again"))
    convert(ConvertOptions(source=str(write_folder(tmp_path / "hf", "classifier")), target=str(ours)))
    file = parameters_file(ours)
    assert file is not None
    state = {**load_parameters(file), "head.bias": np.array([0.7], np.float32)}
    save_arrays(state, file)
    change_json(ours / "ranker.json", calibration={"method": "platt", "scale": 1.5, "shift": -0.25})
    wanted = Ranker.load(ours, max_seq_length=LONGEST).score(QUERIES, TITLES)
    assert main(["convert", str(ours), str(theirs), "--to", "hf"]) == 0
    said = capsys.readouterr().out
    assert "has no bias: the order is the same, and the probability is sigmoid(1.5 * logit + 0.8)" in said
    np.testing.assert_array_equal(
        load_file(theirs / "model.safetensors")["score.weight"].ravel(), np.asarray(state["head.weight"]).ravel()
    )
    convert(ConvertOptions(source=str(theirs), target=str(again)))
    for folder in (theirs, again):
        found = Ranker.load(folder, max_seq_length=LONGEST).score(QUERIES, TITLES)
        np.testing.assert_allclose(found, wanted, atol=1e-6, err_msg=str(folder))
    plain = np.array(EXPECTED["classifier"]["logits"]) + 0.7
    np.testing.assert_allclose(wanted, 1 / (1 + np.exp(-(1.5 * plain - 0.25))), atol=1e-5)


def write_training(folder: Path) -> Path:
    """Write labelled pairs: titles that repeat the query are relevant."""
    words = ["the", "a", "no", "yes", "or", "x", "y", "z"]
    rows = [(f"{one} {two}", f"{one} {two}" if label else "京 京", label) for one in words for two in words[:3]
            for label in (1, 0)]  # fmt: skip
    file = folder / "train.tsv"
    file.write_text("".join(f"{query}\t{title}\t{label}\n" for query, title, label in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_of_a_ranker_learn_and_are_merged(tmp_path: Path, checkpointing: bool) -> None:

    folder = as_cross_encoder(write_folder(tmp_path / "hf", "reranker"), CHAT, true_token_id=257, false_token_id=258)
    data, output = str(write_training(tmp_path)), tmp_path / "trained"
    result = train(
        "ce", model_name_or_path=str(folder), train_set=data, test_file=data, save_dir=str(output), epochs=4,
        lora_rank=2, learning_rate=0.02, head_learning_rate=1e-6, match_embeddings=False, max_seq_length=300,
        gradient_checkpointing=checkpointing, metric="auc", batch_size=16, eval_step=8,
    )  # fmt: skip
    assert result.best["auc"] > 0.9
    before, after = (load_single(path, OPTIONS) for path in (folder, output / "best"))
    assert after.info.query_prompt == before.info.query_prompt == "Find the law"
    pairs = after.row_encoder.encode(QUERIES, TITLES)
    assert pairs[0].tolist() == before.row_encoder.encode(QUERIES, TITLES)[0].tolist()
    names = {name for name, value in before.network.state_dict().items()
             if not np.array_equal(value.numpy(), after.network.state_dict()[name].numpy())}  # fmt: skip
    layers = {name for name in before.network.state_dict() if "_proj.weight" in name}
    assert layers <= names <= {*layers, "head.weight", "head.bias"}


def test_adapters_are_merged_exactly(tmp_path: Path) -> None:
    network = opened(write_folder(tmp_path / "hf", "untied")).network
    add_adapters(network.encoder, 3)
    for name, parameter in network.named_parameters():
        assert parameter.stop_gradient == (name.startswith("encoder.") and ".adapter." not in name)
        if name.endswith(".up"):
            draw = np.random.default_rng(len(name))
            parameter.set_value(draw.standard_normal(parameter.shape).astype(np.float32) / 10)
    pairs = load_single(tmp_path / "hf", OPTIONS).row_encoder.encode(QUERIES, TITLES)
    wanted = outputs(network, pairs, [0, 2])
    other = opened(tmp_path / "hf").network
    other.set_state_dict(network.own_state())
    found = outputs(other, pairs, [0, 2])
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert np.abs(found - np.array(EXPECTED["untied"]["logits"])[[0, 2]]).min() > 0.01


def test_adapters_of_a_tower_learn_and_are_merged(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "hf", "embedding")
    data = tmp_path / "pairs.tsv"
    data.write_text("".join(f"query {n}\ttitle {n}\n" for n in range(40)), encoding="utf-8")
    result = train(
        "batch-neg", model_name_or_path=str(folder), train_set_file=str(data), save_dir=str(tmp_path / "trained"),
        epochs=1, lora_rank=2, max_seq_length=128, batch_size=8, learning_rate=0.01,
    )  # fmt: skip
    assert result.steps == 5
    assert result.last_checkpoint is not None
    before, after = (load_tower(Path(path), OPTIONS) for path in (folder, result.last_checkpoint))
    assert (after.info.pooling, after.info.query_prompt) == ("last", before.info.query_prompt)
    state = after.network.state_dict()
    assert set(state) == set(before.network.state_dict())
    same = np.array_equal(
        state["encoder.embeddings.word_embeddings.weight"].numpy(),
        before.network.state_dict()["encoder.embeddings.word_embeddings.weight"].numpy(),
    )
    assert same
    texts = after.row_encoder.encode(TEXTS)
    assert np.abs(outputs(after.network, texts, [0]) - outputs(before.network, texts, [0])).max() > 1e-4


def test_adapters_are_not_resumed(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "train_set": str(write_training(tmp_path)),
        "test_file": str(tmp_path / "train.tsv"),
        "lora_rank": 2,
    }
    with pytest.raises(UsageError, match="--resume cannot train them on"):
        train("ce", model_name_or_path="x", save_dir=str(tmp_path / "out"), resume=True, **options)


@pytest.mark.slow
def test_an_exported_graph_scores_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "PAIRS", 6)
    model = opened(write_folder(tmp_path / "hf", "reranker"))
    export_model(model, tmp_path / "exported", onnx=HAS_ONNX)
    engines = ("inference", "onnx", "openvino") if HAS_ONNX else ("inference",)
    for engine in engines:
        ranker = Ranker.load(tmp_path / "exported", engine=engine)
        assert ranker.scorer.by_query
        np.testing.assert_allclose(ranker.score(QUERIES, TITLES), probabilities("reranker"), atol=1e-5, err_msg=engine)
        columns = model.row_encoder.encode([QUERIES[0]] * 3, TITLES[:3])
        for rows in ([0], [0, 1, 2], [2, 2]):
            arrays = columns.pad(rows)
            found = ranker.scorer.engine.run(arrays)["logit"].ravel()
            np.testing.assert_allclose(found, outputs(model.network, columns, rows), atol=2e-5)
            # Rows that begin otherwise share nothing.
            arrays["input_ids"][0, 0] += 1
            found = ranker.scorer.engine.run(arrays)["logit"].ravel()
            with paddle.no_grad():
                for row, logit in enumerate(found):
                    alone = (paddle.to_tensor(array[[row]]) for array in arrays.values())
                    np.testing.assert_allclose(logit, model.network(*alone).numpy()[0], atol=2e-5)


@pytest.mark.thorough
@pytest.mark.slow
def test_an_exported_graph_makes_the_same_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "PAIRS", 6)
    monkeypatch.setattr(onnx, "TRANSLATED", 0)  # as for weights beyond 2 GiB
    model = load_tower(write_folder(tmp_path / "hf", "embedding"), OPTIONS)
    export_model(model, tmp_path / "exported", onnx=HAS_ONNX)
    texts, wanted = model.row_encoder.encode(TEXTS), np.array(EXPECTED["embedding"]["vectors"])
    for engine in ("inference", "onnx") if HAS_ONNX else ("inference",):
        opened_tower = open_model(tmp_path / "exported", TOWER, LoadOptions(engine=engine))
        for rows in ([0, 1, 2, 3, 4, 5], [1], [0, 3]):
            found = opened_tower.engine.run(texts.pad(rows))["vector"]
            np.testing.assert_allclose(found, wanted[rows], atol=1e-5, err_msg=engine)
