"""The folders of Paddle Serving: what is in them, that they score as what they were made from, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from cross_encoder import export_to_serving as export_ce
from ernie_matching import export_to_serving
from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.errors import UsageError
from paddle_ranker.export.parity import CHECKS
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.exported import open_exported
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import MODEL, RANKER, load_model
from paddle_ranker.paddle_serving.serving_files import FLOAT32, INT64, SERVING_VARIABLE, Variable, write_configs
from paddle_ranker.scoring.engines.opening import logit_of
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.storage import atomic
from tests.conftest import Call
from tests.engine_calls import logits_of
from tests.export_cases import CALIBRATION, Exports, write_case
from tests.tiny import PAIRS

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("same_process")]
QUERIES, TITLES = [list(column) for column in zip(*PAIRS)]
FORMAT, OTHER = ("pdmodel", "json") if paddle.__version__.startswith("2.") else ("json", "pdmodel")
FILES = {"config.json", "ranker.json", "README.md", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"}
TEXT = """feed_var {
  name: "input_ids"
  alias_name: "ids"
  is_lod_tensor: false
  feed_type: 0
}
fetch_var {
  name: "sigmoid_2.tmp_0"
  alias_name: "predict"
  is_lod_tensor: false
  fetch_type: 1
  shape: 1
}
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, exports: Exports) -> dict[str, Path]:
    """An exported, calibrated ranker of each kind."""
    folder = tmp_path_factory.mktemp("serving")
    other = load_model(write_case(folder / "ranker", kind="cross_encoder", calibration=CALIBRATION), RANKER)
    export_model(other, folder / "cross_encoder")
    return {"pairwise": exports["calibrated"].exported.folder, "cross_encoder": folder / "cross_encoder"}


def paths(folder: Path) -> list[str]:
    return ["--server_path", str(folder / "server"), "--client_path", str(folder / "client")]


def written(folder: Path, feeds: list[Variable], fetches: list[Variable]) -> tuple[str, bytes]:
    """Return the text and the bytes that are written of what a model takes and returns."""
    write_configs(folder, "server", feeds, fetches)
    names = "serving_server_conf.prototxt", "serving_server_conf.stream.prototxt"
    return (folder / names[0]).read_text(encoding="ascii"), (folder / names[1]).read_bytes()


def test_the_text_and_the_bytes_are_of_one_message(tmp_path: Path) -> None:
    feeds, fetches = [Variable("input_ids", "ids", INT64)], [Variable(SERVING_VARIABLE, "predict", FLOAT32, (1,))]
    text, binary = written(tmp_path, feeds, fetches)
    assert text == TEXT
    # By hand: tag 1 << 3 | 2, a length; then in it tags 1, 2 of strings, 3, 4, 5 of numbers.
    feed = b"\x0a\x09input_ids\x12\x03ids\x18\x00\x20\x00"
    fetch = b"\x0a\x0fsigmoid_2.tmp_0\x12\x07predict\x18\x00\x20\x01\x28\x01"
    assert binary == b"\x0a\x14" + feed + b"\x12\x20" + fetch
    text, long = written(tmp_path, [Variable("n" * 300, "a", INT64, (3, 70_000))], [])
    # 316 = 0b10 0111100, and 70,000; each length of a shape has its own tag.
    assert long[:3] == b"\x0a\xbc\x02" and long.endswith(b"\x28\x03\x28\xf0\xa2\x04")
    assert text.endswith("  shape: 3\n  shape: 70000\n}\n")


