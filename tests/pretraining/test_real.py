"""A real corpus of Chinese scientific texts: vocabulary, tokens, sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
from paddle_ranker.storage.digest import content_digest
from pretraining import train_tokenizer
from pretraining.corpus import Corpus
from pretraining.packing import pack
from pretraining.token_store import tokenised
from tests.tokenizer_oracles import HuggingFace

pytestmark = [pytest.mark.real_data, pytest.mark.parity]


def test_a_real_corpus_becomes_full_sequences(real_data: Path, tmp_path: Path) -> None:
    path = str(real_data / "corpus" / "zh_sci.txt")
    arguments = ["--files", path, "--vocab_size", "8000", "--output_dir", str(tmp_path / "tokenizer")]
    assert train_tokenizer.main(arguments) == 0
    files = TokenizerFiles.read(tmp_path / "tokenizer")
    store = tokenised(Corpus([path]), [content_digest(path)], files, tmp_path / "cache", whole_words=False)
    assert len(store) == 19_595
    assert store.facts["unknown"] <= 1  # every character is in the vocabulary; one word has over 100
    texts = [text for _, text in Corpus([path])]
    ids, lengths = HuggingFace(files).encode(texts)
    np.testing.assert_array_equal(store.ids, ids)
    np.testing.assert_array_equal(np.diff(store.offsets), lengths)

    order = np.random.RandomState(0).permutation(len(store))
    sequences = pack(store, order, 512, (1, 2, 0), packing="pack")
    assert sequences.piece_lengths.sum() == len(ids)
    assert (sequences.all_lengths <= 512).all() and (sequences.all_lengths[:-1] > 495).mean() > 0.99
