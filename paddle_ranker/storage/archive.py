"""Unpack zip archives that come from the network."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from paddle_ranker.errors import DataError, RankerError

# An archive of texts stays far below these; one that does not is refused before it fills the disk.
MAX_ENTRIES, MAX_UNPACKED_BYTES, MAX_RATIO = 10_000, 50 * 1000**3, 200
_BLOCK = 1 << 20


def unpack(archive: Path, target: Path) -> None:
    """Unpack the zip `archive` into the empty folder `target`, checking names, sizes and every file's CRC.

    Raises `DataError` for a damaged archive and for one that would write outside `target`, holds links, or unpacks
    to more than an archive of texts can.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            entries = [entry for entry in source.infolist() if not entry.is_dir()]
            for entry in entries:
                _check_entry(archive, entry)
            size = sum(entry.file_size for entry in entries)
            ratio = size / max(1, archive.stat().st_size)
            if len(entries) > MAX_ENTRIES or size > MAX_UNPACKED_BYTES or ratio > MAX_RATIO:
                raise DataError(
                    f"{archive}: {len(entries):,} files of {size:,} bytes, {ratio:.0f} times the archive: refused as a "
                    f"zip bomb; check where it comes from"
                )
            if size > shutil.disk_usage(target).free:
                raise RankerError(f"{target}: no space for {size:,} bytes; free some or give another --output_dir")
            for entry in entries:
                path = target / entry.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                # zipfile stops at the stated size and raises where the CRC differs.
                with source.open(entry) as packed, path.open("xb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, FileExistsError) as error:
        raise DataError(f"{archive}: not a sound zip archive ({error}); download it again") from error
    except RuntimeError as error:  # zipfile's way of saying that a password is needed
        raise DataError(f"{archive}: {error}") from error


def _check_entry(archive: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    kind = stat.S_IFMT(entry.external_attr >> 16)
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or ".." in parts or "\\" in name or ":" in name or "\0" in name:
        raise DataError(f"{archive}: the entry {name!r} would be written outside the folder: refused")
    if kind not in (0, stat.S_IFREG):
        raise DataError(f"{archive}: the entry {name!r} is a link or a device: refused")
