"""Models that PaddleNLP publishes: configuration and addresses by name, and RocketQA's own names of them.

PaddleNLP holds its tables as literals in its source. The source is parsed, since importing PaddleNLP takes seconds, and
fails beside some versions of its dependencies. Needs neither Paddle nor a network.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Optional

from paddle_ranker.array_types import Array
from paddle_ranker.encoding.tokenizers.tokenizer_folder import SENTENCEPIECE_FILE, VOCABULARY_FILE
from paddle_ranker.errors import CheckpointError, DependencyError, quoted, spelling_hint
from paddle_ranker.model.config import WORD_EMBEDDINGS, EncoderConfig
from paddle_ranker.model.families import config_from
from paddle_ranker.storage.untrusted import UncheckedObject

# Families by `model_type`: the names of the class of the networks, and of the class of the tokenizer.
PUBLISHED_FAMILIES = {
    "ernie": ("ErniePretrainedModel", "ErnieTokenizer"),
    "ernie_gram": ("ErnieGramPretrainedModel", "ErnieGramTokenizer"),
    "bert": ("BertPretrainedModel", "BertTokenizer"),
    "roberta": ("RobertaPretrainedModel", "RobertaChineseTokenizer"),
    "ernie_m": ("ErnieMPretrainedModel", "ErnieMTokenizer"),
}
# Files of a tokenizer in a model folder, by PaddleNLP's names of them
_VOCABULARIES = {"vocab_file": VOCABULARY_FILE, "sentencepiece_model_file": SENTENCEPIECE_FILE}
_LAYER = re.compile(r".*encoder\.layers\.(\d+)\.linear1\.weight")
_OWNER = "hfl/"  # left out of the names in PaddleNLP 2.0
_INSTALL = "pip install 'paddle-ranker[paddlenlp]'"
# RocketQA's names of the cross-encoders that PaddleNLP publishes, too
_CROSS_ENCODERS = {
    "zh_dureader_ce": "rocketqa-zh-dureader-cross-encoder",
    "v1_marco_ce": "rocketqa-v1-marco-cross-encoder",
    "v2_marco_ce": "rocketqav2-en-marco-cross-encoder",
}
# RocketQA's names of the dual encoders that PaddleNLP publishes as an encoder of paragraphs and one of queries
DUAL_ENCODERS = {
    name: (f"{base}-para-encoder", f"{base}-query-encoder")
    for name, base in (
        ("zh_dureader_de", "rocketqa-zh-dureader"),
        ("v1_marco_de", "rocketqa-v1-marco"),
        ("v2_marco_de", "rocketqav2-en-marco"),
    )
}
# RocketQA's names of models that PaddleNLP does not publish
_ROCKETQAS_OWN = {
    "v1_nq_de", "v1_nq_ce", "pair_marco_de", "pair_nq_de", "v2_nq_de", "zh_dureader_de_v2", "zh_dureader_ce_v2",
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """Model that PaddleNLP publishes under a name: configuration, URLs of files, tokenizer's settings."""

    config: EncoderConfig
    parameters: Optional[str]  # URL; None if PaddleNLP has none
    vocabularies: Mapping[str, str]  # URL by name in a model folder
    tokenizer: UncheckedObject


def published_model(name: str) -> Published:
    """Return a model's entry in PaddleNLP's tables.

    Raises `CheckpointError` unless the name is of an ERNIE, ERNIE-Gram, ERNIE-M, BERT or RoBERTa-wwm model of
    PaddleNLP, `DependencyError` if PaddleNLP is missing.
    """
    entry = _published().get(known_name(name) or name)
    if entry is not None:
        return entry
    if not _published():
        raise DependencyError(f"{quoted(name)}: {unknown_name(name)}")
    raise CheckpointError(
        f"{quoted(name)} is neither a local folder nor a model name that is read here: {_advice(name)}"
    )


def known_name(name: str) -> Optional[str]:
    """Return PaddleNLP's name of a model that it publishes, for PaddleNLP's, an older, or RocketQA's name; or None."""
    entries = _published()
    return next((known for known in (_CROSS_ENCODERS.get(name, name), _OWNER + name) if known in entries), None)


def published_models() -> Mapping[str, Published]:
    """Return the models that PaddleNLP publishes, by name; {} without PaddleNLP."""
    return _published()


