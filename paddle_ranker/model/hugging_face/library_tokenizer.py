"""Convert the tokenizer of a transformers folder, so that texts get the ids that transformers gives them.

The behaviour of transformers depends on the tokenizer's class. BERT's classes take only the vocabulary from the files,
and their rules from `tokenizer_config.json`; other classes use `tokenizer.json`. A tokenizer with BERT's rules becomes
a `vocab.txt` for the built-in tokenizer, which is several times faster; others become or stay a `tokenizer.json`.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker.encoding.tokenizers.interface import bert_template
from paddle_ranker.encoding.tokenizers.text_rules import TextRules
from paddle_ranker.encoding.tokenizers.tokenizer_folder import (
    ADDED_TOKENS_FILE,
    CONFIG_FILE,
    IN_TEXTS,
    MOST_BYTES,
    ROLES,
    SENTENCEPIECE_FILE,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    LibraryFiles,
    declared_tokens,
    read_settings,
    role_sources,
    token_text,
)
from paddle_ranker.errors import CheckpointError, brief, quoted
from paddle_ranker.model.hugging_face.tokenizer import (
    library_tokenizer,
    rules_of_json,
    vocabulary_of_json,
    write_word_pieces,
)
from paddle_ranker.notes import note_once
from paddle_ranker.protos import Message, message_class
from paddle_ranker.storage.atomic import write_json
from paddle_ranker.storage.foreign_config import ForeignConfig
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject, read_file, read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SENTENCEPIECE_FILES = (SENTENCEPIECE_FILE, "spm.model", "spiece.model")
PIECES_FILE, MERGES_FILE = "vocab.json", "merges.txt"  # files of byte-level BPE
MODULES_FILE = "modules.json"  # file of sentence-transformers
LENGTH_FILE, MODEL_FILE = "sentence_bert_config.json", "config_sentence_transformers.json"
# Names of `LENGTH_FILE` in the library's first versions, in its order.
_OLD_LENGTH_FILES = [
    f"sentence_{name}_config.json" for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
CROSS_ENCODER, SENTENCE_TRANSFORMER = "CrossEncoder", "SentenceTransformer"  # model types of sentence-transformers
_BERT, _MPNET, _TAPAS = "BertTokenizer", "MPNetTokenizer", "TapasTokenizer"
_QWEN, _CLIP, _SIGLIP = "Qwen2Tokenizer", "CLIPTokenizer", "SiglipTokenizer"
_OF_MODEL = {  # default classes by model_type; BERT's for others
    "mpnet": "MPNetTokenizer", "deberta-v2": "DebertaV2Tokenizer", "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer", "camembert": "CamembertTokenizer", "modernbert": "TokenizersBackend",
    "longformer": "RobertaTokenizer", "lilt": "RobertaTokenizer",
    "big_bird": "BigBirdTokenizer", "tapas": _TAPAS, "qwen3": _QWEN, "clip": _CLIP, "siglip": _SIGLIP,
}  # fmt: skip
# Classes that return token types unless model_input_names omits them.
_TYPED = (
    _BERT, "ElectraTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer", "LayoutLMTokenizer", "TapasTokenizer",
    "DebertaV2Tokenizer",
)  # fmt: skip
_BERTS = (*_TYPED[:-1], "DistilBertTokenizer", _MPNET)  # classes with BERT's rules
# Special tokens by default, of classes with others than BERT's.
_ROLES_OF = {
    _MPNET: dict(zip(ROLES, ("[UNK]", "</s>", "<pad>", "<s>", "<mask>"))),
    _CLIP: {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    _SIGLIP: {"unk_token": "<unk>", "pad_token": "</s>"},
}
_GENERIC = ("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend")  # these use tokenizer.json unchanged
_PADDLE = "Ernie"  # prefix of the names of PaddleNLP's classes
# Keys of tokenizer_config.json and special_tokens_map.json that never change ids. They are about decoding, file paths,
# chats, padding, unsupported kinds of tokenizers, and special tokens, which are plain text inside texts here.
_WITHOUT_EFFECT = (
    "add_bos_token", "add_eos_token", "additional_special_tokens", "auto_map", "backend", "bos_token",
    "chat_template", "clean_up_tokenization_spaces", "do_lowercase", "empty_token", "eos_token", "errors",
    "extra_special_tokens", "from_slow", "full_tokenizer_file", "init_inputs", "is_local", "keep_accents", "legacy",
    "local_files_only", "max_column_id", "max_length", "max_row_id", "merges_file",
    "model_specific_special_tokens", "name_or_path", "never_split", "pad_to_multiple_of", "pad_token_type_id",
    "padding_side", "processor_class", "sp_model_kwargs", "special_tokens_map_file", "split_special_tokens", "stride",
    "tokenizer_file", "trim_offsets", "truncation_strategy", "unk_id", "update_answer_coordinates", "use_fast",
    "verbose", "vocab_file", "vocab_type", "vocab_lines",
)  # fmt: skip
# Keys that `gives_types`, `stated_length` and `LibraryFiles` use, and rules that tokenizer.json contains.
_ELSEWHERE = (
    "model_input_names", "model_max_length", "max_len", "word_rules", "truncation_side", "add_prefix_space",
    "do_lower_case", "strip_accents", "tokenize_chinese_chars", "split_by_punct",
)  # fmt: skip
# Other values, such as MeCab, are unsupported.
_JAPANESE = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"}
EMPTY_CELL = "[EMPTY]"  # token of a cell without letters and digits, in a table
_OF_TABLES = {"cell_trim_length": -1, "strip_column_names": False}
# Keys of tokenizer.json that the library reads, or that never change ids.
_JSON_KEYS = ("version", "padding", "pre_tokenizer", "post_processor", "decoder", "model", "normalizer", "added_tokens")
# Options of sentence-transformers for loading weights; results are computed in float32 here.
_LOADING = ("torch_dtype", "dtype", "attn_implementation", "device_map", "low_cpu_mem_usage", "trust_remote_code",
            "use_cache", "use_safetensors", "revision", "token", "add_pooling_layer", "cache_dir", "local_files_only",
            "subfolder", "use_fast", "padding_side", "output_hidden_states")  # fmt: skip
# Output of transformers that a step reads for a task, and its name among sentence-transformers' steps.
_OUTPUTS = {
    "feature-extraction": ("last_hidden_state", "token_embeddings"), "sequence-classification": ("logits", "scores"),
    "text-generation": ("logits", "causal_logits"),
}  # fmt: skip
_SHORTEST, _LONGEST = 5, 1_000_000  # transformers writes an astronomical number for an unknown length
_FALLBACK_LENGTH = 512


@dataclass(frozen=True)
class TokenizerDescription:
    """Settings of a tokenizer in a transformers folder, apart from `tokenizer.json`.

    name: the class in transformers, without "Fast"
    settings: contents of `tokenizer_config.json`
    special: special tokens by role ("pad_token"), from `special_tokens_map.json` and the settings; BERT's by default
    added: tokens added to the vocabulary, by id, in the format of `tokenizer.json`
    declared: special tokens without a role
    stated: the tokens among `special` that a file states, and `bos_token` and `eos_token`, by role
    """

    folder: Path
    name: str
    settings: ForeignConfig
    special: dict[str, str]
    added: dict[int, UncheckedObject]
    declared: list[str]
    stated: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> TokenizerDescription:
        """Read a folder's files; raises `CheckpointError` if a file is damaged or has unsupported settings."""
        settings = ForeignConfig.read(folder / CONFIG_FILE, _WITHOUT_EFFECT)
        config = read_settings(folder / "config.json", "copy it again")
        usual = _OF_MODEL.get(str(config.get("model_type")), _BERT)
        if usual not in _BERTS and (folder / VOCABULARY_FILE).is_file() and not (folder / TOKENIZER_FILE).is_file():
            usual = _BERT  # some RoBERTas have word pieces
        name = str(settings.get("tokenizer_class") or config.get("tokenizer_class") or usual).removesuffix("Fast")
        name = "RobertaTokenizer" if name == "LongformerTokenizer" else name
        if config.get("model_type") == "ernie_gram":  # unknown to transformers
            name = _PADDLE
        for key, done in _JAPANESE.items():
            settings.require(key, done, remedy="take a model whose texts are split without a dictionary")
        for key in ("do_basic_tokenize", "do_subword_tokenize"):
            settings.require(key, True, remedy="take a model whose texts are split into words and their pieces")
        settings.require("max_question_length", remedy="remove it: long questions are cut to the pair's length")
        settings.require("min_question_length", 0, 1, remedy="remove it: short questions are read too")
        if name == _TAPAS:
            token = settings.get("empty_token", EMPTY_CELL)
            if token_text(token, "empty_token", folder) != EMPTY_CELL:
                raise settings.error(f"empty_token is {quoted(token)}; only {EMPTY_CELL} is done here")
            for key, default in (("do_basic_tokenize", True), ("split_special_tokens", False)):
                if settings.flag(key, default) is not default:  # null is false, as in TapasTokenizer
                    only = str(default).lower()
                    raise settings.error(f"{key} is {str(not default).lower()}; only {only} is done here")
        for key, value in _OF_TABLES.items():
            settings.require(key, value, remedy=f"set it to {value}, as published tokenizers of tables have it")
        special_map = ForeignConfig.read(folder / SPECIAL_TOKENS_FILE, _WITHOUT_EFFECT)
        special = {**ROLES, **_ROLES_OF.get(name, {})}
        files = (read_settings(folder / CONFIG_FILE), read_settings(folder / SPECIAL_TOKENS_FILE))
        stated = {role: token_text(source[role], role, folder) for source in role_sources(*files)
                  for role in (*ROLES, "bos_token", "eos_token") if source.get(role) is not None}  # fmt: skip
        special.update((role, stated[role]) for role in ROLES if role in stated)
        settings.ignore(ROLES)
        special_map.ignore(ROLES)
        special_map.log_unknown()
        settings.require(IN_TEXTS, True, False, remedy="set it to true or false")
        declared = [token for file in files for token in declared_tokens(file, folder)]
        added = _added_tokens(folder, settings, special.values())
        return cls(folder, name, settings, special, added, declared, stated)

    @property
    def is_paddles(self) -> bool:
        """Whether the model's texts are split by PaddleNLP's rules, as the name of the tokenizer's class says."""
        return self.name.startswith(_PADDLE)

    @property
    def goes_by_settings(self) -> bool:
        """Whether the tokenizer's class takes its rules from the settings, and only its vocabulary from other files."""
        return self.name in _BERTS or self.is_paddles

    @property
    def has_library(self) -> bool:
        """Whether the folder has a `tokenizer.json`."""
        return (self.folder / TOKENIZER_FILE).is_file()

    @property
    def library_json(self) -> UncheckedObject:
        """Contents of `tokenizer.json`; reading a large file takes a second."""
        return read_settings(self.folder / TOKENIZER_FILE, "copy it again")

    @property
    def added_in_library(self) -> dict[int, str]:
        """Texts of the tokens that `tokenizer.json` adds to its vocabulary, by id; damaged entries are left out."""
        tokens = self.library_json.get("added_tokens")
        entries = [token for token in tokens if isinstance(token, dict)] if isinstance(tokens, list) else []
        return {token["id"]: str(token.get("content")) for token in entries if type(token.get("id")) is int}

    def rule(self, name: str, default: Optional[bool] = None) -> Optional[bool]:
        """Return a boolean setting, `default` if it is missing; raises `CheckpointError` if it is no boolean."""
        self.settings.require(name, True, False, remedy="set it to true or false")
        value: Optional[bool] = self.settings.get(name, default)
        return value

    @property
    def rules(self) -> TextRules:
        """Rules for splitting texts, from the settings."""
        # TapasTokenizer is Python's, in which null is false.
        is_null = self.name == _TAPAS and self.settings.states_null("do_lower_case")
        lower, chinese = self.rule("do_lower_case", not is_null), self.rule("tokenize_chinese_chars", True)
        return TextRules(bool(lower), self.rule("strip_accents"), bool(chinese), of_bert=not self.is_paddles)