@pytest.mark.parametrize(("kind", "prefix"), [("pairwise", "inference.predict"), ("cross_encoder", "inference")])
def test_the_commands_write_folders_that_need_nothing_else(
    exported: dict[str, Path], kind: str, prefix: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = {"pairwise": export_to_serving, "cross_encoder": export_ce}[kind]
    monkeypatch.chdir(tmp_path)  # the tutorial's line, as it is typed
    shutil.copytree(exported[kind], "output")
    assert command.main(["--dirname", "output", "--fetch_alias_names", "predict"]) == 0
    said = capsys.readouterr().out
    # Not 0 on every processor: where the same parameters lie in memory can change a product's last bit.
    difference = re.search(r"parity with output: largest difference (\S+) ", said)
    assert difference is not None and float(difference[1]) <= 1e-6 and "there is no" not in said
    server, client = tmp_path / "serving_server", tmp_path / "serving_client"
    conf = {"serving_server_conf.prototxt", "serving_server_conf.stream.prototxt"}
    assert {path.name for path in server.iterdir()} == FILES | conf | {f"{prefix}.{FORMAT}", f"{prefix}.pdiparams"}
    assert {path.name for path in client.iterdir()} == FILES | {name.replace("server", "client", 2) for name in conf}
    for ending in ("", ".stream"):
        pair = [folder / f"serving_{side}_conf{ending}.prototxt"
                for folder, side in ((server, "server"), (client, "client"))]  # fmt: skip
        assert pair[0].read_bytes() == pair[1].read_bytes()

    shutil.rmtree("output")
    reference = Ranker.load(exported[kind]).score(QUERIES, TITLES)
    served = Ranker.load(server)
    np.testing.assert_allclose(served.score(QUERIES, TITLES), reference, atol=1e-6)
    assert served.info.kind == kind and served.info.calibration == CALIBRATION
    alone = open_model(server, RANKER, LoadOptions(threads=1))
    with_logit = open_model(exported[kind], RANKER, LoadOptions(threads=1))
    inputs = alone.row_encoder.encode(QUERIES, TITLES).pad(np.arange(len(PAIRS))).values()
    np.testing.assert_allclose(logits_of(alone.engine, *inputs), logits_of(with_logit.engine, *inputs), atol=1e-4)
    assert open_exported(server, MODEL).outputs == ("predict",)
    info = RankerInfo.read(client)
    assert info and info.export and info.export["aliases"][SERVING_VARIABLE] == "predict"


def test_typed_names_of_files_are_taken(exported: dict[str, Path], tmp_path: Path, call: Call) -> None:
    given = ["--dirname", exported["pairwise"], *paths(tmp_path)]
    prefix = "inference.predict"
    status, printed, _ = call(export_to_serving.main, *given, "--model_filename", f"{prefix}.{FORMAT}")
    assert status == 0 and "there is no" not in printed
    named = ["--model_filename", f"{prefix}.{OTHER}", "--params_filename", f"{prefix}.pdiparams"]
    status, printed, _ = call(main, "export-serving", *given, *named)
    assert status == 0 and f"taking {prefix}.{FORMAT}" in printed
    status, _, errors = call(export_to_serving.main, "--dirname", tmp_path / "server", *paths(tmp_path))
    assert status == 1 and "made for Paddle Serving already" in errors


def test_aliases_are_written(exported: dict[str, Path], tmp_path: Path, call: Call) -> None:
    given = ["--dirname", exported["pairwise"], *paths(tmp_path)]
    for words in (["ids,types"], ["ids", "types"], ["ids, types"]):
        more = ["--feed_alias_names", *words, "--fetch_alias_names", "p"]
        assert call(export_to_serving.main, *given, *more)[0] == 0
        text = (tmp_path / "client/serving_client_conf.prototxt").read_text()
        assert [line.split('"')[1] for line in text.splitlines() if "alias" in line] == ["ids", "types", "p"]


def test_what_is_the_user_s_is_not_overwritten(exported: dict[str, Path], tmp_path: Path, call: Call) -> None:
    given = ["--dirname", exported["pairwise"], *paths(tmp_path)]
    assert call(export_to_serving.main, *given)[0] == 0
    (tmp_path / "server/fluid_time_file").touch()  # of Paddle Serving's launcher
    before = (tmp_path / "server").stat().st_ino
    assert call(export_to_serving.main, *given)[0] == 0 and (tmp_path / "server").stat().st_ino != before
    (tmp_path / "client/notes.txt").touch()
    status, _, errors = call(export_to_serving.main, *given)
    assert status == 1 and "holds notes.txt" in errors


def test_folders_are_whole_or_not_there(exported: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    from paddle_ranker.export.static_model import StaticModel

    given = ["--dirname", str(exported["pairwise"]), *paths(tmp_path)]
    run = StaticModel.run

    def shifted(self: StaticModel, arrays: Any) -> Any:
        found = run(self, arrays)
        return {"predict": found["predict"] + 2e-5} if len(found) == 1 else found

    with monkeypatch.context() as patch:
        patch.setattr(StaticModel, "run", shifted)
        assert export_to_serving.main(given) == 1 and not list(tmp_path.iterdir())
    with monkeypatch.context() as patch:

        def full(path: Path) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(atomic, "sync", full)
        assert export_to_serving.main(given) == 1 and not list(tmp_path.iterdir())


@pytest.mark.thorough(keep=1)
@pytest.mark.parametrize("name", ["calibrated", "blend"])
def test_an_export_names_the_probabilities_of_some_pairs(name: str, tmp_path: Path, exports: Exports) -> None:
    output = exports[name].exported.folder
    assert main(["export-serving", "--dirname", str(output), *paths(tmp_path)]) == 0
    for folder in (output, tmp_path / "server"):
        loaded = open_model(folder, RANKER, LoadOptions(threads=1))
        assert loaded.info.export is not None
        checks = loaded.info.export["checks"]
        assert len(checks) == CHECKS and len({check["probability"] for check in checks}) == CHECKS
        for check in checks:
            ids, types = np.array([check["input_ids"]]), np.array([check["token_type_ids"]])
            logit = logits_of(loaded.engine, ids, types)[0]
            if loaded.info.calibration:
                logit = loaded.info.calibration.apply(logit)
            assert 1 / (1 + np.exp(-logit)) == pytest.approx(check["probability"], abs=1e-5)
    reference, served = (Ranker.load(folder).score(QUERIES, TITLES) for folder in (output, tmp_path / "server"))
    np.testing.assert_allclose(served, reference, atol=1e-6)
    assert len(list((tmp_path / "client").glob("*/vocab.txt"))) == (2 if name == "blend" else 0)  # of its members


@pytest.mark.unit
def test_logits_of_probabilities() -> None:
    probability = np.array([0.5, 0.75, 0.0, 1.0], np.float32)
    half, three, none, all_ = logit_of(probability, None)
    assert half == 0 and three == pytest.approx(np.log(3)) and none == pytest.approx(-87.3, abs=0.1)
    assert all_ == pytest.approx(np.log(2**24), rel=1e-5)
    assert logit_of(probability, CALIBRATION)[1] == pytest.approx((np.log(3) + 0.25) / 0.5)


def test_engines_that_have_no_file_there_say_so(exported: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    assert export_to_serving.main(["--dirname", str(exported["pairwise"]), *paths(tmp_path)]) == 0
    with pytest.raises(Exception, match="--engine inference, or give the folder that it was made from"):
        open_model(tmp_path / "server", RANKER, LoadOptions(engine="onnx"))
    path = tmp_path / "server/ranker.json"
    values = json.loads(path.read_text())
    values["export"]["outputs"] = ["predict", "logit"]  # what the graph has not
    path.write_text(json.dumps(values))
    with pytest.raises(Exception, match="has 1 output, expected predict, logit"):
        open_model(tmp_path / "server", RANKER)


_VENDORS_WRITER = """
import sys, types
import paddle
from paddle.base import core, executor, framework

fluid = types.ModuleType("paddle.fluid")
for module, names in (
    (framework, "Variable Program default_main_program program_guard"),
    (executor, "Executor global_scope"),
):
    for name in names.split():
        setattr(fluid, name, getattr(module, name))
core.CipherUtils = core.CipherFactory = core.Cipher = None  # were of Paddle 2.4
fluid.CPUPlace, fluid.core, fluid.framework, fluid.executor = paddle.CPUPlace, core, framework, executor
fluid.CompiledProgram, fluid.layers = paddle.static.CompiledProgram, None
fluid.unique_name = paddle.utils.unique_name
from paddle.static import io as static_io
from paddle.base import log_helper
io = types.ModuleType("paddle.fluid.io")
io.prepend_feed_ops, io.append_fetch_ops = static_io.prepend_feed_ops, static_io.append_fetch_ops


def load_inference_model(dirname, executor, model_filename, params_filename):
    prefix = f"{dirname}/{model_filename.rpartition('.')[0]}"
    return paddle.static.load_inference_model(prefix, executor)


io.load_inference_model = load_inference_model
compiler = types.ModuleType("paddle.fluid.compiler")
compiler.CompiledProgram = paddle.static.CompiledProgram
fluid.io, fluid.compiler = io, compiler
for name, module in (
    ("", fluid), (".io", io), (".compiler", compiler), (".core", core), (".framework", framework),
    (".executor", executor), (".log_helper", log_helper),
):
    sys.modules["paddle.fluid" + name] = module
paddle.fluid = fluid
from paddle_serving_client.io import inference_model_to_serving

source, server, client, aliases = sys.argv[1:]
inference_model_to_serving(
    source, server, client, "inference.predict.pdmodel", "inference.predict.pdiparams",
    feed_alias_names=aliases, fetch_alias_names="predict",
)
"""


@pytest.mark.server
def test_the_files_are_those_of_paddle_serving_s_own_writer(exported: dict[str, Path], tmp_path: Path) -> None:
    if importlib.util.find_spec("paddle_serving_client") is None:  # importing it takes over signals and logs
        pytest.skip("needs the complete stack (paddle-serving-client)")
    given = ["--dirname", str(exported["pairwise"]), *paths(tmp_path)]
    assert export_to_serving.main([*given, "--feed_alias_names", "input_ids,types", "--fetch_alias_names", "p"]) == 0
    shutil.move(tmp_path / "server", tmp_path / "server_of_ours")
    assert export_to_serving.main([*given, "--feed_alias_names", "input_ids,types"]) == 0
    # What it is given is a model with one output: its own writer knows the variable's name from there.
    done = subprocess.run(
        [sys.executable, "-c", _VENDORS_WRITER, str(tmp_path / "server"), str(tmp_path / "server_of_theirs"),
         str(tmp_path / "client_of_theirs"), "input_ids,types"],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for side in ("server", "client"):
        for ending in ("", ".stream"):
            name = f"serving_{side}_conf{ending}.prototxt"
            assert (tmp_path / f"{side}_of_theirs" / name).read_bytes() == (tmp_path / side / name).read_bytes()
    # Its program has passed through another version's descriptions; its parameters are the same bytes.
    name = "inference.predict.pdiparams"
    assert (tmp_path / "server_of_theirs" / name).read_bytes() == (tmp_path / "server" / name).read_bytes()


def test_an_alias_is_a_plain_name() -> None:
    with pytest.raises(UsageError, match="letters, digits"):
        Variable("input_ids", "a b", INT64)
