"""An engine of a plugin: `--engine jit` runs an exported model with `paddle.jit.load`."""

from __future__ import annotations

import numpy as np

from paddle_ranker.array_types import Arrays
from paddle_ranker.model.exported import ExportedFolder
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.scoring.engines.engine_registry import ENGINES, EngineKind
from paddle_ranker.scoring.engines.inputs import InputLimits


class JitEngine:
    """Engine that runs the static graph as a Paddle layer."""

    name, precision = "jit", "fp32"

    def __init__(self, folder: ExportedFolder, options: LoadOptions):
        import paddle

        self._paddle, self._outputs = paddle, folder.outputs
        self._layer = paddle.jit.load(str(folder.program.with_suffix("")))
        self.limits = InputLimits(folder.signature, folder.configs)

    def run(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Return all outputs by name."""
        checked = self.limits.check(arrays)
        if not self.limits.rows(checked):
            return self.limits.empty()
        found = self._layer(*map(self._paddle.to_tensor, checked.values()))
        tensors = found if isinstance(found, (list, tuple)) else [found]
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, tensors)}


ENGINES.add("jit", EngineKind(JitEngine, "paddle.jit.load", package="paddle", needs_paddle=True))
