"""The pretraining commands as users type them: their files, output and errors."""

from __future__ import annotations

import errno
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
from paddle_ranker.encoding.tokenizers.folder import TokenizerFiles
from paddle_ranker.model.families import read_config
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.training.curve import read_metrics
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
    config = read_config(trained / "best")
    assert config is not None and config.hidden_size == SHAPE["hidden_size"] and config.vocab_size == len(VOCABULARY)
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


def test_documents_are_held_out_where_no_file_is_named(data: Path, call: Call, tmp_path: Path) -> None:
    arguments = typed(tmp_path / "a", "--max_steps", 1, "--eval_share", 0.2)
    place = arguments.index("--eval_files")
    status, printed, errors = call(train_mlm.main, *arguments[:place], *arguments[place + 2 :])
    assert status == 0, errors
    assert re.search(r"^48 documents, .*; held out: 12 documents, ", printed, re.M)


def test_held_out_documents_that_are_trained_on_too_are_counted(data: Path, call: Call, tmp_path: Path) -> None:
    lines = (data / "corpus.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (data / "seen.txt").write_text("".join([lines[3], lines[3], lines[5], "深度学习论文病害\n"]), encoding="utf-8")
    for file, said in (("seen.txt", ["3"]), ("new.txt", [])):
        (data / "new.txt").write_text("深度学习论文病害\n", encoding="utf-8")
        status, printed, errors = call(train_mlm.main, *typed(tmp_path / file, "--max_steps", 1, eval_files=file))
        assert status == 0, errors
        assert re.findall(r"^warning: (\d) of the held-out documents are trained on as well", printed, re.M) == said


def test_lines_that_are_left_out_are_said_with_their_reasons(data: Path, call: Call, tmp_path: Path) -> None:
    (data / "damaged.txt").write_bytes((data / "corpus.txt").read_bytes() + b"\xff\n")
    more = ["--max_steps", 1, "--skip_bad_rows", "--cache_dir", tmp_path / "tokens"]
    for run in ("a", "b"):  # the second run reuses the tokens of the first
        status, printed, errors = call(train_mlm.main, *typed(tmp_path / run, *more, train_files="damaged.txt"))
        assert status == 0, errors
        assert re.search(r"^read 60 documents; skipped 1 lines \(damaged\.txt, line 61: byte 0xff", printed, re.M)
        assert printed.count("skipped") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_seq_length": 65}, r"--max_seq_length 65: the model has 64 positions"),
        ({"train_files": "gbk.txt"}, r"gbk\.txt, line 1: byte 0xc9 at position 1 is not UTF-8; .*GB18030"),
        ({"config": "nanno"}, r"--config nanno: choose from nano, .* \(did you mean nano\?\)"),
        ({"config": "odd.json"}, r"odd\.json: not a usable configuration \(unknown layers\)"),
        ({"config": "act.json"}, r"error: the activation 'mish_new' is not done here; known are gelu, gelu_new, relu"),
        ({"tokenizer": "nowhere"}, r"vocab\.txt is not there"),
        ({"init_from": "other", "config": None}, r"--tokenizer tokenizer is not the .* of other: .* other has 96"),
        ({"init_from": "short", "config": None}, r"short: the vocabulary has ids up to 96 but the model has 90 word"),
        ({"init_from": "gram", "config": None}, r"masked language models of the type ernie_gram are not supported"),
        ({"init_from": "other"}, r"--config describes a new encoder, but --model has its own shape"),
        ({"init_from": "other", "config": None, "model_type": "bert"}, r"--model_type describes a new"),
        ({"init_from": "other", "config": None, "normalize_before": "true"}, r"--normalize_before describes a"),
        ({"documents": "blank_lines", "eval_files": None}, r"one document, of which none can be held out"),
        ({"tokenizer": None}, r"--tokenizer is required for a new encoder"),
        ({"tokenizer": "maskless"}, r"the vocabulary has no \[MASK\]"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_of_one_line(
    data: Path, call: Call, tmp_path: Path, changes: dict[str, Optional[object]], message: str
) -> None:
    (data / "gbk.txt").write_bytes("深度".encode("gbk"))
    (data / "odd.json").write_text('{"layers": 3}', encoding="utf-8")
    (data / "act.json").write_text(json.dumps({**SHAPE, "hidden_act": "mish_new"}), encoding="utf-8")
    if not (data / "other").exists():
        write_encoder(data / "other", vocab_size=len(VOCABULARY) - 1)
        (data / "other" / "vocab.txt").write_text("\n".join(VOCABULARY[:-1]) + "\n", encoding="utf-8")
        write_encoder(data / "short", vocab_size=90)
        write_encoder(data / "gram", model_type="ernie_gram")
        (data / "maskless").mkdir()
        (data / "maskless" / "vocab.txt").write_text("\n".join(VOCABULARY).replace("[MASK]", "x y"), encoding="utf-8")
    arguments = typed(tmp_path / "a")
    for name, value in changes.items():
        if f"--{name}" in arguments:
            place = arguments.index(f"--{name}")
            del arguments[place : place + 2]
        arguments += [] if value is None else [f"--{name}", str(value)]
    status, _, errors = call(train_mlm.main, *arguments)
    assert status != 0 and len(errors.strip().splitlines()[-1:]) == 1, errors
    assert re.search(message, errors), errors
    assert "Traceback" not in errors and not list((tmp_path / "a").glob("model_*"))


def losses_of(save_dir: Path) -> list[Any]:
    return [record["loss"] for record in read_metrics(save_dir / "metrics.jsonl") if "loss" in record]


@pytest.mark.slow
def test_every_option_has_an_effect(call: Call, tmp_path: Path) -> None:
    common = ["--max_steps", 3, "--eval_step", 3, "--save_step", 100]
    assert call(train_mlm.main, *typed(tmp_path / "plain", *common))[0] == 0
    plain = losses_of(tmp_path / "plain")
    for name, value in {
        "packing": "truncate",
        "attention": "sequence",
        "whole_word_mask": "true",
        "mlm_probability": 0.4,
        "normalize_before": "true",
        "dropout": 0,
        "max_seq_length": 20,
        "use_amp": "true",
        "gradient_checkpointing": "true",
        "weight_decay": 0.9,
        "warmup_proportion": 0.9,
        "schedule": "constant",
        "max_grad_norm": 0.01,
        "gradient_accumulation_steps": 1,
        "seed": 7,
    }.items():
        status, _, errors = call(train_mlm.main, *typed(tmp_path / name, *common, f"--{name}", value))
        assert status == 0, errors
        assert losses_of(tmp_path / name) != plain, name
        assert np.isfinite(losses_of(tmp_path / name)).all()
    # These options must have no value: memory, the folder of tokens, the name of the architecture.
    for name, value in {"cache_dir": tmp_path / "cache", "model_type": "bert"}.items():
        status, _, errors = call(train_mlm.main, *typed(tmp_path / name, *common, f"--{name}", value))
        assert status == 0 and losses_of(tmp_path / name) == plain, errors
    assert list((tmp_path / "cache").glob("tokens_*")) and not (tmp_path / "cache_dir" / "corpus").exists()
    assert "bert.embeddings.layer_norm.bias" in load_arrays(tmp_path / "model_type" / "last" / PARAMETERS_FILE)


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
    ("arguments", "message"),
    [
        (["深度"], r"'深度': has no \[MASK\]; write \[MASK\] where"),
        (["[MASK]" + "度" * 62], r"has 65 tokens, the model has 64 positions; shorten it"),
        ([], "give a sentence, or --input "),
        (["[MASK]", "--input_file", "corpus.txt"], "not both"),
        (["--input_file", "corpus.txt"], r"corpus\.txt, sentences 1 to 32: .* has no \[MASK\]"),
        (["[MASK]", "--model", "encoder"], "has no head of a masked language model"),
        (["[MASK]", "--model", "hf"], "bring it here: paddle-ranker convert"),
    ],
)
def test_fill_mask_refuses_by_name(data: Path, trained: Path, call: Call, arguments: list[str], message: str) -> None:
    if not (data / "encoder").exists():
        write_encoder(data / "encoder")
        write_encoder(data / "hf")
        (data / "hf" / PARAMETERS_FILE).rename(data / "hf" / "model.safetensors")
    given = arguments if "--model" in arguments else [*arguments, "--model", str(trained / "best")]
    status, printed, errors = call(fill_mask.main, *given, "--device", "cpu")
    assert status != 0 and re.search(message, errors), errors
    assert not printed and errors.count("\n") == 1


def test_two_best_pieces_join_to_a_word() -> None:
    from pretraining.filler import Candidate, MaskFiller

    filler = MaskFiller.__new__(MaskFiller)
    filler.mask = "[MASK]"
    masks = [[Candidate("play", 0.5)], [Candidate("##ing", 0.4)]]
    assert filler._joined("we [MASK] [MASK] now", masks) == "we playing now"


def test_a_tokenizer_is_trained_and_used(data: Path, call: Call, tmp_path: Path) -> None:
    made = tmp_path / "tokenizer"
    arguments = ["--files", "corpus.txt", "eval.txt", "--vocab_size", 40, "--output_dir", made]
    status, printed, errors = call(train_tokenizer.main, *arguments)
    assert status == 0, errors
    tokens = (made / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert tokens[:5] == ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"] and len(tokens) <= 40
    assert set(HAN[:8]) <= set(tokens) and not any(len(t) > 1 and set(t) & set(HAN) for t in tokens)
    assert {"abc", "de"} <= set(tokens)
    assert f"69 documents -> {made}/vocab.txt: {len(tokens)} word pieces" in printed
    status, _, errors = call(train_tokenizer.main, *arguments)
    assert status == 1 and "is there already" in errors
    status, printed, errors = call(train_mlm.main, *typed(tmp_path / "a", "--tokenizer", made, "--max_steps", 1))
    assert status == 0, errors


def _fail(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_tokenizer_that_could_not_be_written_whole_is_none(
    data: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--files", "corpus.txt", "--vocab_size", 40, "--output_dir", tmp_path / "made"]
    with monkeypatch.context() as patch:
        patch.setattr(TokenizerFiles, "write", _fail)
        status, _, errors = call(train_tokenizer.main, *arguments)
    assert (
        status == 1
        and f"disk of {tmp_path / 'made' / 'vocab.txt'}" in errors
        and not list((tmp_path / "made").iterdir())
    )
    assert call(train_tokenizer.main, *arguments)[0] == 0
    assert len(list((tmp_path / "made").iterdir())) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--vocab_size", 12], r"vocab_size 12 is smaller than the alphabet: \d+ tokens \(5 special, "),
        (["--special_tokens", "[PAD]", "[CLS]"], r"--special_tokens lacks \[UNK\], \[SEP\], \[MASK\]"),
        (["--special_tokens", "[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"], r"\[PAD\] comes first, as id 0"),
        (["gbk2.txt"], "is not UTF-8"),
    ],
)
def test_tokenizers_that_cannot_be(data: Path, call: Call, tmp_path: Path, more: list[object], message: str) -> None:
    (data / "gbk2.txt").write_bytes("深度".encode("gbk"))
    arguments = ["--output_dir", tmp_path / "made", "--files", "corpus.txt", *more]
    status, _, errors = call(train_tokenizer.main, *arguments)
    assert status != 0 and re.search(message, errors), errors
    assert not (tmp_path / "made" / "vocab.txt").exists()


def test_special_tokens_of_ones_own_come_first(call: Call, tmp_path: Path) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[TITLE]"]
    arguments = ["--files", "corpus.txt", "--output_dir", tmp_path / "made", "--special_tokens", *special]
    assert call(train_tokenizer.main, *arguments, "--lowercase", "false")[0] == 0
    assert (tmp_path / "made" / "vocab.txt").read_text(encoding="utf-8").splitlines()[:6] == special
    assert json.loads((tmp_path / "made" / "tokenizer_config.json").read_text())["do_lower_case"] is False
