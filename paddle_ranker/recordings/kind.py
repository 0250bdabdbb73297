"""Models of sounds; importing this module registers them, and needs no Paddle."""

from __future__ import annotations

from paddle_ranker.model.encoders.family import add_own
from paddle_ranker.model.model_kind import ArraySpec
from paddle_ranker.model.tower import FILE_INPUTS, FileInput, TowerInfo
from paddle_ranker.recordings.sound_config import MODEL_TYPES, SoundConfig
from paddle_ranker.recordings.sound_encoder import LENGTHS, SAMPLES, SOUND, SoundEncoder


def _inputs(info: TowerInfo) -> tuple[ArraySpec, ...]:
    enough = max(1, info.max_seq_length // 10)  # samples of more than one frame
    return (
        ArraySpec(SAMPLES, "float32", (None, None), least=enough),
        ArraySpec(LENGTHS, "int64", (None,), least=enough),
    )


for _type in MODEL_TYPES:
    add_own(_type, "paddle_ranker.recordings.sound_network", "SoundTransformer", SoundConfig)
FILE_INPUTS.add(
    SOUND, FileInput("recording", SoundEncoder.read, _inputs, MODEL_TYPES, "paddle_ranker.recordings.sound_models")
)
