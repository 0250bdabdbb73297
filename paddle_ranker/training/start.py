"""What every training does first, whatever it trains."""

from __future__ import annotations

from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.storage.atomic import make_folder
from paddle_ranker.training.checkpoints import require_free
from paddle_ranker.training.options import TrainingOptions
from paddle_ranker.training.state import SavedState, find_state


def start_run(options: TrainingOptions) -> tuple[ProcessGroup, Optional[SavedState]]:
    """Select the device, meet the other processes and seed everything.

    Returns them, and with `options.resume` the interrupted run in `options.save_dir`, None where there is none. Raises
    `RankerError` for a folder that cannot be written to, or that another training writes into.
    """
    runtime.select_device(options.device)
    make_folder(options.save_dir)  # what cannot be saved need not be trained
    processes = ProcessGroup()
    runtime.set_seed(options.seed)
    if processes.is_first:
        require_free(options.save_dir)
    return processes, find_state(options.save_dir) if options.resume else None