def bring_tokenizer(source: Path, target: Path) -> None:
    """Convert the tokenizer of the transformers folder `source` into the folder `target`, for `read_tokenizer`.

    Raises `CheckpointError` if the tokenizer is missing, damaged or unsupported.
    """
    tokenizer = TokenizerDescription.read(source)
    _require_few_added(tokenizer)
    pieces = _word_pieces(tokenizer)
    if pieces is None:
        _bring_library(tokenizer, target)
    else:
        _bring_word_pieces(tokenizer, *pieces, target)
    for name in _ELSEWHERE:
        tokenizer.settings.get(name)
    tokenizer.settings.log_unknown()


_MOST_ADDED = 20_000  # tokens that take two seconds; for more, the library needs the square of their number
_SOME_ADDED = 1_000


def _require_few_added(tokenizer: TokenizerDescription) -> None:
    """Raise `CheckpointError` if a vocabulary has too many added tokens, or more than the model has embeddings."""
    path, ids = tokenizer.folder / TOKENIZER_FILE, [*tokenizer.added]
    if tokenizer.has_library and read_file(path, MOST_BYTES).count(b'"single_word"') > _SOME_ADDED:
        ids += tokenizer.added_in_library
    words = read_settings(tokenizer.folder / "config.json", "copy it again").get("vocab_size")
    if len(ids) > _SOME_ADDED and type(words) is int and max(ids) >= words:
        raise CheckpointError(
            f"{tokenizer.folder}: its added tokens have ids up to {max(ids):,}, and the model has {words:,} word "
            "embeddings: they are another model's"
        )
    if len(ids) > _MOST_ADDED:
        raise CheckpointError(
            f"{tokenizer.folder}: has {len(ids):,} added tokens, at most {_MOST_ADDED:,} are done here: put them into "
            "the vocabulary"
        )


