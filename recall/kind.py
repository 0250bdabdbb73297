"""Towers, the kind of model that this recipe trains. Importing this module registers it, without importing Paddle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from paddle_ranker.encoding.columns import Arrays
from paddle_ranker.encoding.samples import sample_batches
from paddle_ranker.export.gates import Gate, QuantizeOptions
from paddle_ranker.model.exported import ExportedFolder
from paddle_ranker.model.families import make_pair_encoder, require_config, write_config
from paddle_ranker.model.hugging_face.sentences import is_sentences, stated_info
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.opened import ModelKind, Signature, TrainedModel, add_kind
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
        tokens = make_pair_encoder(folder, require_config(folder), length, options.tokenizer)
        return TextEncoder(tokens, info.query_prompt, info.text_prompt)

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

    def gate(self, folder: ExportedFolder, options: QuantizeOptions) -> Gate:
        """Return the gate of towers."""
        from recall.gate import TowerGate

        return TowerGate(folder, options)


add_kind(TowerKind())
