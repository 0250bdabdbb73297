"""The environment of third-party libraries in this process: telemetry is off; HOME and TMPDIR can be written to.

Child processes inherit these settings, except the one for OpenVINO. Importing this module imports no library.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional, cast

# Switches of ONNX Runtime (from 1.29 on), several libraries (https://consoledonottrack.com), Hugging Face's, Ray,
# MLflow, and Weights & Biases (its reports of errors).
_TELEMETRY = {
    "ORT_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}
# Caches that are read in the user's HOME even if it is read-only: variable, folder, required content of the folder.
_CACHES = (("PADDLE_RANKER_CACHE", ".cache/paddle_ranker", ""), ("PPNLP_HOME", ".paddlenlp", "packages"))

AUTO_DEVICE = "auto"  # a GPU if there is one, else the CPU: `runtime.find_device`
SHARED_MEMORY = "/dev/shm"
_TEMPORARY = ("/tmp", "/var/tmp", "/usr/tmp", os.curdir)


def switch_off_telemetry() -> None:
    """Switch off the telemetry of libraries, and the ids that they store for it.

    Commands, trainings and everything that opens a model call this before they import the libraries. An environment
    variable that is set already keeps its value. OpenVINO has no such variable, but sends nothing if the package
    `openvino_telemetry` cannot be imported. So this process cannot import it; child processes still can.
    """
    for name, value in _TELEMETRY.items():
        os.environ.setdefault(name, value)
    cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)


def ensure_home() -> None:
    """If HOME is unset or cannot be written to, set it to a temporary folder; commands and `train` call this first.

    In containers with `--user`, HOME is often unset, "/" or read-only. But some libraries make folders in HOME and can
    use no other place: Paddle when it exports a model, PaddleNLP and VisualDL when they are imported. A user always
    gets the same temporary folder, so that the next command finds the files that this command fetched.

    If no temporary folder can be written to, TMPDIR becomes shared memory, which containers with a read-only file
    system have: Paddle asks for a temporary folder when it is imported.
    """
    if not any(map(_can_write, [*map(os.environ.get, ("TMPDIR", "TEMP", "TMP")), *_TEMPORARY])):  # as `tempfile` does
        os.environ["TMPDIR"] = SHARED_MEMORY
    home = os.path.expanduser("~")  # expands to "~" for a user without HOME and without an entry in /etc/passwd
    if _is_writable(home):
        os.environ["HOME"] = home
        return
    with suppress(OSError):  # without a temporary folder either, the library reports the missing folder
        temporary = _temporary_home()
        for name, folder, inside in _CACHES:
            if os.path.isdir(os.path.join(home, folder, inside)):
                os.environ.setdefault(name, os.path.join(home, folder))
        os.environ["HOME"] = temporary


def _is_writable(home: str) -> bool:
    cache = os.path.join(home, ".cache")
    folders = [home, cache] if os.path.exists(cache) else [home]
    return all(map(_can_write, folders))


def _can_write(folder: Optional[str]) -> bool:
    return folder is not None and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def _temporary_home() -> str:
    """Return this user's folder in the system's temporary folder; if another user owns it, return a new folder."""
    import tempfile  # most commands do not need it

    folder = os.path.join(tempfile.gettempdir(), f"paddle-ranker-home-{os.geteuid()}")
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    status = os.lstat(folder)
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return folder if is_own and _is_writable(folder) else tempfile.mkdtemp(prefix="paddle-ranker-home-")


def cache_folder(*parts: str) -> Path:
    """Return the path `parts` in the cache folder, without creating it.

    The cache folder is `PADDLE_RANKER_CACHE`, else `paddle_ranker` in `XDG_CACHE_HOME` or `~/.cache`.
    """
    folder = os.environ.get("PADDLE_RANKER_CACHE")
    root = (
        Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paddle_ranker"
    )
    return root.joinpath(*parts)
