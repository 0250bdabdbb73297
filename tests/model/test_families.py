"""Families of encoders beside BERT's: equal to transformers, there and back, trained, exported, used as they are."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.commands.convert import ConvertOptions, convert
from paddle_ranker.errors import CheckpointError
from paddle_ranker.export.parity import network_outputs
from paddle_ranker.export.static_graph import export_model, write_static_model
from paddle_ranker.export.static_model import StaticModel
from paddle_ranker.model.builtin_kinds import KINDS
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.modernbert import ModernBertConfig
from paddle_ranker.model.exported import open_exported, program_file
from paddle_ranker.model.families import config_from
from paddle_ranker.model.hugging_face.folder import read_model
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import MODEL, RANKER, identify, load_encoder, load_model
from paddle_ranker.model.model_kind import TOKENS, ArraySpec, Signature
from paddle_ranker.model.networks.deberta import relative_buckets
from paddle_ranker.model.networks.lora import add_adapters
from paddle_ranker.model.networks.modernbert import ModernBertEncoder
from paddle_ranker.model.ranker_folder import Fresh, RankerModel, load_single, save_ranker, start_ranker
from paddle_ranker.paddle_serving.clients.scoring_client import load_pair_encoder
from paddle_ranker.scoring.engines.precisions import has_bf16
from tests.checkout import ONCE
from tests.model.family_cases import (
    BOXED,
    CASES,
    SIZED_CASES,
    SIZES_FILE,
    SPECIAL,
    WORDS,
    expected,
    inputs,
    weights,
    with_boxes,
)
from tests.tiny import change_json

pytestmark = pytest.mark.parity

EXPECTED = expected()
ROBERTAS = ("roberta", "xlm-roberta", "mpnet", "longformer", "lilt")
LONG = ("modernbert", "longformer", "big_bird")
EXPORTED = ("xlm-roberta", "modernbert", "deberta-v3", "mpnet", "longformer", "big_bird", "layoutlm", "lilt")
PRODUCTS = {
    "xlm-roberta": 6,
    "mpnet": 6,
    "modernbert": 16,
    "deberta-v3": 8,
    "longformer": 6,
    "big_bird": 6,
    "layoutlm": 6,
    "lilt": 17,  # of a layer of both states, of the last layer's keys and values, and of the boxes' embeddings
}  # of weights, that all tokens go through
BYTES = ["▁", "<0xE4>", "<0xBD>", "<0xA0>", "<0xA1>"]  # a space, and 你 and 佡 in bytes
QUERIES = ["w1 w2", "w7", "w3 w4 w5 ▁", "▁ w1 <0xE4> <0xBD> <0xA0>"]
TITLES = ["w9 w1 w2 w11", "w8 w8", "w3 w5", "w1 ▁ <0xE4> <0xBD> <0xA0> ▁ w3 <0xE4> <0xBD> <0xA1>"]


def write_tokenizer(folder: Path, is_roberta: bool) -> None:
    """Write a `tokenizer.json` of words, with the family's special tokens and template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    special = (
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if is_roberta else ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    )
    words = [*special, *(f"w{number}" for number in range(WORDS - SPECIAL - len(BYTES))), *BYTES]
    library = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=special[3]))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    first, last = (special[0], special[2]) if is_roberta else (special[1], special[2])
    pair = f"{first} $A {last} {last} $B {last}" if is_roberta else f"{first} $A {last} $B:1 {last}:1"
    ends = [(token, words.index(token)) for token in (first, last)]
    library.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", pair=pair, special_tokens=ends)
    library.add_special_tokens([AddedToken(token, special=True) for token in special])
    library.save(str(folder / "tokenizer.json"))


def write_folder(folder: Path, case: str) -> Path:
    """Write a transformers folder: config.json, model.safetensors and tokenizer.json, nothing else."""
    return write_said(folder, EXPECTED[case], case in ROBERTAS)


