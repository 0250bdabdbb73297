"""Tokenizer files of a model folder: `vocab.txt` of WordPiece, ERNIE-M's two files, or Hugging Face's `tokenizer.json`.

PaddleNLP reads the written files as an equal tokenizer.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional, TypeVar

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.encoding.tokenizers.builtin import CONTINUATION, NO_TOKEN, Tokenizer, pattern_of
from paddle_ranker.encoding.tokenizers.interface import (
    FlatIds,
    Lengths,
    ModelTokenizer,
    PairTemplate,
    Spelling,
    bert_template,
)
from paddle_ranker.encoding.tokenizers.pieces import UNDERLINE, PieceTokenizer, without_surrogates
from paddle_ranker.encoding.tokenizers.text_rules import TextRules
from paddle_ranker.errors import CheckpointError, DependencyError, brief, package_for, quoted
from paddle_ranker.storage.atomic import write_json
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject, read_file, read_json
from paddle_ranker.unicode.character_kinds import normalise

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Library

VOCABULARY_FILE = "vocab.txt"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
ADDED_TOKENS_FILE = "added_tokens.json"
SENTENCEPIECE_FILE = "sentencepiece.bpe.model"
_LINES = "vocab_lines"  # a setting of this toolkit in CONFIG_FILE, which reveals a vocabulary that was cut short
IN_TEXTS = "special_tokens_in_texts"  # another setting: special tokens in texts get their ids; by default false
ADDITIONAL, _EXTRA = "additional_special_tokens", "extra_special_tokens"  # names before and since transformers 5
_ADDED = "added_tokens_decoder"  # tokens that were added to the vocabulary, by id
WORD_RULES, BERT_RULES = "word_rules", "bert"  # another setting: split words by BERT's rules; otherwise by PaddleNLP's
_MOST_TOKENS = 4_000_000  # several times the largest known vocabulary
ROLES = {  # roles of special tokens, with their default tokens
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


@dataclass(frozen=True)
class VocabularyFiles:
    """Files of a tokenizer with a `vocab.txt`; the base of two kinds of `ModelTokenizer`."""

    backend: ClassVar[str] = "builtin"
    may_fall_short: ClassVar[bool] = False  # `vocab.txt` has a line for each token
    vocabulary: bytes  # content of the file, so that a copy is byte-identical
    token_to_id: dict[str, int]  # tokens in `added` included
    vocab_size: int  # largest id + 1: a repeated token leaves a gap in token_to_id
    special_tokens: dict[str, str]  # "unk_token" -> "[UNK]", ...
    config: dict[str, Any]  # tokenizer_config.json with defaults filled in
    added: dict[str, int]  # tokens beyond vocab.txt, as PaddleNLP's `add_tokens` adds them

    def id_of(self, token: str) -> Optional[int]:
        return self.token_to_id.get(token)

    @property
    def special_tokens_in_texts(self) -> bool:
        return self.config.get(IN_TEXTS) is True

    @property
    def markers(self) -> dict[str, int]:
        declared = (*self.special_tokens.values(), *declared_tokens(self.config, Path(CONFIG_FILE)))
        return {token: self.token_to_id[token] for token in declared if token in self.token_to_id}

    def with_special_tokens_in_texts(self: FilesT) -> FilesT:
        return replace(self, config={**self.config, IN_TEXTS: True})

    def _role(self, role: str) -> int:
        return self.token_to_id[self.special_tokens[role]]

    @property
    def _special_ids(self) -> list[int]:
        return sorted({self.token_to_id[token] for token in self.special_tokens.values() if token in self.token_to_id})

    @property
    def _in_texts(self) -> set[str]:
        """Return the special tokens that get their ids in texts."""
        return set(self.markers) - {self.special_tokens["pad_token"]} if self.special_tokens_in_texts else set()

    @property
    def _found(self) -> dict[str, int]:
        """Return the added tokens that are no special ones."""
        return {token: number for token, number in self.added.items() if token not in self.markers}

    def words(self) -> Sequence[str]:
        """Return the texts of ordinary tokens, without `##` and the marks of spaces."""
        special = {self.special_tokens[role] for role in ("pad_token", "cls_token", "sep_token", "unk_token")}
        words = (
            token.removeprefix(CONTINUATION).lstrip(UNDERLINE) for token in self.token_to_id if token not in special
        )
        return [word for word in words if word]

    def write(self, folder: Path) -> None:
        (folder / VOCABULARY_FILE).write_bytes(self.vocabulary)
        write_json(folder / CONFIG_FILE, self.config)
        write_json(folder / SPECIAL_TOKENS_FILE, self.special_tokens)
        if self.added:
            write_json(folder / ADDED_TOKENS_FILE, self.added)


FilesT = TypeVar("FilesT", bound=VocabularyFiles)


def _read_common(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read `vocab.txt`, the settings, and the tokens beyond the vocabulary, which both kinds of tokenizers have.

    Returns the fields of `VocabularyFiles`, apart from the configuration, and the content of the settings.

    Raises `CheckpointError` if a file is missing, unreadable, or has unsupported settings.
    """
    vocabulary, token_to_id, lines = _read_vocabulary(folder)
    config = read_settings(folder / CONFIG_FILE)
    expected = config.get(_LINES)
    if isinstance(expected, int) and lines < expected:
        raise CheckpointError(
            f"{folder / VOCABULARY_FILE} has {lines:,} tokens, {CONFIG_FILE} says {expected:,}: it was cut short; copy "
            "it again"
        )
    special_map = read_settings(folder / SPECIAL_TOKENS_FILE)
    special_tokens = dict(ROLES)
    for source in (special_map, config):
        for role in ROLES:
            if source.get(role) is not None:
                special_tokens[role] = token_text(source[role], role, folder)
    for role in ("pad_token", "cls_token", "sep_token", "unk_token"):
        if special_tokens[role] not in token_to_id:
            raise CheckpointError(
                f"{folder / VOCABULARY_FILE} has no {special_tokens[role]} (the {role}): "
                "give the vocabulary that the model was trained with"
            )
    _refuse_what_is_not_done(config, folder)
    added = _added_tokens(folder, config, lines)
    known = {**token_to_id, **added}
    special = [token for token in declared_tokens(special_map, folder) if token in known]
    config = {**config, _LINES: lines, **({ADDITIONAL: special} if special and ADDITIONAL not in config else {})}
    fields = {
        "vocabulary": vocabulary, "token_to_id": known, "vocab_size": lines + len(added),
        "special_tokens": special_tokens, "added": added,
    }  # fmt: skip
    return fields, config


