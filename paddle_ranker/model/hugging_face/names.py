"""Convert an encoder's parameter names and layouts between transformers and this toolkit, which uses PaddleNLP's.

PyTorch keeps a linear layer's weight as [out, in], Paddle as [in, out].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Optional

import numpy as np

from paddle_ranker.encoding.columns import Array
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.masked_lm import HEAD

# The head of a masked language model: complete names, since they have no prefix. The last two are the word embeddings
# and the bias under a second name.
_MASKED_LM = {
    f"{HEAD}.transform.dense.weight": f"{HEAD}.transform.weight",
    f"{HEAD}.transform.dense.bias": f"{HEAD}.transform.bias",
    f"{HEAD}.transform.LayerNorm.weight": f"{HEAD}.layer_norm.weight",
    f"{HEAD}.transform.LayerNorm.bias": f"{HEAD}.layer_norm.bias",
    f"{HEAD}.bias": f"{HEAD}.decoder_bias",
    f"{HEAD}.decoder.weight": f"{HEAD}.decoder.weight",
    f"{HEAD}.decoder.bias": f"{HEAD}.decoder.bias",
}
_TRANSPOSED_IN_HEAD = f"{HEAD}.transform.dense.weight"
_KINDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}  # gamma, beta: TensorFlow's, long ago
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # constants, not parameters
_OTHER_HEADS = re.compile(
    r"(^|\.)(cls|lm_head|lm_predictions|mask_predictions|qa_outputs|discriminator_predictions|generator_predictions"
    r"|generator_lm_head|vocab_transform|vocab_layer_norm|vocab_projector|decoder|head|classifier|pre_classifier"
    r"|pooler)\.|\.inv_freq$"
)
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
_OUR_WORDS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Names:
    """What transformers calls the parameters of a family's encoders, without `.weight` and `.bias`.

    plain: a dict from its names to ours, of embeddings and norms; {} is a layer's number
    linear: likewise, of linear layers, whose weights are transposed
    prefix: what precedes the encoder's names where there is a head
    head: complete names of a ranker's head, to ours; its matrices are transposed
    """

    plain: Mapping[str, str]
    linear: Mapping[str, str]
    prefix: str
    head: Mapping[str, str] = field(default_factory=lambda: {"classifier": "classifier"})

    @cached_property
    def ours(self) -> dict[str, str]:
        """A dict from transformers' names of the encoder's parameters to ours."""
        return {**self.plain, **self.linear}

    @cached_property
    def theirs(self) -> dict[str, str]:
        """A dict from our names to transformers'."""
        return {ours: theirs for theirs, ours in self.ours.items()}

    @cached_property
    def words(self) -> str:
        """transformers' name of the word embeddings."""
        return f"{self.theirs[_OUR_WORDS.rpartition('.')[0]]}.weight"


def to_ours(arrays: dict[str, Array], names: Names) -> tuple[dict[str, Array], list[str]]:
    """Rename and transpose a transformers checkpoint; also return the names of the parameters that are ignored.

    The encoder's names keep whatever prefix they have (`bert.`, none); `network.name_parameters` removes it. A ranker's
    head is named `classifier`; a masked language model's head is named as `masked_lm.masked_lm_head` takes it.

    Raises `CheckpointError` if there is no encoder, or its names are PaddleNLP's already.
    """
    words = names.words
    prefixes = sorted((name[: -len(words)] for name in arrays if name.endswith(words)), key=len)
    if not prefixes:
        raise CheckpointError(f"holds no BERT-style encoder: no parameter's name ends in {words}")
    prefix = prefixes[0]
    if any(name.startswith(f"{prefix}encoder.layers.") for name in arrays):
        raise CheckpointError(
            "has PaddleNLP's parameter names: save it as model_state.pdparams; such a folder needs no conversion"
        )
    ours, left_over = {}, []
    of_heads = {_of_head(name.rpartition(".")[0], names, prefix) for name in arrays}
    for name, array in arrays.items():
        inner = name[len(prefix) :] if name.startswith(prefix) else name
        if inner in BUFFERS:
            continue
        if name in _MASKED_LM:
            ours[_MASKED_LM[name]] = array.T if name == _TRANSPOSED_IN_HEAD else array
            continue
        base, _, kind = inner.rpartition(".")
        head = _of_head(name.rpartition(".")[0], names, prefix)
        if head is not None and kind in _KINDS:
            ours[f"{head}.{kind}"] = array.T if kind == "weight" and array.ndim == 2 else array
            continue
        number = _LAYER.search(base)
        pattern = _LAYER.sub("{}", base, count=1)
        if not name.startswith(prefix) or pattern not in names.ours or kind not in _KINDS:
            left_over.append(name)
            continue
        renamed = prefix + names.ours[pattern].format(number and number.group())
        if renamed in of_heads:  # a pooler beside a two-layer head, which older versions of transformers wrote
            left_over.append(name)
            continue
        transpose = pattern in names.linear and kind == "weight"
        ours[f"{renamed}.{_KINDS[kind]}"] = array.T if transpose else array
    return ours, left_over


