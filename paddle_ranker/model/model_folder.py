"""Identify the model in a folder, and load it for a role.

    folder_type = identify(folder)        # reads small files; needs no Paddle
    folder_type.what, folder_type.use      # "a trained ranker", and the commands that take it
    model = load_model(folder, RANKER)   # with its network; raises an error that says what the folder is instead

Commands, the server, `info`, `doctor` and the errors about folders of the wrong type all read `identify`'s answer. A
`Role` is the purpose for which a model is opened: as a ranker, as a tower, as an encoder to train.
`paddle_ranker.scoring.loading.open_model` opens a model with an engine. Recipes and plugins train encoders of
`load_encoder`:

    loaded = load_encoder("ernie-3.0-nano-zh")          # or a folder of this toolkit, PaddleNLP or Hugging Face
    network, tokenizer = loaded.network, loaded.tokenizer
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Optional, Union, cast

from paddle_ranker.encoding.columns import PICTURE, TEXT
from paddle_ranker.encoding.pair_encoder import PairRowEncoder
from paddle_ranker.errors import CheckpointError, listed
from paddle_ranker.model import role_names
from paddle_ranker.model.builtin_kinds import KINDS
from paddle_ranker.model.foreign.foreign_files import NAME_TOKENIZER, ONNX, find_graph, has_tokenizer, has_weights
from paddle_ranker.model.info import BLEND, PUBLISHED_HEADS, PUBLISHED_TOWER, RankerInfo, heads_of_many_classes
from paddle_ranker.model.load_options import DEFAULT_OPTIONS, LoadOptions
from paddle_ranker.model.model_kind import (
    CLIENT,
    EXPORTED,
    SERVER,
    TRAINED,
    TRANSFORMERS,
    AnyKind,
    EncoderT,
    InfoT,
    ModelInfo,
    ModelKind,
    RowEncoder,
    TrainedModel,
)
from paddle_ranker.model.paddlenlp_names import unknown_name
from paddle_ranker.model.parameters import PARAMETERS_FILE
from paddle_ranker.model.pretrained import find_model, resolve_model
from paddle_ranker.model.tower import KIND as TOWER_KIND
from paddle_ranker.model.tower import RowsOfTower, TextEncoder, TowerInfo

if TYPE_CHECKING:
    from paddle_ranker.model.encoder_loading import LoadedEncoder

STATIC_PARAMETERS = ".pdiparams"
MASKED_LM_FILE = "pretraining.json"
_OF_EXPORT = (".pdmodel", STATIC_PARAMETERS, ".json", ".onnx")  # endings of an export's files, which name its folder
_STARTS = (TRAINED, TRANSFORMERS)  # forms in which a training can start from a model
_BEST_FIRST = ("best", "last")
_TRAIN = "train a ranker from it: paddle-ranker train-pairwise or train-ce --model FOLDER"


@dataclass(frozen=True)
class FolderType:
    """Kind and form of the model at a path.

    path: the folder, or a parameter file
    name: name of the kind; if the files state no kind, a key in `_OTHERS`, or "several"
    form: how the model is stored (`TRAINED`, `TRANSFORMERS`, `EXPORTED`, `SERVER`, `CLIENT`); "" if there is no model
    stated_kind: the kind that the folder's files state; None if they state none, as in encoders and published rankers
    """

    path: Path
    name: str
    form: str = ""
    stated_kind: Optional[AnyKind] = None

    @property
    def folder(self) -> Path:
        """Folder of the model: `path`, or its parent if `path` is a file."""
        return self.path.parent if self.path.is_file() else self.path

    @cached_property
    def kind(self) -> Optional[AnyKind]:
        """Kind of the model; None for an encoder, and if there is no model.

        No file states the kind of a published ranker. Its head shows the kind, so its parameters are read; raises
        `CheckpointError` if the parameters are damaged.
        """
        if self.stated_kind is not None or self.name != "encoder":
            return self.stated_kind
        from paddle_ranker.model.hugging_face.weights import load_parameters, parameters_file

        file = self.path if self.path.is_file() else parameters_file(self.path)
        arrays = load_parameters(file or self.path / PARAMETERS_FILE)
        many = heads_of_many_classes(arrays)
        kinds = [kind for head, kind in PUBLISHED_HEADS.items() if head in arrays and head not in many]
        if not (kinds or many) and any(name.startswith(PUBLISHED_TOWER) for name in arrays):
            kinds = [TOWER_KIND]
        return KINDS[kinds[0]] if kinds else None

    @cached_property
    def info(self) -> Optional[ModelInfo]:
        """Contents of the info file, or of transformers' files in its place; None if the files state no kind."""
        return None if self.stated_kind is None else self.stated_kind.read_info(self.folder)

    @property
    def is_exported(self) -> bool:
        """Whether the folder has a static model, which engines run, and no network to train."""
        return self.form in (EXPORTED, SERVER)

    @property
    def is_encoder(self) -> bool:
        """Whether this is a trained encoder that belongs to no kind, such as a starter."""
        return self.form in _STARTS and self.kind is None

    @property
    def is_ranker(self) -> bool:
        """Whether the model scores pairs of texts, in any form."""
        return self.kind is not None and self.kind.is_ranker

    @property
    def is_tower(self) -> bool:
        """Whether the model is a tower, in any form; False for an encoder alone."""
        return self.kind is not None and self.kind.name == TOWER_KIND

    @property
    def reads(self) -> str:
        """Input of a tower in any form, such as "picture" (see `TowerInfo.reads`); "text" for all other models."""
        info = self.info
        return info.reads if isinstance(info, TowerInfo) else TEXT

    @property
    def what(self) -> str:
        """Noun for the type, which follows "is" in messages: "a trained ranker"."""
        return self._described[0]

    @property
    def use(self) -> str:
        """Advice about the folder: the commands that take it, or what to do next."""
        if self.form == TRANSFORMERS:
            problem = _unsupported(self.path)
            if problem:
                return f"which is not read here: {problem}"
        return self._described[1].replace("FOLDER", str(self.path))

    @property
    def _described(self) -> tuple[str, str]:
        if self.name == "several":
            return "a folder of several models", f"did you mean {_inner_model(self.path)}?"
        if self.name == "absent":
            return "not there", unknown_name(str(self.path))
        if self.name == "adapters":
            return "a folder of several adapters", f"give one as {self.path}:NAME, of {listed(_adapters(self.path))}"
        return _OTHERS[self.name] if self.kind is None else self.kind.describe(self.form)

    def refusal(self, wanted: str, why: str = "") -> CheckpointError:
        """Return an error that says what is at the path, and that this is not the wanted type.

        wanted: the type in words, such as "a ranker"
        why: the reason; "" if there is none to state
        """
        if self.name == "absent":
            return CheckpointError(f"{self.path}: is {self.what}; {self.use}")
        if (self.form == TRANSFORMERS or self.is_encoder) and not why:
            from paddle_ranker.model.hugging_face.folder import why_no_ranker

            why = why_no_ranker(self.folder)
        return CheckpointError(f"{self.path}: is {self.what}, not {wanted}{f' ({why})' if why else ''}; {self.use}")

    def require(self, role: Role[InfoT, EncoderT]) -> None:
        """Raise `CheckpointError` unless the model can take a role."""
        if not role.fits(self):
            raise self.refusal(role.wanted)

    def require_parameters(self, role: Role[InfoT, EncoderT]) -> None:
        """Raise `CheckpointError` unless the folder has the parameters of a single network.

        role: the wanted role, which the error names
        """
        has_parameters = self.path.is_file() or _has_parameters(self.path)
        if self.form not in _STARTS or (self.form == TRAINED and not has_parameters):
            raise self.refusal(role.wanted)

    def kind_for(self, role: Role[InfoT, EncoderT]) -> ModelKind[InfoT, EncoderT]:
        """Return the kind that opens the model for a role; raises `CheckpointError` as `require` does."""
        self.require(role)
        # A role fits kinds of its info and encoder alone.
        return cast("ModelKind[InfoT, EncoderT]", KINDS[role.opens_as] if role.opens_as else self.kind)

    def load(
        self, role: Role[InfoT, EncoderT], options: LoadOptions = DEFAULT_OPTIONS
    ) -> TrainedModel[InfoT, EncoderT]:
        """Load the model with its network.

        Raises `CheckpointError` if the model is exported or damaged, or does not fit the role.
        """
        kind = self.kind_for(role)
        if self.form not in _STARTS:
            raise self.refusal("a trained model")
        return kind.load(self.path, options)

    def row_encoder(self, role: Role[InfoT, EncoderT], options: LoadOptions = DEFAULT_OPTIONS) -> EncoderT:
        """Create the row encoder without reading parameters.

        Raises `CheckpointError` if the model cannot take the role, or its files do not state how rows are encoded.
        """
        kind, info = self.kind_for(role), self.info
        if info is None:
            raise CheckpointError(f"{self.path}: nothing in it says how its rows are encoded; {self.use}")
        return kind.row_encoder(self.folder, cast(InfoT, info), options)


