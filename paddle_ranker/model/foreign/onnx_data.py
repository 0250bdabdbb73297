"""Large ONNX files: their parameters are in a second file, which engines map into memory.

A graph with its parameters is parsed and copied whole, by every process, and can have 2 GB at most. Parameters that are
mapped are read when they are used, and processes share their pages.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from paddle_ranker.array_types import Array

# Models of this many bytes or more get a separate file of parameters.
LARGE = 256 * 1024 * 1024
LARGE_PARAMETER = 1024 * 1024
PAGE = 4096  # parameters begin at multiples of this many bytes, so that engines can map them


def data_file(path: Path) -> Path:
    """Return the path of the file that holds a large ONNX file's parameters; it need not exist."""
    return path.with_name(f"{path.name}.data")


def onnx_files(path: Path) -> list[Path]:
    """Return the ONNX file and its file of parameters, if they exist."""
    return [file for file in (path, data_file(path)) if file.is_file()]


def save_onnx(model: Any, path: Path) -> None:  # type: ignore[explicit-any]
    """Write an ONNX model; afterwards large parameters may be only on the disk, so do not use `model` again."""
    import onnx

    data_file(path).unlink(missing_ok=True)
    if model.ByteSize() < LARGE:
        path.write_bytes(model.SerializeToString())
        return
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        location=data_file(path).name,
        size_threshold=LARGE_PARAMETER,
        convert_attribute=True,  # parameters can also be nodes of the kind Constant
    )


def add_parameters(  # type: ignore[explicit-any]
    model: Any, parameters: Iterable[tuple[str, Array]], path: Path
) -> None:
    """Write an ONNX model without parameters to `path`, and `parameters`, one by one, to `data_file(path)`."""
    from onnx import TensorProto
    from onnx.external_data_helper import set_external_data
    from onnx.helper import np_dtype_to_tensor_dtype

    with data_file(path).open("wb") as stream:
        for name, array in parameters:
            stream.seek(-stream.tell() % PAGE, os.SEEK_CUR)
            kind = np_dtype_to_tensor_dtype(array.dtype)
            tensor = TensorProto(name=name, data_type=kind, dims=array.shape, raw_data=b"")
            set_external_data(tensor, data_file(path).name, stream.tell(), array.nbytes)
            tensor.ClearField("raw_data")
            model.graph.initializer.append(tensor)
            stream.write(np.ascontiguousarray(array).data)
    path.write_bytes(model.SerializeToString())


def move_onnx(written: Path, target: Path) -> list[Path]:
    """Move an ONNX file and its parameters to `target`, replacing the files there; return the new files.

    If the process is killed in between, the graph may be missing. It never stands beside another model's parameters.
    """
    if data_file(target).exists() or data_file(written).exists():
        target.unlink(missing_ok=True)
        data_file(target).unlink(missing_ok=True)
    for path in reversed(onnx_files(written)):  # the graph comes last
        os.replace(path, target.parent / path.name)
    return onnx_files(target)
