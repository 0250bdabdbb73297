"""The network of a tower, and how its folder is read and written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.encoding.pair_encoder import PairEncoder, never_match_ids
from paddle_ranker.errors import CheckpointError
from paddle_ranker.lexical.vector import LexicalVector
from paddle_ranker.model.dropout import Dropout
from paddle_ranker.model.encoder import Encoder, pool_states
from paddle_ranker.model.encoders import Checkpoint, encoder_of
from paddle_ranker.model.hugging_face.sentences import stated_info
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.network import ENCODER
from paddle_ranker.model.opened import TrainedModel
from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays
from paddle_ranker.model.tower import QUERY_FOLDER, TextEncoder, TowerInfo, signature_of
from paddle_ranker.model.tower_sources import OUTPUT_LAYERS, read_tower

APART = ("query_tower.", "learned_scale.")  # what begins so belongs to a training and is not in a tower's own file
LEXICAL = "lexical_part"  # its name; a ranker's lexical head is another thing


class TowerNetwork(nn.Layer):
    """Turn a text into a vector: pool the encoder's states, make them `size` wide, and normalise them.

    A tower may have a lexical part: its numbers follow those of the states, and the whole is normalised again. In
    training the states learn without it: with it, they left to it what it sees, and found less.

    Args:
        encoder: a pretrained encoder.
        info: says how states are pooled, whether there is an output layer, and whether vectors have length 1.
        tokens: the tokenizer, which a lexical part needs to know.

    A training may set `query_tower`, the network of the queries (None: this one); `learned_scale`, what the loss
    multiplies cosines by; and `training_pooling`, which replaces the pooling in training.
    """

    def __init__(self, encoder: Encoder, info: TowerInfo, tokens: PairEncoder):
        super().__init__()
        self.config, self.configs = encoder.config, (encoder.config,)
        self.encoder = encoder
        self.pooling, self.output_tanh, self.normalize = info.pooling, info.output_tanh, info.normalize
        self.cut = info.size if info.cut_from else None
        self.dropout = Dropout(encoder.config.hidden_dropout_prob, encoder.masks)
        self.output_layer: Optional[nn.Linear] = None
        self.query_tower: Optional[TowerNetwork] = None
        self.learned_scale: Optional[nn.Layer] = None
        self.training_pooling: Optional[str] = None
        if info.output_layer:
            initializer = nn.initializer.TruncatedNormal(0.0, encoder.config.initializer_range)
            weight = paddle.ParamAttr(initializer=initializer)
            width = info.cut_from or info.size - info.lexical_size
            self.output_layer = nn.Linear(encoder.config.hidden_size, width, weight_attr=weight)
        self.lexical_part: Optional[LexicalVector] = None
        if info.lexical_size:
            never_match, spelling = never_match_ids(tokens), tokens.spelling()
            self.lexical_part = LexicalVector(encoder.config.vocab_size, info.lexical_size, never_match, spelling)

    def queries(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the vectors of queries; arguments and result as those of `forward`."""
        vectors: Tensor = (self.query_tower or self)(input_ids, token_type_ids)
        return vectors

    def own_state(self) -> dict[str, Tensor]:
        """Return the parameters of this tower alone, by name."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(APART)}

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the vectors of texts, `[batch, size]` float32; ids and token types are `[batch, length]` int64."""
        pooling = self.training_pooling if self.training_pooling and self.training else self.pooling
        if pooling == "pooler":
            pooled = self.encoder.pooled(input_ids, token_type_ids)
        else:
            states = self.encoder(input_ids, token_type_ids)
            pooled = pool_states(states, input_ids != self.config.pad_token_id, pooling)
        if self.output_layer is not None:
            pooled = self.output_layer(pooled)
            pooled = paddle.tanh(pooled) if self.output_tanh else pooled
        vectors = self.dropout(pooled).astype("float32")
        if self.lexical_part is not None and not self.training:
            vectors = F.normalize(vectors, axis=-1)
            vectors = paddle.concat([vectors, self.lexical_part(input_ids, token_type_ids)], axis=-1)
        if self.cut is not None:
            vectors = F.normalize(vectors, axis=-1)[:, : self.cut]
        return F.normalize(vectors, axis=-1) if self.normalize else vectors