@dataclass(frozen=True)
class Role(Generic[InfoT, EncoderT]):
    """Role in which commands, or slots of the server, open models; generic as `ModelKind` is.

    name: one of `role_names`, for the report of `doctor --model`: "ranker"
    wanted: name in errors, after "not": "a ranker"
    fits: called with a `FolderType`; returns whether the model can take the role
    opens_as: name of the kind that opens the model; "": the model's own kind
    """

    name: str
    wanted: str
    fits: Callable[[FolderType], bool]
    opens_as: str = ""


AnyRole = Role[ModelInfo, RowEncoder]
TrainedRanker = TrainedModel[RankerInfo, PairRowEncoder]


def _is_member(model: FolderType) -> bool:
    return model.is_ranker and _has_encoder(model)


def _has_encoder(model: FolderType) -> bool:
    """Return whether a training can start from the text encoder in a model."""
    return (
        model.form in _STARTS and (model.stated_kind is None or model.stated_kind.has_encoder) and model.reads == TEXT
    )


def _reads_texts(model: FolderType) -> bool:
    """Return whether the model is a tower of texts, or an encoder, which also makes vectors of texts."""
    return model.is_encoder or (model.is_tower and model.reads == TEXT)


def _reads_word_pieces(model: FolderType) -> bool:
    from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
    from paddle_ranker.model.hugging_face.folder import folder_tokenizer

    return model.is_encoder and isinstance(folder_tokenizer(model.folder), TokenizerFiles)


