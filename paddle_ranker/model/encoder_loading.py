"""Read the files of a model, and create its encoder from them.

Rankers, towers and masked language models start from `read_checkpoint`, since they also need the heads in the files;
`paddle_ranker.model.model_folder.load_encoder` loads an encoder alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Union

import numpy as np
import paddle

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.errors import CheckpointError, listed
from paddle_ranker.model.config import ENCODER_PREFIX, WORD_EMBEDDINGS, EncoderConfig, most_new_words
from paddle_ranker.model.encoders.family import EncoderFamily, Named
from paddle_ranker.model.families import brought_tokenizer, family_of, pair_encoder_of, read_config
from paddle_ranker.model.hugging_face.folder import (
    ClassifierHead,
    find_transformers,
    for_label,
    paddlenlps_head,
    read_model,
    tokenizer_of,
)
from paddle_ranker.model.hugging_face.library_tokenizer import stated_length
from paddle_ranker.model.hugging_face.sentences import CrossEncoderSettings, read_reranker
from paddle_ranker.model.hugging_face.weights import WEIGHT_FILES, load_parameters, parameters_file
from paddle_ranker.model.info import RankerInfo, heads_of_many_classes
from paddle_ranker.model.network import RankerNetwork, load_heads, parts_of
from paddle_ranker.model.networks.bert import Encoder
from paddle_ranker.model.paddlenlp_names import (
    PUBLISHED_FAMILIES,
    fitting,
    listed_names,
    shape_of,
    shape_of_config,
)
from paddle_ranker.model.parameters import PARAMETERS_FILE, count, set_parameters
from paddle_ranker.model.pretrained import named_config
from paddle_ranker.notes import note_once

_POOLER = "pooler."


@dataclass(frozen=True)
class Checkpoint:
    """Contents of a model's files.

    file: the parameter file, for messages
    arrays: the arrays that `EncoderFamily.name_parameters` returned; the encoder's names begin with `encoder.`
    unnamed: all arrays, under the names that `name_parameters` received
    tokenizer: called without arguments, returns the tokenizer; raises `CheckpointError` if its files are missing or
        unusable
    stated_length: the maximum length in tokens that a transformers folder states; None for other folders
    head: description of a classifier's head in a transformers folder; None for other folders
    ranker: info of a sentence-transformers reranker; None for other folders
    """

    file: Path
    config: EncoderConfig
    arrays: Named
    unnamed: Named
    tokenizer: Callable[[], ModelTokenizer]
    stated_length: Optional[int] = None
    head: Optional[ClassifierHead] = None
    ranker: Optional[RankerInfo] = None

    def for_label(self, positive_label: Optional[str]) -> Checkpoint:
        """Return a copy of the checkpoint; a classifier's head becomes one logit, that of the class of relevant texts.

        positive_label: name or index of the class of relevant texts; None: chosen by the classes' names

        Raises `CheckpointError` if the names do not decide, `UsageError` if there is no such class, or a class is given
        and the head is no classifier's.
        """
        arrays = for_label(self.arrays, self.unnamed, self.head, positive_label, self.file)
        return replace(self, arrays=arrays)

    @property
    def family(self) -> EncoderFamily:
        return family_of(self.config.model_type)

    @property
    def has_trained_pooler(self) -> bool:
        """Whether the checkpoint has a trained pooler: one whose bias is not all zeros."""
        bias = self.arrays.get(f"{ENCODER_PREFIX}{_POOLER}dense.bias")
        return bias is not None and bool(np.any(bias))

    def with_new_words(self) -> Checkpoint:
        """Return a copy for a training, whose word embeddings have a row for each token of the tokenizer; log new rows.

        New rows are random, as those of PaddleNLP's `resize_token_embeddings`. The checkpoint is returned unchanged if
        no row lacks, or if so many lack that the vocabulary must be another model's.
        """
        tokenizer, rows = self.tokenizer(), self.config.vocab_size
        lacking = tokenizer.vocab_size - rows
        if not 0 < lacking <= most_new_words(rows):
            return self
        words = sorted((number, token) for token, number in tokenizer.token_to_id.items() if number >= rows)
        note_once(
            f"note: {self.file.parent}: its vocabulary has {lacking} tokens above the {rows:,} word embeddings "
            f"({listed(token for _, token in words)}): their embeddings begin at random"
        )
        draw = paddle.ParamAttr(initializer=paddle.nn.initializer.TruncatedNormal(0.0, self.config.initializer_range))
        name, idf = ENCODER_PREFIX + WORD_EMBEDDINGS, "lexical.idf"
        old, arrays = self.arrays[name], dict(self.arrays)
        new = paddle.nn.Embedding(lacking, old.shape[1], weight_attr=draw).weight.numpy()
        arrays[name] = np.concatenate([old, new.astype(old.dtype)])
        if idf in arrays:  # a word without a frequency counts nothing
            arrays[idf] = np.concatenate([arrays[idf], np.zeros(lacking, arrays[idf].dtype)])
        return replace(self, config=replace(self.config, vocab_size=rows + lacking), arrays=arrays)

    def pair_encoder(self, max_seq_length: int, query_prompt: str = "") -> PairEncoder:
        """Create the encoder of pairs and texts.

        Raises `CheckpointError` if the tokenizer does not fit the model, or the model has too few positions.
        """
        try:
            return pair_encoder_of(self.tokenizer(), self.config, max_seq_length, query_prompt)
        except CheckpointError as error:
            raise CheckpointError(f"{self.file}: {error}") from error


def read_checkpoint(source: Union[str, Path], model_name: Optional[str] = None) -> Checkpoint:
    """Read a model from a folder of this toolkit, PaddleNLP or Hugging Face, or from a parameter file.

    model_name: the model whose configuration applies to a parameter file without a `config.json` beside it

    Raises `CheckpointError` if `source` has no parameters, is damaged, or does not fit its configuration. To
    tell a user what the folder is instead, check it with `model_folder.identify` first.
    """
    source = Path(source)
    source = source.parent if source.name in WEIGHT_FILES else source
    inner = None if source.is_file() else find_transformers(source)
    if inner is not None:
        return _of_hugging_face(inner, read_reranker(source))
    file = source if source.is_file() else parameters_file(source)
    if file is None:
        raise CheckpointError(f"{source}: has no {PARAMETERS_FILE}; `paddle-ranker info {source}` says what it is")
    return _of_file(file, model_name)


def _of_file(file: Path, model_name: Optional[str]) -> Checkpoint:
    folder = file.parent
    config = read_config(folder)
    arrays = load_parameters(file)
    if config is None:
        config = _config_of_name(file, arrays, model_name) if model_name else config_of_shape(file, arrays)
    try:
        config.require_fits(*count(arrays))
        for name in heads_of_many_classes(arrays):  # the rest is an encoder, as in transformers' folders
            arrays = {key: array for key, array in arrays.items() if key not in (name, f"{name[:-6]}bias")}
        named = family_of(config.model_type).name_parameters(arrays)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    head = paddlenlps_head(folder)
    return Checkpoint(file, config, named, arrays, lambda: tokenizer_of(folder, config), head=head)


def _config_of_name(file: Path, arrays: Named, model_name: str) -> EncoderConfig:
    """Return the configuration of a named model; raises `CheckpointError` if the parameters are of another model."""
    config, shape = named_config(model_name), shape_of(arrays)
    if shape is not None and config.model_type in PUBLISHED_FAMILIES and shape != shape_of_config(config):
        names = list(listed_names(fitting(shape, arrays)))
        fit = f"{', '.join(names)} fits" if names else "it is none of PaddleNLP's: copy its config.json beside it"
        raise CheckpointError(f"{file}: these parameters are not of {model_name}, but of {shape}: {fit}")
    return config


def config_of_shape(file: Path, arrays: Named) -> EncoderConfig:
    """Return the configuration of the published models whose shape fits the parameters, and log it.

    Raises `CheckpointError` if none fits, or if several fit that compute differently.
    """
    shape, ask = shape_of(arrays), "say which model it is with --model_name_or_path"
    groups = [] if shape is None else fitting(shape, arrays)
    if len(groups) == 1:
        ((config, names),) = groups
        more = f" ({', '.join(names[1:])} are alike)" if names[1:] else ""
        note_once(f"note: {file.parent} has no config.json: taken as {names[0]}, by the shape of its parameters{more}")
        return config
    found = "" if shape is None else f"; its parameters are of {shape}"
    if groups:
        found += f", which fits models that compute differently ({', '.join(listed_names(groups))})"
    raise CheckpointError(f"{file.parent}: has no config.json{found}; {ask}")


def _of_hugging_face(folder: Path, reranker: Optional[CrossEncoderSettings]) -> Checkpoint:
    model = read_model(folder)
    family, file = family_of(model.config.model_type), folder / model.file
    try:
        named = family.name_parameters(model.arrays)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error

    info, head = None if reranker is None else reranker.info, model.head
    if reranker is not None and reranker.has_head:
        named = {**{name: named[name] for name in named if name.startswith(ENCODER_PREFIX)}, **reranker.arrays}
        head = None
    length = stated_length(folder)
    tokenizer = lambda: brought_tokenizer(folder, family)  # noqa: E731
    return Checkpoint(file, model.config, named, model.arrays, tokenizer, length, head, info)


@dataclass(frozen=True)
class LoadedEncoder:
    """Pretrained encoder.

    network: the network with loaded parameters
    tokenizer: the tokenizer, which encodes texts and is saved with the model
    new_parts: names of the parts that the checkpoint lacks and that are randomly initialised: the pooler, or none
    checkpoint: contents of all files, heads included
    """

    network: Encoder
    tokenizer: ModelTokenizer
    config: EncoderConfig
    new_parts: list[str]
    checkpoint: Checkpoint

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> LoadedEncoder:
        """Create the encoder; raises `CheckpointError` if the parameters do not fit the configuration."""
        tokenizer = checkpoint.tokenizer()
        network, new_parts = encoder_of(checkpoint)
        return cls(network, tokenizer, network.config, new_parts, checkpoint)

    def pair_encoder(self, max_seq_length: int) -> PairEncoder:
        """Create the encoder of pairs and texts; raises as `Checkpoint.pair_encoder` does."""
        return self.checkpoint.pair_encoder(max_seq_length)


def encoder_of(
    checkpoint: Checkpoint,
    config: Optional[EncoderConfig] = None,
    *,
    need_pooler: bool = False,
    share: bool = False,
) -> tuple[Encoder, list[str]]:
    """Create a checkpoint's encoder; return it, and the names of the missing parts, which are randomly initialised.

    Only the pooler may be missing.

    config: configuration to use; None: the checkpoint's
    need_pooler: whether a missing pooler is an error, too
    share: whether parameters may share memory with the checkpoint's arrays; nothing else may then change the arrays

    Raises `CheckpointError` if any other parameter is missing, or if one does not fit the configuration.
    """
    try:
        return _filled(config or checkpoint.config, checkpoint.arrays, need_pooler, share)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}") from error


def ranker_of(
    config: EncoderConfig, named: Named, *, allow_new: bool, info: Optional[RankerInfo] = None
) -> tuple[RankerNetwork, list[str]]:
    """Create a ranker from arrays; return it, and the names of the parts that the arrays lack.

    named: arrays, named as by `name_parameters`
    allow_new: whether parts may be missing; missing parts are initialised
    info: states the pooling and the layers after it; None: those of the architecture

    Raises `CheckpointError` if a parameter is missing, unknown, or of another shape.
    """
    pooling, steps = (info.pooling, info.steps) if info is not None else ("", ())
    encoder, new_parts = _filled(config, named, not allow_new and not pooling, share=True)
    with paddle.LazyGuard():
        network = RankerNetwork(config, None, encoder=encoder, pooling=pooling, steps=steps)
    return network, sorted([*new_parts, *load_heads(network, named, allow_new=allow_new)])


def _filled(config: EncoderConfig, named: Named, need_pooler: bool, share: bool) -> tuple[Encoder, list[str]]:
    network = unfilled(config)
    arrays = {name[len(ENCODER_PREFIX) :]: array for name, array in named.items() if name.startswith(ENCODER_PREFIX)}
    missing = set_parameters(
        network, arrays, may_lack=() if need_pooler else (_POOLER,), prefix=ENCODER_PREFIX, share=share
    )
    state = network.state_dict()
    for name in missing:
        state[name[len(ENCODER_PREFIX) :]].initialize()
    return network, parts_of(missing)


def unfilled(config: EncoderConfig) -> Encoder:
    """Create an encoder whose parameters take no memory until they are set or `initialize` is called."""
    with paddle.LazyGuard():
        return family_of(config.model_type).network(config)