def gives_types(folder: Path) -> bool:
    """Return whether a transformers folder gives the second text of a pair another token type than the first.

    Raises `CheckpointError` for types other than 0 and 1.
    """
    tokenizer = TokenizerDescription.read(folder)
    names = tokenizer.settings.get("model_input_names")
    returned = (
        "token_type_ids" in names if isinstance(names, list) else tokenizer.name in _TYPED or tokenizer.is_paddles
    )
    reads_library = tokenizer.has_library and not (
        tokenizer.goes_by_settings and _is_word_pieces(tokenizer.library_json)
    )
    if returned:
        if reads_library:
            return LibraryFiles.read(folder).gives_types
        return tokenizer.name in (*_TYPED, "DistilBertTokenizer") or tokenizer.is_paddles
    if names is None and tokenizer.name == _GENERIC[0] and reads_library and LibraryFiles.read(folder).gives_types:
        note_once(
            f"note: {folder / CONFIG_FILE} states no model_input_names: the texts of a pair have one token type, as in "
            "transformers 5; transformers 4 gives them two"
        )
    return False


def library_padding(folder: Path) -> Optional[int]:
    """Return the id of the padding token.

    Returns None if there is no tokenizer, or if `bring_tokenizer` converts it to a `vocab.txt`.
    """
    if not any(
        (folder / name).is_file() for name in (TOKENIZER_FILE, VOCABULARY_FILE, MERGES_FILE, *SENTENCEPIECE_FILES)
    ):
        return None  # opening the tokenizer raises an error
    tokenizer = TokenizerDescription.read(folder)
    if tokenizer.has_library and tokenizer.name == _QWEN:  # its large file need not be opened
        ids = [number for number, text in tokenizer.added_in_library.items() if text == tokenizer.special["pad_token"]]
        if len(ids) == 1:
            return ids[0]
    with tempfile.TemporaryDirectory() as temporary:
        bring_tokenizer(folder, Path(temporary))
        if (Path(temporary) / VOCABULARY_FILE).is_file():
            return None
        files = LibraryFiles.read(Path(temporary))
    return files.id_of(files.special_tokens["pad_token"])


