"""Write a model as a static model, and check that both compute equal results: `paddle-ranker export`.

A ranker's graph takes `input_ids` and `token_type_ids`, int64 `[batch, length]`, both dimensions variable, and computes
the mask, the match levels and the lexical features itself. It returns `predict`, the probability `[batch, 1]`,
calibrated if the ranker is, and `logit` `[batch, 1]`, not calibrated. An export ends by scoring pairs with the network
and with Paddle Inference from the written files; if the scores differ, it leaves nothing behind.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import paddle
from paddle import nn
from paddle.static import InputSpec

from paddle_ranker.array_types import Arrays
from paddle_ranker.encoding.tokenizers.tokenizer_folder import TOKENIZER_FILES
from paddle_ranker.errors import RankerError
from paddle_ranker.export.parity import Parity, checks_of, compare, network_outputs, rounding_of
from paddle_ranker.export.static_model import StaticModel
from paddle_ranker.model.builtin_kinds import KINDS
from paddle_ranker.model.exported import GRAPH_FORMATS, ExportedFolder, descriptions_of, open_exported, program_file
from paddle_ranker.model.foreign.static_program import name_outputs
from paddle_ranker.model.model_folder import MODEL, identify
from paddle_ranker.model.model_kind import (
    ExportFacts,
    KindEncoder,
    KindInfo,
    ModelKind,
    ModelPart,
    Signature,
    TrainedModel,
    with_export,
)
from paddle_ranker.model.networks.bert import Encoder
from paddle_ranker.model.tower import QUERY_FOLDER
from paddle_ranker.storage.atomic import UNFINISHED, make_folder, new_folder, remove_unfinished


def export_model(
    model: TrainedModel[KindInfo, KindEncoder],
    output: Path,
    *,
    onnx: bool = False,
) -> tuple[ExportedFolder, dict[str, Parity]]:
    """Export a model as a static graph into the folder `output`, atomically.

    Args:
        model: a model of any kind.
        output: the folder; an older export there is replaced once the new one is complete.
        onnx: write an ONNX file as well.

    Returns:
        The folder, and a dict from engine to the difference between the exported model's outputs and the network's.

    Raises `RankerError` if a difference is too large, or `output` holds files that are not an earlier export,
    `DependencyError` if an ONNX file is wanted and cannot be written here.
    """
    if onnx:
        from paddle_ranker.export.onnx import require_onnx

        require_onnx()
    kind = cast(ModelKind[KindInfo, KindEncoder], KINDS[model.info.kind])
    signature, prefix = model.signature, kind.prefix
    output = output.resolve()
    _require_replaceable(output, kind.name, kind.info_file)
    remove_unfinished(make_folder(output.parent))
    was_training = model.network.training
    model.network.eval()
    for layer in model.network.sublayers(include_self=True):
        if isinstance(layer, Encoder) and model.info.max_seq_length:
            layer.longest = model.info.max_seq_length
    try:
        with new_folder(output, replace=True) as temporary:
            names = signature.input_names
            samples = kind.sample_inputs(model.row_encoder, model.info)
            batches = [{name: batch[name] for name in names} for batch in samples]
            whole = ModelPart("", signature, lambda: kind.static_network(model))
            expected, parities = _write_graph(whole, temporary / prefix, batches, onnx)
            inputs, parts = batches, kind.parts(model)
            for part in parts:
                outputs, _ = _write_graph(part, temporary / f"{prefix}.{part.name}", inputs, onnx)
                inputs = [{**batch, **arrays} for batch, arrays in zip(inputs, outputs)]
            kind.write_descriptions(temporary, model)
            facts = _facts(temporary, prefix, signature, parities)
            facts["descriptions"] = descriptions_of(temporary, prefix, kind.info_file)
            for part in parts:
                facts.update(part.facts or {})
            if signature.is_rankers:
                facts["checks"] = checks_of(batches, expected, model.network.configs[0].pad_token_id)
            kind.write_info(temporary, with_export(model.info, facts))
    finally:
        if was_training:
            model.network.train()
    return open_exported(output, MODEL), parities


def _write_graph(
    part: ModelPart, target: Path, batches: Sequence[Arrays], onnx: bool
) -> tuple[list[Arrays], dict[str, Parity]]:
    """Write a model or a part as `<target>.*`.

    Returns the network's outputs for each batch, and how far each engine's outputs are from the network's, by engine.
    """
    signature = part.signature
    inputs = [{name: batch[name] for name in signature.input_names} for batch in batches]
    expected = network_outputs(part.make(), inputs, signature)
    # A second network is needed: once Paddle has made a network static, it computes with its graph.
    write_static_model(part.make(), target, signature)
    program = program_file(target.parent, target.name)
    static = StaticModel(program, target.with_name(f"{target.name}.pdiparams"), signature)
    rounding = cache(lambda: rounding_of(part.make(), inputs, expected, signature))
    parities = {"paddle_inference": compare(expected, inputs, static.run, signature, "the static model", rounding)}
    if onnx:
        from paddle_ranker.export.onnx import write_onnx

        written = write_onnx(program, target.with_name(f"{target.name}.onnx"), signature, inputs, expected, rounding)
        parities["onnxruntime"] = written
    return expected, parities


def write_static_model(network: nn.Layer, target: Path, signature: Signature) -> None:
    """Write `network` as `<target>.json` or `<target>.pdmodel`, and `<target>.pdiparams`."""
    network.eval()
    spec = [InputSpec(list(array.shape), array.dtype, array.name) for array in signature.inputs]
    _let_conversions_nest()
    static = paddle.jit.to_static(network, input_spec=spec, full_graph=True)
    try:
        with warnings.catch_warnings():
            # Paddle warns about code of Paddle, as in "Tensor do not have 'place' interface".
            warnings.simplefilter("ignore")
            paddle.jit.save(static, str(target))
    except (OSError, RuntimeError) as error:
        raise RankerError(f"{target}: could not be written ({str(error).strip().splitlines()[-1][:200]})") from error
    finally:
        # Paddle 2 leaves its traces in the layers, and tracing again takes seconds per call.
        for layer in network.sublayers():
            vars(layer).pop("forward", None)
    target.with_name(f"{target.name}.pdiparams.info").unlink(missing_ok=True)  # needed only for further training
    name_outputs(program_file(target.parent, target.name), signature.output_names)


def _facts(folder: Path, prefix: str, signature: Signature, parities: dict[str, Parity]) -> ExportFacts:
    program = program_file(folder, prefix)
    names = [path.name for path in sorted(folder.glob(f"{prefix}.*")) if path.is_file()]
    return {
        "prefix": prefix,
        "format": program.suffix[1:],
        "paddle": paddle.__version__,
        "inputs": list(signature.input_names),
        "outputs": list(signature.output_names),
        "parity": {engine: parity.to_dict() for engine, parity in parities.items()},
        "files": {name: (folder / name).stat().st_size for name in names},
    }


_OWN_FILES = {"README.md", "config.json", *TOKENIZER_FILES}


def _require_replaceable(output: Path, kind: str, info_file: str) -> None:
    """Raise `RankerError` if `output` holds another kind of model, or a file that an export does not write."""
    if not output.exists():
        return
    if not output.is_dir():
        raise RankerError(f"{output}: is a file; choose another --output")
    info = identify(output).info
    owned = {*_OWN_FILES, info_file}
    if info and info.export:
        if info.kind != kind:
            raise RankerError(f"{output}: holds an exported {info.kind} ranker; choose another --output")
        prefix = info.export["prefix"]
        owned |= {*info.export["files"], *(f"{prefix}.{ending}" for ending in _ENDINGS)}
        owned |= set((getattr(info, "blend", None) or {}).get("members", ()))
        owned |= {QUERY_FOLDER} if getattr(info, "towers", 1) == 2 else set()
    foreign = sorted(path.name for path in output.iterdir() if path.name not in owned and UNFINISHED not in path.name)
    if foreign:
        raise RankerError(
            f"{output}: holds {foreign[0]}, which is not of an export and would be lost; choose another --output, or "
            "move it away"
        )


_ENDINGS = (*GRAPH_FORMATS, "pdiparams", "onnx", "onnx.data", "int8.onnx", "int8.onnx.data")


class _OwnState:
    """Transformer of functions' syntax trees with a separate state for each function."""

    def __init__(self, kind: type[Any]):
        self.kind = kind

    def get_static_ast(self, root: object) -> object:
        return self.kind().get_static_ast(root)


@cache
def _let_conversions_nest() -> None:
    """Let Paddle convert a function while it converts another one.

    Paddle evaluates the source of a call to see whether it calls Paddle, which may convert a function. Paddle 3's lock
    would then wait for its own thread forever. The outer function would also get the code of the inner function, since
    both are transformed in the attributes of the same object.
    """
    from paddle.jit.dy2static import program_translator

    functions = program_translator._FUNCTION_CACHE
    functions._dygraph_to_static = _OwnState(type(functions._dygraph_to_static))
    if hasattr(program_translator, "_CACHE_LOCK"):
        program_translator._CACHE_LOCK = threading.RLock()
