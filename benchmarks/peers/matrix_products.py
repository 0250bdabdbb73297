"""Measure the processor's speed of matrix products: `python -m benchmarks.peers.matrix_products THREADS`.

Answers each line of input with the GFLOP/s of a large matrix product, for each precision with the fastest library.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.peers.answers import answer_commands, take_stdout

ROWS, INNER, COLUMNS = 2048, 768, 3072  # the feed-forward product of a medium encoder for a batch

Product = Callable[[], object]


def main(threads: int) -> None:
    """Answer lines until the input ends."""
    answers = take_stdout()
    products = {**_of_torch(threads), **_of_openvino(threads)}
    for product in products.values():
        product()

    def fastest(command: object) -> dict[str, float]:
        best: dict[str, float] = {}
        for name, product in products.items():
            precision = name.rpartition("_")[2]
            best[precision] = max(best.get(precision, 0.0), _speed(product))
        return best

    answer_commands(answers, fastest, sys.stdin, ready=sorted(products))


def _speed(product: Product) -> float:
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - start)
    return 2 * ROWS * INNER * COLUMNS / min(seconds) / 1e9


def _of_torch(threads: int) -> dict[str, Product]:
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(threads)
    found: dict[str, Product] = {}
    for name, precision in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = torch.rand(ROWS, INNER, dtype=precision), torch.rand(INNER, COLUMNS, dtype=precision)
        found[f"torch_{name}"] = partial(torch.matmul, left, right)
    return found


def _of_openvino(threads: int) -> dict[str, Product]:
    try:
        import openvino
        from openvino import opset13
    except ImportError:
        return {}
    left = np.random.default_rng(0).random((ROWS, INNER), dtype=np.float32)
    right = opset13.constant(np.random.default_rng(1).random((INNER, COLUMNS), dtype=np.float32))
    found: dict[str, Product] = {}
    for name, precision in (("fp32", "f32"), ("bf16", "bf16")):
        parameter = opset13.parameter([ROWS, INNER], np.float32)
        model = openvino.Model([opset13.matmul(parameter, right, False, False)], [parameter])
        config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1}
        request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
        found[f"openvino_{name}"] = partial(request.infer, [left], share_inputs=True)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]))
