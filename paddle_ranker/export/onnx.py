"""Write the static model as an ONNX file, which ONNX Runtime and OpenVINO read, and see that it scores as the ranker.

paddle2onnx translates the graph that Paddle wrote, so the match levels, the lexical features and the last layer for the
first token alone are in it as they are. It reads Paddle 3's graphs only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle

from paddle_ranker.errors import DependencyError, RankerError
from paddle_ranker.export.parity import Batch, Outputs, Parity, compare
from paddle_ranker.model.exported import INPUTS, OUTPUTS

OPSET = 17  # the first with LayerNormalization as one node
# In a process of its own: where it meets an operator that it does not know, it aborts the process.
_TRANSLATE = f"import sys, paddle2onnx; paddle2onnx.export(*sys.argv[1:4], opset_version={OPSET}, optimize_tool='None')"
_INSTALL = "python -m pip install 'paddle2onnx>=2.0' onnx onnxruntime"


def require_onnx() -> None:
    """Raise `DependencyError` where an ONNX file cannot be written here, before any work is done for it."""
    if paddle.__version__.startswith("2."):
        raise DependencyError(
            f"--onnx: needs Paddle 3, this is Paddle {paddle.__version__}: export the ranker's folder with the modern "
            "stack (bash scripts/setup.sh modern), or leave out --onnx"
        )
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import paddle2onnx  # noqa: F401
    except ImportError as error:
        raise DependencyError(f"--onnx: needs the package {error.name}; install it with: {_INSTALL}") from error


def write_onnx(program: Path, target: Path, batches: Sequence[Batch] = (), expected: Sequence[Outputs] = ()) -> Parity:
    """Translate the static model `program` into `target`, which appears whole or not at all.

    Args:
        program: the graph's file; the parameters lie beside it.
        batches, expected: pairs, and what the ranker says of them: the file must say the same.

    Raises `DependencyError` where a package is missing, `RankerError` where the file is not valid or scores otherwise.
    """
    require_onnx()
    import onnx

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        written = Path(folder) / target.name
        command = [sys.executable, "-c", _TRANSLATE, str(program), str(program.with_suffix(".pdiparams")), str(written)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if not written.is_file():
            said = [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line or "ERROR" in line]
            raise RankerError(
                f"paddle2onnx could not translate {program.name} ({said[0] if said else f'status {done.returncode}'}); "
                f"update it ({_INSTALL}), or export without --onnx"
            )
        model = onnx.load(str(written))
        _name_outputs(model)
        onnx.save(model, str(written))
        try:
            onnx.checker.check_model(str(written), full_check=True)
        except Exception as error:
            raise RankerError(f"{target.name}: not a valid ONNX file ({error}); export without --onnx") from error
        parity = compare(expected, batches, OnnxModel(written).outputs, "the ONNX file")
        os.replace(written, target)
    return parity


class OnnxModel:
    """Run an ONNX file by ONNX Runtime on one CPU thread, to compare it with; what scores for users is in `engines`."""

    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def outputs(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> Outputs:
        """Return the probabilities and the logits, `[batch, 1]` float32 each, of `[batch, length]` int64 inputs."""
        return list(self._session.run(list(OUTPUTS), dict(zip(INPUTS, (input_ids, token_type_ids)))))


def _name_outputs(model: object) -> None:
    """Give the graph's outputs our names, and its dimensions names too: both are free."""
    graph = model.graph  # type: ignore[attr-defined]
    names = {output.name: name for output, name in zip(graph.output, OUTPUTS)}
    for node in graph.node:
        for side in (node.input, node.output):
            for place, name in enumerate(side):
                if name in names:
                    side[place] = names[name]
    for output in graph.output:
        output.name = names[output.name]
    for values, dimensions in ((graph.input, ("batch", "length")), (graph.output, ("batch", None))):
        for value in values:
            for dimension, name in zip(value.type.tensor_type.shape.dim, dimensions):
                if name:
                    dimension.dim_param = name