def unknown_name(name: str) -> str:
    """Return advice about a model that is no path and no known name; it follows "NAME: is not there; "."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return "check the path, or give a name of PaddleNLP, RocketQA or the Hugging Face hub"
    if not _published():
        return (
            "check the path, or give a name of the Hugging Face hub with its owner, OWNER/MODEL; names of PaddleNLP "
            f"and RocketQA need PaddleNLP: {_INSTALL}"
        )
    return _advice(name)


def _advice(name: str) -> str:
    if name in _ROCKETQAS_OWN:
        return (
            f"{name} is RocketQA's and not published by PaddleNLP, whose files are read here; take one of "
            f"{', '.join([*_CROSS_ENCODERS, *DUAL_ENCODERS])}"
        )
    names = [*_published(), *_CROSS_ENCODERS, *DUAL_ENCODERS]
    return (
        f"check the path or the spelling{spelling_hint(name, names)}; names are those of PaddleNLP's ERNIE, "
        "ERNIE-Gram, ERNIE-M, BERT and RoBERTa-wwm models, RocketQA's, and those of the Hugging Face hub with their "
        "owner, BAAI/bge-reranker-base say"
    )


@cache
def _published() -> dict[str, Published]:
    return {name: entry for family, names in PUBLISHED_FAMILIES.items() for name, entry in _entries(family, *names)}


def _entries(family: str, network: str, tokenizer: str) -> Iterator[tuple[str, Published]]:
    """Yield name and entry of each published model of a family."""
    tables = _literals(family, "configuration")
    tokenizers = _literals(family, "tokenizer")
    files = next((table for name, table in tables.items() if name.endswith("RESOURCE_FILES_MAP")), None)
    if files is None:
        files = _literals(family, "modeling").get(f"{network}.pretrained_resource_files_map", {})
    vocabularies = tokenizers.get(f"{tokenizer}.pretrained_resource_files_map", {})
    settings = tokenizers.get(f"{tokenizer}.pretrained_init_configuration", {})
    for table in _configurations(tables):
        for name, values in table.items():
            yield (
                name,
                Published(
                    config_from({**values, "model_type": family}),
                    files.get("model_state", {}).get(name),
                    {
                        file: urls[name]
                        for key, file in _VOCABULARIES.items()
                        if name in (urls := vocabularies.get(key, {}))
                    },
                    dict(settings.get(name) or {}),
                ),
            )


def _configurations(tables: UncheckedObject) -> Iterator[UncheckedObject]:
    return (table for name, table in tables.items() if name.endswith("PRETRAINED_INIT_CONFIGURATION"))


def _literals(family: str, module: str) -> UncheckedObject:
    """Return the dicts that a module of PaddleNLP assigns to names, by `NAME` or `CLASS.NAME`; {} without it."""
    spec = importlib.util.find_spec("paddlenlp")
    places = spec.submodule_search_locations if spec is not None else None
    file = Path(next(iter(places or ["."]))) / "transformers" / family / f"{module}.py"
    if spec is None or not file.is_file():
        return {}
    found: UncheckedObject = {}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    bodies: list[tuple[str, list[ast.stmt]]] = [("", tree.body)]
    bodies += [(f"{node.name}.", node.body) for node in tree.body if isinstance(node, ast.ClassDef)]
    for prefix, body in bodies:
        for node in body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        found[prefix + target.id] = _value(node.value)
    return found


def _value(node: ast.Dict) -> UncheckedObject:
    try:
        value = ast.literal_eval(node)
    except ValueError:  # computed from other names
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Shape:
    """Sizes of an encoder that the shapes of its parameters show; the number of heads is not among them."""

    layers: int
    width: int
    inner: int
    words: int
    positions: int
    types: int
    task_types: int

    def __str__(self) -> str:
        return (
            f"a model of {self.layers} layers, {self.width} wide, with {self.words:,} word pieces and "
            f"{self.positions:,} positions"
        )


def shape_of(arrays: Mapping[str, Array]) -> Optional[Shape]:
    """Return the shape of a BERT-like encoder by PaddleNLP's names; None for other parameters."""
    ends = sorted((name[: -len(WORD_EMBEDDINGS)] for name in arrays if name.endswith(WORD_EMBEDDINGS)), key=len)
    if not ends:
        return None
    prefix = ends[0]

    def sizes(name: str) -> tuple[int, ...]:
        array = arrays.get(f"{prefix}{name}.weight")
        return (0, 0) if array is None or array.ndim != 2 else array.shape

    layers = {match[1] for name in arrays if (match := _LAYER.fullmatch(name)) is not None}
    tables = [sizes(f"embeddings.{table}_embeddings") for table in ("word", "position", "token_type", "task_type")]
    return Shape(len(layers), tables[0][1], sizes("encoder.layers.0.linear1")[1], *(table[0] for table in tables))


def shape_of_config(config: EncoderConfig) -> Shape:
    """Return the shape of an encoder's parameters by its configuration."""
    return Shape(
        config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.vocab_size,
        config.max_position_embeddings, config.type_vocab_size,
        config.task_type_vocab_size if config.use_task_id else 0,
    )  # fmt: skip


Groups = list[tuple[EncoderConfig, list[str]]]


def fitting(shape: Shape, arrays: Mapping[str, Array]) -> Groups:
    """Return the published models of a shape: each configuration that computes differently, with its models' names.

    arrays: the parameters; if their names begin with a family's, as in `ernie.`, other families do not fit
    """
    families = [family for family in PUBLISHED_FAMILIES if any(name.startswith(f"{family}.") for name in arrays)]
    groups: dict[EncoderConfig, list[str]] = {}
    for name, entry in _published().items():
        if shape_of_config(entry.config) == shape and entry.config.model_type in (families or PUBLISHED_FAMILIES):
            plain = replace(entry.config, hidden_dropout_prob=0, attention_probs_dropout_prob=0, initializer_range=0)
            groups.setdefault(plain, []).append(name)
    return [(_published()[names[0]].config, names) for names in groups.values()]


def listed_names(groups: Groups) -> Iterator[str]:
    """Yield a name of each group."""
    return (names[0] for _, names in groups)


def paddlenlp_folder(name: str) -> Path:
    """Return the folder where PaddleNLP keeps the files of a model that it fetched."""
    return Path(os.environ.get("PPNLP_HOME") or Path.home() / ".paddlenlp") / "models" / name