def stated_length(folder: Path) -> int:
    """Return the maximum length of a text in tokens that a transformers folder states.

    If it states none, return the number of positions, or else 512.
    """
    settings = ForeignConfig.read(folder / CONFIG_FILE)
    positions = ForeignConfig.read(folder / "config.json").get("max_position_embeddings")
    for length in (text_settings(folder)[0], settings.get("model_max_length", settings.get("max_len")), positions):
        if isinstance(length, (int, float)) and _SHORTEST <= length < _LONGEST:
            return int(length)
    return _FALLBACK_LENGTH


def text_settings(folder: Path) -> tuple[Optional[int], bool]:
    """Return sentence-transformers' maximum length in tokens, or None, and whether it lowercases texts.

    Raises `CheckpointError` if other settings of texts are unsupported.
    """
    if not any((place / MODULES_FILE).is_file() for place in (folder, folder.parent)):
        return None, False  # sentence-transformers then ignores the file
    path = folder / LENGTH_FILE
    if not read_settings(path):  # sentence-transformers then looks for the next name
        path = next((folder / name for name in _OLD_LENGTH_FILES if read_settings(folder / name)), path)
    settings = ForeignConfig.read(path, ("unpad_inputs",))
    remedy = "take a model that reads texts as they are"
    settings.require("do_lower_case", True, False, remedy=remedy)
    settings.require("transformer_task", *_OUTPUTS, remedy=remedy)
    task = str(settings.get("transformer_task", "feature-extraction"))
    state, output = _OUTPUTS[task]
    settings.require("module_output_name", output, remedy=remedy)
    for name in ("tokenizer_name_or_path", "query_length", "document_length", "query_expansion"):
        settings.require(name, remedy=remedy)
    for name in ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs",
                 "processing_kwargs"):  # fmt: skip
        inner = settings.inner(name, _LOADING)
        if inner.unknown:
            raise settings.error(f"{inner.unknown[0]} is stated, which is not done here; {remedy}")
    kinds = settings.inner("modality_config", ("text", "message"))
    for name in ("text", "message") if "modality_config" in settings else ():
        call = kinds.inner(name, ("format",))
        call.require("method", "forward", remedy=remedy)
        call.require("method_output_name", state, remedy=remedy)
    if kinds.unknown or ("message" in kinds and task == "feature-extraction"):
        name = (kinds.unknown or ["message"])[0].rpartition(".")[2]
        raise settings.error(f"modality_config has {quoted(name)}, only 'text' is done here; {remedy}")
    if task == "text-generation" and "message" not in kinds:
        raise settings.error(
            "modality_config has no 'message': the library then puts pairs into no chat, which is not done here of a "
            "model that ranks by its answers"
        )
    length, lowers = settings.get("max_seq_length"), bool(settings.get("do_lower_case"))
    if length is not None and (type(length) not in (int, float) or length < _SHORTEST):
        raise settings.error(f"max_seq_length is {quoted(length)}, expected a number of tokens from {_SHORTEST} on")
    settings.log_unknown()
    return length, lowers


def model_type_of(folder: Path) -> str:
    """Return the model type that a sentence-transformers folder states; by default `SENTENCE_TRANSFORMER`."""
    return str(ForeignConfig.read(folder / MODEL_FILE).get("model_type", SENTENCE_TRANSFORMER))


def is_reranker(folder: Path) -> bool:
    """Return whether a sentence-transformers folder is a reranker whose head is one of its steps."""
    path = folder / MODULES_FILE
    return path.is_file() and model_type_of(folder) == CROSS_ENCODER and len(read_json(path)) > 1


def has_no_library_file(folder: Path) -> bool:
    """Return whether a folder has tokenizer files, but neither `vocab.txt` nor `tokenizer.json`."""
    others = any((folder / name).is_file() for name in (*SENTENCEPIECE_FILES, MERGES_FILE))
    return others and not any((folder / name).is_file() for name in (VOCABULARY_FILE, TOKENIZER_FILE))


def _is_word_pieces(described: UncheckedObject) -> bool:
    model = described.get("model")
    # Old files state no type; only WordPiece has this setting.
    return (
        isinstance(model, dict)
        and model.get("type", "WordPiece") == "WordPiece"
        and "max_input_chars_per_word" in model
    )


