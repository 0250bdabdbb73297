"""Download a file over HTTP, resuming an earlier transfer, and unpack zip archives."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from paddle_ranker.errors import DataError, RankerError, quoted
from paddle_ranker.progress import Progress
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.storage.streams import naming_the_file

_CONNECT_SECONDS, _READ_SECONDS = 5, 20
BLOCK = 1 << 14  # bytes; small, since an incomplete block is lost if the connection breaks


def _session() -> requests.Session:
    # PaddleNLP enables the warnings of all libraries; failed retries end in an error anyway.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    session = requests.Session()
    retry = Retry(total=2, backoff_factor=0.2, status_forcelist=(502, 503, 504), respect_retry_after_header=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def fetch(url: str, part: Path, attempts: int = 3) -> None:
    """Download `url` to `part`, resuming an earlier transfer if the file on the server has not changed.

    Raises `RankerError` if the host cannot be reached, for an HTTP error status, if the disk has too little space, or
    if the transfer stops `attempts` times. Received bytes stay in `part`.
    """
    with _session() as session:
        for attempt in range(attempts):
            try:
                total = _fetch_once(session, url, part)
            except requests.HTTPError as error:
                raise RankerError(f"{url}: HTTP {_status(error)}") from error
            except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ReadTimeout):
                continue
            except requests.RequestException as error:
                # A connection that breaks within the body raises ConnectionError, too; then `part` holds some bytes.
                if attempt + 1 == attempts or not part.exists():
                    raise RankerError(
                        f"{url}: cannot be reached ({type(error).__name__}); check the network and the proxy settings"
                    ) from error
                continue
            if part.stat().st_size == total:
                return
    received = part.stat().st_size if part.exists() else 0
    raise RankerError(f"{url}: the transfer stopped after {received:,} bytes; run again to go on from there")


def _status(error: requests.HTTPError) -> str:
    return f"{error.response.status_code} {error.response.reason}" if error.response is not None else "error"


def _fetch_once(session: requests.Session, url: str, part: Path) -> int:
    """Request the bytes of `url` that `part` lacks, or all if the file has changed; return the file's length.

    If the server sends no length, the result is the length of `part` after the request.
    """
    about = part.with_name(part.name + ".json")
    validator = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        metadata = json.loads(about.read_text(encoding="utf-8"))
        validator = metadata.get("validator") if metadata.get("url") == url else None
    held = part.stat().st_size if validator and part.exists() else 0
    # Compression would change length and offsets.
    headers = {"Accept-Encoding": "identity"}
    if held:
        headers.update({"Range": f"bytes={held}-", "If-Range": str(validator)})
    with session.get(url, headers=headers, stream=True, timeout=(_CONNECT_SECONDS, _READ_SECONDS)) as answer:
        if answer.status_code == 416:  # `part` was complete already, or the file on the server shrank: start again
            part.unlink()
            return _fetch_once(session, url, part)
        answer.raise_for_status()
        length = answer.headers.get("Content-Length")
        total = held_total = int(length) if length and length.isdigit() else None
        resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {held}-")
        if answer.status_code == 206 and not resumed:
            raise RankerError(f"{url}: the server sent another part than asked for; delete {part} and run again")
        if resumed and held_total is not None:
            total = held + held_total
        if total is not None and total - held > shutil.disk_usage(part.parent).free:
            raise RankerError(f"{part.parent}: no space for {total:,} bytes; free some, or choose another folder")
        # Only a strong validator may be used in If-Range (RFC 9110, section 13.1.5).
        etag = answer.headers.get("ETag", "")
        strong = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
        with new_file(about) as stream:
            json.dump({"url": url, "validator": strong}, stream)
        with (
            naming_the_file(part),
            part.open("ab" if resumed else "wb") as stream,
            Progress(
                total=total, initial=held if resumed else 0, unit="B", unit_scale=True, desc=part.stem, leave=False
            ) as bar,
        ):
            for block in answer.iter_content(BLOCK):
                stream.write(block)
                bar.update(len(block))
        return total if total is not None else part.stat().st_size


def forget(part: Path) -> None:
    """Delete a partial download and the JSON file with its metadata."""
    for path in (part, part.with_name(part.name + ".json")):
        path.unlink(missing_ok=True)


# Limits far above the needs of an archive of texts; larger archives are refused before they fill the disk.
MAX_ENTRIES, MAX_UNPACKED_BYTES, MAX_RATIO = 10_000, 50 * 1000**3, 200
_BLOCK = 1 << 20


def unpack(archive: Path, target: Path) -> None:
    """Unpack the zip `archive` into the empty folder `target`, checking names, sizes and every file's CRC.

    Raises `DataError` if the archive is damaged, would write outside `target`, holds links, or exceeds the limits
    `MAX_ENTRIES`, `MAX_UNPACKED_BYTES` and `MAX_RATIO`; `RankerError` if the disk has too little space.
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
                raise RankerError(f"{target}: no space for {size:,} bytes; free some or give another --output")
            for entry in entries:
                path = target / entry.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                # zipfile stops at the stated size, and checks the CRC.
                with naming_the_file(path), source.open(entry) as packed, path.open("xb") as unpacked:
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
        raise DataError(f"{archive}: the entry {quoted(name)} would be written outside the folder: refused")
    if kind not in (0, stat.S_IFREG):
        raise DataError(f"{archive}: the entry {quoted(name)} is a link or a device: refused")
