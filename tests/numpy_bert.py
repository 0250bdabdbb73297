"""BERT in NumPy, from its papers' formulas and in transformers' names and layout: an oracle that shares no code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit

Array = NDArray[np.float64]


def _gelu(x: Array) -> Array:
    return x * 0.5 * (1 + erf(x / np.sqrt(2.0)))


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": _gelu,
    "gelu_new": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * expit(x),
    "tanh": np.tanh,
}


class NumpyBert:
    """Evaluate a transformers checkpoint in float64.

    Args:
        weights: by transformers' names, with or without a prefix; linear weights `[out, in]`.
        config: the parsed `config.json`.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], config: Mapping[str, Any]):
        words = "embeddings.word_embeddings.weight"
        prefix = min((name[: -len(words)] for name in weights if name.endswith(words)), key=len)
        self.inner = {name[len(prefix) :]: array for name, array in weights.items() if name.startswith(prefix)}
        self.weights, self.config = weights, config

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self.inner[f"{name}.weight"].astype(np.float64).T + self.inner[f"{name}.bias"]

    def _norm(self, x: Array, name: str) -> Array:
        weight = self.inner[f"{name}.weight" if f"{name}.weight" in self.inner else f"{name}.gamma"]
        bias = self.inner[f"{name}.bias" if f"{name}.bias" in self.inner else f"{name}.beta"]
        return self._normal(x, weight, bias)

    def _normal(self, x: Array, weight: np.ndarray, bias: np.ndarray) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.config["layer_norm_eps"])
        return centred / deviation * weight + bias

    def _attention(self, x: Array, mask: NDArray[np.bool_], name: str) -> Array:
        batch, length, width = x.shape
        heads = self.config["num_attention_heads"]

        def split(part: str) -> Array:
            return self._linear(x, f"{name}.self.{part}").reshape(batch, length, heads, -1).transpose(0, 2, 1, 3)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(width // heads)
        scores = np.where(mask[:, None, None, :], scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        return (shares @ value).transpose(0, 2, 1, 3).reshape(batch, length, width)

    def hidden(self, input_ids: np.ndarray, token_type_ids: np.ndarray, mask: np.ndarray) -> Array:
        """Return the hidden states, `[batch, length, width]`, of `[batch, length]` ids, types and 1 for real tokens."""
        positions = np.arange(input_ids.shape[1])[None]
        if self.config["model_type"] == "roberta":
            positions = positions + self.config["pad_token_id"] + 1
            token_type_ids = np.minimum(token_type_ids, self.config["type_vocab_size"] - 1)
        table = {
            name: self.inner[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        }
        x = table["word"][input_ids].astype(np.float64) + table["position"][positions]
        x = x + table["token_type"][token_type_ids]
        if self.config.get("use_task_id"):
            x = x + self.inner["embeddings.task_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for i in range(self.config["num_hidden_layers"]):
            layer = f"encoder.layer.{i}"
            attended = self._attention(x, mask.astype(bool), f"{layer}.attention")
            x = self._norm(
                x + self._linear(attended, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm"
            )
            inner = _ACTIVATIONS[self.config["hidden_act"]](self._linear(x, f"{layer}.intermediate.dense"))
            x = self._norm(x + self._linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        return x

    def logits(self, input_ids: np.ndarray, token_type_ids: np.ndarray, mask: np.ndarray) -> Array:
        """Return the classification head's logits, `[batch, labels]`."""
        first = self.hidden(input_ids, token_type_ids, mask)[:, 0]
        if "classifier.out_proj.weight" in self.weights:  # RoBERTa's
            pooled = np.tanh(first @ self.weights["classifier.dense.weight"].T + self.weights["classifier.dense.bias"])
            return pooled @ self.weights["classifier.out_proj.weight"].T + self.weights["classifier.out_proj.bias"]
        pooled = np.tanh(self._linear(first, "pooler.dense"))
        return pooled @ self.weights["classifier.weight"].T + self.weights["classifier.bias"]

    def masked_logits(self, input_ids: np.ndarray, places: np.ndarray) -> Array:
        """Return the logits of a masked language model, `[m, vocab]`, at places of the flattened ids; 0 is padding."""
        hidden = self.hidden(input_ids, np.zeros_like(input_ids), input_ids != 0)
        x = hidden.reshape(-1, self.config["hidden_size"])[places]
        head = {
            name[len("cls.predictions.") :]: array for name, array in self.weights.items() if name.startswith("cls.")
        }
        active = _ACTIVATIONS[self.config["hidden_act"]]
        x = active(x @ head["transform.dense.weight"].T + head["transform.dense.bias"])
        x = self._normal(x, head["transform.LayerNorm.weight"], head["transform.LayerNorm.bias"])
        return np.asarray(x @ self.inner["embeddings.word_embeddings.weight"].T + head["bias"])


def sentence_vectors(
    folder: Path, ids: Sequence[np.ndarray], read: Callable[[Path], Mapping[str, np.ndarray]]
) -> Array:
    """Return the vectors of texts, `[n, size]`, by the steps of a sentence-transformers folder, one text at a time.

    Args:
        ids: each text's ids, special tokens included.
        read: returns the weights in a folder, by name.

    A folder without steps is pooled by the mean, as the library does.
    """

    def values(name: str) -> Any:
        return json.loads((folder / name / "config.json").read_text(encoding="utf-8"))

    steps = folder / "modules.json"
    modules = [{"type": "m.Transformer", "path": ""}]
    if steps.is_file():
        modules = json.loads(steps.read_text(encoding="utf-8"))
    inside = folder / modules[0]["path"]
    bert = NumpyBert(read(inside), json.loads((inside / "config.json").read_text(encoding="utf-8")))
    vectors = []
    for row in ids:
        states = bert.hidden(row[None], np.zeros_like(row)[None], np.ones_like(row)[None])[0]
        x = states.mean(axis=0)
        for module in modules[1:]:
            kind, name = module["type"].rpartition(".")[2], module["path"]
            if kind == "Pooling":
                modes = values(name)
                mode = modes.get("pooling_mode") or next(key for key, is_on in modes.items() if is_on is True)
                mode = mode if isinstance(mode, str) else mode[0]
                x = {"cls": states[0], "mean": states.mean(axis=0), "max": states.max(axis=0)}[
                    mode.replace("pooling_mode_", "").replace("_tokens", "").replace("_token", "")
                ]
            elif kind == "Dense":
                weights = read(folder / name)
                x = weights["linear.weight"].astype(np.float64) @ x + weights.get("linear.bias", 0.0)
                x = np.tanh(x) if values(name)["activation_function"].endswith("Tanh") else x
            else:
                assert kind == "Normalize"
                x = x / np.linalg.norm(x)
        vectors.append(x)
    return np.array(vectors)
