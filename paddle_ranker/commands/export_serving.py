"""Write an exported ranker as the two folders of Paddle Serving: one for its servers, one for its clients."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from paddle_ranker import runtime
from paddle_ranker.errors import CheckpointError, RankerError, UsageError
from paddle_ranker.export.serving_files import FLOAT32, INT64, Variable, conf_names, write_configs
from paddle_ranker.model.exported import FORMATS, INPUTS, OUTPUTS, ExportedFolder, prefix_of
from paddle_ranker.model.info import INFO_FILE, RankerInfo, require_kind
from paddle_ranker.options import Options, option, run_command
from paddle_ranker.storage.atomic import UNFINISHED, make_folder, new_folder, remove_unfinished

_PARAMETERS = "pdiparams"
_DESCRIPTIONS = ("config.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
_TOUCHED = "fluid_time_file"  # Paddle Serving's launcher makes it in the folder that it serves


@dataclass(frozen=True)
class ExportServingOptions(Options):
    """What the commands that export for Paddle Serving accept."""

    dirname: str = option("output", help="the folder of an exported ranker")
    model_filename: Optional[str] = option(
        None,
        help="the static model's graph in that folder (default: inference.predict.pdmodel or .json of a pairwise "
        "ranker, inference.pdmodel or .json of a cross-encoder); where only the other format of it is there, that",
    )
    params_filename: Optional[str] = option(
        None, help="its parameters (default: inference.predict.pdiparams or inference.pdiparams)"
    )
    server_path: str = option("serving_server", help="folder to write for servers; an older one there is replaced")
    client_path: str = option("serving_client", help="folder to write for clients; an older one there is replaced")
    feed_alias_names: tuple[str, ...] = option(
        (),
        several=True,
        help=f"what clients call the inputs, separated by commas or spaces (without: {', '.join(INPUTS)})",
    )
    fetch_alias_names: tuple[str, ...] = option(
        (), several=True, help=f"what clients call the output (without: {OUTPUTS[0]})"
    )


def export_serving(options: ExportServingOptions, expected_kind: Optional[str] = None) -> None:
    """Write both folders, and print what was written and how exactly it scores."""
    feeds = aliases("--feed_alias_names", options.feed_alias_names, INPUTS)
    fetches = aliases("--fetch_alias_names", options.fetch_alias_names, OUTPUTS[:1])
    exported = find_exported(
        Path(options.dirname), options.model_filename, options.params_filename, expected_kind=expected_kind
    )
    runtime.prepare_command(1)
    server, client, difference = write_serving(
        exported, Path(options.server_path), Path(options.client_path), feeds, fetches
    )
    print(f"parity with {exported.folder}: largest difference {difference:.1e} of a probability")
    named = ", ".join(f"{variable.alias} ({variable.name})" for variable in _variables(feeds, fetches)[1])
    print(f"exported for servers: {server.folder}: takes {', '.join(feeds)}, returns {named}")
    print(f"exported for clients: {client}")


def aliases(name: str, given: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return one alias for each of `names`: those that are given, separated by commas or spaces, or the names.

    Raises `UsageError` for another number of them, one that is given twice, or one that is another variable's name.
    """
    words = tuple(word for text in given for word in re.split(r"[,\s]+", text) if word)
    if given and (len(words) != len(names) or len(set(words)) != len(words)):
        raise UsageError(
            f"{name} {' '.join(given)}: give {len(names)} different name{'s' * (len(names) > 1)}, for "
            f"{', '.join(names)}"
        )
    for word, own in zip(words, names):
        if word in (*INPUTS, *OUTPUTS) and word != own:
            raise UsageError(f"{name} {' '.join(given)}: {word} is the name of another variable than {own}")
    return words or tuple(names)


def find_exported(
    folder: Path, model: Optional[str], parameters: Optional[str], *, expected_kind: Optional[str] = None
) -> ExportedFolder:
    """Open the static model whose files are named so; a name that is None follows the ranker's kind.

    A `.pdmodel` that is not there, while its `.json` is, is taken as that (and the other way round), and said so.
    Raises `CheckpointError` for a file that is missing or another kind of ranker, `UsageError` for names that do not
    belong together.
    """
    info = RankerInfo.read(folder)
    if info and expected_kind:
        require_kind(folder, info.kind, expected_kind)
    kind = info.kind if info else expected_kind or "pairwise"
    prefix, _, ending = (model or f"{prefix_of(kind)}.{FORMATS[0]}").rpartition(".")
    if ending not in FORMATS:
        raise UsageError(f"--model_filename {model}: must end in .pdmodel or .json")
    if parameters is not None and parameters != f"{prefix}.{_PARAMETERS}":
        raise UsageError(f"--params_filename {parameters}: the parameters of {model} are in {prefix}.{_PARAMETERS}")
    exported = ExportedFolder.open(folder, prefix)
    if exported.outputs != OUTPUTS:
        raise CheckpointError(f"{folder}: is made for Paddle Serving already; give the folder that it was made from")
    if model is not None and exported.program.name != model:
        print(f"there is no {folder / model}; taking {exported.program.name}, the same in this Paddle's format")
    return exported


