"""Bring the tokenizer of a transformers folder, so that texts get the ids that transformers gives them.

What transformers does follows from the tokenizer's class. One of BERT's takes its vocabulary alone from the files, and
its rules from `tokenizer_config.json`; any other is its `tokenizer.json`. A tokenizer that splits words as BERT's
becomes `vocab.txt` here, which the built-in one reads, several times faster; all others stay a `tokenizer.json`.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker.encoding.tokenizers.base import bert_template
from paddle_ranker.encoding.tokenizers.folder import (
    ADDED_TOKENS_FILE,
    CONFIG_FILE,
    ROLES,
    SPECIAL_TOKENS_FILE,
    VOCABULARY_FILE,
    read_settings,
    token_text,
)
from paddle_ranker.encoding.tokenizers.library import MOST_BYTES, TOKENIZER_FILE, LibraryFiles
from paddle_ranker.encoding.tokenizers.text_rules import TextRules
from paddle_ranker.errors import CheckpointError, DependencyError, brief, quoted
from paddle_ranker.model.hugging_face.sentencepiece import CAMEMBERT, XLM_ROBERTA, tokenizer_of_sentencepiece
from paddle_ranker.model.hugging_face.tokenizer import (
    library_tokenizer,
    rules_of_json,
    vocabulary_of_json,
    write_word_pieces,
)
from paddle_ranker.options import note_once
from paddle_ranker.storage.stated import Stated
from paddle_ranker.storage.untrusted import UncheckedObject, read_file, read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SENTENCEPIECE_FILES = ("sentencepiece.bpe.model", "spm.model", "spiece.model")
PIECES_FILE, MERGES_FILE = "vocab.json", "merges.txt"  # of byte-level BPE
MODULES_FILE = "modules.json"  # of sentence-transformers; the next says what its first step does with texts
LENGTH_FILE, MODEL_FILE = "sentence_bert_config.json", "config_sentence_transformers.json"
RERANKER, TOWER = "CrossEncoder", "SentenceTransformer"  # its model types
_OF_MODEL = {  # classes of folders that name none; of all others, BERT's
    "mpnet": "MPNetTokenizer", "deberta-v2": "DebertaV2Tokenizer", "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer", "camembert": "CamembertTokenizer", "modernbert": "TokenizersBackend",
}  # fmt: skip
_BERTS = (
    "BertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer", "LayoutLMTokenizer",
    "DistilBertTokenizer", "MPNetTokenizer",
)  # fmt: skip
_TYPED = (*_BERTS[:5], "DebertaV2Tokenizer")  # which return token types unless model_input_names say otherwise
_MPNET_ROLES = dict(zip(ROLES, ("[UNK]", "</s>", "<pad>", "<s>", "<mask>")))
_GENERIC = ("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend")  # which are their tokenizer.json
_PADDLE = "Ernie"  # begins the names of PaddleNLP's classes
# Keys of tokenizer_config.json and special_tokens_map.json that change no id: of decoding, of files' places, of chats,
# of padding (a score depends on its pair alone), of tokenizers without tokenizer.json that are none here, and of
# special tokens, which are plain text here where somebody types them.
_WITHOUT_EFFECT = (
    "add_bos_token", "add_eos_token", "additional_special_tokens", "auto_map", "backend", "bos_token",
    "chat_template", "clean_up_tokenization_spaces", "do_lowercase", "eos_token", "errors", "extra_special_tokens",
    "from_slow", "full_tokenizer_file", "init_inputs", "is_local", "keep_accents", "legacy", "local_files_only",
    "max_length", "merges_file", "model_specific_special_tokens", "name_or_path", "never_split",
    "pad_to_multiple_of", "pad_token_type_id", "padding_side", "processor_class", "sp_model_kwargs",
    "special_tokens_map_file", "split_special_tokens", "stride", "tokenizer_file", "trim_offsets",
    "truncation_strategy", "unk_id", "use_fast", "verbose", "vocab_file", "vocab_type", "vocab_lines",
)  # fmt: skip
# Keys that `gives_types`, `stated_length` and `LibraryFiles` use, and rules that stand in a tokenizer.json.
_ELSEWHERE = (
    "model_input_names", "model_max_length", "max_len", "word_rules", "truncation_side", "add_prefix_space",
    "do_lower_case", "strip_accents", "tokenize_chinese_chars", "split_by_punct",
)  # fmt: skip
_JAPANESE = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"}  # MeCab, say, comes before BERT's
# Keys of tokenizer.json that the library reads, or that change no id.
_JSON_KEYS = ("version", "padding", "pre_tokenizer", "post_processor", "decoder", "model", "normalizer", "added_tokens")
# How weights are loaded by sentence-transformers; numbers are computed in float32 here.
_LOADING = ("torch_dtype", "dtype", "attn_implementation", "device_map", "low_cpu_mem_usage", "trust_remote_code",
            "use_cache", "use_safetensors", "revision", "token")  # fmt: skip
_SHORTEST, _LONGEST = 5, 1_000_000  # tokenizers write an astronomical number where they know no length
_FALLBACK_LENGTH = 512


@dataclass(frozen=True)
class Described:
    """What a transformers folder says of its tokenizer beside `tokenizer.json`.

    name: the class in transformers, without "Fast"
    settings: `tokenizer_config.json`
    special: tokens by role, of `special_tokens_map.json` and the settings, else BERT's
    added: tokens that were added to the vocabulary, by id, as `tokenizer.json` states them
    """

    folder: Path
    name: str
    settings: Stated
    special: dict[str, str]
    added: dict[int, UncheckedObject]

    @classmethod
    def read(cls, folder: Path) -> Described:
        """Read a folder's files.

        Raises `CheckpointError` if a file is damaged, or asks for something that is not done here.
        """
        settings = Stated.read(folder / CONFIG_FILE, _WITHOUT_EFFECT)
        config = read_settings(folder / "config.json", "copy it again")
        usual = _OF_MODEL.get(str(config.get("model_type")), _BERTS[0])
        if usual not in _BERTS and (folder / VOCABULARY_FILE).is_file() and not (folder / TOKENIZER_FILE).is_file():
            usual = _BERTS[0]  # RoBERTas with word pieces
        name = str(settings.get("tokenizer_class") or config.get("tokenizer_class") or usual).removesuffix("Fast")
        if config.get("model_type") == "ernie_gram":  # which transformers does not have
            name = _PADDLE
        for key, done in _JAPANESE.items():
            settings.require(key, done, remedy="take a model whose texts are split without a dictionary")
        for key in ("do_basic_tokenize", "do_subword_tokenize"):
            settings.require(key, True, remedy="take a model whose texts are split into words and their pieces")
        special_map = Stated.read(folder / SPECIAL_TOKENS_FILE, _WITHOUT_EFFECT)
        special = dict(ROLES if name != _BERTS[-1] else _MPNET_ROLES)
        for stated in (special_map, settings):
            special.update((role, token_text(stated.get(role), role, folder)) for role in ROLES if role in stated)
        special_map.say_unknown()
        return cls(folder, name, settings, special, _added_tokens(folder, settings, special.values()))

    @property
    def is_paddles(self) -> bool:
        """Whether PaddleNLP's rules split the words that the model was trained with."""
        return self.name.startswith(_PADDLE)

    @property
    def goes_by_settings(self) -> bool:
        """Whether the class takes its rules from the settings, and its vocabulary alone from the files."""
        return self.name in _BERTS or self.is_paddles

    @property
    def has_library(self) -> bool:
        """Whether there is a `tokenizer.json`."""
        return (self.folder / TOKENIZER_FILE).is_file()

    @property
    def described(self) -> UncheckedObject:
        """The contents of `tokenizer.json`; reading a large one takes a second."""
        return read_settings(self.folder / TOKENIZER_FILE, "copy it again")

    def rule(self, name: str, default: Optional[bool] = None) -> Optional[bool]:
        """Return a setting that is true or false, else the default; raises `CheckpointError` for anything else."""
        self.settings.require(name, True, False, remedy="set it to true or false")
        found: Optional[bool] = self.settings.get(name, default)
        return found

    @property
    def rules(self) -> TextRules:
        """The rules of splitting that the settings state."""
        lower, chinese = self.rule("do_lower_case", True), self.rule("tokenize_chinese_chars", True)
        return TextRules(bool(lower), self.rule("strip_accents"), bool(chinese), of_bert=not self.is_paddles)


