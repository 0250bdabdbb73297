"""Tokens compared by their spelling, against the characters that the tokenizers library gives for them."""

from __future__ import annotations

import random
import re
import unicodedata

import numpy as np
import paddle
import pytest

from paddle_ranker.encoding.pair_encoder import PairEncoder, never_match_ids
from paddle_ranker.encoding.tokenizers.interface import Spelling
from paddle_ranker.lexical.head import LexicalHead
from paddle_ranker.lexical.token_comparison import Speller
from paddle_ranker.model.match_levels import levels_of_pair
from tests.model.test_match_levels import levels_by_search

pytestmark = pytest.mark.unit

HAN = "深度学习神经网络语言文化差异研究"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
UNKNOWN = 3
WORDS = ["▁fox", "fox", "▁Fox", "F", "O", "o", "x", "dog", "ハ", "10", "A", "X"]
# 佢 and 佡 share the first two bytes, as do 👨 and 😀; ﾊ is another form of ハ, ｆ of f, Ａ of A.
PIECES = [*HAN, "佢", "佡", " 佢", "😀", " 👨", "ﾊ", "ハ", " ﾊ", "ｆox", " fox", " FOX", "Ａ", "é", "é dog", " ", "10"]


@pytest.fixture(scope="module", params=["byte-level", "unigram", "byte fallback", "wordpiece"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PairEncoder:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    draw = random.Random(0)
    corpus = [draw.choice([" ", ""]).join(draw.choices([*HAN, " fox", " dog"], k=8)) for _ in range(200)]
    if request.param == "byte-level":
        library = Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        )
        library.train_from_iterator([" ".join(text) for text in corpus], trainer)  # no piece has two characters
    elif request.param == "wordpiece":
        library = Tokenizer(models.WordPiece(unk_token="<unk>"))
        library.normalizer = normalizers.BertNormalizer()
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece()
        library.train_from_iterator(
            corpus, trainers.WordPieceTrainer(vocab_size=80, special_tokens=SPECIAL, show_progress=False)
        )
    else:
        falls_back = request.param == "byte fallback"
        pieces = [
            *SPECIAL,
            "▁",
            *HAN,
            "▁深",
            "神经",
            *["▁fox", "fox", "▁Fox", "F", "O", "o", "x", "dog", "ハ", "10", "A", "X"],
        ]
        pieces += [f"<0x{byte:02X}>" for byte in range(256)] if falls_back else []
        library = Tokenizer(
            models.Unigram([(piece, -float(len(piece) < 2)) for piece in pieces], UNKNOWN, byte_fallback=falls_back)
        )
        library.normalizer = normalizers.NFKC()
        library.pre_tokenizer = pre_tokenizers.Metaspace()
        library.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    library.save(str(folder / "tokenizer.json"))
    return PairEncoder.from_folder(folder, 128)


def spelled(library: object, text: str) -> list[object]:
    """Return the spelling of each token of a text, by its span; None: none; `UNKNOWN` for unknown tokens.

    Each part of a character spells its part of it.
    """
    found: list[object] = []
    encoding = library.encode(text, add_special_tokens=False)  # type: ignore[attr-defined]
    for number, token, (start, end) in zip(encoding.ids, encoding.tokens, encoding.offsets):
        span = unicodedata.normalize("NFKC", text[start:end].strip()).lower()
        ends = [last for _, last in encoding.offsets]
        if number == UNKNOWN:
            found.append(UNKNOWN)
        elif not span or token == "▁":
            found.append(None)
        else:
            parts = ends.count(end) - (encoding.tokens[ends.index(end)] == "▁")
            found.append((span, token.lstrip("Ġ") if parts > 1 else None, token.startswith("##")))
    return found


def pairs_of(seed: int) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    made = [draw.choices(PIECES, k=12) for _ in range(60)]
    pairs = [("".join(one[:4]), "".join(draw.sample(one, 12))) for one in made]
    # The bytes of an unknown run have the run's span, so no two unknown characters are adjacent.
    return [pair for pair in pairs if not any(re.search("[佢佡😀👨é]{2}", text) for text in pair)]


def test_match_levels_are_those_of_the_characters(encoder: PairEncoder) -> None:
    library, special = encoder._files.library, never_match_ids(encoder)  # type: ignore[attr-defined]
    spelling = encoder.spelling()
    assert spelling is not None
    speller = Speller(encoder.vocab_size + 7, spelling)  # a model may have more embeddings
    numbers: dict[object, int] = {}
    seen = set()
    pairs = pairs_of(1)
    assert len(pairs) > 20
    rows = encoder.encode(*(list(side) for side in zip(*pairs)))
    arrays = rows.pad(np.arange(len(pairs)))
    ids, types = (paddle.to_tensor(arrays[name]) for name in ("input_ids", "token_type_ids"))
    found = levels_of_pair(speller, ids, types, special).numpy()
    for number, pair in enumerate(pairs):
        sides = [spelled(library, text) for text in pair]
        kept = [[one for one in side if one is not None] for side in sides]
        coded = [[UNKNOWN if one == UNKNOWN else numbers.setdefault(one, 9 + len(numbers)) for one in s] for s in kept]
        levels = [iter(side) for side in levels_by_search(*coded)]
        wanted = [[0 if one is None else next(levels[which]) for one in side] for which, side in enumerate(sides)]
        row = [0, *wanted[0], 0, 0, *wanted[1], 0]
        assert found[number, : len(row)].tolist() == row, (pair, sides)
        assert not found[number, len(row) :].any()
        seen.update(row)
    assert seen == {0, 1, 2, 3}


def test_features_do_not_depend_on_spaces_nor_on_the_other_rows(encoder: PairEncoder) -> None:
    head = LexicalHead(encoder.vocab_size, never_match_ids(encoder), encoder.spelling())
    pairs = pairs_of(2)
    rows = encoder.encode(*(list(side) for side in zip(*pairs)))
    head.learn(rows)
    together = head.of_pairs(rows, np.arange(len(pairs)))
    for number in range(0, len(pairs), 7):
        alone = head(*(paddle.to_tensor(array) for array in rows.pad(np.array([number])).values()))
        batch = (together[number] - head.mean.numpy()) / head.deviation.numpy() * head.weight.numpy()
        np.testing.assert_allclose(alone.numpy()[0], batch.sum(), atol=1e-4)
        one = head.features(*(paddle.to_tensor(array) for array in rows.pad(np.array([number])).values()))
        np.testing.assert_allclose(one.numpy()[0], together[number], rtol=1e-5, atol=1e-5)
    if encoder.spelling().blank.any():  # type: ignore[union-attr]
        spaced, joined = (encoder.encode(["深 度 学"], [title]) for title in ("习 深 度 学", "习深度学"))
        features = [head.of_pairs(row, np.arange(1)) for row in (spaced, joined)]
        if "深" in encoder.token_to_id and "▁深" not in encoder.token_to_id:
            np.testing.assert_allclose(features[0], features[1])


def test_parts_of_characters_by_hand() -> None:
    """Tokens 5 6 7 are a character, 5 6 8 another character; 9 is a space, and 4 the special token."""
    inside = np.isin(np.arange(10), [6, 7, 8])
    spelling = Spelling(np.array([*range(9), 4]), inside, np.arange(10) == 9)
    speller = Speller(10, spelling)
    query, title = [3, 9, 5, 6, 7, 2], [5, 6, 8, 1, 3, 5, 9, 9, 2]
    ids = paddle.to_tensor([[4, *query, 4, *title, 4]])
    types = paddle.to_tensor([[0] * 8 + [1] * 10])
    assert levels_of_pair(speller, ids, types, [4]).numpy().tolist() == [
        [0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0]
    ]
    title = [5, 6, 8, 9, 3, 5, 9, 6, 7, 2]
    ids = paddle.to_tensor([[4, *query, 4, *title, 4]])
    types = paddle.to_tensor([[0] * 8 + [1] * 11])
    assert levels_of_pair(speller, ids, types, [4]).numpy().tolist() == [
        [0, 3, 0, 3, 3, 3, 3, 0, 0, 0, 0, 0, 3, 3, 0, 3, 3, 3, 0]
    ]
