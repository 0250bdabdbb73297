"""The pretraining commands as users type them: their files, output and errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from cross_encoder import train_ce
from ernie_matching import train_pairwise
from paddle_ranker import Ranker
from paddle_ranker.commands.convert import ConvertOptions, convert
from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.training.learning_curve import read_metrics
from pretraining import fill_mask, train_mlm, train_tokenizer
from tests.conftest import Call, commands_here
from tests.pretraining_runs import SHAPE, typed, write_corpus
from tests.tiny import HAN, VOCABULARY, draw_words, write_encoder, write_ranker

pytestmark = pytest.mark.server  # trains tiny models, for seconds each


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("data"))


@pytest.fixture
def call(data: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> Call:
    """Return a function that calls a command's `main` in `data`."""
    monkeypatch.chdir(data)
    return call


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the save folder of a short training."""
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    changes = {"epochs": 8, "learning_rate": 5e-3, "eval_step": 10, "save_step": 1000, "logging_steps": 5}
    with commands_here(data):
        assert train_mlm.main(typed(folder, **changes)) == 0
    return folder


def test_training_learns_and_keeps_the_lowest_loss(trained: Path) -> None:
    records: list[Any] = list(read_metrics(trained / "metrics.jsonl"))
    evaluations = [record for record in records if "evaluation" in record]
    losses = [record["evaluation"]["loss"] for record in evaluations]
    assert losses[0] < np.log(len(VOCABULARY)) and min(losses) < losses[0] - 0.2
    best = evaluations[int(np.argmin(losses))]["step"]
    assert (trained / "best").resolve().name == f"model_{best}"
    for record in evaluations:
        assert record["lower_is_better"] and record["metric"] == "loss"
        assert record["evaluation"]["perplexity"] == pytest.approx(np.exp(record["evaluation"]["loss"]))
        assert 0 < record["evaluation"]["accuracy"] < 1
    steps = [record for record in records if "gradient_norm" in record]
    assert all(record["perplexity"] == pytest.approx(np.exp(record["loss"])) for record in steps)


def test_a_checkpoint_is_an_encoder_folder(trained: Path) -> None:
    names = {path.name for path in (trained / "best").iterdir()}
    assert names == {
        "model_state.pdparams", "config.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json",
        "pretraining.json",
    }  # fmt: skip
    told = json.loads((trained / "best" / "pretraining.json").read_text(encoding="utf-8"))
    assert told["training"]["documents"] == 60 and told["training"]["held_out_documents"] == 9
    assert told["training"]["mlm_probability"] == 0.2 and "loss" in told["results"]


def test_both_rankers_start_from_it(trained: Path, call: Call, tmp_path: Path) -> None:
    _, words = draw_words()
    (tmp_path / "triples.csv").write_text("".join(f"{a}\t{a}论\t{b}\n" for a, b in zip(words, words[1:])), "utf-8")
    (tmp_path / "pairs.csv").write_text(
        "".join(f"{a}\t{a}论\t1\n{a}\t{b}\t0\n" for a, b in zip(words, words[1:])), "utf-8"
    )
    common = ["--test_file", tmp_path / "pairs.csv", "--model_name_or_path", trained / "best", "--device", "cpu",
              "--max_steps", 2, "--batch_size", 4, "--max_seq_length", 32, "--logging_steps", 1]  # fmt: skip
    before = load_arrays(trained / "best" / PARAMETERS_FILE)
    for command, option, file in (
        (train_pairwise.main, "--train_file", "triples.csv"),
        (train_ce.main, "--train_set", "pairs.csv"),
    ):
        save_dir = tmp_path / f"from_{file}"
        status, printed, errors = call(command, option, tmp_path / file, "--save_dir", save_dir, *common)
        assert status == 0, errors
        # The pooler was never trained: it is new, and not a random one that looks trained.
        assert re.search(r"; new: encoder\.pooler\.dense, head, match_embeddings$", printed, re.M)
        after = load_arrays(save_dir / "last" / PARAMETERS_FILE)
        for name in ("embeddings.word_embeddings.weight", "encoder.layers.1.linear2.weight"):
            moved = np.abs(after[f"encoder.{name}"] - before[f"ernie.{name}"]).max()
            assert 0 <= moved < 1e-3  # two steps away from the start
        assert len(Ranker.load(save_dir / "last").score(["深度"], ["深度学习"])) == 1


def test_it_goes_on_from_an_encoder_of_ours_and_of_a_ranker(
    trained: Path, data: Path, call: Call, tmp_path: Path
) -> None:
    begin = ["--max_steps", 1, "--learning_rate", 1e-9]
    told = json.loads((trained / "best" / "pretraining.json").read_text(encoding="utf-8"))
    theirs = tmp_path / "theirs"  # a folder of transformers is accepted directly
    convert(ConvertOptions(source=str(trained / "best"), target=str(theirs), to="hf"))
    for source, target in ((trained / "best", tmp_path / "a"), (theirs, tmp_path / "from_theirs")):
        status, printed, errors = call(train_mlm.main, *typed(target, *begin, "--init_from", source))
        assert status == 0, errors
        assert f"start from {source}\n" in printed
        records: list[Any] = list(read_metrics(target / "metrics.jsonl"))
        mean = float(np.mean([record["evaluation"]["loss"] for record in records if "evaluation" in record]))
        assert mean == pytest.approx(told["results"]["loss"], abs=1e-5)  # the head was kept

    encoder = write_encoder(tmp_path / "encoder")
    status, printed, errors = call(train_mlm.main, *typed(tmp_path / "b", *begin, "--init_from", encoder))
    assert status == 0 and f"start from {encoder}; new: cls\n" in printed, errors
    name = "embeddings.position_embeddings.weight"
    np.testing.assert_allclose(
        load_arrays(tmp_path / "b" / "last" / PARAMETERS_FILE)[f"ernie.{name}"],
        load_arrays(encoder / PARAMETERS_FILE)[name],
        atol=1e-6,
    )
    ranker = write_ranker(tmp_path / "ranker", match=False)
    status, printed, errors = call(train_mlm.main, *typed(tmp_path / "c", *begin, "--init_from", ranker))
    assert status == 0 and "new: cls" in printed, errors


def test_what_is_left_out_held_out_or_trained_on_as_well_is_counted(data: Path, call: Call, tmp_path: Path) -> None:
    corpus = (data / "corpus.txt").read_bytes()
    (data / "damaged.txt").write_bytes(corpus + b"\xff\n")
    lines = corpus.decode().splitlines(keepends=True)
    (data / "seen.txt").write_text("".join([lines[3], lines[3], lines[5], "深度学习论文病害\n"]), encoding="utf-8")
    more = ["--max_steps", 1, "--skip_bad_rows", "--cache_dir", tmp_path / "tokens"]
    for run in ("a", "b"):  # the second run reuses the tokens of the first
        arguments = typed(tmp_path / run, *more, train_files="damaged.txt", eval_files="seen.txt")
        status, printed, errors = call(train_mlm.main, *arguments)
        assert status == 0, errors
        assert re.search("warning: 3 of the [0-9,]+ held-out documents are trained on as well", printed)
        assert re.search(r"^read 60 documents; skipped 1 lines \(damaged\.txt, line 61: byte 0xff", printed, re.M)
    arguments = typed(tmp_path / "c", "--max_steps", 1, "--eval_share", 0.2)
    place = arguments.index("--eval_files")
    status, printed, errors = call(train_mlm.main, *arguments[:place], *arguments[place + 2 :])
    assert status == 0 and re.search(r"^48 documents, .*; held out: 12 documents, ", printed, re.M), errors


@pytest.fixture(scope="module")
def encoders(data: Path) -> Path:
    """Write encoders and shapes that do not fit into `data`."""
    (data / "broken.txt").write_bytes("深度\n".encode() + "深度".encode("gbk"))
    (data / "odd.json").write_text('{"layers": 3}', encoding="utf-8")
    (data / "act.json").write_text(json.dumps({**SHAPE, "hidden_act": "mish_new"}), encoding="utf-8")
    write_encoder(data / "other", vocab_size=len(VOCABULARY) - 1)
    (data / "other" / "vocab.txt").write_text("\n".join(VOCABULARY[:-1]) + "\n", encoding="utf-8")
    write_encoder(data / "encoder")
    write_encoder(data / "short", vocab_size=90)
    write_encoder(data / "gram", model_type="ernie_gram")
    write_encoder(data / "hf")
    (data / "hf" / PARAMETERS_FILE).rename(data / "hf" / "model.safetensors")
    (data / "maskless").mkdir()
    (data / "maskless" / "vocab.txt").write_text("\n".join(VOCABULARY).replace("[MASK]", "x y"), encoding="utf-8")
    return data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_seq_length": 65}, r"the model has 64 positions"),
        ({"train_files": "broken.txt"}, r"broken\.txt, line 2: byte 0xc9 at position 1 is not UTF-8, unlike most"),
        ({"config": "nanno"}, r"did you mean nano\?"),
        ({"config": "odd.json"}, r"odd\.json: not a usable configuration \(unknown layers\)"),
        ({"config": "act.json"}, r"hidden_act is mish_new, expected one of"),
        ({"tokenizer": "nowhere"}, r"vocab\.txt is not there"),
        ({"init_from": "other", "config": None}, r"--tokenizer tokenizer is not the .* of other"),
        ({"init_from": "short", "config": None}, r"the vocabulary has ids up to 96 but the model has 90 word"),
        ({"init_from": "gram", "config": None}, r"type ernie_gram are not supported"),
        ({"init_from": "other"}, r"--config describes a new encoder"),
        ({"init_from": "other", "config": None, "model_type": "bert"}, r"--model_type describes a new"),
        ({"init_from": "other", "config": None, "normalize_before": "true"}, r"--normalize_before describes a"),
        ({"documents": "blank_lines", "eval_files": None}, r"one document, of which none can be held out"),
        ({"tokenizer": None}, r"--tokenizer is required for a new encoder"),
        ({"tokenizer": "maskless"}, r"the vocabulary has no \[MASK\]"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_of_one_line(
    encoders: Path, call: Call, tmp_path: Path, changes: dict[str, Optional[object]], message: str
) -> None:
    arguments = typed(tmp_path / "a")
    for name, value in changes.items():
        if f"--{name}" in arguments:
            place = arguments.index(f"--{name}")
            del arguments[place : place + 2]
        arguments += [] if value is None else [f"--{name}", str(value)]
    status, _, errors = call(train_mlm.main, *arguments)
    assert status != 0 and re.search(message, errors.splitlines()[-1]), errors
    assert "Traceback" not in errors and not list((tmp_path / "a").glob("model_*"))


def test_a_resumed_run_needs_no_tokenizer_and_refuses_other_data(data: Path, call: Call, tmp_path: Path) -> None:
    save_dir = tmp_path / "a"
    assert call(train_mlm.main, *typed(save_dir, "--max_minutes", 1e-9))[0] == 0
    status, _, errors = call(train_mlm.main, *typed(save_dir, "--resume", "--mlm_probability", 0.3))
    assert status == 1 and "options mlm_probability was 0.2, is 0.3" in errors
    status, _, errors = call(train_mlm.main, *typed(save_dir, "--resume", train_files="eval.txt"))
    assert status == 1 and "content train_files was" in errors
    arguments = typed(save_dir, "--resume")
    place = arguments.index("--tokenizer")
    status, printed, errors = call(train_mlm.main, *arguments[:place], *arguments[place + 2 :])
    assert status == 0 and "resume after step 1, from" in printed, errors


def test_fill_mask_prints_what_the_model_thinks(trained: Path, call: Call, tmp_path: Path) -> None:
    common = ["--model", trained / "best", "--device", "cpu"]
    status, printed, errors = call(fill_mask.main, "深[MASK] abc [MASK]e", *common, "--top_k", 3)
    assert status == 0, errors
    lines = printed.splitlines()
    assert lines[1] == "mask 1:" and lines[5] == "mask 2:" and len(lines) == 9
    probabilities = [float(line.split()[0]) for line in lines[2:5]]
    assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1

    sentences = ["深[MASK] abc [MASK]e", "[MASK]", "度 [MASK] 学"]
    (tmp_path / "in.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")
    output = tmp_path / "out.jsonl"
    status, _, errors = call(
        fill_mask.main, "--input_file", tmp_path / "in.txt", "--output_file", output, *common, "--top_k", 97,
        "--batch_size", 2,
    )  # fmt: skip
    assert status == 0, errors
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["sentence"] for row in rows] == sentences and [len(row["masks"]) for row in rows] == [2, 1, 1]
    for row in rows:
        for candidates in row["masks"]:
            assert sum(candidate["probability"] for candidate in candidates) == pytest.approx(1.0, abs=1e-5)
            assert {candidate["token"] for candidate in candidates} == set(VOCABULARY)
    # In a batch as alone; the first line shows the best of each.
    assert [f"{c['probability']:.4f}" for c in rows[0]["masks"][0][:3]] == [f"{p:.4f}" for p in probabilities]
    best = [candidates[0]["token"] for candidates in rows[0]["masks"]]
    if not any(token.startswith("##") for token in best):
        assert lines[0] == rows[0]["filled"] == f"深{best[0]} abc {best[1]}e"


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (fill_mask, ["深度"], r"'深度': has no \[MASK\]"),
        (fill_mask, ["[MASK]" + "度" * 62], r"has 65 tokens, the model has 64 positions"),
        (fill_mask, [], "give a sentence, or --input "),
        (fill_mask, ["[MASK]", "--input_file", "corpus.txt"], "not both"),
        (fill_mask, ["--input_file", "corpus.txt"], r"corpus\.txt, sentences 1 to 32: .* has no \[MASK\]"),
        (fill_mask, ["[MASK]", "--model", "encoder"], "has no head of a masked language model"),
        (fill_mask, ["[MASK]", "--model", "hf"], "paddle-ranker convert"),
        (train_tokenizer, ["--vocab_size", "12"], "vocab_size 12 is smaller than the alphabet"),
        (train_tokenizer, ["--special_tokens", "[PAD]", "[CLS]"], r"lacks \[UNK\], \[SEP\], \[MASK\]"),
        (train_tokenizer, ["--special_tokens", "[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"], r"\[PAD\] comes first"),
        (train_tokenizer, ["broken.txt"], "is not UTF-8"),
    ],
)
def test_masks_and_tokenizers_that_cannot_be(
    encoders: Path, trained: Path, call: Call, tmp_path: Path, command: Any, arguments: list[str], message: str
) -> None:
    if command is fill_mask:
        model = [] if "--model" in arguments else ["--model", str(trained / "best")]
        given = [*arguments, *model, "--device", "cpu"]
    else:
        given = ["--output_dir", str(tmp_path / "made"), "--files", "corpus.txt", *arguments]
    status, printed, errors = call(command.main, *given)
    assert status != 0 and re.search(message, errors) and errors.count("\n") == 1, errors
    assert not printed and not (tmp_path / "made" / "vocab.txt").exists()


def test_a_tokenizer_is_trained_and_used(call: Call, tmp_path: Path) -> None:
    made = tmp_path / "tokenizer"
    arguments = ["--files", "corpus.txt", "eval.txt", "--vocab_size", 40, "--output_dir", made]
    status, printed, errors = call(train_tokenizer.main, *arguments)
    tokens = (made / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert status == 0 and f"{len(tokens)} word pieces" in printed, errors
    assert tokens[:5] == ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"] and len(tokens) <= 40
    assert set(HAN[:8]) <= set(tokens) and not any(len(t) > 1 and set(t) & set(HAN) for t in tokens)
    assert {"abc", "de"} <= set(tokens)
    status, _, errors = call(train_tokenizer.main, *arguments)
    assert status == 1 and "is there already" in errors
    status, printed, errors = call(train_mlm.main, *typed(tmp_path / "a", "--tokenizer", made, "--max_steps", 1))
    assert status == 0, errors


def test_a_tokenizer_that_could_not_be_written_whole_is_none(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    arguments = ["--files", "corpus.txt", "--vocab_size", 40, "--output_dir", tmp_path / "made"]
    with monkeypatch.context() as patch:
        patch.setattr(TokenizerFiles, "write", fail)
        status, _, errors = call(train_tokenizer.main, *arguments)
    assert status == 1 and "vocab.txt" in errors and not list((tmp_path / "made").iterdir())
    assert call(train_tokenizer.main, *arguments)[0] == 0
    assert len(list((tmp_path / "made").iterdir())) == 3


def test_special_tokens_of_ones_own_come_first(call: Call, tmp_path: Path) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[TITLE]"]
    arguments = ["--files", "corpus.txt", "--output_dir", tmp_path / "made", "--special_tokens", *special]
    assert call(train_tokenizer.main, *arguments, "--lowercase", "false")[0] == 0
    assert (tmp_path / "made" / "vocab.txt").read_text(encoding="utf-8").splitlines()[:6] == special
    assert json.loads((tmp_path / "made" / "tokenizer_config.json").read_text())["do_lower_case"] is False
