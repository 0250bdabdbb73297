"""Architectures of transformers, by `model_type`: names of parameters and classes, and configurations both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from paddle_ranker.errors import quoted
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.hugging_face.names import (
    DEBERTA,
    DISTILBERT,
    ELECTRA,
    MODERNBERT,
    MPNET,
    ROBERTA,
    Names,
    bert_names,
)
from paddle_ranker.registry import Registry
from paddle_ranker.storage.stated import Stated
from paddle_ranker.storage.untrusted import UncheckedObject

# Functions that both sides have: transformers' name -> ours. `gelu` is x * Phi(x), by erf; `gelu_new` by tanh.
ACTIVATIONS = {
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
_PLAIN = "take the model that it was made of, or one without this"
# Keys of any configuration that change numbers: the values with which nothing changes, and what to do about others.
_REFUSED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "quantization_config": ((), "save the model as float32, float16 or bfloat16, or take its original"),
    "compression_config": ((), "save the model as float32, float16 or bfloat16, or take its original"),
    "transformers_weights": ((), "name the file model.safetensors and remove this key"),
    "adapters": (({"adapters": {}, "config_map": {}, "fusion_config_map": {}, "fusions": {}}, {}), _PLAIN),
    "fusion_config": (({},), _PLAIN),
    "per_layer_config": (({},), _PLAIN),
    "pruned_heads": (({},), _PLAIN),
    "is_decoder": ((False,), "take an encoder"),
    "is_encoder_decoder": ((False,), "take an encoder"),
    "add_cross_attention": ((False,), "take an encoder"),
    "attn_logit_softcapping": ((), _PLAIN),
    "rope_scaling": ((), _PLAIN),
}
# Keys that change no number of an encoder or its head when it computes, whatever their values: names and versions,
# settings of training and of generation, what PyTorch's memory and speed depend on, and of heads that are not read.
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
# What to take instead of a model of another type: types -> advice; of any other the last.
INSTEAD = {
    "qwen3 qwen2 llama mistral gemma gemma2 gemma3 gemma3_text phi3 minicpm gpt2 gpt_neox bloom internlm2": "this is a "
    "decoder: take BAAI/bge-reranker-v2-m3 or BAAI/bge-m3 (xlm-roberta), or let a server run it and distill its scores "
    "(paddle-ranker distill)",
    "albert nezha roformer ernie_m mobilebert squeezebert convbert funnel": "take hfl/chinese-macbert-base or "
    "ernie-3.0-base-zh of Chinese, microsoft/deberta-v3-small of English, FacebookAI/xlm-roberta-base of others",
    "new nomic_bert gte jina_bert jina_bert_v3 eurobert snowflake": "its network is code of its own: take BAAI/bge-m3 "
    "(xlm-roberta) or Alibaba-NLP/gte-modernbert-base (modernbert)",
    "deberta": "take its later version, microsoft/deberta-v3-base (deberta-v2)",
    "": "take a model of one of these: BAAI/bge-reranker-v2-m3 as reranker, BAAI/bge-m3 for vectors",
}
_FIELDS: Mapping[str, object] = {  # of every BERT: key -> transformers' default
    "vocab_size": None,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
Values = UncheckedObject
Check = Callable[[Stated, Values], None]


def _absolute(stated: Stated, values: Values) -> None:
    """Check a BERT's configuration."""
    stated.require("position_embedding_type", "absolute", remedy=_PLAIN)
    stated.require("embedding_size", values["hidden_size"], remedy=_PLAIN)


@dataclass(frozen=True)
class Architecture:
    """What transformers calls an architecture's parameters and classes, and how its `config.json` is read and written.

    classes: how the names of its classes begin
    fields: the keys of its configuration, and transformers' default of each
    ours: a dict from such a key to the name of the field of `EncoderConfig`, where that is another
    check: completes what was read, under the names of `EncoderConfig`; raises `CheckpointError` for what is not done
    without_effect: keys that change no number, beside those of `WITHOUT_EFFECT`
    """

    names: Names
    classes: str
    fields: Mapping[str, object]
    ours: Mapping[str, str]
    check: Check
    without_effect: frozenset[str] = frozenset()

    def read(self, stated: Stated) -> Values:
        """Return a configuration under the names of `EncoderConfig`; raises `CheckpointError` for what is not done."""
        for name, (done, remedy) in _REFUSED.items():
            stated.require(name, *done, remedy=remedy)
        found = {self.ours.get(name, name): stated.get(name, default) for name, default in self.fields.items()}
        for name in self.fields:
            if name.endswith(("_act", "activation")):
                found[self.ours.get(name, name)] = _activation(stated, name, self.fields[name])
        self.check(stated, found)
        stated.ignore(self.without_effect)
        return {name: value for name, value in found.items() if value is not None}

    def written(self, config: EncoderConfig) -> Values:
        """Return a configuration under transformers' names."""
        values = {name: getattr(config, self.ours.get(name, name)) for name in self.fields}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {name: value for name, value in values.items() if value or self.fields[name] is not None}


