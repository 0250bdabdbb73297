"""Models of pictures; importing this module registers them, and needs neither Paddle nor Pillow."""

from __future__ import annotations

from pathlib import Path

from paddle_ranker.encoding.columns import PICTURE, FileEncoder
from paddle_ranker.model.encoders.family import FAMILIES, add_own
from paddle_ranker.model.model_kind import ArraySpec
from paddle_ranker.model.tower import FILE_INPUTS, FileInput, TowerInfo
from paddle_ranker.pictures.picture_config import (
    MODEL_TYPES,
    WITH_TEXTS,
    ConvolutionsConfig,
    PictureConfig,
    PictureTextConfig,
)
from paddle_ranker.pictures.vilt import VILT


def _rows(folder: Path) -> FileEncoder:
    from paddle_ranker.pictures.picture_encoder import PictureEncoder

    return PictureEncoder.read(folder)


def _inputs(info: TowerInfo) -> tuple[ArraySpec, ...]:
    from paddle_ranker.pictures.picture_encoder import PIXELS

    return (ArraySpec(PIXELS, "uint8", (None, 3, *info.picture_size)),)


FAMILIES.add("vilt", VILT)
for _type, _class, _config in (
    ("vit", "PictureTransformer", PictureConfig),
    ("clip_vision_model", "PictureTransformer", PictureConfig),
    ("siglip_vision_model", "PictureTransformer", PictureConfig),
    ("convolutions", "Convolutions", ConvolutionsConfig),
    ("clip_text_model", "PictureTextEncoder", PictureTextConfig),
    ("siglip_text_model", "PictureTextEncoder", PictureTextConfig),
):
    add_own(_type, "paddle_ranker.pictures.picture_networks", _class, _config)
FILE_INPUTS.add(
    PICTURE,
    FileInput(
        "picture",
        _rows,
        _inputs,
        MODEL_TYPES,
        "paddle_ranker.pictures.picture_models",
        WITH_TEXTS,
        "paddle_ranker.pictures.new_networks",
    ),
)
