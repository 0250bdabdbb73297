"""Find the commands that a script of `scripts/` would run, by running it with a fake Python that records its arguments.

The options of the demo's trainings are only in these scripts, so benchmarks that measure the demo read them from there.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from paddle_ranker.errors import RankerError

# For the command `starter` the fake Python prints the name of a folder; for all others it prints nothing.
_RECORDER = """#!/bin/sh
for argument in "$@"; do printf '%s\\0' "$argument"; done >>{log}
printf '\\n' >>{log}
for argument in "$@"; do if [ "$argument" = starter ]; then printf 'STARTER\\n'; fi; done
"""


def script_commands(script: Path, arguments: Sequence[str] = ()) -> list[list[str]]:
    """Return the arguments of each Python command that `script` runs with `arguments`, without running the commands.

    Raises `RankerError` if the script fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        recorder, log = Path(folder) / "python", Path(folder) / "log"
        recorder.write_text(_RECORDER.format(log=shlex.quote(str(log))), encoding="utf-8")
        recorder.chmod(0o700)
        log.touch()
        environment = {**os.environ, "PADDLE_RANKER_PYTHON": str(recorder), "PADDLE_RANKER_NPROC": "1"}
        done = subprocess.run(
            ["bash", str(script), *arguments], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RankerError(f"{script} ended with status {done.returncode}: {last}")
        return [line.split("\0")[:-1] for line in log.read_text(encoding="utf-8").splitlines()]


def arguments_after(commands: Sequence[Sequence[str]], name: str) -> list[str]:
    """Return the arguments after the one that ends in `name`, in the first command that has such an argument.

    Raises `RankerError` if no command has one.
    """
    for command in commands:
        for place, argument in enumerate(command):
            if argument.endswith(name):
                return list(command[place + 1 :])
    found = "; ".join(" ".join(command[:3]) for command in commands)
    raise RankerError(f"the script runs no {name}; it runs: {found or 'nothing'}")
