"""A vocabulary, an encoder and a ranker small enough to make anew in every test run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_ranker.encoding.pair_encoder import PairEncoder, never_match_ids
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoder_loading import read_checkpoint
from paddle_ranker.model.families import write_config
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.model.network import RankerNetwork
from paddle_ranker.model.networks.bert import Encoder
from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays
from paddle_ranker.model.ranker_folder import save_ranker
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.model.tower_network import save_tower, start_tower
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.towers import copy_tower
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo

SPECIALS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz") + [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"]
HAN = list("深度学习神经网络语言文化差异研究农业水稻病害诊断老年人护理经济增长教育法律")
VOCABULARY = SPECIALS + LETTERS + list(dict.fromkeys(HAN)) + [",", ".", "?", '"']

CONFIG = EncoderConfig(
    vocab_size=len(VOCABULARY),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=64,
    initializer_range=0.5,  # scores far enough apart to see a difference
)


def write_tokenizer(folder: Path, size: int = 0) -> None:
    """Write a vocabulary; tokens that no text has fill it up to `size`."""
    folder.mkdir(parents=True, exist_ok=True)
    unused = [f"[unused{number}]" for number in range(len(VOCABULARY), size)]
    (folder / "vocab.txt").write_text("\n".join([*VOCABULARY, *unused]) + "\n", encoding="utf-8")


def change_json(path: Path, **changes: object) -> None:
    """Give the object in a file of JSON other values."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def write_encoder(folder: Path, seed: int = 1, **changes: object) -> Path:
    """Write an encoder folder as PaddleNLP has it: parameters, config.json, vocab.txt."""
    write_tokenizer(folder)
    config = dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
    write_config(folder, config)
    paddle.seed(seed)
    save_arrays(Encoder(config).state_dict(), folder / PARAMETERS_FILE)
    return folder


def make_network(seed: int = 1, match: bool = True, **changes: object) -> RankerNetwork:
    """Return a network with random parameters, match embeddings included (they are zeros when new)."""
    paddle.seed(seed)
    network = RankerNetwork(dataclasses.replace(CONFIG, **changes), [0, 1, 2, 3, 4] if match else None)  # type: ignore[arg-type]
    if match:
        values = np.random.RandomState(seed).randn(*network.match_embeddings.weight.shape)
        network.match_embeddings.weight.set_value(values.astype("float32"))
    network.eval()
    return network


def write_ranker(
    folder: Path,
    seed: int = 1,
    match: bool = True,
    max_seq_length: int = 32,
    kind: str = "pairwise",
    **changes: object,
) -> Path:
    """Write a ranker folder with random parameters; `changes` are those of the encoder's configuration."""
    write_tokenizer(folder)
    pair_encoder = PairEncoder.from_folder(folder, max_seq_length)
    network = make_network(seed, match, **changes)
    assert network.never_match in (None, never_match_ids(pair_encoder))
    info = RankerInfo(kind=kind, max_seq_length=max_seq_length, match_embeddings=match)
    save_ranker(folder, network, pair_encoder, info)
    return folder


def write_exported(folder: Path, **changes: Any) -> Path:
    """Write a ranker with random parameters into `folder`, and export it there; return the export's folder."""
    exported, _ = export_model(load_model(write_ranker(folder / "ranker", **changes), RANKER), folder / "exported")
    return exported.folder


def write_tower(folder: Path, seed: int = 1, **changes: Any) -> Path:
    """Write a tower with random parameters, whose queries and texts have prompts."""
    prompts = {"query_prompt": "深度", "text_prompt": "a "}
    info = TowerInfo(**{"max_seq_length": 32, "size": 8, "pooling": "mean", "output_layer": True, **prompts, **changes})
    model, _ = start_tower(read_checkpoint(write_encoder(folder.with_name("encoder"), seed)), info)
    folder.mkdir()
    save_tower(folder, model, info)
    return folder


def write_index(folder: Path, tower: Path, documents: Iterable[Document]) -> Path:
    """Write an index folder of words, in pairs of characters, and of a tower's vectors, which are compared exactly."""
    copied = copy_tower(tower, folder)
    info = IndexInfo(WordsInfo("bigram"), VectorsInfo("exact", copied.size), copied.copy)
    with Collection.create(folder, info) as collection:
        collection.writer.add(documents)
    return folder


PAIRS = [
    ("深度学习", "深度学习在水稻病害诊断中的研究水稻,病害,深度学习"),
    ("老年人护理", "老年人护理教育研究"),
    ("a b c", "b c d"),
    ("文化差异", '语言,文化,"差异"'),
    ("经济增长", "x"),
    ("rice", "深度学习神经网络语言文化差异研究农业水稻病害诊断老年人护理经济增长教育法律"),
]
QUERIES, TITLES = [list(column) for column in zip(*PAIRS)]


def draw_words(count: int = 40, length: int = 3) -> tuple[np.random.RandomState, list[str]]:
    """Return `count` words of the vocabulary's characters, and the generator to draw on with."""
    random = np.random.RandomState(0)
    return random, ["".join(random.choice(HAN, length)) for _ in range(count)]
