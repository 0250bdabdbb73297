"""Parameter names and configurations in transformers; `model/families.py` has an `Architecture` for each family.

PyTorch keeps a linear layer's weight as [out, in], Paddle as [in, out].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Optional

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.config import WORD_EMBEDDINGS, EncoderConfig
from paddle_ranker.model.masked_lm import HEAD
from paddle_ranker.storage.foreign_config import ForeignConfig
from paddle_ranker.storage.untrusted import UncheckedObject

# Activations: transformers' name -> ours. `gelu` is x * Phi(x), by erf; `gelu_new` approximates it by tanh.
ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "gelu_python": "gelu",
    "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
CLASSIFIES = "ForSequenceClassification"
PLAIN = "take the model that it was made of, or one without this"
# Keys of any configuration that change results: the values that change nothing, and advice about other values.
_REFUSED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "quantization_config": ((), "save the model as float32, float16 or bfloat16, or take its original"),
    "compression_config": ((), "save the model as float32, float16 or bfloat16, or take its original"),
    "transformers_weights": ((), "name the file model.safetensors and remove this key"),
    "adapters": (({"adapters": {}, "config_map": {}, "fusion_config_map": {}, "fusions": {}}, {}), PLAIN),
    "fusion_config": (({},), PLAIN),
    "per_layer_config": (({},), PLAIN),
    "pruned_heads": (({},), PLAIN),
    "is_decoder": ((False,), "take an encoder"),
    "is_causal": ((False,), "take an encoder"),
    "is_encoder_decoder": ((False,), "take an encoder"),
    "add_cross_attention": ((False,), "take an encoder"),
    "attn_logit_softcapping": ((), PLAIN),
    "rope_scaling": ((), PLAIN),
}
# Keys that never change the results of an encoder or its head: names and versions, settings of training, generation,
# memory and speed, and of heads that are not read.
_IDLE = """
_name_or_path _commit_hash name_or_path transformers_version transformers.js_config adapter_transformers_version
torch_dtype dtype task_specific_params finetuning_task label2id tokenizer_class prefix language license
attn_implementation _attn_implementation _attn_implementation_autoset experts_implementation output_attentions
output_hidden_states output_past return_dict torchscript use_cache use_bfloat16 xla_device
gradient_checkpointing chunk_size_feed_forward tf_legacy_loss tie_word_embeddings tie_weights_
tie_encoder_decoder initializer_range initializer_cutoff_factor classifier_dropout cross_attention_hidden_size
bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id unk_token_id decoder_start_token_id max_length
max_new_tokens min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k
top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
bad_words_ids num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens directionality
pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
matryoshka_dimensions
"""
WITHOUT_EFFECT = frozenset(_IDLE.split())
# Advice by unsupported model types; "" is for all others.
INSTEAD = {
    "qwen2 llama mistral gemma gemma2 gemma3 gemma3_text phi3 minicpm gpt2 gpt_neox bloom internlm2": "this is a "
    "decoder of another family: take Qwen/Qwen3-Reranker-0.6B or Qwen/Qwen3-Embedding-0.6B (qwen3), or let a server "
    "run it and distill its scores (paddle-ranker distill)",
    "ernie_m": "take PaddleNLP's files of it, by its name: ernie-m-base or ernie-m-large",
    "albert nezha roformer mobilebert squeezebert convbert funnel": "take hfl/chinese-macbert-base or "
    "ernie-3.0-base-zh of Chinese, microsoft/deberta-v3-small of English, FacebookAI/xlm-roberta-base of others",
    "new nomic_bert gte jina_bert jina_bert_v3 eurobert snowflake": "its network is code of its own: take BAAI/bge-m3 "
    "(xlm-roberta) or Alibaba-NLP/gte-modernbert-base (modernbert)",
    "deberta": "take its later version, microsoft/deberta-v3-base (deberta-v2)",
    "layoutlmv2 layoutlmv3": "it reads a picture of the page beside words and boxes, and its weights are not for "
    "commercial use: take microsoft/layoutlm-base-uncased (layoutlm) or SCUT-DLVCLab/lilt-roberta-en-base (lilt)",
    "": "take a model of one of these: BAAI/bge-reranker-v2-m3 as reranker, BAAI/bge-m3 for vectors",
}
Values = UncheckedObject
Check = Callable[[ForeignConfig, Values], None]


class CellHeadNames(NamedTuple):
    """Heads of rankers that name cells, whose arrays in transformers are no linear layers.

    name: transformers' class of such rankers
    read: called with the arrays by name and the configuration; returns the arrays with all heads as linear layers, or
        raises `CheckpointError`
    write: called with such arrays and our configuration; returns transformers' arrays and entries of `config.json`
    """

    name: str
    read: Callable[[dict[str, Array], ForeignConfig], dict[str, Array]]
    write: Callable[[dict[str, Array], EncoderConfig], tuple[dict[str, Array], UncheckedObject]]


@dataclass(frozen=True)
class Architecture:
    """Names of an architecture's parameters in transformers, and conversion between its `config.json` and ours.

    names: names of the parameters
    fields: keys of the configuration, with transformers' defaults
    check: called with the configuration and the values read so far, under the names of `EncoderConfig`; adds missing
        values; raises `CheckpointError` for unsupported values
    ours: names of fields of `EncoderConfig` that transformers names otherwise, by transformers' keys
    without_effect: keys that never change results, in addition to `WITHOUT_EFFECT`
    checked: keys that `check` reads, of those that other families refuse
    answers: whether its language models are rankers, which answer "yes" or "no" to a pair
    heads: heads of its rankers that name cells; None if it has no such rankers
    """

    names: Names
    fields: Mapping[str, object]
    check: Check
    ours: Mapping[str, str] = field(default_factory=dict)
    without_effect: frozenset[str] = frozenset()
    checked: frozenset[str] = frozenset()
    answers: bool = False
    heads: Optional[CellHeadNames] = None

    def read(self, config: ForeignConfig) -> Values:
        """Return the values under the names of `EncoderConfig`; raises `CheckpointError` for unsupported values."""
        for name, (done, remedy) in _REFUSED.items():
            if name not in self.checked:
                config.require(name, *done, remedy=remedy)
        values = {self.ours.get(name, name): config.get(name, default) for name, default in self.fields.items()}
        for name in self.fields:
            if name.endswith(("_act", "activation")):
                values[self.ours.get(name, name)] = _activation(config, name, self.fields[name])
        self.check(config, values)
        config.ignore(self.without_effect)
        return {name: value for name, value in values.items() if value is not None}

    def written(self, config: EncoderConfig) -> Values:
        """Return a configuration under transformers' names."""
        values = {name: getattr(config, self.ours.get(name, name)) for name in self.fields}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {name: value for name, value in values.items() if value or self.fields[name] is not None}


