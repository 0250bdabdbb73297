"""One table of scripts: all that asks how a script separates words gets the same answer."""

from __future__ import annotations

import pytest

from paddle_ranker.lexical.analyser import Phrase, standard
from paddle_ranker.lexical.highlights import SharedWords
from paddle_ranker.lexical.passages import characters_for
from paddle_ranker.lexical.tokens import have_spaces
from paddle_ranker.pages.page_text import PageLine, page_text
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.schema_inference import infer_schema
from paddle_ranker.unicode.characters import fold, shape_of, without_accents, word_starts

pytestmark = pytest.mark.unit

SPACED = {"Latin": "abcdef", "Cyrillic": "бвгджз", "Arabic": "بتثجحخ", "Devanagari": "कखगघचछ", "Georgian": "აბგდევ"}
UNSPACED = {
    "Han": "水稻病害诊断",
    "Han of a later block": "\U00020000\U00020001\U00020002\U00020003\U00020004\U00020005",
    "kana": "ひらがなカタ",
    "half-width kana": "ﾊﾝｶｸﾉｶ",
    "Hangul": "한국어문장에",
    "Thai": "กขคงจฉ",
    "Lao": "ກຂຄງຈສ",
    "Khmer": "កខគឃងច",
    "Burmese": "ကခဂဃငစ",
    "Tai Lue": "ᦀᦁᦂᦃᦄᦅ",
    "Yi": "ꀀꀁꀂꀃꀄꀅ",
}


@pytest.mark.parametrize(
    ("letters", "has_spaces"), [*((one, True) for one in SPACED.values()), *((one, False) for one in UNSPACED.values())]
)
def test_every_reader_of_a_script_separates_its_words_alike(letters: str, has_spaces: bool) -> None:
    folded = fold(letters)
    part = folded[2:4]
    assert (len(next(standard.runs(folded)).words()) == 1) is has_spaces
    assert word_starts(folded).tolist() == [place == 0 or not has_spaces for place in range(len(folded))]
    assert any(Phrase(part).matches(folded)) is not has_spaces
    assert bool(SharedWords("x", phrases=[part]).highlights(letters)) is not has_spaces
    assert characters_for(letters, 10) == (40 if has_spaces else 10)
    assert have_spaces([letters]) is has_spaces
    boxes = [[(0.1, top, 0.9, top + 0.02)] * len(letters) for top in (0.1, 0.13)]
    is_joined = page_text([PageLine.of([(letters, one)]) for one in boxes])[0] == 2 * letters
    assert is_joined is not (has_spaces or letters == UNSPACED["Hangul"])  # Korean has spaces between phrases
    rows = [Document(str(n), "x", {"note": letters * 10}) for n in range(3)]
    assert infer_schema(rows).fields[0].type == ("keyword" if has_spaces else "text")


@pytest.mark.parametrize(
    ("text", "folded"),
    [("Ｃafé—Ⅳ", "café-iv"), ("ＡＢＣ１２３", "abc123"), ("İstanbul", "istanbul"), ("ﾊﾟ", "パ"), ("a\u200bb™", "ab")],
)
def test_widths_cases_and_invisible_characters_make_no_difference(text: str, folded: str) -> None:
    assert fold(text) == folded == fold(folded)


def test_shapes_name_the_class_of_each_character() -> None:
    assert shape_of("中a é0-\u0301ไ!") == "iw w0-mt;"
    assert without_accents("éёأ中") == "eеا中"
