"""Keys of transformers' configurations, changed: what its tiny models answer then, in `config_cases.json`.

The keys are those of transformers' own configuration classes, of older versions of it, and others that people's files
have. Where the library is installed, this writes the answers anew (they were by transformers 5.23.0):

    PYTHONPATH=. python tests/model/config_cases.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.model import family_cases

FILE = Path(__file__).with_name("config_cases.json")
ABSENT = "absent"  # the key is left out
_CLASSES = {"bert": "Bert", "ernie": "Ernie", "camembert": "Camembert", "xlm-roberta": "XLMRoberta"}
_CLASSES.update({"roberta": "Roberta", "electra": "Electra", "mpnet": "MPNet", "distilbert": "DistilBert"})
_CLASSES.update({"deberta-v2": "DebertaV2", "deberta-v3": "DebertaV2", "modernbert": "ModernBert"})
_LENGTHS = (9, 4)
# Values to try beside those that follow from a default's type.
_VALUES: dict[str, list[Any]] = {
    "hidden_act": ["relu", "gelu_new", "gelu_python", "silu", "mish"],
    "hidden_activation": ["relu", "silu"],
    "activation": ["relu"],
    "classifier_activation": ["silu"],
    "pooler_hidden_act": ["relu"],
    "conv_act": ["relu"],
    "summary_type": ["mean"],
    "summary_activation": ["tanh"],
    "layer_norm_eps": [0.001, 0.01],
    "norm_eps": [0.001, 0.01],
    "dtype": ["bfloat16"],
    "problem_type": ["multi_label_classification", "regression"],
    "pos_att_type": [["c2p"], ["p2c"], "c2p"],
    "layer_types": [["full_attention", "full_attention", "sliding_attention", "full_attention"]],
    "rope_parameters": [
        {"full_attention": {"rope_type": "default", "rope_theta": 100.0}},
        {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}},
    ],
    "classifier_pooling": ["cls"],
    "local_attention": [4],
    "norm_rel_ebd": ["layer_norm", "none"],
    "share_att_key": [True, False],
    "position_buckets": [4, 16],
    "conv_kernel_size": [0],
    "conv_groups": [2],
    "attention_head_size": [4],
    "pooler_hidden_size": [8],
    "type_vocab_size": [1],
    "id2label": [{"0": "irrelevant"}, {"0": "a", "1": "b", "2": "c"}],
    "architectures": [["BertModel"]],
    "pad_token_id": [],  # a tokenizer says it, too
    "bos_token_id": [1],
    "eos_token_id": [1],
}
# Keys that no class has today.
_OTHERS: dict[str, list[Any]] = {
    "pruned_heads": [{"0": [0]}],
    "torch_dtype": ["float16"],
    "position_embedding_type": ["relative_key_query", "absolute"],
    "num_labels": [3],
    "embedding_size": [8],
    "global_attn_every_n_layers": [2],
    "global_rope_theta": [100.0],
    "local_rope_theta": [100.0],
    "sliding_window": [3],
    "head_dim": [4],
    "rope_scaling": [{"type": "linear", "factor": 2.0}],
    "rope_theta": [100.0],
    "is_causal": [True],
    "per_layer_config": [{"0": {"hidden_act": "relu"}}],
    "attn_logit_softcapping": [1.0],
    "quantization_config": [{"quant_method": "bitsandbytes", "load_in_8bit": True}],
    "adapters": [{"adapters": {"a": "b"}}],
    "attention_bias": [True],
    "use_bias": [False],
    "summary_first_dropout": [0.5],
    "cls_dropout": [0.5],
    "reference_compile": [True],
    "talking_head": [True],
    "transformers_weights": ["other.safetensors"],
    "auto_map": [{"AutoModel": "own.Model"}],
    "hidden_size": [32],
    "num_hidden_layers": [1],
    "num_attention_heads": [1],
    "intermediate_size": [12],
    "layer_norm_eps": [0.001],
    "norm_eps": [0.001],
    "gradient_checkpointing": [True],
    "directionality": ["uni"],
    "pooler_type": ["mean"],
    "pooler_fc_size": [4],
    "tie_encoder_decoder": [True],
    "cross_attention_hidden_size": [4],
    "torchscript": [True],
    "output_attentions": [True],
    "use_bfloat16": [True],
    "task_specific_params": [{"a": 1}],
    "temperature": [2.0],
    "max_length": [3],
    "sentence_transformers": [{"activation_fn": "torch.nn.modules.linear.Identity", "version": "6.2.0"}],
}


def config_of(case: str) -> dict[str, Any]:
    """Return the configuration of a tiny model, which `family_cases` has for most families."""
    known = family_cases.expected()
    if case in known:
        return dict(known[case]["config"])
    found = {**known["xlm-roberta"]["config"], "model_type": case}
    found["architectures"] = [f"{_CLASSES[case]}ForSequenceClassification"]
    if case != "camembert":
        found.update(pad_token_id=0, type_vocab_size=2)
    return found


def shapes_of(case: str) -> dict[str, list[int]]:
    """Return the shapes of the weights of a tiny model, by name."""
    known = family_cases.expected()
    if case in known:
        return dict(known[case]["shapes"])
    theirs = known["xlm-roberta"]["shapes"]
    if case == "camembert":
        return dict(theirs)
    found = {name.replace("roberta.", f"{case}."): shape for name, shape in theirs.items() if "classifier" not in name}
    found[f"{case}.embeddings.token_type_embeddings.weight"] = [2, 16]
    pooler = {f"{case}.pooler.dense.weight": [16, 16], f"{case}.pooler.dense.bias": [16]}
    return {**found, **pooler, "classifier.weight": [1, 16], "classifier.bias": [1]}


def inputs(pad_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `family_cases.inputs` returns, of two short rows."""
    ids, types, mask = family_cases.inputs(pad_id)
    rows, length = [1, 2], _LENGTHS[0]
    ids, mask = ids[rows, :length], mask[rows, :length]
    return ids, (np.arange(length) > 2) * mask * types.max(), mask