def bring_tokenizer(source: Path, target: Path) -> None:
    """Write the tokenizer of the transformers folder `source` into the folder `target`, as `read_tokenizer` reads it.

    Raises `CheckpointError` if there is none, or it is damaged, or asks for something that is not done here.
    """
    found = Described.read(source)
    pieces = _word_pieces(found)
    if pieces is None:
        _bring_library(found, target)
    else:
        _bring_word_pieces(found, *pieces, target)
    for name in _ELSEWHERE:
        found.settings.get(name)
    found.settings.say_unknown()


def gives_types(folder: Path) -> bool:
    """Return whether the second text of a pair has another token type than the first in a transformers folder.

    Raises `CheckpointError` for types that are given otherwise.
    """
    found = Described.read(folder)
    names = found.settings.get("model_input_names")
    returned = "token_type_ids" in names if isinstance(names, list) else found.name in _TYPED or found.is_paddles
    own = found.has_library and not (found.goes_by_settings and _is_word_pieces(found.described))
    if returned:
        if own:
            return LibraryFiles.read(folder).gives_types
        return found.name in (*_BERTS[:-1], "DebertaV2Tokenizer") or found.is_paddles
    if names is None and found.name == _GENERIC[0] and own and LibraryFiles.read(folder).gives_types:
        note_once(
            f"note: {folder / CONFIG_FILE} states no model_input_names: the texts of a pair have one token type, as in "
            "transformers 5; transformers 4 gives them two"
        )
    return False