def _is_static(model: FolderType) -> bool:
    """Return whether the model is a ranker or tower with a graph of Paddle, not another program's ONNX file alone."""
    export = model.info.export if model.info is not None else None
    is_onnx = export is not None and export.get("format") == ONNX[1:]
    return model.is_exported and (model.is_ranker or model.is_tower) and not is_onnx


def _can_be_quantized(model: FolderType) -> bool:
    return model.is_exported and (model.is_ranker or model.is_tower or hasattr(model.kind, "gate"))


MODEL: Role[ModelInfo, RowEncoder] = Role(role_names.MODEL, "a model", lambda model: model.kind is not None)
TRAINED_MODEL: Role[ModelInfo, RowEncoder] = Role(
    role_names.TRAINED_MODEL, "a trained model", lambda model: model.form in _STARTS and model.kind is not None
)
RANKER: Role[RankerInfo, PairRowEncoder] = Role(role_names.RANKER, "a ranker", lambda model: model.is_ranker)
TRAINED_TOWER: Role[TowerInfo, RowsOfTower] = Role(
    role_names.TRAINED_TOWER, "a trained tower", lambda model: model.is_tower and model.form in _STARTS
)
TRAINED_RANKER: Role[RankerInfo, PairRowEncoder] = Role(
    role_names.TRAINED_RANKER, "a trained ranker", lambda model: model.is_ranker and model.form in _STARTS
)
MEMBER: Role[RankerInfo, PairRowEncoder] = Role(role_names.MEMBER, "a trained ranker of one network", _is_member)
TOWER: Role[TowerInfo, TextEncoder] = Role(role_names.TEXT_TOWER, "a tower of texts", _reads_texts, TOWER_KIND)
SERVED_TOWER: Role[TowerInfo, RowsOfTower] = Role(
    role_names.SERVED_TOWER,
    "a tower of texts or pictures, or an encoder alone",
    lambda model: model.is_encoder or (model.is_tower and model.reads in (TEXT, PICTURE)),
    TOWER_KIND,
)
# The encoder inside a ranker makes vectors, too; commands that look for any vectors take it.
ANY_TOWER: Role[TowerInfo, RowsOfTower] = Role(
    role_names.TOWER, "a tower or an encoder", lambda model: model.is_tower or _has_encoder(model), TOWER_KIND
)
ENCODER: Role[ModelInfo, RowEncoder] = Role(role_names.ENCODER, "a ranker or an encoder to train", _has_encoder)
MASKED_LM: Role[ModelInfo, RowEncoder] = Role(
    role_names.MASKED_LM, "a masked language model", lambda model: model.name == "masked_lm"
)
ROLES: tuple[AnyRole, ...] = (
    MODEL,
    TRAINED_MODEL,
    TRAINED_TOWER,
    RANKER,
    TRAINED_RANKER,
    MEMBER,
    TOWER,
    SERVED_TOWER,
    ANY_TOWER,
    ENCODER,
    MASKED_LM,
    Role(role_names.WORD_PIECE_ENCODER, "an encoder that reads word pieces", _reads_word_pieces),
    Role(
        role_names.EXPORTED,
        "an exported ranker or tower",
        _is_static,
    ),
    Role(role_names.QUANTIZABLE, "an exported model with a gate", _can_be_quantized),
    Role(
        role_names.CONVERTIBLE,
        "a ranker of one network, a tower or an encoder",
        lambda model: _is_member(model) or (model.form in _STARTS and (model.is_tower or model.is_encoder)),
    ),
)


