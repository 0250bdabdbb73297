"""Read, change and write static graphs of Paddle: programs of Paddle 2 (`.pdmodel`, `__model__`) and 3 (`.json`).

Files of parameters are parsed here, never unpickled, and a program that names other files is refused.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.errors import CheckpointError, listed, quoted
from paddle_ranker.model.foreign.foreign_graph import ForeignGraph, Key, Node
from paddle_ranker.storage.untrusted import memory_bytes, read_file

_FETCHED = re.compile(r'"fetch_name_(\d+)"')
# Operations that reach other files, processes or Python code
_REACHING = re.compile(r"(save|load|py_?func|py_?layer|send|recv|listen|read|fetch_barrier|run_program|.*_engine).*")
# Types of arrays in Paddle's files of parameters, by the number of `VarType.Type`
_TYPES = {0: "bool", 2: "int32", 3: "int64", 4: "float16", 5: "float32", 6: "float64", 20: "uint8", 21: "int8"}


@dataclass
class StaticProgram(ForeignGraph):  # type: ignore[explicit-any]
    """Static graph with its parameters, in a scope of its own.

    values: Paddle's objects, by key
    """

    program: Any = None  # type: ignore[explicit-any]  # a class of each version of Paddle
    scope: Any = None  # type: ignore[explicit-any]
    values: dict[Key, Any] = field(default_factory=dict)  # type: ignore[explicit-any]

    def name_inputs(self, named: Mapping[str, str]) -> dict[str, object]:
        """Give the inputs new names and a new order; return them by new name. `feeds` is no longer valid.

        named: the present names, by the new ones, in the wanted order
        """
        block = self.program.global_block()
        if paddle.__version__.startswith("2."):
            for new, old in named.items():
                if new != old:
                    block._rename_var(old, new)
            return {name: block.var(name) for name in named}
        given = [self.values[self.feeds[feed]].get_defining_op() for feed in named.values()]
        names = [operator.id() for operator in block.ops]
        first = min(given, key=lambda operator: names.index(operator.id()))
        inputs = {}
        for name, feed in named.items():
            old = self.values[self.feeds[feed]]
            with paddle.static.program_guard(self.program):
                inputs[name] = paddle.static.data(name, list(old.shape), old.dtype)
            old.replace_all_uses_with(inputs[name])
            inputs[name].get_defining_op().move_before(first)
        for operator in given:
            block.remove_op(operator)
        return inputs

    def run(self, arrays: Arrays, values: Sequence[object]) -> list[Array]:
        """Compute values, Paddle's objects, for a batch."""
        with paddle.static.scope_guard(self.scope):
            executor = paddle.static.Executor(paddle.CPUPlace())
            return [np.asarray(each) for each in executor.run(self.program, feed=arrays, fetch_list=list(values))]

    def write(self, target: Path, inputs: Mapping[str, object], outputs: Mapping[str, object]) -> Path:
        """Write the graph with some inputs and outputs, by name, in this Paddle's format; return the graph's file."""
        with paddle.static.scope_guard(self.scope):
            executor = paddle.static.Executor(paddle.CPUPlace())
            paddle.static.save_inference_model(
                str(target), list(inputs.values()), list(outputs.values()), executor, program=self.program
            )
        paths = (target.with_name(f"{target.name}.{ending}") for ending in ("json", "pdmodel"))
        written = next(path for path in paths if path.is_file())
        name_outputs(written, tuple(outputs))
        return written


@contextmanager
def appended(program: StaticProgram) -> Iterator[None]:
    """Append what the block computes to a graph, under names that the graph does not have."""
    with paddle.static.program_guard(program.program), paddle.utils.unique_name.guard("paddle_ranker_"):
        yield


