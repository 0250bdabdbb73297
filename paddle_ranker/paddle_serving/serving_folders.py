"""Write Paddle Serving's two folders: for servers, the model with only its first output; for clients, the names."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import paddle

from paddle_ranker.encoding.tokenizers.tokenizer_folder import TOKENIZER_FILES
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.export.parity import compare
from paddle_ranker.export.static_model import StaticModel, write_serving_model
from paddle_ranker.model.exported import ExportedFolder, descriptions_of, open_exported
from paddle_ranker.model.info import INFO_FILE, RankerInfo
from paddle_ranker.model.model_folder import MODEL, identify
from paddle_ranker.model.model_kind import EXPORTED, ExportFacts, ModelInfo, with_export
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.paddle_serving.serving_files import Variable, conf_names, variables_of, write_configs
from paddle_ranker.storage.atomic import UNFINISHED, make_folder, new_folder, remove_unfinished

_DESCRIPTIONS = ("config.json", *TOKENIZER_FILES)
_TOUCHED = "fluid_time_file"  # Paddle Serving's launcher makes it in the folder that it serves


def write_serving(
    exported: ExportedFolder, server: Path, client: Path, feeds: Sequence[str], fetches: Sequence[str]
) -> tuple[ExportedFolder, Path, float]:
    """Write the folders `server` and `client`, each atomically.

    Args:
        exported: the static model with all outputs.
        feeds, fetches: the aliases of `INPUTS` and of the first output, a ranker's probability.

    Returns:
        The server's folder, the client's folder, and the largest difference of an output from the exported model's.

    Raises `UsageError` if one folder is the other or inside it, `RankerError` if the outputs differ, or a folder holds
    anything that would be lost.
    """
    server, client = server.resolve(), client.resolve()
    if server == client or server in client.parents or client in server.parents:
        raise UsageError(f"--server_path {server} and --client_path {client}: give two folders, side by side")
    members = _members(exported.info)
    for folder, side in ((server, "server"), (client, "client")):
        _require_replaceable(folder, side, members)
        remove_unfinished(make_folder(folder.parent))
    variables = variables_of(exported.signature, feeds, fetches)
    with new_folder(server, replace=True) as for_server, new_folder(client, replace=True) as for_client:
        program = write_serving_model(exported, for_server / exported.prefix, variables[1][0].name)
        parameters = program.with_suffix(".pdiparams")
        reference = StaticModel(exported.program, exported.parameters, exported.signature)
        difference = _largest_difference(exported, reference, StaticModel(program, parameters, exported.signature))
        facts = _facts(exported, program.suffix[1:], variables, difference)
        sizes = {path.name: path.stat().st_size for path in (program, parameters)}
        for folder, side, files in ((for_server, "server", sizes), (for_client, "client", {})):
            _copy_descriptions(exported.folder, folder, members)
            described = facts.copy()
            described["files"] = files
            described["descriptions"] = descriptions_of(folder, exported.prefix, exported.kind.info_file)
            write_configs(folder, side, *variables)
            exported.kind.write_info(folder, with_export(_alone(exported.info), described))
    return open_exported(server, MODEL), client, difference


def _members(info: Optional[ModelInfo]) -> tuple[str, ...]:
    """Return the names of the folders of a blend's members; empty for other models."""
    return tuple(info.blend["members"]) if isinstance(info, RankerInfo) and info.blend else ()


def _alone(info: ModelInfo) -> ModelInfo:
    """Return the info for a served graph; it states no query tower, since that is served separately."""
    return dataclasses.replace(info, towers=1) if isinstance(info, TowerInfo) else info


def _largest_difference(exported: ExportedFolder, reference: StaticModel, alone: StaticModel) -> float:
    batches = list(exported.kind.sample_inputs(exported.row_encoder(), exported.info))
    name = exported.signature.output_names[0]
    expected = [{name: reference.run(batch)[name]} for batch in batches]
    parity = compare(expected, batches, alone.run, exported.signature, "the model for Paddle Serving")
    return parity.differences[name]


def _facts(
    exported: ExportedFolder, ending: str, variables: tuple[list[Variable], list[Variable]], difference: float
) -> ExportFacts:
    """Return the facts for the info file: a copy of the facts of `exported`, changed for the model that is served."""
    assert exported.info.export is not None
    name = exported.signature.output_names[0]
    facts = exported.info.export.copy()
    facts["prefix"], facts["format"], facts["paddle"] = exported.prefix, ending, paddle.__version__
    facts["outputs"] = [name]
    facts["aliases"] = {variable.name: variable.alias for part in variables for variable in part}
    facts["parity"] = {"exported": {name: difference}}
    return facts


def _copy_descriptions(source: Path, target: Path, members: Sequence[str]) -> None:
    """Copy the tokenizer's files and the encoder's configuration; for a blend, also its members' and their info."""
    for name in _DESCRIPTIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    for name in members:
        (target / name).mkdir()
        _copy_descriptions(source / name, target / name, ())
        shutil.copyfile(source / name / INFO_FILE, target / name / INFO_FILE)


def _require_replaceable(folder: Path, side: str, members: Sequence[str]) -> None:
    """Raise `RankerError` if `folder` holds an exported model, or files that this command does not write."""
    remedy = f"choose another --{side}_path, or move it away"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RankerError(f"{folder}: is a file; {remedy}")
    folder_type = identify(folder)
    info = folder_type.info
    export = info.export if info else None
    files = export["files"] if export else {}
    if folder_type.form == EXPORTED:
        raise RankerError(f"{folder}: holds an exported model, which would be lost; {remedy}")
    described = () if folder_type.kind is None else (folder_type.kind.info_file,)
    ours = {"README.md", *described, _TOUCHED, *_DESCRIPTIONS, *conf_names(side), *members, *files, *_members(info)}
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in ours and UNFINISHED not in path.name)
    if foreign:
        raise RankerError(f"{folder}: holds {foreign[0]}, which is not of this command and would be lost; {remedy}")