def _word_pieces(tokenizer: TokenizerDescription) -> Optional[tuple[bytes, TextRules]]:
    """Return the bytes of `vocab.txt` and the rules for a tokenizer with BERT's rules; None for other tokenizers."""
    path = tokenizer.folder / TOKENIZER_FILE
    if not tokenizer.has_library:
        others = any((tokenizer.folder / name).is_file() for name in (*SENTENCEPIECE_FILES, MERGES_FILE))
        if others or not (tokenizer.folder / VOCABULARY_FILE).is_file():
            return None
        return read_file(tokenizer.folder / VOCABULARY_FILE), tokenizer.rules
    described = tokenizer.library_json if tokenizer.goes_by_settings or tokenizer.name in _GENERIC else {}
    if not _is_word_pieces(described):
        if described and tokenizer.goes_by_settings and tokenizer.settings.get("tokenizer_class") is not None:
            raise CheckpointError(
                f"{path}: its model is no WordPiece, and tokenizer_class is {tokenizer.name}, which splits words into "
                "such pieces; save the tokenizer again"
            )
        return None
    try:
        tokens, rules = vocabulary_of_json(described, path), rules_of_json(described, path)
    except CheckpointError:
        if tokenizer.goes_by_settings:
            raise
        return None
    token_set, added = set(tokens), described.get("added_tokens") or []
    vocabulary = "".join(f"{token}\n" for token in tokens).encode("utf-8")
    for role in ("pad_token", "cls_token", "sep_token", "unk_token"):
        if tokenizer.special[role] not in token_set:
            if tokenizer.goes_by_settings:
                raise CheckpointError(f"{path}: has no {tokenizer.special[role]} (the {role}); copy the folder again")
            return None
    if not rules.of_bert:  # written by this toolkit
        return vocabulary, rules
    if tokenizer.goes_by_settings:
        if "added_tokens_decoder" not in tokenizer.settings:
            tokenizer.added.update((token["id"], token) for token in added)
        return vocabulary, tokenizer.rules
    library = LibraryFiles.read(tokenizer.folder)
    ends = (library.token_to_id[tokenizer.special[role]] for role in ("cls_token", "sep_token"))
    shape = dataclasses.replace(library.template(), longer_keeps_more=False, keeps_end=False)
    is_plain = all(
        token.get("special") and token.get("content") in token_set for token in (*added, *tokenizer.added.values())
    )
    return (vocabulary, rules) if is_plain and shape == bert_template(*ends) else None


def _bring_word_pieces(tokenizer: TokenizerDescription, vocabulary: bytes, rules: TextRules, target: Path) -> None:
    """Write `vocab.txt` and its settings, or `tokenizer.json` if the tokenizer has added tokens or MPNet's template."""
    if text_settings(tokenizer.folder)[1] and not rules.do_lower_case:
        rules = dataclasses.replace(rules, do_lower_case=True, strip_accents=rules.strips_accents)
    declared = (token["content"] for token in tokenizer.added.values() if token.get("special"))
    markers = sorted({*tokenizer.declared, *declared}.difference(tokenizer.special.values()))
    in_texts = tokenizer.settings.get(IN_TEXTS) is True
    files = write_word_pieces(target, vocabulary, rules, tokenizer.special, _side(tokenizer), markers, in_texts)
    more = [(number, token) for number, token in sorted(tokenizer.added.items())
            if number >= files.vocab_size or not _is_plain_marker(token)]  # fmt: skip
    if tokenizer.name != _MPNET and not more:
        return
    from tokenizers import processors

    library = library_tokenizer(files)
    if tokenizer.name == _MPNET:
        last, first = files.special_tokens["sep_token"], files.special_tokens["cls_token"]
        library.post_processor = processors.RobertaProcessing(
            (last, files.token_to_id[last]), (first, files.token_to_id[first])
        )
    _add_tokens(library, more, tokenizer.folder)
    library.save(str(target / TOKENIZER_FILE))
    (target / VOCABULARY_FILE).unlink()
    LibraryFiles.read(target)


def _is_plain_marker(token: UncheckedObject) -> bool:
    """Return whether an added token is a special one that the built-in tokenizer finds in prompts as the library."""
    has_spaces = any(map(str.isspace, token["content"]))
    return bool(token.get("special")) and not (has_spaces or token.get("single_word") or token.get("normalized"))


# Roles of the tokens before and after a text, of classes that do not leave them to `tokenizer.json`.
_ENDS = {
    "RobertaTokenizer": ("cls_token", "sep_token"), "XLMRobertaTokenizer": ("bos_token", "eos_token"),
    "CamembertTokenizer": ("bos_token", "eos_token"), "DebertaV2Tokenizer": ("cls_token", "sep_token"),
    "BigBirdTokenizer": ("cls_token", "sep_token"), _QWEN: (), _CLIP: ("bos_token", "eos_token"),
}  # fmt: skip


def _require_agreement(tokenizer: TokenizerDescription, files: LibraryFiles) -> None:
    """Raise `CheckpointError` if a setting that the tokenizer's class honours contradicts its `tokenizer.json`.

    transformers 5 goes by the setting, transformers 4 by the file.
    """
    if tokenizer.name not in _ENDS:
        return
    remedy = f"{TOKENIZER_FILE} says otherwise: save the tokenizer again"
    described = tokenizer.library_json if tokenizer.has_library else json.loads(files.files[TOKENIZER_FILE])
    steps = {step.get("type"): step for part in ("normalizer", "pre_tokenizer") for step in _steps(described.get(part))}
    if "Metaspace" in steps:
        prefix = steps["Metaspace"].get("prepend_scheme", "always") == "always"
        tokenizer.settings.require("add_prefix_space", prefix, remedy=remedy)
    elif tokenizer.name == _QWEN and "ByteLevel" in steps:
        tokenizer.settings.require("add_prefix_space", steps["ByteLevel"].get("add_prefix_space"), remedy=remedy)
    if tokenizer.name == "DebertaV2Tokenizer":
        tokenizer.settings.require("do_lower_case", "Lowercase" in steps, remedy=remedy)
        tokenizer.settings.require("split_by_punct", "Punctuation" in steps, remedy=remedy)
    template, unknown = files.template(), described.get("model", {}).get("unk_id")
    roles = [*zip(_ENDS[tokenizer.name], (template.text_before, template.text_after))]
    roles += [("unk_token", (unknown,))] if isinstance(unknown, int) else []
    for role, ids in roles:
        usual = "<unk>" if (tokenizer.name, role) == ("BigBirdTokenizer", "unk_token") else None
        token = tokenizer.stated.get(role, usual)
        if token is not None and (files.id_of(token),) != ids:
            raise CheckpointError(f"{tokenizer.folder / CONFIG_FILE}: {role} is {quoted(token)}; {remedy}")


