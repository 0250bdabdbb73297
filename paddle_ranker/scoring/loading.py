"""Open a trained or exported model for scoring, with the requested engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Union, cast

from paddle_ranker.encoding.pair_encoder import PairRowEncoder
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model.exported import ExportedFolder, open_exported
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.load_options import DEFAULT_OPTIONS, LoadOptions
from paddle_ranker.model.model_folder import FolderType, Role, find_with_tokenizer, identify
from paddle_ranker.model.model_kind import EncoderT, InfoT, Model
from paddle_ranker.scoring.engines.engine import Engine
from paddle_ranker.scoring.engines.engine_registry import DYGRAPH, ENGINES


@dataclass(frozen=True)
class ScoringModel(Model[InfoT, EncoderT]):
    """Model with the engine that computes its outputs.

    exported: folder of an exported model, and the options with which it was opened, for opening the parts of a split
        ranker; None for a trained model
    """

    engine: Engine
    exported: Optional[tuple[ExportedFolder, LoadOptions]] = None


ScoringRanker = ScoringModel[RankerInfo, PairRowEncoder]


def open_model(
    source: Union[str, Path], role: Role[InfoT, EncoderT], options: LoadOptions = DEFAULT_OPTIONS
) -> ScoringModel[InfoT, EncoderT]:
    """Open a model: a trained model runs in dygraph, an exported model in the engine that `options` name.

    source: a model folder, its `model_state.pdparams`, the folder of an exported model, or a file in that folder; or
        the name of a model on the Hugging Face hub
    role: the role that the model must take: `RANKER`, `TOWER`, or `MODEL` for any kind

    Paddle and PaddleNLP are imported only if the engine needs them. Raises `CheckpointError` for a model that cannot
    take the role (the message says what it is), that is damaged, or that is not exported, if the engine runs only
    exported models. Raises `UsageError` for a trained model with TensorRT, or with a precision that dygraph does not
    support on the device; and the errors of `open_engine`.
    """
    if options.engine is not None:
        ENGINES[options.engine]  # an unknown name raises its error here
    folder_type = identify(find_with_tokenizer(source, options.model_name))
    folder_type.require(role)
    if not folder_type.is_exported:
        return _open_trained(folder_type, role, options)
    if options.positive_label is not None:
        raise UsageError(
            f"positive_label (--positive_label): {folder_type.path} was exported with one logit: leave it out, or "
            "export it again"
        )
    from paddle_ranker.scoring.engines.opening import open_engine

    exported = open_exported(folder_type.path, role)
    encoder = exported.row_encoder(options)
    folder = cast(ExportedFolder, exported)
    engine = open_engine(folder, options)
    return ScoringModel(
        exported.info, encoder, exported.signature, engine, (folder, replace(options, engine=engine.name))
    )


def _open_trained(
    folder_type: FolderType, role: Role[InfoT, EncoderT], options: LoadOptions
) -> ScoringModel[InfoT, EncoderT]:
    if options.engine not in (None, DYGRAPH):
        raise CheckpointError(
            f"{folder_type.path}: has not been exported, which --engine {options.engine} needs; export it first: "
            f"paddle-ranker export --model {folder_type.path} --output OUTPUT, and give that folder"
        )
    from paddle_ranker.runtime import select_device
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine

    _require_of_network(options, select_device(options.device))
    model = folder_type.load(role, options)
    network, outputs = folder_type.kind_for(role).scoring_network(model)
    network.eval()  # the engine would otherwise switch it for each batch, and dropout on beside another thread's
    engine = DygraphEngine(network, model.signature, outputs, options.precision)
    return ScoringModel(model.info, model.row_encoder, model.signature, engine)


def _require_of_network(options: LoadOptions, device: str) -> None:
    """Raise `UsageError` for settings that the engine dygraph does not support on a device."""
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
