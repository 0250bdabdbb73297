"""Pretrained encoders to start from: `load_encoder` gives the network, the tokenizer and the configuration of any.

    loaded = load_encoder("ernie-3.0-nano-zh")          # or a folder: ours, PaddleNLP's, Hugging Face's
    network, tokenizer = loaded.network, loaded.tokenizer

Recipes and plugins begin there. Rankers (`paddle_ranker.model.folder.start_ranker`) and masked language models, which
take heads from the files too, begin with `read_checkpoint`. What differs between architectures is an `EncoderFamily`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from paddle_ranker.encoding.columns import Array
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.folder import TokenizerFiles
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.config import EncoderConfig, config_by_name, read_config, require_tokenizer_fits
from paddle_ranker.model.encoder import Encoder
from paddle_ranker.model.hugging_face.read import HuggingFaceModel, find_encoder, read_configuration, read_model
from paddle_ranker.model.hugging_face.tokenizer import bring_tokenizer
from paddle_ranker.model.network import ENCODER, name_parameters, parts_of
from paddle_ranker.model.parameters import PARAMETERS_FILE, count, load_arrays, set_parameters
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.model.recognised import require_parameters
from paddle_ranker.registry import Registry

Named = dict[str, Array]  # arrays by parameter name
TO_TRAIN = "a ranker or an encoder to train"
_POOLER = "pooler."


@dataclass(frozen=True)
class EncoderFamily:
    """Encoders of one architecture.

    network: makes one of a configuration, with random parameters; it returns states and a pooled state as `Encoder`
    name_parameters: names a checkpoint's arrays as the network does, after `encoder.`, and the heads beside it
    read_hugging_face: reads a transformers folder: the configuration, and arrays as `name_parameters` takes them
    bring_tokenizer: writes the tokenizer of a transformers folder into a folder, as `TokenizerFiles` reads it
    pair_encoder: makes of a tokenizer, a length and a backend what encodes pairs and texts by the family's template
    """

    network: Callable[[EncoderConfig], Encoder]
    name_parameters: Callable[[Named], Named]
    read_hugging_face: Callable[[Path], HuggingFaceModel]
    bring_tokenizer: Callable[[Path, Path], object]
    pair_encoder: Callable[[TokenizerFiles, int, str], PairEncoder]


FAMILIES: Registry[EncoderFamily] = Registry("family of encoders")
BERT = EncoderFamily(Encoder, name_parameters, read_model, bring_tokenizer, PairEncoder)
for _type in ("ernie", "ernie_gram", "bert", "roberta"):
    FAMILIES.add(_type, BERT)


def family_of(model_type: object) -> EncoderFamily:
    """Return the family of a `model_type` in a configuration; what none claims is tried as BERT's."""
    return FAMILIES[model_type] if isinstance(model_type, str) and model_type in FAMILIES else BERT


@dataclass(frozen=True)
class Checkpoint:
    """What lies in a model's files.

    file: the parameters are from it, for messages
    arrays: named as by `EncoderFamily.name_parameters`: the encoder's after `encoder.`, and heads
    unnamed: the arrays that are in the file, under the names they have there
    tokenizer: makes the tokenizer's files; raises `CheckpointError` where they are missing or unusable
    """

    file: Path
    config: EncoderConfig
    arrays: Named
    unnamed: Named
    tokenizer: Callable[[], TokenizerFiles]

    @property
    def family(self) -> EncoderFamily:
        """The family of the encoder."""
        return family_of(self.config.model_type)

    def pair_encoder(self, max_seq_length: int, backend: str = "auto") -> PairEncoder:
        """Return what encodes pairs and texts; raises `CheckpointError` where the tokenizer is another model's."""
        if max_seq_length > self.config.longest_pair:
            raise CheckpointError(
                f"max_seq_length {max_seq_length} is above the {self.config.longest_pair} positions of this model"
            )
        encoder = self.family.pair_encoder(self.tokenizer(), max_seq_length, backend)
        require_tokenizer_fits(encoder.vocab_size, encoder.pad_id, self.config)
        return encoder


def read_checkpoint(source: Union[str, Path], model_name: Optional[str] = None, wanted: str = TO_TRAIN) -> Checkpoint:
    """Read the files of a folder of ours, PaddleNLP's or Hugging Face's, or of a parameter file.

    Args:
        model_name: the model whose configuration a bare parameter file takes; a folder's own comes first.
        wanted: what the folder should hold, for messages.

    Raises `CheckpointError` for what is not there, is damaged, or does not fit its configuration.
    """
    source = Path(source)
    inner = None if source.is_file() or (source / PARAMETERS_FILE).is_file() else find_encoder(source)
    return _of_folder(source, model_name, wanted) if inner is None else _of_hugging_face(inner)