def library_padding(folder: Path) -> Optional[int]:
    """Return the padding's id if a folder's tokenizer is not one of word pieces alone, else None."""
    if not any(
        (folder / name).is_file() for name in (TOKENIZER_FILE, VOCABULARY_FILE, MERGES_FILE, *SENTENCEPIECE_FILES)
    ):
        return None  # whoever opens the tokenizer says so
    with tempfile.TemporaryDirectory() as temporary:
        bring_tokenizer(folder, Path(temporary))
        if (Path(temporary) / VOCABULARY_FILE).is_file():
            return None
        files = LibraryFiles.read(Path(temporary))
    return files.id_of(files.special_tokens["pad_token"])


def stated_length(folder: Path) -> int:
    """Return the longest text in tokens that a transformers folder states, or else that its positions allow."""
    settings = Stated.read(folder / CONFIG_FILE)
    positions = Stated.read(folder / "config.json").get("max_position_embeddings")
    for length in (text_settings(folder)[0], settings.get("model_max_length", settings.get("max_len")), positions):
        if isinstance(length, (int, float)) and _SHORTEST <= length < _LONGEST:
            return int(length)
    return _FALLBACK_LENGTH


def text_settings(folder: Path) -> tuple[Optional[int], bool]:
    """Return the longest text in tokens, and whether texts are put in small letters, as sentence-transformers states.

    Raises `CheckpointError` if its first step does something with texts that is not done here.
    """
    if not any((place / MODULES_FILE).is_file() for place in (folder, folder.parent)):
        return None, False  # the library then reads no such file
    stated = Stated.read(folder / LENGTH_FILE, ("unpad_inputs", "module_output_name", "tokenizer_name_or_path"))
    remedy = "take a model that reads texts as they are"
    stated.require("do_lower_case", True, False, remedy=remedy)
    stated.require("transformer_task", "feature-extraction", "sequence-classification", remedy=remedy)
    for name in ("query_length", "document_length", "query_expansion"):
        stated.require(name, remedy=remedy)
    for name in ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs",
                 "processing_kwargs"):  # fmt: skip
        given = stated.inner(name, _LOADING)
        if given.unknown:
            raise stated.error(f"{given.unknown[0]} is stated, which is not done here; {remedy}")
    for name in stated.get("modality_config", {"text": {}}):
        if name != "text":
            raise stated.error(f"modality_config has {quoted(name)}, only 'text' is done here; {remedy}")
    length, lowers = stated.get("max_seq_length"), bool(stated.get("do_lower_case"))
    stated.say_unknown()
    return length, lowers


def model_type_of(folder: Path) -> str:
    """Return the model type that a folder of sentence-transformers states, `TOWER` where it states none."""
    return str(Stated.read(folder / MODEL_FILE).get("model_type", TOWER))


def is_reranker(folder: Path) -> bool:
    """Return whether the steps of a sentence-transformers folder make a score, so that its head is among them."""
    path = folder / MODULES_FILE
    return path.is_file() and model_type_of(folder) == RERANKER and len(read_json(path)) > 1


def has_no_library_file(folder: Path) -> bool:
    """Return whether a folder's tokenizer is in another file than those that `read_tokenizer` reads."""
    others = any((folder / name).is_file() for name in (*SENTENCEPIECE_FILES, MERGES_FILE))
    return others and not any((folder / name).is_file() for name in (VOCABULARY_FILE, TOKENIZER_FILE))


