"""Convert WordPiece tokenizers between `vocab.txt` with its settings and the `tokenizer.json` of `tokenizers`.

This toolkit reads `vocab.txt`, with rules of splitting in `tokenizer_config.json`. A transformers folder has these
files, `tokenizer.json`, or both. A written `tokenizer.json` gives transformers the ids of this toolkit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from paddle_ranker.encoding.tokenizers.builtin import CONTINUATION, MAX_WORD_CHARACTERS
from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.encoding.tokenizers.text_rules import CJK_RANGES, SYMBOLS_BY_NAME, TextRules
from paddle_ranker.encoding.tokenizers.tokenizer_folder import (
    ADDITIONAL,
    BERT_RULES,
    CONFIG_FILE,
    IN_TEXTS,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    WORD_RULES,
    LibraryFiles,
    TokenizerFiles,
    read_settings,
)
from paddle_ranker.errors import CheckpointError, listed, quoted
from paddle_ranker.storage.atomic import write_json
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject
from paddle_ranker.unicode.character_kinds import INVISIBLE, MARK, SYMBOL, UNASSIGNED, unicode_table

# Settings of BertNormalizer -> settings of `TextRules`
_RULES = {
    "lowercase": "do_lower_case",
    "strip_accents": "strip_accents",
    "handle_chinese_chars": "tokenize_chinese_chars",
}
# Canonical decompositions since Unicode 13; `tokenizers` knows Unicode 12.
_YOUNG_DECOMPOSITIONS = {"\U00011938": "\U00011935\U00011930"}
_SPACES = (0x09, 0x0A, 0x0D)  # control characters that are not dropped
_SURROGATES = (0xD800, 0xDFFF)  # `tokenizers` allows none in texts and patterns
_REPLACEMENT = (0xFFFD, 0xFFFD)  # also dropped

_Range = tuple[int, int]  # first and last code point


def write_word_pieces(
    folder: Path,
    vocabulary: bytes,
    rules: TextRules,
    special: dict[str, str],
    side: str,
    markers: Sequence[str] = (),
    in_texts: bool = False,
) -> TokenizerFiles:
    """Write `vocab.txt` and its settings into an existing folder, and return the contents of both files.

    special: tokens by role
    side: the side at which long texts are truncated, "left" or "right"
    markers: further special tokens
    in_texts: whether special tokens in texts get their ids
    """
    (folder / VOCABULARY_FILE).write_bytes(vocabulary)
    settings = {
        **special,
        "do_lower_case": rules.do_lower_case,
        **({} if rules.strip_accents is None else {"strip_accents": rules.strip_accents}),
        "tokenize_chinese_chars": rules.tokenize_chinese_chars,
        **({WORD_RULES: BERT_RULES} if rules.of_bert else {}),
        "tokenizer_class": "BertTokenizer",  # PaddleNLP knows no BertTokenizerFast
        "truncation_side": side,
        **({ADDITIONAL: [*markers]} if markers else {}),
        **({IN_TEXTS: True} if in_texts else {}),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    files = TokenizerFiles.read(folder)
    files.write(folder)
    return files


# Settings of transformers' PreTrainedTokenizerFast and its base classes, apart from those that `tokenizer.json` holds.
_KEYS = """
added_tokens_decoder additional_special_tokens extra_special_tokens special_tokens_in_texts
bos_token eos_token unk_token sep_token pad_token cls_token mask_token
model_max_length padding_side truncation_side clean_up_tokenization_spaces
"""
_KNOWN_KEYS = frozenset(_KEYS.split())
_AS_IT_IS = "PreTrainedTokenizerFast"  # the class that uses `tokenizer.json` unchanged


def write_tokenizer(
    files: ModelTokenizer,
    target: Path,
    max_length: int,
    *,
    with_types: bool = True,
    reads_markers: bool = False,
    prompts: Iterable[str] = (),
    class_name: str = _AS_IT_IS,
    more: Optional[UncheckedObject] = None,
) -> None:
    """Write a tokenizer for transformers: `tokenizer.json` and the files beside it.

    max_length: maximum tokens of a pair or text, also for sentence-transformers
    with_types: whether the encoder has a token type for the second text of a pair
    reads_markers: whether transformers' users give the model texts with special tokens: a masked language model's
        [MASK], a chat, the empty cells of a table. In texts of other models special tokens are plain text, unless the
        files have `special_tokens_in_texts` or a prompt has a special token
    prompts: the model's prompts
    class_name: transformers' class; other classes than the default make a WordPiece tokenizer by its rules
    more: further entries of `tokenizer_config.json`
    """
    in_prompts = any(token in prompt for prompt in prompts for token in files.markers)
    reads_markers = reads_markers or files.special_tokens_in_texts or in_prompts
    inputs = ["input_ids", *(["token_type_ids"] if with_types else []), "attention_mask"]
    if not isinstance(files, TokenizerFiles):  # already in that format
        assert isinstance(files, LibraryFiles)
        (files if reads_markers else files.with_plain_texts()).write(target)
        kept = {key: value for key, value in read_settings(target / CONFIG_FILE).items() if key in _KNOWN_KEYS}
        settings = {**kept, "model_max_length": max_length, **(more or {})}
        _write_settings(target, settings, inputs, reads_markers, class_name)
        return
    if files.added:
        raise CheckpointError(
            f"its tokenizer has words beyond {VOCABULARY_FILE} ({listed(files.added)}), which is not written for "
            "transformers: train without them"
        )
    # transformers would add a special token that the vocabulary lacks, with an id that has no embedding.
    special = {role: token for role, token in files.special_tokens.items() if token in files.token_to_id}
    files = replace(files, special_tokens=special)
    files.write(target)
    library_tokenizer(files).save(str(target / TOKENIZER_FILE))
    settings = {
        **special,
        **(more or {}),
        "model_max_length": max_length,
        "truncation_side": "left" if files.template().keeps_end else "right",
        **{name: files.config[name] for name in (ADDITIONAL, IN_TEXTS) if files.config.get(name)},
    }
    if class_name != _AS_IT_IS:
        settings.update({name: getattr(files.rules, name) for name in _RULES.values()})
    _write_settings(target, settings, inputs, reads_markers, class_name)


def _write_settings(
    target: Path, settings: UncheckedObject, inputs: list[str], reads_markers: bool, class_name: str
) -> None:
    """Write a `tokenizer_config.json`; by default transformers loads `tokenizer.json` unchanged with it.

    settings: further entries of `tokenizer_config.json`
    inputs: names of the model's inputs
    reads_markers, class_name: as in `write_tokenizer`
    """
    as_it_is = {"tokenizer_class": class_name, "model_input_names": inputs}
    contents = {**settings, **as_it_is, **({} if reads_markers else {"split_special_tokens": True})}
    write_json(target / CONFIG_FILE, contents)


def library_tokenizer(files: TokenizerFiles) -> Unchecked:
    """Create a tokenizer of `tokenizers` that gives texts the same ids as a WordPiece tokenizer's files."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    special, rules = files.special_tokens, files.rules
    by_id = {token_id: token for token, token_id in files.token_to_id.items()}
    # A repeated token leaves a gap in the ids, of which `tokenizers` would warn.
    vocabulary = {by_id.get(token_id, _filler(token_id)): token_id for token_id in range(files.vocab_size)}
    wordpiece: Unchecked = models.WordPiece
    tokenizer = Tokenizer(
        wordpiece(vocabulary, unk_token=special["unk_token"], max_input_chars_per_word=MAX_WORD_CHARACTERS)
    )
    bert = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=rules.tokenize_chinese_chars,
        strip_accents=rules.strip_accents if rules.of_bert else False,
        lowercase=rules.do_lower_case,
    )
    if rules.of_bert:
        tokenizer.normalizer, tokenizer.pre_tokenizer = bert, pre_tokenizers.BertPreTokenizer()
    else:  # by the toolkit's table of characters: that of `tokenizers` differs, and does not isolate symbols
        patterns = _Patterns.of(rules)
        steps = [normalizers.Replace(Regex(patterns.dropped), "")]
        if rules.do_lower_case:  # first, since lowercasing may add an accent
            steps.append(normalizers.Lowercase())
        if rules.strips_accents:
            young = [normalizers.Replace(char, parts) for char, parts in _YOUNG_DECOMPOSITIONS.items()]
            steps += [normalizers.NFD(), *young, normalizers.Replace(Regex(patterns.accents), "")]
        tokenizer.normalizer = normalizers.Sequence([*steps, bert])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(patterns.isolated), "isolated"), pre_tokenizers.WhitespaceSplit()]
        )
    cls, sep = special["cls_token"], special["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, files.token_to_id[token]) for token in (cls, sep)],
    )
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in files.markers])
    return tokenizer