def write_said(folder: Path, said: dict[str, Any], is_roberta: bool) -> Path:
    """Write the folder of which `said` is what transformers said."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(said["config"]), encoding="utf-8")
    save_file(weights(said["shapes"]), folder / "model.safetensors", {"format": "pt"})
    if said["config"]["model_type"] == "bert":
        words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *(f"w{number}" for number in range(WORDS - SPECIAL))]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    else:
        write_tokenizer(folder, is_roberta)
    if said["config"]["model_type"] == "big_bird":  # whose tokenizer gives no types unless told to
        names = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
        (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    return folder


def logits_of(network: paddle.nn.Layer) -> np.ndarray:
    network.eval()
    return np.asarray(network(*tensors(network.config)).numpy())


def tensors(config: EncoderConfig, rows: slice = slice(None)) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Return ids and types, with the boxes of families that read boxes."""
    ids, types, mask = inputs(config.pad_token_id)
    types = with_boxes(types, mask) if config.place_limits else types
    longest = mask[rows].sum(axis=1).max()
    return paddle.to_tensor(ids[rows, :longest]), paddle.to_tensor(types[rows, :longest])


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers_and_the_way_back_loses_nothing(tmp_path: Path, case: str) -> None:
    folder = write_folder(tmp_path / "hf", case)
    said = np.array(EXPECTED[case]["logits"])
    wanted = said[:, 0] if said.shape[1] == 1 else said[:, 1] - said[:, 0]
    np.testing.assert_allclose(logits_of(load_single(folder).network), wanted, atol=1e-5)
    assert identify(folder).kind is KINDS["cross_encoder"]
    convert(ConvertOptions(source=str(folder), target=str(tmp_path / "ours")))
    network = load_model(tmp_path / "ours", RANKER).network
    np.testing.assert_array_equal(logits_of(network), logits_of(load_single(folder).network))
    convert(ConvertOptions(source=str(tmp_path / "ours"), target=str(tmp_path / "back"), to="hf"))
    ids, types = tensors(network.config)
    if case != "longformer":  # whose first token is global for `pooled` alone
        found = network.encoder.pool(network.encoder(ids, types), ids)  # by all states, as for a fusion with images
        np.testing.assert_allclose(found.numpy(), network.encoder.pooled(ids, types).numpy(), atol=1e-5)
    theirs, back = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "back"))
    theirs = {name: array for name, array in theirs.items() if "bert.pooler" not in name}  # BigBird's head ignores it
    assert sorted(theirs) == sorted(back)
    folded = [f"classifier{out}.{part}" for out in ("", ".out_proj") for part in ("weight", "bias")]
    for name in set(theirs).difference(folded if said.shape[1] == 2 else []):
        np.testing.assert_array_equal(back[name], theirs[name], err_msg=name)
    written, read = (
        json.loads((path / "tokenizer.json").read_text(encoding="utf-8")) for path in (tmp_path / "back", folder)
    )
    # WordLevel would find special tokens of texts in its vocabulary.
    assert {**written, "normalizer": None} == {**read, "normalizer": None}
    config = json.loads((tmp_path / "back" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == EXPECTED[case]["config"]["architectures"]
    settings = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["model_max_length"] == network.config.longest_pair  # of XLM-RoBERTa 512, with 514 positions
    assert load_encoder(tmp_path / "back").config == load_encoder(folder).config


@pytest.mark.parametrize("case", [*LONG, *BOXED])
def test_logits_depend_neither_on_the_batch_nor_on_the_way_of_its_attention(tmp_path: Path, case: str) -> None:
    network = load_single(write_folder(tmp_path / "hf", case)).network
    network.eval()
    said = np.array(EXPECTED[case]["logits"])
    for rows in map(slice, (0, 1, 2, 3, 1, 2), (1, 2, 3, 4, 3, 4)):
        found = network(*tensors(network.config, rows))
        np.testing.assert_allclose(found.numpy(), (said[:, -1] - said[:, 0] * (said.shape[1] - 1))[rows], atol=1e-5)


@pytest.mark.parametrize("case", LONG)
def test_a_text_of_3000_tokens_changes_no_short_one_beside_it(tmp_path: Path, case: str) -> None:
    said = EXPECTED[case]
    shapes = {name: [3100, 16] if "position_embeddings" in name else shape for name, shape in said["shapes"].items()}
    longer = {**said, "shapes": shapes, "config": {**said["config"], "max_position_embeddings": 3100}}
    network = load_single(write_said(tmp_path / "hf", longer, case in ROBERTAS)).network
    network.eval()
    ids = np.full((2, 3000), network.config.pad_token_id)
    draw = np.random.default_rng(0)
    for row, length in enumerate((40, 3000)):
        ids[row, :length] = draw.integers(SPECIAL, WORDS, length)
    found = network(paddle.to_tensor(ids), paddle.to_tensor(ids * 0)).numpy()
    for row, length in enumerate((40, 3000)):
        alone = paddle.to_tensor(ids[row : row + 1, :length])
        np.testing.assert_allclose(network(alone, alone * 0).numpy(), found[row : row + 1], atol=1e-5)


@pytest.mark.parametrize("case", ["longformer", "big_bird"])
def test_every_command_says_how_long_a_text_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    """Both have positions for 512 tokens."""
    folder = write_folder(tmp_path / "ranker", case)
    shutil.copytree(folder, tmp_path / "encoder")
    change_json(tmp_path / "encoder" / "config.json", architectures=["Model"])
    (tmp_path / "pairs.tsv").write_text(f"w2\t{'w1 ' * 600}\nw2\tw3\n", encoding="utf-8")
    (tmp_path / "texts.txt").write_text(f"{'w1 ' * 600}\nw3\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    lines = {
        "pairs": ["predict --model ranker --input pairs.tsv", "rank --model ranker --input pairs.tsv"],
        "texts": ["encode --model encoder --input texts.txt --output vectors.npy"],
    }
    for noun, commands in lines.items():
        for line in commands:
            assert main([*line.split(), "--max_seq_length", "512"]) == 0
            assert f"1 {noun} were cut to 512 tokens" in capfd.readouterr().err, line
    for line in (*lines["pairs"], *lines["texts"], "serve --model ranker --port 0"):
        assert main([*line.split(), "--max_seq_length", "600"]) == 1
        assert "max_seq_length 600 is above the 512 positions" in capfd.readouterr().err, line


@pytest.mark.parametrize("case", ["electra", "deberta-v2", "big_bird"])
def test_a_tokenizer_without_types_gives_both_texts_the_first(tmp_path: Path, case: str) -> None:
    folder = write_folder(tmp_path / "hf", case)
    network = load_single(folder).network
    network.eval()
    ids, types = (paddle.to_tensor(array) for array in inputs(network.config.pad_token_id)[:2])
    wanted = network(ids, types * 0).numpy()
    names = {"model_input_names": ["input_ids", "attention_mask"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    np.testing.assert_allclose(logits_of(load_single(folder).network), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "layer"),
    [("deberta-v2", "deberta.encoder.LayerNorm"), *((name, "roberta.pooler.dense") for name in ROBERTAS)],
)
def test_parameters_that_the_network_does_not_use_are_left_out(tmp_path: Path, case: str, layer: str) -> None:
    """As transformers 3 wrote them: a pooler beside a head of two layers, a norm of positions beside none."""
    folder = write_folder(tmp_path / "hf", case)
    wanted = logits_of(load_single(folder).network)
    unused = {
        f"{layer}.{part}": np.full((16, 16)[: 2 - (part == "bias")], 7.0, "float32") for part in ("weight", "bias")
    }
    save_file({**load_file(folder / "model.safetensors"), **unused}, folder / "model.safetensors", {"format": "pt"})
    np.testing.assert_array_equal(logits_of(load_single(folder).network), wanted)
    assert len(read_model(folder).left_over) == 2


def test_a_head_of_two_classes_in_half_precision_is_folded_exactly(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "hf", "roberta")
    halves = {name: array.astype(np.float16) for name, array in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors", {"format": "pt"})
    rows = halves["classifier.out_proj.weight"].astype(np.float32)
    found = load_single(folder).network.head.weight.numpy()
    np.testing.assert_array_equal(found[:, 0], rows[1] - rows[0])
    assert (found.astype(np.float16) != found).any()


@pytest.mark.thorough(keep=6)
@pytest.mark.slow
@pytest.mark.parametrize("case", SIZED_CASES)
def test_logits_of_larger_models_are_those_of_transformers(tmp_path: Path, case: str) -> None:
    """Of 4 and 12 layers and of 768 numbers a token; opened in both ways, and back bit for bit."""
    said = expected(SIZES_FILE)[case]
    folder = write_said(tmp_path / "hf", said, case.startswith("xlm"))
    wanted = np.array(said["logits"])[:, 0]
    network = load_single(folder).network
    np.testing.assert_allclose(logits_of(network), wanted, atol=1e-5)
    trained = start_ranker(folder, Fresh("cross_encoder", match_embeddings=False)).network
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(trained.state_dict()[name].numpy(), value.numpy(), err_msg=name)
    convert(ConvertOptions(source=str(folder), target=str(tmp_path / "ours")))
    convert(ConvertOptions(source=str(tmp_path / "ours"), target=str(tmp_path / "back"), to="hf"))
    theirs, back = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "back"))
    assert {name: back[name].tobytes() for name in theirs} == {name: theirs[name].tobytes() for name in theirs}


PADDLENLP: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta": ("Roberta", {"type_vocab_size": 1, "pad_token_id": 1}),
    "electra": ("Electra", {"embedding_size": 8}),
    "deberta-v2": (
        "DebertaV2",
        {
            "relative_attention": True,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
}


@pytest.mark.parametrize("model_type", PADDLENLP)
def test_folders_of_paddlenlp_s_own_classes(tmp_path: Path, model_type: str) -> None:
    from paddlenlp import transformers

    name, changes = PADDLENLP[model_type]
    shape = {"vocab_size": 96, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape.update(intermediate_size=24, max_position_embeddings=66, num_labels=2)
    paddle.seed(3)
    theirs = getattr(transformers, f"{name}ForSequenceClassification")(
        getattr(transformers, f"{name}Config")(**shape, **changes)
    )
    draw = np.random.RandomState(0)
    for parameter in theirs.parameters():
        parameter.set_value(0.3 * draw.standard_normal(parameter.shape).astype("float32"))
    theirs.eval()
    theirs.save_pretrained(str(tmp_path))
    write_tokenizer(tmp_path, model_type == "roberta")
    network = start_ranker(tmp_path, Fresh("cross_encoder", match_embeddings=False)).network
    network.eval()
    ids = paddle.to_tensor(draw.randint(SPECIAL, WORDS, (3, 20)))
    said = theirs(ids).numpy()
    np.testing.assert_allclose(network(ids, paddle.zeros_like(ids)).numpy(), said[:, 1] - said[:, 0], atol=1e-5)
    assert np.ptp(said) > 0.01


ADAPTED = re.compile(r"\.(adapter|addition)\.")


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("roberta", "electra, wide")])
def test_a_merged_adapter_computes_what_it_did_apart(tmp_path: Path, case: str) -> None:
    """An adapter that a network passed over would change the merged network alone, and learn nothing."""
    network = load_single(write_folder(tmp_path / "hf", case)).network
    add_adapters(network.encoder, 2)
    for name, parameter in network.named_parameters():
        is_frozen = name.startswith("encoder.") and ".pooler." not in name and not ADAPTED.search(name)
        assert parameter.stop_gradient == is_frozen
        if name.endswith(".up"):
            draw = np.random.default_rng(len(name))
            parameter.set_value(draw.standard_normal(parameter.shape).astype(np.float32) / 10)
    found = logits_of(network)
    other = load_single(tmp_path / "hf").network
    assert np.abs(found - logits_of(other)).max() > 1e-4
    other.set_state_dict(network.own_state())
    np.testing.assert_allclose(found, logits_of(other), atol=2e-5)
    for checkpointing in (False, True):
        network.train()
        network.encoder.gradient_checkpointing = checkpointing
        network.clear_gradients()
        (network(*tensors(network.config)) ** 2).sum().backward()
        still = [name for name, value in network.named_parameters() if ADAPTED.search(name) and value.grad is None]
        assert [name for name in still if case != "longformer" or "layers.1.self_attn." not in name] == []


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("roberta", "electra, wide")])
def test_a_training_step_reaches_every_parameter_also_with_checkpointing(tmp_path: Path, case: str) -> None:
    folder = write_folder(tmp_path / "hf", case)
    still = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"), 0.0)
    (folder / "config.json").write_text(json.dumps({**EXPECTED[case]["config"], **still}), encoding="utf-8")
    model = start_ranker(folder, Fresh("cross_encoder"), LoadOptions(max_seq_length=64))
    assert model.new_parts == ["match_embeddings"]
    arrays = model.row_encoder.encode(QUERIES, TITLES).pad(np.arange(4))
    ids, types = (paddle.to_tensor(arrays[name]) for name in ("input_ids", "token_type_ids"))
    model.network.train()
    found = []
    for checkpointing in (False, True):
        model.network.encoder.gradient_checkpointing = checkpointing
        model.network.clear_gradients()
        (model.network(ids, types) ** 2).sum().backward()
        gradients = {name: parameter.grad for name, parameter in model.network.named_parameters()}
        unused = [name for name, gradient in gradients.items() if gradient is None]
        # In Longformer's last layer, only the global token is computed.
        assert [name for name in unused if case != "longformer" or "layers.1.self_attn." not in name] == []
        found.append({name: gradient.numpy() for name, gradient in gradients.items() if gradient is not None})
    for name, gradient in found[0].items():
        np.testing.assert_allclose(found[1][name], gradient, rtol=1e-4, atol=1e-4, err_msg=name)


