"""Open folders with a static model, for engines. Needs neither Paddle nor PaddleNLP.

| file | holds |
| --- | --- |
| `<prefix>.json` or `<prefix>.pdmodel` | the graph, from Paddle 3 or Paddle 2.6 |
| `<prefix>.pdiparams` | its parameters |
| `<prefix>.onnx`, `<prefix>.int8.onnx` | optional: the same model for other engines; alone if another program made it |
| `<prefix>.onnx.data`, `<prefix>.int8.onnx.data` | large parameters of the ONNX files |
| `config.json`, the tokenizer's files | as in a ranker's folder; for a blend, in the members' folders |
| `ranker.json` or `tower.json` | as in a model's folder; `export` holds the facts of the static model |

A folder for Paddle Serving (`export.serving_folders`) is such a folder too; its graph has only the first output.
The prefix is `inference.predict` for a pairwise ranker or a blend, `inference` for a cross-encoder, and
`inference.get_pooled_embedding` for a tower.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Optional, cast

from paddle_ranker.encoding.pair_encoder import PairRowEncoder
from paddle_ranker.errors import CheckpointError, brief
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.foreign.foreign_files import ONNX
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.load_options import DEFAULT_OPTIONS, LoadOptions
from paddle_ranker.model.model_folder import STATIC_PARAMETERS, FolderType, Role, identify
from paddle_ranker.model.model_kind import (
    RANKER_SIGNATURE,
    EncoderT,
    ExportFacts,
    InfoT,
    ModelInfo,
    ModelKind,
    RowEncoder,
    Signature,
    with_export,
)
from paddle_ranker.storage.digest import content_digest
from paddle_ranker.storage.untrusted import check_file, memory_bytes

INPUTS, OUTPUTS = RANKER_SIGNATURE.input_names, RANKER_SIGNATURE.output_names
GRAPH_FORMATS = ("json", "pdmodel")
EXPORT = "paddle-ranker export --model RANKER --output"
EXPORT_SERVING = "paddle-ranker export-serving --model"


@dataclass(frozen=True)
class Exported(Generic[InfoT, EncoderT]):
    """Static model on disk.

    prefix: prefix of the files' names
    info: contents of the info file; `export` lists the files and their agreement with the network
    configs: configuration of the encoder; for a blend, one for each member
    """

    folder: Path
    prefix: str
    kind: ModelKind[InfoT, EncoderT]
    info: InfoT
    signature: Signature
    configs: tuple[EncoderConfig, ...]

    def part(self, name: str, signature: Signature) -> Exported[InfoT, EncoderT]:
        """Return a part of the model, some of its layers, that was exported separately (`ModelKind.parts`).

        name: name of the part
        signature: inputs and outputs of the part

        Raises `CheckpointError` if the folder lacks the part.
        """
        prefix, export = f"{self.prefix}.{name}", self.info.export
        if export is None or f"{prefix}{STATIC_PARAMETERS}" not in export["files"]:
            raise CheckpointError(
                f"{self.folder}: there is no {prefix} in it; export the ranker again: {EXPORT} FOLDER"
            )
        facts = export.copy()
        facts["outputs"] = list(signature.output_names)
        return replace(self, prefix=prefix, signature=signature, info=with_export(self.info, facts))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the static model's outputs; a Paddle Serving folder has only the first."""
        export = self.info.export
        return tuple(export["outputs"]) if export else self.signature.output_names

    @property
    def is_for_serving(self) -> bool:
        """Whether the folder was made for Paddle Serving."""
        return is_for_serving(self.info.export, self.signature)

    @property
    def read(self) -> dict[str, int]:
        """Outputs that engines return: the index among the graph's outputs, by the output's name.

        If the graph has none of the outputs in `Signature.read`, engines return its first output.
        """
        indices = {name: self.outputs.index(name) for name in self.signature.read if name in self.outputs}
        return indices or {self.outputs[0]: 0}

    @property
    def config(self) -> EncoderConfig:
        """Configuration of the text encoder; for a blend, of the first member's."""
        return self.configs[0]

    @property
    def program(self) -> Path:
        """File of the graph; the ONNX file if another program made it, and there is no other graph."""
        return program_file(self.folder, self.prefix)

    @property
    def parameters(self) -> Path:
        """File of the parameters; an ONNX file holds its own."""
        return self.program if self.program.suffix == ONNX else self.folder / f"{self.prefix}{STATIC_PARAMETERS}"

    @property
    def onnx(self) -> Optional[Path]:
        """ONNX file, or None."""
        return self._optional("onnx")

    @property
    def int8(self) -> Optional[Path]:
        """Quantized ONNX file, or None."""
        return self._optional("int8.onnx")

    def _optional(self, ending: str) -> Optional[Path]:
        path = self.folder / f"{self.prefix}.{ending}"
        return path if path.is_file() else None

    def row_encoder(self, options: LoadOptions = DEFAULT_OPTIONS) -> EncoderT:
        """Create the row encoder; raises `CheckpointError` if its files are missing or do not fit the model."""
        return self.kind.row_encoder(self.folder, self.info, options)


