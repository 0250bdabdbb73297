"""How a model is opened: one object, made once from the command line and handed down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.options import AUTO_DEVICE


@dataclass(frozen=True)
class LoadOptions:
    """How a model is opened.

    engine: what computes, a name in `scoring.engines.ENGINES`; None: dygraph for a trained model, inference for an
        exported one
    device: auto, a GPU where the engine finds one, else the CPU; or cpu, gpu, xpu or npu, with or without a number
    precision: of the matrix products: fp32; of an exported model also bf16, int8 or fp16, where the engine and the
        device have it
    threads: of a matrix product on a CPU in an exported model's engine; 0: one a core. Those of dygraph are set by
        `runtime.prepare`
    tensorrt: let Paddle Inference compile the graph with TensorRT, on a GPU
    model_name: the model whose configuration a bare parameter file takes; a folder has its own
    max_seq_length: tokens; None: what the model was trained with
    tokenizer: a `PairEncoder` backend
    expected_kind: refuse a model that says it is of another kind; None: any will do
    """

    engine: Optional[str] = None
    device: str = AUTO_DEVICE
    precision: str = "fp32"
    threads: int = 0
    tensorrt: bool = False
    model_name: Optional[str] = None
    max_seq_length: Optional[int] = None
    tokenizer: str = "auto"
    expected_kind: Optional[str] = None