@dataclass(frozen=True)
class TokenizerFiles(VocabularyFiles):
    """Files of a WordPiece tokenizer; a `ModelTokenizer`."""

    rules: TextRules

    @classmethod
    def read(cls, folder: Path) -> TokenizerFiles:
        """Read `vocab.txt` and, if they exist, `tokenizer_config.json` and `special_tokens_map.json`.

        Raises `CheckpointError` if a file is missing, unreadable, or has unsupported settings.
        """
        fields, config = _read_common(folder)
        rules = TextRules(
            do_lower_case=_boolean(config, "do_lower_case", folder),
            strip_accents=None if config.get("strip_accents") is None else _boolean(config, "strip_accents", folder),
            tokenize_chinese_chars=_boolean(config, "tokenize_chinese_chars", folder),
            of_bert=config.get(WORD_RULES) == BERT_RULES,
        )
        return cls(**fields, rules=rules, config=_complete_config(config, rules, fields["special_tokens"]))

    def in_small_letters(self) -> TokenizerFiles:
        rules = replace(self.rules, do_lower_case=True)
        return replace(self, rules=rules, config=_complete_config(self.config, rules, self.special_tokens))

    def template(self) -> PairTemplate:
        """Return `[CLS] query [SEP] title [SEP]`, cut as in `tokenizers` if rules are BERT's, else as in PaddleNLP."""
        keeps_end = self.config.get("truncation_side") == "left"
        template = bert_template(self._role("cls_token"), self._role("sep_token"))
        return replace(template, longer_keeps_more=self.rules.of_bert, keeps_end=keeps_end)

    def tokenizer(self) -> Tokenizer:
        unknown, pieces = self._role("unk_token"), self.token_to_id
        if self.added:
            pieces = {token: number for token, number in pieces.items() if token not in self.added}
        return Tokenizer(self.rules, pieces, unknown, self.markers, self._in_texts, self._found)

    def spelling(self) -> None:
        """Return None: tokens are compared by ids, so `##a`, inside a word, differs from `a` at its beginning."""