def is_of_other_head(name: str) -> bool:
    """Return whether a parameter is known to be of a head that a ranker has no use for, or a constant."""
    return _OTHER_HEADS.search(name) is not None


def _of_head(base: str, names: Names, prefix: str) -> Optional[str]:
    """Return our name of a part of a ranker's head; None if it is none."""
    renamed = names.head.get(base)
    return renamed if renamed in (None, "classifier") else f"{prefix}{renamed}"


def of_paddlenlp(arrays: dict[str, Array], names: Names) -> dict[str, Array]:
    """Rename a checkpoint of PaddleNLP's own classes, which have some of transformers' names, in Paddle's layout.

    The encoder keeps whatever prefix it has; arrays under our names keep these.
    """
    prefix = min((name[: -len(_OUR_WORDS)] for name in arrays if name.endswith(_OUR_WORDS)), key=len, default="")
    found = {}
    of_heads = {_of_head(name.rpartition(".")[0], names, prefix) for name in arrays}
    for name, array in arrays.items():
        base, _, kind = name.rpartition(".")
        inner = base[len(prefix) :] if base.startswith(prefix) else ""
        number = _LAYER.search(inner)
        pattern = _LAYER.sub("{}", inner, count=1)
        head = _of_head(base, names, prefix)
        if head is not None:
            base = head
        elif pattern in names.ours:
            base = prefix + names.ours[pattern].format(number and number.group())
            if base in of_heads:  # a pooler beside a two-layer head, as in `to_ours`
                continue
        found[f"{base}.{kind}"] = array
    return found


def to_theirs(named: dict[str, Array], names: Names) -> dict[str, Array]:
    """Convert `RankerNetwork`'s parameters to Hugging Face's names and layout: rename them, and transpose where needed.

    The names are those of `BertForSequenceClassification` if there is a ranking head (`head.*`), of `BertForMaskedLM`
    if there is a masked language model's (`cls.predictions.*`), else of `BertModel`; for other families, those of
    their equivalents.
    """
    has_head = "head.weight" in named
    prefix = f"{names.prefix}." if has_head or any(name.startswith(f"{HEAD}.") for name in named) else ""
    of_masked_lm = {ours: theirs for theirs, ours in _MASKED_LM.items()}
    of_head = {ours: theirs for theirs, ours in names.head.items()}
    theirs = {}
    for name, array in named.items():
        base, _, kind = name.rpartition(".")
        if name in of_masked_lm:
            transpose = of_masked_lm[name] == _TRANSPOSED_IN_HEAD
            theirs[of_masked_lm[name]] = np.ascontiguousarray(array.T if transpose else array)
            continue
        inner = base[len("encoder.") :]
        if base == "head" or (has_head and inner in of_head):
            renamed, transpose = of_head["classifier" if base == "head" else inner], array.ndim == 2
        else:
            number = _LAYER.search(inner)
            pattern = names.theirs[_LAYER.sub("{}", inner, count=1)]
            renamed = prefix + pattern.format(number and number.group())
            transpose = pattern in names.linear
        # safetensors writes memory as it lies, so a transposed view must become an array of its own.
        theirs[f"{renamed}.{kind}"] = np.ascontiguousarray(array.T if transpose and kind == "weight" else array)
    return theirs


_BERT_LINEAR = {
    "encoder.layer.{}.attention.self.query": "encoder.layers.{}.self_attn.q_proj",
    "encoder.layer.{}.attention.self.key": "encoder.layers.{}.self_attn.k_proj",
    "encoder.layer.{}.attention.self.value": "encoder.layers.{}.self_attn.v_proj",
    "encoder.layer.{}.attention.output.dense": "encoder.layers.{}.self_attn.out_proj",
    "encoder.layer.{}.intermediate.dense": "encoder.layers.{}.linear1",
    "encoder.layer.{}.output.dense": "encoder.layers.{}.linear2",
}
_BERT_PLAIN = {
    "embeddings.word_embeddings": "embeddings.word_embeddings",
    "embeddings.position_embeddings": "embeddings.position_embeddings",
    "embeddings.token_type_embeddings": "embeddings.token_type_embeddings",
    "embeddings.task_type_embeddings": "embeddings.task_type_embeddings",
    "embeddings.LayerNorm": "embeddings.layer_norm",
    "encoder.layer.{}.attention.output.LayerNorm": "encoder.layers.{}.norm1",
    "encoder.layer.{}.output.LayerNorm": "encoder.layers.{}.norm2",
}
_POOLER = {"pooler.dense": "pooler.dense"}
# A two-layer head has its own dense layer and activation before the projection; BERT calls them the pooler.
TWO_LAYERS = {"classifier.dense": "pooler.dense", "classifier.out_proj": "classifier"}


