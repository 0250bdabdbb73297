"""Compute vectors of pictures by ViT-B/32: `python picture_worker.py SYSTEM FOLDER THREADS`.

SYSTEM is this toolkit's exported tower by an engine (`ours_openvino`; `_int8` behind it: quantised), or a peer, which
imports nothing of this project: transformers in PyTorch (`torch`), or its model in ONNX Runtime (`onnxruntime`).
`write` writes the model with random weights, and the peers' ONNX file, into the folder. `pixels.npy` has the pictures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from answers import Stopwatch, answer_commands, take_stdout


def write(folder: Path) -> None:
    """Write ViT-B/32 with random weights as transformers does, and as ONNX."""
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    model = ViTModel(ViTConfig(patch_size=32), add_pooling_layer=False).eval()
    model.save_pretrained(folder / "model")
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}}
    (folder / "model" / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    example = (torch.zeros(2, 3, 224, 224, dtype=torch.uint8),)
    rows = ({0: torch.export.Dim("rows")},)
    torch.onnx.export(_first(model), example, str(folder / "peer.onnx"), dynamo=True, dynamic_shapes=rows)


def _first(model: object) -> Callable[..., object]:
    """Return a module that normalises pixels, and returns the state of the first token."""
    import torch

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.model(pixels.float() / 127.5 - 1).last_hidden_state[:, 0]  # type: ignore[operator]

    return First().eval()


def opened(system: str, folder: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that computes vectors, `[pictures, 768]`, of pixels."""
    if system.startswith("ours"):
        from paddle_ranker import runtime
        from paddle_ranker.encoding.picture_encoder import EncodedPictures
        from paddle_ranker.model.load_options import LoadOptions
        from paddle_ranker.retrieval.vectors.text_vectors import Tower

        runtime.prepare_command(threads)
        _, engine, *precision = system.split("_")
        how = LoadOptions(engine=engine, precision=(*precision, "fp32")[0], threads=threads, device="cpu")
        tower = Tower.open(folder / "exported", how)
        return lambda pixels: tower.compute(EncodedPictures(pixels))
    if system == "onnxruntime":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(folder / "peer.onnx"), settings)
        name = session.get_inputs()[0].name
        return lambda pixels: np.asarray(session.run(None, {name: pixels})[0])
    import torch
    from transformers import ViTModel

    torch.set_num_threads(threads)
    model = _first(ViTModel.from_pretrained(folder / "model", add_pooling_layer=False))

    def compute(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = model(torch.from_numpy(pixels)).numpy()  # type: ignore[attr-defined]
        return found

    return compute


def main(system: str, folder: Path, threads: int) -> None:
    """Answer every line with the seconds that the vectors of all pictures took."""
    answers, pixels = take_stdout(), np.load(folder / "pixels.npy")
    compute = opened(system, folder, threads)

    def answer(command: object) -> dict[str, float]:
        watch = Stopwatch()
        compute(pixels)
        return watch.took()

    answer_commands(answers, answer, sys.stdin, compute(pixels).tolist())


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