@dataclass(frozen=True)
class ErnieMFiles(VocabularyFiles):
    """Files of ERNIE-M's tokenizer, whose ids are those of a `vocab.txt`; a `ModelTokenizer`."""

    backend: ClassVar[str] = "sentencepiece"
    model: bytes  # content of the SentencePiece model's file

    @classmethod
    def read(cls, folder: Path) -> ErnieMFiles:
        """Read the files of a folder as `TokenizerFiles.read` does, and `sentencepiece.bpe.model`."""
        fields, config = _read_common(folder)
        lowers = config.get("do_lower_case") is not None and _boolean(config, "do_lower_case", folder)
        model = read_file(folder / SENTENCEPIECE_FILE, MOST_BYTES)
        special = fields["special_tokens"]
        config = {"tokenizer_class": "ErnieMTokenizer", **config, **special, "do_lower_case": lowers}
        config.pop("name_or_path", None)
        files = cls(**fields, config=config, model=model)
        try:
            files.tokenizer()
        except CheckpointError as error:
            raise CheckpointError(f"{folder / SENTENCEPIECE_FILE}: {error}") from error
        return files

    def in_small_letters(self) -> ErnieMFiles:
        return replace(self, config={**self.config, "do_lower_case": True})

    def template(self) -> PairTemplate:
        """Return `[CLS] query [SEP] [SEP] title [SEP]`, cut as in PaddleNLP."""
        first, last = (self._role("cls_token"),), (self._role("sep_token"),)
        keeps_end = self.config.get("truncation_side") == "left"
        return PairTemplate(first, last * 2, last, first, last, keeps_end=keeps_end)

    def tokenizer(self) -> PieceTokenizer:
        lowers, unknown = self.config["do_lower_case"], self._role("unk_token")
        pieces = {token: number for token, number in self.token_to_id.items() if token not in self.added}
        return PieceTokenizer(self.model, lowers, pieces, unknown, self.markers, self._in_texts, self._found)

    def spelling(self) -> Spelling:
        """Return the classes of tokens with equal texts, without the marks of spaces."""
        texts = [""] * self.vocab_size
        for token, number in self.token_to_id.items():
            texts[number] = token.replace(UNDERLINE, " ")
        for number in self._special_ids:
            texts[number] = ""
        return _spelling(texts, self._special_ids, self._role("pad_token"))

    def write(self, folder: Path) -> None:
        super().write(folder)
        (folder / SENTENCEPIECE_FILE).write_bytes(self.model)


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
    """Read the object in a JSON file; return {} if there is no file. Raises `CheckpointError` for other content.

    remedy: advice at the end of the error
    """
    try:
        values = read_json(path)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): {remedy}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, expected an object of settings")
    return values


def role_sources(settings: UncheckedObject, special_map: UncheckedObject) -> tuple[UncheckedObject, UncheckedObject]:
    """Return the contents of both files that state tokens by role; the later one counts, as in transformers.

    settings, special_map: contents of `CONFIG_FILE` and `SPECIAL_TOKENS_FILE`
    """
    return (special_map, settings) if _ADDED in settings else (settings, special_map)


def token_text(value: Any, role: str, folder: Path) -> str:
    """Return the token that an entry of a settings file states; raises `CheckpointError` if the entry is invalid.

    value: the entry, a text or an object
    role: the entry's name, for the message
    """
    text = value.get("content") if isinstance(value, dict) else value  # an AddedToken is saved as an object
    if not isinstance(text, str):
        raise CheckpointError(f"{folder}: {role} is {quoted(value)}, expected a token such as [UNK]")
    return text


def declared_tokens(settings: UncheckedObject, path: Path) -> list[str]:
    """Return the special tokens without a role in a settings file; raises `CheckpointError` for other entries."""
    found: list[str] = []
    for name in (ADDITIONAL, _EXTRA):
        tokens = settings.get(name) or ()
        if not isinstance(tokens, (list, tuple, dict)):
            raise CheckpointError(f"{path}: {name} is {quoted(tokens)}, expected a list of tokens; copy it again")
        found += (token_text(token, name, path) for token in (tokens.values() if isinstance(tokens, dict) else tokens))
    added = settings.get(_ADDED) or {}
    entries = added.values() if isinstance(added, dict) else ()
    return found + [str(token.get("content")) for token in entries if isinstance(token, dict) and token.get("special")]


