"""Read the encoder and the heads, if there are any, of a transformers folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from paddle_ranker.encoding.columns import Array
from paddle_ranker.errors import CheckpointError, listed, quoted
from paddle_ranker.model.config import DebertaConfig, EncoderConfig
from paddle_ranker.model.hugging_face.architectures import ARCHITECTURES, INSTEAD, WITHOUT_EFFECT
from paddle_ranker.model.hugging_face.heads import CLASSIFIES, ClassifierHead
from paddle_ranker.model.hugging_face.library_tokenizer import gives_types, is_reranker, library_padding
from paddle_ranker.model.hugging_face.names import is_of_other_head, to_ours
from paddle_ranker.model.hugging_face.weights import WEIGHT_FILES, read_weights
from paddle_ranker.model.masked_lm import HEAD, is_whole_head
from paddle_ranker.options import note_once
from paddle_ranker.storage.stated import Stated
from paddle_ranker.storage.untrusted import UncheckedObject, read_json

ADAPTER_FILE = "adapter_config.json"  # of LoRA: transformers applies such a folder to the model that it names
_CLASSES = (1, 2)  # of a ranker's head
_TYPES = "embeddings.token_type_embeddings.weight"
_WORD_PIECES = ("bert", "ernie")  # whose own tokenizer is no library's


@dataclass(frozen=True)
class HuggingFaceModel:
    """The contents of a transformers folder.

    arrays: named as `network.name_parameters` takes them, in Paddle's layout
    left_over: the names of the parameters that were ignored
    file: the name of the file that was read
    head: what the configuration says of a classifier's head; None if it states none
    """

    config: EncoderConfig
    arrays: dict[str, Array]
    left_over: list[str]
    file: str
    head: Optional[ClassifierHead] = None

    @property
    def has_head(self) -> bool:
        return "classifier.weight" in self.arrays


def find_encoder(folder: Path) -> Optional[Path]:
    """Return the folder of a transformers model: `folder` or its sentence-transformers module; None if neither is."""
    if (folder / ADAPTER_FILE).is_file():
        return None
    candidates = [folder]
    if (folder / "modules.json").is_file():
        try:
            first = read_json(folder / "modules.json")[0]["path"]
        except (ValueError, LookupError, TypeError) as error:
            raise CheckpointError(f"{folder / 'modules.json'}: damaged ({type(error).__name__}: {error})") from error
        if isinstance(first, str) and Path(first).name == first:
            candidates.append(folder / first)
    return next((path for path in candidates if any((path / name).is_file() for name in WEIGHT_FILES)), None)


def stated_head(folder: Path) -> Optional[ClassifierHead]:
    """Return what the `config.json` of a transformers folder says of a classifier's head; None if it has none."""
    inner = find_encoder(folder)
    if inner is None or not (inner / "config.json").is_file():
        return None
    return ClassifierHead.of(read_stated(inner / "config.json"))


def states_head(folder: Path) -> bool:
    """Return whether the `config.json` of a transformers folder says that the model has a ranker's head."""
    head = stated_head(folder)
    return is_reranker(folder) or (head is not None and len(head.labels) in _CLASSES)


def why_no_ranker(folder: Path) -> str:
    """Return why the head of a transformers folder is no ranker's; "" if it has none, or there is no such folder."""
    head = stated_head(folder)
    if head is None or len(head.labels) in _CLASSES:
        return ""
    return f"its head tells {len(head.labels)} classes apart: {listed(head.labels)}"