def _activation(config: ForeignConfig, name: str, default: object) -> str:
    """Return this toolkit's name of the activation that the key `name` states; raises `CheckpointError` if unsupported.

    default: transformers' default
    """
    activation = config.get(name, default)
    if not isinstance(activation, str) or activation not in ACTIVATION_NAMES:
        raise config.error(
            f"{name} is {quoted(activation)}, which is not done here; known: {', '.join(ACTIVATION_NAMES)}"
        )
    return ACTIVATION_NAMES[activation]


# Head of a masked language model: complete names, which never have a prefix. The last two repeat the word embeddings
# and the bias.
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
# gamma and beta are from old TensorFlow checkpoints.
_KINDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # constants, not parameters
_OTHER_HEADS = re.compile(
    r"(^|\.)(cls|lm_head|lm_predictions|mask_predictions|qa_outputs|discriminator_predictions|generator_predictions"
    r"|generator_lm_head|vocab_transform|vocab_layer_norm|vocab_projector|decoder|head|classifier|pre_classifier"
    r"|pooler)\.|\.inv_freq$"
)
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


def marked(linear: Mapping[str, str]) -> dict[str, str]:
    """Mark transformers' names of linear layers by a star, as `other_name` expects them."""
    return {f"{theirs}*": ours for theirs, ours in linear.items()}


@dataclass(frozen=True)
class Names:
    """Parameter names of a family in transformers, without `.weight` and `.bias`.

    plain: this toolkit's names by transformers' names, for embeddings and norms; {} stands for a layer's index
    linear: the same as `plain` for linear layers, whose weights are transposed
    prefix: prefix of the encoder's names in models with a head
    head: this toolkit's names of a ranker's head, by transformers' complete names; the head's matrices are transposed
    head_has_bias: whether a ranker's head has a bias
    bare: transformers' complete names of arrays `[1, rows, width]` that become the tables of embeddings, `[rows,
        width]`
    task: end of the name of a ranker's class
    """

    plain: Mapping[str, str]
    linear: Mapping[str, str]
    prefix: str
    head: Mapping[str, str] = field(default_factory=lambda: {"classifier": "classifier"})
    head_has_bias: bool = True
    bare: tuple[str, ...] = ()
    task: str = CLASSIFIES

    @cached_property
    def ours(self) -> dict[str, str]:
        """This toolkit's names of the encoder's parameters, by transformers' names as in `other_name`."""
        return {**self.plain, **marked(self.linear)}

    @cached_property
    def theirs(self) -> dict[str, str]:
        """transformers' names of the encoder's parameters as in `other_name`, by this toolkit's names."""
        return {ours: theirs for theirs, ours in self.ours.items()}

    @cached_property
    def words(self) -> str:
        """transformers' name of the word embeddings."""
        return f"{self.theirs[WORD_EMBEDDINGS.rpartition('.')[0]]}.weight"


