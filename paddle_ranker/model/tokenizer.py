"""The pair encoder of a model's folder, seen to belong to the model."""

from __future__ import annotations

from pathlib import Path

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import EncoderConfig


def make_pair_encoder(folder: Path, config: EncoderConfig, max_seq_length: int, tokenizer: str = "auto") -> PairEncoder:
    """Return the pair encoder of a folder; raises `CheckpointError` where it does not belong to `config`'s model."""
    if max_seq_length > config.longest_pair:
        raise CheckpointError(
            f"max_seq_length {max_seq_length} is above the {config.longest_pair} positions of this model"
        )
    pair_encoder = PairEncoder.from_folder(folder, max_seq_length, backend=tokenizer)
    if pair_encoder.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"the vocabulary has ids up to {pair_encoder.vocab_size - 1} but the model has {config.vocab_size} "
            "word embeddings: vocab.txt is another model's"
        )
    if pair_encoder.pad_id != config.pad_token_id:
        raise CheckpointError(f"the vocabulary's [PAD] is id {pair_encoder.pad_id}, the model's {config.pad_token_id}")
    return pair_encoder