ExportedFolder = Exported[ModelInfo, RowEncoder]
ExportedRanker = Exported[RankerInfo, PairRowEncoder]


def open_exported(source: Path, role: Role[InfoT, EncoderT], prefix: Optional[str] = None) -> Exported[InfoT, EncoderT]:
    """Open the static model in a folder, and check its files.

    role: the role that the model must be able to take, such as `RANKER`
    prefix: prefix of the files' names; None: the one in the info file

    Raises `CheckpointError` if there is no static model, if it cannot take the role, or if a file is missing or does
    not have the size, or a file of the tokenizer not the content, that the export recorded.
    """
    folder_type = identify(Path(source))
    folder = folder_type.folder
    if folder_type.name == "absent":
        raise CheckpointError(f"{folder}: there is no such folder; make it with: {EXPORT} {folder}")
    if not folder_type.is_exported:
        raise CheckpointError(f"{folder}: there is no static model in it{_remedy(folder_type)}")
    kind, info = folder_type.kind_for(role), folder_type.info
    export = _checked_export(folder_type)
    prefix = prefix or export["prefix"]
    is_onnx = export.get("format") == ONNX[1:]  # of another program
    ending = ONNX if is_onnx else STATIC_PARAMETERS
    if not (folder / f"{prefix}{ending}").is_file():
        raise CheckpointError(f"{folder}: there is no {prefix}{ending} in it{_remedy(folder_type)}")
    typed = cast(InfoT, info)
    configs = kind.configs(folder, typed)
    signature = kind.signature(typed).with_places(len(configs[0].place_limits) if configs else 0)
    exported = Exported(folder, prefix, kind, typed, signature, configs)
    if not is_onnx and not any((folder / f"{prefix}.{format}").is_file() for format in GRAPH_FORMATS):
        raise CheckpointError(f"{folder}: there is no {prefix}.json and no {prefix}.pdmodel in it; copy it again")
    for name, size in export["files"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing; copy the folder again, or export it again")
        if check_file(path, memory_bytes()) != size:
            raise CheckpointError(
                f"{path}: has {path.stat().st_size:,} bytes, {size:,} were written; copy the folder again, or "
                "export it again"
            )
    # A parameter has at least one byte.
    numbers = sum(export["files"].values()) if is_onnx else check_file(exported.parameters, memory_bytes())
    try:
        for config in exported.configs:
            config.require_fits(numbers)
    except CheckpointError as error:
        raise CheckpointError(f"{exported.parameters}: {error}") from error
    for name, digest in export.get("descriptions", {}).items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing; copy the folder again, or export it again")
        if content_digest(path) != digest:
            raise CheckpointError(
                f"{path}: is not the file that was exported with the model; copy the folder again, or export it again"
            )
    return exported


def descriptions_of(folder: Path, prefix: str, info_file: str) -> dict[str, str]:
    """Return the digests of the tokenizer's files in a folder, and of other settings of inputs, by their paths in it.

    The configurations of encoders and the info files are not among them: each of their values is checked when read.
    """
    others = ("config.json", info_file)
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in others]
    files = [path for path in found if not path.name.startswith(f"{prefix}.")]
    return {path.relative_to(folder).as_posix(): content_digest(path) for path in files}