def _steps(part: Unchecked) -> list[UncheckedObject]:
    """Return the steps of a normalizer or pre-tokenizer in `tokenizer.json`."""
    if not isinstance(part, dict):
        return []
    inner = part.get("normalizers", part.get("pretokenizers"))
    return [part, *(step for step in inner if isinstance(step, dict))] if isinstance(inner, list) else [part]


def _bring_library(tokenizer: TokenizerDescription, target: Path) -> None:
    """Copy `tokenizer.json`, or make it from a SentencePiece model or from `vocab.json` and `merges.txt`."""
    source = tokenizer.folder
    is_named = tokenizer.settings.get("tokenizer_class") is not None
    if is_named and tokenizer.goes_by_settings and has_no_library_file(source):
        raise CheckpointError(
            f"{source}: its tokenizer_class is {tokenizer.name}, and there is no {VOCABULARY_FILE} and no "
            f"{TOKENIZER_FILE}; copy the folder again"
        )
    model = next((name for name in SENTENCEPIECE_FILES if (source / name).is_file()), None)
    if not tokenizer.has_library and model is None and not (source / MERGES_FILE).is_file():
        raise CheckpointError(
            f"{source}: has no {TOKENIZER_FILE}, no {SENTENCEPIECE_FILES[0]}, no {MERGES_FILE} and no "
            f"{VOCABULARY_FILE}; copy the folder again"
        )
    if not tokenizer.has_library and tokenizer.name in ("BigBirdTokenizer", _QWEN):
        raise CheckpointError(
            f"{source}: has no {TOKENIZER_FILE}, which {tokenizer.name} needs here: open it with AutoTokenizer of "
            "transformers and save it again"
        )
    for name in (TOKENIZER_FILE, CONFIG_FILE, SPECIAL_TOKENS_FILE):
        if (source / name).is_file():
            (target / name).write_bytes(read_file(source / name, MOST_BYTES))
    if tokenizer.name in (_CLIP, _SIGLIP):  # whose padding is not found by the usual names
        padding = {role: tokenizer.special[role] for role in _ROLES_OF[tokenizer.name]}
        write_json(target / CONFIG_FILE, {**read_settings(source / CONFIG_FILE), **padding})
    if tokenizer.name == _SIGLIP and model is not None:
        library = _siglip_of_sentencepiece(source / model, tokenizer)
        _add_tokens(library, [(number, token) for number, token in sorted(tokenizer.added.items())
                              if number >= library.get_vocab_size()], source)  # fmt: skip
        library.save(str(target / TOKENIZER_FILE))
        files = LibraryFiles.read(target)
        (files.in_small_letters() if text_settings(source)[1] else files).write(target)
        return
    more = [(number, token) for number, token in sorted(tokenizer.added.items()) if not token.get("special")]
    if more and tokenizer.has_library:
        texts = tokenizer.added_in_library
        more = [(number, token) for number, token in more if texts.get(number) != token["content"]]
    lowers = text_settings(source)[1]
    if tokenizer.has_library and not (more or lowers or tokenizer.name in _ENDS):
        return  # `read_tokenizer` checks the file, which takes a second if it is large
    settings = read_settings(source / CONFIG_FILE)
    settings = {**settings, **tokenizer.stated}
    if tokenizer.has_library:
        files = LibraryFiles.read(target)
        _require_agreement(tokenizer, files)
        if not (more or lowers or tokenizer.name == "RobertaTokenizer"):
            return
        library = files.library
    elif model is not None:
        reserved = CAMEMBERT if tokenizer.name == "CamembertTokenizer" else XLM_ROBERTA
        library = tokenizer_of_sentencepiece(source / model, settings, reserved)
    else:
        library = _tokenizer_of_merges(source, settings, tokenizer.name == _CLIP)
    _prefix(library, tokenizer)
    _add_tokens(library, more, source)
    library.save(str(target / TOKENIZER_FILE))
    files = LibraryFiles.read(target)
    _require_agreement(tokenizer, files)
    if lowers:
        files.in_small_letters().write(target)


def _side(tokenizer: TokenizerDescription) -> str:
    """Return the side at which long texts are truncated, "left" or "right"."""
    truncation = ForeignConfig(tokenizer.folder / TOKENIZER_FILE, tokenizer.library_json, _JSON_KEYS).inner(
        "truncation"
    )
    return str(tokenizer.settings.get("truncation_side") or truncation.get("direction", "right")).lower()


def _added_tokens(folder: Path, settings: ForeignConfig, special: Iterable[str]) -> dict[int, UncheckedObject]:
    """Return the tokens added to a vocabulary, by id, in the format of `tokenizer.json`.

    Raises `CheckpointError` if their entries are damaged.
    """
    tokens = settings.get("added_tokens_decoder")
    if tokens is None:  # older folders have a separate file
        named = read_settings(folder / ADDED_TOKENS_FILE, "copy it again")
        specials = set(special)
        tokens = {number: {"content": token, "special": token in specials} for token, number in named.items()}
    try:
        return {int(number): {**token, "content": str(token["content"])} for number, token in tokens.items()}
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder}: its added tokens are damaged ({error}); copy it again") from error