HAS_ONNX = not paddle.__version__.startswith("2.")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Return a function that returns the folders of a case's ranker and of its export; each is exported once.

    The ranker has match embeddings, one has lexical features, too. Graphs of `LONG` compute bands or blocks.
    """

    @cache
    def export(case: str) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp("case")
        fresh = Fresh("cross_encoder", lexical_features=case == "xlm-roberta")
        length = LoadOptions(max_seq_length=320 if case in LONG else 24)
        model = start_ranker(write_folder(folder / "hf", case), fresh, length)
        draw = np.random.RandomState(1)
        match = model.network.match_embeddings.weight
        match.set_value(draw.standard_normal(match.shape).astype("float32"))
        if model.network.lexical is not None:
            model.network.lexical.learn(model.row_encoder.encode(QUERIES, TITLES))
            model.network.lexical.weight.set_value(draw.standard_normal(18).astype("float32") * 0.1)
        (folder / "ours").mkdir()
        save_ranker(folder / "ours", model.network, model.row_encoder, model.info)
        assert not (folder / "ours" / "vocab.txt").exists()
        export_model(load_model(folder / "ours", RANKER), folder / "exported", onnx=HAS_ONNX)  # which compares them
        return folder / "ours", folder / "exported"

    return export


@pytest.mark.thorough(keep=3)
@pytest.mark.parametrize("case", [*EXPORTED, "electra", "deberta-v2"])
def test_an_export_scores_as_the_network_in_every_engine(exported: Callable[[str], Any], case: str) -> None:
    """The lexical features' graph is as large as all the rest."""
    ours, static = exported(case)
    wanted = Ranker.load(ours).score(QUERIES, TITLES)
    for engine in ("inference", "onnx") if HAS_ONNX else ("inference",):
        found = Ranker.load(static, engine=engine).score(QUERIES, TITLES)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_model_whose_weights_are_large_is_exported(tmp_path: Path) -> None:
    """Its logits, of up to 14, are 2e-4 from float64's, the network's as well as the graph's."""
    folder = write_said(tmp_path / "hf", expected(SIZES_FILE)["deberta-v3, small"], is_roberta=False)
    theirs = load_file(folder / "model.safetensors")
    large = {name: array * np.float32(3 if array.ndim == 2 else 1) for name, array in theirs.items()}
    save_file(large, folder / "model.safetensors", {"format": "pt"})
    _, parities = export_model(load_model(folder, RANKER), tmp_path / "exported")
    found = parities["paddle_inference"].differences
    assert found["logit"] > 1e-4 and found["predict"] < 1e-5


