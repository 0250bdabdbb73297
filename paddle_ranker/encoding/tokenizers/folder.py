"""Read the tokenizer files of a model folder, and write them so that PaddleNLP reads the same tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from paddle_ranker.encoding.tokenizers.base import PairTemplate, bert_template
from paddle_ranker.encoding.tokenizers.builtin import CONTINUATION, Tokenizer
from paddle_ranker.encoding.tokenizers.text_rules import TextRules
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.storage.untrusted import read_file, read_json

VOCABULARY_FILE = "vocab.txt"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
ADDED_TOKENS_FILE = "added_tokens.json"
_LINES = "vocab_lines"  # a setting of ours in CONFIG_FILE, which shows a vocabulary that was cut short
WORD_RULES, BERT_RULES = "word_rules", "bert"  # another one: words are split by BERT's own rules, else by PaddleNLP's
_MOST_TOKENS = 4_000_000  # several times the largest vocabulary there is
ROLES = {  # of special tokens, and the token of each where nothing else is said
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


@dataclass(frozen=True)
class TokenizerFiles:
    """What a folder says about its WordPiece tokenizer; a `ModelTokenizer`."""

    vocabulary: bytes  # the file as it is, so that a copy is byte-identical
    token_to_id: dict[str, int]
    vocab_size: int  # largest id + 1: a token that stands there twice leaves a gap in token_to_id
    rules: TextRules
    special_tokens: dict[str, str]  # "unk_token" -> "[UNK]", ...
    config: dict[str, Any]  # tokenizer_config.json with every default filled in

    @classmethod
    def read(cls, folder: Path) -> TokenizerFiles:
        """Read `vocab.txt` and, where they exist, `tokenizer_config.json` and `special_tokens_map.json`.

        Raises `CheckpointError` if a file is missing or unreadable, or asks for something that is not supported.
        """
        vocabulary, token_to_id, vocab_size = _read_vocabulary(folder)
        config = read_settings(folder / CONFIG_FILE)
        stated = config.get(_LINES)
        if isinstance(stated, int) and vocab_size < stated:
            raise CheckpointError(
                f"{folder / VOCABULARY_FILE} has {vocab_size:,} tokens, {CONFIG_FILE} says {stated:,}: it was cut "
                "short; copy it again"
            )
        special_tokens = dict(ROLES)
        for source in (read_settings(folder / SPECIAL_TOKENS_FILE), config):
            for role in ROLES:
                if source.get(role) is not None:
                    special_tokens[role] = token_text(source[role], role, folder)
        for role in ("pad_token", "cls_token", "sep_token", "unk_token"):
            if special_tokens[role] not in token_to_id:
                raise CheckpointError(
                    f"{folder / VOCABULARY_FILE} has no {special_tokens[role]} (the {role}): "
                    "give the vocabulary that the model was trained with"
                )
        _refuse_what_is_not_done(config, vocab_size, folder)
        rules = TextRules(
            do_lower_case=_boolean(config, "do_lower_case", folder),
            strip_accents=None if config.get("strip_accents") is None else _boolean(config, "strip_accents", folder),
            tokenize_chinese_chars=_boolean(config, "tokenize_chinese_chars", folder),
            of_bert=config.get(WORD_RULES) == BERT_RULES,
        )
        return cls(
            vocabulary=vocabulary,
            token_to_id=token_to_id,
            vocab_size=vocab_size,
            rules=rules,
            special_tokens=special_tokens,
            config=_complete_config({**config, _LINES: vocab_size}, rules, special_tokens),
        )

    def in_small_letters(self) -> TokenizerFiles:
        """Return the same tokenizer, which makes capital letters small before it splits words into pieces."""
        rules = replace(self.rules, do_lower_case=True)
        return replace(self, rules=rules, config=_complete_config(self.config, rules, self.special_tokens))

    @property
    def may_fall_short(self) -> bool:
        """No: `vocab.txt` has a line for each token, and what lacks many was cut short."""
        return False

    @property
    def backend(self) -> str:
        """The built-in tokenizer."""
        return "builtin"

    def id_of(self, token: str) -> Optional[int]:
        """Return a token's id; None if the vocabulary lacks it."""
        return self.token_to_id.get(token)

    def template(self) -> PairTemplate:
        """Return `[CLS] query [SEP] title [SEP]`, which is truncated by the rules of those who split its words."""
        cls, sep = (self.token_to_id[self.special_tokens[role]] for role in ("cls_token", "sep_token"))
        keeps_end = self.config.get("truncation_side") == "left"
        return replace(bert_template(cls, sep), longer_keeps_more=self.rules.of_bert, keeps_end=keeps_end)

    def tokenizer(self) -> Tokenizer:
        """Return the built-in tokenizer."""
        return Tokenizer(self)

    def words(self) -> Sequence[str]:
        """Return the texts of all tokens but the special ones, without `##`."""
        special = {self.special_tokens[role] for role in ("pad_token", "cls_token", "sep_token", "unk_token")}
        return [token.removeprefix(CONTINUATION) for token in self.token_to_id if token not in special]

    def spelling(self) -> None:
        """Return None: a token and the same one inside a word (`##`) are two."""

    def write(self, folder: Path) -> None:
        """Write the three files into `folder`, which must exist."""
        (folder / VOCABULARY_FILE).write_bytes(self.vocabulary)
        _write_json(folder / CONFIG_FILE, self.config)
        _write_json(folder / SPECIAL_TOKENS_FILE, self.special_tokens)