def write_serving(
    exported: ExportedFolder, server: Path, client: Path, feeds: Sequence[str], fetches: Sequence[str]
) -> tuple[ExportedFolder, Path, float]:
    """Write the folders `server` and `client`, each whole or not at all.

    Args:
        exported: the static model with both outputs.
        feeds, fetches: the aliases of `INPUTS` and of the probability.

    Returns:
        The folder for servers, the one for clients, and the largest difference of a probability from the exported
        model's.

    Raises `RankerError` where the probabilities differ, or a folder holds what would be lost.
    """
    server, client = server.resolve(), client.resolve()
    if server == client or server in client.parents or client in server.parents:
        raise UsageError(f"--server_path {server} and --client_path {client}: give two folders, side by side")
    members = tuple((exported.info.blend or {}).get("members", ()))
    for folder, side in ((server, "server"), (client, "client")):
        _require_replaceable(folder, side, members)
        remove_unfinished(make_folder(folder.parent))
    from paddle_ranker.export.static_model import StaticModel
    from paddle_ranker.export.static_outputs import write_probability_model

    variables = _variables(feeds, fetches)
    with new_folder(server, replace=True) as for_server, new_folder(client, replace=True) as for_client:
        program = write_probability_model(exported, for_server / exported.prefix, variables[1][0].name)
        parameters = program.with_suffix(f".{_PARAMETERS}")
        reference, alone = StaticModel(exported.program, exported.parameters), StaticModel(program, parameters)
        difference = _largest_difference(exported, reference, alone)
        facts = _facts(exported, program.suffix[1:], variables, difference)
        sizes = {path.name: path.stat().st_size for path in (program, parameters)}
        for folder, side, files in ((for_server, "server", sizes), (for_client, "client", {})):
            write_configs(folder, side, *variables)
            _copy_descriptions(exported.folder, folder, members)
            info = dataclasses.replace(exported.info, export={**facts, "files": files})
            info.write(folder, exported.config)
    return ExportedFolder.open(server), client, difference


def _variables(feeds: Sequence[str], fetches: Sequence[str]) -> tuple[list[Variable], list[Variable]]:
    from paddle_ranker.export.static_outputs import SERVING_VARIABLE

    inputs = [Variable(name, alias, INT64) for name, alias in zip(INPUTS, feeds)]
    return inputs, [Variable(SERVING_VARIABLE, fetches[0], FLOAT32, (1,))]


def _largest_difference(exported: ExportedFolder, reference: Any, alone: Any) -> float:
    from paddle_ranker.encoding.samples import sample_batches
    from paddle_ranker.export.parity import compare

    batches = list(sample_batches(exported.pair_encoder()))
    expected = [{OUTPUTS[0]: reference.run(batch)[OUTPUTS[0]]} for batch in batches]
    parity = compare(expected, batches, alone.run, exported.signature, "the model for Paddle Serving")
    return parity.differences[OUTPUTS[0]]


def _facts(
    exported: ExportedFolder, ending: str, variables: tuple[list[Variable], list[Variable]], difference: float
) -> dict[str, Any]:
    """Return what `ranker.json` says of the export: as of the one that it was made from, but for the outputs."""
    import paddle

    assert exported.info.export is not None
    return {
        **exported.info.export,
        "prefix": exported.prefix,
        "format": ending,
        "paddle": paddle.__version__,
        "outputs": list(OUTPUTS[:1]),
        "aliases": {variable.name: variable.alias for part in variables for variable in part},
        "parity": {"exported": {"predict": difference}},
    }


def _copy_descriptions(source: Path, target: Path, members: Sequence[str]) -> None:
    """Copy the tokenizer's files and the encoder's shape; of a blend, the members' folders of them."""
    for name in _DESCRIPTIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    for name in members:
        (target / name).mkdir()
        _copy_descriptions(source / name, target / name, ())
        shutil.copyfile(source / name / INFO_FILE, target / name / INFO_FILE)


def _require_replaceable(folder: Path, side: str, members: Sequence[str]) -> None:
    """Raise `RankerError` where `folder` holds anything but what this command writes."""
    remedy = f"choose another --{side}_path, or move it away"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RankerError(f"{folder}: is a file; {remedy}")
    info = RankerInfo.read(folder)
    export = (info.export if info else None) or {}
    if export.get("files") and tuple(export.get("outputs", ())) != OUTPUTS[:1]:
        raise RankerError(f"{folder}: holds an exported ranker, which would be lost; {remedy}")
    own = {"README.md", INFO_FILE, _TOUCHED, *_DESCRIPTIONS, *conf_names(side), *members, *export.get("files", {})}
    own |= set(((info.blend if info else None) or {}).get("members", ()))
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in own and UNFINISHED not in path.name)
    if foreign:
        raise RankerError(f"{folder}: holds {foreign[0]}, which is not of this command and would be lost; {remedy}")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command for a ranker of any kind; return its exit status."""
    return run_command(export_serving, ExportServingOptions, argv, description=__doc__ or "")
