"""Tokenizer folders of every kind with one setting changed, and the ids that transformers then gives texts and pairs.

Every key of every file is changed: those that stand in the files, those that the class of the tokenizer takes in
transformers, and each leaf and part of `tokenizer.json` but the vocabulary. The other values follow from the value or
the default of a key. Which keys a class takes, and the answers, lie in `tokenizer_changes.json`: null where a change
changes nothing, else a digest of the ids and token types, or the name of an error. Where transformers is installed
(they were of 5.23.0), this writes them anew:

    PYTHONPATH=. python tests/model/tokenizer_changes.py [KIND ...]
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.encoding import id_cases
from tests.model import decoder_cases
from tests.pictures import picture_cases

FILE = Path(__file__).with_suffix(".json")
LENGTH, MADE = 24, "__init__"
TEXTS = [
    "Über die naïve Cafés", "  two  spaces\tand\nlines ", "人人生而自由，在尊严和权利上",
    "don't HELLO hello foo_bar(x) 3.14", "",
    "All human beings are born free and equal in dignity and rights. " * 3, "١٢٣ ½ ﬁ e\u0301", "dignity",
]  # fmt: skip
CONFIG, SPECIAL, ADDED, LIBRARY = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"
)  # fmt: skip
# Name -> folder of `id_cases`, model_type, and the class that tokenizer_config.json states.
KINDS: dict[str, tuple[str, str, str]] = {
    "bert": ("bert", "bert", "BertTokenizer"),
    "bert-cased": ("bert-cased", "bert", "BertTokenizer"),
    "bert, a file of the library": ("electra", "bert", "BertTokenizer"),
    "electra": ("electra", "electra", "ElectraTokenizer"),
    "electra, no class": ("electra", "electra", ""),
    "distilbert": ("bert", "distilbert", ""),
    "ernie": ("bert", "ernie", "BertTokenizer"),
    "mpnet": ("bert", "mpnet", "MPNetTokenizer"),
    "roberta": ("merges", "roberta", "RobertaTokenizer"),
    "longformer": ("merges", "longformer", ""),
    "xlm-roberta": ("xlm-roberta", "xlm-roberta", "XLMRobertaTokenizer"),
    "sentencepiece": ("sentencepiece", "xlm-roberta", "XLMRobertaTokenizer"),
    "camembert": ("xlm-roberta", "camembert", "CamembertTokenizer"),
    "deberta-v2": ("deberta-v2", "deberta-v2", "DebertaV2Tokenizer"),  # its file as transformers 5 writes it
    "deberta-v2, any class": ("deberta-v2", "deberta-v2", "PreTrainedTokenizerFast"),
    "modernbert": ("modernbert", "modernbert", "PreTrainedTokenizerFast"),
    "big_bird": ("deberta-v2", "big_bird", "BigBirdTokenizer"),
    "qwen3": ("", "qwen3", "Qwen2Tokenizer"),
    "clip": ("", "clip", "CLIPTokenizer"),
    "clip, merges": ("", "clip", ""),
    "siglip": ("sentencepiece", "siglip", "SiglipTokenizer"),
    "layoutlm": ("bert", "layoutlm", ""),
    "lilt": ("merges", "lilt", "RobertaTokenizer"),
}
_CLS, _SEP = {"id": "[CLS]", "type_id": 0}, {"id": "[SEP]", "type_id": 0}
_BERTS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": _CLS}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": _SEP}],
    "pair": [{"SpecialToken": _CLS}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": _SEP},
             {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {**_SEP, "type_id": 1}}],
    "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in
                       (("[CLS]", 1), ("[SEP]", 2))},
}  # fmt: skip
_METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
# Parts of tokenizer.json that transformers 5 makes anew by the class.
_RULES: dict[str, Any] = {
    "deberta-v2": {
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": "\\s{2,}|[\n\r\t]"}, "content": " "}, {"type": "NFC"},
            {"type": "Strip", "strip_left": False, "strip_right": True},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [_METASPACE]},
        "post_processor": _BERTS,
    },
    "big_bird": {
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Strip", "strip_left": False, "strip_right": False},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
        ]},
        "pre_tokenizer": _METASPACE,
        "post_processor": _BERTS,
    },
}  # fmt: skip
_LARGE = ("vocab", "merges", "precompiled_charsmap")  # parts of tokenizer.json that are the vocabulary
_CHOICES = (  # values of the enumerations of `tokenizers`
    ("always", "first", "never"), ("Right", "Left"), ("removed", "isolated", "merged_with_previous",
     "merged_with_next", "contiguous"), ("NFC", "NFD", "NFKC", "NFKD"), ("LongestFirst", "OnlyFirst", "OnlySecond"),
)  # fmt: skip
Change = tuple[str, list[Any], Any]  # file, path of keys, new value; `ABSENT`: without the key
ABSENT = {"absent": True}


def write_folder(target: Path, kind: str, folders: Path) -> Path:
    """Write the folder of a kind; `folders` has those of `id_cases`."""
    source, model_type, name = KINDS[kind]
    target.mkdir()
    if model_type == "clip":
        picture_cases.write_tokenizer(target, "<|endoftext|>", 517)
    elif not source:
        decoder_cases.write_tokenizer(target, adds_end=False)
    for path in (folders / source).iterdir() if source else ():
        (target / path.name).write_bytes(path.read_bytes())
    settings = read(target / CONFIG)
    settings.pop("tokenizer_class", None)
    if kind == "clip, merges":
        model = read(target / LIBRARY)["model"]
        write(target / "vocab.json", model["vocab"])
        (target / "merges.txt").write_text("".join(f"{' '.join(pair)}\n" for pair in model["merges"]), encoding="utf-8")
        (target / LIBRARY).unlink()
    if kind == "siglip":
        (target / "sentencepiece.bpe.model").rename(target / "spiece.model")
        settings = {"model_max_length": LENGTH}
    if kind == "mpnet":
        named = {"[CLS]": "<s>", "[SEP]": "</s>", "[PAD]": "<pad>", "[MASK]": "<mask>"}
        lines = (target / "vocab.txt").read_text(encoding="utf-8").splitlines()
        (target / "vocab.txt").write_text("".join(f"{named.get(line, line)}\n" for line in lines), encoding="utf-8")
        settings = {"do_lower_case": True, "model_max_length": 512}
    if kind in _RULES:
        write(target / LIBRARY, {**read(target / LIBRARY), **_RULES[kind]})
    write(target / CONFIG, {**settings, **({"tokenizer_class": name} if name else {})})
    write(target / "config.json", {"model_type": model_type, "vocab_size": 4096})
    return target


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def changed(folder: Path, change: Change) -> Path:
    """Write the changed file into a folder."""
    file, keys, value = change
    write(folder / file, with_change(read(folder / file), keys, value))
    return folder


def with_change(values: Any, keys: list[Any], value: Any) -> Any:
    """Return the content of a file with a change; `values` change, too."""
    if not keys:
        return copy.deepcopy(value)
    place = values
    for key in keys[:-1]:
        place = place[key]
    if value == ABSENT:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return values


def changes(folder: Path, keys: dict[str, Any]) -> list[Change]:
    """Return the changes of a folder's files.

    keys: defaults of the keys that the class of the tokenizer takes in transformers
    """
    settings, word = read(folder / CONFIG), "dignity"
    files = (folder / name for name in ("vocab.txt", LIBRARY, CONFIG))
    texts = [path.read_text(encoding="utf-8") for path in files if path.is_file()]
    mask = "[MASK]" if any("[MASK]" in text for text in texts) else "<mask>"
    mask = decoder_cases.STOP if settings.get("tokenizer_class") == "Qwen2Tokenizer" else mask
    found: list[Change] = []
    for name, default in sorted({**keys, **settings}.items()):
        if name in settings:
            found.append((CONFIG, [name], ABSENT))
        found += [(CONFIG, [name], other) for other in _others(name, default, mask)]
    found += [(SPECIAL, [name], other) for name in sorted({**keys, **settings}) if _is_role(name)
              for other in _others(name, settings.get(name), mask)[:2]]  # fmt: skip
    found += [
        (SPECIAL, ["additional_special_tokens"], [mask]),
        (ADDED, [word], 4000),
        (CONFIG, ["additional_special_tokens"], ["<sp>", mask]),
        (CONFIG, ["extra_special_tokens"], {"title_token": mask}),
    ]
    flags = {"content": word, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    number = vocabulary_of(folder).get(word)
    if number is not None:
        entries = [{**flags, "special": False}]
        entries += [{**entries[0], flag: True} for flag in ("lstrip", "rstrip", "single_word", "normalized")]
        found += [(CONFIG, ["added_tokens_decoder"], {str(number): entry}) for entry in entries]
    found += [(LIBRARY, path, value) for path, value in _leaves(read(folder / LIBRARY), [])]
    return found


def vocabulary_of(folder: Path) -> dict[str, int]:
    """Return the ids of a folder's tokens; {} of a SentencePiece model."""
    vocabulary = read(folder / LIBRARY).get("model", {}).get("vocab") or read(folder / "vocab.json")
    if isinstance(vocabulary, list):
        vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
    if not vocabulary and (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        vocabulary = {token: number for number, token in enumerate(lines)}
    return dict(vocabulary)


def _is_role(name: str) -> bool:
    return name.endswith("_token") and not name.startswith("add_")


def _others(name: str, default: Any, mask: str) -> list[Any]:
    """Return other legal values of a setting, by its value or default; `mask` is another special token."""
    if _is_role(name):
        text = default["content"] if isinstance(default, dict) else default
        entry = {"content": text, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
        flagged = [{**entry, flag: True} for flag in ("lstrip", "rstrip", "single_word", "normalized")]
        return [mask, *([{**entry, "__type": "AddedToken"}, *flagged] if text else [])]
    if isinstance(default, bool) or default is None:
        return [not default, *([False] if default is None else [])]
    if isinstance(default, int):
        return [default + 1, 7]
    if isinstance(default, float):
        return [default + 0.5]
    if name in ("padding_side", "truncation_side"):
        return ["left", "right"]
    if name == "model_input_names":
        return [["input_ids", "attention_mask"], ["input_ids", "token_type_ids", "attention_mask"]]
    if name == "tokenizer_class":
        return ["BertTokenizer", "PreTrainedTokenizerFast", f"{default}Fast".replace("FastFast", "Fast")]
    return []


def _leaves(value: Any, path: list[Any]) -> Iterator[tuple[list[Any], Any]]:
    """Yield the changes of a part of `tokenizer.json`: other values of each leaf, and each part left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _LARGE or (path[:1] == ["decoder"]) or key == "version":
                continue
            if isinstance(inner, dict) and path in ([], ["normalizer"], ["pre_tokenizer"]) and key != "model":
                yield [*path, key], None
            yield from _leaves(inner, [*path, key])
    elif isinstance(value, list):
        for place, inner in enumerate(value[:9]):
            if len(value) < 40:
                yield path, value[:place] + value[place + 1 :]
            yield from _leaves(inner, [*path, place])
    elif isinstance(value, bool):
        yield path, not value
    elif value is None:
        yield from ((path, other) for other in (True, False, "##", {"direction": "Left", "max_length": 9, "strategy":
                    "LongestFirst", "stride": 0}))  # fmt: skip
    elif isinstance(value, (int, float)):
        yield path, value + 1
    elif isinstance(value, str):
        choices = next((names for names in _CHOICES if value in names), ())
        yield from ((path, other) for other in choices if other != value)
        if not choices and path[-1] != "type":
            yield path, "_" if len(value) == 1 else ""


def marked_folder(target: Path, kind: str, folders: Path) -> tuple[Path, list[str], list[str]]:
    """Write the folder of a kind with a special token of its own; return prompts and texts with special tokens, too."""
    folder = write_folder(target, kind, folders)
    settings, words = read(folder / CONFIG), vocabulary_of(folder)
    own = min(
        (word for word in words if word.isascii() and word.isalpha() and len(word) > 3 and word not in str(TEXTS)),
        default="",
    )
    added = [token["content"] for token in read(folder / LIBRARY).get("added_tokens", []) if token["special"]]
    found = {*added, *(token for name, token in settings.items() if _is_role(name) and token)}
    found = found or (
        {"</s>", "<unk>"}
        if kind == "siglip"
        else {"</s>", "<mask>"}
        if kind in ("mpnet", "sentencepiece")
        else {"[SEP]", "[MASK]"}
    )
    tokens = sorted(found.difference({"[PAD]", "<pad>", decoder_cases.END}))
    if own:
        entry = {"content": own, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
        entries = {str(token["id"]): {key: token[key] for key in token if key != "id"} for token in
                   read(folder / LIBRARY).get("added_tokens", [])}  # fmt: skip
        write(
            folder / CONFIG,
            {**settings, "added_tokens_decoder": {**entries, str(words[own]): {**entry, "special": True}}},
        )
        tokens.append(own)
    prompts = [form.replace("T", token) for token in tokens for form in ("T ", "findT", "T: ", "a T b T ")]
    texts = [form.replace("T", token) for token in tokens for form in ("aTb T c", " T", "TT hello", "titleTtext")]
    return folder, prompts, texts


def marked_answers(target: Path, kind: str, folders: Path) -> dict[str, str]:
    """Return the digests of transformers' ids of texts after each prompt, and of texts with special tokens, at ""."""
    from transformers import AutoTokenizer

    folder, prompts, texts = marked_folder(target, kind, folders)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(given: list[str]) -> str:
        return digest([(row, []) for row in tokenizer(given, truncation=True, max_length=LENGTH)["input_ids"]])

    return {"": ids(texts), **{prompt: ids([prompt + text for text in TEXTS]) for prompt in prompts}}


def rows_of(texts: list[str]) -> tuple[list[str], list[str]]:
    """Return the first and the second texts of the pairs."""
    return texts, texts[1:] + texts[:1]


def digest(rows: list[tuple[list[int], list[int]]]) -> str:
    """Return a digest of rows of ids and token types."""
    return hashlib.sha256(json.dumps([[list(ids), list(types)] for ids, types in rows]).encode()).hexdigest()[:12]


def answer_of(folder: Path) -> str:
    """Return the digest of transformers' ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for texts in ((TEXTS,), rows_of(TEXTS)):
        for row in zip(*texts):
            made = tokenizer(*([text] for text in row), truncation=True, max_length=LENGTH)
            (ids,) = made["input_ids"]
            rows.append((ids, *made.get("token_type_ids", [[0] * len(ids)])))
    return digest(rows)


def _keys_of(folder: Path) -> dict[str, Any]:
    """Return the settings that a tokenizer's class takes, with their defaults."""
    import inspect

    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    tokenizer = AutoTokenizer.from_pretrained(folder)
    found: dict[str, Any] = {}
    for kind in reversed(type(tokenizer).__mro__):
        if issubclass(kind, PreTrainedTokenizerBase):
            for name, parameter in inspect.signature(getattr(kind, MADE)).parameters.items():
                if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name not in ("self", "vocab", "merges"):
                    default = parameter.default
                    found[name] = None if default is inspect.Parameter.empty else default
    found.update({name: getattr(tokenizer, name, None) for name in tokenizer.init_kwargs if name not in found})
    shared = ("padding_side", "truncation_side", "model_input_names", "split_special_tokens", "add_prefix_space",
              "clean_up_tokenization_spaces", "add_bos_token", "add_eos_token", "legacy", "do_lower_case",
              "strip_accents", "tokenize_chinese_chars", "backend", "pad_to_multiple_of",
              "model_max_length")  # fmt: skip
    found.update({name: getattr(tokenizer, name, None) for name in shared if name not in found})
    kept = (str, int, float, bool, list, type(None))
    found = {name: value if isinstance(value, kept) else str(value) for name, value in found.items()}
    away = ("name_or_path", "vocab_file", "merges_file", "tokenizer_file", "is_local", "special_tokens_map_file")
    return {name: value for name, value in found.items() if not name.startswith("_") and name not in away}


def main(kinds: list[str]) -> None:
    """Write transformers' answers for some kinds, by default all."""
    answers = read(FILE)
    with tempfile.TemporaryDirectory() as name:
        folders = Path(name)
        (folders / "cases").mkdir()
        id_cases.unpack(folders / "cases")
        for number, kind in enumerate(kinds or KINDS):
            plain = write_folder(folders / str(number), kind, folders / "cases")
            keys, wanted = _keys_of(plain), answer_of(plain)
            found = []
            for place, change in enumerate(changes(plain, keys)):
                folder = write_folder(folders / f"{number}-{place}", kind, folders / "cases")
                try:
                    answer = answer_of(changed(folder, copy.deepcopy(change)))
                except BaseException as error:  # also a panic of `tokenizers`
                    answer = type(error).__name__
                found.append(None if answer == wanted else answer)
            marked = marked_answers(folders / f"{number}-marked", kind, folders / "cases")
            answers[kind] = {"keys": keys, "plain": wanted, "changed": found, "marked": marked}
            print(kind, len(found), sum(answer is not None for answer in found), flush=True)
    FILE.write_text(json.dumps(answers, sort_keys=True, default=str) + "\n", encoding="utf-8")


def types_of(ids: np.ndarray, second_start: int, gives_types: bool) -> list[int]:
    """Return the token types of a pair."""
    return [int(gives_types and place >= second_start) for place in range(len(ids))]


if __name__ == "__main__":
    main(sys.argv[1:])
