"""ViLT, which reads a text and the patches of a picture."""

from __future__ import annotations

from dataclasses import replace

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.errors import quoted
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.family import BERT, BERT_FIELDS, BERT_LINEAR, POOLER, network_of
from paddle_ranker.model.hugging_face.architectures import Architecture, Names, Values
from paddle_ranker.pictures.picture_config import IDLE, ViltConfig
from paddle_ranker.storage.foreign_config import ForeignConfig, read_preprocessor

# Padding has no effect: pictures are read alone.
_WITHOUT_EFFECT = IDLE | frozenset(("do_center_crop", "crop_size", "pad_size", "do_pad", "crop_pct"))


def _check_vilt(settings: ForeignConfig, values: Values) -> None:
    settings.require("num_channels", 3, remedy="take a model of pictures in RGB")
    settings.require("qkv_bias", True, remedy="take a model whose attention has biases")
    settings.require("max_image_length", -1, remedy="take a model that reads all patches")
    remedy = "take a model whose pictures are scaled as ViLT's are"
    scaling = read_preprocessor(settings.path.parent, "image_processor", "how pictures are scaled", _WITHOUT_EFFECT)
    name = str(scaling.get("image_processor_type", scaling.get("feature_extractor_type", "ViltImageProcessor")))
    if not name.startswith(("ViltImageProcessor", "ViltFeatureExtractor")):
        raise scaling.error(f"image_processor_type is {quoted(name)}; ViltImageProcessor is done here: {remedy}")
    for name, done in (
        ("do_resize", (True,)), ("do_rescale", (True,)), ("do_normalize", (True,)),
        ("rescale_factor", (1 / 255,)), ("default_to_square", (False,)), ("image_mean", ([0.5] * 3, 0.5)),
        ("image_std", ([0.5] * 3, 0.5)),
    ):  # fmt: skip
        scaling.require(name, *done, remedy=remedy)
        if scaling.states_null(name) and name != "default_to_square":  # null is no default: it turns steps off
            raise scaling.error(f"{scaling.place}{name} is null; only {quoted(done[0])} is done here: {remedy}")
    divisor, patch = scaling.get("size_divisor", 32), values["patch_size"]  # 32 as in ViltImageProcessor
    if type(divisor) is not int or type(patch) is not int or divisor < 1 or patch < 1 or divisor % patch:
        raise scaling.error(
            f"{scaling.place}size_divisor is {quoted(divisor)}, expected a multiple of the patch_size {quoted(patch)} "
            f"in config.json: {remedy}"
        )
    values["size_divisor"] = divisor
    values["resample"] = scaling.get("resample", 3)
    size = scaling.get("size", {"shortest_edge": 384})
    side = size.get("shortest_edge") if isinstance(size, dict) else size
    if type(side) is not int or side < divisor:
        raise scaling.error(
            f"{scaling.place}size is {quoted(size)}, expected its shortest_edge, at least the size_divisor {divisor}: "
            f"{remedy}"
        )
    values["shortest_edge"] = side
    if scaling.unknown:
        raise scaling.error(f"{', '.join(scaling.unknown)}: unknown here, and may change the pixels; remove it if not")


def _of_pictures(files: ModelTokenizer, max_seq_length: int, config: EncoderConfig) -> PairEncoder:
    from paddle_ranker.pictures.picture_pairs import PicturePairEncoder

    assert isinstance(config, ViltConfig)
    return PicturePairEncoder(files, min(max_seq_length, config.max_position_embeddings), config)


VIT_NORMS = {
    "encoder.layer.{}.layernorm_before": "encoder.layers.{}.norm1",
    "encoder.layer.{}.layernorm_after": "encoder.layers.{}.norm2",
}
VIT_LINEAR = {
    "encoder.layer.{}.attention.attention.query": "encoder.layers.{}.self_attn.q_proj",
    "encoder.layer.{}.attention.attention.key": "encoder.layers.{}.self_attn.k_proj",
    "encoder.layer.{}.attention.attention.value": "encoder.layers.{}.self_attn.v_proj",
    **{name: ours for name, ours in BERT_LINEAR.items() if ".self." not in name},
}
_VILT_TEXT = "embeddings.text_embeddings"
_VILT = Architecture(
    Names(
        {
            f"{_VILT_TEXT}.word_embeddings": "embeddings.word_embeddings",
            f"{_VILT_TEXT}.position_embeddings": "embeddings.position_embeddings",
            f"{_VILT_TEXT}.token_type_embeddings": "embeddings.token_type_embeddings",
            f"{_VILT_TEXT}.LayerNorm": "embeddings.layer_norm",
            "embeddings.cls_token": "embeddings.class_embedding",
            "embeddings.position_embeddings": "embeddings.patch_positions",
            "embeddings.token_type_embeddings": "embeddings.modality_embeddings",
            "embeddings.patch_embeddings.projection": "embeddings.patch_embeddings",
            "layernorm": "encoder.norm",
            **VIT_NORMS,
        },
        {**VIT_LINEAR, **POOLER},
        "vilt",
        {"rank_output": "classifier"},
        bare=("embeddings.cls_token", "embeddings.position_embeddings"),
        task="ForImageAndTextRetrieval",
    ),
    {
        **BERT_FIELDS,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 40,
        "image_size": 384,
        "patch_size": 32,
        "modality_type_vocab_size": 2,
    },
    _check_vilt,
    without_effect=frozenset({"num_images"}),
)


# Not by `add_family`: PaddleNLP has no such class; transformers' position embeddings are the patches', not the text's.
VILT = replace(
    BERT,
    network=network_of("paddle_ranker.pictures.vilt_network", "ViltEncoder"),
    pair_encoder=_of_pictures,
    config=ViltConfig,
    classes="Vilt",
    architecture=_VILT,
)