def vocabulary_of_json(described: UncheckedObject, path: Path) -> list[str]:
    """Return the word pieces of a `tokenizer.json` by id; raises `CheckpointError` if the model is unsupported."""
    model: UncheckedObject = described["model"]
    prefix, longest = model.get("continuing_subword_prefix", CONTINUATION), model.get("max_input_chars_per_word", 100)
    if prefix != CONTINUATION or longest != MAX_WORD_CHARACTERS:
        raise CheckpointError(
            f"{path}: its WordPiece has continuing_subword_prefix {quoted(prefix)}, and max_input_chars_per_word gives "
            f"up on words over {longest} characters; {quoted(CONTINUATION)} and {MAX_WORD_CHARACTERS} are done here"
        )
    by_id: dict[int, str] = {}
    ids = model.get("vocab")
    for token, token_id in (ids if isinstance(ids, dict) else {}).items():
        if not isinstance(token, str) or type(token_id) is not int or token_id < 0:
            raise CheckpointError(f"{path}: the token {quoted(token)} has the id {quoted(token_id)}: copy it again")
        if by_id.setdefault(token_id, token) != token:
            raise CheckpointError(
                f"{path}: {quoted(by_id[token_id])} and {quoted(token)} have the id {token_id}: copy it again"
            )
    if not by_id or max(by_id) > 4 * len(by_id):
        raise CheckpointError(f"{path}: holds no usable vocabulary ({len(by_id):,} tokens): copy it again")
    return [by_id.get(token_id, _filler(token_id)) for token_id in range(max(by_id) + 1)]


