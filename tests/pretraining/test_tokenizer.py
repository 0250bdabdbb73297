"""A vocabulary trained from files: every tokenizer that reads it gives the same ids."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
from pretraining import train_tokenizer
from tests.tokenizer_oracles import PaddlePython

pytestmark = pytest.mark.parity

TEXTS = [
    "深度学习 in Deep-Learning research: café NOTE10＋使用",
    "语言 playing played player plays １２３ ℃",
    "the [MASK] was cloudy yesterday 龘靐齉 unseen-wörd",
    "",
    "学习playing语言",
]


@pytest.fixture(scope="module", params=[True, False], ids=["lowercase", "cased"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    text = "\n".join(TEXTS[:2] * 30) + "\n"
    (folder / "a.txt").write_text(text, encoding="utf-8")
    (folder / "b.txt.gz").write_bytes(gzip.compress(text.encode()))
    arguments = ["--files", str(folder / "a.txt"), str(folder / "b.txt.gz"), "--vocab_size", "160"]
    more = ["--output_dir", str(folder / "tokenizer"), "--lowercase", str(request.param).lower()]
    assert train_tokenizer.main([*arguments, *more]) == 0
    return folder / "tokenizer"


def test_ids_are_those_of_paddlenlp(made: Path) -> None:
    files = TokenizerFiles.read(made)
    ours, theirs = files.tokenizer().encode(TEXTS), PaddlePython(files).encode(TEXTS)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("name", ["ErnieTokenizer", "BertTokenizer"])
def test_paddlenlps_tokenizers_load_the_folder(made: Path, name: str) -> None:
    transformers = pytest.importorskip("paddlenlp.transformers")
    theirs = getattr(transformers, name).from_pretrained(str(made))
    files = TokenizerFiles.read(made)
    ours = files.tokenizer()
    special = [files.token_to_id[files.special_tokens[role]] for role in ("cls_token", "sep_token")]
    for text in TEXTS[:2] + TEXTS[4:]:  # the peer takes [MASK] for a token, not for text
        ids, _ = ours.encode([text])
        assert theirs(text)["input_ids"] == [special[0], *ids.tolist(), special[1]]
    assert theirs.mask_token_id == files.token_to_id["[MASK]"] == 3


def test_ideographs_are_word_pieces_of_their_own(made: Path) -> None:
    tokens = (made / "vocab.txt").read_text(encoding="utf-8").splitlines()
    ideographs = [token for token in tokens if any("\u4e00" <= char <= "\u9fff" for char in token)]
    assert sorted(ideographs) == sorted("深度学习使用语言")
    assert "##ing" in tokens and ("Deep" in tokens) != ("deep" in tokens)
