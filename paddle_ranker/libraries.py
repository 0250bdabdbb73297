"""What other people's libraries find in this process: telemetry that is off, and a HOME where they can write.

Children inherit both, but for what `switch_off_telemetry` says. Importing this module imports no library.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from typing import Any, cast

# ONNX Runtime from 1.29 on; Hugging Face's libraries, among others (https://consoledonottrack.com); these alone.
_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
# Read in the user's HOME even where that is read-only: the variable, the folder, and what must be inside it already.
_CACHES = (("PADDLE_RANKER_CACHE", ".cache/paddle_ranker", ""), ("PPNLP_HOME", ".paddlenlp", "packages"))


def switch_off_telemetry() -> None:
    """Let no library report its use over the network, or keep an id for that; importing `paddle_ranker` calls this.

    Call it before the libraries are imported. A variable that is set already keeps its value. OpenVINO has no switch:
    it reports through the package `openvino_telemetry` and does without if that cannot be imported. This holds for
    the process alone: a child that imports OpenVINO has to import `paddle_ranker` first.
    """
    for name, value in _TELEMETRY.items():
        os.environ.setdefault(name, value)
    cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)


def ensure_home() -> None:
    """Set HOME to a temporary folder if there is none or it cannot be written; commands and `train` call this first.

    Containers with `--user` often have no HOME, or "/", or a read-only one. But some libraries make folders there and
    know no other place: Paddle when it exports a model, PaddleNLP and VisualDL when they are imported. The folder is
    one a user, so that the next command finds what this one has fetched.
    """
    home = os.path.expanduser("~")  # "~" itself for a user without HOME and without an entry in /etc/passwd
    if _is_writable(home):
        os.environ["HOME"] = home
        return
    with suppress(OSError):  # no temporary folder either: what needs a place to write will say so
        temporary = _temporary_home()
        for name, folder, inside in _CACHES:
            if os.path.isdir(os.path.join(home, folder, inside)):
                os.environ.setdefault(name, os.path.join(home, folder))
        os.environ["HOME"] = temporary


def _is_writable(home: str) -> bool:
    cache = os.path.join(home, ".cache")
    folders = [home, cache] if os.path.exists(cache) else [home]
    return all(os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK) for folder in folders)


def _temporary_home() -> str:
    """Return this user's own folder in the system's temporary one; a new one if somebody else has taken its name."""
    import tempfile  # not needed by most commands

    folder = os.path.join(tempfile.gettempdir(), f"paddle-ranker-home-{os.geteuid()}")
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return folder if is_own and _is_writable(folder) else tempfile.mkdtemp(prefix="paddle-ranker-home-")
