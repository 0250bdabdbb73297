"""Networks of towers: load them from a tower's folder or from any encoder, and save them.

The folders of towers and of sentence-transformers state the pooling and the normalisation. For other folders,
`_assumed` chooses and logs a default. An encoder of paragraphs reads a text after its title, as in RocketQA:

| folder | pooling | normalised |
| --- | --- | --- |
| of the published recall scripts (`ptm.*`, `emb_reduce_linear.*`) | the pooler, as in these scripts | yes |
| `rocketqa-*-query-encoder`, `-para-encoder` | the first token, as in RocketQA; compared by products | no |
| a causal decoder, such as Qwen3 | the last token, as in Qwen3-Embedding | no |
| any other encoder | the mean of the tokens, as in sentence-transformers | no |
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.encoding.columns import TEXT
from paddle_ranker.encoding.pair_encoder import never_match_ids
from paddle_ranker.errors import CheckpointError, UsageError, listed
from paddle_ranker.lexical.vector import LexicalVector
from paddle_ranker.model.config import ENCODER_PREFIX
from paddle_ranker.model.encoder_loading import Checkpoint, encoder_of, read_checkpoint
from paddle_ranker.model.hub import HubName
from paddle_ranker.model.hugging_face.library_tokenizer import MODULES_FILE, stated_length
from paddle_ranker.model.hugging_face.sentences import Sentences, read_sentences, stated_info
from paddle_ranker.model.info import PUBLISHED_HEADS, PUBLISHED_TOWER
from paddle_ranker.model.load_options import POOLINGS, LoadOptions
from paddle_ranker.model.model_kind import Signature, TrainedModel
from paddle_ranker.model.networks.bert import Encoder, pool_states, types_of
from paddle_ranker.model.networks.dropout import Dropout
from paddle_ranker.model.networks.lora import merged
from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.model.tower import (
    FILE_INPUTS,
    QUERY_FOLDER,
    RowsOfTower,
    TextEncoder,
    TowerInfo,
    signature_of,
    texts_of,
)
from paddle_ranker.model.tower import INFO_FILE as TOWER_FILE
from paddle_ranker.notes import note

APART = ("query_tower.", "learned_scale.")  # prefixes of parameters that are not in a tower's parameter file
LEXICAL = "lexical_part"  # begins the names of a tower's lexical parameters; a ranker has a lexical head instead


class TowerNetwork(nn.Layer):
    """Network that makes the vector of a text, picture or sound: pool the encoder's states, project them, normalise.

    If the tower has a lexical part, this is appended to the vector, and the whole is normalised again. In training, the
    lexical part is left out: the encoder then learns more, and recall is higher.

    encoder: a pretrained encoder
    info: states pooling, output layer and normalisation
    rows: the row encoder, whose tokenizer a lexical part uses, and whose means of pixels a tower of pictures uses

    Attributes, which a training may set:
        query_tower: network of the queries; None: this network.
        learned_scale: factor of the cosines in the loss.
        training_pooling: pooling in training, in place of `pooling`; "" or None: `pooling`.
        is_frozen: whether `forward` takes results of `pooled` instead of pictures in training.
    """

    def __init__(self, encoder: Encoder, info: TowerInfo, rows: RowsOfTower):
        super().__init__()
        self.config, self.configs = encoder.config, (encoder.config,)
        self.encoder = encoder
        self.pooling, self.output_tanh, self.normalize = info.pooling, info.output_tanh, info.normalize
        self.cut = info.size if info.cut_from else None
        self.ends_with_padding = False
        self.dropout = Dropout(encoder.config.hidden_dropout_prob, encoder.masks)
        self.output_layer: Optional[nn.Linear] = None
        self.query_tower: Optional[TowerNetwork] = None
        self.learned_scale: Optional[nn.Layer] = None
        self.training_pooling: Optional[str] = None
        self.is_frozen = False
        if info.output_layer:
            initializer = nn.initializer.TruncatedNormal(0.0, encoder.config.initializer_range)
            weight = paddle.ParamAttr(initializer=initializer)
            width = info.cut_from or info.size - info.lexical_size
            self.output_layer = nn.Linear(encoder.config.hidden_size, width, weight_attr=weight)
        self.lexical_part: Optional[LexicalVector] = None
        if not isinstance(rows, TextEncoder):
            encoder.normalise_as(rows)
            return
        tokens = rows.tokens
        self.ends_with_padding = tokens.template.text_after[-1:] == (tokens.pad_id,)
        if info.lexical_size:
            never_match, spelling = never_match_ids(tokens), tokens.spelling()
            self.lexical_part = LexicalVector(encoder.config.vocab_size, info.lexical_size, never_match, spelling)

    def queries(self, *inputs: Tensor) -> Tensor:
        """Return the vectors of queries; arguments and result as those of `forward`."""
        vectors: Tensor = (self.query_tower or self)(*inputs)
        return vectors

    def own_state(self) -> dict[str, Tensor]:
        """Return the parameters that the tower's file contains, by name; it lacks a query tower and a learned scale."""
        return merged({name: value for name, value in self.state_dict().items() if not name.startswith(APART)})

    def forward(self, input_ids: Tensor, token_type_ids: Optional[Tensor] = None) -> Tensor:
        """Return the vectors of texts, pictures or sounds, `[batch, size]` float32.

        input_ids: ids `[batch, length]` int64; for other towers pixels `[batch, 3, height, width]`, or samples `[batch,
            samples]`
        token_type_ids: as in `Encoder.forward`; None for pictures; for sounds their counts of samples, `[batch]`
        """
        pooled = input_ids if self.is_frozen and self.training else self.pooled(input_ids, token_type_ids)
        return self._projected(pooled, input_ids, token_type_ids)

    def pooled(self, input_ids: Tensor, token_type_ids: Optional[Tensor] = None) -> Tensor:
        """Return the pooled states of the encoder, `[batch, hidden]`; arguments as in `forward`."""
        pooling = self.training_pooling if self.training_pooling and self.training else self.pooling
        if pooling == "pooler":
            return self.encoder.pooled(input_ids, token_type_ids)
        states = self.encoder(input_ids, token_type_ids)
        return pool_states(states, self._is_token(input_ids), pooling)

    def _is_token(self, input_ids: Tensor) -> Tensor:
        """Return a mask of the ids that are tokens, not padding, `[batch, length]` bool.

        Qwen3-Embedding pads with its end token: the first padding id of a row is then a token.
        """
        is_token = input_ids != self.config.pad_token_id
        if not self.ends_with_padding:
            return is_token
        return paddle.concat([paddle.ones_like(is_token[:, :1]), is_token[:, :-1]], axis=1)

    def of_states(self, states: Tensor, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Compute the vectors of `forward` from the encoder's last states, `[batch, length, hidden]`."""
        if self.pooling == "pooler":
            pooled = self.encoder.pool(states, input_ids)
        else:
            pooled = pool_states(states, self._is_token(input_ids), self.pooling)
        return self._projected(pooled, input_ids, token_type_ids)

    def _projected(self, pooled: Tensor, input_ids: Tensor, token_type_ids: Optional[Tensor]) -> Tensor:
        if self.output_layer is not None:
            pooled = self.output_layer(pooled)
            pooled = paddle.tanh(pooled) if self.output_tanh else pooled
        vectors = self.dropout(pooled).astype("float32")
        if self.lexical_part is not None and not self.training:
            vectors = F.normalize(vectors, axis=-1)
            vectors = paddle.concat([vectors, self.lexical_part(input_ids, types_of(token_type_ids))], axis=-1)
        if self.cut is not None:
            vectors = F.normalize(vectors, axis=-1)[:, : self.cut]
        return F.normalize(vectors, axis=-1) if self.normalize else vectors


@dataclass(frozen=True)
class TowerModel(TrainedModel[TowerInfo, RowsOfTower]):
    """Tower, opened in memory."""

    network: TowerNetwork

    @property
    def texts(self) -> TextEncoder:
        """Encoder of texts; raises `CheckpointError` as `texts_of` does."""
        return texts_of(self.row_encoder)


def start_tower(checkpoint: Checkpoint, info: TowerInfo) -> tuple[TowerModel, list[str]]:
    """Create a tower to train from a checkpoint's encoder; return it, and the names of parts that the checkpoint lacks.

    info: how the tower pools, projects and normalises

    Raises `CheckpointError` if the checkpoint's parameters or tokenizer do not fit its configuration.
    """
    checkpoint = checkpoint if info.reads != TEXT else checkpoint.with_new_words()
    encoder, new_parts = encoder_of(checkpoint)
    if info.pooling != "pooler":
        new_parts = [part for part in new_parts if part != f"{ENCODER_PREFIX}pooler.dense"]
    rows = _rows_of(checkpoint, info)
    network = TowerNetwork(encoder, info, rows)
    new_parts = [*new_parts, *_load_own_parts(network, checkpoint)]
    return TowerModel(info, rows, _signature(info, encoder), network), new_parts


def _signature(info: TowerInfo, encoder: Encoder) -> Signature:
    return signature_of(info).with_places(len(encoder.config.place_limits))


def _rows_of(checkpoint: Checkpoint, info: TowerInfo) -> RowsOfTower:
    """Create the encoder of a tower's inputs; raises `CheckpointError` if it does not fit the model."""
    if info.reads != TEXT:
        return FILE_INPUTS[info.reads].rows(checkpoint.file.parent)
    tokens = checkpoint.pair_encoder(info.max_seq_length)
    return TextEncoder(tokens, info.query_prompt, info.text_prompt, info.titled)


def save_tower(folder: Path, model: TowerModel, info: TowerInfo) -> None:
    """Write a tower and its `info` into an existing folder; call it inside `atomic.new_folder`."""
    from paddle_ranker.model.families import write_config

    network = model.network
    save_arrays(network.own_state(), folder / PARAMETERS_FILE)
    write_config(folder, network.config)
    model.row_encoder.save(folder)
    info.write(folder)


def save_query_tower(folder: Path, queries: TowerModel, info: TowerInfo) -> None:
    """Write a separate tower for queries into the folder of a tower.

    info: info of the text tower; its facts about training, results and versions are copied to the query tower
    """
    (folder / QUERY_FOLDER).mkdir()
    query_info = dataclasses.replace(
        queries.info, towers=1, training=info.training, results=info.results, versions=info.versions
    )
    save_tower(folder / QUERY_FOLDER, queries, query_info)


def query_tower_of(folder: Path, options: LoadOptions) -> Optional[TowerModel]:
    """Load the separate query tower in a tower's folder; None if there is none."""
    info = stated_info(folder)
    return load_tower(folder / QUERY_FOLDER, options) if info is not None and info.towers == 2 else None


def load_tower(source: Path, options: LoadOptions) -> TowerModel:
    """Load a trained tower, or an encoder as a tower, see `read_tower`.

    Raises `CheckpointError` if a part that vectors depend on is missing.
    """
    checkpoint, info = read_tower(source, options)
    encoder, _ = encoder_of(checkpoint, need_pooler=info.pooling == "pooler", share=True)
    rows = _rows_of(checkpoint, info)
    network = TowerNetwork(encoder, info, rows)
    _load_own_parts(network, checkpoint)  # `read_tower` has found all of them
    network.eval()
    return TowerModel(info, rows, _signature(info, encoder), network)


def _load_own_parts(network: TowerNetwork, checkpoint: Checkpoint) -> list[str]:
    """Load the output layer and the lexical part from a checkpoint; return the names of the parts that it lacks."""
    arrays, missing = checkpoint.unnamed, []
    for part, layer in ((OUTPUT_LAYERS[0], network.output_layer), (LEXICAL, network.lexical_part)):
        if layer is None:
            continue
        names = OUTPUT_LAYERS if part == OUTPUT_LAYERS[0] else (part,)
        name = next((name for name in names if f"{name}.weight" in arrays), None)
        if name is None:
            missing.append(part)
            continue
        for parameter, tensor in layer.state_dict().items():
            array = arrays.get(f"{name}.{parameter}")
            if array is None or list(array.shape) != list(tensor.shape) or array.dtype.kind != "f":
                problem = "is missing" if array is None else f"has {array.dtype} numbers of shape {list(array.shape)}"
                raise CheckpointError(f"{checkpoint.file}: {name}.{parameter} {problem}, expected {list(tensor.shape)}")
            tensor.set_value(array)
    return missing


OUTPUT_LAYERS = ("output_layer", "emb_reduce_linear")  # names in this toolkit and in the published scripts
_ROCKETQA = re.compile(r"rocketqa.*-(query|para)-encoder|ernie-search-.*-dual-encoder-.*")


def read_tower(source: Path, options: LoadOptions) -> tuple[Checkpoint, TowerInfo]:
    """Read the files of a tower or of an encoder; return their contents, and the info of the tower.

    Raises `CheckpointError` if the files are damaged, `UsageError` if `options.pooling` is unknown or contradicts them.
    """
    source = resolve_model(str(source))
    folder = source.parent if source.is_file() else source
    info, sentences = TowerInfo.read(folder), None
    if info is None and (folder / MODULES_FILE).is_file():
        sentences = read_sentences(folder)
        info = sentences.info
    checkpoint = read_checkpoint(source, options.model_name)
    if sentences is not None:
        checkpoint = _with_dense(checkpoint, sentences)
    if options.pooling is not None and options.pooling not in POOLINGS:
        raise UsageError(f"--pooling {options.pooling}: choose from {', '.join(POOLINGS)}")
    if info is None:
        info = _assumed(checkpoint, folder, options)
    elif options.pooling not in (None, info.pooling):
        raise UsageError(f"--pooling {options.pooling}: {folder} says {info.pooling}; leave the option out")
    _require_sizes(checkpoint, info)
    longest = checkpoint.config.longest_pair if info.reads == TEXT else info.max_seq_length
    length = options.max_seq_length or min(info.max_seq_length, longest)
    normalize = info.normalize if options.normalize is None else options.normalize
    return checkpoint, dataclasses.replace(info, max_seq_length=length, normalize=normalize)


def _require_sizes(checkpoint: Checkpoint, info: TowerInfo) -> None:
    """Raise `CheckpointError` unless the parameters have the sizes of `info`; called before a network is created."""
    width, arrays = info.cut_from or info.size - info.lexical_size, checkpoint.unnamed
    outputs = [arrays[f"{name}.weight"] for name in OUTPUT_LAYERS if f"{name}.weight" in arrays]
    signs = arrays.get(f"{LEXICAL}.first_signs") if f"{LEXICAL}.weight" in arrays else None
    if (info.output_layer and not outputs) or (info.lexical_size and signs is None):
        lacking = LEXICAL if outputs or not info.output_layer else OUTPUT_LAYERS[0]
        raise CheckpointError(f"{checkpoint.file}: has no parameters of {lacking}; copy the folder again")
    pooled = outputs[0].shape[-1:] if info.output_layer else (checkpoint.config.hidden_size,)
    lexical = signs.shape[-1:] if info.lexical_size and signs is not None else (0,)
    if (*pooled, *lexical) != (width, info.lexical_size):
        raise CheckpointError(
            f"{checkpoint.file}: vectors have {listed(pooled)} numbers, and {listed(lexical)} of words; {TOWER_FILE} "
            f"says {width:,} and {info.lexical_size:,} (size, lexical_size); copy the folder again"
        )


def _assumed(checkpoint: Checkpoint, folder: Path, options: LoadOptions) -> TowerInfo:
    """Choose a tower's info for an encoder whose folder states none, and log the choice."""
    arrays = checkpoint.unnamed
    output = next((arrays[f"{name}.weight"] for name in OUTPUT_LAYERS if f"{name}.weight" in arrays), None)
    is_ranker = any(head in arrays for head in ("head.weight", *PUBLISHED_HEADS))
    is_published = output is not None or (any(name.startswith(PUBLISHED_TOWER) for name in arrays) and not is_ranker)
    is_rocketqa = _ROCKETQA.fullmatch(folder.name) is not None
    if is_published:
        pooling, why = "pooler", "the pooler's output, as the published recall scripts take it"
    elif is_rocketqa:
        pooling, why = "first", "the first token's state, as RocketQA takes it"
    elif checkpoint.family.is_causal:
        pooling, why = "last", "the last token's state, as Qwen3-Embedding takes it"
    else:
        pooling, why = "mean", "the mean of the tokens' states, as sentence-transformers does"
    if options.pooling is None:
        how = f"{why} (--pooling {'|'.join(POOLINGS)}){_modules_advice(folder)}"
        note(f"note: {folder} does not say how its vectors are made: {how}")
    return TowerInfo(
        max_seq_length=min(stated_length(folder), checkpoint.config.longest_pair),
        size=checkpoint.config.hidden_size if output is None else output.shape[-1],
        pooling=options.pooling or pooling,
        output_layer=output is not None,
        normalize=is_published,
        similarity="dot" if is_rocketqa else "cosine",
        titled=is_rocketqa and folder.name.endswith("-para-encoder"),
    )


def _modules_advice(folder: Path) -> str:
    """Return advice to download a model's `modules.json`; "" if `folder` is not in the hub's cache."""
    name = HubName.of_snapshot(folder)
    if name is None:
        return ""
    return f"; if the model has a {MODULES_FILE} on the hub, hf download {name.repository} brings it into the cache"


def _with_dense(checkpoint: Checkpoint, sentences: Sentences) -> Checkpoint:
    """Return the checkpoint with the dense layers of a sentence-transformers folder, under this toolkit's names."""
    arrays, unnamed = dict(checkpoint.arrays), dict(checkpoint.unnamed)
    if sentences.pooler is not None:
        name = f"{ENCODER_PREFIX}pooler.dense"
        arrays[f"{name}.weight"], arrays[f"{name}.bias"] = sentences.pooler.arrays()
    if sentences.info.output_layer:
        width, size, name = (
            checkpoint.config.hidden_size,
            sentences.info.cut_from or sentences.info.size,
            OUTPUT_LAYERS[0],
        )
        plain = np.eye(width, dtype=np.float32), np.zeros(width, np.float32)
        weight, bias = sentences.output_layer() or plain
        unnamed[f"{name}.weight"], unnamed[f"{name}.bias"] = weight[:, :size], bias[:size]
    return dataclasses.replace(checkpoint, arrays=arrays, unnamed=unnamed)