@pytest.mark.thorough(keep=3)
@ONCE
@pytest.mark.parametrize(
    "case", ["xlm-roberta", "mpnet", "distilbert", "electra", "modernbert", "deberta-v2", "longformer", "big_bird"]
)
def test_a_graph_of_all_states_and_their_pooling(tmp_path: Path, case: str) -> None:
    """As of a fusion with images. Paddle 2.6 finds no `super()` in what it makes static."""

    class Pooled(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = load_single(write_folder(tmp_path / "hf", case)).network.encoder

        def forward(self, input_ids: paddle.Tensor, token_type_ids: paddle.Tensor) -> paddle.Tensor:
            return self.encoder.pool(self.encoder(input_ids, token_type_ids), input_ids)

    network, signature = Pooled(), Signature(TOKENS, (ArraySpec("pooled", "float32", (None, 16)),), ("pooled",))
    ids, types, _ = inputs(network.encoder.config.pad_token_id)
    batch = {"input_ids": ids[:, :40], "token_type_ids": types[:, :40]}
    (wanted,) = network_outputs(network, [batch], signature)
    write_static_model(network, tmp_path / "graph", signature)
    static = StaticModel(program_file(tmp_path, "graph"), tmp_path / "graph.pdiparams", signature)
    np.testing.assert_allclose(static.run(batch)["pooled"], wanted["pooled"], atol=1e-5)


@pytest.mark.thorough(keep=2)
@pytest.mark.skipif(not has_bf16(), reason="needs a processor that multiplies bfloat16")
@pytest.mark.parametrize("case", ["deberta-v2", "electra", *LONG])
def test_an_export_runs_in_bf16(exported: Callable[[str], Any], case: str) -> None:
    """Of a convolution, Paddle Inference made a product of matrices that do not fit."""
    ours, static = exported(case)
    wanted = Ranker.load(ours).score(QUERIES, TITLES)
    found = Ranker.load(static, engine="inference", precision="bf16").score(QUERIES, TITLES)
    assert 1e-6 < np.abs(found - wanted).max() < 0.02


@pytest.fixture(scope="module")
def exported_long(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[RankerModel, Path]]:
    """Return a function that returns a case's ranker for long texts and its export; each is exported once."""

    @cache
    def export(case: str) -> tuple[RankerModel, Path]:
        folder = tmp_path_factory.mktemp("long")
        model = start_ranker(write_folder(folder / "hf", case), Fresh("pairwise"), LoadOptions(max_seq_length=500))
        draw = np.random.default_rng(0)
        for parameter in (model.network.head.weight, model.network.match_embeddings.weight):
            parameter.set_value(draw.normal(0.0, 0.3, parameter.shape).astype(np.float32))
        export_model(model, folder / "exported", onnx=HAS_ONNX)
        return model, folder / "exported"

    return export


@pytest.mark.thorough(keep=1)
@ONCE
@pytest.mark.parametrize("case", LONG)
def test_a_graph_for_long_texts_also_scores_short_ones(exported_long: Callable[[str], Any], case: str) -> None:
    model, static = exported_long(case)
    draw = np.random.default_rng(0)
    titles = [" ".join(draw.choice([f"w{n}" for n in range(60)], count)) for count in (1, 9, 60, 61, 62, 150, 330, 480)]
    wanted = model_scores(model, titles)
    for engine in ("inference", "onnx", "openvino") if HAS_ONNX else ("inference",):
        ranker = Ranker.load(static, engine=engine)
        for rows in (titles, titles[:1], titles[:3], titles[::-3]):
            found = ranker.score(["w1 w2"] * len(rows), rows)
            np.testing.assert_allclose(found, [wanted[title] for title in rows], atol=1e-5, err_msg=engine)
        if engine != "onnx" and has_bf16():
            rounded = Ranker.load(static, engine=engine, precision="bf16")
            differences = np.abs(rounded.score(["w1 w2"] * len(titles), titles) - [wanted[title] for title in titles])
            assert 1e-6 < differences.max() < 0.02, engine


def model_scores(model: Any, titles: list[str]) -> dict[str, float]:
    """Return the probability of each title, computed alone by the network."""
    model.network.eval()
    found = {}
    for title in titles:
        arrays = model.row_encoder.encode(["w1 w2"], [title]).pad(np.arange(1))
        logit = model.network(*(paddle.to_tensor(arrays[name]) for name in ("input_ids", "token_type_ids")))
        found[title] = float(1 / (1 + np.exp(-logit.numpy()[0])))
    return found


@pytest.mark.thorough(keep=2)
@pytest.mark.skipif(not HAS_ONNX or not has_bf16(), reason="needs an ONNX file and bfloat16")
@pytest.mark.parametrize("case", EXPORTED)
def test_openvino_rounds_no_positions_in_bf16(exported_long: Callable[[str], Any], case: str) -> None:
    """It rounds every float; paddle2onnx makes floats of whole numbers to which a number of Python's is added."""
    pytest.importorskip("openvino", reason="needs OpenVINO")
    _, static = exported_long(case)
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(["▁", *(f"w{n}" for n in range(20, 60))], 227)) for _ in range(32)]
    exact, found = (
        Ranker.load(static, engine="openvino", precision=precision).score(texts[:16], texts[16:])
        for precision in ("fp32", "bf16")
    )
    assert 1e-6 < np.abs(found - exact).mean() < 0.004


