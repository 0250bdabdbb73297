"""Every option of the published scripts is an option here, under its published name, and its published values parse."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from paddle_ranker import Ranker
from tests.conftest import REPOSITORY, Call
from tests.tiny import write_exported

pytestmark = pytest.mark.parity

_SHARED = "--device cpu --max_seq_length 64 --batch_size 4 --model_name_or_path ernie-3.0-medium-zh"
_TRAINING = "--save_dir d --learning_rate 5E-5 --weight_decay 0.0 --epochs 1 --init_from_ckpt FILE --seed 1000"
_TOWERS = (
    f"{_SHARED} --learning_rate 5E-5 --weight_decay 0.0 --epochs 1 --seed 1000 --save_dir ./checkpoint "
    "--output_emb_size 256 --save_steps 10 --warmup_proportion 0.0 --init_from_ckpt FILE"
)
_STATIC = (
    "--use_tensorrt False --precision fp32 --cpu_threads 10 --enable_mkldnn False --benchmark False "
    "--save_log_path ./log_output/"
)
# Each published script, by its place here: its options with values as published, read off the argument parsers in
# applications/neural_search of PaddlePaddle/PaddleNLP; a second line is of the scripts of SimCSE.
PUBLISHED = {
    "ernie_matching.train_pairwise": f"--margin 0.1 --train_file FILE --test_file FILE {_SHARED} {_TRAINING} "
    "--eval_step 200 --save_step 10000 --warmup_proportion 0.0",
    "ernie_matching.evaluate": f"--margin 0.1 --test_file FILE --init_from_ckpt FILE {_SHARED}",
    "ernie_matching.predict_pairwise": f"--input_file FILE --params_path FILE {_SHARED}",
    "ernie_matching.export_model": "--params_path FILE --output_path ./output --model_name_or_path ernie-gram-zh",
    "ernie_matching.export_to_serving": "--dirname FILE --model_filename inference.predict.pdmodel "
    "--params_filename inference.predict.pdiparams --server_path serving_server --client_path serving_client "
    "--feed_alias_names input_ids,token_type_ids --fetch_alias_names predict --show_proto False",
    "cross_encoder.train_ce": f"--train_set FILE --test_file FILE {_SHARED} {_TRAINING} --valid_steps 100 "
    "--save_steps 100 --logging_steps 10 --warmup_proportion 0.0 --use_amp False --scale_loss 32768",
    "cross_encoder.evaluate": f"--test_file FILE --init_from_ckpt FILE {_SHARED}",
    "cross_encoder.predict": f"--test_set FILE --params_path FILE --topk 10 {_SHARED}",
    "cross_encoder.export_model": "--params_path FILE --output_path ./output "
    "--model_name_or_path rocketqa-base-cross-encoder",
    "recall.train_batch_neg": f"{_TOWERS} --train_set_file FILE --dev_set_file FILE --margin 0.2 --scale 30 "
    "--log_steps 10 --corpus_file FILE --similar_text_pair_file FILE --recall_result_dir d "
    "--recall_result_file f --recall_num 50 --hnsw_m 100 --hnsw_ef 100 --hnsw_max_elements 1000000 "
    "--evaluate_result evaluate_result.txt --evaluate --max_grad_norm 5.0 --use_amp --amp_loss_scale 32768 "
    "--use_gradient_cache --chunk_numbers 50",
    "recall.train_batch_neg hardest": f"--loss hardest {_TOWERS} --train_set_file FILE --margin 0.3",
    "recall.train_batch_neg ance": f"--refresh_negatives 1 {_TOWERS} --train_set_file FILE --corpus_file FILE "
    "--margin 0.3",
    "recall.train_simcse": f"{_TOWERS} --train_set_file FILE --test_set_file FILE --margin 0.0 --scale 20 "
    "--dropout 0.2 --infer_with_fc_pooler --eval_steps 10000",
    "recall.recall simcse": "--params_path FILE --similar_text_pair_file FILE --corpus_file FILE --recall_result_dir d "
    f"--recall_result_file f --recall_num 10 --output_emb_size 0 {_SHARED}",
    "recall.recall": f"--params_path FILE --similar_text_pair FILE --corpus_file FILE --recall_result_dir d "
    f"--recall_result_file f --recall_num 10 --hnsw_m 100 --hnsw_ef 100 --hnsw_max_elements 1000000 "
    f"--output_emb_size 256 {_SHARED}",
    "recall.evaluate": "--similar_text_pair FILE --recall_result_file FILE --recall_num 50",
    "recall.predict simcse": "--text_pair_file FILE --params_path FILE --margin 0.0 --scale 20 --output_emb_size 0 "
    f"{_SHARED}",
    "recall.predict": f"--text_pair_file FILE --params_path FILE --output_emb_size 256 --pad_to_max_seq_len {_SHARED}",
    "recall.milvus_ann_search": "--data_path FILE --embedding_path FILE --index 18 --insert --search "
    "--batch_size 100000",
    "recall.export_model": "--params_path FILE --output_path ./output --model_name_or_path ernie-1.0",
    "recall.feature_extract": f"--model_dir FILE --corpus_file FILE {_SHARED} {_STATIC}",
    "deploy.python.predict": f"--model_dir FILE --input_file FILE {_SHARED} {_STATIC}",
}


def _module(name: str) -> ModuleType:
    if not name.startswith("deploy"):
        return importlib.import_module(name)
    path = REPOSITORY / f"{name.replace('.', '/')}.py"
    spec = importlib.util.spec_from_file_location("published_predict", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their types
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", PUBLISHED)
def test_each_published_option_is_taken(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, errors = call(
        _module(script.split()[0]).main, *PUBLISHED[script].replace("FILE", "no-such-file").split()
    )
    # All is well but that the files are not there, which is found after every option has been read.
    assert status != 0 and "no-such-file" in errors, errors
    assert "unknown option" not in errors


def test_static_options_change_no_score_and_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    exported = write_exported(tmp_path)
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("深度学习\t神经网络\n\n农业\t水稻, a\n", encoding="utf-8")
    line = ["--model_dir", exported, "--input_file", pairs, "--device", "cpu", *_STATIC.split()]
    status, printed, errors = call(_module("deploy.python.predict").main, *line)
    assert status == 0, errors
    assert "--enable_mkldnn, --benchmark, --save_log_path: without effect here" in errors
    assert "left out" in errors or "blank" in errors
    shown = [float(line.rpartition("[")[2].rstrip("]")) for line in printed.splitlines()]
    assert shown == pytest.approx(Ranker.load(exported).score(["深度学习", "农业"], ["神经网络", "水稻, a"]), abs=1e-6)


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "utf-8"])
def test_pairs_are_read_in_the_encodings_of_their_owners(encoding: str, tmp_path: Path, call: Call) -> None:
    from ernie_matching import predict_pairwise

    exported = write_exported(tmp_path)
    titles = [f"神经网络研究{number}" for number in range(20)]
    pairs = tmp_path / "pairs.tsv"
    pairs.write_bytes("".join(f"深度学习\t{title}\n\n" for title in titles).encode(encoding))
    status, printed, errors = call(
        predict_pairwise.main, "--params_path", exported, "--input_file", pairs, "--device", "cpu"
    )
    assert status == 0 and "blank lines" in errors, errors
    assert all(title in line for title, line in zip(titles, printed.splitlines()))
    assert len(printed.splitlines()) == len(titles) and ("text in GBK" in errors) == (encoding != "utf-8")
