"""Bad input, for all commands in one table: the exit status, and the fragment of the one line that a user needs."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.commands.convert import ConvertOptions, convert
from tests.conftest import Call, commands_here
from tests.export_cases import Exports
from tests.tiny import HAN, write_encoder, write_ranker, write_tokenizer

pytestmark = pytest.mark.parity

TRIPLES = "深度\t深度学习\t水稻\n农业\t农业教育\t语言\n"
DEV = "深度\t深度学习\t1\n深度\t水稻\t0\n农业\t农业教育\t1\n农业\t语言\t0\n"
FRACTIONS = "深度\t深度学习\t0.93\n深度\t水稻\t0.41\n农业\t农业教育\t1.0\n农业\t语言\t0.87\n"


def rows(queries: int, relevant: int) -> str:
    """Return four pairs for each query, the first `relevant` of all with the label 1."""
    return "".join(
        f"q{i}\t{HAN[i % 9]}{HAN[j]}\t{int(4 * i + j < relevant)}\n" for i in range(queries) for j in range(4)
    )


FILES = {
    "dev.csv": DEV, "copy.csv": DEV, "triples.csv": TRIPLES, "fractions.csv": FRACTIONS,
    "comma.csv": DEV.replace("\t", ","), "short.csv": "深\t深\t度\nonly\ttwo\n",
    "words.csv": "深\t度\t1\n学\t习\tyes\n", "ones.csv": rows(20, 80), "zeros.csv": rows(20, 0),
    "nine.csv": rows(9, 18), "rare.csv": rows(20, 2), "two.csv": "a\tb\t1\na\tb\t0\n",
    "alike.csv": "q\ta\t1\nq\tb\t1\n", "empty.csv": "", "query.csv": "q\n", "pairs.csv": "q\ta\n",
    "texts.txt": "水稻\n语言\n", "held.csv": "稻\t水稻\n", "scores.tsv": "2.0\n1.0\n0.5\n0.1\n",
    "a.run": "x Q0 d1 1 2.0 tag\n",
    "qrels": "q1 0 d1 1\nq1 0 d2 0\n", "fraction.qrels": "q 0 d 0.5\n", "huge.qrels": "q 0 d 1e300\n",
    "run.qrels": "q Q0 d 1 2.5 bm25\n",
}  # fmt: skip
SMALL = "--model encoder --output made --max_seq_length 32 --max_steps 1 --device cpu"
TRAIN_PAIRWISE, TRAIN_CE = f"train-pairwise {SMALL}", f"train-ce {SMALL}"
PAIRWISE = f"{TRAIN_PAIRWISE} --train triples.csv --test dev.csv"
RECALL, SEARCH = "evaluate-recall --index index", "search x --index index"
EVALUATE, PREDICT = "evaluate --model pairwise", "predict --model pairwise --input pairs.csv"
QRELS = f"{EVALUATE} --queries dev.csv --documents dev.csv --qrels"
SERVING = "export-serving --server_path made --client_path made2 --model exported"
TEACHER = "--teacher_url http://127.0.0.1:9/rerank"
IS_FRACTION = "fractions.csv, line 1: the label 0.93 is a fraction"
BAD: list[tuple[str, int, str]] = [
    ("blend pairwise dev.csv made", 2, "what to average with"),
    ("blend pairwise dev.csv made --with cross cross", 2, "given twice"),
    ("blend pairwise dev.csv made --with bm25", 1, "bm25 needs"),
    ("blend pairwise dev.csv made --train copy.csv", 1, "looks better than it is"),
    ("blend pairwise dev.csv cross --train triples.csv", 1, "is there already"),
    ("blend pairwise fractions.csv made --with cross", 1, IS_FRACTION),
    ("blend pairwise dev.csv made --train fractions.csv", 1, IS_FRACTION),
    ("calibrate pairwise", 2, "DEV_FILE is required"),
    ("calibrate pairwise dev.csv --remove", 2, "--remove takes a calibration away"),
    ("calibrate pairwise --remove --method platt", 2, "leave out --method"),
    ("calibrate pairwise --remove --folds 7", 2, "leave out --folds"),
    ("calibrate pairwise --remove --windows max", 2, "leave out --windows"),
    ("calibrate pairwise dev.csv --method isotonic", 2, "choose from platt, temperature"),
    ("calibrate pairwise dev.csv --windwos max", 2, "did you mean --windows?"),
    ("calibrate pairwise ones.csv", 1, "ones.csv: one class only, 80 of its 80 pairs are relevant"),
    ("calibrate pairwise zeros.csv", 1, "0 of its 80 pairs are relevant"),
    ("calibrate pairwise nine.csv", 1, "9 queries with 18 relevant and 18 other pairs are too few"),
    ("calibrate pairwise rare.csv", 1, "20 queries with 2 relevant and 78 other pairs are too few"),
    ("calibrate pairwise fractions.csv --output made", 1, IS_FRACTION),
    ("cascade pairwise cross:0 --test dev.csv", 2, "no cascade"),
    ("cascade pairwise cross:2 --test fractions.csv", 1, IS_FRACTION),
    ("rank --model pairwise --input pairs.csv --cascade cross:0", 2, "no cascade"),
    ("rank --model pairwise --input pairs.csv --cascade nothing", 1, "nothing"),
    ("compare scores.tsv", 2, "--test (query, title, label) is required, or --qrels"),
    ("compare scores.tsv --test x --qrels y", 2, "give one"),
    ("compare scores.tsv --test x --queries y", 2, "--queries goes with --qrels"),
    ("compare scores.tsv --qrels x --queries y", 2, "--queries and --documents go together"),
    ("compare scores.tsv scores.tsv --test dev.csv", 2, "scores.tsv is named twice"),
    ("compare x=scores.tsv x=other.tsv --test dev.csv", 2, "two systems are named x"),
    ("compare nothing.tsv --test none.tsv --baselines false", 2, "one system only"),  # before all else
    ("compare scores.tsv --test dev.csv --plot p.gif", 2, "a picture's name ends in .png"),
    ("compare scores.tsv --test dev.csv --report no/r.html", 1, "no/r.html: cannot be written there"),
    ("compare scores.tsv --test dve.csv", 1, "did you mean dev.csv?"),
    ("compare nothing.tsv --test dev.csv", 1, "nothing.tsv"),
    ("compare scores.tsv tokenizer --test dev.csv", 1, "is a tokenizer without a model, not a ranker"),
    ("compare x=scores.tsv --test dev.csv --engine onnx", 2, "--engine is about how a ranker scores"),
    ("compare x=scores.tsv --test dev.csv --windows max", 2, "--windows is about how a ranker scores"),
    ("compare a=scores.tsv scores.tsv --test dev.csv --baselines false --train dev.csv", 2, "give --baselines"),
    ("compare a.run --qrels qrels --candidates a.run", 2, "--candidates"),
    ("compare a.run --qrels qrels", 1, "a.run and qrels share no query (one has x, the other q1)"),
    ("compare scores.tsv --qrels qrels", 1, "scores.tsv: not a TREC run"),
    ("compare x=scores.tsv --test ones.csv", 1, "ones.csv: one class only"),
    ("compare x=scores.tsv --test two.csv", 1, "several labels (lines 1 and 2: labels 1 and 0)"),
    ("compare pairwise --test fractions.csv", 1, IS_FRACTION),
    ("compare pairwise --test dev.csv --train fractions.csv", 1, IS_FRACTION),
    ("convert", 2, "SOURCE"),
    ("convert encoder", 2, "TARGET"),
    ("convert encoder made more", 2, "'more': more values than are expected; give the option to which it belongs"),
    (
        "search x y z --index index",
        2,
        "'y', 'z': more values than are expected; QUERY is one value, so put quotes around",
    ),
    ("convert encoder made --to onnx", 2, "--to onnx"),
    ("convert hf made --drop_match_embeddings", 2, "belongs to --to hf"),
    ("convert encoder made --to hf --lowercase", 2, "--lowercase belongs to --to paddle or tower"),
    ("convert nowhere made --to hf", 1, "is not there"),
    ("convert empty made", 1, "no model.safetensors and no pytorch_model.bin"),
    ("convert empty made --to hf", 1, "is an empty folder, not a ranker or an encoder"),
    ("convert encoder made", 1, "is a Paddle model folder already"),
    ("convert hf made --to hf", 1, "is a Hugging Face folder already"),
    ("convert hf empty", 1, "is there already"),
    ("distill nowhere triples.csv made.tsv", 1, "nowhere: is not there; check the path"),
    ("distill pairwise triples.csv triples.csv", 2, "must be another file"),
    ("distill pairwise none.tsv made.tsv", 1, "none.tsv: no such file"),
    ("distill pairwise triples.csv:pairs.csv made.tsv", 2, "triples and pairs do not go into one file"),
    ("distill pairwise triples.csv no/out.tsv", 1, "cannot be written there"),
    ("distill pairwise triples.csv", 2, "OUTPUT_FILE"),
    ("distill pairwise triples.csv made.tsv --relevant_from 0.7", 2, "makes labels of pairs that have none"),
    ("distill pairwise fractions.csv made.tsv", 1, IS_FRACTION),
    ("distill triples.csv made.tsv", 2, "no teacher: give TEACHER DATA_FILE OUTPUT_FILE, or --teacher_url URL"),
    (f"distill pairwise triples.csv made.tsv {TEACHER}", 2, "pairwise and --teacher_url: give TEACHER"),
    (f"distill triples.csv made.tsv {TEACHER} --max_seq_length 64", 2, "the server decides that"),
    (f"distill triples.csv triples.csv {TEACHER}", 2, "must be another file"),
    (f"distill triples.csv made.tsv {TEACHER} --teacher_answers made.tsv", 2, "another file than --teacher_answers"),
    ("distill pairwise triples.csv made.tsv --teacher_model m", 2, "--teacher_model is about a teacher over HTTP"),
    (f"{EVALUATE}", 2, "--test (query, title, label) is required"),
    (f"{EVALUATE} --test two.csv", 1, "several labels (lines 1 and 2: labels 1 and 0)"),
    (f"{EVALUATE} --test alike.csv", 1, "one class only"),
    (f"{EVALUATE} --test fractions.csv", 1, IS_FRACTION),
    ("evaluate --model cross --test fractions.csv", 1, IS_FRACTION),
    (f"{EVALUATE} --test comma.csv", 1, "with --separator , it has 3: type that"),
    (f"{EVALUATE} --qrels qrels", 2, "--qrels needs --queries and --documents"),
    (f"{QRELS} dev.csv --fractional_labels true", 2, "--fractional_labels goes with --test"),
    (f"{QRELS} fraction.qrels", 1, "the label '0.5' is not a whole number"),
    (f"{QRELS} huge.qrels", 1, "the label '1e300' is not a whole number from -1,000 to 1,000"),
    (f"{QRELS} run.qrels", 1, "6 fields, expected query 0 document label"),
    (f"{QRELS} qrels", 1, "no text for"),
    (RECALL, 2, "say what answers the queries"),
    (f"{RECALL} --qrels qrels", 2, "--qrels and --queries go together"),
    (f"{RECALL} --test dev.csv --split dev", 2, "--split is about --beir"),
    (f"{RECALL} --test dev.csv --folds 3", 2, "--folds is about --learn_weights"),
    (f"{RECALL} --test pairs.csv", 1, "line 1: no document of the collection has the id, title or text 'a'"),
    (f"{RECALL} --test dev.csv --plot x.txt", 2, "a picture's name ends in"),
    (f"{RECALL} --test dev.csv --signals clicks", 2, "add --learn_weights and --ranker"),
    (f"{RECALL} --test held.csv --learn_weights made.json", 1, "has one searcher"),
    (f"{RECALL} --test dev.csv --runs nothing.trec", 1, "nothing.trec: no such file"),
    (f"{SERVING} --model_filename inference.pdmodel", 1, "there is no inference.pdiparams in it"),
    (f"{SERVING} --model_filename model", 2, "must end in .pdmodel or .json"),
    (f"{SERVING} --params_filename other.pdiparams", 2, "other.pdiparams: the parameters"),
    (f"{SERVING} --model nowhere", 1, "there is no such folder"),
    (f"{SERVING} --feed_alias_names ids", 2, "ids"),
    (f"{SERVING} --feed_alias_names a,a", 2, "a,a"),
    (f"{SERVING} --feed_alias_names token_type_ids,input_ids", 2, "token_type_ids,input_ids"),
    (f"{SERVING} --fetch_alias_names a,b", 2, "a,b"),
    (f"{SERVING} --fetch_alias_names 'a\"b'", 2, 'a"b'),
    (f"{SERVING} --fetch_alias_names ,", 2, ","),
    (f"{SERVING} --fetch_alias_names logit", 2, "logit"),
    (f"{SERVING} --server_path dev.csv", 1, "is a file"),
    (f"{SERVING} --server_path exported", 1, "holds an exported model"),
    (f"{SERVING} --client_path made/client", 2, "made/client"),
    ("make-triples --input alike.csv --output alike.csv", 2, "must be different files"),
    ("make-triples --input alike.csv --output made.tsv --dev_share 0.1", 2, "--dev_share needs --dev_file"),
    ("make-triples --input alike.csv --output made.tsv --per_positive 0", 2, "--per_positive 0: must be at least 1"),
    ("make-triples --input alike.csv --output no/made.tsv", 1, "cannot be written there"),
    ("make-triples --input alike.csv --output made.tsv --dev_file made.dev", 1, "holding some out needs at least 2"),
    ("make-triples --input alike.csv --output made.tsv", 1, "no query has titles with different labels"),
    ("make-triples --input fractions.csv --output made.tsv --skip_bad_rows", 1, IS_FRACTION),
    ("mine --queries zeros.csv --output made.tsv", 1, "not one title has a label of 1 or more"),
    ("mine --queries alike.csv --output made.tsv --min_label 2", 1, "not one title has a label of 2 or more"),
    ("mine --queries query.csv --output made.tsv", 1, "expected 2 or 3"),
    ("mine --queries empty.csv --output made.tsv", 1, "empty.csv: the file is empty"),
    ("mine --queries alike.csv --output made.tsv --corpus empty.csv", 1, "empty.csv: the file is empty"),
    ("mine --queries alike.csv --output made.tsv --corpus nowhere.txt", 1, "nowhere.txt: no such file"),
    ("mine --queries alike.csv --output made.tsv", 1, "not one negative was found"),
    ("mine --queries alike.csv --output alike.csv", 2, "must be another file"),
    ("mine --queries alike.csv --output no/out.tsv", 1, "cannot be written there"),
    ("mine --queries alike.csv --output made.tsv --rank_from 9 --rank_to 3", 2, "--rank_from 9 is above --rank_to 3"),
    ("mine --queries alike.csv --output made.tsv --margin 0.1", 2, "--margin is about a ranker's scores"),
    ("mine --queries alike.csv --output made.tsv --max_score_ratio 0.9", 2, "is about a ranker's scores"),
    ("mine --queries alike.csv --output made.tsv --rerank 10 --ranker x", 2, "--rerank 10 is below --rank_to 50"),
    ("mine --queries alike.csv --output made.tsv --method tower", 2, "--tower FOLDER belong"),
    ("mine --queries alike.csv --output made.tsv --method bm25 --tower x", 2, "--tower FOLDER belong"),
    ("mine --queries alike.csv --output made.tsv --engine onnx", 2, "add --ranker or --tower"),
    ("mine --queries alike.csv --output made.tsv --tower missing --positive_label good", 2, "add --ranker"),
    ("mine --queries alike.csv --output made.tsv --index x --corpus dev.csv", 2, "--index has its own texts"),
    ("mine --queries alike.csv --output made.tsv --index x --tower x", 2, "--index has its own texts"),
    ("mine --queries alike.csv --output made.tsv --index x --windows max", 2, "--windows is about a ranker's scores"),
    ("mine --queries alike.csv --output made.tsv --index x --words bigram", 2, "--words bigram: --index finds"),
    ("mine --queries alike.csv --output made.tsv --method random --words bigram", 2, "--method random finds"),
    ("mine --queries fractions.csv --corpus texts.txt --output made.tsv", 1, IS_FRACTION),
    (f"{PREDICT} --min_probability 1.5", 2, "--min_probability 1.5"),
    (f"{PREDICT} --window_overlap 5", 2, "--window_overlap 5 is of no use without --windows"),
    (f"{PREDICT} --windows max --window_overlap 14", 2, "must be at least 0 and below 14"),
    (f"{PREDICT} --cascade cross:2", 2, "add --top_k"),
    ("predict --model pairwise --input none-*.tsv", 2, "none-*.tsv: no file matches"),
    ("predict --model encoder --input pairs.csv", 1, "is an encoder without a ranking head"),
    ("predict --model cross --input pairs.csv --topk 0", 2, "--top_k 0: must be at least 1"),
    ("report-searches none", 1, "none: no such folder; name the one that the server was given as --search_log"),
    ("report-searches tokenizer", 1, "tokenizer: has no searches to report"),
    ("report-searches tokenizer --since 2026-13-01", 2, "--since '2026-13-01': expected a day"),
    ("report-searches tokenizer --since 2026-02-02 --until 2026-02-01", 2, "swap them"),
    ("report-searches tokenizer --report no/r.html", 1, "no/r.html: cannot be written there"),
    ("search --index index", 2, "a query, --like FILE, --input FILE, or '' for a list of documents"),
    ("search '' --index index --explain", 2, "--explain stands beside an empty query, which lists documents"),
    ("search '' --index index --output run.trec", 2, "a list of documents has none: add --format json"),
    ("search a --index index --explain --format json", 2, "--explain is shown in text, not in json"),
    ("search a --index index --explain --output run.trec", 2, "--explain is shown in text, not in trec"),
    (f"{SEARCH} --by vectors", 2, "by 'vectors', only by words"),
    (f"{SEARCH} --fusion sum", 2, "--fusion sum: choose from rrf, weighted"),
    (f"{SEARCH} --synonyms none.txt", 1, "No such file or directory: none.txt"),
    (f"{SEARCH} --synonyms none.txt --literal", 2, "without --synonyms: leave one out"),
    ("search '-x1 -word' --index index", 2, "only what must not be there"),
    (f"{SEARCH} --weights vectors=2", 2, "weights of vectors: the search is by words"),
    (f"{SEARCH} --weights words=1,words=2", 2, "gives words two weights"),
    (f"{SEARCH} --recall_weight 1", 2, "add --ranker"),
    (f"{SEARCH} --positive_label good", 2, "--positive_label is about how a ranker scores or orders: add --ranker"),
    (f"{SEARCH} --engine onnx", 2, "--engine is about how a ranker scores or orders: add --ranker"),
    (f"{SEARCH} --windows max", 2, "--windows is about how a ranker scores or orders: add --ranker"),
    (f"{SEARCH} --where year", 2, "condition 'year'"),
    (f"{SEARCH} --ef 9", 2, "--ef 9"),
    (f"{PAIRWISE} --batch_size 0", 2, "--batch_size 0: must be at least 1"),
    (f"{PAIRWISE} --batch_size many", 2, "--batch_size: invalid int value: 'many'"),
    (f"{PAIRWISE} --warmup_proportion 1.5", 2, "--warmup_proportion 1.5: must be below 1"),
    (f"{PAIRWISE} --loss margin_logits", 2, "did you mean margin_logit?"),
    (f"{PAIRWISE} --device tpu", 2, "--device tpu: choose from cpu, gpu, xpu, npu"),
    (f"{TRAIN_PAIRWISE} --train trilpes.csv --test dev.csv", 1, "did you mean triples.csv?"),
    (f"{TRAIN_PAIRWISE} --train short.csv --test dev.csv", 1, "short.csv, line 2: 2 columns, expected 3"),
    (f"{TRAIN_PAIRWISE} --train triples.csv --test fractions.csv", 1, IS_FRACTION),
    (f"{TRAIN_PAIRWISE} --train triples.csv --test /dev/null", 1, "/dev/null"),
    (f"{PAIRWISE} --model ./nowhere", 1, "./nowhere: there is no such model folder"),
    (f"{PAIRWISE} --init_from_ckpt nowhere.pdparams", 1, "nowhere.pdparams"),
    (f"{PAIRWISE} --max_seq_length 65", 1, "above the 64 positions"),
    (f"{PAIRWISE} --output dev.csv/made", 1, "dev.csv/made: cannot write there"),
    (f"{TRAIN_CE} --train words.csv --test dev.csv", 1, "words.csv, line 2: label 'yes' is not a"),
    (f"{TRAIN_CE} --train alike.csv --test dev.csv", 1, "alike.csv: one class only, 2 of its 2"),
    (f"{TRAIN_CE} --train fractions.csv --test dev.csv", 1, IS_FRACTION),
    (f"{TRAIN_CE} --train dev.csv --test fractions.csv", 1, IS_FRACTION),
    (
        f"{TRAIN_CE} --train dev.csv --test dev.csv --loss ranknet_bce --group_by_query false",
        2,
        "needs --group_by_query",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, exports: Exports) -> Iterator[Path]:
    """Write rankers, an encoder, an export and the files; run the commands there."""
    folder = tmp_path_factory.mktemp("bad")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    write_ranker(folder / "pairwise")
    write_ranker(folder / "cross", kind="cross_encoder", seed=2)
    write_tokenizer(folder / "tokenizer")
    exports.copy("calibrated", folder / "exported")
    convert(ConvertOptions(source=str(write_encoder(folder / "encoder")), target=str(folder / "hf"), to="hf"))
    (folder / "empty").mkdir()
    with commands_here(folder):
        assert main(["index", "build", "--corpus", "texts.txt", "--output", "index"]) == 0
        yield folder


@pytest.mark.parametrize(("line", "status", "fragment"), BAD, ids=[line for line, _, _ in BAD])
def test_bad_input_is_one_line(folder: Path, call: Call, line: str, status: int, fragment: str) -> None:
    before = sorted(folder.iterdir())
    found, printed, errors = call(main, *shlex.split(line))
    last = errors.splitlines()[-1]
    assert (found, ": error: " in last, fragment in last) == (status, True, True), errors
    assert "Traceback" not in errors and "global step" not in printed and "auc" not in printed.lower()
    shutil.rmtree(folder / "made", ignore_errors=True)  # a training makes its folder before it reads
    assert sorted(folder.iterdir()) == before


def test_a_name_in_another_encoding_is_shown_by_its_bytes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = os.path.join(os.fsencode(tmp_path), "né.tsv".encode("latin-1"))
    Path(os.fsdecode(name)).write_text(f"{DEV}one\n", encoding="utf-8")
    line = ["--input", os.fsdecode(name), "--output", str(tmp_path / "made"), "--dev_file", str(tmp_path / "dev")]
    assert main(["make-triples", *line]) == 1
    assert rf"{tmp_path}/n\xe9.tsv, line 5: " in capfd.readouterr().err