CASES = tuple(_CLASSES)


def main() -> None:
    """Write the answers by the library."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    answers: dict[str, Any] = {}
    for case, name in _CLASSES.items():
        config = getattr(transformers, f"{name}Config")
        keys = {key: value for key, value in vars(config()).items() if not key.startswith("_")}
        base, weights = config_of(case), family_cases.weights(shapes_of(case))
        state = {key: torch.from_numpy(array) for key, array in weights.items()}
        plain = _logits(base, state)
        found = []
        for key, value in _changes(keys, base):
            changed = {one: other for one, other in base.items() if one != key}
            logits = _logits(changed if value == ABSENT else {**changed, key: value}, state)
            same = (
                isinstance(logits, list) and np.shape(logits) == np.shape(plain) and np.allclose(logits, plain, 0, 1e-6)
            )
            found.append([key, value, None if same else logits])
        answers[case] = {"keys": sorted(keys), "logits": plain, "changes": found}
    FILE.write_text(json.dumps(answers, sort_keys=True) + "\n", encoding="utf-8")


def _changes(keys: dict[str, Any], base: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, default in {**dict.fromkeys(base), **keys}.items():
        values: list[Any] = [not default] if isinstance(default, bool) else []
        values += [default + 1] if type(default) is int else [0.5] if isinstance(default, float) else []
        yield from ((key, value) for value in _VALUES.get(key, values))
        if key in base and key not in ("model_type", "vocab_size", "architectures", "pad_token_id"):
            yield key, ABSENT
    yield from ((key, value) for key, values in _OTHERS.items() for value in values)


def _logits(config: dict[str, Any], state: dict[str, Any]) -> Any:
    """Return the logits, or why there are none: the name of an error, or that the weights do not fit."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForSequenceClassification

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        try:
            model, said = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
            if said["missing_keys"] or said["mismatched_keys"]:
                return "misfit"
            ids, types, mask = (torch.from_numpy(array) for array in inputs(config.get("pad_token_id", 0) or 0))
            given = {"input_ids": ids, "attention_mask": mask}
            if getattr(model.config, "type_vocab_size", 0) > 1:
                given["token_type_ids"] = types
            with torch.no_grad():
                found = model.eval()(**given)
            return (found[0] if isinstance(found, tuple) else found.logits).double().numpy().round(7).tolist()
        except Exception as error:
            return type(error).__name__


if __name__ == "__main__":
    main()