def bert_names(prefix: str) -> Names:
    """Return the names of BERT's and ERNIE's encoders, after `prefix`."""
    return Names(_BERT_PLAIN, {**_BERT_LINEAR, **_POOLER}, prefix)


ROBERTA = Names(_BERT_PLAIN, {**_BERT_LINEAR, **_POOLER}, "roberta", TWO_LAYERS)
ELECTRA = Names(_BERT_PLAIN, {**_BERT_LINEAR, "embeddings_project": "embeddings.project"}, "electra", TWO_LAYERS)
DEBERTA = Names(
    {
        **_BERT_PLAIN,
        "encoder.rel_embeddings": "encoder.rel_embeddings",
        "encoder.LayerNorm": "encoder.rel_norm",
        "encoder.conv.conv": "encoder.conv.conv",
        "encoder.conv.LayerNorm": "encoder.conv.norm",
    },
    {
        **{name: ours for name, ours in _BERT_LINEAR.items() if ".self." not in name},
        "encoder.layer.{}.attention.self.query_proj": "encoder.layers.{}.self_attn.q_proj",
        "encoder.layer.{}.attention.self.key_proj": "encoder.layers.{}.self_attn.k_proj",
        "encoder.layer.{}.attention.self.value_proj": "encoder.layers.{}.self_attn.v_proj",
        "encoder.layer.{}.attention.self.pos_key_proj": "encoder.layers.{}.self_attn.pos_k_proj",
        "encoder.layer.{}.attention.self.pos_query_proj": "encoder.layers.{}.self_attn.pos_q_proj",
        "embeddings.embed_proj": "embeddings.project",
    },
    "deberta",
    {"pooler.dense": "pooler.dense", "classifier": "classifier"},
)
MPNET = Names(
    {
        **{name: ours for name, ours in _BERT_PLAIN.items() if "type" not in name and ".attention." not in name},
        "encoder.layer.{}.attention.LayerNorm": "encoder.layers.{}.norm1",
        "encoder.relative_attention_bias": "encoder.relative_attention_bias",
    },
    {
        **{name: ours for name, ours in _BERT_LINEAR.items() if ".attention." not in name},
        "encoder.layer.{}.attention.attn.q": "encoder.layers.{}.self_attn.q_proj",
        "encoder.layer.{}.attention.attn.k": "encoder.layers.{}.self_attn.k_proj",
        "encoder.layer.{}.attention.attn.v": "encoder.layers.{}.self_attn.v_proj",
        "encoder.layer.{}.attention.attn.o": "encoder.layers.{}.self_attn.out_proj",
        **_POOLER,
    },
    "mpnet",
    TWO_LAYERS,
)
DISTILBERT = Names(
    {
        **{name: ours for name, ours in _BERT_PLAIN.items() if name.startswith("embeddings.") and "type" not in name},
        "transformer.layer.{}.sa_layer_norm": "encoder.layers.{}.norm1",
        "transformer.layer.{}.output_layer_norm": "encoder.layers.{}.norm2",
    },
    {
        "transformer.layer.{}.attention.q_lin": "encoder.layers.{}.self_attn.q_proj",
        "transformer.layer.{}.attention.k_lin": "encoder.layers.{}.self_attn.k_proj",
        "transformer.layer.{}.attention.v_lin": "encoder.layers.{}.self_attn.v_proj",
        "transformer.layer.{}.attention.out_lin": "encoder.layers.{}.self_attn.out_proj",
        "transformer.layer.{}.ffn.lin1": "encoder.layers.{}.linear1",
        "transformer.layer.{}.ffn.lin2": "encoder.layers.{}.linear2",
    },
    "distilbert",
    {"pre_classifier": "pooler.dense", "classifier": "classifier"},
)
MODERNBERT = Names(
    {
        "embeddings.tok_embeddings": "embeddings.word_embeddings",
        "embeddings.norm": "embeddings.layer_norm",
        "layers.{}.attn_norm": "encoder.layers.{}.norm1",
        "layers.{}.mlp_norm": "encoder.layers.{}.norm2",
        "final_norm": "encoder.norm",
    },
    {
        "layers.{}.attn.Wqkv": "encoder.layers.{}.self_attn.qkv_proj",
        "layers.{}.attn.Wo": "encoder.layers.{}.self_attn.out_proj",
        "layers.{}.mlp.Wi": "encoder.layers.{}.linear1",
        "layers.{}.mlp.Wo": "encoder.layers.{}.linear2",
    },
    "model",
    {"head.dense": "pooler.dense", "head.norm": "pooler.norm", "classifier": "classifier"},
)
