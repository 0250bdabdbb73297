"""All commands by one name: those of recipes too, by the kind of the model; their help, their names of one idea."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, TextIO

import numpy as np
import pytest

from paddle_ranker import Ranker, __version__
from paddle_ranker.__main__ import main
from paddle_ranker.commands.blend import BlendOptions
from paddle_ranker.commands.calibrate import CalibrateOptions
from paddle_ranker.commands.command_registry import COMMANDS, GROUPS, OF_KIND, Command
from paddle_ranker.commands.distill import DistillOptions
from paddle_ranker.errors import UsageError
from paddle_ranker.model.model_folder import identify
from paddle_ranker.model.parameters import save_arrays
from paddle_ranker.options import parse_options
from paddle_ranker.options.declare import Options, annotations_of, fields_of, value_type
from paddle_ranker.options.declare import help_of as help_of_field
from paddle_ranker.options.input_files import paths_of
from paddle_ranker.recipes import RECIPES
from tests.conftest import REPOSITORY, load_script, run_python
from tests.entailment_cases import write_data, write_model
from tests.export_cases import write_two_members
from tests.tiny import PAIRS, QUERIES, TITLES, write_ranker

pytestmark = pytest.mark.unit
COMMANDS.load_plugins()
PACKAGES = (*RECIPES, "paddle_ranker", "deploy", "datasets")
FILES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for folder in (*RECIPES, "deploy/python", "datasets")
    for path in (REPOSITORY / folder).glob("*.py")
    if re.search(r"run_command\(|main_of\(", path.read_text(encoding="utf-8"))
)
TUTORIAL = {
    "ernie_matching/train_pairwise.py": ("--train/--train_file", "--test/--test_file", "--output/--save_dir"),
    "cross_encoder/train_ce.py": ("--train/--train_set/--train_file", "--test/--test_file", "--output/--save_dir"),
    "ernie_matching/evaluate.py": ("--model/--init_from_ckpt", "--test/--test_file"),
    "cross_encoder/evaluate.py": ("--model/--init_from_ckpt", "--test/--test_file"),
    "ernie_matching/predict_pairwise.py": ("--model/--params_path", "--input/--input_file"),
    "cross_encoder/predict.py": ("--model/--params_path", "--input/--input_file/--test_set"),
    "ernie_matching/export_model.py": ("--model/--params_path", "--output/--output_path"),
    "cross_encoder/export_model.py": ("--model/--params_path", "--output/--output_path"),
    "cross_encoder/export_to_serving.py": ("--model/--dirname",),
    "deploy/python/predict.py": ("--model/--model_dir", "--input/--input_file"),
    "recall/train_batch_neg.py": ("--train/--train_set_file", "--test/--similar_text_pair", "--output/--save_dir"),
    "recall/recall.py": ("--model/--params_path", "--corpus/--corpus_file", "--input/--similar_text_pair"),
    "recall/predict.py": ("--model/--params_path", "--input/--text_pair_file"),
    "pretraining/train_mlm.py": ("--train/--train_files", "--test/--eval_files", "--model/--init_from"),
    "pretraining/train_tokenizer.py": ("--train/--files", "--output/--output_dir"),
    "multimodal_entailment/train.py": ("--train/--train_file", "--test/--validation_file", "--output/--save_dir"),
    "multimodal_entailment/predict.py": ("--input/--input_file", "--output/--output_file"),
}  # fmt: skip
# Second names of options: those of the published tutorial; `--train_file`, since Paddle's launcher takes `--train`
# itself; and `search-serve --ranker`, as in `search`.
SECOND_NAMES = {
    "--max_seq_len", "--valid_steps", "--eval_steps", "--save_steps", "--log_steps", "--amp_loss_scale", "--test_set",
    "--test_set_file", "--similar_text_pair_file", "--corpus_file", "--model_dir", "--train_file", "--ranker",
    "--use_tensorrt",
}  # fmt: skip
# Scripts under published names: an installed command does as much for every kind, or more.
PUBLISHED = {
    "ernie_matching.export_to_serving": "export-serving",
    "ernie_matching.export_model": "export",
    "cross_encoder.export_model": "export",
    "cross_encoder.export_to_serving": "export-serving",
    "recall.export_to_serving": "export-serving",
    "recall.evaluate": "evaluate-recall",
    "recall.feature_extract": "encode",
    "recall.milvus_ann_search": "index",
    "recall.recall": "search",
}


def help_of(run: Any, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        run(["--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_every_recipes_command_is_one_of_the_installed_ones() -> None:
    modules = {command.module for command in COMMANDS.values()}
    modules |= set(OF_KIND.values())
    assert set(PUBLISHED.values()) <= set(COMMANDS)
    recipes = {name.removesuffix(".py").replace("/", ".") for name in FILES if name.startswith(RECIPES)}
    assert recipes - modules == set(PUBLISHED) and len(recipes) > 15
    assert {"train-pairwise", "train-ce", "train-entailment", "pretrain", "evaluate", "predict"} <= set(COMMANDS)


@pytest.mark.parametrize("name", [*COMMANDS, *FILES])
def test_help_ends_with_examples_whose_options_there_are(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [f"paddle-ranker {name}"])
    shown = help_of(COMMANDS[name].load().main if name in COMMANDS else load_script(name).main, capsys)
    examples = [line for line in shown.splitlines() if line.startswith("  paddle-ranker ")]
    assert examples or name.startswith(("deploy", "datasets"))
    for line in examples:
        words = shlex.split(line)[1:]
        known = shown if words[0] == name else shown + help_of(COMMANDS[words[0]].load().main, capsys)
        assert all(re.search(rf"{word}\b", known) for word in words if word.startswith("--")), line


@pytest.mark.parametrize("file", TUTORIAL)
def test_one_idea_has_one_name_and_the_tutorials_stays(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = " ".join(help_of(load_script(file).main, capsys).split())
    for names in TUTORIAL[file]:
        first, *others = names.split("/")
        assert re.search(rf"{first} [A-Z]\w*( \[FILE \.\.\.\])?(, --\w+ [^,]*)*", shown), first
        assert all(re.search(rf"{other}\b", shown) for other in others)
    module = load_script(file)
    first, other = TUTORIAL[file][0].split("/")[:2]
    assert module.main([first, "a", other, "b"]) == 2
    assert f"{first} a and {other} b are one option: give one value" in capsys.readouterr().err


def score(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([*map(str, arguments), "--device", "cpu"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("kind", "first"), [("pairwise", "{'query': "), ("cross_encoder", "{'text_a': ")])
def test_predict_and_evaluate_go_by_the_kind_of_the_folder(
    kind: str, first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranker = write_ranker(tmp_path / "ranker", kind=kind)
    for number, half in enumerate((PAIRS[:3], PAIRS[3:])):
        (tmp_path / f"pairs-{number}.tsv").write_text("".join(f"{q}\t{t}\n" for q, t in half), encoding="utf-8")
        rows = "".join(f"{q}\t{t}\t{row % 2}\n" for row, (q, t) in enumerate(half))
        (tmp_path / f"dev-{number}.tsv").write_text(rows, encoding="utf-8")
    printed = score(capsys, "predict", "--model", ranker, "--input", tmp_path / "pairs-*.tsv")
    assert len(printed.splitlines()) == len(PAIRS) and all(line.startswith(first) for line in printed.splitlines())
    both = [tmp_path / "pairs-0.tsv", tmp_path / "pairs-1.tsv"]
    assert score(capsys, "predict", f"--params_path={ranker / 'model_state.pdparams'}", "--test_set", *both) == printed
    measured = score(capsys, "evaluate", "--model", ranker, "--test", tmp_path / "dev-*.tsv", "--resamples", 100)
    assert "eval_dev auc:" in measured and ("margin_loss" in measured) is (kind == "pairwise")


@pytest.mark.parametrize("kind", ["pairwise", "cross_encoder", "blend"])
def test_predict_takes_the_same_options_for_every_kind(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranker = tmp_path / "ranker"
    if kind == "blend":
        write_two_members(ranker)
    else:
        write_ranker(ranker, kind=kind)
    rows = [(query, title) for query in QUERIES[:2] for title in TITLES]
    (tmp_path / "pairs.tsv").write_text("".join(f"{q}\t{t}\n" for q, t in rows), encoding="utf-8")
    asked = ["predict", "--model", ranker, "--input", tmp_path / "pairs.tsv"]
    printed = score(capsys, *asked, "--topk", 2).splitlines()
    found = [json.loads(line) for line in score(capsys, *asked, "--topk", 2, "--format", "json").splitlines()]
    assert found == [ast.literal_eval(line) for line in printed] and len(found) == 4
    names = ["text_a", "text_b"] if kind == "cross_encoder" else ["query", "title"]
    loaded = Ranker.load(ranker, device="cpu")
    best = [(query, hit.title) for query in QUERIES[:2] for hit in loaded.rank(query, TITLES, top_k=2)]
    assert [tuple(line[name] for name in names) for line in found] == best
    every = score(capsys, *asked, "--format", "json").splitlines()
    assert len(every) == len(rows)
    cascade = ["--cascade", f"{ranker}:2"]
    assert len(score(capsys, *asked, *cascade, "--topk", 1).splitlines()) == 2


def test_pairs_are_cut_to_the_lengths_of_a_blends_members(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_two_members(tmp_path / "blend")
    lengths = [json.loads(path.read_text("utf-8"))["max_seq_length"] for path in tmp_path.glob("blend/*/ranker.json")]
    assert len(set(lengths)) == 2
    (tmp_path / "pairs.tsv").write_text(f"a\t{'b ' * 99}\na\t{'b ' * (min(lengths) - 3)}\nc\td\n", encoding="utf-8")
    asked = ["predict", "--model", str(tmp_path / "blend"), "--input", str(tmp_path / "pairs.tsv"), "--device", "cpu"]
    assert main(asked) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "cut" in line]
    assert sorted(notes) == sorted(
        [f"2 pairs were cut to {min(lengths)} tokens", f"1 pairs were cut to {max(lengths)} tokens"]
    )


@pytest.mark.parametrize(
    ("head", "kind"), [("similarity.weight", "pairwise"), ("classifier.weight", "cross_encoder"), ("other", None)]
)
def test_a_published_checkpoint_says_its_kind_by_its_head(head: str, kind: Optional[str], tmp_path: Path) -> None:
    parameters = tmp_path / "model_state.pdparams"
    save_arrays({head: np.zeros((2, 1), np.float32)}, parameters)
    for path in (tmp_path, parameters):
        found = identify(path).kind
        assert (None if found is None else found.name) == kind
    assert identify(tmp_path / "nothing").kind is None


def test_a_model_of_posts_is_measured_and_exported_by_the_same_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    posts, model = write_data(tmp_path, 20), write_model(tmp_path / "model")
    assert "macro_f1" in score(capsys, "evaluate", "--model", model, "--test", posts, "--resamples", 100)
    assert score(capsys, "predict", "--model", model, "--input", posts).startswith("id_1,id_2,label,")


def test_every_option_that_takes_a_file_takes_several() -> None:
    for name in FILES:
        load_script(name)
    for command in COMMANDS.values():
        command.load()
    single = []
    for options_class in every(Options):
        for field in fields_of(options_class) if options_class.__module__.split(".")[0] in PACKAGES else []:
            reads = re.search(r"_files?$|^(files|corpus|queries|documents|qrels|candidates)$", field.name)
            writes = re.search(r"\bwrites?\b|^keep the scores|without effect", help_of_field(field))
            may_name = value_type(annotations_of(options_class)[field.name]) not in (bool, int)
            if reads and may_name and not writes and not field.metadata["files"] and not field.metadata["choices"]:
                single.append(f"{options_class.__name__}.{field.name}")
    assert single == []


def test_only_options_of_the_tutorial_have_second_names() -> None:
    for command in COMMANDS.values():
        command.load()
    for name in PUBLISHED:
        importlib.import_module(name)
    classes = [found for found in every(Options) if found.__module__.split(".")[0] in PACKAGES]
    fields = [field for found in classes for field in fields_of(found)]
    assert {name for field in fields for name in field.metadata["aliases"]} == SECOND_NAMES


def every(options_class: type[Options]) -> Iterator[type[Options]]:
    for found in options_class.__subclasses__():
        yield found
        yield from every(found)


def test_files_without_a_name_may_be_several(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.tsv").touch()
    pattern, both = str(tmp_path / "*.tsv"), (str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv"))
    for given in ([pattern], both):
        calibrate = parse_options(CalibrateOptions, ["ranker", *given, "--method", "platt"], "calibrate", "")
        assert calibrate.ranker == "ranker" and paths_of(calibrate.dev_file or "") == both
        blend = parse_options(BlendOptions, ["ranker", *given, "target", "--with", "other"], "blend", "")
        assert (blend.ranker, paths_of(blend.dev_file), blend.target) == ("ranker", both, "target")
        distill = parse_options(DistillOptions, ["teacher", *given, "scored.tsv"], "distill", "")
        assert paths_of(distill.data_file) == both and distill.output_file == "scored.tsv"
    assert parse_options(CalibrateOptions, ["ranker", "--remove"], "calibrate", "").dev_file is None
    with pytest.raises(UsageError, match="OUTPUT_FILE must be another file than DATA_FILE"):
        parse_options(DistillOptions, ["teacher", pattern, both[1]], "distill", "")


def test_commands_are_listed_and_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", listed, re.M) for name in COMMANDS)
    assert main(["train-pairwize"]) == 2
    assert "unknown command 'train-pairwize' (did you mean train-pairwise?)" in capsys.readouterr().err


def test_commands_are_grouped_and_a_plugin_s_are_among_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(COMMANDS, "_items", dict(COMMANDS.items()))
    COMMANDS.add("own", Command("own", "a plugin's"))
    COMMANDS.add("other", Command("other", "another's", group="others"))
    assert main(["help"]) == 0
    _, *blocks = capsys.readouterr().out.strip().split("\n\n")
    names = {block.partition(":\n")[0]: re.findall(r"^  (\S+)", block, re.M) for block in blocks}
    assert list(names) == [*GROUPS, "more", "others"] and (names["more"], names["others"]) == (["own"], ["other"])
    assert sorted(name for group in names.values() for name in group) == sorted(COMMANDS)
    with pytest.raises(SystemExit):
        main(["help", "rank"])
    assert capsys.readouterr().out.startswith("usage: paddle-ranker rank --input FILE --model MODEL [options]\n")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"paddle-ranker {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["serve", "--help"], ["predict", "--help"]])
def test_help_whose_reader_leaves_is_no_error(
    words: list[str], unread: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", unread)
    monkeypatch.setattr(sys, "argv", ["paddle-ranker", *words])
    try:
        status: Any = main()
    except SystemExit as ended:
        status = ended.code
    assert status == 0
    unread.flush()  # as Python does at its exit


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("evaluate", "--model MODEL (--test FILE | --qrels FILE)"),
        ("compare", "SYSTEMS ... (--test FILE | --qrels FILE)"),
        ("calibrate", "RANKER (DEV_FILE ... | --remove)"),
    ],
)
def test_help_shows_what_is_required_one_way_or_another(
    command: str, usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = help_of(COMMANDS[command].load().main, capsys)
    assert f" {usage} [options]\n\n" in shown
    required = shown.partition("\nrequired:\n")[2].partition("\noptions:\n")[0]
    assert all(re.search(rf"^  {name}\b", required, re.M) for name in re.findall(r"--\w+", usage))


def test_help_of_all_imports_the_lists_of_commands_alone() -> None:
    code = "import sys; from paddle_ranker.__main__ import main; main(['--help']); print(*sys.modules)"
    said = run_python(code)
    assert "train-ce" in said and "paddle_ranker.commands.command_registry" in said
    assert not [name for name in ("numpy", "paddle", "paddle_ranker.model.config") if f" {name} " in said]


def test_without_paddle_a_command_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("深度学习\n", encoding="utf-8")
    code = (
        "import os, sys; os.dup2(1, 2); sys.modules['paddle'] = None; from paddle_ranker.__main__ import main; main()"
    )
    said = run_python(code, "starter", "--corpus", tmp_path / "texts.txt", "--output", tmp_path / "starter")
    assert "error: needs Paddle: pip install 'paddle-ranker[cpu]'" in said
