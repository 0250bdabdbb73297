"""Convert an encoder's parameter names and layouts between transformers and this toolkit, which uses PaddleNLP's.

PyTorch keeps a linear layer's weight as [out, in], Paddle as [in, out].
"""

from __future__ import annotations

import re

import numpy as np

from paddle_ranker.encoding.columns import Array
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.masked_lm import HEAD

# transformers' name, our name; {} is a layer's number. Weights of linear layers are transposed.
_EMBEDDINGS = (
    ("embeddings.word_embeddings", "embeddings.word_embeddings"),
    ("embeddings.position_embeddings", "embeddings.position_embeddings"),
    ("embeddings.token_type_embeddings", "embeddings.token_type_embeddings"),
    ("embeddings.task_type_embeddings", "embeddings.task_type_embeddings"),
)
_NORMS = (
    ("embeddings.LayerNorm", "embeddings.layer_norm"),
    ("encoder.layer.{}.attention.output.LayerNorm", "encoder.layers.{}.norm1"),
    ("encoder.layer.{}.output.LayerNorm", "encoder.layers.{}.norm2"),
)
_LINEAR = (
    ("encoder.layer.{}.attention.self.query", "encoder.layers.{}.self_attn.q_proj"),
    ("encoder.layer.{}.attention.self.key", "encoder.layers.{}.self_attn.k_proj"),
    ("encoder.layer.{}.attention.self.value", "encoder.layers.{}.self_attn.v_proj"),
    ("encoder.layer.{}.attention.output.dense", "encoder.layers.{}.self_attn.out_proj"),
    ("encoder.layer.{}.intermediate.dense", "encoder.layers.{}.linear1"),
    ("encoder.layer.{}.output.dense", "encoder.layers.{}.linear2"),
    ("pooler.dense", "pooler.dense"),
)
_OURS = dict((*_EMBEDDINGS, *_NORMS, *_LINEAR))
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}
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
_TRANSPOSED = {theirs for theirs, _ in _LINEAR}
_KINDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}  # gamma, beta: TensorFlow's, long ago
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # constants, not parameters
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
_WORDS = "embeddings.word_embeddings.weight"

# RoBERTa's classifier has its own dense layer and tanh before the projection; BERT calls them the pooler.
_ROBERTA_HEAD = {"classifier.dense": "pooler.dense", "classifier.out_proj": "classifier"}


def to_ours(arrays: dict[str, Array]) -> tuple[dict[str, Array], list[str]]:
    """Rename and transpose a transformers checkpoint; also return the names of the parameters that are ignored.

    The encoder's names keep whatever prefix they have (`bert.`, none); `network.name_parameters` removes it. A ranker's
    head is named `classifier`; a masked language model's head is named as `masked_lm.masked_lm_head` takes it.

    Raises `CheckpointError` if there is no encoder, or its names are PaddleNLP's already.
    """
    prefixes = sorted((name[: -len(_WORDS)] for name in arrays if name.endswith(_WORDS)), key=len)
    if not prefixes:
        raise CheckpointError(f"holds no BERT-style encoder: no parameter's name ends in {_WORDS}")
    prefix = prefixes[0]
    if any(name.startswith(f"{prefix}encoder.layers.") for name in arrays):
        raise CheckpointError(
            "has PaddleNLP's parameter names: save it as model_state.pdparams; such a folder needs no conversion"
        )
    ours, left_over = {}, []
    for name, array in arrays.items():
        inner = name[len(prefix) :] if name.startswith(prefix) else name
        if inner in _BUFFERS:
            continue
        if name in _MASKED_LM:
            ours[_MASKED_LM[name]] = array.T if name == _TRANSPOSED_IN_HEAD else array
            continue
        base, _, kind = inner.rpartition(".")
        head = name.rpartition(".")[0]
        if head == "classifier" or head in _ROBERTA_HEAD:
            renamed = _ROBERTA_HEAD.get(head, head)
            if renamed == "pooler.dense":
                renamed = prefix + renamed
            ours[f"{renamed}.{kind}"] = array.T if kind == "weight" else array
            continue
        number = _LAYER.search(base)
        pattern = _LAYER.sub("{}", base, count=1)
        if not name.startswith(prefix) or pattern not in _OURS or kind not in _KINDS:
            left_over.append(name)
            continue
        renamed = _OURS[pattern].format(number and number.group())
        transpose = pattern in _TRANSPOSED and kind == "weight"
        ours[f"{prefix}{renamed}.{_KINDS[kind]}"] = array.T if transpose else array
    return ours, left_over


def to_theirs(named: dict[str, Array], model_type: str) -> dict[str, Array]:
    """Convert `RankerNetwork`'s parameters to Hugging Face's names and layout: rename them, and transpose where needed.

    The names are those of `BertForSequenceClassification` if there is a ranking head (`head.*`), of `BertForMaskedLM`
    if there is a masked language model's (`cls.predictions.*`), else of `BertModel`; for ERNIE and RoBERTa, those of
    their equivalents.
    """
    has_head = "head.weight" in named
    prefix = f"{model_type}." if has_head or any(name.startswith(f"{HEAD}.") for name in named) else ""
    of_head = {ours: theirs for theirs, ours in _MASKED_LM.items()}
    theirs = {}
    for name, array in named.items():
        base, _, kind = name.rpartition(".")
        if name in of_head:
            transpose = of_head[name] == _TRANSPOSED_IN_HEAD
            theirs[of_head[name]] = np.ascontiguousarray(array.T if transpose else array)
            continue
        if base == "head":
            renamed, transpose = "classifier.out_proj" if model_type == "roberta" else "classifier", True
        else:
            inner = base[len("encoder.") :]
            number = _LAYER.search(inner)
            pattern = _THEIRS[_LAYER.sub("{}", inner, count=1)]
            renamed = prefix + pattern.format(number and number.group())
            transpose = pattern in _TRANSPOSED
            if has_head and model_type == "roberta" and pattern == "pooler.dense":
                renamed = "classifier.dense"
        # safetensors writes memory as it lies, so a transposed view must become an array of its own.
        theirs[f"{renamed}.{kind}"] = np.ascontiguousarray(array.T if transpose and kind == "weight" else array)
    return theirs
