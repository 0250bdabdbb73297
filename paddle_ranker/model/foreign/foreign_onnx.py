"""Read ONNX files of other programs, such as paddle2onnx and optimum, and give them this toolkit's inputs and outputs.

A file may be untrusted: its size is bounded, and parameters outside of it must be in files of its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.errors import CheckpointError, listed, package_for, quoted
from paddle_ranker.model.foreign.foreign_graph import ForeignGraph, Key, Node, ScoringOutput
from paddle_ranker.model.foreign.onnx_data import save_onnx
from paddle_ranker.storage.untrusted import check_file, inside, memory_bytes

MASK = "attention_mask"
_OWN = "graph/"  # begins the names of the file's own values
_NAMES = {"Gather": "embedding", "LayerNormalization": "layer_norm", "MatMul": "matmul", "Gemm": "matmul"}
_TRIED = (2, 8)  # rows and tokens of the batch that shows the outputs' sizes


@dataclass
class OnnxGraph(ForeignGraph):  # type: ignore[explicit-any]
    """ONNX file with its parameters.

    model: onnx's model, as read; `finish_onnx` changes it
    session: ONNX Runtime's session of the file
    kinds: types of the inputs by name, as ONNX numbers them
    """

    model: Any = None  # type: ignore[explicit-any]
    session: Any = None  # type: ignore[explicit-any]
    kinds: dict[str, int] = field(default_factory=dict)

    def run(self, arrays: Mapping[str, Array], keys: Sequence[Key]) -> list[Array]:
        """Compute outputs of the file for arrays by the names of its inputs."""
        from onnx.helper import tensor_dtype_to_np_dtype

        given = {name: array.astype(tensor_dtype_to_np_dtype(self.kinds[name])) for name, array in arrays.items()}
        try:
            return [np.asarray(each) for each in self.session.run([str(name) for name, _ in keys], given)]
        except Exception as error:  # its exceptions have no common base class
            raise CheckpointError(f"{self.file}: ONNX Runtime cannot compute it ({_brief(error)})") from error


def read_onnx(file: Path) -> OnnxGraph:
    """Read an ONNX file; raises `CheckpointError` if it is damaged, of fixed sizes, or reaches outside its folder."""
    with package_for("an ONNX file of another program", "onnx onnxruntime"):
        import onnx
    check_file(file, memory_bytes())
    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as error:  # protobuf's exceptions differ between its versions
        raise CheckpointError(f"{file}: is no ONNX file, or is damaged ({_brief(error)}); copy it again") from error
    _require_inside(file, model)
    session = _session(file)
    try:
        onnx.load_external_data_for_model(model, str(file.parent))
    except Exception as error:
        raise CheckpointError(f"{file}: its parameters cannot be read ({_brief(error)}); copy the folder") from error
    graph = OnnxGraph(file, model=model, session=session)
    parameters = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in parameters:  # before the fourth version of ONNX's files
            continue
        sizes = [each.dim_value for each in value.type.tensor_type.shape.dim]
        if len(sizes) != 2 or any(sizes):
            raise CheckpointError(
                f"{file}: its input {quoted(value.name)} is {listed(size or 'any' for size in sizes)} large; texts "
                "have any number of rows and tokens: export it with dynamic axes"
            )
        graph.feeds[value.name] = (value.name, 0)
        graph.kinds[value.name] = value.type.tensor_type.elem_type
    constants = [node for node in model.graph.node if node.op_type == "Constant"]  # as paddle2onnx keeps parameters
    tensors = [(node.output[0], attribute.t) for node in constants for attribute in node.attribute]
    for name, tensor in [*((tensor.name, tensor) for tensor in model.graph.initializer), *tensors]:
        graph.parameters[name, 0] = name
        graph.shapes[name, 0] = tuple(tensor.dims)
    for node in model.graph.node:
        keys = [(name, 0) for name in (node.input[::-1] if node.op_type == "Gather" else node.input) if name]
        outputs = tuple((name, 0) for name in node.output)
        graph.nodes.append(Node(_NAMES.get(node.op_type, node.op_type.lower()), tuple(keys), outputs))
    graph.fetches = [(value.name, 0) for value in model.graph.output]
    tried = dict.fromkeys(graph.feeds, np.zeros(_TRIED))
    for key, array in zip(graph.fetches, graph.run(tried, graph.fetches)):
        graph.shapes[key] = (-1, *array.shape[1:])
    return graph


def finish_onnx(
    graph: OnnxGraph, output: ScoringOutput, named: Mapping[str, str], pad_id: int, target: Path
) -> Callable[[Arrays], tuple[Array, Array]]:
    """Write the file with this toolkit's inputs and outputs, in one piece or with a file of parameters.

    named: names of the file's inputs, by this toolkit's
    pad_id: id of the padding, which `attention_mask` leaves out
    target: the file to write

    Returns a function that computes, for a batch of this toolkit's inputs, what the file itself returns, its vectors
    pooled by NumPy, and what the new file returns.
    """
    from onnx import TensorProto, compose, helper, numpy_helper

    model = compose.add_prefix(graph.model, _OWN, rename_functions=False, inplace=True)
    before: list[Any] = []  # type: ignore[explicit-any]
    after: list[Any] = []  # type: ignore[explicit-any]

    def constant(name: str, array: Array) -> str:
        model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def add(nodes: list[Any], kind: str, inputs: list[str], name: str, **attributes: object) -> str:  # type: ignore[explicit-any]
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    is_token = add(before, "Equal", ["input_ids", constant("pad_id", np.array(pad_id, np.int64))], "is_padding")
    is_token = add(before, "Not", [is_token], "is_token")
    for role, own in named.items():
        source = is_token if role == MASK else role
        add(before, "Cast", [source], _OWN + own, to=graph.kinds[own])
    value = _OWN + str((output.before or output.value)[0])
    value = add(after, "Cast", [value], "as_float32", to=TensorProto.FLOAT)
    size = graph.shapes[output.value][-1]
    if not output.classes:
        if output.pooling == "first":
            value = add(after, "Gather", [value, constant("first", np.array(0, np.int64))], "pooled", axis=1)
        elif output.pooling:
            weights = add(after, "Cast", [is_token], "tokens", to=TensorProto.FLOAT)
            weights = add(after, "LpNormalization", [weights], "shares", axis=-1, p=1)
            shape = constant("as_row", np.array([0, 1, -1], np.int64))
            weights = add(after, "Reshape", [weights, shape], "row_of_shares")
            value = add(after, "MatMul", [weights, value], "mean")
            value = add(after, "Reshape", [value, constant("as_vector", np.array([0, -1], np.int64))], "pooled")
        if output.normalize:
            value = add(after, "LpNormalization", [value], "normal", axis=-1, p=2)
        names = {add(after, "Identity", [value], "vector"): size}
    else:
        value = add(after, "Reshape", [value, constant("columns", np.array([-1, output.classes], np.int64))], "scores")
        if output.classes == 2:
            sign = np.array([[1], [-1]], np.float32) * (1 - 2 * output.place)
            value = add(after, "MatMul", [value, constant("sign", sign)], "difference")
        logit = add(after, "Identity", [value], "logit")
        names = {add(after, "Sigmoid", [logit], "predict"): 1, logit: 1}
    nodes = [*before, *model.graph.node, *after]
    kept = [each for each in model.graph.input if each.name.removeprefix(_OWN) not in graph.feeds]
    del model.graph.node[:], model.graph.input[:], model.graph.output[:]
    model.graph.node.extend(nodes)
    for name in ("input_ids", "token_type_ids"):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]))
    model.graph.input.extend(kept)
    for name, width in names.items():
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]))
    save_onnx(model, target)
    session = _session(target)

    def run(batch: Arrays) -> tuple[Array, Array]:
        tokens = batch["input_ids"] != pad_id
        given = {own: tokens if role == MASK else batch[role] for role, own in named.items()}
        returned = graph.run(given, [output.value])[0]
        own = returned.astype(np.float64)
        if output.pooling == "first":
            own = own[:, 0]
        elif output.pooling:
            own = (own * tokens[:, :, None]).sum(1) / tokens.sum(1, keepdims=True)
        if output.normalize:
            own = own / np.linalg.norm(own, axis=-1, keepdims=True)
        return own.astype(returned.dtype), session.run([next(iter(names))], batch)[0]

    return run


def _require_inside(file: Path, model: Any) -> None:  # type: ignore[explicit-any]
    """Raise `CheckpointError` if parameters are outside the file's folder, or would be read more than once."""
    read: dict[Path, int] = {}
    for tensor in (tensor for graph in (model.graph, *model.functions) for tensor in _tensors(graph)):
        if not tensor.external_data:
            continue
        facts = {entry.key: entry.value for entry in tensor.external_data}
        path = inside(file.parent, facts.get("location", ""))
        try:
            size = check_file(path, memory_bytes())
            start = int(facts.get("offset", 0))
            length = int(facts.get("length", size - start))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path}: {file.name} has parameters in it, and it cannot be read ({error})"
            ) from error
        read[path] = read.get(path, 0) + length
        if start < 0 or length < 0 or start + length > size or read[path] > size:
            raise CheckpointError(f"{path}: is smaller than what {file.name} has in it; copy both files again")


def _tensors(graph: Any) -> Iterator[Any]:  # type: ignore[explicit-any]
    """Yield the tensors of a graph, or of a function, and of the graphs inside."""
    yield from getattr(graph, "initializer", ())
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _session(file: Path) -> Any:  # type: ignore[explicit-any]
    with package_for("an ONNX file of another program", "onnx onnxruntime"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base class
        raise CheckpointError(f"{file}: is no ONNX file that ONNX Runtime opens ({_brief(error)})") from error


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
