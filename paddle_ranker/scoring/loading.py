"""Load a ranker for scoring, trained or exported, with the engine that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError, UsageError, did_you_mean
from paddle_ranker.model.exported import ExportedFolder, is_exported
from paddle_ranker.model.info import RankerInfo, require_kind
from paddle_ranker.model.parameters import PARAMETERS_FILE
from paddle_ranker.scoring.engines import ENGINES, EXPORTED, Engine, open_engine


@dataclass(frozen=True)
class LoadedRanker:
    """What scores with a ranker needs: the engine, the pair encoder, and what the ranker is."""

    engine: Engine
    pair_encoder: PairEncoder
    info: RankerInfo


def load_for_engine(
    source: Union[str, Path],
    *,
    engine: Optional[str] = None,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int = 0,
    model_name: Optional[str] = None,
    max_seq_length: Optional[int] = None,
    tokenizer: str = "auto",
    expected_kind: Optional[str] = None,
    tensorrt: bool = False,
) -> LoadedRanker:
    """Load a ranker: a trained one runs as it is, an exported one in one of the engines for it.

    Args:
        source: a model folder, its `model_state.pdparams`, or the folder of an exported ranker.
        engine: default: dygraph for a trained ranker, inference for an exported one; see `engines.open_engine`.
        model_name: the model whose configuration a bare parameter file takes; an exported folder has its own.
        threads: of an exported ranker's engine; those of dygraph are set by `runtime.prepare`.

    Neither Paddle nor PaddleNLP is imported where the engine does without. Raises what `load_ranker` and `open_engine`
    do, and `UsageError` where engine and folder do not fit.
    """
    if engine is not None and engine not in ENGINES:
        raise UsageError(f"--engine {engine}: choose from {', '.join(ENGINES)}{did_you_mean(engine, ENGINES)}")
    folder = Path(source)
    if folder.suffix in (".pdmodel", ".pdiparams", ".json", ".onnx") and folder.is_file():
        folder = folder.parent  # a file of an exported folder stands for it
    exported = is_exported(folder)
    if not exported and engine in (*EXPORTED, "auto"):
        raise CheckpointError(
            f"{source}: has not been exported, which --engine {engine} needs; export it first: python -m "
            f"paddle_ranker export --params_path {source} --output_path OUTPUT, and give that folder"
        )
    if not exported or (engine in (None, "dygraph") and (folder / PARAMETERS_FILE).is_file()):
        return _load_dygraph(source, device, precision, model_name, max_seq_length, tokenizer, expected_kind, tensorrt)
    opened = ExportedFolder.open(folder)
    if expected_kind:
        require_kind(folder, opened.info.kind, expected_kind)
    pair_encoder = opened.pair_encoder(max_seq_length, tokenizer)
    chosen = open_engine(
        opened,
        engine=engine or EXPORTED[0],
        device=device,
        precision=precision,
        threads=threads,
        tensorrt=tensorrt,
    )
    return LoadedRanker(chosen, pair_encoder, opened.info)


def _load_dygraph(
    source: Union[str, Path],
    device: str,
    precision: str,
    model_name: Optional[str],
    max_seq_length: Optional[int],
    tokenizer: str,
    expected_kind: Optional[str],
    tensorrt: bool,
) -> LoadedRanker:
    if precision != "fp32" or tensorrt:
        asked = "--tensorrt" if tensorrt else f"--precision {precision}"
        raise UsageError(
            f"{asked} needs an exported ranker (python -m paddle_ranker export); a trained one runs in fp32"
        )
    from paddle_ranker.model.folder import load_ranker
    from paddle_ranker.runtime import select_device
    from paddle_ranker.scoring.engines.dygraph import DygraphEngine

    select_device(device)
    parts = load_ranker(
        source,
        model_name=model_name,
        max_seq_length=max_seq_length,
        tokenizer=tokenizer,
        expected_kind=expected_kind,
    )
    return LoadedRanker(DygraphEngine(parts.network), parts.pair_encoder, parts.info)