@pytest.mark.thorough(keep=2)
@pytest.mark.slow
@pytest.mark.skipif(not HAS_ONNX, reason="needs an ONNX file, which the modern stack makes")
@pytest.mark.parametrize("case", EXPORTED)
def test_an_export_is_quantized_for_both_engines(tmp_path: Path, exported: Callable[[str], Any], case: str) -> None:
    """OpenVINO once took the table of spaces for quantized weights."""
    pytest.importorskip("openvino", reason="needs OpenVINO")
    ours, static = exported(case)
    static = Path(shutil.copytree(static, tmp_path / "exported"))
    wanted = Ranker.load(ours).score(QUERIES, TITLES)
    labels = (wanted > np.median(wanted)).astype(int)  # its own opinion: in fp32 it is never wrong
    labelled = "".join(f"{query}\t{title}\t{label}\n" for query, title, label in zip(QUERIES, TITLES, labels))
    (tmp_path / "dev.tsv").write_text(labelled, encoding="utf-8")
    command = ["quantize", "--model", str(static), "--calibration_file", str(tmp_path / "dev.tsv")]
    assert main([*command, "--test", str(tmp_path / "dev.tsv"), "--max_loss", "1", "--seconds", "0.1"]) == 0
    info = open_exported(static, MODEL).info
    assert info.export is not None
    facts: Any = info.export["int8"]
    assert (facts["left_out"], facts["products"]) == ([], PRODUCTS[case])
    assert [(row["engine"], row["before"]) for row in facts["quality"]] == [("onnx", 1.0), ("openvino", 1.0)]
    for engine in ("onnx", "openvino"):
        found = Ranker.load(static, engine=engine, precision="int8").score(QUERIES, TITLES)
        assert 1e-7 < np.abs(found - wanted).max() < 0.2