def _add_tokens(library: Tokenizer, tokens: Sequence[tuple[int, UncheckedObject]], folder: Path) -> None:
    """Add tokens, (id, entry), to a tokenizer, which then splits texts at these tokens first.

    Raises `CheckpointError` if an id would change.
    """
    from tokenizers import AddedToken

    entries = []
    for _, token in tokens:
        flags = {name: bool(token[name]) for name in ("single_word", "lstrip", "rstrip", "normalized") if name in token}
        entries.append(AddedToken(token["content"], special=bool(token.get("special")), **flags))
    library.add_tokens(entries)  # at once: each call takes time for all tokens that were added before
    for number, token in tokens:
        token_id = library.token_to_id(token["content"])
        if token_id != number:
            raise CheckpointError(
                f"{folder}: of the added_tokens, the content {quoted(token['content'])} has the id {number}, and would "
                f"get {token_id}; "
                "save the tokenizer again, with transformers 5"
            )


def _prefix(library: Tokenizer, tokenizer: TokenizerDescription) -> None:
    """Set whether a byte-level tokenizer adds a space before texts.

    For RoBERTa's class, and without a `tokenizer.json`, `tokenizer_config.json` decides.
    """
    from tokenizers import pre_tokenizers

    wanted = tokenizer.rule("add_prefix_space", tokenizer.name == "LayoutLMv3Tokenizer")
    is_robertas = tokenizer.name == "RobertaTokenizer" or not tokenizer.has_library
    if is_robertas and isinstance(library.pre_tokenizer, pre_tokenizers.ByteLevel):
        library.pre_tokenizer.add_prefix_space = bool(wanted)


