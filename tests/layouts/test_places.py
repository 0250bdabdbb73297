"""Texts with places, and the boxes of their tokens."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.encoding.column_store import PairCollector
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
from paddle_ranker.encoding.windows import Windows
from paddle_ranker.layouts.boxed_pairs import BoxedPairEncoder

pytestmark = pytest.mark.unit
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] total invoice am ##ount due : 12 . 50 what is the ? -"
VOCABULARY = WORDS.replace(" ", "\n")
QUERY, TITLE = "what is the total?", ["Invoice", "Amount", "due:", "12.50", "total"]
BOXES = [[10, 20, 110, 40], [10, 60, 90, 80], [95, 60, 140, 80], [700, 60, 780, 80], [0, 980, 1000, 1000]]
LAST = [1000] * 4
# As transformers 5.23.0's LayoutLMv2Tokenizer of these words answers to the question, the words and their boxes.
IDS = [2, 14, 15, 16, 5, 17, 3, 6, 7, 8, 9, 10, 11, 12, 13, 5, 3]
OF_WORDS = [0, 1, 1, 2, 2, 3, 3, 3, 4]
OF_TOKENS = [*[[0] * 4] * 6, LAST, *(BOXES[word] for word in OF_WORDS), LAST]


def encoder_of(folder: Path, length: int = 64, separator: int = 1000) -> BoxedPairEncoder:
    (folder / "vocab.txt").write_text(VOCABULARY + "\n", encoding="utf-8")
    return BoxedPairEncoder(read_tokenizer(folder), length, separator)


def placed_title() -> PlacedText:
    starts = [len(" ".join([*TITLE[:place], ""])) for place in range(len(TITLE))]
    words = zip(starts, TITLE, BOXES)
    places = [(start, start + len(word), *(side / 1000 for side in box)) for start, word, box in words]
    return PlacedText(" ".join(TITLE), places)


def boxes_of(pairs: EncodedPairs, row: int = 0) -> list[list[int]]:
    types = pairs.pad([row])["token_type_ids"]
    assert types.shape[2] == 5 and types[0, :, 0].tolist() == [0] * 7 + [1] * (types.shape[1] - 7)
    boxes: list[list[int]] = types[0, :, 1:].tolist()
    return boxes


def test_a_text_keeps_the_places_of_its_spans() -> None:
    text = PlacedText("a bc", [(0, 1, 0.0, 0.0, 1.0, 0.5), (2, 4, 0.01, 0.02, 0.03, 0.04)])
    assert text != "a bc" and "a bc" not in (text, text[:2]) and hash(text) == hash("a bc") and len({text, "a bc"}) == 2
    assert text[1:3] == PlacedText(" b", [(1, 2, 0.01, 0.02, 0.03, 0.04)])
    assert ">" + text + "!" == PlacedText(">a bc!", [(1, 2, *text.places[0][2:]), (3, 5, *text.places[1][2:])])
    for twin in (copy.copy(text), pickle.loads(pickle.dumps(text))):  # noqa: S301
        assert twin == text and type(twin) is PlacedText


@pytest.mark.parametrize(
    "places",
    [[[0, 1]], [[0, 9, 0.1]], [[2, 1, 0.1]], [[-1, 1, 0.1]], [[2, 3, 0.1], [0, 1, 0.1]], [[0.0, 1, 0.1]], ["abc"],
     [[0, 1, float("nan")]], [[0, 1, True]], [[0, 1, "0.1"]]],
)  # fmt: skip
def test_bad_places_are_refused(places: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="a place is"):
        PlacedText("a bc", places)


def test_tokens_have_the_boxes_of_their_words_as_in_transformers(tmp_path: Path) -> None:
    encoder = encoder_of(tmp_path)
    title = placed_title()
    pairs = encoder.encode([QUERY, QUERY], [title, " ".join(TITLE)])
    assert pairs[0].tolist() == pairs[1].tolist() == IDS
    assert boxes_of(pairs) == OF_TOKENS
    assert boxes_of(pairs, 1) == [[0] * 4] * len(IDS)
    alone = encoder.encode_single([title]).pad([0])["token_type_ids"]
    assert alone[0, :, 1:].tolist() == [[0] * 4, *OF_TOKENS[7:]]
    assert encoder.with_query_prompt("the ").encode([title], ["-"]).places is not None
    assert encoder.encode([title], ["-"]).pad([0])["token_type_ids"][0, 2, 1:].tolist() == BOXES[0]
    shorter = encoder_of(tmp_path, 12).encode(["-"], [title])
    assert shorter.pad([0])["token_type_ids"][0, :, 1:].tolist() == [[0] * 4] * 2 + [LAST] + OF_TOKENS[7:15] + [LAST]


def test_boxes_outside_are_clipped_and_counted(tmp_path: Path) -> None:
    encoder = encoder_of(tmp_path, separator=0)
    title = PlacedText(
        "due : 12", [(0, 3, -0.1, 0.2, 1.5, 0.3), (4, 5, 0.5, 0.5, 0.4, 0.6), (6, 8, 0.1, 0.1, 0.2, 0.2)]
    )
    found = encoder.encode(["-"], [title]).pad([0])["token_type_ids"][0, 3:, 1:].tolist()
    assert found == [[0, 200, 1000, 300], [500, 500, 500, 600], [100, 100, 200, 200], [0] * 4]
    assert encoder.counts()["boxes reached outside their pages and were clipped"] == 2


@pytest.mark.parametrize("most", [1, 1 << 20])
def test_places_stay_with_their_tokens(tmp_path: Path, most: int) -> None:
    """In files, in any order, in windows, and in batches."""
    encoder = encoder_of(tmp_path)
    title = placed_title()
    collector = PairCollector(tmp_path, max_bytes=most)
    for queries in (["-", QUERY], [QUERY]):
        collector.append(encoder.encode(queries, [title] * len(queries)))
    pairs, _ = collector.finish()
    assert boxes_of(pairs, 2) == boxes_of(pairs.take([2, 0])) == OF_TOKENS
    joined = EncodedPairs.concat([pairs.take([0]), pairs.take([1])])
    np.testing.assert_array_equal(joined.pad([0, 1])["token_type_ids"], pairs.pad([0, 1])["token_type_ids"])
    assert not joined.pad([0, 1])["token_type_ids"][0, len(pairs[0]) :].any()  # padding
    windows = Windows(12, overlap=1).split(encoder.encode(["-"], [title], truncate=False))
    assert len(windows.pairs) == 2
    last = windows.pairs.pad([1])["token_type_ids"][0, :, 1:].tolist()
    assert last == [[0] * 4, [0] * 4, LAST, *OF_TOKENS[14:]]