def identify(path: Path) -> FolderType:
    """Identify the model at a path; also describe a path that is empty, holds no model or does not exist.

    For a published model of pictures or sounds, the result's path is the folder of its towers in the cache.

    Raises `CheckpointError` if a file that shows the type is damaged.
    """
    if path.is_dir() and not any((path / kind.info_file).is_file() for kind in KINDS.values()):
        from paddle_ranker.model.hugging_face.published_towers import as_towers

        path = as_towers(path)
    foreign = _foreign(path)
    if foreign is not None:
        return foreign
    if path.is_file():
        if path.suffix in _OF_EXPORT:
            inside = identify(path.parent)
            return inside if inside.is_exported else FolderType(path, "file")
        if _is_weights(path):
            inside = identify(path.parent)
            return inside if inside.form in _STARTS else FolderType(path, "file")
        if path.suffix != ".pdparams" and not _begins_as_parameters(path):
            return FolderType(path, "file")
        kind = _stated_kind(path.parent)
        return FolderType(path, "encoder" if kind is None else kind.name, TRAINED, kind)
    if not path.is_dir():
        return FolderType(path, "absent")
    kind = _stated_kind(path)
    form = _form_of(path, kind)
    if kind is not None and form:
        return FolderType(path, kind.name, form, kind)
    name = next((name for name, is_in in _FILES if is_in(path)), "")
    if name:
        return FolderType(path, name, form)
    if _inner_model(path) is not None:
        return FolderType(path, "several")
    return FolderType(path, "nothing" if any(path.iterdir()) else "empty")


