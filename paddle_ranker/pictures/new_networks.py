"""Networks of pictures from nothing: the work of `paddle-ranker starter --picture_size`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_ranker.encoding.columns import PICTURE
from paddle_ranker.model.tower import QUERY_FOLDER

if TYPE_CHECKING:
    from paddle_ranker.model.config import EncoderConfig

_TEXT_LENGTH = 40  # positions of a text beside a picture, as in ViLT
_NAME_LENGTH = 64  # maximum length of a picture's name in tokens


def merged(config: EncoderConfig, side: int, patch: int) -> EncoderConfig:
    """Return the configuration of a ViLT whose layers have the sizes of those of the encoder `config`.

    side: side of the square pictures, in pixels
    patch: side of the square patches, in pixels
    """
    from paddle_ranker.pictures.picture_config import ViltConfig

    shared = {field.name: getattr(config, field.name) for field in fields(config)}
    sizes = {
        "image_size": side, "shortest_edge": side, "patch_size": patch, "size_divisor": patch,
        "max_position_embeddings": _TEXT_LENGTH,
    }  # fmt: skip
    # From BERT's range of 0.02, a small network hardly learns pictures.
    specific = {**sizes, "initializer_range": config.hidden_size**-0.5, "model_type": "vilt", "normalize_before": True}
    return ViltConfig(**{**shared, **specific})


def add_tower(folder: Path, side: int) -> None:
    """Turn an encoder's folder into a tower for pictures; the encoder becomes the folder's query tower."""
    from paddle_ranker.model.encoder_loading import read_checkpoint
    from paddle_ranker.model.tower import TowerInfo, signature_of
    from paddle_ranker.model.tower_network import TowerModel, TowerNetwork, save_tower, start_tower
    from paddle_ranker.pictures.picture_config import ConvolutionsConfig
    from paddle_ranker.pictures.picture_encoder import PictureEncoder
    from paddle_ranker.pictures.picture_networks import Convolutions

    checkpoint = read_checkpoint(folder / QUERY_FOLDER)
    size, longest = checkpoint.config.hidden_size, min(_NAME_LENGTH, checkpoint.config.longest_pair)
    texts, _ = start_tower(checkpoint, TowerInfo(longest, size, pooling="mean", output_layer=True))
    save_tower(folder / QUERY_FOLDER, texts, texts.info)
    rows = PictureEncoder.of_squares(side)
    info = TowerInfo(
        rows.max_length, size, output_layer=True, reads=PICTURE, picture_size=(side, side), towers=2
    )  # fmt: skip
    network = TowerNetwork(Convolutions(ConvolutionsConfig(image_size=side)), info, rows)
    save_tower(folder, TowerModel(info, rows, signature_of(info), network), info)