def _boolean(config: dict[str, Any], name: str, folder: Path) -> bool:
    value = config.get(name, True)
    if not isinstance(value, bool):
        raise CheckpointError(f"{folder / CONFIG_FILE}: {name} is {quoted(value)}, expected true or false")
    return value


def _refuse_what_is_not_done(config: dict[str, Any], folder: Path) -> None:
    if config.get(WORD_RULES) not in (None, BERT_RULES):
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: {WORD_RULES} is {quoted(config[WORD_RULES])}: update the toolkit"
        )
    if config.get(IN_TEXTS) not in (None, True, False):
        raise CheckpointError(f"{folder / CONFIG_FILE}: {IN_TEXTS} is {quoted(config[IN_TEXTS])}, not true or false")
    if config.get("do_basic_tokenize") is False:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: do_basic_tokenize false is not supported; set it to true where the model was "
            "trained with word splitting"
        )


def _added_tokens(folder: Path, config: dict[str, Any], lines: int) -> dict[str, int]:
    """Return the tokens that PaddleNLP's `add_tokens` has added behind the vocabulary, with their ids.

    lines: number of tokens in the vocabulary

    Raises `CheckpointError` unless their ids go on from the vocabulary's.
    """
    tokens = {**read_settings(folder / ADDED_TOKENS_FILE), **_ids_of_added_tokens(config)}
    beyond = {token: number for token, number in tokens.items() if type(number) is not int or number >= lines}
    ids = [*beyond.values()]
    go_on = all(type(number) is int for number in ids) and sorted(ids) == [*range(lines, lines + len(ids))]
    if "" in beyond or not go_on:
        raise CheckpointError(
            f"{folder} adds the token {quoted(next(iter(beyond)))} to its vocabulary of {lines}, and the ids of added "
            f"tokens are not {lines}, {lines + 1} and so on: they are of another vocabulary; save the tokenizer again"
        )
    return dict(sorted(beyond.items(), key=lambda item: item[1]))


def _ids_of_added_tokens(config: dict[str, Any]) -> dict[str, Any]:
    added = config.get(_ADDED) or {}
    return {
        str(token.get("content") if isinstance(token, dict) else token): int(token_id)
        for token_id, token in (added.items() if isinstance(added, dict) else ())
        if str(token_id).isdecimal()
    }


def _complete_config(config: dict[str, Any], rules: TextRules, special_tokens: dict[str, str]) -> dict[str, Any]:
    is_ernie = rules.strip_accents is None and rules.tokenize_chinese_chars
    completed: dict[str, Any] = {**config, **special_tokens, "do_lower_case": rules.do_lower_case}
    completed.pop("name_or_path", None)  # a path on the machine that wrote the folder
    if not is_ernie:  # PaddleNLP's ErnieTokenizer ignores these two settings, its BertTokenizer honours them
        completed["tokenizer_class"] = "BertTokenizer"
    completed.setdefault("tokenizer_class", "ErnieTokenizer")
    return completed


TOKENIZER_FILE = "tokenizer.json"
MOST_BYTES = 256 * 1024 * 1024  # maximum size of tokenizer.json; 250,000 tokens take 17 million bytes
# Default tokens of roles; the first that the vocabulary has is used.
_USUAL = {
    "unk_token": ("<unk>", "[UNK]"),
    "pad_token": ("<pad>", "[PAD]", "<|endoftext|>"),
    "mask_token": ("<mask>", "[MASK]"),
    "cls_token": ("<s>", "[CLS]"),
    "sep_token": ("</s>", "[SEP]"),
}
# SentencePiece's tokens of single bytes, and the characters that stand for bytes in byte-level BPE:
# https://github.com/openai/gpt-2/blob/master/src/encoder.py
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
_VISIBLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_BYTES = {chr(byte): byte for byte in _VISIBLE}
_BYTES.update((chr(0x100 + n), byte) for n, byte in enumerate(sorted({*range(0x100)}.difference(_VISIBLE))))
_UNDECODABLE = "\ufffd"  # occurs in decoded tokens that are parts of characters
_PART = re.compile("[\udc80-\udcff]")  # an escaped byte of a partial character


