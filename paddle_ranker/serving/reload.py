"""Load the model's folder anew beside the model that answers, and switch where the new one passes its checks."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional

from paddle_ranker.errors import RankerError
from paddle_ranker.serving.faults import Fault, FaultKind
from paddle_ranker.serving.logs import JsonLog
from paddle_ranker.serving.metrics import Metrics
from paddle_ranker.serving.models import ServedModel, load_model
from paddle_ranker.serving.serve_config import ServeConfig
from paddle_ranker.serving.service import EngineService

NOT_SWITCHED = FaultKind("not_switched", 409, "FAILED_PRECONDITION", 2001)


class Reloader:
    """Load models in a thread, one at a time; to be used in one event loop."""

    def __init__(self, config: ServeConfig, service: EngineService, metrics: Metrics, log: JsonLog):
        self._config, self._service, self._metrics, self._log = config, service, metrics, log
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._loading = False

    async def load(self) -> None:
        """Load the first model. Raises what `load_model` raises."""
        self._service.switch(await self._load())

    async def reload(self) -> dict[str, Any]:
        """Load anew and switch; return what happened. Requests that wait in the old model's queue get its scores.

        Raises `Fault` where another load is under way, or the new model is not taken: the old one goes on then.
        """
        if self._loading:
            raise Fault(NOT_SWITCHED, "the model is being loaded already", retry_after=5.0)
        began = time.monotonic()
        try:
            model = await self._load()
        except Exception as error:
            reason = str(error) if isinstance(error, (RankerError, OSError)) else f"{type(error).__name__}: {error}"
            self._metrics.reload(False)
            self._log.write("reload", status="failed", model=str(self._config.model), reason=reason)
            raise Fault(NOT_SWITCHED, f"the old model goes on: {reason}") from error
        previous = self._service.switch(model)
        self._metrics.reload(True)
        seconds = round(time.monotonic() - began, 3)
        self._log.write("reload", status="switched", model=str(self._config.model), seconds=seconds)
        if previous is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, previous.batcher.close)
        return {"status": "switched", "model": model.name, "seconds": seconds}

    async def close(self, seconds: float) -> None:
        """Put the model away when its queue is empty, or after so many seconds."""
        model: Optional[ServedModel] = self._service.switch(None)
        if model is not None:
            await asyncio.get_running_loop().run_in_executor(None, model.batcher.close, seconds)
        self._thread.shutdown(wait=False)

    async def _load(self) -> ServedModel:
        self._loading = True
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, load_model, self._config, self._metrics)
        finally:
            self._loading = False