def read_program(file: Path, parameters: Optional[Path]) -> StaticProgram:
    """Read a static graph and its parameters; call this in `static_mode`.

    parameters: the file of all parameters; None: each has a file of its name beside the graph

    Raises `CheckpointError` for files that do not belong together, are damaged, or reach other files.
    """
    scope = paddle.static.Scope()
    if file.suffix == ".json":
        assert parameters is not None
        numbers = sum(1 for _ in _arrays_in(parameters))  # Paddle 3 reads a file that was cut short, as random numbers
        with paddle.static.scope_guard(scope):
            executor = paddle.static.Executor(paddle.CPUPlace())
            try:
                program, _, _ = paddle.static.load_inference_model(str(file.with_suffix("")), executor)
            except (RuntimeError, ValueError, TypeError, OSError) as error:
                raise CheckpointError(f"{file}: Paddle cannot read it ({_last_line(error)})") from error
        found = StaticProgram(file, program=program, scope=scope)
        _index_new(found)
        if numbers != len(found.parameters):
            raise _of_two_models(parameters, numbers, file, len(found.parameters))
        found.arrays = {name: np.asarray(scope.find_var(name).get_tensor()) for name in found.parameters.values()}
        return found
    try:
        program = paddle.static.deserialize_program(read_file(file, memory_bytes()))
        blocks = [program.block(number) for number in range(program.num_blocks)]
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{file}: is no graph of Paddle ({_last_line(error)})") from error
    _require_harmless(file, [operator.type for block in blocks for operator in block.ops])
    variables = {each.name: each for each in program.list_vars() if each.persistable}
    types = ("feed", "fetch")
    inner = {name for block in blocks for op in block.ops if op.type in types for name in _of_holder(op)}
    names = sorted(set(variables) - inner)
    arrays = _read_parameters(file, parameters, names)
    for name, array in arrays.items():
        if tuple(variables[name].shape) != array.shape:
            raise CheckpointError(
                f"{file}: its parameter {quoted(name)} is {list(variables[name].shape)}, the file has "
                f"{list(array.shape)}: graph and parameters are of two models"
            )
        scope.var(name).get_tensor().set(array, paddle.CPUPlace())
    if paddle.__version__.startswith("2."):
        found = StaticProgram(file, arrays=arrays, program=program, scope=scope)
        _index_old(found)
        return found
    from paddle.pir import translate_to_pir

    try:
        translated = translate_to_pir(program.desc)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{file}: Paddle {paddle.__version__} cannot read it ({_last_line(error)})") from error
    found = StaticProgram(file, arrays=arrays, program=translated, scope=scope)
    _index_new(found)
    return found


def _of_holder(operator: Any) -> list[str]:  # type: ignore[explicit-any]
    return list(operator.input_arg_names if operator.type == "feed" else operator.output_arg_names)


def _require_harmless(file: Path, types: Sequence[str]) -> None:
    reaching = sorted({name for name in types if _REACHING.fullmatch(name)})
    if reaching:
        raise CheckpointError(f"{file}: has the operation {listed(reaching)}, which no text model needs: not opened")


def _read_parameters(file: Path, parameters: Optional[Path], names: Sequence[str]) -> Arrays:
    if parameters is not None:
        arrays = list(_arrays_in(parameters))
        if len(arrays) != len(names):
            raise _of_two_models(parameters, len(arrays), file, len(names))
        return dict(zip(names, arrays))
    found: Arrays = {}
    for name in names:
        path = file.parent / name
        if Path(name).name != name or name in (".", ".."):  # must not reach outside the folder
            raise CheckpointError(f"{file}: its parameter {quoted(name)} is no name of a file in the folder")
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing, a parameter of {file.name}; copy the folder again")
        found[name] = next(_arrays_in(path))
    return found


def _of_two_models(parameters: Path, numbers: int, file: Path, expected: int) -> CheckpointError:
    return CheckpointError(f"{parameters}: has {numbers} parameters, {file.name} {expected}: they are of two models")


def _arrays_in(path: Path) -> Iterator[Array]:
    """Yield the arrays of a file of Paddle's parameters, in order; raises `CheckpointError` if it is damaged."""
    content = read_file(path, memory_bytes())
    at = 0
    try:
        while at < len(content):
            (levels,) = struct.unpack_from("<Q", content, at + 4)
            at += 12
            for _ in range(levels):
                at += 8 + struct.unpack_from("<Q", content, at)[0]
            (size,) = struct.unpack_from("<i", content, at + 4)
            dtype, shape = _described(content[at + 8 : at + 8 + size])
            at += 8 + size
            count = int(np.prod(shape, dtype=np.int64))
            yield np.frombuffer(content, dtype, count, at).reshape(shape)
            at += count * dtype.itemsize
    except (struct.error, ValueError, KeyError, IndexError) as error:
        raise CheckpointError(f"{path}: is no file of Paddle's parameters, or damaged; copy it again") from error


def _described(message: bytes) -> tuple[np.dtype[Any], list[int]]:  # type: ignore[explicit-any]
    """Parse a `VarType.TensorDesc`: its type in field 1, and each dimension in field 2."""
    at, kind, shape = 0, -1, list[int]()
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag == 0x12:  # packed dimensions
            end = at + value
            while at < end:
                size, at = _varint(message, at)
                shape.append(size)
        elif tag == 0x08:
            kind = value
        elif tag == 0x10:
            shape.append(value)
        else:
            raise ValueError("an unknown field")
    return np.dtype(_TYPES[kind]), shape


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _plain(name: str) -> str:
    """Return an operation's name without its dialect, and without the versions of Paddle 2."""
    name = name.rpartition(".")[2]
    name = {"lookup_table": "embedding", "mul": "matmul"}.get(name, name)
    name = re.sub(r"(_v2|2)$", "", name).rstrip("_")
    return {"lookup_table": "embedding", "elementwise_add": "add"}.get(name, name)


