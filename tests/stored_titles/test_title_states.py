"""Rankers whose encoder is split: whole scoring, stored titles, their files, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any, Optional, cast

import numpy as np
import paddle
import pytest

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.encoder_loading import unfilled
from paddle_ranker.model.families import config_from
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.model.network import Narrow
from paddle_ranker.model.ranker_folder import Fresh, load_single, save_ranker, start_ranker
from paddle_ranker.model.similarity import SimilarityHead
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.stored_titles.split import lower_digest
from paddle_ranker.stored_titles.stored_ranker import SplitRanker, StoredRanker
from paddle_ranker.stored_titles.title_states import TitleStates, new_states, taken
from tests.export_cases import WRITES_ONNX
from tests.tiny import change_json, write_encoder, write_ranker, write_tower

pytestmark = pytest.mark.unit

QUERIES = ["深度学习", "农业水稻病害"]
TITLES = ["深度学习神经网络", "语言文化", "水稻病害诊断研究", "a b c", "深", "农业经济增长教育法律"]
SHORT, EDGES = "深", ["", "水稻病害" * 20]  # the longest title is cut alone as beside the shortest query


def split_ranker(
    folder: Path, layers: int = 2, similarity: Optional[dict[str, Any]] = None, width: int = 0, **changes: Any
) -> Path:
    """Write a split ranker; with `similarity`, the changes of its tower."""
    write_ranker(folder, num_hidden_layers=3, **changes)
    change_json(folder / "ranker.json", stored_titles=layers)
    if similarity is not None or width:
        tower = None if similarity is None else write_tower(folder.with_name(f"tower of {folder.name}"), **similarity)
        fresh = Fresh(
            "pairwise", changes.get("match", True), similarity=None if tower is None else str(tower), stored_width=width
        )
        model = start_ranker(folder, fresh)
        head, random = model.network.similarity_head, np.random.default_rng(0)
        if head is not None:
            head.weight.set_value(random.normal(size=head.count).astype(np.float32))
        save_ranker(folder, model.network, model.row_encoder, model.info)
    return folder


@pytest.mark.parametrize(
    ("layers", "changes"),
    [
        (1, {}),
        (2, {}),
        (2, {"normalize_before": True}),
        (2, {"match": False}),
        (1, {"type_vocab_size": 1, "model_type": "xlm-roberta"}),
        (2, {"similarity": {}}),
        (1, {"similarity": {"pooling": "first", "query_prompt": ""}}),
        (1, {"width": 9, "similarity": {}}),
    ],
)
def test_stored_titles_score_as_whole_pairs(tmp_path: Path, layers: int, changes: dict[str, Any]) -> None:
    folder = split_ranker(tmp_path / "ranker", layers, **changes)
    ranker, whole = SplitRanker.open(folder), Ranker.load(folder)
    asked, read = [*QUERIES, SHORT], [*TITLES, *EDGES]
    queries, titles = ranker.query_states(asked), ranker.title_states(read)
    of = np.array([0, 0, 1, 1, 0, 1, 2, 2])
    expected = whole.score([asked[number] for number in of], read, logits=True)
    np.testing.assert_allclose(ranker.logits(queries, titles, of), expected, atol=1e-5, rtol=1e-5)
    assert np.ptp(expected) > 0.01
    opened = cast(DygraphEngine, whole.loaded.engine).network  # parts of it, too, leave no dropout on between batches
    assert SplitRanker.of(whole.loaded).title_states(TITLES) and not any(one.training for one in opened.sublayers())
    # the upper layers see both texts, the lower ones do not
    other = ranker.logits(queries, titles, (of + 1) % 3)
    assert np.abs(other - expected).min() > 1e-4


@pytest.mark.parametrize(("similarity", "width"), [(None, 16), ({}, 16), (None, 5)])
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("float16", 2e-2), ("int8", 0.2)])
def test_a_store_gives_the_scores_back(
    tmp_path: Path, dtype: str, error: float, similarity: Optional[dict[str, Any]], width: int
) -> None:
    folder = split_ranker(tmp_path / "ranker", similarity=similarity, width=width % 16)
    ranker, whole = SplitRanker.open(folder), Ranker.load(folder)
    ids = [f"标题 {number}" for number in range(len(TITLES))]
    with new_states(tmp_path / "states", dataclasses.replace(ranker.states_info, dtype=dtype)) as writer:
        writer.append(ranker.title_states(TITLES[:4]), ids[:4])
        writer.append(ranker.title_states(TITLES[4:]), ids[4:])
    stored = StoredRanker.open(folder, tmp_path / "states")
    assert stored.titles.ids == ids
    tokens = stored.titles.info.tokens
    numbers = {"states": width * tokens, **({} if similarity is None else {"matches": 2 * 16 * tokens})}
    for name, count in numbers.items():
        assert (tmp_path / "states" / f"{name}.npy").stat().st_size == 128 + count * np.dtype(dtype).itemsize
    expected = whole.score([QUERIES[0]] * 3, [TITLES[row] for row in (5, 0, 2)], logits=True)
    ranked = stored.rank(QUERIES[0], [ids[row] for row in (5, 0, 2)], logits=True)
    found = [one.logit for one in sorted(ranked, key=lambda one: one.index)]
    np.testing.assert_allclose(np.array(found, np.float64), expected, atol=error, rtol=error)
    assert [one.title for one in ranked] == [ids[(5, 0, 2)[one.index]] for one in ranked]
    assert len(stored.rank(QUERIES[1], top_k=2)) == 2
    # titles are found by their tokens, too
    rows = stored.titles.rows_with(ranker.encoder.encode_titles([TITLES[3], "老年人", TITLES[0]]))
    assert rows.tolist() == [3, -1, 0]
    with pytest.raises(DataError, match="no title 'x'"):
        stored.rank(QUERIES[0], ["x"])


def test_a_store_of_another_ranker_or_with_damage_is_refused(tmp_path: Path) -> None:
    folder = split_ranker(tmp_path / "ranker", similarity={})
    ranker = SplitRanker.open(folder)
    states = tmp_path / "states"
    with new_states(states, ranker.states_info) as writer:
        writer.append(ranker.title_states(TITLES))
    TitleStates.open(states).check()
    shutil.copytree(folder, tmp_path / "words")
    for vocabulary in (tmp_path / "words").rglob("vocab.txt"):
        *lines, one, another = vocabulary.read_text(encoding="utf-8").split()
        vocabulary.write_text("\n".join([*lines, another, one]) + "\n", encoding="utf-8")
    for other in (
        split_ranker(tmp_path / "other", seed=2, similarity={}),
        split_ranker(tmp_path / "lower", 1, similarity={}),
        split_ranker(tmp_path / "tower", similarity={"seed": 2}),
        split_ranker(tmp_path / "prompt", similarity={"text_prompt": "b "}),
        split_ranker(tmp_path / "narrow", similarity={}, width=9),
        tmp_path / "words",
    ):
        with pytest.raises(CheckpointError, match="another ranker made these states"):
            StoredRanker.open(other, states)
    with pytest.raises(CheckpointError, match=r"not split.*--stored_titles 2"):
        StoredRanker.open(write_ranker(tmp_path / "plain"), states)
    whole = (states / "states.npy").read_bytes()
    (states / "states.npy").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"states\.npy: damaged"):
        TitleStates.open(states).check()
    (states / "states.npy").write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"states\.npy: is missing or cut short"):
        TitleStates.open(states)
    (states / "states.npy").write_bytes(whole)
    values = json.loads((states / "states.json").read_text())
    for change, message in (
        ({"files": {**values["files"], "../x": [1, ""]}}, "expected the name of a file"),
        ({"tokens": "many"}, "damaged"),
        ({"format_version": 9}, "update the toolkit"),
    ):
        change_json(states / "states.json", **{**values, **change})
        with pytest.raises(CheckpointError, match=message):
            TitleStates.open(states)


def test_a_setting_with_its_default_changes_no_digest(tmp_path: Path) -> None:
    model = load_single(split_ranker(tmp_path / "ranker"))
    config, before = model.network.config, lower_digest(model.network, model.row_encoder)
    new = dataclasses.make_dataclass("EncoderConfig", [("new", int, 7)], bases=(type(config),), frozen=True)
    for changed, is_same in ((new(**dataclasses.asdict(config)), True), (new(97, new=8), False)):
        model.network.config = changed
        assert (lower_digest(model.network, model.row_encoder) == before) == is_same


def test_a_training_splits_an_encoder_or_refuses(tmp_path: Path) -> None:
    plain = write_encoder(tmp_path / "plain", num_hidden_layers=3)
    model = start_ranker(plain, Fresh("pairwise", stored_titles=2), LoadOptions(max_seq_length=32))
    assert (model.info.stored_titles, model.network.encoder.lower) == (2, 2)
    # a split checkpoint stays split, unless the option names another number
    split = split_ranker(tmp_path / "split", 1)
    assert [start_ranker(split, Fresh("pairwise", stored_titles=k)).network.encoder.lower for k in (0, 2)] == [1, 2]
    with pytest.raises(CheckpointError, match=r"has 3 layers.*choose 1 to 2"):
        start_ranker(plain, Fresh("pairwise", stored_titles=3))
    narrow = split_ranker(tmp_path / "narrow", 1, width=5)
    assert load_single(narrow).info.stored_width == start_ranker(narrow, Fresh("pairwise")).network.states_width == 5
    for source, fresh, message in (
        (plain, Fresh("pairwise", stored_width=5), "give --stored_titles"),
        (plain, Fresh("pairwise", stored_titles=1, stored_width=16), "has 16 numbers"),
        (narrow, Fresh("pairwise", stored_width=6), "has 5 numbers"),
    ):
        with pytest.raises(CheckpointError, match=message):
            start_ranker(source, fresh)
    both = start_ranker(plain, Fresh("pairwise", similarity="start", stored_titles=2))
    head = both.network.similarity_head
    assert isinstance(head, SimilarityHead) and (both.network.encoder.lower, head.tower.encoder.lower) == (2, 0)
    small = {"vocab_size": 97, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    for family in ("mpnet", "deberta-v2", "modernbert"):
        network = unfilled(config_from({**small, "model_type": family}))
        network.split(0)
        with pytest.raises(CheckpointError, match=f"not done for encoders of the family {family}"):
            network.split(1)


def test_a_narrow_state_starts_as_its_principal_components() -> None:
    random = np.random.default_rng(1)
    states = (random.normal(size=(50, 4)) @ random.normal(size=(4, 16)) + random.normal(size=16)).astype(np.float32)
    narrow = Narrow(16, 4)
    narrow.fit(states)
    found = narrow.up(narrow.down(paddle.to_tensor(states))).numpy()
    np.testing.assert_allclose(found, states, atol=1e-4)
    narrow = Narrow(16, 2)
    narrow.fit(states)
    left = states - narrow.up(narrow.down(paddle.to_tensor(states))).numpy()
    lost = np.linalg.svd(states - states.mean(axis=0), compute_uv=False)[2:]
    np.testing.assert_allclose((left**2).sum(), (lost**2).sum(), rtol=1e-3)  # the least that two numbers can lose


def test_the_commands_store_titles_and_rank_by_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranker, states = split_ranker(tmp_path / "ranker"), tmp_path / "states"
    rows = "".join(f"{number}\t{title}\n" for number, title in enumerate(TITLES[:5]))
    (tmp_path / "titles.tsv").write_text(f"id\ttitle\n{rows}", encoding="utf-8")
    (tmp_path / "pairs.tsv").write_text("".join(f"{q}\t{t}\n" for q in QUERIES for t in TITLES), encoding="utf-8")
    asked = ["store", str(ranker), str(tmp_path / "titles.tsv"), "--output", str(states), "--device", "cpu"]
    assert main([*asked, "--dtype", "float32"]) == 0
    info = TitleStates.open(states).info
    assert f"{states}: 5 titles, {info.tokens} tokens, float32, {info.bytes_per_title:,.0f} bytes per title" in (
        capsys.readouterr().out
    )
    assert TitleStates.open(states).ids == ["0", "1", "2", "3", "4"]
    scoring = ["--model", str(ranker), "--input", str(tmp_path / "pairs.tsv"), "--device", "cpu"]
    for command in (["predict", "--format", "json"], ["predict", "--topk", "3"], ["rank", "--format", "jsonl"]):
        printed = {}
        for store in ([], ["--store", str(states)]):
            assert main([*command, *scoring, *store]) == 0
            printed[bool(store)], notes = capsys.readouterr()
        assert "2 of 12 titles are not in" in notes
        numbers = re.compile(r"0\.\d+")
        assert numbers.sub("", printed[True]) == numbers.sub("", printed[False])
        found, expected = (np.array(numbers.findall(printed[kind]), float) for kind in (True, False))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    for more in (["--windows", "max"], ["--cascade", f"{ranker}:2", "--topk", "2"]):
        assert main(["predict", *scoring, "--store", str(states), *more]) == 2
        assert f"leave out {more[0]}" in capsys.readouterr().err
    assert main(asked) != 0 and "is there already" in capsys.readouterr().err
    for text, message in (
        (f"id\ttitle\n{rows}0\ta\n", "'0' occurs twice"),
        ('{"title": "a"}\n{"id": 1, "title": "b"}\n', "no id"),
    ):
        (tmp_path / "titles.tsv").write_text(text, encoding="utf-8")
        assert main([*asked[:4], str(tmp_path / "other"), *asked[5:]]) != 0
        assert message in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.mark.thorough(keep=3)
@pytest.mark.parity
@pytest.mark.parametrize("engine", ["inference", "onnx", "openvino"])
def test_an_export_ranks_stored_titles_in_every_engine(exported: Path, engine: str) -> None:
    if engine != "inference" and not WRITES_ONNX:
        pytest.skip("needs an ONNX file, which the modern stack makes")
    ranker = SplitRanker.open(exported / "ranker")
    other = SplitRanker.open(exported / "exported", LoadOptions(engine=engine))
    assert other.states_info == ranker.states_info
    read = [*TITLES, *EDGES]
    titles, expected_states = other.title_states(read), ranker.title_states(read)
    for name in ("states", "vectors", "matches"):
        np.testing.assert_allclose(getattr(titles, name), getattr(expected_states, name), atol=1e-5, err_msg=name)
    whole = Ranker.load(exported / "exported", engine=engine)
    for query, rows in ((SHORT, range(len(read))), (QUERIES[1] * 3, [4, 4, 1])):  # shorter and longer than the titles
        chosen = taken(titles, np.array(rows))
        expected = whole.score([query] * len(rows), [read[row] for row in rows], logits=True)
        np.testing.assert_allclose(other.logits(other.query_states([query]), chosen), expected, atol=1e-5)


@pytest.fixture(scope="module", params=[{}, {"similarity": {}}, {"width": 5}], ids=["plain", "similarity", "narrow"])
def exported(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    model = load_model(split_ranker(folder / "ranker", **request.param), RANKER)
    export_model(model, folder / "exported", onnx=WRITES_ONNX)
    return folder
