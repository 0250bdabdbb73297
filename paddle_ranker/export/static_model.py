"""Work with a static model's files: run them for comparisons, write a model with one output."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
import paddle
from paddle import inference

from paddle_ranker.array_types import Arrays
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.exported import INPUTS, ExportedFolder, exporting_again, require_readable
from paddle_ranker.model.foreign.static_program import name_outputs, static_mode
from paddle_ranker.model.model_kind import RANKER_SIGNATURE, Signature


class StaticModel:
    """Static model in Paddle Inference on the CPU, for comparisons; not thread-safe.

    Engines that score for users are in `paddle_ranker.scoring.engines`.

    signature: the inputs and outputs of the model

    Raises `CheckpointError` if Paddle cannot read the files, or the graph's inputs are not those of `signature`.
    """

    def __init__(self, program: Path, parameters: Path, signature: Signature = RANKER_SIGNATURE):
        require_readable(program, paddle.__version__)
        config = inference.Config(str(program), str(parameters))
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(1)
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
        self._outputs = dict(zip(signature.output_names, handles))  # only the first outputs if the graph has no more

    def run(self, arrays: Arrays) -> Arrays:
        """Return the outputs of one padded batch by name."""
        for name, handle in self._inputs.items():
            handle.copy_from_cpu(np.ascontiguousarray(arrays[name]))
        self._predictor.run()
        return {name: handle.copy_to_cpu() for name, handle in self._outputs.items()}


def write_serving_model(exported: ExportedFolder, target: Path, variable: Optional[str] = None) -> Path:
    """Write a static model with only the first output, a ranker's `predict`, in the format of `exported`.

    Args:
        exported: the folder of the static model with all outputs.
        target: the new files' path without suffix (`.json` or `.pdmodel`, and `.pdiparams`).
        variable: the name of the output's variable; default: Paddle's name.

    Returns:
        The file of the graph.

    Raises `CheckpointError` if the other major version of Paddle exported the model, or its inputs are not tokens.
    """
    require_readable(exported.program, paddle.__version__)
    program = exported.program
    if program.suffix == ".pdmodel" and not paddle.__version__.startswith("2."):
        raise CheckpointError(
            f"{program}: was exported with Paddle 2, and Paddle {paddle.__version__} only runs it; "
            f"{exporting_again(program.parent, paddle.__version__)}"
        )
    with static_mode(), paddle.static.scope_guard(paddle.static.Scope()):
        executor = paddle.static.Executor(paddle.CPUPlace())
        source = str(program.with_suffix(""))
        graph, feeds, fetches = paddle.static.load_inference_model(source, executor)
        if tuple(feeds) != INPUTS:
            raise CheckpointError(f"{program}: takes {', '.join(feeds)}, Paddle Serving is fed {', '.join(INPUTS)}")
        block = graph.global_block()
        if program.suffix == ".json":
            inputs = {operator.attrs()["name"]: operator.result(0) for operator in block.ops if _is_input(operator)}
        else:
            inputs = {name: block.var(name) for name in feeds}
        arguments = str(target), [inputs[name] for name in INPUTS], fetches[:1], executor
        paddle.static.save_inference_model(*arguments, program=graph)
    written = target.with_name(target.name + program.suffix)
    if variable:
        name_outputs(written, [variable])
    return written


def _is_input(operator: object) -> bool:
    return operator.name() in ("pd_op.data", "pd_op.feed")  # type: ignore[attr-defined]