_CLIPS_PARTS = (  # of a text, each split into bytes
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def _tokenizer_of_merges(folder: Path, settings: UncheckedObject, of_clip: bool) -> Tokenizer:
    """Create byte-level BPE of `vocab.json` and `merges.txt`: CLIP's or RoBERTa's (`<s> query </s></s> title </s>`)."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ends = ("<|startoftext|>", "<|endoftext|>") if of_clip else ("<s>", "</s>")
    usual = (*ends, ends[1], ends[1]) if of_clip else (*ends, "<pad>", "<unk>", "<mask>")
    roles = ("bos_token", "eos_token") if of_clip else ("cls_token", "sep_token")
    special = {
        role: token_text(settings.get(role) or token, role, folder)
        for role, token in zip((*roles, "pad_token", "unk_token", "mask_token"), usual)
    }
    unknown = special["unk_token"]
    try:
        pieces = read_json(folder / PIECES_FILE)
        lines = read_file(folder / MERGES_FILE, MOST_BYTES).decode("utf-8").split("\n")
        pairs = [tuple(line.rstrip("\r").split(" ")) for line in lines if line and not line.startswith("#version")]
        suffix = {"end_of_word_suffix": "</w>", "unk_token": unknown} if of_clip else {"end_of_word_suffix": ""}
        library = Tokenizer(models.BPE(pieces, pairs, continuing_subword_prefix="", **suffix))
    except Exception as error:  # `tokenizers` raises plain exceptions
        what = f"not the {PIECES_FILE} and {MERGES_FILE} of a tokenizer"
        raise CheckpointError(f"{folder}: {what} ({brief(str(error))}); copy them again") from None
    last, first = ((special[role], library.token_to_id(special[role])) for role in roles[::-1])
    missing = [role for role, (_, number) in zip(roles[::-1], (last, first)) if number is None]
    if missing:
        name = f"{special[missing[0]]} ({missing[0]})"
        raise CheckpointError(f"{folder / PIECES_FILE}: has no {name}: it is another model's; copy it again")
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # `_prefix` may change this
    if of_clip:
        split = pre_tokenizers.Split(Regex(_CLIPS_PARTS), "removed", invert=True)
        library.pre_tokenizer = pre_tokenizers.Sequence([split, library.pre_tokenizer])
        spaces = normalizers.Replace(Regex(r"\s+"), " ")
        library.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    library.decoder = decoders.ByteLevel()
    library.post_processor = processors.RobertaProcessing(last, first, not of_clip, not of_clip)
    present = [token for token in special.values() if library.token_to_id(token) is not None]
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in present])
    return library


_MOST_BYTES = 64 * 1024 * 1024  # largest SentencePiece model to read; 250,000 tokens take 5 million bytes
_UNIGRAM = 1
# Tokens before the pieces of `sentencepiece.bpe.model`, and the number of its first pieces (<unk>, <s>, </s>) that they
# replace, as in fairseq.
Reserved = tuple[tuple[str, ...], int]
XLM_ROBERTA: Reserved = (("<s>", "<pad>", "</s>", "<unk>"), 3)
CAMEMBERT: Reserved = (("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"), 1)


def tokenizer_of_sentencepiece(path: Path, settings: UncheckedObject, reserved: Reserved) -> Tokenizer:
    """Create a tokenizer of `tokenizers` from a SentencePiece model.

    `sentencepiece.bpe.model` gets the `reserved` tokens, and XLM-RoBERTa's special tokens and template. Other files get
    DeBERTa's: `[CLS]` and `[SEP]`, which are among the pieces, with `do_lower_case` and `split_by_punct` of `settings`.

    Raises `CheckpointError` if the file is damaged, or its model is not Unigram.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    model = read_sentencepiece(path)
    kind, rules = model.trainer_spec.model_type, model.normalizer_spec
    if kind != _UNIGRAM:
        raise CheckpointError(f"{path}: its model is of the kind {kind}; only Unigram (1) is done here")
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    if path.name == SENTENCEPIECE_FILE:
        cls, sep, unknown, mask = "<s>", "</s>", "<unk>", "<mask>"
        pieces = [*((token, 0.0) for token in reserved[0]), *pieces[reserved[1] :], (mask, 0.0)]
        template = f"{cls} $A {sep}", f"{cls} $A {sep} {sep} $B {sep}"
        special = [*XLM_ROBERTA[0], mask]
    else:
        cls, sep, unknown, mask = "[CLS]", "[SEP]", "[UNK]", "[MASK]"
        pieces += [] if any(text == mask for text, _ in pieces) else [(mask, 0.0)]
        template = f"{cls} $A {sep}", f"{cls} $A {sep} $B:1 {sep}:1"
        special = ["[PAD]", cls, sep, unknown, mask]
    ids = {text: number for number, (text, _) in enumerate(pieces)}
    missing = [token for token in special if token not in ids]
    if missing:
        raise CheckpointError(f"{path}: has no {missing[0]} among its pieces: it is of another model")
    library = Tokenizer(models.Unigram(pieces, ids[unknown], False))
    of_deberta = {} if cls == "<s>" else settings
    steps: list[Unchecked] = [normalizers.Lowercase()] if of_deberta.get("do_lower_case") is True else []
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    library.normalizer = normalizers.Sequence(steps)
    splits: list[Unchecked] = [pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    if of_deberta.get("split_by_punct") is True:
        splits.insert(0, pre_tokenizers.Punctuation(behavior="isolated"))
    library.pre_tokenizer = pre_tokenizers.Sequence(splits)
    library.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    library.post_processor = processors.TemplateProcessing(
        single=template[0], pair=template[1], special_tokens=[(token, ids[token]) for token in (cls, sep)]
    )
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return library


# Rules of SiglipTokenizer: what Python's str.lower makes of the last letter of a word, its punctuation, its spaces.
_LAST_SIGMA = r"(?<=[\p{Lu}\p{Ll}\p{Lt}])Σ(?![\p{Lu}\p{Ll}\p{Lt}])"
_ASCII_PUNCTUATION = r"[!-/:-@\[-`{-~]"
_PYTHON_SPACES = r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
_UNDERLINE = "▁"


def _siglip_of_sentencepiece(path: Path, tokenizer: TokenizerDescription) -> Tokenizer:
    """Create SigLIP's tokenizer, `text </s>`, from its SentencePiece model.

    As transformers' SiglipTokenizer, it lowercases a text (if `do_lower_case`), removes punctuation of ASCII and joins
    spaces before SentencePiece's own rules.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, processors

    model = read_sentencepiece(path)
    kind, rules = model.trainer_spec.model_type, model.normalizer_spec
    if kind != _UNIGRAM:
        raise CheckpointError(f"{path}: its model is of the kind {kind}; only Unigram (1) is done here")
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    ids = {text: number for number, (text, _) in enumerate(pieces)}
    end = tokenizer.stated.get("eos_token", "</s>")
    special = {"eos_token": end, **{role: tokenizer.special[role] for role in _ROLES_OF[_SIGLIP]}}
    missing = [(role, token) for role, token in {**special, "unknown pieces": "<unk>"}.items() if token not in ids]
    if missing:
        role, token = missing[0]
        raise CheckpointError(f"{path}: has no {token} ({role}) among its pieces: it is of another model")
    library = Tokenizer(models.Unigram(pieces, ids["<unk>"], False))
    steps: list[Unchecked] = [normalizers.Replace(_UNDERLINE, " "), normalizers.Prepend(_UNDERLINE)]
    if tokenizer.rule("do_lower_case", True):
        steps += [normalizers.Replace(Regex(_LAST_SIGMA), "ς"), normalizers.Lowercase()]
    steps += [normalizers.Replace(Regex(_ASCII_PUNCTUATION), ""), normalizers.Replace(Regex(_PYTHON_SPACES), " ")]
    steps.append(normalizers.Replace(Regex(" $"), ""))
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    steps.append(normalizers.Replace(" ", _UNDERLINE))
    if rules.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(f"{_UNDERLINE}+$"), ""))
    library.normalizer = normalizers.Sequence(steps)
    library.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, ids[end])]
    )
    sides = {"lstrip": True, "rstrip": True, "special": True, "normalized": False}
    library.add_special_tokens([AddedToken(token, **sides) for token in dict.fromkeys(special.values())])
    return library


def read_sentencepiece(path: Path) -> Message:
    """Read a SentencePiece model's file as a `ModelProto`; raises `CheckpointError` if it is damaged."""
    from google.protobuf.message import DecodeError

    data, model = read_file(path, _MOST_BYTES), message_class("sentencepiece.ModelProto")()
    try:
        if model.MergeFromString(data) < len(data):  # protobuf 3.20 only warns of this
            raise ValueError("it ends early")
    except (DecodeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or not a SentencePiece model ({error}); copy it again") from None
    if len(model.pieces) < len(XLM_ROBERTA[0]):
        raise CheckpointError(f"{path}: holds {len(model.pieces)} pieces: it is no SentencePiece model; copy it again")
    return model
