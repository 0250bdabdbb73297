"""Write an exported ranker or tower as the two folders of Paddle Serving: one for its servers, one for its clients.

paddle-ranker export-serving --model output --server_path serving_server --client_path serving_client
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model.exported import GRAPH_FORMATS, INPUTS, OUTPUTS, ExportedFolder, open_exported
from paddle_ranker.model.model_folder import MODEL, identify
from paddle_ranker.model.model_options import TokenizerOptions
from paddle_ranker.options import main_of, note_without_effect, option
from paddle_ranker.options.declare import FETCHED_FOLDER
from paddle_ranker.paddle_serving.serving_files import EMBEDDING, fetched_alias, variables_of


@dataclass(frozen=True)
class ExportServingOptions(TokenizerOptions):
    """Options of the commands that export for Paddle Serving."""

    dirname: str = option(
        "output", help="the folder of an exported ranker or tower", name="model", addresses=FETCHED_FOLDER
    )
    model_filename: Optional[str] = option(
        None,
        help="the static model's graph in that folder (default: inference.predict.pdmodel or .json of a pairwise "
        "ranker, inference.pdmodel or .json of a cross-encoder, inference.get_pooled_embedding.pdmodel or .json of a "
        "tower; if only the other format exists, that file)",
    )
    params_filename: Optional[str] = option(
        None, help="its parameters (default: inference.predict.pdiparams or inference.pdiparams)"
    )
    server_path: str = option("serving_server", help="folder to write for servers; an older folder is replaced")
    client_path: str = option("serving_client", help="folder to write for clients; an older folder is replaced")
    feed_alias_names: tuple[str, ...] = option(
        (),
        several=True,
        help=f"clients' names of the inputs, separated by commas or spaces (default: {', '.join(INPUTS)})",
    )
    fetch_alias_names: tuple[str, ...] = option(
        (), several=True, help=f"clients' name of the output (default: {OUTPUTS[0]}, or {EMBEDDING} of a tower)"
    )
    show_proto: Optional[bool] = option(None, help="accepted without effect: the names are always printed")


def export_serving(options: ExportServingOptions) -> None:
    """Write both folders; print them and the largest difference from the exported model's output."""
    note_without_effect(options, ["show_proto"], "the names of inputs and outputs are always printed")
    feeds = aliases("--feed_alias_names", options.feed_alias_names, INPUTS)
    exported = _foreign_export(options) or find_exported(
        Path(options.dirname), options.model_filename, options.params_filename
    )
    fetches = aliases("--fetch_alias_names", options.fetch_alias_names, (fetched_alias(exported.signature),))
    variables = variables_of(exported.signature, feeds, fetches)
    runtime.prepare_command(1)
    from paddle_ranker.paddle_serving.serving_folders import write_serving

    server, client, difference = write_serving(
        exported, Path(options.server_path), Path(options.client_path), feeds, fetches
    )
    value = "a probability" if exported.signature.is_rankers else "a number of a vector"
    print(f"parity with {exported.folder}: largest difference {difference:.1e} of {value}")
    named = ", ".join(f"{variable.alias} ({variable.name})" for variable in variables[1])
    print(f"exported for servers: {server.folder}: takes {', '.join(feeds)}, returns {named}")
    print(f"exported for clients: {client}")


def _foreign_export(options: ExportServingOptions) -> Optional[ExportedFolder]:
    """Open a static model of another program; None if the folder has none."""
    from paddle_ranker.model.foreign.foreign_export import as_export
    from paddle_ranker.model.foreign.foreign_files import find_graph, require_static

    path = Path(options.dirname)
    if options.model_filename is not None and (path / options.model_filename).is_file():
        path = path / options.model_filename
    require_static(options.model_name_or_path, path)
    graph = find_graph(path)
    if graph is None:
        return None
    parameters = graph.parameters and graph.parameters.name
    if options.params_filename not in (None, parameters):
        raise UsageError(
            f"--params_filename {options.params_filename}: the parameters of {graph.program.name} are in "
            f"{parameters or 'a file each'}"
        )
    return open_exported(as_export(path, options.model_name_or_path), MODEL)


def aliases(name: str, texts: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return an alias for each variable: the words in `texts`. If `texts` is empty, return `names`.

    name: the option's name, for messages
    texts: the option's values: aliases, separated by commas or spaces
    names: the names of the variables

    Raises `UsageError` if the number of aliases is not the number of variables, if two aliases are equal, or if an
    alias is the name of another variable.
    """
    words = tuple(word for text in texts for word in re.split(r"[,\s]+", text) if word)
    if texts and (len(words) != len(names) or len(set(words)) != len(words)):
        raise UsageError(
            f"{name} {' '.join(texts)}: give {len(names)} different name{'s' * (len(names) > 1)}, for "
            f"{', '.join(names)}"
        )
    for word, variable in zip(words, names):
        if word in (*INPUTS, *OUTPUTS) and word != variable:
            raise UsageError(f"{name} {' '.join(texts)}: {word} is the name of another variable than {variable}")
    return words or tuple(names)


def find_exported(folder: Path, model: Optional[str], parameters: Optional[str]) -> ExportedFolder:
    """Open the static model in a folder.

    model, parameters: file names of the graph and of the parameters; None: the names in the folder's info file

    A graph has the format `.pdmodel` or `.json`. If only the format that `model` does not name exists, open this one
    and print a line. Raises `CheckpointError` for a missing file, for a model whose inputs are not tokens, and for a
    folder made for Paddle Serving. Raises `UsageError` if `model` and `parameters` do not belong together.
    """
    prefix, _, ending = (model or f".{GRAPH_FORMATS[0]}").rpartition(".")
    if ending not in GRAPH_FORMATS:
        raise UsageError(f"--model_filename {model}: must end in .pdmodel or .json")
    exported = open_exported(folder, MODEL, prefix or None)
    if parameters not in (None, exported.parameters.name):
        file = exported.parameters.name
        raise UsageError(f"--params_filename {parameters}: the parameters of {exported.program.name} are in {file}")
    if exported.signature.input_names != INPUTS:
        raise identify(folder).refusal("an exported ranker or tower")
    if exported.is_for_serving:
        raise CheckpointError(f"{folder}: is made for Paddle Serving already; give the folder that it was made from")
    if model is not None and exported.program.name != model:
        print(f"{folder / model} does not exist; taking {exported.program.name}, this Paddle's format of it")
    return exported


main = main_of(export_serving, ExportServingOptions, __doc__)