def read_model(folder: Path) -> HuggingFaceModel:
    """Read `config.json` and the weights of a transformers folder; note what is unknown in them.

    Raises `CheckpointError` if the architecture is none of `ARCHITECTURES`, or the weights are damaged or hostile.
    """
    stated = read_stated(folder / "config.json")
    config, head = _encoder_config(stated), ClassifierHead.of(stated)
    file, theirs = read_weights(folder)
    _check_size(config, theirs, folder)
    own_code = "auto_map" in stated
    try:
        arrays, left_over = to_ours(theirs, ARCHITECTURES[config.model_type].names)
    except CheckpointError as error:
        if own_code:
            raise CheckpointError(
                f"{folder / file}: its parameters are not those of a {config.model_type}; its network is code that "
                "came with it (auto_map in config.json), which is not run here"
            ) from error
        raise CheckpointError(f"{folder / file}: {error}") from error
    unknown = [name for name in left_over if not is_of_other_head(name)]
    if config.type_vocab_size > 1 and not gives_types(folder):
        config = replace(config, type_vocab_size=1)
        arrays = {name: array[:1] if name.endswith(_TYPES) else array for name, array in arrays.items()}
    if isinstance(config, DebertaConfig):
        unused = [name for name in arrays if name.rpartition(".")[0].endswith(config.unused)]
        left_over += unused
        arrays = {name: array for name, array in arrays.items() if name not in unused}
    if not is_whole_head(arrays):  # the rest of one that was cut off is of no use
        left_over += [name for name in theirs if name.startswith(f"{HEAD}.")]
        arrays = {name: array for name, array in arrays.items() if not name.startswith(f"{HEAD}.")}
    architecture = str((stated.get("architectures") or [""])[0])
    if architecture and not architecture.endswith(CLASSIFIES):  # tagging has a `classifier` as well
        left_over += [name for name in arrays if name.startswith("classifier.")]
        arrays = {name: array for name, array in arrays.items() if not name.startswith("classifier.")}
    elif architecture and _is_of_other_classes(arrays):  # a training puts a head of its own in its place
        heads = ARCHITECTURES[config.model_type].names.head
        left_over += [name for name in theirs if heads.get(name.rpartition(".")[0]) == "classifier"]
        arrays = {name: array for name, array in arrays.items() if not name.startswith("classifier.")}
    elif architecture and "classifier.weight" not in arrays:
        raise CheckpointError(f"{folder / file}: has no classifier.weight, which {architecture} needs: copy it again")
    if own_code:
        note_once(f"note: {stated.path}: the code that came with the model (auto_map) is not run: it is plain here")
    if unknown:
        note_once(f"note: {folder / file}: parameters unknown here and not used: {listed(unknown)}")
    stated.say_unknown()
    return HuggingFaceModel(config, arrays, left_over, file, head)


def _is_of_other_classes(arrays: dict[str, Array]) -> bool:
    """Return whether there is a head of more classes than a ranker's."""
    shape = arrays["classifier.weight"].shape if "classifier.weight" in arrays else ()
    return len(shape) == 2 and shape[1] not in _CLASSES


def _check_size(config: EncoderConfig, arrays: dict[str, Array], folder: Path) -> None:
    """Raise `CheckpointError` if a configuration is far too large for the weights, before memory is taken for it.

    Smaller differences are found when the parameters are copied.
    """
    there = sum(array.size for array in arrays.values())
    asked = config.least_parameters
    if asked > 1000 * (there + 1000) or config.num_hidden_layers > 1000:
        raise CheckpointError(
            f"{folder / 'config.json'}: describes more than {asked:,} parameters, the weights are {there:,}: it is "
            "another model's"
        )


def read_encoder_config(path: Path) -> EncoderConfig:
    """Return the encoder's shape that a transformers `config.json` states; raises `CheckpointError` if none is read."""
    return _encoder_config(read_stated(path))


def read_stated(path: Path) -> Stated:
    """Return the settings of a `config.json`; raises as `read_configuration` does."""
    return Stated(path, read_configuration(path), WITHOUT_EFFECT)


def read_configuration(path: Path) -> UncheckedObject:
    """Return the contents of a `config.json`; raises `CheckpointError` if it is missing or not a JSON object."""
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; a transformers folder holds its shape in it")
    try:
        values = read_json(path)
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds a {type(values).__name__}, expected an object")
    return values


def _encoder_config(stated: Stated) -> EncoderConfig:
    model_type = stated.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        instead = next((text for types, text in INSTEAD.items() if model_type in types.split()), INSTEAD[""])
        raise stated.error(
            f"model_type is {quoted(model_type)}; {', '.join(ARCHITECTURES)} can be converted; {instead}"
        )
    found = ARCHITECTURES[model_type].read(stated)
    found["model_type"] = model_type
    path = stated.path
    padding = library_padding(path.parent) if model_type in _WORD_PIECES else None
    if padding is not None:  # config.json may state the padding of BERT's own vocabulary
        found["pad_token_id"] = padding
    try:
        return EncoderConfig.from_dict(found)
    except (TypeError, ValueError, ZeroDivisionError, CheckpointError) as error:
        raise CheckpointError(f"{path}: not a usable encoder configuration ({error})") from error