def test_a_folder_is_a_ranker_as_it_lies_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "hf", "xlm-roberta")
    convert(ConvertOptions(source=str(folder), target=str(tmp_path / "ours")))
    rows = [load_pair_encoder(path).encode(QUERIES, TITLES) for path in (folder, tmp_path / "ours")]  # of clients
    assert rows[0].pad(np.arange(4))["input_ids"].tolist() == rows[1].pad(np.arange(4))["input_ids"].tolist()
    pairs = "".join(f"{query}\t{title}\n" for query, title in zip(QUERIES, TITLES))
    (tmp_path / "pairs.tsv").write_text(pairs, encoding="utf-8")
    capsys.readouterr()
    assert main(["predict", str(folder), "--input", str(tmp_path / "pairs.tsv"), "--device", "cpu"]) == 0
    lines = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    scores = Ranker.load(tmp_path / "ours").score(QUERIES, TITLES)
    np.testing.assert_allclose([line["pred_prob"] for line in lines], scores, atol=1e-6)


def test_a_folder_without_head_or_of_another_architecture(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "hf", "xlm-roberta")
    change_json(folder / "config.json", architectures=["XLMRobertaModel"])
    assert identify(folder).kind is None
    with pytest.raises(CheckpointError, match="transformers, not a ranker"):
        load_model(folder, RANKER)
    assert start_ranker(folder, Fresh("pairwise")).new_parts == ["head", "match_embeddings"]
    change_json(folder / "config.json", model_type="t5")
    with pytest.raises(CheckpointError, match="model_type is 't5'"):
        start_ranker(folder, Fresh("pairwise"))


