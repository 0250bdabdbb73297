"""The package extends from files of one's own: nothing in it is touched, and what names things knows them."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.data.formats import FORMATS
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.measures import MEASURES, Scored
from paddle_ranker.model.kinds import KINDS
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.scoring.engines.registry import ENGINES, exported_engines, is_installed
from paddle_ranker.serving.http.endpoints import ENDPOINTS
from paddle_ranker.training.losses.registry import LOSSES
from tests.conftest import REPOSITORY
from tests.started import free_ports, get, post, started
from tests.tiny import CONFIG, PAIRS, draw_words, write_encoder, write_ranker, write_tokenizer

MODULES = ("own_loss", "own_measure", "own_engine", "own_format", "own_kind")
IS_MODERN = sys.version_info >= (3, 10)


@pytest.fixture(scope="module", autouse=True)
def extensions() -> Iterator[None]:
    """Import the extensions, and take them out again for the other tests."""
    import importlib

    for name in MODULES:
        importlib.import_module(f"tests.extensions.{name}")
    yield
    for registry, name in (
        (LOSSES, "squared_hinge"), (MEASURES, "success@1"), (ENGINES, "jit"), (FORMATS, "psv"), (KINDS, "vectors"),
        (ENDPOINTS, "vectors"),
    ):  # fmt: skip
        registry.remove(name)
    for name in (*MODULES, "own_training"):
        sys.modules.pop(f"tests.extensions.{name}", None)


def run(*arguments: str, plugins: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with plugins, as a user does who names them in the environment."""
    environment = {
        **os.environ,
        "PADDLE_RANKER_PLUGINS": ",".join(f"tests.extensions.{name}" for name in plugins.split()),
        "PYTHONPATH": str(REPOSITORY),
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.unit
def test_a_loss_is_computed_by_its_name_with_its_margin_and_in_sums() -> None:
    from paddle_ranker.training.losses.expression import RankingLoss

    logits, labels = np.array([2.0, 0.5, -3.0]), np.array([1, 0, 0])
    by_hand = np.mean([0.0, (1.0 + 0.5) ** 2, 0.0])
    import paddle

    found = RankingLoss("squared_hinge")(paddle.to_tensor(logits, "float32"), labels, np.zeros(3, int))
    assert float(found) == pytest.approx(by_hand, rel=1e-6)
    wider = RankingLoss("squared_hinge", 2.0)(paddle.to_tensor(logits, "float32"), labels, np.zeros(3, int))
    assert float(wider) == pytest.approx(np.mean([0.0, 2.5**2, 0.0]), rel=1e-6)
    doubled = RankingLoss("2*squared_hinge")(paddle.to_tensor(logits, "float32"), labels, np.zeros(3, int))
    assert float(doubled) == pytest.approx(2 * by_hand, rel=1e-6)


@pytest.mark.unit
def test_a_measure_has_a_value_an_interval_and_a_test() -> None:
    queries, labels = ["a", "a", "b", "b", "c", "c"], np.array([1, 0, 1, 0, 0, 0])
    scored = Scored(queries, labels, np.array([0.9, 0.1, 0.2, 0.8, 0.5, 0.4]))
    assert MEASURES["success@1"].value(scored) == pytest.approx(1 / 3)  # a; not b; c has none
    from paddle_ranker.metrics.measures import ranking_intervals

    found = ranking_intervals(queries, labels, scored.scores, measures=["success@1"])
    assert found["success@1"].low <= 1 / 3 <= found["success@1"].high


@pytest.mark.unit
def test_a_format_is_read_written_and_named_in_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from paddle_ranker.data.formats import FORMATS, read_lines, write_rows
    from paddle_ranker.data.records import LabeledPair, RecordFile

    write_rows(str(tmp_path / "pairs.psv"), ("query", "title", "label"), [("a", "b", 1), ("c", "d e", 0)], True)
    assert (tmp_path / "pairs.psv").read_text() == "query|title|label\na|b|1\nc|d e|0\n"
    rows = list(RecordFile(str(tmp_path / "pairs.psv"), LabeledPair))
    assert [(row.query, row.title, row.label) for row in rows] == [("a", "b", 1), ("c", "d e", 0)]
    assert [line for _, line in read_lines(str(tmp_path / "pairs.psv"))][1] == "a|b|1"
    (tmp_path / "bad.psv").write_text("query|title|label\na|b\n")
    with pytest.raises(DataError, match=r"bad\.psv, line 2"):
        list(RecordFile(str(tmp_path / "bad.psv"), LabeledPair))
    monkeypatch.setitem(FORMATS._items, "psv", dataclasses.replace(FORMATS["psv"], is_text=False))
    with pytest.raises(DataError, match=r"bad\.psv: Psv data, expected text; name the file \.psv"):
        list(read_lines(str(tmp_path / "bad.psv")))


@pytest.mark.parity
def test_an_engine_scores_as_the_others_do(tmp_path: Path) -> None:
    import paddle_ranker
    from paddle_ranker.export.static_graph import export_model
    from paddle_ranker.model.kinds import load_ranker

    export_model(load_ranker(write_ranker(tmp_path / "ranker")), tmp_path / "output")
    queries, titles = [list(column) for column in zip(*PAIRS)]
    ours = paddle_ranker.Ranker.load(tmp_path / "output", engine="jit")
    wanted = paddle_ranker.Ranker.load(tmp_path / "ranker").score(queries, titles)
    np.testing.assert_allclose(ours.score(queries, titles), wanted, atol=1e-5)
    assert ours.scorer.engine.name == "jit" and "jit" in exported_engines()


@pytest.mark.server
def test_commands_take_what_plugins_add(tmp_path: Path) -> None:
    random, words = draw_words()

    def text(count: int) -> str:
        return "".join(random.choice(words, count))

    lines = [f"{text(2)}|{text(4)}|{row % 2}" for row in range(24)]
    (tmp_path / "pairs.psv").write_text("query|title|label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    write_encoder(tmp_path / "encoder")
    train = str(REPOSITORY / "cross_encoder" / "train_ce.py")
    told = run(train, "--help", plugins="own_loss", cwd=tmp_path)
    assert "squared_hinge" in told.stdout, told.stderr
    done = run(
        train, "--train_set", "pairs.psv", "--test_file", "pairs.psv", "--model_name_or_path", "encoder",
        "--save_dir", "run", "--loss", "squared_hinge+0.5*bce", "--max_steps", "2", "--batch_size", "4",
        "--max_seq_length", "16", "--device", "cpu", plugins="own_loss own_format", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "trained 2 steps" in done.stdout
    without = run(train, "--train_set", "a", "--test_file", "b", "--loss", "squared_hinge", plugins="", cwd=tmp_path)
    assert without.returncode == 2 and "'squared_hinge' is no loss" in without.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[str]]:
    """A model of vectors after a few steps: its folder, its parts, and what it was trained on."""
    import paddle

    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.training.options import TrainingOptions
    from tests.extensions.own_kind import VectorInfo
    from tests.extensions.own_training import TextPairs, VectorNetwork, VectorParts, train_vectors

    folder = tmp_path_factory.mktemp("vectors")
    write_tokenizer(folder / "tokenizer")
    random, words = draw_words()
    texts = []
    for _ in range(16):
        known = list(random.choice(words, 3))
        texts += [" ".join(known), " ".join(known[::-1])]
    paddle.seed(1)
    config = dataclasses.replace(CONFIG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    parts = VectorParts(
        VectorNetwork(config),
        PairEncoder.from_folder(folder / "tokenizer", 24),
        VectorInfo(max_seq_length=24, size=config.hidden_size),
    )
    options = TrainingOptions(
        save_dir=str(folder / "run"), batch_size=8, epochs=6, learning_rate=1e-3, device="cpu", eval_step=6
    )
    before = float(TextPairs(parts.pair_encoder.encode_single(texts)).loss(parts.network, np.arange(16))[0])
    result = train_vectors(parts, texts, options)
    assert result.steps == 12 and result.best_checkpoint is not None
    assert result.last["loss"] < 0.8 * before  # it learns
    return result.last_checkpoint, parts, texts


def vectors_of(loaded: Any, texts: list[str]) -> np.ndarray:
    from paddle_ranker.scoring.scorer import BatchRunner

    runner = BatchRunner(loaded.engine, "vector", loaded.info.max_seq_length, 4)
    return runner.run(loaded.pair_encoder.encode_single(texts))


@pytest.fixture(scope="module")
def exported(trained: tuple[Path, Any, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from paddle_ranker.export.static_graph import export_model
    from paddle_ranker.model.kinds import kind_of

    folder, _, _ = trained
    parts = kind_of(folder).load(folder, LoadOptions())
    output = tmp_path_factory.mktemp("exported") / "output"
    _, parities = export_model(parts, output, onnx=IS_MODERN)
    assert all(parity.differences["vector"] <= 4e-5 for parity in parities.values())
    return output


@pytest.mark.parity
@pytest.mark.parametrize("engine", ["dygraph", "inference", "onnx", "openvino", "jit"])
def test_a_kind_of_model_gives_its_vectors_in_every_engine(
    trained: tuple[Path, Any, list[str]], exported: Path, engine: str
) -> None:
    import paddle

    from paddle_ranker.scoring.loading import load_model

    if engine in ("onnx", "openvino") and not (IS_MODERN and is_installed(engine)):
        pytest.skip(f"needs the modern stack with {engine}")
    folder, parts, texts = trained
    loaded = load_model(folder if engine == "dygraph" else exported, LoadOptions(engine=engine, threads=1))
    found = vectors_of(loaded, texts)
    parts.network.eval()
    batch = parts.pair_encoder.encode_single(texts).pad(range(len(texts)))
    wanted = parts.network(paddle.to_tensor(batch["input_ids"])).numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    assert loaded.kind.name == "vectors"
    assert vectors_of(loaded, []).shape == (0, loaded.info.size)


@pytest.mark.parity
def test_single_texts_are_cut_padded_and_joined(trained: tuple[Path, Any, list[str]]) -> None:
    _, parts, _ = trained
    encoder = parts.pair_encoder
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
    from paddle_ranker.scoring.loading import load_model

    ranker, (port,) = write_ranker(tmp_path / "ranker"), free_ports(1)
    command = [
        sys.executable, "-m", "paddle_ranker", "serve", "--model", str(ranker), "--vector_model", str(exported),
        "--port", str(port), "--cpu_threads", "1",
    ]  # fmt: skip
    plugins = "tests.extensions.own_kind,tests.extensions.own_protocol"
    with started(command, tmp_path / "server", PADDLE_RANKER_PLUGINS=plugins, PYTHONPATH=str(REPOSITORY)) as server:
        server.until(lambda: get(port, "/ready")[0] == 200)
        assert "(baidu_std, HTTP, gRPC, lines)" in server.output
        texts = ["深度学习", "a b c", "深度"]
        status, answer = post(port, "/v1/embeddings", {"input": texts})
        assert (status, answer["model"]) == (200, "output")
        found = np.array([row["embedding"] for row in answer["data"]])
        np.testing.assert_allclose(found, vectors_of(load_model(exported), texts), atol=1e-5)
        assert post(port, "/v1/embeddings", {"texts": texts})[0] == 400
        assert get(port, "/info")[1]["vectors"] == {"name": "output"}
        assert "vectors_batch_pairs" in get(port, "/metrics")[1]
        wanted = Ranker.load(ranker).score(["深度"], ["深度学习"])[0]
        assert float(ask_line(port, "RANK 深度\t深度学习\n")) == pytest.approx(wanted, abs=2e-6)
        assert ask_line(port, "RANK one text\n").startswith("error: ")
        assert get(port, "/ready")[0] == 200
