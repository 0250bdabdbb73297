"""BERT, ERNIE, RoBERTa and what has their network: ERNIE-Gram, ERNIE-M, CamemBERT, XLM-RoBERTa."""

from __future__ import annotations

from dataclasses import dataclass, replace

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.encoding.tokenizers.tokenizer_folder import SENTENCEPIECE_FILE, TokenizerFiles
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.family import (
    BERT,
    BERT_FIELDS,
    BERT_LINEAR,
    BERT_PLAIN,
    FAMILIES,
    POOLER,
    ROBERTA_FIELDS,
    TWO_LAYERS,
    add_family,
    check_bert,
    network_of,
)
from paddle_ranker.model.hugging_face.architectures import Architecture, Names
from paddle_ranker.storage.declared import Count, Positive
from paddle_ranker.storage.untrusted import UncheckedObject


@dataclass(frozen=True)
class ErnieMConfig(EncoderConfig):
    """Configuration of ERNIE-M: no token types, and positions that start at 2.

    As PaddleNLP's network does, it takes four times `hidden_size` and an epsilon of 1e-5, whatever the file says.
    """

    type_vocab_size: Count = 0
    max_position_embeddings: Positive = 514
    layer_norm_eps: float = 1e-5
    pad_token_id: Count = 1
    model_type: str = "ernie_m"

    @property
    def first_position(self) -> int:
        return 2

    @classmethod
    def from_dict(cls, values: UncheckedObject) -> EncoderConfig:
        """Create a configuration as the base class does; values without effect in PaddleNLP's network have none."""
        size = values.get("hidden_size", cls.hidden_size)
        fixed = {"type_vocab_size": 0, "use_task_id": False, "layer_norm_eps": cls.layer_norm_eps}
        inner = 4 * size if type(size) is int else cls.intermediate_size
        return super().from_dict({"vocab_size": 250002, **values, **fixed, "intermediate_size": inner})


FAMILIES.add("ernie_gram", replace(BERT, classes="ErnieGram"))


def _of_pieces(files: ModelTokenizer, max_seq_length: int, config: EncoderConfig) -> PairEncoder:
    if isinstance(files, TokenizerFiles):
        raise CheckpointError(
            f"its tokenizer has no {SENTENCEPIECE_FILE}: copy it from PaddleNLP's folder of the model"
        )
    return PairEncoder(files, max_seq_length)


# Before ERNIE, with which the names of its classes begin.
FAMILIES.add(
    "ernie_m",
    replace(
        BERT,
        network=network_of("bert", "ErnieMEncoder"),
        pair_encoder=_of_pieces,
        config=ErnieMConfig,
        classes="ErnieM",
    ),
)


for _type, _classes, _fields in (
    ("bert", "Bert", BERT_FIELDS),
    ("ernie", "Ernie", {**BERT_FIELDS, "use_task_id": False, "task_type_vocab_size": 3}),
):
    _names = Names(BERT_PLAIN, {**BERT_LINEAR, **POOLER}, _type)
    FAMILIES.add(_type, replace(BERT, classes=_classes, architecture=Architecture(_names, _fields, check_bert)))


_ROBERTA = Architecture(Names(BERT_PLAIN, {**BERT_LINEAR, **POOLER}, "roberta", TWO_LAYERS), ROBERTA_FIELDS, check_bert)


for _type, _classes in (("roberta", "Roberta"), ("camembert", "Camembert"), ("xlm-roberta", "XLMRoberta")):
    add_family(_type, _classes, _ROBERTA)
