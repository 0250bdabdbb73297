"""Write the ONNX files that a user of transformers would: `python -m benchmarks.peers.inference_export FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.inference_graphs import FILE, INT8_FILE

INPUTS = ("input_ids", "token_type_ids", "attention_mask")


def main(folder: Path) -> None:
    """Export `hf` of the folder by PyTorch, and quantize the result to dynamic int8 by ONNX Runtime."""
    import torch
    from torch import nn
    from transformers import AutoModelForSequenceClassification

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForSequenceClassification.from_pretrained(folder / "hf", dtype=torch.float32)

        def forward(self, *tensors: Any) -> Any:
            return self.model(**dict(zip(INPUTS, tensors))).logits

    ids = torch.randint(5, 50, (2, 16))
    with torch.no_grad():
        torch.onnx.export(
            Logits().eval(),
            (ids, torch.zeros_like(ids), torch.ones_like(ids)),
            str(folder / FILE),
            input_names=list(INPUTS),
            output_names=["logits"],
            opset_version=17,
            dynamic_axes={name: {0: "batch", 1: "length"} for name in INPUTS},
            # The older exporter: its graph was the faster one in both engines when this was written.
            dynamo=False,
        )
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(folder / FILE, folder / INT8_FILE, weight_type=QuantType.QInt8)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