def _foreign(path: Path) -> Optional[FolderType]:
    """Identify a static model of another program: its export, if a tokenizer is beside it; None for other paths."""
    folder = path.parent if path.is_file() else path
    if not folder.is_dir() or (path.suffix != ONNX and _has_parameters(folder)):
        return None
    graph = find_graph(path)
    if graph is None:
        return None
    if has_tokenizer(graph.home):
        from paddle_ranker.model.foreign.foreign_export import as_export

        return identify(as_export(path))
    return FolderType(path, "onnx" if graph.is_onnx else "static")


def find_with_tokenizer(source: Union[str, Path], tokenizer: Optional[str]) -> Path:
    """Return the path of a model, see `find_model`; of another program's static model, the folder of its export.

    tokenizer: the model that names the tokenizer, see `as_export`; None: static models are returned as they are
    """
    path = find_model(source)
    if tokenizer is None:
        return path
    from paddle_ranker.model.foreign.foreign_export import as_export

    return as_export(path, tokenizer)


def load_model(
    source: Union[str, Path], role: Role[InfoT, EncoderT], options: LoadOptions = DEFAULT_OPTIONS
) -> TrainedModel[InfoT, EncoderT]:
    """Load a trained model, with its network, from a folder, a parameter file, or by its name on the Hugging Face hub.

    Raises `CheckpointError` if the model is damaged or does not fit the role; the error then says what it is.
    """
    return identify(find_model(source)).load(role, options)


def load_encoder(source: Union[str, Path]) -> LoadedEncoder:
    """Load a pretrained encoder: its network, its tokenizer and its configuration.

    `source` is a folder of this toolkit with a text encoder (a starter or a model of any kind), or a folder or name of
    PaddleNLP or Hugging Face; a name is fetched once.

    Raises `CheckpointError` if `source` is unknown or damaged, or its parameters do not fit its configuration.
    `LoadedEncoder.pair_encoder` checks the tokenizer.
    """
    from paddle_ranker.model.encoder_loading import LoadedEncoder, read_checkpoint

    path = resolve_model(str(source))
    identify(path).require_parameters(ENCODER)
    return LoadedEncoder.of(read_checkpoint(path))


def is_exported(folder: Path) -> bool:
    """Return whether there is a static model in a folder, or the ONNX file that stands for one."""
    endings = (STATIC_PARAMETERS, *(() if has_weights(folder) else (ONNX,)))
    return folder.is_dir() and any(path.name.endswith(endings) for path in folder.iterdir())


def _stated_kind(folder: Path) -> Optional[AnyKind]:
    """Return the kind that a folder's files state, or None; load plugins and recipes if no known kind matches."""
    stated_kind = next((kind for kind in KINDS.values() if kind.is_in(folder)), None)
    if stated_kind is not None or not any(folder.glob("*.json")):
        return stated_kind
    KINDS.load_plugins()
    stated_kind = next((kind for kind in KINDS.values() if kind.is_in(folder)), None)
    if stated_kind is not None or _has_parameters(folder):
        return stated_kind
    return next((kind for kind in KINDS.values() if kind.is_in_transformers(folder)), None)


def _form_of(folder: Path, kind: Optional[AnyKind]) -> str:
    if _has_parameters(folder):
        return TRAINED
    if is_exported(folder):
        return SERVER if (folder / "serving_server_conf.prototxt").is_file() else EXPORTED
    if (folder / "serving_client_conf.prototxt").is_file():
        return CLIENT
    if kind is not None and kind.name == BLEND:
        return TRAINED  # the parameters are in the members' folders
    return TRANSFORMERS if _is_transformers(folder) else ""


def _has(name: str) -> Callable[[Path], bool]:
    return lambda folder: (folder / name).is_file()