@pytest.mark.parametrize(("case", "head"), [("xlm-roberta", "classifier.out_proj"), ("modernbert", "classifier")])
def test_a_head_of_more_classes_is_left_out(tmp_path: Path, case: str, head: str) -> None:
    """A model of entailment is a good start of a ranker."""
    folder = write_folder(tmp_path / "hf", case)
    wanted = start_ranker(folder, Fresh("pairwise")).network.encoder.state_dict()
    theirs = load_file(folder / "model.safetensors")
    three = {f"{head}.{part}": np.concatenate([theirs[f"{head}.{part}"]] * 3) for part in ("weight", "bias")}
    save_file({**theirs, **three}, folder / "model.safetensors", {"format": "pt"})
    change_json(folder / "config.json", id2label={"0": "entailment", "1": "neutral", "2": "contradiction"})
    assert identify(folder).kind is None and sorted(read_model(folder).left_over) == sorted(three)
    with pytest.raises(CheckpointError, match=r"not a ranker .its head tells 3 classes apart"):
        load_model(folder, RANKER)
    started = start_ranker(folder, Fresh("pairwise"))
    assert started.new_parts == ["head", "match_embeddings"]
    for name, value in started.network.encoder.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), wanted[name].numpy(), err_msg=name)


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [  # and others in test_foreign_settings.py
        ("modernbert", {"classifier_pooling": "last"}, "classifier_pooling is 'last'"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_parameters"),
        ("deberta-v3", {"norm_rel_ebd": "batch"}, "norm_rel_ebd"),
        ("deberta-v3", {"attention_head_size": 8}, ""),  # is stated by deberta-v2-xlarge, and is as everywhere
    ],
)
def test_what_is_not_done_is_refused(tmp_path: Path, case: str, changes: dict[str, Any], message: str) -> None:
    folder = write_folder(tmp_path / "hf", case)
    wanted = load_encoder(folder).config
    change_json(folder / "config.json", **changes)
    if not message:
        assert load_encoder(folder).config == wanted
        return
    with pytest.raises(CheckpointError, match=message):
        load_single(folder)