def other_name(base: str, names: Mapping[str, str]) -> Optional[tuple[str, bool]]:
    """Translate a parameter's name between transformers and this toolkit; also return whether it is of a linear layer.

    Returns None for an unknown parameter.

    base: the name to translate, without `.weight` and `.bias`
    names: the translations, by name; {} stands for a layer's number, and a star ends transformers' names of linear
        layers
    """
    number = _LAYER.search(base)
    pattern = _LAYER.sub("{}", base, count=1)
    is_marked = f"{pattern}*" in names
    other = names.get(f"{pattern}*" if is_marked else pattern)
    if other is None:
        return None
    return other.rstrip("*").format(number and number.group()), is_marked or other.endswith("*")


def to_ours(arrays: dict[str, Array], names: Names) -> tuple[dict[str, Array], list[str]]:
    """Rename and transpose a transformers checkpoint; also return the names of the ignored parameters.

    The encoder's names keep their prefix (`bert.` or another); `network.name_parameters` removes it. A ranker's head is
    named `classifier`; a masked language model's head gets the names of `masked_lm.masked_lm_head`.

    Raises `CheckpointError` if there is no encoder, or if the names are PaddleNLP's already.
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
        if inner.endswith(BUFFERS):
            continue
        if inner in names.bare:
            inner, name, array = f"{inner}.weight", f"{name}.weight", array[0]
        if name in _MASKED_LM:
            ours[_MASKED_LM[name]] = array.T if name == _TRANSPOSED_IN_HEAD else array
            continue
        base, _, kind = inner.rpartition(".")
        head = _of_head(name.rpartition(".")[0], names, prefix)
        if head is not None and kind in _KINDS:
            ours[f"{head}.{kind}"] = array.T if kind == "weight" and array.ndim == 2 else array
            continue
        our_name = other_name(base, names.ours)
        # A pooler may stand beside a two-layer head: older versions of transformers wrote both.
        if not name.startswith(prefix) or our_name is None or kind not in _KINDS or prefix + our_name[0] in of_heads:
            left_over.append(name)
            continue
        ours[f"{prefix}{our_name[0]}.{_KINDS[kind]}"] = array.T if our_name[1] and kind == "weight" else array
    return ours, left_over


def is_of_other_head(name: str) -> bool:
    """Return whether a name is that of a constant, or of a parameter of a head that rankers do not use."""
    return _OTHER_HEADS.search(name) is not None


def _of_head(base: str, names: Names, prefix: str) -> Optional[str]:
    """Return this toolkit's name of a part of a ranker's head; None for other parts.

    base: the part's name in transformers
    """
    renamed = names.head.get(base)
    return renamed if renamed in (None, "classifier") else f"{prefix}{renamed}"


def of_paddlenlp(arrays: dict[str, Array], names: Names) -> dict[str, Array]:
    """Rename a PaddleNLP checkpoint's arrays, which may have transformers' names, to this toolkit's names."""
    prefix = min(
        (name[: -len(WORD_EMBEDDINGS)] for name in arrays if name.endswith(WORD_EMBEDDINGS)), key=len, default=""
    )
    renamed = {}
    of_heads = {_of_head(name.rpartition(".")[0], names, prefix) for name in arrays}
    for name, array in arrays.items():
        base, _, kind = name.rpartition(".")
        inner = base[len(prefix) :] if base.startswith(prefix) else ""
        head, other = _of_head(base, names, prefix), other_name(inner, names.ours)
        if head is not None:
            base = head
        elif other is not None:
            base = prefix + other[0]
            if base in of_heads:  # a pooler beside a two-layer head, as in `to_ours`
                continue
        renamed[f"{base}.{kind}"] = array
    return renamed


def to_theirs(named: dict[str, Array], names: Names) -> dict[str, Array]:
    """Convert the parameters of `RankerNetwork` to the names and the layout of transformers.

    The names are those of `BertForSequenceClassification` if there is a ranking head (`head.*`), of `BertForMaskedLM`
    if there is a masked language model's head (`cls.predictions.*`), else of `BertModel`, or of the equivalents in
    other families.
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
            other, transpose = of_head["classifier" if base == "head" else inner], array.ndim == 2
        else:
            their_name = other_name(inner, names.theirs)
            assert their_name is not None, name
            other, transpose = prefix + their_name[0], their_name[1]
        if base == "head" and kind == "bias" and not names.head_has_bias:
            continue  # zeros, see `parameters_to_write`
        if other[len(prefix) :] in names.bare:
            theirs[other] = np.ascontiguousarray(array[None])
            continue
        # safetensors writes raw memory, so a transposed view must be copied.
        theirs[f"{other}.{kind}"] = np.ascontiguousarray(array.T if transpose and kind == "weight" else array)
    return theirs
