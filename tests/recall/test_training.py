"""The trainings of towers as users type them: options, files and output, resumed, and in two processes."""

from __future__ import annotations

import json
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paddle import nn

from paddle_ranker.commands import convert
from paddle_ranker.errors import CheckpointError, RankerError, UsageError
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, save_arrays
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.training.state import APART_FILE
from recall import train_batch_neg, train_simcse
from recall.model import InBatchExamples
from recall.options import TowerTrainingOptions
from recall.train_batch_neg import TrainBatchNegOptions
from recall.train_simcse import TrainSimcseOptions
from recall.training import start_tower_training
from tests.checkout import ONCE
from tests.conftest import REPOSITORY, commands_here
from tests.fake_teacher import Server, tei
from tests.tiny import CONFIG, HAN, write_encoder, write_ranker
from tests.training.test_distributed import Launched

unit, server = pytest.mark.unit, pytest.mark.server
SCRIPT = REPOSITORY / "recall" / "train_batch_neg.py"


class Killed(Exception):
    """Stands for a kill: the process stops at any point."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny encoder with a trained pooler, pairs, triples, texts and a test file; return the folder."""
    folder = tmp_path_factory.mktemp("data")
    file = write_encoder(folder / "encoder") / PARAMETERS_FILE
    save_arrays({**load_arrays(file), "pooler.dense.bias": np.full(CONFIG.hidden_size, 0.01, "float32")}, file)
    random = np.random.RandomState(0)
    words = ["".join(random.choice(HAN, random.randint(2, 6))) for _ in range(30)]
    pairs = [f"{word}\t{word}的研究{'论' * (i % 5)}" for i, word in enumerate(words)]
    triples = [f"{pair}\t{other}的研究" for i, pair in enumerate(pairs) for other in words[i + 1 : i + 2 + i % 3]]
    for name, lines in {"train": pairs, "triples": triples, "dev": pairs[:9], "texts": words}.items():
        (folder / f"{name}.csv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def run(data: Path, command: Any, *arguments: object) -> int:
    with commands_here(data):
        return int(command.main([*map(str, arguments), "--device", "cpu"]))


@unit
def test_the_published_line_trains_and_evaluates(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"""--save_dir {tmp_path}/checkpoint --batch_size 10 --learning_rate 5E-5 --epochs 2 --output_emb_size 8
        --model_name_or_path encoder --save_steps 10 --max_seq_length 16 --margin 0.2 --train_set_file train.csv
        --recall_result_dir {tmp_path}/results --recall_result_file result.txt --hnsw_m 100 --hnsw_ef 100
        --hnsw_max_elements 1000 --recall_num 50 --similar_text_pair_file dev.csv --corpus_file texts.csv --evaluate
        --use_gradient_cache --chunk_numbers 5 --log_steps 2 --scale 30 --weight_decay 0.0 --warmup_proportion 0.0
        --seed 1000 --amp_loss_scale 32768 --max_grad_norm 5.0"""
    assert run(data, train_batch_neg, *line.split()) == 0
    printed = capsys.readouterr()
    assert "in 5 parts of 2 examples" in printed.out and "--hnsw_m, --hnsw_ef, --hnsw_max_elements: " in printed.err
    assert len(re.findall(r"^global step \d+, epoch", printed.out, re.M)) == 3
    assert re.search(r"^recall@1=\d+\.\d+ recall@5=.* \(9 queries, 39 texts to search, .* s\)$", printed.out, re.M)
    rows = [line.split("\t") for line in (tmp_path / "results/result.txt").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 9 * 39
    tower = Tower.open(tmp_path / "checkpoint/last")
    query, title, cosine = rows[0]
    assert float(cosine) == pytest.approx(float(tower.query_vectors([query])[0] @ tower.vectors([title])[0]), abs=1e-5)
    info = TowerInfo.read(tmp_path / "checkpoint/last")
    assert info is not None and (info.size, info.pooling, info.max_seq_length) == (8, "pooler", 16)
    assert set(info.results) == {"step", "recall@1", "recall@5", "recall@10", "recall@20", "recall@50", "mrr@10"}


OPTIONS: dict[str, Any] = {
    "model_name_or_path": "encoder", "train_set_file": "triples.csv", "similar_text_pair": "dev.csv", "pooling": "mean",
    "batch_size": 8, "micro_batch": 4, "epochs": 3, "learning_rate": 1e-3, "eval_step": 3, "save_step": 2, "towers": 2,
    "learned_scale": True, "nested_sizes": "0.5*4,8", "negatives": 2, "device": "cpu", "logging_steps": 1,
    "query_prompt": "问", "text_prompt": "论", "lexical_size": 12,
}  # fmt: skip


@unit
def test_a_killed_training_goes_on_to_the_same_bits(data: Path, tmp_path: Path) -> None:
    def kill(step: int, measures: dict[str, float]) -> None:
        if step == 6:
            raise Killed

    with commands_here(data):
        whole = train_batch_neg.train(TrainBatchNegOptions(**OPTIONS, save_dir=str(tmp_path / "whole")))
        with pytest.raises(Killed):
            train_batch_neg.train(TrainBatchNegOptions(**OPTIONS, save_dir=str(tmp_path / "killed")), kill)
        again = {**OPTIONS, "data_memory_mb": 0, "resume": True}  # encoded texts are now read from files
        train_batch_neg.train(TrainBatchNegOptions(**again, save_dir=str(tmp_path / "killed")))
    assert whole.steps == 12 and "recall@10/4" in whole.last
    towers = []
    for part in (Path(), Path("query")):
        arrays = [load_arrays(tmp_path / run / "last" / part / PARAMETERS_FILE) for run in ("whole", "killed")]
        assert not [name for name, array in arrays[0].items() if array.tobytes() != arrays[1][name].tobytes()]
        assert not [name for name in arrays[0] if name.startswith(("query_tower", "learned_scale"))]
        towers.append(arrays[0])
    apart = [dict(np.load(tmp_path / run / "state_12" / APART_FILE)) for run in ("whole", "killed")]
    assert apart[0]["learned_scale.log"] == apart[1]["learned_scale.log"] != np.float32(np.log(30))
    assert any(array.tobytes() != towers[1][name].tobytes() for name, array in towers[0].items())
    assert [name for name in towers[0] if "lexical" in name] and towers[0]["lexical_part.weight"].any()
    opened = Tower.open(tmp_path / "whole/best")  # its queries go through the tower in query/, with their prompt
    queries = Tower.open(tmp_path / "whole/best/query")
    np.testing.assert_array_equal(opened.query_vectors([HAN[0]]), queries.query_vectors([HAN[0]]))
    assert np.abs(opened.query_vectors([HAN[0]]) - opened.vectors([HAN[0]])).max() > 1e-3


@ONCE
@server
def test_two_processes_are_one_with_their_batches_together(data: Path, tmp_path: Path) -> None:
    teacher = {"loss": "in_batch+0.1*margin_mse", "teacher": write_ranker(tmp_path / "ranker")}  # each scores a share
    options = {**OPTIONS, **teacher, "micro_batch": 8}  # one part each: sums of more parts round in another order
    typed = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    launched = Launched(data, tmp_path / "log", SCRIPT, *typed, "--save_dir", tmp_path / "two")
    assert launched.wait() == 0, launched.output + launched.log(1)
    assert run(data, train_batch_neg, *typed, "--save_dir", tmp_path / "one", "--batch_size", 16) == 0
    for file in (PARAMETERS_FILE, f"query/{PARAMETERS_FILE}"):
        one, two = (load_arrays(tmp_path / name / "last" / file) for name in ("one", "two"))
        for name, array in one.items():
            if not name.endswith("k_proj.bias"):  # its gradient is zero, and AdamW magnifies its rounding
                np.testing.assert_allclose(two[name], array, atol=1e-6, rtol=0, err_msg=name)
    results = [json.loads((tmp_path / name / "last/tower.json").read_text())["results"] for name in ("one", "two")]
    assert results[0] == pytest.approx(results[1], abs=1e-6)
    assert launched.log(0).count("recall@1=") == 2 and "recall@1=" not in launched.log(1)


@unit
def test_a_large_batch_takes_the_memory_of_a_part(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass holds the graph of one part, for any batch: the outputs of the other parts are gone."""
    rows: list[int] = []
    alive: list[weakref.ref[Any]] = []
    most = [0]
    outputs = InBatchExamples.outputs

    def watched(self: InBatchExamples, network: nn.Layer, indices: Any) -> Any:
        most[0] = max(most[0], sum(one() is not None for one in alive))
        found = outputs(self, network, indices)
        rows.append(len(found))
        alive.append(weakref.ref(found))
        return found

    monkeypatch.setattr(InBatchExamples, "outputs", watched)
    options = {**OPTIONS, "batch_size": 30, "micro_batch": 2, "epochs": 1, "similar_text_pair": None}
    with commands_here(data):
        result = train_batch_neg.train(TrainBatchNegOptions(**options, save_dir=str(tmp_path / "checkpoint")))
    assert result.steps == 1 and result.best == {} and result.last_checkpoint is not None
    assert len(rows) == 2 * 15 and max(rows) == 2 * 4 and most[0] <= 1  # two passes over parts of 2 examples of 4 texts
    assert (tmp_path / "checkpoint/best/tower.json").is_file()


@unit
def test_a_teacher_is_asked_for_what_the_file_lacks(data: Path, tmp_path: Path) -> None:
    ranker = write_ranker(tmp_path / "ranker")
    options = {**OPTIONS, "epochs": 1, "similar_text_pair": None, "loss": "in_batch+0.1*margin_mse+kl"}
    with commands_here(data):
        with pytest.raises(Exception, match=r"has no teacher's score, which --loss learns from"):
            train_batch_neg.train(TrainBatchNegOptions(**options, save_dir=str(tmp_path / "a")))
        save_dir = str(tmp_path / "b")
        result = train_batch_neg.train(TrainBatchNegOptions(**options, teacher=str(ranker), save_dir=save_dir))
        assert result.steps == 4
        again = {**options, "resume": True, "save_dir": save_dir}
        moved = ranker.rename(tmp_path / "moved")
        assert train_batch_neg.train(TrainBatchNegOptions(**again, teacher=str(moved))).steps == 4
        (moved / "ranker.json").write_text((moved / "ranker.json").read_text(encoding="utf-8") + " ", encoding="utf-8")
        with pytest.raises(RankerError, match="content teacher was"):
            train_batch_neg.train(TrainBatchNegOptions(**again, teacher=str(moved)))
    named: list[dict[str, Any]] = [{"teacher": str(ranker)}, {"teacher_url": "http://h/rerank"}]
    for teacher in named:
        with pytest.raises(UsageError, match="learns from no teacher"):
            TrainBatchNegOptions(train_set_file=str(data / "train.csv"), **teacher)
    with pytest.raises(UsageError, match="give one of them"):
        TrainBatchNegOptions(**options, teacher=str(ranker), teacher_url="http://h/rerank")


@unit
def test_a_teacher_behind_a_url_is_asked_once(data: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    options = {**OPTIONS, "epochs": 1, "similar_text_pair": None, "loss": "in_batch+0.1*margin_mse"}
    asked: list[int] = []
    with Server(tei) as server, commands_here(data):
        for name in ("a", "b"):
            taught = TrainBatchNegOptions(**options, teacher_url=server.url, save_dir=str(tmp_path / name))
            assert train_batch_neg.train(taught).steps == 4
            asked.append(len(server.bodies))
    assert asked[0] == asked[1] > 0
    assert "\n0 requests, 0 pairs answered; " in capsys.readouterr().out


@unit
def test_simcse_sees_a_text_by_two_masks_and_drops_the_pooler(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"""--train_set_file texts.csv --test_set_file dev.csv --save_dir {tmp_path}/checkpoint --batch_size 10
        --model_name_or_path encoder --eval_steps 2 --save_steps 100 --max_seq_length 16 --dropout 0.2 --scale 20
        --output_emb_size 8 --logging_steps 1 --learning_rate 5e-4 --epochs 1"""
    for name, more in {"first": [], "pooler": ["--infer_with_fc_pooler", "--dup_rate", "0.3"]}.items():
        assert run(data, train_simcse, *line.split(), *more) == 0
        losses = [float(loss) for loss in re.findall(r"loss: ([\d.]+)", capsys.readouterr().out)]
        assert len(losses) == 3 and min(losses) > 0.01  # with equal masks, a text would nearly equal its own vector
        info = TowerInfo.read(tmp_path / "checkpoint/last")
        assert info is not None and (info.pooling, info.size) == (name, 8)
        config = json.loads((tmp_path / "checkpoint/last/config.json").read_text())
        assert config["hidden_dropout_prob"] == config["attention_probs_dropout_prob"] == 0.2
        arrays = load_arrays(tmp_path / "checkpoint/last" / PARAMETERS_FILE)
        start = load_arrays(data / "encoder" / PARAMETERS_FILE)
        moved = np.abs(arrays["encoder.pooler.dense.weight"] - start["pooler.dense.weight"]).max()
        assert moved > 1e-4  # the pooler is trained, even if it is not used later


@unit
def test_nothing_is_learned_from_a_pooler_that_nobody_trained(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_encoder(tmp_path / "new")
    of_two = {"towers": 2}

    def pooling(encoder: Path, kind: type[TowerTrainingOptions], **given: Any) -> str:
        options = kind(train_set_file="", model_name_or_path=str(encoder), save_dir=str(tmp_path / "out"), **given)
        without_pooler = isinstance(options, TrainSimcseOptions) and options.without_pooler
        return start_tower_training(options, without_pooler=without_pooler).model.info.pooling

    assert pooling(tmp_path / "new", TrainBatchNegOptions, **of_two) == "mean"
    assert capsys.readouterr().err.count("has no trained pooler: vectors are the mean") == 1
    assert pooling(tmp_path / "new", TrainSimcseOptions) == "mean"
    asked = {"pooling": "pooler"}, {"infer_with_fc_pooler": True}
    assert [pooling(tmp_path / "new", TrainSimcseOptions, **given) for given in asked] == ["first", "pooler"]
    capsys.readouterr()
    assert pooling(data / "encoder", TrainBatchNegOptions, **of_two) == "pooler"
    assert pooling(data / "encoder", TrainSimcseOptions) == "first"
    assert "pooler" not in capsys.readouterr().err


@unit
@pytest.mark.parametrize(
    ("given", "parts", "size"),
    [({}, 1, 32), ({"micro_batch": 8}, 4, 8), ({"micro_batch": 5}, 8, 4),
     ({"use_gradient_cache": True, "batch_size": 200}, 50, 4),
     ({"micro_batch": 16, "gradient_accumulation_steps": 3}, 6, 16)],
)  # fmt: skip
def test_a_batch_is_cut_into_equal_parts(data: Path, given: dict[str, Any], parts: int, size: int) -> None:
    options = TrainBatchNegOptions(train_set_file=str(data / "train.csv"), **given)
    assert (options.parts, options.part_size) == (parts, size)


@unit
@pytest.mark.parametrize(
    ("given", "message"),
    [({"nested_sizes": "64,x"}, "--nested_sizes '64,x': expected lengths"), ({"evaluate": True}, "--evaluate needs"),
     ({"recall_num": 5}, "--recall_num 5: --metric recall@10 needs 10"),
     ({"loss": "in_batch+"}, "name of a loss is missing"), ({"loss": "in_bach"}, "choose from in_batch, "),
     ({"loss": "in_batch+2*in_batch"}, "in_batch comes more than once"),
     ({"micro_batch": 4, "use_gradient_cache": True}, "give one of them"),
     ({"early_stopping": 3}, "--early_stopping is about evaluations"),
     ({"early_stopping": 3, "evaluate": False, "similar_text_pair": "dev.csv"}, "--early_stopping counts evaluations"),
     ({"scale": 120.0, "learned_scale": True}, "--learned_scale learns up to 100"),
     ({"loss": "kl", "margin": 0.2}, "--loss kl has none"), ({"loss": "hardest", "scale": 20.0}, "--scale changes"),
     ({"refresh_negatives": 3, "epochs": 3}, "no epoch of --epochs 3"),
     ({"refresh_negatives": 1, "max_tokens": 99}, "--max_tokens and --refresh_negatives"),
     ({"refresh_negatives": 1, "loss": "in_batch+kl"}, "titles without a teacher's score"),
     ({"corpus_file": "texts.csv"}, "--corpus is about evaluations"),
     ({"towers": 1, "query_model": "x"}, "--towers 1")],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(data: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        _ = TrainBatchNegOptions(train_set_file=str(data / "train.csv"), **given).terms


@unit
def test_words_in_vectors_are_kept_left_out_and_not_resized(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--max_steps", "1", "--train", "train.csv", "--pooling", "mean", "--output_emb_size", "8")
    first, ranker = tmp_path / "first/last", write_ranker(tmp_path / "ranker")
    file = ranker / PARAMETERS_FILE  # as in a ranker with lexical features, which do not concern vectors
    save_arrays({**load_arrays(file), "lexical.weight": np.zeros(18, "float32")}, file)
    assert run(data, train_batch_neg, "--model", ranker, *more, "--lexical_size", 6, "--output", first.parent) == 0
    assert "new: output_layer, lexical_part" in capsys.readouterr().out
    assert Tower.open(first).vectors([HAN[0]]).shape == (1, 14)
    cases: list[tuple[str, list[str], int]] = [("kept", [], 14), ("none", ["--lexical_size", "0"], 8)]
    for name, given, size in cases:
        assert run(data, train_batch_neg, "--model", first, *more, *given, "--output", tmp_path / name) == 0
        assert "new:" not in capsys.readouterr().out
        info = TowerInfo.read(tmp_path / name / "last")
        assert info is not None and (info.size, info.lexical_size) == (size, size - 8)
    assert run(data, train_batch_neg, "--model", first, *more, "--lexical_size", 7, "--output", tmp_path / "other") == 2
    assert "--lexical_size 7: the checkpoint's is 6; leave it out" in capsys.readouterr().err
    longer = ("--lexical_size", 6, "--normalize", "false", "--output", tmp_path / "longer")
    assert run(data, train_batch_neg, "--model", "encoder", *more, *longer) == 2
    assert "give --normalize true" in capsys.readouterr().err
    assert convert.main([str(first), str(tmp_path / "library"), "--to", "sentence-transformers"]) == 1
    assert "6 numbers of its vectors say which words a text has" in capsys.readouterr().err
    arrays = load_arrays(first / PARAMETERS_FILE)
    save_arrays(
        {name: array for name, array in arrays.items() if name != "lexical_part.weight"}, first / PARAMETERS_FILE
    )
    with pytest.raises(CheckpointError, match="has no parameters of lexical_part"):
        Tower.open(first)


@unit
def test_labels_say_which_titles_answer_in_an_evaluation(data: Path, tmp_path: Path) -> None:
    rows = [f"{query}\t{query}的研究\t1\n{query}\t{query}\t0\n" for query in HAN[:3]]
    (tmp_path / "labelled.csv").write_text("".join(rows), encoding="utf-8")
    options = {**OPTIONS, "similar_text_pair": str(tmp_path / "labelled.csv"), "epochs": 1, "save_dir": str(tmp_path)}
    with commands_here(data):
        train_batch_neg.train(TrainBatchNegOptions(**options))
    tower = Tower.open(tmp_path / "last")
    texts = [text for query in HAN[:3] for text in (f"{query}的研究", query)]
    found = np.argsort(-(tower.query_vectors(HAN[:3]) @ tower.vectors(texts).T), axis=1, kind="stable")
    info = TowerInfo.read(tmp_path / "last")
    assert info is not None and info.results["recall@1"] == np.mean(found[:, 0] == [0, 2, 4])
    ranks = np.argmax(found == np.array([[0], [2], [4]]), axis=1)
    assert info.results["mrr@10"] == pytest.approx(np.mean(1 / (ranks + 1)))


@unit
def test_what_teaches_nothing_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--model", "encoder", "--max_steps", "2", "--batch_size", "1", "--train", "train.csv")
    assert run(data, train_batch_neg, *more, "--output", tmp_path / "one") == 0
    assert "in 2 of 2 batches no query had a negative, so they taught nothing" in capsys.readouterr().out
    lists = ("--loss", "in_batch+kl+0.1*margin_mse", "--teacher", "nobody")  # it is never opened
    assert run(data, train_batch_neg, *more, "--output", tmp_path / "lists", *lists) == 1
    assert "--loss kl and margin_mse: compares the title of a query with its neg" in capsys.readouterr().err
    assert run(data, train_batch_neg, *more[:-1], "triples.csv", "--output", tmp_path / "triples") == 0
    assert "taught nothing" not in capsys.readouterr().out