@dataclass(frozen=True)
class TowerModel(TrainedModel[TowerInfo, TextEncoder]):
    """A tower in memory."""

    network: TowerNetwork


def start_tower(checkpoint: Checkpoint, info: TowerInfo, tokenizer: str = "auto") -> tuple[TowerModel, list[str]]:
    """Return a tower to train with a checkpoint's encoder, and the names of the parts that are new.

    Raises `CheckpointError` if the checkpoint's parameters or tokenizer do not fit its configuration.
    """
    encoder, new_parts = encoder_of(checkpoint)
    if info.pooling != "pooler":
        new_parts = [part for part in new_parts if part != f"{ENCODER}pooler.dense"]
    tokens = checkpoint.pair_encoder(info.max_seq_length, tokenizer)
    network = TowerNetwork(encoder, info, tokens)
    new_parts = [*new_parts, *_load_own_parts(network, checkpoint)]
    encode = TextEncoder(tokens, info.query_prompt, info.text_prompt)
    return TowerModel(info, encode, signature_of(info), network), new_parts


def save_tower(folder: Path, model: TowerModel, info: TowerInfo) -> None:
    """Write a tower, which `info` describes, into an existing folder; call it inside `atomic.new_folder`."""
    from paddle_ranker.model.config import write_config

    network = model.network
    save_arrays(network.own_state(), folder / PARAMETERS_FILE)
    write_config(folder, network.config)
    model.row_encoder.save(folder)
    info.write(folder)


def save_query_tower(folder: Path, queries: TowerModel, info: TowerInfo) -> None:
    """Write the tower of queries into the folder of a tower, as `save_tower` does."""
    (folder / QUERY_FOLDER).mkdir()
    save_tower(folder / QUERY_FOLDER, queries, dataclasses.replace(info, towers=1))


def query_tower_of(folder: Path, options: LoadOptions) -> Optional[TowerModel]:
    """Load the tower that a tower's folder has for queries; None if queries have no tower of their own."""
    info = stated_info(folder)
    return load_tower(folder / QUERY_FOLDER, options) if info is not None and info.towers == 2 else None


def load_tower(source: Path, options: LoadOptions) -> TowerModel:
    """Load a trained tower, or an encoder as one (`read_tower` says how).

    Raises `CheckpointError` if anything that its vectors depend on is missing.
    """
    checkpoint, info = read_tower(source, options)
    encoder, _ = encoder_of(checkpoint, need_pooler=info.pooling == "pooler", share=True)
    tokens = checkpoint.pair_encoder(info.max_seq_length, options.tokenizer)
    network = TowerNetwork(encoder, info, tokens)
    missing = _load_own_parts(network, checkpoint)
    if missing:
        raise CheckpointError(f"{checkpoint.file}: has no parameters of {missing[0]}; copy the folder again")
    network.eval()
    encode = TextEncoder(tokens, info.query_prompt, info.text_prompt)
    return TowerModel(info, encode, signature_of(info), network)


def _load_own_parts(network: TowerNetwork, checkpoint: Checkpoint) -> list[str]:
    """Set what a tower has beside its encoder from a checkpoint; return the names of the parts that it lacks."""
    arrays, missing = checkpoint.unnamed, []
    for part, layer in ((OUTPUT_LAYERS[0], network.output_layer), (LEXICAL, network.lexical_part)):
        if layer is None:
            continue
        names = OUTPUT_LAYERS if part == OUTPUT_LAYERS[0] else (part,)
        name = next((name for name in names if f"{name}.weight" in arrays), None)
        if name is None:
            missing.append(part)
            continue
        for own, tensor in layer.state_dict().items():
            array = arrays.get(f"{name}.{own}")
            if array is None or list(array.shape) != list(tensor.shape) or array.dtype.kind != "f":
                found = "is missing" if array is None else f"has {array.dtype} numbers of shape {list(array.shape)}"
                raise CheckpointError(f"{checkpoint.file}: {name}.{own} {found}, expected {list(tensor.shape)}")
            tensor.set_value(array)
    return missing
