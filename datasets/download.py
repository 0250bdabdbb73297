"""Download the published literature search data sets, verify them and put them where the scripts look for them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from demo_world.files import has_only_demo_files
from paddle_ranker.errors import DataError, RankerError, UsageError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.options.declare import ANY_TEXT
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.storage.digest import file_sha256
from paddle_ranker.storage.download import fetch, forget, unpack


@dataclass(frozen=True)
class Published:
    """A published archive: its address, its folders and their new names, and its checksum if known."""

    url: str
    folders: dict[str, str]
    sha256: Optional[str] = None  # nobody published it; the first download's checksum is recorded and required later


PUBLISHED = {
    "literature_search_data": Published(
        "https://bj.bcebos.com/v1/paddlenlp/data/literature_search_data.zip",
        {"milvus": "milvus", "recall": "recall", "sort": "sort"},
    ),
    "literature_search_rank": Published(
        "https://paddlenlp.bj.bcebos.com/applications/literature_search_rank.zip",
        {"data": "literature_search_rank"},
    ),
}
RECORD = ".downloads.json"
Record = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class DownloadOptions(Options):
    """Options of `datasets/download.py`."""

    dataset: str = option("all", help="which data set", choices=("all", *PUBLISHED))
    output_dir: str = option(str(Path(__file__).resolve().parent), help="folder for sort/, recall/, ...", name="output")
    base_url: Optional[str] = option(
        None, help="a mirror: the archives are fetched from BASE_URL/<data set>.zip", addresses=ANY_TEXT
    )
    sha256: Optional[str] = option(None, help="checksum that the archive must have (with one --dataset)")
    attempts: int = option(3, help="number of times to resume an interrupted transfer", minimum=1, maximum=100)
    force: bool = option(False, help="download again, replacing data that is there")


def _read_record(folder: Path) -> Record:
    path = folder / RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not an object")
        return content
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): delete it and run again") from error


def _locate(unpacked: Path, published: Published, url: str) -> dict[str, Path]:
    """Return the places of the archive's folders, by their new names."""
    roots = [unpacked, *sorted(path for path in unpacked.iterdir() if path.is_dir())]
    root = next((path for path in roots if all((path / name).is_dir() for name in published.folders)), None)
    if root is None:
        found = ", ".join(sorted(path.name for path in unpacked.iterdir())) or "nothing"
        raise DataError(f"{url}: holds {found}, expected the folders {', '.join(published.folders)}")
    return {name: root / inside for inside, name in published.folders.items()}


def _sizes(folder: Path, name: str) -> dict[str, int]:
    return {f"{name}/{p.relative_to(folder).as_posix()}": p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def _move(new: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.replace(place, old)
    os.replace(new, place)
    shutil.rmtree(old, ignore_errors=True)


def _is_there(folder: Path, files: dict[str, int]) -> bool:
    return bool(files) and all(
        (folder / n).is_file() and (folder / n).stat().st_size == size for n, size in files.items()
    )


def _may_replace(folder: Path, place: str, files: dict[str, int]) -> bool:
    """Return whether a folder holds only files written by this command or by the demo data's."""
    return _sizes(folder / place, place).items() <= files.items() or has_only_demo_files(folder, place)


def download(name: str, options: DownloadOptions) -> None:
    """Fetch, verify and unpack one data set into `options.output_dir`; nothing is replaced before all is verified."""
    published, folder = PUBLISHED[name], Path(options.output_dir)
    url = f"{options.base_url.rstrip('/')}/{name}.zip" if options.base_url else published.url
    record = _read_record(folder)
    files: dict[str, int] = record.get(name, {}).get("files", {})
    if not options.force and _is_there(folder, files):
        held = record[name].get("sha256")
        if options.sha256 and held != options.sha256.lower():
            raise DataError(
                f"{folder}: {name} is there, of an archive with sha256 {held}, expected {options.sha256.lower()}; "
                "download it again with --force"
            )
        print(f"{folder}: {name} is there")
        return
    for place in published.folders.values():
        if not options.force and not _may_replace(folder, place, files):
            raise DataError(f"{folder / place} holds other data: move it away, or replace it with --force")
    part, unpacked = folder / f"{name}.zip.part", folder / f".{name}.unpacked"
    try:
        fetch(url, part, options.attempts)
    except RankerError as error:
        raise RankerError(
            f"{error}; there may be a mirror for --base_url, and datasets/make_demo.py makes demo data offline"
        ) from error
    found = file_sha256(part)
    wanted = options.sha256 or published.sha256 or record.get(name, {}).get("sha256")
    if wanted and found != wanted.lower():
        forget(part)
        raise DataError(f"{url}: sha256 {found}, expected {wanted.lower()}; the file was deleted: run again, or give "
                        f"--sha256 {found} if you trust it")  # fmt: skip
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    try:
        unpack(part, unpacked)
        places = _locate(unpacked, published, url)
        files = {file: size for place, new in places.items() for file, size in _sizes(new, place).items()}
        # Record first, so that after a kill in between the next run recognises the folders.
        record[name] = {"url": url, "sha256": found, "bytes": part.stat().st_size, "files": files}
        with new_file(folder / RECORD) as stream:
            json.dump(record, stream, indent=1, sort_keys=True)
        for place, new in places.items():
            _move(new, folder / place)
    except DataError:
        forget(part)  # the archive is complete, so resuming would fail again
        raise
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    forget(part)
    print(f"{folder}: {name}: {len(files)} files, {sum(files.values()) / 1e6:.1f} MB, sha256 {found}")


def run(options: DownloadOptions) -> int:
    """Download the requested data sets."""
    if options.sha256 and options.dataset == "all":
        raise UsageError("--sha256 belongs to one archive: give --dataset with it")
    try:
        Path(options.output_dir).mkdir(parents=True, exist_ok=True)
        for name in PUBLISHED if options.dataset == "all" else (options.dataset,):
            download(name, options)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise RankerError(f"{error.filename}: {error.strerror}; choose another folder with --output") from error
    return 0


main = main_of(run, DownloadOptions, __doc__, prog="download.py")


if __name__ == "__main__":
    sys.exit(main())
