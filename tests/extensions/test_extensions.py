"""Extensions in separate files: the package is not touched, and all lists of names know the extensions."""

from __future__ import annotations

import ast
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker.commands.command_registry import COMMANDS, OF_KIND
from paddle_ranker.data.rows.formats import FORMATS
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.metrics.measures import MEASURES, Scored
from paddle_ranker.model.builtin_kinds import KINDS
from paddle_ranker.model.families import FAMILIES
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.snapshots.vector_search import search_method
from paddle_ranker.retrieval.stored.candidate_indexes import INDEXES, Document, IndexOptions
from paddle_ranker.retrieval.stored.manifest import IndexInfo
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.scoring.engines.engine_registry import ENGINES, exported_engines, is_installed
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.serving.http.endpoints import ENDPOINTS
from paddle_ranker.serving.slots.slot_kinds import SLOTS
from paddle_ranker.training.losses.loss_registry import LOSSES
from tests.checkout import ONCE
from tests.conftest import REPOSITORY
from tests.extensions.own_kind import VECTORS
from tests.started import SECONDS, free_ports, get, held_training, post, started, started_server
from tests.tiny import CONFIG, PAIRS, change_json, draw_words, write_encoder, write_ranker

MODULES = (
    "own_loss", "own_measure", "own_engine", "own_format", "own_index", "own_kind", "own_family", "own_endpoints",
    "own_commands",
)  # fmt: skip
PLUGINS = "own_kind own_endpoints own_commands"
AS_MODULES = ",".join(f"tests.extensions.{name}" for name in PLUGINS.split())
IS_MODERN = sys.version_info >= (3, 10)


@pytest.fixture(scope="module", autouse=True)
def extensions() -> Iterator[None]:
    """Import the extensions, and remove them again for the other tests."""
    import importlib

    for name in MODULES:
        importlib.import_module(f"tests.extensions.{name}")
    yield
    for registry, name in (
        (LOSSES, "squared_hinge"), (MEASURES, "success@1"), (ENGINES, "jit"), (FORMATS, "psv"), (KINDS, "vectors"),
        (FAMILIES, "mean"), (SLOTS, "vectors"), (ENDPOINTS, "vectors"),
        (ENDPOINTS, "nearest"), (COMMANDS, "train-vectors"), (OF_KIND, "evaluate vectors"), (INDEXES, "ngrams"),
    ):  # fmt: skip
        registry.remove(name)
    for name in (*MODULES, "own_training", "own_evaluation"):
        sys.modules.pop(f"tests.extensions.{name}", None)


