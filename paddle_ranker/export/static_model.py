"""Run a static model by Paddle Inference as it is, to compare it with; what scores for users is in `engines`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
from paddle import inference

from paddle_ranker.encoding.columns import Arrays
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.exported import require_readable
from paddle_ranker.model.signature import RANKER, Signature


class StaticModel:
    """A predictor on the CPU; not to be called from several threads at once.

    Args:
        signature: what it takes and returns.
        threads: of a matrix product.

    Raises `CheckpointError` where Paddle cannot read the files, or the graph has other inputs.
    """

    def __init__(self, program: Path, parameters: Path, signature: Signature = RANKER, threads: int = 1):
        require_readable(program, paddle.__version__)
        config = inference.Config(str(program), str(parameters))
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(threads)
        try:
            self._predictor = inference.create_predictor(config)
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{program}: Paddle cannot read it ({str(error).strip()[-200:]})") from error
        names = self._predictor.get_input_names()
        if tuple(names) != signature.input_names:
            raise CheckpointError(
                f"{program}: takes {', '.join(names) or 'nothing'}, expected {', '.join(signature.input_names)}; "
                "export it again"
            )
        self._inputs = {name: self._predictor.get_input_handle(name) for name in names}
        handles = [self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()]
        self._outputs = dict(zip(signature.output_names, handles))  # the first ones, where it has no more

    def run(self, arrays: Arrays) -> Arrays:
        """Return the outputs, by name, of one padded batch."""
        for name, handle in self._inputs.items():
            handle.copy_from_cpu(np.ascontiguousarray(arrays[name]))
        self._predictor.run()
        return {name: handle.copy_to_cpu() for name, handle in self._outputs.items()}