def _has_parameters(folder: Path) -> bool:
    from paddle_ranker.model.hugging_face.weights import parameters_file

    return parameters_file(folder) is not None


def _is_transformers(folder: Path) -> bool:
    # Lazily, since every command imports this module.
    from paddle_ranker.model.hugging_face.adapter_folders import find_encoder

    return find_encoder(folder) is not None


def _unsupported(folder: Path) -> str:
    """Return why this toolkit cannot read a transformers model, for example quantised weights; "" if it can."""
    from paddle_ranker.model.hugging_face.folder import encoder_config

    try:
        encoder_config(folder)
    except CheckpointError as error:
        return str(error)
    return ""


def _is_weights(path: Path) -> bool:
    from paddle_ranker.model.hugging_face.weights import WEIGHT_FILES

    return path.name in WEIGHT_FILES


def _begins_as_parameters(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(1) == b"\x80"  # first byte of pickles since protocol 2


def _inner_model(folder: Path) -> Optional[Path]:
    """Return the subfolder with the best model of a training, or else the last model; None without models."""
    names = {PARAMETERS_FILE, *(kind.info_file for kind in KINDS.values())}
    inside = {path.parent.name for name in names for path in folder.glob(f"*/{name}")}
    if not inside:
        return None
    numbered = max(inside, key=lambda name: (len(name), name))  # model_10 comes after model_7
    return folder / next((name for name in _BEST_FIRST if name in inside), numbered)


def _adapters(folder: Path) -> list[str]:
    """Return the names of the adapters in a folder's subfolders."""
    from paddle_ranker.model.hugging_face.adapters import named_adapters

    return named_adapters(folder)


# Contents of folders whose files state no kind of model, from special to general: the first that fits counts.
_FILES: tuple[tuple[str, Callable[[Path], bool]], ...] = (
    ("index", lambda folder: _has("index.json")(folder) or _has("shards.json")(folder)),
    ("masked_lm", lambda folder: _has_parameters(folder) and _has(MASKED_LM_FILE)(folder)),
    ("encoder", _has_parameters),
    ("transformers", _is_transformers),
    ("adapters", lambda folder: bool(_adapters(folder))),
    ("info", lambda folder: any(_has(kind.info_file)(folder) for kind in KINDS.values())),
    ("tokenizer", _has("vocab.txt")),
)
# `what` and `use` of a `FolderType` without a kind, by its name
_OTHERS = {
    "file": ("a file, but not a parameter file", f"give the path of a folder, or of the {PARAMETERS_FILE} in it"),
    "empty": ("an empty folder", "check the path"),
    "nothing": ("a folder without a model", "check the path"),
    "info": ("a model's description without its parameters", f"copy the folder again: it has no {PARAMETERS_FILE}"),
    "tokenizer": ("a tokenizer without a model", "paddle-ranker pretrain --tokenizer FOLDER trains an encoder with it"),
    "transformers": (
        "a model folder of Hugging Face's transformers",
        "training takes it as --model FOLDER; for all else, convert it: paddle-ranker convert FOLDER TARGET",
    ),
    "encoder": ("an encoder without a ranking head (a starter, or a pretrained model)", _TRAIN),
    "masked_lm": (
        "a pretrained encoder with the head of a masked language model",
        f"fill-mask takes it; {_TRAIN}",
    ),
    "static": (
        "a static model of another program, without a tokenizer",
        f"{NAME_TOKENIZER}; predict, rank, serve, encode and index build then take it, and paddle-ranker convert makes "
        "a ranker of it that trains on",
    ),
    "onnx": (
        "an ONNX file of another program, without a tokenizer",
        f"{NAME_TOKENIZER}; predict, rank, serve, encode and index build then take it; a training takes the weights "
        "that it was made of (model.safetensors)",
    ),
    "index": (
        "a search index",
        "search, evaluate-recall, search-serve and mine take it as --index FOLDER; its tower is a folder in it",
    ),
}
