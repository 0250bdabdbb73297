"""Models that PaddleNLP makes in a test, small, under published names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
import paddle
import pytest

from tests.tiny import VOCABULARY, write_tokenizer

transformers = pytest.importorskip("paddlenlp.transformers")

SHAPE = {
    "vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 64, "initializer_range": 0.5,
}  # fmt: skip
QUERIES = ["深度学习", "深度学习", "农业水稻病害"]
TITLES = ["神经网络", "农业水稻", "水稻病害诊断, a b"]
CROSS, QUERY, PARA = (f"rocketqa-zh-dureader-{side}-encoder" for side in ("cross", "query", "para"))
SAFE = {"safe_serialization": True}


class Made(NamedTuple):
    """Models that PaddleNLP wrote, and what PaddleNLP computes with them."""

    place: Path
    probabilities: np.ndarray
    vectors: dict[str, np.ndarray]  # of QUERIES by the encoder of queries, of TITLES by that of paragraphs


def write(model: Any, folder: Path, **how: Any) -> Path:
    model.save_pretrained(str(folder), **how)
    write_tokenizer(folder)
    return folder


def classifier(
    family: str = "Ernie", classes: int = 2, seed: int = 5, shape: dict[str, Any] = SHAPE, **more: Any
) -> Any:
    config = getattr(transformers, f"{family}Config")(**shape, num_labels=classes, **more)
    paddle.seed(seed)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config)
    draw = np.random.RandomState(seed)
    for parameter in model.parameters():
        parameter.set_value(0.6 * draw.standard_normal(parameter.shape).astype("float32"))
    model.eval()
    return model


def encoded(folder: Path, texts: list[str], pairs: Optional[list[str]] = None) -> list[dict[str, Any]]:
    """Return the inputs that PaddleNLP's tokenizer makes of each text or pair."""
    tokenizer = transformers.ErnieTokenizer(str(folder / "vocab.txt"))
    rows = zip(texts, pairs or [None] * len(texts))  # type: ignore[list-item]
    return [{k: paddle.to_tensor([v]) for k, v in dict(tokenizer(text=a, text_pair=b)).items()} for a, b in rows]