def _read_vocabulary(folder: Path) -> tuple[bytes, dict[str, int], int]:
    path = folder / VOCABULARY_FILE
    try:
        content = read_file(path)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is not there: a model folder needs its vocabulary, one token a line; copy it beside the parameters"
        ) from None
    if content.count(b"\n") > _MOST_TOKENS:
        raise CheckpointError(f"{path}: has more than {_MOST_TOKENS:,} lines: it is no vocabulary")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CheckpointError(f"{path} line {line}: not UTF-8; save the vocabulary as UTF-8") from None
    # Lines as PaddleNLP's text mode counts them: \n, \r\n and \r end a line, \u2028 and its like do not.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    # The last of two equal tokens wins, as in PaddleNLP.
    return content, {token: i for i, token in enumerate(lines)}, len(lines)


def read_settings(path: Path, remedy: str = "restore it, or remove it to use the defaults") -> dict[str, Any]:
    """Return the object in a JSON file, or {} if there is no file; raises `CheckpointError` for other content."""
    try:
        values = read_json(path)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): {remedy}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, expected an object of settings")
    return values


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def token_text(value: Any, role: str, folder: Path) -> str:
    """Return the token of a role, as a settings file has it; raises `CheckpointError` if it is none."""
    text = value.get("content") if isinstance(value, dict) else value  # an AddedToken is saved as an object
    if not isinstance(text, str):
        raise CheckpointError(f"{folder}: {role} is {quoted(value)}, expected a token such as [UNK]")
    return text


def _boolean(config: dict[str, Any], name: str, folder: Path) -> bool:
    value = config.get(name, True)
    if not isinstance(value, bool):
        raise CheckpointError(f"{folder / CONFIG_FILE}: {name} is {quoted(value)}, expected true or false")
    return value


def _refuse_what_is_not_done(config: dict[str, Any], vocab_size: int, folder: Path) -> None:
    if config.get(WORD_RULES) not in (None, BERT_RULES):
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: {WORD_RULES} is {quoted(config[WORD_RULES])}: update the toolkit"
        )
    if config.get("do_basic_tokenize") is False:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: do_basic_tokenize false is not supported; set it to true where the model was "
            "trained with word splitting"
        )
    added = {**read_settings(folder / ADDED_TOKENS_FILE), **_ids_of_added_tokens(config)}
    beyond = [token for token, token_id in added.items() if not isinstance(token_id, int) or token_id >= vocab_size]
    if beyond:
        raise CheckpointError(
            f"{folder} adds the token {quoted(beyond[0])} to its vocabulary of {vocab_size}, which is not supported: "
            f"append added tokens to {VOCABULARY_FILE}, or train without them"
        )


def _ids_of_added_tokens(config: dict[str, Any]) -> dict[str, Any]:
    added = config.get("added_tokens_decoder") or {}
    return {str(token): int(token_id) for token_id, token in added.items() if str(token_id).isdecimal()}


def _complete_config(config: dict[str, Any], rules: TextRules, special_tokens: dict[str, str]) -> dict[str, Any]:
    is_ernie = rules.strip_accents is None and rules.tokenize_chinese_chars
    completed: dict[str, Any] = {**config, **special_tokens, "do_lower_case": rules.do_lower_case}
    completed.pop("name_or_path", None)  # where the folder lay on the machine that made it
    if not is_ernie:  # PaddleNLP's ErnieTokenizer ignores these two settings, its BertTokenizer honours them
        completed["tokenizer_class"] = "BertTokenizer"
    completed.setdefault("tokenizer_class", "ErnieTokenizer")
    return completed