def _filler(token_id: int) -> str:
    """Return a token for an id without a token. No text matches it, since the tokenizer splits at brackets."""
    return f"[id {token_id} has no token]"


def rules_of_json(described: UncheckedObject, path: Path) -> TextRules:
    """Return the splitting rules of a `tokenizer.json`; raises `CheckpointError` if they are not BERT's."""
    normalizer, splitter = (described.get(name) or {"type": "none"} for name in ("normalizer", "pre_tokenizer"))
    ours = _our_rules(normalizer.get("normalizers") or [])
    if ours is not None:
        return ours
    values = {name: value for name, value in normalizer.items() if name in _RULES}
    if normalizer.get("type") == "BertNormalizer" and normalizer.get("clean_text") is False:
        raise CheckpointError(
            f"{path}: its BertNormalizer has clean_text false, which keeps control characters and is not done here, "
            f"unless {CONFIG_FILE} states the tokenizer_class PreTrainedTokenizerFast"
        )
    if normalizer.get("type") != "BertNormalizer":
        raise CheckpointError(
            f"{path}: its normalizer is {normalizer.get('type')}; only BERT's (BertNormalizer) is done here, unless "
            f"{CONFIG_FILE} states the tokenizer_class PreTrainedTokenizerFast"
        )
    if splitter != {"type": "BertPreTokenizer"}:
        raise CheckpointError(
            f"{path}: its pre_tokenizer is {splitter.get('type')}; only BertPreTokenizer is done here"
        )
    return TextRules(**{_RULES[name]: value for name, value in values.items()}, of_bert=True)


def _our_rules(steps: list[UncheckedObject]) -> Optional[TextRules]:
    """Return PaddleNLP's rules from a normalizer that `library_tokenizer` created; None for other normalizers."""
    kinds = [step.get("type") for step in steps]
    strips = "NFD" in kinds
    lowers = bool(steps) and bool(steps[-1].get("lowercase"))
    patterns = _Patterns.of(TextRules(do_lower_case=lowers, strip_accents=strips))
    replaced = [step["pattern"] for step in steps if step.get("type") == "Replace"]
    ours = [{"Regex": patterns.dropped}]
    if strips:
        ours += [*({"String": young} for young in _YOUNG_DECOMPOSITIONS), {"Regex": patterns.accents}]
    if replaced != ours or kinds[-1] != "BertNormalizer":
        return None
    return TextRules(lowers, strips, bool(steps[-1].get("handle_chinese_chars")))


@dataclass(frozen=True)
class _Patterns:
    """PaddleNLP's rules of splitting as character classes over all code points.

    dropped: characters that are always removed
    accents: characters that are removed if the rules strip accents
    isolated: characters that become words by themselves
    """

    dropped: str
    accents: str
    isolated: str

    @classmethod
    def of(cls, rules: TextRules) -> _Patterns:
        """Return the character classes for `rules`."""
        ranges: dict[str, list[_Range]] = {}
        for kind, first, last in unicode_table().runs():
            ranges.setdefault(kind, []).append((first, last))
        gone = [*_without_spaces(ranges[INVISIBLE]), *ranges[UNASSIGNED], _REPLACEMENT]
        alone = [*ranges[SYMBOL], *((ord(char), ord(char)) for char in SYMBOLS_BY_NAME)]
        if rules.tokenize_chinese_chars:
            alone += CJK_RANGES
        return cls(_class(gone), _class(ranges[MARK]), _class(alone))


def _without_spaces(ranges: Iterable[_Range]) -> list[_Range]:
    """Return the ranges without tab, line feed, carriage return and surrogates."""
    kept: list[_Range] = []
    for first, last in ranges:
        kept_before = first
        for hole_first, hole_last in (*((code, code) for code in _SPACES), _SURROGATES):
            if kept_before <= hole_first <= last:
                kept += [(kept_before, hole_first - 1)] if kept_before < hole_first else []
                kept_before = hole_last + 1
        kept += [(kept_before, last)] if kept_before <= last else []
    return kept


def _class(ranges: Iterable[_Range]) -> str:
    """Return a character class for ranges in the syntax of Oniguruma, the regex engine of `tokenizers`."""
    return "[" + "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in sorted(ranges)) + "]"