def _activation(stated: Stated, name: str, default: object) -> str:
    """Return our name of the activation at a key; raises `CheckpointError` for one that is not done here."""
    given = stated.get(name, default)
    if not isinstance(given, str) or given not in ACTIVATIONS:
        raise stated.error(f"{name} is {quoted(given)}, which is not done here; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[given]


_THETAS = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}
_POOLINGS = ("cls", "mean")


def _check_modern(stated: Stated, values: Values) -> None:
    size, heads = values["hidden_size"], values["num_attention_heads"]
    stated.require("head_dim", _share(size, heads), remedy=_PLAIN)
    rotary = stated.inner("rope_parameters")  # since transformers 5
    for kind, ours in _THETAS.items():
        of_kind = rotary.inner(kind)
        of_kind.require("rope_type", "default", remedy=_PLAIN)
        values[ours] = of_kind.get("rope_theta", values[ours])
    if "layer_types" in stated:
        kinds = list(stated.get("layer_types"))
        every = next((n for n in range(1, len(kinds)) if kinds[n] == "full_attention"), len(kinds))
        pattern = ["sliding_attention" if number % every else "full_attention" for number in range(len(kinds))]
        if kinds != pattern:
            raise stated.error(f"layer_types are {quoted(kinds)}: full attention in every n-th is done here")
        values["global_attn_every_n_layers"] = every
    if "sliding_window" in stated:  # which is to either side, and wins
        values["local_attention"] = 2 * int(stated.get("sliding_window"))
    if values["classifier_pooling"] not in _POOLINGS:
        stated.require("classifier_pooling", *_POOLINGS, remedy=_PLAIN)


def _share(size: object, heads: object) -> object:
    return size // heads if isinstance(size, int) and isinstance(heads, int) and heads > 0 else None


def _check_deberta(stated: Stated, values: Values) -> None:
    stated.require("talking_head", False, remedy=_PLAIN)
    usual = _share(values["hidden_size"], values["num_attention_heads"])
    stated.require("attention_head_size", usual, remedy=_PLAIN)
    stated.require("pooler_hidden_size", values["hidden_size"], remedy=_PLAIN)
    values["norm_rel_ebd"] = str(values["norm_rel_ebd"]).lower()
    if values["norm_rel_ebd"] not in ("none", "layer_norm"):
        stated.require("norm_rel_ebd", "none", "layer_norm", remedy=_PLAIN)


def _check_mpnet(stated: Stated, values: Values) -> None:
    stated.require("relative_attention_num_buckets", 32, remedy=_PLAIN)
    if values["pad_token_id"] != 1:
        stated.require("pad_token_id", 1, remedy=_PLAIN)


def _check_electra(stated: Stated, values: Values) -> None:
    stated.require("position_embedding_type", "absolute", remedy=_PLAIN)


def _check_distilbert(stated: Stated, values: Values) -> None:
    for alias, name in (("hidden_size", "dim"), ("num_hidden_layers", "n_layers"), ("num_attention_heads", "n_heads")):
        if name in stated:
            stated.require(alias, stated.get(name), remedy=f"{name} says another; remove one of them")
        values[alias] = stated.get(alias, values[alias])


