"""Run a static model by Paddle Inference as it is, to compare it with; what scores for users is in `engines`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import inference

from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.exported import INPUTS, require_readable


class StaticModel:
    """A predictor on the CPU; not to be called from several threads at once.

    Args:
        inputs: their names, in the order in which `outputs` takes them; a ranker's are the default.
        threads: of a matrix product.

    Raises `CheckpointError` where Paddle cannot read the files, or the graph has other inputs.
    """

    def __init__(self, program: Path, parameters: Path, inputs: Sequence[str] = INPUTS, threads: int = 1):
        require_readable(program, paddle.__version__)
        config = inference.Config(str(program), str(parameters))
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(threads)
        try:
            self._predictor = inference.create_predictor(config)
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{program}: Paddle cannot read it ({str(error).strip()[-200:]})") from error
        names = self._predictor.get_input_names()
        if tuple(names) != tuple(inputs):
            raise CheckpointError(
                f"{program}: takes {', '.join(names) or 'nothing'}, expected {', '.join(inputs)}; export it again"
            )
        self._inputs = [self._predictor.get_input_handle(name) for name in names]
        self._outputs = [self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()]

    def outputs(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Return the outputs of the inputs; a ranker's are `[batch, 1]` float32, of `[batch, length]` int64."""
        for handle, array in zip(self._inputs, arrays):
            handle.copy_from_cpu(np.ascontiguousarray(array))
        self._predictor.run()
        return [handle.copy_to_cpu() for handle in self._outputs]
