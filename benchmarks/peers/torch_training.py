"""This toolkit's training loop in PyTorch: same shapes and batches, dynamic padding, one forward pass, clipping."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.answers import Pace
from benchmarks.peers.work import BenchmarkTriples, TrainingWork, batches_forever
from paddle_ranker.encoding.columns import EncodedPairs

MARGIN = 1.0


class TorchRanker(nn.Module):
    """ERNIE with a head of one logit, made of `torch.nn`'s own encoder layers."""

    def __init__(self, shape: dict[str, Any]):
        super().__init__()
        size, dropout = shape["hidden_size"], shape["hidden_dropout_prob"]
        self.pad_id = shape["pad_token_id"]
        self.words = nn.Embedding(shape["vocab_size"], size)
        self.positions = nn.Embedding(shape["max_position_embeddings"], size)
        self.types = nn.Embedding(shape["type_vocab_size"], size)
        self.tasks = nn.Embedding(shape["task_type_vocab_size"], size) if shape["use_task_id"] else None
        self.norm = nn.LayerNorm(size, eps=shape["layer_norm_eps"])
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                size,
                shape["num_attention_heads"],
                shape["intermediate_size"],
                dropout=dropout,
                activation=shape["hidden_act"],
                layer_norm_eps=shape["layer_norm_eps"],
                batch_first=True,
            )
            for _ in range(shape["num_hidden_layers"])
        )
        for layer in self.layers:
            layer.dropout = nn.Identity()  # ERNIE has no dropout between the two matrices of the feed-forward part
        self.pooler = nn.Linear(size, size)
        self.head = nn.Linear(size, 1)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=shape["initializer_range"])

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the logits, `[batch]`, for `[batch, length]` int64 ids and token types."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.words(input_ids) + self.positions(positions) + self.types(token_type_ids)
        if self.tasks is not None:
            hidden = hidden + self.tasks.weight[0]
        hidden = self.dropout(self.norm(hidden))
        padding = input_ids == self.pad_id
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=padding)
        pooled = torch.tanh(self.pooler(hidden[:, 0]))
        logits: Tensor = self.head(self.dropout(pooled)).squeeze(-1)
        return logits


def train(
    work: TrainingWork, triples: BenchmarkTriples, pace: Pace, *, bf16: bool = False, fused_optimizer: bool = False
) -> None:
    """Train until `pace` ends the training; `fused_optimizer` sets an option of AdamW that is off by default."""
    torch.set_num_threads(work.threads)
    torch.manual_seed(work.seed)
    device = "cuda" if work.device == "gpu" else "cpu"
    network = TorchRanker(work.shape).to(device)
    network.train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=work.learning_rate, weight_decay=0.0, fused=fused_optimizer or None
    )
    pairs = EncodedPairs.concat([triples.positives, triples.negatives])
    for indices in batches_forever(work, triples):
        pace.tick(len(indices))
        ids, types = pairs.pad(np.concatenate([indices, indices + len(triples.lengths)])).values()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            logits = network(torch.from_numpy(ids).to(device), torch.from_numpy(types).to(device))
        positive, negative = logits.float().chunk(2)
        loss = torch.relu(MARGIN - (positive - negative)).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), work.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