def run(*arguments: str, plugins: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with plugins, named in the environment as a user would do."""
    environment = {
        **os.environ,
        "PADDLE_RANKER_PLUGINS": ",".join(f"tests.extensions.{name}" for name in plugins.split()),
        "PYTHONPATH": str(REPOSITORY),
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.unit
def test_the_code_of_the_pages_is_that_of_these_files() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.findall(r"^<!-- file: (\S+) -->\n```python\n(.*?)^```$", text, re.M | re.S)
    assert len(shown) > 2
    assert [name for name, code in shown if code != (REPOSITORY / name).read_text(encoding="utf-8")] == []


@pytest.mark.unit
@pytest.mark.parametrize(
    ("loss", "margin", "by_hand"),
    [
        ("squared_hinge", None, np.mean([0.0, (1.0 + 0.5) ** 2, 0.0])),
        ("squared_hinge", 2.0, np.mean([0.0, 2.5**2, 0.0])),
        ("2*squared_hinge", None, 2 * np.mean([0.0, (1.0 + 0.5) ** 2, 0.0])),
    ],
)
def test_a_loss_is_computed_by_its_name_with_its_margin_and_in_sums(
    loss: str, margin: Optional[float], by_hand: float
) -> None:
    import paddle

    from paddle_ranker.training.losses.expression import RankingLoss

    logits = paddle.to_tensor([2.0, 0.5, -3.0])
    found = RankingLoss(loss, margin)(logits, np.array([1, 0, 0]), np.zeros(3, int))
    assert float(found) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.unit
def test_a_measure_has_a_value_an_interval_and_a_test() -> None:
    queries, labels = ["a", "a", "b", "b", "c", "c"], np.array([1, 0, 1, 0, 0, 0])
    scored = Scored(queries, labels, np.array([0.9, 0.1, 0.2, 0.8, 0.5, 0.4]))
    # Found for a, not for b; c has no relevant title.
    assert MEASURES["success@1"].value(scored) == pytest.approx(1 / 3)
    from paddle_ranker.metrics.measures import ranking_intervals

    found = ranking_intervals(queries, labels, scored.scores, measures=["success@1"])
    assert found["success@1"].low <= 1 / 3 <= found["success@1"].high


@pytest.mark.unit
def test_a_format_is_read_written_and_named_in_errors(tmp_path: Path) -> None:
    from paddle_ranker.data.rows.formats import read_lines, write_rows
    from paddle_ranker.data.rows.records import LabeledPair, RecordFile

    write_rows(str(tmp_path / "pairs.psv"), ("query", "title", "label"), [("a", "b", 1), ("c", "d e", 0)], True)
    assert (tmp_path / "pairs.psv").read_text() == "query|title|label\na|b|1\nc|d e|0\n"
    rows = list(RecordFile(str(tmp_path / "pairs.psv"), LabeledPair))
    assert [(row.query, row.title, row.label) for row in rows] == [("a", "b", 1), ("c", "d e", 0)]
    assert [line for _, line in read_lines(str(tmp_path / "pairs.psv"))][1] == "a|b|1"
    (tmp_path / "bad.psv").write_text("query|title|label\na|b\n")
    with pytest.raises(DataError, match=r"bad\.psv, line 2"):
        list(RecordFile(str(tmp_path / "bad.psv"), LabeledPair))


@pytest.mark.unit
def test_an_index_answers_with_cosines_by_id_also_in_an_index_folder(tmp_path: Path) -> None:
    index = INDEXES["ngrams"].build([Document("x", "xyz"), Document("c", "abc")], IndexOptions())
    (found,) = index.search(["ab"], 2)  # of its 3 n-grams all are in abc, which has 6
    assert found.ids == ["c", "x"] and len(index) == 2 and index.document("c").text == "abc"
    np.testing.assert_allclose(found.scores, [3 / np.sqrt(3 * 6), 0])
    with pytest.raises(DataError, match="document c: there are two of this id"):
        INDEXES["ngrams"].build([Document("c", "abc")] * 2, IndexOptions())
    documents = [Document("x", "xyz"), Document("c", "abc", {"n": 1}), Document("d", "abd")]
    with Collection.create(tmp_path / "index", IndexInfo(None, None, None, ("ngrams",))) as collection:
        collection.writer.add(documents)
        collection.writer.remove(["d"])
        assert collection.info.searchers == ("ngrams",) and collection.snapshot().search("ngrams", ["ab"], 2)[
            0
        ].ids == ["c", "x"]
    again = Collection.open(tmp_path / "index")
    assert again.snapshot().search("ngrams", ["xy"], 5, Filter.parse(["n=1"]))[0].ids == ["c"]
    assert "spelling" in search_method(again.info, "ngrams")


@pytest.mark.server
def test_mine_finds_candidates_by_a_plugin_s_index(tmp_path: Path) -> None:
    (tmp_path / "queries.tsv").write_text("colour\tpaint\n")
    (tmp_path / "titles.tsv").write_text("text\nquartz\ncolor\n")
    line = ["-m", "paddle_ranker", "mine", "--queries", "queries.tsv", "--corpus", "titles.tsv", "--output", "out.tsv"]
    choice = ["--sample", "top", "--negatives", "1", "--method", "ngrams"]
    done = run(*line, *choice, plugins="own_index", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.tsv").read_text().splitlines()[-1] == "colour\tpaint\tcolor"


@pytest.mark.parity
def test_a_family_s_network_and_template_are_those_of_training_export_and_commands(tmp_path: Path) -> None:
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.export.static_graph import export_model
    from paddle_ranker.model.ranker_folder import Fresh, save_ranker, start_ranker
    from paddle_ranker.scoring.scorer import Scorer

    encoder = write_encoder(tmp_path / "encoder", model_type="mean")
    started = start_ranker(encoder, Fresh("pairwise"), LoadOptions(max_seq_length=16))
    (tmp_path / "ranker").mkdir()
    save_ranker(tmp_path / "ranker", started.network, started.row_encoder, started.info)
    trained = load_model(tmp_path / "ranker", RANKER)
    export_model(trained, tmp_path / "exported")
    queries, titles = ["深度学习", "a b"], ["水稻病害", "c"]
    reversed_ids = PairEncoder.from_folder(encoder, 16).encode(titles, queries).pad(np.arange(2))["input_ids"]
    import paddle

    def by_hand(query: str, title: str) -> float:
        row = PairEncoder.from_folder(encoder, 16).encode([title], [query]).pad(np.arange(1))
        ids, types = (paddle.to_tensor(row[name]) for name in ("input_ids", "token_type_ids"))
        network = trained.network
        network.eval()
        return float(network.head(network.encoder(ids, types).mean(1)))

    wanted = [by_hand(*pair) for pair in zip(queries, titles)]
    for folder, engine in ((tmp_path / "ranker", "dygraph"), (tmp_path / "exported", "inference")):
        ranker = open_model(folder, RANKER, LoadOptions(engine=engine))
        columns = ranker.row_encoder.encode(queries, titles)
        np.testing.assert_array_equal(columns.pad(np.arange(2))["input_ids"], reversed_ids)
        np.testing.assert_allclose(Scorer(ranker.engine, ranker.row_encoder).logits(columns), wanted, atol=1e-6)
    (tmp_path / "pairs.tsv").write_text("query\ttitle\n" + "".join(f"{q}\t{t}\n" for q, t in zip(queries, titles)))
    found = run(
        "-m", "paddle_ranker", "predict", "exported", "--input", "pairs.tsv", plugins="own_family", cwd=tmp_path
    )
    assert found.returncode == 0, found.stderr
    scored = [ast.literal_eval(line)["pred_prob"] for line in found.stdout.splitlines() if line.startswith("{")]
    np.testing.assert_allclose(scored, 1 / (1 + np.exp(-np.array(wanted))), atol=1e-4)


@pytest.mark.parity
def test_an_engine_scores_as_the_others_do(tmp_path: Path) -> None:
    import paddle_ranker
    from paddle_ranker.export.static_graph import export_model

    export_model(load_model(write_ranker(tmp_path / "ranker"), RANKER), tmp_path / "output")
    queries, titles = [list(column) for column in zip(*PAIRS)]
    ours = paddle_ranker.Ranker.load(tmp_path / "output", engine="jit")
    wanted = paddle_ranker.Ranker.load(tmp_path / "ranker").score(queries, titles)
    np.testing.assert_allclose(ours.score(queries, titles), wanted, atol=1e-5)
    assert ours.scorer.engine.name == "jit" and "jit" in exported_engines()
    for precision in ("bf16", "fp16", "int8"):
        with pytest.raises(UsageError, match=f"--precision {precision}: the engine jit does not compute in it on cpu"):
            paddle_ranker.Ranker.load(tmp_path / "output", engine="jit", precision=precision)
    with pytest.raises(UsageError, match="--device gpu: the engine jit runs on cpu"):
        paddle_ranker.Ranker.load(tmp_path / "output", engine="jit", device="gpu")


@pytest.mark.server
def test_commands_take_what_plugins_add(tmp_path: Path) -> None:
    random, words = draw_words()
    rows = [("".join(random.choice(words, 2)), "".join(random.choice(words, 4)), row % 2) for row in range(24)]
    lines = "".join(f"{query}|{title}|{label}\n" for query, title, label in rows)
    (tmp_path / "pairs.psv").write_text(f"query|title|label\n{lines}", encoding="utf-8")
    write_encoder(tmp_path / "encoder")
    train = str(REPOSITORY / "cross_encoder" / "train_ce.py")
    told = run(train, "--help", plugins="own_loss", cwd=tmp_path)
    assert "squared_hinge (pairs with noisy labels)" in " ".join(told.stdout.split()), told.stderr
    done = run(
        train, "--train_set", "pairs.psv", "--test_file", "pairs.psv", "--model_name_or_path", "encoder",
        "--save_dir", "run", "--loss", "squared_hinge+0.5*bce", "--max_steps", "2", "--batch_size", "4",
        "--max_seq_length", "16", "--device", "cpu", plugins="own_loss own_format", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0 and "trained 2 steps" in done.stdout, done.stderr
    without = run(train, "--train_set", "a", "--test_file", "b", "--loss", "squared_hinge", plugins="", cwd=tmp_path)
    assert without.returncode == 2 and "'squared_hinge' is no loss" in without.stderr


@pytest.mark.server
def test_a_ranker_of_a_plugin_s_loss_is_evaluated_with_and_without_the_plugin(tmp_path: Path) -> None:
    change_json(write_ranker(tmp_path / "ranker") / "ranker.json", training={"loss": "squared_hinge", "margin": 0.5})
    (tmp_path / "dev.tsv").write_text("水稻\t水稻病害\t1\n水稻\t老年人\t0\n", encoding="utf-8")
    line = ("-m", "paddle_ranker", "evaluate", "--model", "ranker", "--test", "dev.tsv", "--device", "cpu")
    done, alike = (run(*line, plugins=plugins, cwd=tmp_path) for plugins in ("own_loss", ""))
    assert done.returncode == alike.returncode == 0, alike.stderr
    assert "margin_loss: " in done.stdout and "margin_loss" not in done.stderr
    assert [line for line in done.stdout.splitlines() if "margin_loss" not in line] == alike.stdout.splitlines()
    assert "ranker was trained with 'squared_hinge', whose margin is not known here" in alike.stderr
    assert "PADDLE_RANKER_PLUGINS" in alike.stderr


TRAINED = ("--batch_size", "8", "--learning_rate", "1e-3", "--device", "cpu", "--eval_step", "50", "--save_step", "20")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make texts with the same meaning (words in another order), and an encoder to start from; return the folder."""
    folder = tmp_path_factory.mktemp("data")
    random, words = draw_words()
    rows = [list(random.choice(words, 3)) for _ in range(16)]
    lines = [f"{' '.join(known)}\t{' '.join(known[::-1])}" for known in rows]
    (folder / "pairs.tsv").write_text("query\ttitle\n" + "\n".join(lines) + "\n", encoding="utf-8")
    (folder / "texts.tsv").write_text("text\n" + "\n".join(" ".join(known) for known in rows) + "\n", encoding="utf-8")
    write_encoder(folder / "encoder", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return folder


def train_line(data: Path, output: Path, *more: str) -> list[str]:
    # The launcher has options that begin with --train.
    files = ("--train_file", data / "pairs.tsv", "--model", data / "encoder", "--output", output)
    return ["train-vectors", *map(str, files), *TRAINED, *more]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train by the plugin's command, 200 steps, in a process that knows it from its environment; return the folder."""
    folder = tmp_path_factory.mktemp("vectors") / "run"
    done = run("-m", "paddle_ranker", *train_line(data, folder, "--epochs", "100"), plugins=PLUGINS, cwd=data)
    assert done.returncode == 0, done.stderr
    assert "trained 200 steps" in done.stdout
    return folder


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    from paddle_ranker.model.parameters import load_arrays

    return load_arrays(folder / "model_state.pdparams")


def vectors_of(model: Any, texts: list[str]) -> np.ndarray:
    from paddle_ranker.scoring.scorer import BatchRunner

    runner = BatchRunner(model.engine, model.info.max_seq_length, 4)
    return runner.run(model.row_encoder.encode_single(texts))["vector"]


def texts_in(data: Path) -> list[str]:
    return (data / "texts.tsv").read_text(encoding="utf-8").splitlines()[1:]


@pytest.mark.server
def test_commands_of_a_plugin_are_found_where_the_environment_names_it(tmp_path: Path) -> None:
    shown = run("-m", "paddle_ranker", "--help", plugins="own_commands", cwd=tmp_path)
    assert "train-vectors" in shown.stdout and "evaluate" in shown.stdout, shown.stderr
    own = run("-m", "paddle_ranker", "train-vectors", "--help", plugins="own_commands", cwd=tmp_path)
    assert own.returncode == 0 and "--max_seq_length" in own.stdout, own.stderr
    unknown = run("-m", "paddle_ranker", "train-vectors", plugins="", cwd=tmp_path)
    assert unknown.returncode == 2 and "unknown command 'train-vectors'" in unknown.stderr


@pytest.mark.server
def test_a_training_that_was_killed_goes_on_to_the_same_end(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = train_line(data, tmp_path / "run", "--epochs", "100")
    held = held_training("paddle_ranker.__main__", 50, tmp_path / "never")
    with started(
        [*held, *line], tmp_path / "killed", PADDLE_RANKER_PLUGINS=AS_MODULES, PYTHONPATH=str(REPOSITORY)
    ) as killed:
        killed.until(lambda: "global step 50," in killed.output)
    assert list((tmp_path / "run").glob("state_*"))
    assert "trained" not in killed.output
    from paddle_ranker.__main__ import main

    assert main([*line, "--resume"]) == 0
    assert "resume" in capsys.readouterr().out
    for name, array in arrays_of(trained / "last").items():
        np.testing.assert_array_equal(array, arrays_of(tmp_path / "run" / "last")[name], err_msg=name)


@pytest.mark.thorough
@ONCE
@pytest.mark.server
def test_two_processes_train_as_one_that_adds_up_two_batches(data: Path, tmp_path: Path) -> None:
    line = train_line(data, tmp_path / "two", "--epochs", "4")
    script = str(REPOSITORY / "tests" / "extensions" / "own_training.py")
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "log"), script]
    done = run(*launch, *line[1:], plugins=PLUGINS, cwd=data)
    assert done.returncode == 0, done.stdout + done.stderr
    alone = train_line(data, tmp_path / "one", "--epochs", "4", "--gradient_accumulation_steps", "2")
    from paddle_ranker.__main__ import main

    assert main(alone) == 0
    for name, array in arrays_of(tmp_path / "one" / "last").items():
        np.testing.assert_allclose(arrays_of(tmp_path / "two" / "last")[name], array, atol=2e-5, err_msg=name)


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from paddle_ranker.__main__ import main

    output = tmp_path_factory.mktemp("exported") / "output"
    more = ["--onnx"] if IS_MODERN else []
    assert main(["export", str(trained / "best"), "--output", str(output), *more]) == 0
    return output


@pytest.mark.parity
def test_the_commands_take_a_plugin_s_kind(
    data: Path, trained: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from paddle_ranker.__main__ import main

    def printed(*arguments: str) -> str:
        assert main(list(arguments)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    test = ("--test", str(data / "pairs.tsv"))
    found = printed("evaluate", str(trained / "best"), *test)
    assert found == printed("evaluate", "--model", str(exported), *test)
    assert float(found.split()[1]) > 0.9  # by chance it would be 0.06
    told = printed("info", str(trained / "best"))
    assert "a model of vectors; evaluate, export and serve take it" in told
    assert "kind: vectors" in told and "takes: input_ids int64 [any, any]" in told and "[any, 16]" in told
    assert "exported with Paddle" in printed("info", str(exported))
    told = printed("doctor", "--model", str(trained / "best"))
    assert "a model of vectors" in told and "\n  serve --vector_model   a " in told and told.endswith("\nopens\n")
    assert re.search(r"\n  score and measure +evaluate\n", told) and re.search(r"\n  export and serve +export\n", told)
    if not (IS_MODERN and is_installed("onnx")):
        return
    calibrate = ("--calibration_file", str(data / "texts.tsv"), "--test", str(data / "texts.tsv"))
    quantized = printed("quantize", str(exported), *calibrate, "--max_loss", "0.01", "--seconds", "0.1")
    assert "cosine   1.0000 in fp32" in quantized and "over texts" in quantized
    assert "int8, onnx: cosine 1.0000 before" in printed("info", str(exported))
    assert main(["quantize", str(exported), *calibrate, "--max_loss", "0", "--seconds", "0.1"]) == 1
    assert "cosine falls from 1.0000" in capsys.readouterr().err


@pytest.mark.parity
@pytest.mark.parametrize("engine", ["dygraph", "inference", "onnx", "openvino", "jit"])
def test_a_kind_of_model_gives_its_vectors_in_every_engine(
    data: Path, trained: Path, exported: Path, engine: str
) -> None:
    import paddle

    from paddle_ranker.scoring.loading import open_model

    if engine in ("onnx", "openvino") and not (IS_MODERN and is_installed(engine)):
        pytest.skip(f"needs the modern stack with {engine}")
    texts = texts_in(data)
    opened = open_model(
        trained / "best" if engine == "dygraph" else exported, VECTORS, LoadOptions(engine=engine, threads=1)
    )
    found = vectors_of(opened, texts)
    model: Any = KINDS["vectors"].load(trained / "best", LoadOptions())
    model.network.eval()
    batch = model.row_encoder.encode_single(texts).pad(range(len(texts)))
    wanted = model.network(paddle.to_tensor(batch["input_ids"])).numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    assert opened.info.kind == "vectors"
    assert vectors_of(opened, []).shape == (0, CONFIG.hidden_size)


@pytest.mark.parity
def test_single_texts_are_cut_padded_and_joined(trained: Path) -> None:
    encoder: Any = KINDS["vectors"].load(trained / "best", LoadOptions()).row_encoder
    before = encoder.truncated
    columns = encoder.encode_single(["a", "b " * 40, ""])
    assert columns.lengths.tolist() == [3, 24, 2] and encoder.truncated == before + 1
    assert [columns[0][0], columns[0][-1], columns[2].tolist()] == [encoder.cls_id, encoder.sep_id, [1, 2]]
    padded = columns.pad([0, 2])["input_ids"]
    assert padded.shape == (2, 3) and padded[1, 2] == encoder.pad_id
    again = type(columns).concat([columns.take([0]), columns.take([1, 2])])
    np.testing.assert_array_equal(again.ids, columns.ids)
    encoder.truncated = before


def ask_line(port: int, line: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(line.encode())
        return connection.makefile().readline()


@pytest.mark.server
def test_a_kind_of_model_and_a_protocol_are_asked_on_the_server_s_port(exported: Path, tmp_path: Path) -> None:
    from paddle_ranker import Ranker
    from paddle_ranker.scoring.loading import open_model

    ranker, (port,) = write_ranker(tmp_path / "ranker"), free_ports(1)
    command = [
        sys.executable, "-m", "paddle_ranker", "serve", str(exported), "--model", str(ranker), "--port", str(port),
        "--cpu_threads", "1",
    ]  # fmt: skip
    plugins = f"{AS_MODULES},tests.extensions.own_protocol"
    with started(command, tmp_path / "server", PADDLE_RANKER_PLUGINS=plugins, PYTHONPATH=str(REPOSITORY)) as server:
        server.until(lambda: get(port, "/ready")[0] == 200)
        assert "(baidu_std, gRPC, HTTP, lines)" in server.output
        texts = ["深度学习", "a b c", "深度"]
        status, answer = post(port, "/v1/vectors", {"input": texts})
        assert (status, answer["model"]) == (200, "output")
        found = np.array([row["embedding"] for row in answer["data"]])
        wanted = vectors_of(open_model(exported, VECTORS), texts)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        damaged: list[Any] = [{"texts": texts}, {"input": 5}, {"input": "abc"}, {"input": [1]}, [], 7]
        for malformed in damaged:
            assert post(port, "/v1/vectors", malformed)[0] == 400
        assert post(port, "/v1/nearest", {"query": 5, "documents": texts})[0] == 400
        assert get(port, "/info")[1]["vectors"] == {"name": "output"}
        assert "vectors_batch_pairs" in get(port, "/metrics")[1]
        score = Ranker.load(ranker).score
        assert float(ask_line(port, "RANK 深度\t深度学习\n")) == pytest.approx(
            score(["深度"], ["深度学习"])[0], abs=2e-6
        )
        assert ask_line(port, "RANK one text\n").startswith("error: ")
        # One request asks both models: the two texts nearest by vectors, ranked.
        documents = [texts[0], texts[1], "老年人护理", "经济增长"]
        status, answer = post(port, "/v1/nearest", {"query": texts[2], "documents": documents})
        vectors = vectors_of(open_model(exported, VECTORS), [texts[2], *documents])
        near = [documents[place] for place in np.argsort(-(vectors[1:] @ vectors[0]), kind="stable")[:2]]
        scores = dict(zip(near, score([texts[2]] * 2, near).tolist()))
        assert (status, answer["models"]) == (200, ["output", "ranker"])
        assert [row["document"] for row in answer["results"]] == sorted(near, key=lambda text: -scores[text])
        for row in answer["results"]:
            assert row["score"] == pytest.approx(scores[row["document"]], abs=2e-6)
        # The caller's time runs while the body is on its way.
        body = json.dumps({"query": texts[2], "documents": documents, "input": documents}).encode()
        for path in ("/v1/vectors", "/v1/nearest"):
            fields = f"Host: a\r\nX-Request-Timeout-Ms: 200\r\nContent-Length: {len(body)}\r\n"
            with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
                connection.sendall(f"POST {path} HTTP/1.1\r\n{fields}Expect: 100-continue\r\n\r\n".encode())
                assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"  # the head was read
                time.sleep(0.3)
                connection.sendall(body)
                assert connection.makefile().readline().split()[1] == "504", path
        assert get(port, "/ready")[0] == 200


@pytest.mark.server
def test_a_protocol_asks_for_the_key_is_counted_and_answers_before_the_server_stops(tmp_path: Path) -> None:
    from paddle_ranker import Ranker

    ranker = write_ranker(tmp_path / "ranker")
    held = tmp_path / "held"  # while this file exists, nothing is computed
    plugins = "tests.extensions.own_protocol,tests.held_engine"
    environment = {"PADDLE_RANKER_PLUGINS": plugins, "PADDLE_RANKER_API_KEY": "a-key", "HELD": str(held)}
    with started_server(ranker, tmp_path / "server", "--cpu_threads", "1", **environment) as (server, [port]):
        server.until(lambda: get(port, "/ready")[0] == 200)
        probability = f"{Ranker.load(ranker).score(['深度'], ['深度学习'])[0]:.6f}"[:6]
        for cells, wanted in (
            ("深度\t深度学习\ta-key", probability),
            ("深度\t深度学习", "error: the API key is missing"),
            ("深度\t深度学习\tanother", "error: the API key is wrong"),
            ("one text", "error: expected query<TAB>title"),
        ):
            assert ask_line(port, f"RANK {cells}\n").startswith(wanted), cells
        figures = get(port, "/metrics")[1]
        for outcome, count in (("ok", 1), ("unauthorized", 2), ("invalid_request", 1)):
            assert f'ranker_requests_total{{outcome="{outcome}",protocol="line"}} {count}.0' in figures
        server.until(lambda: len(re.findall(r'"protocol": ?"line"', server.output)) == 4)
        asked = "RANK 深度\t深度学习\ta-key\n".encode()
        held.touch()
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
            connection.sendall(2 * asked)
            server.until((tmp_path / "begun").exists)
            server.process.terminate()
            server.until(lambda: '"event": "stop"' in server.output)
            held.unlink()
            answers = connection.makefile().readlines()
        assert len(answers) == 1 and answers[0].startswith(probability)  # the second request was not begun
        assert server.process.wait(SECONDS) == 0
