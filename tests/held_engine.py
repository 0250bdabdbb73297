"""A plugin for tests: the network computes nothing while a file is there.

Servers load it by `PADDLE_RANKER_PLUGINS=tests.held_engine`; `HELD` names the file, which with `.` and the number of a
process behind it is for that one alone. A file `begun` beside it says that rows wait in the network. `GRACE`, where it
is set, is the seconds after which a worker that does not end is killed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from paddle_ranker.array_types import Arrays
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.serving.process import supervisor

_run = DygraphEngine.run
supervisor._GRACE = float(os.environ.get("GRACE", supervisor._GRACE))


def _held(engine: DygraphEngine, arrays: Arrays) -> Arrays:
    held = Path(os.environ["HELD"])
    while held.exists() or Path(f"{held}.{os.getpid()}").exists():
        held.with_name("begun").touch()
        time.sleep(0.01)
    return _run(engine, arrays)


DygraphEngine.run = _held  # type: ignore[assignment,method-assign]