def _is_word_pieces(described: UncheckedObject) -> bool:
    model = described.get("model")
    # Files of before the library named models have no type; only WordPiece has this setting.
    return (
        isinstance(model, dict)
        and model.get("type", "WordPiece") == "WordPiece"
        and "max_input_chars_per_word" in model
    )


def _word_pieces(found: Described) -> Optional[tuple[bytes, TextRules]]:
    """Return `vocab.txt`'s content and the rules of a tokenizer that splits words as BERT's; None for any other."""
    path = found.folder / TOKENIZER_FILE
    if not found.has_library:
        others = any((found.folder / name).is_file() for name in (*SENTENCEPIECE_FILES, MERGES_FILE))
        if others or not (found.folder / VOCABULARY_FILE).is_file():
            return None
        return read_file(found.folder / VOCABULARY_FILE), found.rules
    described = found.described if found.goes_by_settings or found.name in _GENERIC else {}
    if not _is_word_pieces(described):
        return None
    try:
        tokens, rules = vocabulary_of_json(described, path), rules_of_json(described, path)
    except CheckpointError:
        if found.goes_by_settings:
            raise
        return None
    known, added = set(tokens), described.get("added_tokens") or []
    vocabulary = "".join(f"{token}\n" for token in tokens).encode("utf-8")
    if not known.issuperset(map(found.special.get, ("pad_token", "cls_token", "sep_token", "unk_token"))):
        return None
    if not rules.of_bert:  # it was written here
        return vocabulary, rules
    if found.goes_by_settings:
        if "added_tokens_decoder" not in found.settings:
            found.added.update((token["id"], token) for token in added)
        return vocabulary, found.rules
    library = LibraryFiles.read(found.folder)
    ends = (library.token_to_id[found.special[role]] for role in ("cls_token", "sep_token"))
    shape = dataclasses.replace(library.template(), longer_keeps_more=False, keeps_end=False)
    is_plain = all(token.get("special") and token.get("content") in known for token in (*added, *found.added.values()))
    return (vocabulary, rules) if is_plain and shape == bert_template(*ends) else None


def _bring_word_pieces(found: Described, vocabulary: bytes, rules: TextRules, target: Path) -> None:
    """Write `vocab.txt` and what belongs to it; or `tokenizer.json`, if the tokenizer does more than BERT's."""
    if text_settings(found.folder)[1] and not rules.do_lower_case:
        rules = dataclasses.replace(rules, do_lower_case=True, strip_accents=rules.strips_accents)
    files = write_word_pieces(target, vocabulary, rules, found.special, _side(found))
    more = [(number, token) for number, token in sorted(found.added.items())
            if number >= files.vocab_size or not token.get("special")]  # fmt: skip
    if found.name != "MPNetTokenizer" and not more:
        return
    from tokenizers import processors

    library = library_tokenizer(files)
    if found.name == "MPNetTokenizer":
        last, first = files.special_tokens["sep_token"], files.special_tokens["cls_token"]
        library.post_processor = processors.RobertaProcessing(
            (last, files.token_to_id[last]), (first, files.token_to_id[first])
        )
    _add_tokens(library, more, found.folder)
    library.save(str(target / TOKENIZER_FILE))
    (target / VOCABULARY_FILE).unlink()
    LibraryFiles.read(target)


def _bring_library(found: Described, target: Path) -> None:
    """Write `tokenizer.json`: as it is, or made of a SentencePiece model, or of `vocab.json` and `merges.txt`."""
    source = found.folder
    model = next((name for name in SENTENCEPIECE_FILES if (source / name).is_file()), None)
    if not found.has_library and model is None and not (source / MERGES_FILE).is_file():
        raise CheckpointError(
            f"{source}: has no {TOKENIZER_FILE}, no {SENTENCEPIECE_FILES[0]}, no {MERGES_FILE} and no "
            f"{VOCABULARY_FILE}; copy the folder again"
        )
    for name in (TOKENIZER_FILE, CONFIG_FILE, SPECIAL_TOKENS_FILE):
        if (source / name).is_file():
            (target / name).write_bytes(read_file(source / name, MOST_BYTES))
    more = [(number, token) for number, token in sorted(found.added.items()) if not token.get("special")]
    lowers = text_settings(source)[1]
    if found.has_library and not (more or lowers or found.name == "RobertaTokenizer"):
        return  # `read_tokenizer` checks it; reading a large one takes a second
    settings = {**read_settings(source / SPECIAL_TOKENS_FILE), **read_settings(source / CONFIG_FILE)}
    if found.has_library:
        library = LibraryFiles.read(target).library
    elif model is not None:
        reserved = CAMEMBERT if found.name == "CamembertTokenizer" else XLM_ROBERTA
        library = tokenizer_of_sentencepiece(source / model, settings, reserved)
    else:
        library = _tokenizer_of_merges(source, settings)
    _prefix(library, found)
    _add_tokens(library, more, source)
    library.save(str(target / TOKENIZER_FILE))
    files = LibraryFiles.read(target)
    if lowers:
        files.in_small_letters().write(target)


