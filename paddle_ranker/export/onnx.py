"""Write a static model as an ONNX file, for ONNX Runtime and OpenVINO, and check that it returns the same scores.

paddle2onnx translates the graph that Paddle wrote, so the ONNX file contains the match levels, the lexical features and
the shortcut in the last layer. paddle2onnx reads graphs of Paddle 3 only.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Optional

import paddle

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.errors import DependencyError, RankerError, in_checkout
from paddle_ranker.export.parity import Parity, compare
from paddle_ranker.model.foreign.onnx_data import add_parameters, move_onnx, save_onnx
from paddle_ranker.model.model_kind import Signature

OPSET = 17  # the first with LayerNormalization as one node
# It runs in a separate process, since paddle2onnx aborts the process at an operator that it does not know.
_TRANSLATE = f"import sys, paddle2onnx; paddle2onnx.export(*sys.argv[1:4], opset_version={OPSET}, optimize_tool='None')"
# paddle2onnx holds a graph and its parameters in one message of protobuf, which ends at 2 GiB.
TRANSLATED = 2**31 - 2**26
_INSTALL = "python -m pip install -U"


def require_onnx() -> None:
    """Raise `DependencyError` if an ONNX file cannot be written here; call it before any other work."""
    if paddle.__version__.startswith("2."):
        raise DependencyError(
            f"--onnx: needs Paddle 3, this is Paddle {paddle.__version__}: export the ranker's folder with the modern "
            f"stack, {in_checkout('bash scripts/setup.sh modern')}, or leave out --onnx"
        )
    if sys.version_info >= (3, 13) and find_spec("paddle2onnx") is None:
        raise DependencyError(
            f"--onnx: paddle2onnx has no build for Python {platform.python_version()}: export the ranker's folder on "
            "Python 3.10 to 3.12, or leave out --onnx"
        )
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import paddle2onnx  # noqa: F401
    except ImportError as error:
        raise DependencyError(f"--onnx needs the package {error.name}: {_INSTALL} {error.name}") from error


def write_onnx(
    program: Path,
    target: Path,
    signature: Signature,
    batches: Sequence[Arrays],
    expected: Sequence[Arrays],
    rounding: Optional[Callable[[], dict[str, float]]] = None,
) -> Parity:
    """Translate the static model `program` into an ONNX file, check the file, and move it to `target`.

    The parameters of a large model are in a second file (`model.onnx_data`).

    program: the graph's file; the parameters are in the same folder
    signature: the inputs and outputs of the model
    batches, expected: input batches, and the network's outputs for them, which the file must reproduce
    rounding: called without arguments if a tolerance is exceeded; returns the result of `rounding_of`

    Raises `DependencyError` if a package is missing, `RankerError` if the file is not valid or its outputs differ.
    """
    require_onnx()
    import onnx

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        written = Path(folder) / target.name
        parameters = program.with_suffix(".pdiparams")
        is_apart = parameters.stat().st_size > TRANSLATED
        translated = Path(folder) / "no parameters" if is_apart else parameters
        command = [sys.executable, "-c", _TRANSLATE, str(program), str(translated), str(written)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if not written.is_file():
            lines = (done.stdout + done.stderr).splitlines()
            error = next((line for line in lines if "Error" in line or "ERROR" in line), f"status {done.returncode}")
            raise RankerError(
                f"paddle2onnx could not translate {program.name} ({error}); update it ({_INSTALL} paddle2onnx), or "
                "export without --onnx"
            )
        model = onnx.load(str(written))
        _name_arrays(model, signature)
        _mend_group_norms(model, program)
        squeeze_scalars(model)
        if is_apart:
            add_parameters(model, _parameters(program), written)
        else:
            save_onnx(model, written)
        try:
            onnx.checker.check_model(str(written), full_check=True)
        except Exception as error:
            raise RankerError(f"{target.name}: not a valid ONNX file ({error}); export without --onnx") from error
        parity = compare(expected, batches, OnnxModel(written).run, signature, "the ONNX file", rounding)
        move_onnx(written, target)
    return parity


def _parameters(program: Path) -> Iterator[tuple[str, Array]]:
    """Yield (name in the graph, array) for each parameter of a graph of Paddle 3."""
    for parameter in paddle.jit.load(str(program.with_suffix(""))).state_dict().values():
        yield parameter.name.rpartition("_")[0], parameter.numpy()  # Paddle numbers what it loads


class OnnxModel:
    """ONNX file in ONNX Runtime on a single CPU thread, for comparisons; engines for users are in `scoring.engines`."""

    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, arrays: Arrays) -> Arrays:
        """Return the outputs of one padded batch by name."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, arrays)))


def _name_arrays(model: Any, signature: Signature) -> None:
    """Give the graph's outputs the signature's names, and name the variable dimensions of its inputs and outputs."""
    graph = model.graph
    names = {output.name: name for output, name in zip(graph.output, signature.output_names)}
    for node in graph.node:
        for side in (node.input, node.output):
            for place, name in enumerate(side):
                if name in names:
                    side[place] = names[name]
    for output in graph.output:
        output.name = names[output.name]
    specs = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
    for value in (*graph.input, *graph.output):
        spec = specs[value.name]
        for dimension, size, name in zip(value.type.tensor_type.shape.dim, spec.shape, ("batch", spec.length)):
            if size is None:
                dimension.dim_param = name


def _mend_group_norms(model: Any, program: Path) -> None:
    """Set the epsilon of each group normalisation, which paddle2onnx 2 reads from uninitialised memory."""
    nodes = [node for node in model.graph.node if node.op_type == "InstanceNormalization"]
    if nodes and program.suffix == ".json":
        epsilons = _epsilons(json.loads(program.read_text(encoding="utf-8")))
        for node, epsilon in zip(nodes, epsilons):
            next(attribute for attribute in node.attribute if attribute.name == "epsilon").f = epsilon


def squeeze_scalars(model: Any) -> None:
    """Replace reshapes to a scalar, as in a blend, by Squeeze: OpenVINO before 2026 cannot read such reshapes."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Reshape":
            shape = node.input[1]
            while shape in made_by and made_by[shape].op_type in ("Cast", "Identity"):
                shape = made_by[shape].input[0]
            if shape in made_by and made_by[shape].op_type == "Constant":
                constants[shape] = made_by[shape].attribute[0].t
            if shape in constants and list(constants[shape].dims) == [0]:
                node.op_type = "Squeeze"
                del node.input[1], node.attribute[:]


def _epsilons(part: Any) -> Iterator[float]:
    """Yield the epsilon of every group normalisation in a program of Paddle 3, in order."""
    if isinstance(part, dict):
        if part.get("#") == "1.group_norm":
            yield next(float(attribute["AT"]["D"]) for attribute in part["A"] if attribute["N"] == "epsilon")
        part = list(part.values())
    if isinstance(part, list):
        for value in part:
            yield from _epsilons(value)