def _of_folder(source: Path, model_name: Optional[str], wanted: str) -> Checkpoint:
    folder, file = _locate(source, wanted)
    config = read_config(folder)
    if config is None:
        if model_name is None:
            raise CheckpointError(f"{folder}: has no config.json; say which model it is with --model_name_or_path")
        config = (read_config(Path(model_name)) if Path(model_name).is_dir() else None) or config_by_name(model_name)
    arrays = load_arrays(file)
    try:
        config.require_fits(*count(arrays))
        named = family_of(config.model_type).name_parameters(arrays)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    return Checkpoint(file, config, named, arrays, lambda: TokenizerFiles.read(folder))


def _of_hugging_face(folder: Path) -> Checkpoint:
    family = family_of(read_configuration(folder / "config.json").get("model_type"))
    model = family.read_hugging_face(folder)
    file = folder / model.file
    try:
        named = family.name_parameters(model.arrays)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error

    def tokenizer() -> TokenizerFiles:
        with tempfile.TemporaryDirectory() as temporary:
            family.bring_tokenizer(folder, Path(temporary))
            return TokenizerFiles.read(Path(temporary))

    return Checkpoint(file, model.config, named, model.arrays, tokenizer)


@dataclass(frozen=True)
class LoadedEncoder:
    """A pretrained encoder.

    network: with its parameters
    tokenizer: its files, to encode with and to save
    new_parts: parts that were not in the checkpoint and are random: the pooler, or none
    checkpoint: what else was in the files: heads
    """

    network: Encoder
    tokenizer: TokenizerFiles
    config: EncoderConfig
    new_parts: list[str]
    checkpoint: Checkpoint

    def pair_encoder(self, max_seq_length: int, backend: str = "auto") -> PairEncoder:
        """Return what encodes pairs and texts of up to so many tokens."""
        return self.checkpoint.pair_encoder(max_seq_length, backend)


def load_encoder(source: Union[str, Path], *, config: Optional[EncoderConfig] = None) -> LoadedEncoder:
    """Load a pretrained encoder: its network, its tokenizer and its configuration.

    Args:
        source: a starter's folder, a PaddleNLP name (fetched once) or folder, a Hugging Face folder, or a model of
            ours, of any kind, whose text encoder it is.
        config: takes the place of the folder's: of the same shape, with another dropout.

    Raises `CheckpointError` for what is none of these, is damaged, or whose parameters and tokenizer do not belong to
    its configuration.
    """
    checkpoint = read_checkpoint(resolve_model(str(source)))
    tokenizer = checkpoint.tokenizer()
    network, new_parts = encoder_of(checkpoint, config)
    return LoadedEncoder(network, tokenizer, network.config, new_parts, checkpoint)


def encoder_of(
    checkpoint: Checkpoint, config: Optional[EncoderConfig] = None, *, need_pooler: bool = False
) -> tuple[Encoder, list[str]]:
    """Return a checkpoint's encoder, and those of its parts that are random because the checkpoint lacks them.

    Raises `CheckpointError` where a parameter is missing (without `need_pooler`, other than the pooler's) or does not
    fit the configuration.
    """
    network = checkpoint.family.network(config or checkpoint.config)
    own = {name[len(ENCODER) :]: array for name, array in checkpoint.arrays.items() if name.startswith(ENCODER)}
    try:
        missing = set_parameters(network, own, may_lack=() if need_pooler else (_POOLER,), prefix=ENCODER)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}") from error
    return network, parts_of(missing)


def _locate(source: Path, wanted: str) -> tuple[Path, Path]:
    """Return the folder and the parameter file of a folder or file that a user gave; `wanted` is for messages."""
    if source.is_file():
        if source.suffix != ".pdparams" and not _begins_as_parameters(source):
            raise CheckpointError(f"{source}: is not a parameter file; give a model folder, or its {PARAMETERS_FILE}")
        return source.parent, source
    if not source.is_dir():
        raise CheckpointError(f"{source}: there is no such model folder or parameter file")
    require_parameters(source, wanted)
    return source, source / PARAMETERS_FILE


def _begins_as_parameters(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(1) == b"\x80"  # of every pickle since protocol 2