def _side(found: Described) -> str:
    """Return the side at which long texts are truncated, "left" or "right"."""
    truncation = Stated(found.folder / TOKENIZER_FILE, found.described, _JSON_KEYS).inner("truncation")
    return str(found.settings.get("truncation_side") or truncation.get("direction", "right")).lower()


def _added_tokens(folder: Path, settings: Stated, special: Iterable[str]) -> dict[int, UncheckedObject]:
    """Return the tokens that were added to a vocabulary, by id, as `tokenizer.json` states them.

    Raises `CheckpointError` if a file has something else in their place.
    """
    stated = settings.get("added_tokens_decoder")
    if stated is None:  # older folders have them in a file of their own
        named = read_settings(folder / ADDED_TOKENS_FILE, "copy it again")
        known = set(special)
        stated = {number: {"content": token, "special": token in known} for token, number in named.items()}
    try:
        return {int(number): {**token, "content": str(token["content"])} for number, token in stated.items()}
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder}: its added tokens are damaged ({error}); copy it again") from error


def _add_tokens(library: Tokenizer, tokens: Iterable[tuple[int, UncheckedObject]], folder: Path) -> None:
    """Add tokens that texts are searched for before they are split; raises `CheckpointError` for ids out of order."""
    from tokenizers import AddedToken

    for number, token in tokens:
        flags = {name: bool(token[name]) for name in ("single_word", "lstrip", "rstrip", "normalized") if name in token}
        library.add_tokens([AddedToken(token["content"], special=bool(token.get("special")), **flags)])
        found = library.token_to_id(token["content"])
        if found != number:
            raise CheckpointError(
                f"{folder}: the added token {quoted(token['content'])} has the id {number}, and would get {found}; "
                "save the tokenizer again, with transformers 5"
            )


def _prefix(library: Tokenizer, found: Described) -> None:
    """Put a space before texts as RoBERTa's class does, whatever `tokenizer.json` says."""
    from tokenizers import pre_tokenizers

    wanted = found.rule("add_prefix_space")
    is_robertas = found.name == "RobertaTokenizer" or not found.has_library
    if is_robertas and isinstance(library.pre_tokenizer, pre_tokenizers.ByteLevel):
        library.pre_tokenizer.add_prefix_space = bool(wanted)


def _tokenizer_of_merges(folder: Path, settings: UncheckedObject) -> Tokenizer:
    """Return RoBERTa's tokenizer of `vocab.json` and `merges.txt`: byte-level BPE, `<s> query </s></s> title </s>`."""
    try:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    except ImportError as error:
        raise DependencyError(f"{MERGES_FILE} needs tokenizers ({error}): pip install tokenizers") from None
    try:
        pieces = read_json(folder / PIECES_FILE)
        lines = read_file(folder / MERGES_FILE, MOST_BYTES).decode("utf-8").split("\n")
        pairs = [tuple(line.rstrip("\r").split(" ")) for line in lines if line and not line.startswith("#version")]
        library = Tokenizer(models.BPE(pieces, pairs, continuing_subword_prefix="", end_of_word_suffix=""))
    except Exception as error:  # the library raises nothing more special
        what = f"not the {PIECES_FILE} and {MERGES_FILE} of a tokenizer"
        raise CheckpointError(f"{folder}: {what} ({brief(str(error))}); copy them again") from None
    special = {
        role: token_text(settings.get(role) or token, role, folder)
        for role, token in zip(
            ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token"),
            ("<s>", "</s>", "<pad>", "<unk>", "<mask>"),
        )
    }
    ends = [(special[role], library.token_to_id(special[role])) for role in ("sep_token", "cls_token")]
    missing = [token for token, number in ends if number is None]
    if missing:
        raise CheckpointError(f"{folder / PIECES_FILE}: has no {missing[0]}: it is another model's; copy it again")
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # `_prefix` says whether
    library.decoder = decoders.ByteLevel()
    library.post_processor = processors.RobertaProcessing(*ends)
    known = [token for token in special.values() if library.token_to_id(token) is not None]
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in known])
    return library
