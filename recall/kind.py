"""Towers, the kind of model that this recipe trains. Importing this module registers it, without importing Paddle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from paddle_ranker.encoding.columns import Arrays
from paddle_ranker.encoding.samples import sample_batches
from paddle_ranker.errors import CheckpointError
from paddle_ranker.export.gates import GATES, Gate, QuantizeOptions
from paddle_ranker.model.config import EncoderConfig, read_config, write_config
from paddle_ranker.model.exported import ExportedFolder
from paddle_ranker.model.families import make_pair_encoder
from paddle_ranker.model.hugging_face.sentences import is_sentences, stated_info
from paddle_ranker.model.kinds import ModelKind, add_kind
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.opened import Signature, TrainedModel
from paddle_ranker.model.tower import INFO_FILE, KIND, TextEncoder, TowerInfo, signature_of


class TowerKind(ModelKind[TowerInfo, TextEncoder]):
    """Models that turn a text into a vector."""

    name, info_file, prefix = KIND, INFO_FILE, "inference.get_pooled_embedding"
    what = "a tower, which makes vectors of texts"
    use = "encode, predict and export take it as --model, index build and serve as --tower"

    def is_in(self, folder: Path) -> bool:
        """Return whether a folder has `tower.json`, or is a sentence-transformers model of texts."""
        return super().is_in(folder) or is_sentences(folder)

    def read_info(self, folder: Path) -> Optional[TowerInfo]:
        """Read `tower.json`, or the files that sentence-transformers writes in its place."""
        return stated_info(folder)

    def signature(self, info: TowerInfo) -> Signature:
        """Return the signature: tokens as inputs, and one vector."""
        return signature_of(info)

    def row_encoder(self, folder: Path, info: TowerInfo, options: LoadOptions) -> TextEncoder:
        """Return the encoder of texts; its `max_seq_length` is that of the options, or else of the tower."""
        length = options.max_seq_length or info.max_seq_length
        tokens = make_pair_encoder(folder, _config(folder), length, options.tokenizer)
        return TextEncoder(tokens, info.query_prompt, info.text_prompt)

    def configs(self, folder: Path, info: TowerInfo) -> tuple[EncoderConfig, ...]:
        """Return the encoder's configuration in a tuple."""
        return (_config(folder),)

    def load(self, source: Path, options: LoadOptions) -> TrainedModel[TowerInfo, TextEncoder]:
        """Load a trained tower."""
        from paddle_ranker.model.tower_network import load_tower

        return load_tower(source, options)

    def sample_inputs(self, encoder: TextEncoder, info: TowerInfo) -> Iterator[Arrays]:
        """Yield batches of made-up texts, short and truncated ones."""
        return sample_batches(encoder.tokens)

    def write_descriptions(self, folder: Path, model: TrainedModel[TowerInfo, TextEncoder]) -> None:
        """Write the encoder's configuration and the tokenizer."""
        from paddle_ranker.model.tower_network import TowerModel

        assert isinstance(model, TowerModel)
        write_config(folder, model.network.config)
        model.row_encoder.save(folder)

    def write_info(self, folder: Path, info: TowerInfo) -> None:
        """Write `tower.json`."""
        info.write(folder)


def _config(folder: Path) -> EncoderConfig:
    config = read_config(folder)
    if config is None:
        raise CheckpointError(f"{folder}: has no config.json; copy the folder again, or export it again")
    return config


def _gate(folder: ExportedFolder, options: QuantizeOptions) -> Gate:
    from recall.gate import TowerGate

    return TowerGate(folder, options)


add_kind(TowerKind())
GATES.add(KIND, _gate)
