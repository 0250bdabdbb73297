"""Open a trained or exported model for scoring, with the requested engine."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Union, cast

from paddle_ranker.encoding.pair_encoder import PairRowEncoder
from paddle_ranker.errors import CheckpointError, UsageError, quoted
from paddle_ranker.model.exported import ExportedFolder, is_exported
from paddle_ranker.model.hugging_face.folder import states_head
from paddle_ranker.model.info import BLEND, RankerInfo, require_kind
from paddle_ranker.model.kinds import is_ranker, kind_of
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.opened import AnyKind, EncoderT, InfoT, Model, ModelInfo, RowEncoder
from paddle_ranker.model.parameters import PARAMETERS_FILE
from paddle_ranker.model.pretrained import find_model
from paddle_ranker.model.recognised import refusal, require_parameters
from paddle_ranker.scoring.engines.base import Engine
from paddle_ranker.scoring.engines.opening import open_engine
from paddle_ranker.scoring.engines.registry import DYGRAPH, ENGINES

_DEFAULTS = LoadOptions()


@dataclass(frozen=True)
class ScoringModel(Model[InfoT, EncoderT]):
    """A model with the engine that computes its outputs.

    exported: of an exported model, its folder, and options that open its parts in that engine; None: a trained model
    """

    engine: Engine
    exported: Optional[tuple[ExportedFolder, LoadOptions]] = None


ScoringRanker = ScoringModel[RankerInfo, PairRowEncoder]


def open_ranker(source: Union[str, Path], options: LoadOptions = _DEFAULTS) -> ScoringRanker:
    """Open a trained or exported ranker, as `open_model` does.

    Raises `CheckpointError` where `open_model` does, and for the folder of anything but a ranker; the message then says
    the folder's kind of model and its command.
    """
    require_ranker(model_path(source))
    # All kinds with a ranker's signature have its info, and encode pairs.
    return cast(ScoringRanker, open_model(source, options))


def model_path(source: object) -> Path:
    """Return the path of a model, found by `find_model`; raises `UsageError` if `source` is neither path nor name."""
    if not isinstance(source, (str, os.PathLike)):
        raise UsageError(f"the model is {quoted(source)}: expected the path of its folder")
    return find_model(Path(source))


def require_ranker(folder: Path) -> None:
    """Raise `CheckpointError` if a folder's files show that it holds no ranker; nothing is loaded."""
    if folder.is_dir():
        has_model = kind_of(folder).name == BLEND or is_exported(folder) or (folder / PARAMETERS_FILE).is_file()
        has_model = has_model or states_head(folder)
        if not has_model:
            require_parameters(folder, "a ranker")
        if not is_ranker(folder):
            raise refusal(folder, "a ranker")


def open_model(
    source: Union[str, Path], options: LoadOptions = _DEFAULTS, kind: Optional[AnyKind] = None
) -> ScoringModel[ModelInfo, RowEncoder]:
    """Open a model: a trained model runs in dygraph, an exported model in the engine that `options` name.

    Args:
        source: a model folder, its `model_state.pdparams`, the folder of an exported model, or a file in that folder;
            or the name of a model on the Hugging Face hub.
        kind: the kind of a model that is not exported; None: read it from the folder.

    Paddle and PaddleNLP are imported only if the engine needs them. Raises what `ModelKind.load` and `open_engine`
    raise, `CheckpointError` if the engine needs an exported model and `source` is a trained one, and `UsageError` for
    TensorRT or a precision other than fp32 with a trained model.
    """
    if options.engine is not None:
        ENGINES[options.engine]  # an unknown name raises its error here
    folder = path = model_path(source)
    if folder.suffix in (".pdmodel", ".pdiparams", ".json", ".onnx") and folder.is_file():
        folder = folder.parent  # a file of an exported folder also names the folder
    if not is_exported(folder) and options.engine not in (None, DYGRAPH):
        raise CheckpointError(
            f"{source}: has not been exported, which --engine {options.engine} needs; export it first: "
            f"paddle-ranker export --model {source} --output OUTPUT, and give that folder"
        )
    if runs_network(folder, options):
        return _load_trained(path, options, kind)
    if options.positive_label is not None:
        raise UsageError(
            f"positive_label (--positive_label): {folder} was exported with one logit: leave it out, or export it again"
        )
    opened = ExportedFolder.open(folder)
    require_kind(folder, opened.info.kind, options.expected_kind)
    encoder = opened.row_encoder(options)
    engine = open_engine(opened, options)
    exported = opened, replace(options, engine=engine.name)
    return ScoringModel(opened.info, encoder, opened.signature, engine, exported)


def runs_network(folder: Path, options: LoadOptions) -> bool:
    """Return whether a folder is opened as a trained model, in dygraph, and not as an exported one."""
    is_trained = options.engine in (None, DYGRAPH) and (folder / PARAMETERS_FILE).is_file()
    return is_trained or not is_exported(folder)


def _load_trained(source: Path, options: LoadOptions, kind: Optional[AnyKind]) -> ScoringModel[ModelInfo, RowEncoder]:
    from paddle_ranker.runtime import select_device
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine

    _require_of_network(options, select_device(options.device))
    kind = kind or kind_of(source.parent if source.is_file() else source)
    model = kind.load(source, options)
    network, outputs = kind.scoring_network(model)
    network.eval()  # the engine would otherwise switch it for each batch, and dropout on beside another thread's
    engine = DygraphEngine(network, model.signature, outputs, options.precision)
    return ScoringModel(model.info, model.row_encoder, model.signature, engine)


def _require_of_network(options: LoadOptions, device: str) -> None:
    """Raise `UsageError` for settings that a network on a device does not have."""
    option = "--tensorrt" if options.tensorrt else f"--precision {options.precision}"
    is_half, on_gpu = options.precision in ("bf16", "fp16"), device.startswith("gpu")
    if options.tensorrt or (options.precision != "fp32" and not (is_half and on_gpu)):
        raise UsageError(
            f"{option} needs an exported ranker (paddle-ranker export); a trained one runs in fp32, and on GPUs in "
            "bf16 and fp16"
        )
    import paddle

    if options.precision == "bf16" and not paddle.amp.is_bfloat16_supported():
        raise UsageError(f"--precision bf16: {device} does not multiply bfloat16; type --precision fp16")
