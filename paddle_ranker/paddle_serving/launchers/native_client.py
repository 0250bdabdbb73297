"""Paddle Serving's own native client, on systems that lack the libraries it was linked with.

`paddle_serving_client.Client` is a compiled module of 2022. It needs OpenSSL 1.0, which `scripts/setup.sh complete`
unpacks into the environment's folder `openssl10`; a symbol that glibc hides since 2.34; and a library with the name of
Python's shared library, even if this Python was built without a shared library. OpenSSL 1.0 has had no security fixes
since 2019: load it only in a separate process, for servers on this machine and for tests. The clients in
`paddle_ranker.paddle_serving.clients` need none of these libraries.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

from paddle_ranker.errors import DependencyError, in_checkout
from paddle_ranker.storage.atomic import cache_folder, made_once, new_folder

OPENSSL_FOLDER = "openssl10"  # in the environment's own folder
_EXTENSION = "paddle_serving_client.serving_client"
# The library names that the extension is linked with. OpenSSL's unpacked libraries have other names.
_NAMES = ("libcrypto.so.10", "libssl.so.10")
_FORWARDER = """\
#define _GNU_SOURCE
#include <dlfcn.h>
void *_dl_sym(void *handle, const char *name, void *caller) { (void)caller; return dlsym(handle, name); }
"""


def native_client() -> Any:
    """Load the libraries that `paddle_serving_client.Client` needs into this process, and return that class.

    Raises `DependencyError`, which says what to install, if the package, its OpenSSL or a C compiler is missing.
    """
    try:
        client: Any = importlib.import_module("paddle_serving_client").Client
    except ImportError as error:
        raise DependencyError(f"the native client needs paddle-serving-client ({error}): {_setup()}") from error
    if _load_error() is None:
        return client
    _load_libraries()
    left = _load_error()
    if left is not None:
        raise DependencyError(f"Paddle Serving's native client does not load here ({left}); set it up: {_setup()}")
    return client


def _setup() -> str:
    return in_checkout("bash scripts/setup.sh complete")


def _load_error() -> Optional[ImportError]:
    try:
        importlib.import_module(_EXTENSION)
    except ImportError as error:
        return error
    return None


def _load_libraries() -> None:
    folder = Path(sys.prefix) / OPENSSL_FOLDER / "pymssql.libs"
    if not folder.is_dir():
        raise DependencyError(f"the native client needs OpenSSL 1.0, and there is no {folder}: {_setup()}")
    _load_all(sorted(folder.iterdir()))
    for library in _stub_libraries():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def _load_all(libraries: list[Path]) -> None:
    """Load libraries in an order in which they find each other. Only OpenSSL's symbols become global."""
    while libraries:
        left, reason = [], None
        for library in libraries:
            visible = library.name.startswith(("libcrypto", "libssl"))
            try:
                ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL if visible else ctypes.RTLD_LOCAL)
            except OSError as error:
                left.append(library)
                reason = error
        if len(left) == len(libraries):
            raise DependencyError(f"{left[0]}: does not load ({reason}); set it up again: {_setup()}") from reason
        libraries = left


def _stub_libraries() -> list[Path]:
    """Return the paths of stub libraries with the names that the extension needs. Compile them at the first call.

    If glibc hides the symbol that the extension needs, the stubs define it. Otherwise they are empty.
    """
    names = [*_NAMES]
    python = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"
    if not _is_loaded(python):
        names.append(python)  # the program itself has the symbols
    source = "" if hasattr(ctypes.CDLL(None), "_dl_sym") else _FORWARDER
    key = hashlib.sha256(repr((names, source, platform.libc_ver(), platform.machine())).encode()).hexdigest()[:16]
    folder = cache_folder("native_client", key)
    with made_once(folder) as is_missing:
        if is_missing:
            with new_folder(folder) as temporary:
                for name in names:
                    _compile(source, temporary / name)
    return [folder / name for name in names]


def _is_loaded(name: str) -> bool:
    try:
        ctypes.CDLL(name, os.RTLD_NOLOAD)
    except OSError:
        return False
    return True


def _compile(source: str, target: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise DependencyError(
            "the native client needs a C compiler once, and there is no cc on PATH: install gcc (apt-get install gcc)"
        )
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(target), f"-Wl,-soname,{target.name}"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DependencyError(f"{compiler} cannot make {target.name}: {done.stderr.strip()[-200:]}")
