"""Texts that the tests of tokenizers and of the pair encoder share."""

from __future__ import annotations

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
NASTY_TEXTS = [
    "",
    " \t\r\n\u3000\u00a0",
    "机器学习2024 deep-learning模型",
    "Note10＋使用℃ 5€ a＝b x≠y ½²º〇",
    "emoji 😀👨‍👩‍👧‍👦👍🏽🇨🇳 ok",
    "ｆｕｌｌ　ＷＩＤＴＨ１２３，。！",
    "a\x00b\x1cc\x85d\u200be\ufefff\u2028g\u2029h\u00adi\ufffdj\u200dk",
    "É é e\u0301 Ç ñ Å \u212b ﬁ ẛ̣ ệ",
    "ΟΔΟΣ Σ ΑΣ. ΑΣΒ σς İstanbul ıI ẞß Ǆ",
    "한국어 각 ㈜ ㅎ 가\u11a8 日本語テキスト ｶﾞ ガ か\u3099",
    "नमस्ते ক্ষ ไทย العَرَبِيَّة עִבְרִית ខ្មែរ",
    "㐀𠀀𪜀𫝀𫠠豈丽𰀀 〇〆",
    "\ue000\uf8ff\U000f0000 \ud800x\udfff \U0010ffff\uffff",
    "\u302e\u302f\u302fa\u302f\u302e \U0001d15e\U0001d165\U0001d16d\U0001d165 \u1b44\u302e\u0591",
    "w" * 99 + " " + "w" * 100 + " " + "w" * 101 + " " + "д" * 100 + " " + "д" * 101,
    "长" * 10_000,
    "x" * 10_000,
    "[PAD] [CLS] [SEP][MASK] a[UNK]b [pad]",
    "it's 50% @home #tag ##ing a_b `c` ^ | ~ \\ / <b>&amp;",
]
