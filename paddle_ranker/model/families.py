"""Families of encoders: what differs between architectures, found by the `model_type` of a configuration.

Importing it does not import Paddle: servers without it make their pair encoders here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_ranker.encoding.columns import Array
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.base import ModelTokenizer
from paddle_ranker.encoding.tokenizers.reading import read_tokenizer
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import EncoderConfig, require_tokenizer_fits
from paddle_ranker.registry import Registry

if TYPE_CHECKING:
    from paddle_ranker.model.encoder import Encoder
    from paddle_ranker.model.hugging_face.read import HuggingFaceModel

Named = dict[str, Array]  # arrays by parameter name


@dataclass(frozen=True)
class EncoderFamily:
    """Encoders of one architecture.

    network: makes an encoder with random parameters from a configuration; a subclass of `Encoder`, say. Where
        files hold the parameters, it is called in a `paddle.LazyGuard`, in which they have no values yet
    name_parameters: renames a checkpoint's arrays to the network's names, after `encoder.`, and the heads beside it
    read_hugging_face: reads a transformers folder: the configuration, and arrays as `name_parameters` takes them
    bring_tokenizer: writes the tokenizer of a transformers folder (first path) into the second, for `read_tokenizer`
    pair_encoder: makes the encoder of pairs and texts, with the family's template, from a tokenizer, a maximum
        length in tokens and a backend's name
    """

    network: Callable[[EncoderConfig], Encoder]
    name_parameters: Callable[[Named], Named]
    read_hugging_face: Callable[[Path], HuggingFaceModel]
    bring_tokenizer: Callable[[Path, Path], object]
    pair_encoder: Callable[[ModelTokenizer, int, str], PairEncoder]


def _bert(config: EncoderConfig) -> Encoder:
    from paddle_ranker.model.encoder import Encoder

    return Encoder(config)


def _electra(config: EncoderConfig) -> Encoder:
    from paddle_ranker.model.networks.electra import ElectraEncoder

    return ElectraEncoder(config)


def _mpnet(config: EncoderConfig) -> Encoder:
    from paddle_ranker.model.networks.mpnet import MPNetEncoder

    return MPNetEncoder(config)


def _distilbert(config: EncoderConfig) -> Encoder:
    from paddle_ranker.model.networks.distilbert import DistilBertEncoder

    return DistilBertEncoder(config)


def _modernbert(config: EncoderConfig) -> Encoder:
    from paddle_ranker.model.networks.modernbert import ModernBertEncoder

    return ModernBertEncoder(config)


def _deberta(config: EncoderConfig) -> Encoder:
    from paddle_ranker.model.networks.deberta import DebertaEncoder

    return DebertaEncoder(config)


def _name_parameters(arrays: Named) -> Named:
    from paddle_ranker.model.network import name_parameters

    return name_parameters(arrays)


def _name_as(model_type: str) -> Callable[[Named], Named]:
    """Return what also renames checkpoints of PaddleNLP's own classes of an architecture."""

    def name(arrays: Named) -> Named:
        from paddle_ranker.model.hugging_face.architectures import ARCHITECTURES
        from paddle_ranker.model.hugging_face.names import of_paddlenlp

        return _name_parameters(of_paddlenlp(arrays, ARCHITECTURES[model_type].names))

    return name


def _read_hugging_face(folder: Path) -> HuggingFaceModel:
    from paddle_ranker.model.hugging_face.read import read_model

    return read_model(folder)


def _bring_tokenizer(source: Path, target: Path) -> None:
    from paddle_ranker.model.hugging_face.library_tokenizer import bring_tokenizer

    bring_tokenizer(source, target)


FAMILIES: Registry[EncoderFamily] = Registry("family of encoders")
BERT = EncoderFamily(_bert, _name_parameters, _read_hugging_face, _bring_tokenizer, PairEncoder)
# XLM-RoBERTa's, too: positions and types are configured.
ROBERTA = replace(BERT, name_parameters=_name_as("roberta"))
for _type in ("ernie", "ernie_gram", "bert"):
    FAMILIES.add(_type, BERT)
for _type in ("roberta", "xlm-roberta", "camembert"):
    FAMILIES.add(_type, ROBERTA)
for _type, _network in {
    "electra": _electra,
    "mpnet": _mpnet,
    "distilbert": _distilbert,
    "modernbert": _modernbert,
    "deberta-v2": _deberta,
}.items():
    FAMILIES.add(_type, replace(ROBERTA, network=_network, name_parameters=_name_as(_type)))


def family_of(model_type: object) -> EncoderFamily:
    """Return the family of a configuration's `model_type`; an unknown type is tried as BERT's."""
    return FAMILIES[model_type] if isinstance(model_type, str) and model_type in FAMILIES else BERT


def pair_encoder_of(
    files: ModelTokenizer, config: EncoderConfig, max_seq_length: int, tokenizer: str = "auto", query_prompt: str = ""
) -> PairEncoder:
    """Return the pair encoder of a tokenizer and a configuration, with its family's template.

    Args:
        query_prompt: precedes every query of a pair.

    Raises `CheckpointError` if the model has too few positions for `max_seq_length`, or the tokenizer is another's.
    """
    if max_seq_length > config.longest_pair:
        raise CheckpointError(
            f"max_seq_length {max_seq_length} is above the {config.longest_pair} positions of this model"
        )
    encoder = family_of(config.model_type).pair_encoder(files, max_seq_length, tokenizer)
    require_tokenizer_fits(encoder.vocab_size, encoder.pad_id, config, files.may_fall_short)
    encoder.query_prompt = query_prompt
    return encoder


def brought_tokenizer(folder: Path, family: EncoderFamily) -> ModelTokenizer:
    """Return the tokenizer of a transformers folder; raises `CheckpointError` if it cannot be used."""
    with tempfile.TemporaryDirectory() as temporary:
        family.bring_tokenizer(folder, Path(temporary))
        return read_tokenizer(Path(temporary))


def pair_encoder_of_hugging_face(folder: Path) -> PairEncoder:
    """Return the pair encoder of a transformers folder that classifies, with the length that it states.

    Raises `CheckpointError` as `pair_encoder_of` does, and for unusable files. The weights are not read.
    """
    from paddle_ranker.model.hugging_face.library_tokenizer import stated_length
    from paddle_ranker.model.hugging_face.read import find_encoder, read_encoder_config
    from paddle_ranker.model.hugging_face.sentences import read_reranker

    inner = find_encoder(folder) or folder
    config = read_encoder_config(inner / "config.json")
    tokenizer, reranker = brought_tokenizer(inner, family_of(config.model_type)), read_reranker(folder)
    prompt = "" if reranker is None else reranker.info.query_prompt
    return pair_encoder_of(tokenizer, config, min(stated_length(inner), config.longest_pair), query_prompt=prompt)


def make_pair_encoder(
    folder: Path, config: EncoderConfig, max_seq_length: int, tokenizer: str = "auto", query_prompt: str = ""
) -> PairEncoder:
    """Return the pair encoder of a folder's tokenizer; raises as `pair_encoder_of`, and for unusable files."""
    return pair_encoder_of(read_tokenizer(folder), config, max_seq_length, tokenizer, query_prompt)
