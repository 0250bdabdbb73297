"""The starter encoder: made from nothing, found again, the same every time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.commands.starter import StarterOptions, make_starter
from paddle_ranker.errors import DataError, RankerError
from paddle_ranker.model.families import read_config
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.parameters import load_arrays
from paddle_ranker.model.ranker_folder import Fresh, start_ranker

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def options(tmp_path: Path) -> StarterOptions:
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("query\ttitle\n" + "深度学习\t深度学习与水稻病害诊断 deep learning\n" * 20, encoding="utf-8")
    return StarterOptions(corpus=str(corpus), vocab_size=200, hidden_size=16)


def test_it_starts_a_ranker(options: StarterOptions) -> None:
    folder = make_starter(options)
    parts = start_ranker(folder, Fresh("pairwise"), LoadOptions(max_seq_length=32))
    assert parts.new_parts == ["head", "match_embeddings"]
    config = read_config(folder)
    assert config is not None and config.vocab_size == parts.row_encoder.vocab_size
    assert parts.row_encoder.unk_id not in parts.row_encoder.encode(["深度学习"], ["deep 水稻"]).ids


def test_it_is_made_once_and_anew_for_another_corpus_or_shape(options: StarterOptions, cache: Path) -> None:
    folder = make_starter(options)
    assert folder.parent == cache / "starter"
    mark = (folder / "model_state.pdparams").stat().st_mtime_ns
    assert make_starter(options) == folder
    assert (folder / "model_state.pdparams").stat().st_mtime_ns == mark
    assert make_starter(dataclasses.replace(options, hidden_size=32)) != folder
    with Path(options.corpus).open("a", encoding="utf-8") as corpus:
        corpus.write("经济\t经济增长\n")
    assert make_starter(options) != folder


def test_the_same_corpus_and_seed_give_the_same_encoder(options: StarterOptions, tmp_path: Path) -> None:
    first, second, other = (
        make_starter(dataclasses.replace(options, output_dir=str(tmp_path / name), seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert (first / "vocab.txt").read_bytes() == (second / "vocab.txt").read_bytes()
    arrays = [load_arrays(folder / "model_state.pdparams") for folder in (first, second, other)]
    name = "embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(arrays[0][name], arrays[1][name])
    assert not np.array_equal(arrays[0][name], arrays[2][name])


def test_a_folder_of_ones_own_stays_and_a_corpus_that_is_not_there_is_named(
    options: StarterOptions, tmp_path: Path
) -> None:
    with pytest.raises(RankerError, match="there already"):
        make_starter(dataclasses.replace(options, output_dir=str(tmp_path)))
    with pytest.raises(RankerError, match=r"none\.txt"):
        make_starter(dataclasses.replace(options, corpus="none.txt"))


def test_pretraining_reads_the_texts_and_keeps_the_shape(
    options: StarterOptions, tmp_path: Path, same_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "read"
    folder = make_starter(dataclasses.replace(options, pretrain_steps=2, output_dir=str(target)))
    assert capsys.readouterr().out == ""  # whoever runs the command takes its standard output for the folder
    drawn = make_starter(options)
    assert read_config(folder) == read_config(drawn)
    assert (folder / "vocab.txt").read_bytes() == (drawn / "vocab.txt").read_bytes()
    name = "embeddings.word_embeddings.weight"
    read = load_arrays(folder / "model_state.pdparams")[f"ernie.{name}"]
    assert read.shape == load_arrays(drawn / "model_state.pdparams")[name].shape
    assert start_ranker(folder, Fresh("pairwise"), LoadOptions(max_seq_length=32)).new_parts == [
        "encoder.pooler.dense",
        "head",
        "match_embeddings",
    ]
    # not the same folder in the cache
    assert make_starter(dataclasses.replace(options, pretrain_steps=1)) != drawn


def test_rows_that_cannot_be_read_are_counted_and_most_of_a_file_is_too_many(
    options: StarterOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = Path(options.corpus)
    corpus.write_bytes(corpus.read_bytes() + b"\n\xff\n")
    make_starter(options)
    assert f"skipped 1 ({corpus}, line 23: byte 0xff" in capsys.readouterr().err
    corpus.write_bytes(b"query\ttitle\n" + "深度学习\t水稻\0病害诊断\n".encode() * 20)
    with pytest.raises(DataError, match=r"skipped 20 \(.*a NUL byte"):
        make_starter(options)


def test_common_characters_are_known_though_no_text_holds_them(options: StarterOptions) -> None:
    def unknown(folder: Path) -> bool:
        pair_encoder = start_ranker(folder, Fresh("pairwise"), LoadOptions(max_seq_length=32)).row_encoder
        return pair_encoder.unk_id in pair_encoder.encode(["癫痫 Quiz9"], ["齄"]).ids

    assert unknown(make_starter(options))
    assert not unknown(make_starter(dataclasses.replace(options, characters="gb2312", vocab_size=7000)))
    with pytest.raises(RankerError, match="vocab_size 200 is smaller than the alphabet"):
        make_starter(dataclasses.replace(options, characters="gb2312"))