def _index_new(found: StaticProgram) -> None:
    """Fill in the values of a graph of Paddle 3."""
    block = found.program.global_block()
    _require_harmless(found.file, [operator.name().rpartition(".")[2] for operator in block.ops])
    for operator in block.ops:
        name, number = operator.name(), operator.id()
        results = [(number, place) for place in range(len(operator.results()))]
        for key, value in zip(results, operator.results()):
            found.values[key] = value
            try:
                found.shapes[key] = tuple(value.shape)
            except ValueError:  # a list of values
                found.shapes[key] = ()
        if name in ("builtin.parameter",):
            found.parameters[results[0]] = operator.attrs()["parameter_name"]
        elif name in ("pd_op.data", "pd_op.feed"):
            found.feeds[operator.attrs()["name"]] = results[0]
        else:
            inputs = tuple(
                (value.get_defining_op().id(), value.index())
                for value in operator.operands_source()
                if value.get_defining_op() is not None
            )
            if name == "pd_op.fetch":
                found.fetches.append(inputs[0])
            else:
                found.nodes.append(Node(_plain(name), inputs, tuple(results)))
    for operator in [operator for operator in block.ops if operator.name() == "pd_op.fetch"]:
        block.remove_op(operator)  # Paddle adds its own for what is fetched


def _index_old(found: StaticProgram) -> None:
    """Fill in the values of a graph of Paddle 2, in which an operation may write a variable again."""
    block = found.program.global_block()
    latest: dict[str, Key] = {}

    def key_of(name: str) -> Key:
        if name not in latest:
            latest[name] = (name, 0)
            record(name)
            if name in found.arrays:
                found.parameters[latest[name]] = name
        return latest[name]

    def record(name: str) -> None:
        variable = block.var(name)
        found.values[latest[name]] = variable
        try:
            found.shapes[latest[name]] = tuple(variable.shape)
        except (ValueError, TypeError):
            found.shapes[latest[name]] = ()

    for operator in block.ops:
        if operator.type == "feed":
            name = operator.output_arg_names[0]
            found.feeds[name] = latest[name] = (name, 0)
            record(name)
        elif operator.type == "fetch":
            found.fetches.append(key_of(operator.input_arg_names[0]))
        else:
            inputs = tuple(key_of(name) for name in _in_order(operator))
            for name in operator.output_arg_names:
                latest[name] = (name, latest[name][1] + 1 if name in latest else 1)
                record(name)
            outputs = tuple(latest[name] for name in operator.output_arg_names)
            found.nodes.append(Node(_plain(operator.type), inputs, outputs))


def _in_order(operator: Any) -> list[str]:  # type: ignore[explicit-any]
    """Return the names of an operation's inputs, in the order of Paddle 3."""
    slots = {"layer_norm": ("X", "Scale", "Bias"), "lookup_table_v2": ("Ids", "W"), "lookup_table": ("Ids", "W")}
    if operator.type in slots:
        return [name for slot in slots[operator.type] for name in operator.input(slot)]
    first = [name for slot in ("X", "Y") if slot in operator.input_names for name in operator.input(slot)]
    return [*first, *(name for name in operator.input_arg_names if name not in first)]


def _last_line(error: BaseException) -> str:
    return " ".join((str(error).strip().splitlines() or [type(error).__name__])[-1].split())[:200]


def name_outputs(program: Path, names: Sequence[str]) -> None:
    """Rename the outputs in a graph's file to `names`; Paddle 3 names them `fetch_name_0`, `fetch_name_1`, ...

    Raises `CheckpointError` if the graph has another number of outputs.
    """
    if program.suffix == ".json":
        text = program.read_text(encoding="utf-8")
        if len(_FETCHED.findall(text)) != len(names):
            raise CheckpointError(f"{program}: has not {len(names)} outputs as Paddle 3 names them")
        text = _FETCHED.sub(lambda match: json.dumps(names[int(match.group(1))]), text)
        program.write_text(text, encoding="utf-8")
        return
    with static_mode():
        graph = paddle.static.deserialize_program(program.read_bytes())
        block = graph.global_block()
        fetched = [operator.input("X")[0] for operator in block.ops if operator.type == "fetch"]
        if len(fetched) != len(names):
            raise CheckpointError(f"{program}: has {len(fetched)} outputs, expected {len(names)}")
        for old, new in zip(fetched, names):
            block._rename_var(old, new)
        program.write_bytes(graph.desc.serialize_to_string())


@contextmanager
def static_mode() -> Iterator[None]:
    """Switch Paddle to static graphs; afterwards return to dynamic mode if it was on."""
    was_dynamic = paddle.in_dynamic_mode()
    paddle.enable_static()
    try:
        yield
    finally:
        if was_dynamic:
            paddle.disable_static()
