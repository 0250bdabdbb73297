"""Exporting by the commands, and folders that are not what they should be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import paddle
import pytest

from cross_encoder import export_model as export_ce
from ernie_matching import export_model
from paddle_ranker.__main__ import main
from paddle_ranker.errors import CheckpointError
from paddle_ranker.export.static_model import StaticModel, write_serving_model
from paddle_ranker.model.exported import open_exported, require_readable
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, identify
from tests.conftest import Call, commands_here, largest_file, run_python
from tests.export_cases import write_case, write_two_classes
from tests.tiny import change_json

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("same_process")]
FORMAT = "pdmodel" if paddle.__version__.startswith("2.") else "json"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported pairwise ranker; the ranker lies beside it in `ranker`."""
    folder = tmp_path_factory.mktemp("exported")
    write_case(folder / "ranker", num_hidden_layers=1)
    with commands_here():
        assert main(["export", "--params_path", str(folder / "ranker"), "--output_path", str(folder / "output")]) == 0
    return folder / "output"


@pytest.fixture
def copy(output: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(output, tmp_path / "output"))


CHECKED_WHEN_READ = ("config.json", "ranker.json", "README.md")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_commands_write_the_contracts_names(output: Path, tmp_path: Path, call: Call) -> None:
    made = {"config.json", "ranker.json", "README.md", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"}
    graph = f"inference.predict.{FORMAT}"
    assert set(contents(output)) == made | {graph, "inference.predict.pdiparams"}
    exported = open_exported(output, RANKER)
    export = exported.info.export
    assert export is not None and export["format"] == FORMAT and export["paddle"] == paddle.__version__
    assert export["files"][graph] == exported.program.stat().st_size
    assert 0 <= export["parity"]["paddle_inference"]["predict"] <= 1e-5
    assert exported.row_encoder().max_seq_length == 32
    assert exported.row_encoder(LoadOptions(max_seq_length=16)).max_seq_length == 16
    places = (output, output.parent / "ranker", tmp_path / "nowhere")
    assert [identify(place).is_exported for place in places] == [True, False, False]

    published = write_two_classes(tmp_path / "published") / "model_state.pdparams"
    target = ["--params_path", published, "--output_path", tmp_path / "ce", "--max_seq_length", 20]
    status, printed, _ = call(export_ce.main, *target)
    assert status == 0 and "parity with the ranker, paddle_inference: largest difference" in printed
    folder = open_exported(tmp_path / "ce", RANKER)
    assert folder.program.name == f"inference.{FORMAT}" and folder.info.kind == "cross_encoder"
    assert folder.row_encoder().max_seq_length == 20

    # Foreign files and what cannot be leave what there is.
    ranker = ["--params_path", output.parent / "ranker", "--output_path"]
    before = contents(output.parent / "ranker")
    for arguments, message in (
        ([*ranker, tmp_path / "ce"], "holds an exported cross_encoder ranker"),
        ([*ranker, output.parent / "ranker"], "holds model_state.pdparams"),
        ([*ranker, output, "--max_seq_length", 9999], "above the 64 positions"),
    ):
        status, _, error = call(export_model.main, *arguments)
        assert status == 1 and message in error
    assert contents(output.parent / "ranker") == before and open_exported(output, RANKER)


def test_a_new_export_takes_the_place_of_the_old_one_but_not_on_a_full_disk(
    copy: Path, output: Path, call: Call
) -> None:
    command = ["--params_path", output.parent / "ranker", "--output_path", copy, "--max_seq_length", 24]
    before = contents(copy)
    with largest_file(5000):  # writing the graph fails part of the way
        status, _, error = call(export_model.main, *command)
    assert status == 1 and "error: " in error and "Traceback" not in error
    assert contents(copy) == before and [path.name for path in copy.parent.iterdir()] == ["output"]
    assert call(export_model.main, *command)[0] == 0
    assert open_exported(copy, RANKER).info.max_seq_length == 24
    assert [path.name for path in copy.parent.iterdir()] == ["output"]


def test_damaged_folders_say_what_is_wrong(copy: Path, output: Path, tmp_path: Path) -> None:
    def refused(folder: Path, message: str, *prefix: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            open_exported(folder, RANKER, *prefix)

    parameters, program = copy / "inference.predict.pdiparams", copy / f"inference.predict.{FORMAT}"
    content = parameters.read_bytes()
    parameters.write_bytes(content[:-10])
    refused(copy, rf"has {len(content) - 10:,} bytes, {len(content):,} were written")
    parameters.write_bytes(content)
    refused(copy, r"no inference.pdiparams.*paddle-ranker export", "inference")
    refused(output.parent / "ranker", r"no static model in it; make it with: paddle-ranker export")
    refused(tmp_path / "nowhere", r"no such folder; make it with")
    program.rename(copy / "away")
    refused(copy, r"no inference.predict.json and no inference.predict.pdmodel")
    (copy / "away").rename(program)
    export = json.loads((copy / "ranker.json").read_text(encoding="utf-8"))["export"]
    assert {*export["descriptions"]} == {path.name for path in copy.iterdir()} - {*export["files"], *CHECKED_WHEN_READ}
    for name in export["descriptions"]:
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content + b"\n")
        refused(copy, f"{name}: is not the file that was exported with the model")
        (copy / name).unlink()
        refused(copy, name)
        (copy / name).write_bytes(content)
    # As many lines of as many bytes: the model's own checks, which are of ids, cannot tell.
    vocabulary = (copy / "vocab.txt").read_bytes()
    (copy / "vocab.txt").write_bytes(b"\n".join(vocabulary.splitlines()[::-1]) + b"\n")
    refused(copy, "vocab.txt: is not the file that was exported with the model")
    (copy / "vocab.txt").write_bytes(vocabulary)
    damages = {"files": {"../x": 1}}, {"descriptions": {"../x": "0"}}, {"descriptions": {"/etc/passwd": "0"}}
    for damaged in (
        *({**export, **damage} for damage in damages),
        {**export, "inputs": ["ids"]},
        {**export, "prefix": 3},
        None,
    ):
        change_json(copy / "ranker.json", export=damaged)
        refused(copy, "damaged" if damaged else "does not say what")


def test_a_graph_with_other_inputs_is_refused(tmp_path: Path) -> None:
    spec = [paddle.static.InputSpec([None, 4], "float32", "x")]
    paddle.jit.save(paddle.nn.Linear(4, 1), str(tmp_path / "other"), input_spec=spec)
    with pytest.raises(CheckpointError, match="takes x, expected input_ids, token_type_ids"):
        StaticModel(tmp_path / f"other.{FORMAT}", tmp_path / "other.pdiparams")


def test_a_graph_of_the_other_stack(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"exported with Paddle 3, and Paddle 2.6.2 cannot read it; export the"):
        require_readable(copy / "inference.predict.json", "2.6.2")
    require_readable(copy / "inference.predict.json", "3.3.1")
    for version in ("2.6.2", "3.3.1"):
        require_readable(copy / "inference.predict.pdmodel", version)
    monkeypatch.setattr(paddle, "__version__", "2.6.2" if FORMAT == "json" else "3.3.1")
    with pytest.raises(CheckpointError, match="paddle-ranker export --model RANKER"):
        write_serving_model(open_exported(copy, RANKER), copy.parent / "alone")


def test_opening_a_folder_and_its_tokenizer_needs_no_paddle(output: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from paddle_ranker.model.exported import open_exported;"
        "from paddle_ranker.model.model_folder import RANKER;"
        "open_exported(Path(sys.argv[1]), RANKER).row_encoder().encode(['a'], ['b']);"
        "print(sorted({'paddle', 'paddlenlp'} & set(sys.modules)))"
    )
    assert run_python(code, output) == "[]\n"