@dataclass(frozen=True)
class LibraryFiles:
    """Files of a tokenizer of Hugging Face's `tokenizers`, here called the library; a `ModelTokenizer`.

    files: content by file name, so that copies are byte-identical
    special_tokens: tokens by role
    settings: content of tokenizer_config.json
    """

    backend: ClassVar[str] = "tokenizers"
    may_fall_short: ClassVar[bool] = True  # some models have embeddings for later tokens
    files: dict[str, bytes]
    special_tokens: dict[str, str]
    settings: UncheckedObject

    @classmethod
    def read(cls, folder: Path) -> LibraryFiles:
        """Read `tokenizer.json` and, if they exist, `tokenizer_config.json` and `special_tokens_map.json`.

        Raises `CheckpointError` if a file is unusable, or the tokenizer has no padding token.
        """
        path = folder / TOKENIZER_FILE
        files = {TOKENIZER_FILE: read_file(path, MOST_BYTES)}
        settings: UncheckedObject = {}
        special: dict[str, str] = {}
        for name in (SPECIAL_TOKENS_FILE, CONFIG_FILE):
            if (folder / name).is_file():
                files[name] = read_file(folder / name)
        settings = read_settings(folder / CONFIG_FILE)
        for source in role_sources(settings, read_settings(folder / SPECIAL_TOKENS_FILE)):
            named = [role for role in _USUAL if source.get(role) is not None]
            special.update((role, token_text(source[role], role, folder)) for role in named)
        loaded = cls(files, special, settings)
        try:
            library = loaded.library
            library.encode("a")
            library.encode("a", "b")
        except (DependencyError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises nothing more special, and panics, which are no exceptions
            raise CheckpointError(f"{path}: the tokenizers library cannot read it ({brief(str(error))})") from None
        for role, tokens in _USUAL.items():
            present = [
                token for token in (special.get(role), *tokens) if token and library.token_to_id(token) is not None
            ]
            if present:
                special[role] = present[0]
        loaded._hide_special_tokens(library)
        if "pad_token" not in special:
            raise CheckpointError(f"{path}: has no pad_token ({' or '.join(_USUAL['pad_token'])}); copy it again")
        return loaded

    @property
    def special_tokens_in_texts(self) -> bool:
        return self.settings.get(IN_TEXTS) is True

    @cached_property
    def markers(self) -> dict[str, int]:
        declared = self.library.get_added_tokens_decoder().values()
        found = [token.content for token in declared if token.special]
        found += declared_tokens(self.settings, Path(CONFIG_FILE))
        ids = {token: self.id_of(token) for token in (*found, *self.special_tokens.values())}
        return {token: number for token, number in ids.items() if token and number is not None}

    def with_special_tokens_in_texts(self) -> LibraryFiles:
        settings = {**self.settings, IN_TEXTS: True}
        content = json.dumps(settings, ensure_ascii=False, indent=2).encode("utf-8")
        return replace(self, files={**self.files, CONFIG_FILE: content}, settings=settings)

    @property
    def library(self) -> Library:
        """Tokenizer of the library, without truncation and padding; special tokens in texts are plain text."""
        return self._opened[0]

    @cached_property
    def _opened(self) -> tuple[Library, str]:
        """Tokenizer of the library, and the side at which it truncates, "left" or "right"."""
        with package_for(TOKENIZER_FILE, "tokenizers"):
            from tokenizers import Tokenizer as Library
        # Threads of the library would compete with the server's and the engine's, and the library would warn of forks.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        library = Library.from_buffer(self.files[TOKENIZER_FILE])
        side = (library.truncation or {}).get("direction", "right")
        library.no_truncation()
        library.no_padding()
        library.encode_special_tokens = True
        self._hide_special_tokens(library)
        return library, self.settings.get("truncation_side") or side

    def _hide_special_tokens(self, library: Library) -> None:
        """Replace special tokens in texts by a character that is in no vocabulary, where they would get their ids.

        Unigram and WordLevel ignore `encode_special_tokens` and find these tokens in their vocabularies.
        """
        from tokenizers import normalizers

        unknown = self.special_tokens.get("unk_token")
        for token in sorted({*self.special_tokens.values()} - {unknown}):
            if library.token_to_id(token) in library.encode(f"{token} a{token}", add_special_tokens=False).ids:
                steps = [] if library.normalizer is None else [library.normalizer]
                library.normalizer = normalizers.Sequence([*steps, normalizers.Replace(token, _MARK)])

    def with_plain_texts(self) -> LibraryFiles:
        """Return the files of a tokenizer that gives special tokens in texts no ids of theirs in transformers, too."""
        normalizer: Unchecked = self.library.normalizer
        described = "" if normalizer is None else bytes(normalizer.__getstate__()).decode("utf-8")
        if _MARK not in described:
            return self
        content = {**json.loads(self.files[TOKENIZER_FILE]), "normalizer": json.loads(described)}
        return replace(self, files={**self.files, TOKENIZER_FILE: json.dumps(content, ensure_ascii=False).encode()})

    @cached_property
    def vocab_size(self) -> int:
        # Creating a dict of all tokens is slow; only ids with gaps need it.
        count, added = self.library.get_vocab_size(with_added_tokens=False), self.library.get_added_tokens_decoder()
        is_known = self.library.id_to_token
        if count and is_known(count - 1) is not None and (count in added or is_known(count) is None):
            return max([count, *(number + 1 for number in added)])
        return max(self.token_to_id.values()) + 1

    @cached_property
    def token_to_id(self) -> dict[str, int]:
        return self.library.get_vocab(with_added_tokens=True)

    def id_of(self, token: str) -> Optional[int]:
        return self.library.token_to_id(token)

    @property
    def gives_types(self) -> bool:
        """Whether a pair's tokens have type 1 from the second text's first token on; False if all have type 0.

        Raises `CheckpointError` for any other types.
        """
        pair, alone = self.library.encode("a", "b"), self.library.encode("a")
        _around(pair, 2)
        second = pair.sequence_ids.index(1)
        usual = [0] * second + [1] * (len(pair.ids) - second)
        if any(alone.type_ids) or pair.type_ids not in (usual, [0] * len(usual)):
            raise CheckpointError(
                f"{TOKENIZER_FILE}: its post_processor gives the tokens of a pair the types {pair.type_ids}, of a text "
                f"{alone.type_ids}; only {usual}, and 0 of a text, is done here"
            )
        return any(pair.type_ids)

    def in_small_letters(self) -> LibraryFiles:
        from tokenizers import Tokenizer as Library
        from tokenizers import normalizers

        library = Library.from_buffer(self.files[TOKENIZER_FILE])
        others = [] if library.normalizer is None else [library.normalizer]
        library.normalizer = normalizers.Sequence([normalizers.Lowercase(), *others])
        return replace(self, files={**self.files, TOKENIZER_FILE: library.to_str().encode("utf-8")})

    def template(self) -> PairTemplate:
        """Return the special tokens that the library's post-processor adds to a pair and to a single text."""
        before, between, after = _around(self.library.encode("a", "b"), 2)
        alone, plain = self.library.encode("a"), self.library.encode("a", add_special_tokens=False)
        text_before, text_after = _around(alone, 1)
        if alone.ids[len(text_before) : len(alone.ids) - len(text_after)] != plain.ids:
            raise CheckpointError(f"{TOKENIZER_FILE}: its post_processor has no place for a text; copy it again")
        return PairTemplate(before, between, after, text_before, text_after, True, self._opened[1] == "left")

    def tokenizer(self) -> LibraryTokenizer:
        in_prompts, in_texts = pattern_of(self.markers), self.special_tokens_in_texts
        return LibraryTokenizer(self.library, in_prompts, lambda: self._marked, in_texts)

    @cached_property
    def _marked(self) -> MarkedLibrary:
        """Return a copy of the library's tokenizer that has a second token for each special token."""
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as Library

        library, count = Library.from_buffer(self.files[TOKENIZER_FILE]), self.vocab_size
        library.no_truncation()
        library.no_padding()
        library.encode_special_tokens = True  # the second tokens are no special ones
        self._hide_special_tokens(library)
        flags = {token.content: {name: getattr(token, name) for name in _FLAGS} for token in
                 library.get_added_tokens_decoder().values()}  # fmt: skip
        for entry in (self.settings.get(_ADDED) or {}).values():  # takes precedence in transformers
            flags[entry["content"]] = {name: bool(entry.get(name)) for name in _FLAGS}
        gaps = count - library.get_vocab_size()  # new tokens would get the ids of others
        library.add_tokens([AddedToken(f"{_MARK}-{number}{_MARK}", normalized=False) for number in range(gaps)])
        seconds = {token: f"{_MARK}{number}{_MARK}" for number, token in enumerate(self.markers)}
        library.add_tokens([
            AddedToken(second, normalized=False, **flags.get(token, {}))
            for token, second in seconds.items()
        ])  # fmt: skip
        last = max([library.get_vocab_size() - 1, *map(library.token_to_id, seconds.values())])
        ids = np.arange(last + 1, dtype=np.int32)
        for token, second in seconds.items():
            ids[library.token_to_id(second)] = self.markers[token]
        padding = self.special_tokens["pad_token"]
        return MarkedLibrary(library, seconds, pattern_of(set(seconds) - {padding}), ids)

    def _texts(self) -> list[str]:
        """Return the text of each token: "" for special tokens, escaped bytes for partial characters.

        The texts are not cached, since 250,000 tokens take 20 MB.
        """
        texts = self.library.decode_batch([[number] for number in range(self.vocab_size)], skip_special_tokens=False)
        for number, text in enumerate(texts):
            if _UNDECODABLE in text:
                texts[number] = _of_bytes(self.library.id_to_token(number), text)
        for number in self._special_ids:
            texts[number] = ""
        return texts

    @property
    def _special_ids(self) -> list[int]:
        ids = {self.library.token_to_id(token) for token in self.special_tokens.values()}
        return sorted(number for number in ids if number is not None)

    def words(self) -> Sequence[str]:
        """Return the texts of tokens that consist of whole characters."""
        inner = getattr(self.library.model, "continuing_subword_prefix", None) or ""  # of WordPiece
        words = (text.strip().removeprefix(inner) for text in self._texts())
        return [word for word in words if word and not _PART.search(word)]

    def spelling(self) -> Spelling:
        """Return the classes of tokens with equal texts, stripped, normalised and in lower case."""
        padding = self.id_of(self.special_tokens["pad_token"])
        assert padding is not None  # `read` has looked for it
        return _spelling(self._texts(), self._special_ids, padding)

    def write(self, folder: Path) -> None:
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def _spelling(texts: Sequence[str], special: Sequence[int], padding: int) -> Spelling:
    """Return the classes of tokens with equal texts, stripped, normalised and in lower case.

    texts: text of each token, "" for special tokens
    special: ids of the special tokens
    padding: id of the padding token
    """
    spelled = [normalise(text.strip()) for text in texts]
    first: dict[str, int] = {}
    ids = np.fromiter((first.setdefault(text, number) for number, text in enumerate(spelled)), np.int64)
    blank = np.fromiter((not text for text in spelled), bool)
    ids[blank] = padding
    blank[[*special]] = False
    inside = np.fromiter(("\udc80" <= text[:1] <= "\udcbf" for text in texts), bool)
    return Spelling(ids, inside, blank)


_MARK = "\ufdd0"  # a noncharacter: no text needs it, and no tokenizer has it
_FLAGS = ("single_word", "lstrip", "rstrip")  # of a token that was added to a vocabulary


@dataclass(frozen=True)
class MarkedLibrary:
    """Tokenizer of the library for texts of which some special tokens count, and others are plain text.

    seconds: second tokens by special token; in a text, a special token counts if it is replaced by its second
    in_texts: pattern of the special tokens that may count in texts
    ids: the id of a token, by its id in `library`, `[tokens] int32`; a second token has that of its special token
    """

    library: Library
    seconds: dict[str, str]
    in_texts: re.Pattern[str]
    ids: NDArray[np.int32]

    def replaced(self, text: str, pattern: re.Pattern[str]) -> str:
        """Return a text with the second tokens of its special tokens."""
        return pattern.sub(lambda found: self.seconds[found[0]], text.replace(_MARK, _UNDECODABLE))


class LibraryTokenizer:
    """Encoder of texts with `tokenizers`, which releases the GIL.

    in_prompts: pattern of the special tokens that count in prompts
    marked: returns the tokenizer for prompts and texts with special tokens
    in_texts: whether special tokens in texts get their ids
    """

    def __init__(
        self,
        library: Library,
        in_prompts: re.Pattern[str],
        marked: Callable[[], MarkedLibrary],
        in_texts: bool = False,
    ):
        self._library, self._in_prompts, self._make_marked = library, in_prompts, marked
        self._marks_texts, self._prompt = in_texts, ""

    def after(self, prompt: str) -> LibraryTokenizer:
        prompted = copy(self)
        prompted._prompt = without_surrogates(prompt)
        return prompted

    def encode(self, texts: Sequence[str], most: Optional[int] = None) -> FlatIds:
        library, marked, texts = self._library, None, [*map(without_surrogates, texts)]
        prompt = self._prompt
        if self._marks_texts or self._in_prompts.search(prompt):
            marked = self._make_marked()
            library = marked.library
            prompt = marked.replaced(prompt, self._in_prompts)
            in_texts = marked.in_texts if self._marks_texts else NO_TOKEN
            texts = [marked.replaced(text, in_texts) for text in texts]
        if prompt:
            texts = [prompt + text for text in texts]
        rows = [e.ids for e in library.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        flat = np.fromiter((number for row in rows for number in row), np.int32, count=int(lengths.sum()))
        return flat if marked is None else marked.ids[flat], lengths

    def ends(self, texts: Sequence[str]) -> list[Lengths]:
        texts = [*map(without_surrogates, texts)]
        if self._marks_texts:
            return [self._ends_of_marked(text) for text in texts]
        encodings = self._library.encode_batch(texts, add_special_tokens=False)
        return [np.maximum.accumulate([0, *(end for _, end in encoding.offsets)])[1:] for encoding in encodings]

    def _ends_of_marked(self, text: str) -> Lengths:
        """Return the ends of the tokens of a text with special tokens, in its own code points."""
        marked = self._make_marked()
        text = text.replace(_MARK, _UNDECODABLE)
        ends: list[int] = [0]  # by the end of a code point in the replaced text
        for number, part in enumerate(marked.in_texts.split(text)):
            if number % 2:
                ends += [ends[-1]] * (len(marked.seconds[part]) - 1) + [ends[-1] + len(part)]
            else:
                ends += range(ends[-1] + 1, ends[-1] + len(part) + 1)
        encoding = marked.library.encode(marked.replaced(text, marked.in_texts), add_special_tokens=False)
        found = np.array(ends, np.int64)[[0, *(end for _, end in encoding.offsets)]]
        return np.maximum.accumulate(found)[1:]


def _of_bytes(token: str, text: str) -> str:
    """Return the text of a token: its decoded bytes if it stands for bytes, else `text`, the library's decoding."""
    byte = _BYTE.fullmatch(token)
    if byte is None and not all(char in _BYTES for char in token):
        return text
    content = bytes([int(byte[1], 16)] if byte else map(_BYTES.__getitem__, token))
    return content.decode("utf-8", "surrogateescape")


def _around(encoding: Encoding, texts: int) -> list[tuple[int, ...]]:
    """Return the special tokens before, between and after the texts of an encoding: `texts` + 1 tuples of ids.

    texts: number of texts that were encoded together

    Raises `CheckpointError` unless the texts occur once each, in order.
    """
    order = [text for text, _ in groupby(text for text in encoding.sequence_ids if text is not None)]
    usual = list(range(texts))
    if order != usual:
        raise CheckpointError(
            f"{TOKENIZER_FILE}: its post_processor puts texts in the order {order}, only {usual} is done here"
        )
    parts: list[list[int]] = [[] for _ in range(texts + 1)]
    place = 0
    for number, text in zip(encoding.ids, encoding.sequence_ids):
        if text is None:
            parts[place].append(number)
        else:
            place = text + 1
    return [tuple(part) for part in parts]


TOKENIZER_FILES = (
    VOCABULARY_FILE, SENTENCEPIECE_FILE, TOKENIZER_FILE, CONFIG_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE
)  # fmt: skip


def read_tokenizer(folder: Path) -> ModelTokenizer:
    """Read a folder's `vocab.txt`, or else its `tokenizer.json`.

    With `sentencepiece.bpe.model` beside it, a `vocab.txt` is ERNIE-M's; no other model has both.

    Raises `CheckpointError` if the folder has neither, or the files are unusable.
    """
    has_words, has_pieces = ((folder / name).is_file() for name in (VOCABULARY_FILE, SENTENCEPIECE_FILE))
    if not has_words and (folder / TOKENIZER_FILE).is_file():
        return LibraryFiles.read(folder)
    return ErnieMFiles.read(folder) if has_words and has_pieces else TokenizerFiles.read(folder)