def test_a_network_that_is_code_of_its_own_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "hf", "xlm-roberta")
    theirs = load_file(folder / "model.safetensors")
    renamed = {name.replace(".layer.", ".layers."): array for name, array in theirs.items()}
    save_file(renamed, folder / "model.safetensors")
    change_json(folder / "config.json", auto_map={"AutoModel": "modeling_xlm_roberta.XLMRobertaModel"})
    with pytest.raises(CheckpointError, match="its network is code that came with it"):
        load_single(folder)


@pytest.mark.unit
def test_a_small_modernbert_may_have_many_positions() -> None:
    """Its tables of them are not in the file, and are as wide as a head."""
    config = ModernBertConfig(100, num_hidden_layers=1, num_attention_heads=8, hidden_size=512, intermediate_size=512)
    numbers = sum(parameter.size for parameter in ModernBertEncoder(config).parameters())
    config.require_fits(numbers)
    with pytest.raises(CheckpointError, match="they are not of one model"):
        replace(config, max_position_embeddings=10**9).require_fits(numbers)


@pytest.mark.unit
def test_relative_buckets_by_hand() -> None:
    """With 8 buckets to a side, positions up to 4 have their own; 5 to 511 share 5 to 7, by their logarithm."""
    shape = {"model_type": "deberta-v2", "vocab_size": 9, "hidden_size": 12, "max_position_embeddings": 512}
    config: Any = config_from({**shape, "position_buckets": 8, "max_relative_positions": -1})
    buckets = relative_buckets(config)
    middle = len(buckets) // 2
    # ceil(3 log(d / 4) / log(511 / 4)) + 4: log(511 / 4) / 3 = 1.617, so 5 up to 4 e^1.617 = 20.2, 6 up to 101.6
    for distance, bucket in ((0, 0), (3, 3), (4, 4), (5, 5), (20, 5), (21, 6), (101, 6), (102, 7), (511, 7)):
        assert (buckets[middle + distance], buckets[middle - distance]) == (bucket, -bucket)