def program_file(folder: Path, prefix: str) -> Path:
    """Return the file of a static model's graph: a `.json` of Paddle 3, a `.pdmodel` of Paddle 2.6, or ONNX alone."""
    formats = (*GRAPH_FORMATS, ONNX[1:])
    return next(path for path in (folder / f"{prefix}.{format}" for format in formats) if path.is_file())


def _remedy(folder_type: FolderType) -> str:
    """Return the end of an error about a folder without a static model: what the folder is, and what to do."""
    if folder_type.kind is None or not folder_type.kind.is_ranker:
        return f": it is {folder_type.what}; {folder_type.use}"
    return f"; make it with: {EXPORT.replace('RANKER', str(folder_type.folder))} FOLDER (it is {folder_type.what})"


def require_readable(program: Path, paddle_version: str) -> None:
    """Raise `CheckpointError` if this version of Paddle cannot read a graph's file.

    Paddle 2 crashes on files of Paddle 3; Paddle 3 reads both formats.
    """
    if program.suffix == ONNX:
        raise CheckpointError(
            f"{program}: is another program's ONNX file, which the engines onnx and openvino run (--engine), and "
            "Paddle does not"
        )
    if program.suffix == ".json" and paddle_version.startswith("2."):
        raise CheckpointError(
            f"{program}: was exported with Paddle 3, and Paddle {paddle_version} cannot read it; "
            f"{exporting_again(program.parent, paddle_version)}"
        )


def exporting_again(folder: Path, paddle_version: str) -> str:
    """Return advice to export a model again, into another folder, with the Paddle version that runs now.

    folder: the folder with the export, which is kept for the other version of Paddle
    """
    beside = f"output_paddle{paddle_version.partition('.')[0]}"
    folder_type = identify(folder)
    kind, info = folder_type.kind, folder_type.info
    serves = kind is not None and info is not None and is_for_serving(info.export, kind.signature(info))
    then = f" && {EXPORT_SERVING} {beside} --server_path {folder}" if serves else ""
    return f"export the ranker again with this Paddle, beside this one, and give that: {EXPORT} {beside}{then}"


def is_for_serving(export: Optional[ExportFacts], signature: Signature) -> bool:
    """Return whether a static model is for Paddle Serving, by the facts of its export."""
    return export is not None and ("aliases" in export or len(export["outputs"]) < len(signature.outputs))


def _checked_export(folder_type: FolderType) -> ExportFacts:
    """Return the facts of a folder's static model; raises `CheckpointError` if there are none, or they are damaged."""
    info = folder_type.info
    assert folder_type.kind is not None and info is not None
    export, path = info.export, folder_type.folder / folder_type.kind.info_file
    if export is None:
        raise CheckpointError(f"{path}: does not say what the static model is; export it again: {EXPORT} FOLDER")
    signature = folder_type.kind.signature(info)
    # Names, not paths: a foreign folder must not reach outside itself.
    names = [export.get("prefix", "/"), *export.get("files", ["/"])]
    inside = all(
        not Path(name).is_absolute() and ".." not in Path(name).parts for name in export.get("descriptions", ())
    )
    sound = (
        inside
        and all(Path(name).name == name for name in names)
        and tuple(export.get("inputs", ())) == signature.input_names
    )
    if not sound or tuple(export.get("outputs", ())) not in (signature.output_names, signature.output_names[:1]):
        raise CheckpointError(f"{path}: damaged (export is {brief(str(export))}); export it again: {EXPORT} FOLDER")
    return export