_HEADLESS = frozenset({"summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout"})
_MODERN_NAMES = """
embedding_dropout decoder_bias deterministic_flash_attn sparse_prediction sparse_pred_ignore_index
reference_compile repad_logits_with_grad layer_norm_eps position_embedding_type
"""
_MODERN_IDLE = frozenset(_MODERN_NAMES.split())
_ROBERTA_FIELDS = {**_FIELDS, "pad_token_id": 1}
ARCHITECTURES: Registry[Architecture] = Registry("architecture of transformers")
for _type, _architecture in {
    "bert": Architecture(bert_names("bert"), "Bert", _FIELDS, {}, _absolute),
    "ernie": Architecture(
        bert_names("ernie"), "Ernie", {**_FIELDS, "use_task_id": False, "task_type_vocab_size": 3}, {}, _absolute
    ),
    "roberta": Architecture(ROBERTA, "Roberta", _ROBERTA_FIELDS, {}, _absolute),
    "camembert": Architecture(ROBERTA, "Camembert", _ROBERTA_FIELDS, {}, _absolute),
    "xlm-roberta": Architecture(ROBERTA, "XLMRoberta", _ROBERTA_FIELDS, {}, _absolute),
    "electra": Architecture(
        ELECTRA,
        "Electra",
        {**_FIELDS, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "embedding_size": 128},
        {},
        _check_electra,
        _HEADLESS,
    ),
    "mpnet": Architecture(
        MPNET,
        "MPNet",
        {name: default for name, default in _ROBERTA_FIELDS.items() if name != "type_vocab_size"},
        {},
        _check_mpnet,
        frozenset({"position_embedding_type", "type_vocab_size"}),
    ),
    "distilbert": Architecture(
        DISTILBERT,
        "DistilBert",
        {
            "vocab_size": None,
            "dim": 768,
            "n_layers": 6,
            "n_heads": 12,
            "hidden_dim": 3072,
            "activation": "gelu",
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "max_position_embeddings": 512,
            "initializer_range": 0.02,
            "pad_token_id": 0,
        },
        {
            "dim": "hidden_size",
            "n_layers": "num_hidden_layers",
            "n_heads": "num_attention_heads",
            "hidden_dim": "intermediate_size",
            "activation": "hidden_act",
            "dropout": "hidden_dropout_prob",
            "attention_dropout": "attention_probs_dropout_prob",
        },
        _check_distilbert,
        frozenset({"qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds", "position_embedding_type"}),
    ),
    "deberta-v2": Architecture(
        DEBERTA,
        "DebertaV2",
        {
            **_FIELDS,
            "hidden_size": 1536,
            "num_hidden_layers": 24,
            "num_attention_heads": 24,
            "intermediate_size": 6144,
            "type_vocab_size": 0,
            "layer_norm_eps": 1e-7,
            "relative_attention": False,
            "max_relative_positions": -1,
            "position_buckets": -1,
            "norm_rel_ebd": "none",
            "share_att_key": False,
            "position_biased_input": True,
            "pos_att_type": (),
            "conv_kernel_size": 0,
            "conv_act": "tanh",
            "conv_groups": 1,
            "embedding_size": None,
            "pooler_hidden_act": "gelu",
        },
        {},
        _check_deberta,
        frozenset({"pooler_dropout", "cls_dropout", "legacy", "position_embedding_type"}),
    ),
    "modernbert": Architecture(
        MODERNBERT,
        "ModernBert",
        {
            "vocab_size": None,
            "hidden_size": 768,
            "num_hidden_layers": 22,
            "num_attention_heads": 12,
            "intermediate_size": 1152,
            "hidden_activation": "gelu",
            "mlp_dropout": 0.0,
            "attention_dropout": 0.0,
            "max_position_embeddings": 8192,
            "initializer_range": 0.02,
            "norm_eps": 1e-5,
            "pad_token_id": 50283,
            "global_attn_every_n_layers": 3,
            "local_attention": 128,
            "global_rope_theta": 160000.0,
            "local_rope_theta": 10000.0,
            "norm_bias": False,
            "attention_bias": False,
            "mlp_bias": False,
            "classifier_bias": False,
            "classifier_activation": "gelu",
            "classifier_pooling": "cls",
        },
        {
            "hidden_activation": "hidden_act",
            "norm_eps": "layer_norm_eps",
            "mlp_dropout": "hidden_dropout_prob",
            "attention_dropout": "attention_probs_dropout_prob",
        },
        _check_modern,
        _MODERN_IDLE,
    ),
}.items():
    ARCHITECTURES.add(_type, _architecture)
