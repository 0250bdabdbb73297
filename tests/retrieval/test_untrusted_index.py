"""Index folders from elsewhere: each attack is refused in words, touches nothing outside, and takes no time."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shard_builds import recut
from paddle_ranker.retrieval.index.shards import open_index
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, TowerCopy, WordsInfo, read_manifest
from paddle_ranker.retrieval.stored.schema import MOST_FIELDS, Field, Schema
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from tests.checkout import ONCE
from tests.retrieval.test_conformance import SIZE, documents_of, vectors_of
from tests.serving_cases import SECONDS
from tests.tiny import write_index, write_tower

pytestmark = pytest.mark.unit
Attack = Callable[[Path, Path], object]
OUTSIDE = "segment-00000001-0123abcd"


def first_segment(folder: Path) -> Path:
    return folder / json.loads((folder / "index.json").read_bytes())["segments"][0]["name"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an index of every kind of file: a graph, removed rows, and what an addition has left."""
    folder = tmp_path_factory.mktemp("whole") / "index"
    info = IndexInfo(
        WordsInfo("bigram"), VectorsInfo("faiss", SIZE, "int8", "hnsw_sq8", hnsw_m=8), TowerCopy("tower", "0" * 16)
    )
    with pytest.MonkeyPatch.context() as patch, Collection.create(folder, info) as collection:
        patch.setattr("paddle_ranker.retrieval.vectors.faiss_index.LEAST", 16)
        collection.writer.add(documents_of(range(40)), vectors_of)
        collection.writer.add(documents_of(range(40, 44)), vectors_of)
        collection.writer.remove(["d3", "d5", "d41"])
    kept = shutil.copytree(first_segment(folder), folder / OUTSIDE)
    (folder / "unfinished.json").write_text(json.dumps([kept.name]), encoding="utf-8")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    shutil.copytree(whole / OUTSIDE, outside / OUTSIDE)
    (outside / "file.npy").write_bytes(b"outside")
    return Path(shutil.copytree(whole, tmp_path / "index"))


def use(folder: Path) -> None:
    """Search, change and merge an index; raise `AssertionError` for an answer that it cannot give."""
    known = {one.id for one in documents_of(range(50))}
    for write in (False, True):
        with Collection.open(folder, write=write) as collection:
            for where in (None, Filter.parse(["year>=3"])):
                for by in collection.info.searchers:
                    asked = ["水稻病害"] if by != "vectors" else vectors_of(["水稻"])
                    (hits,) = collection.snapshot().search(by, asked, 20, where)
                    assert {*hits.ids} <= known and np.isfinite(hits.scores).all()
            assert {one.id for one in collection.snapshot().documents()} <= known
            if write:
                collection.writer.add(documents_of(range(44, 48)), vectors_of)
                collection.writer.remove(["d1"])
                collection.writer.merge(None)


def outcome(folder: Path) -> Optional[str]:
    """Return why an index is refused, None if it is used; fail where it hangs, or raises what is no error of ours."""
    found: list[object] = []

    def work() -> None:
        try:
            use(folder)
            found.append(None)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work, daemon=True)  # which may hang
    thread.start()
    thread.join(SECONDS)
    assert found, "it hangs"
    if isinstance(found[0], BaseException) and not isinstance(found[0], RankerError):
        raise found[0]
    return None if found[0] is None else str(found[0])


def files_of(folder: Path) -> list[Path]:
    """Return a file of each name; those of the first segment alone."""
    return [*folder.glob("index.json"), *folder.glob("*.deleted-*"), folder / "unfinished.json", folder / "writer.lock",
            *sorted(first_segment(folder).iterdir())]  # fmt: skip


def in_manifest(change: Callable[[Any], object]) -> Attack:
    def attack(folder: Path, outside: Path) -> None:
        found = json.loads((folder / "index.json").read_bytes())
        change(found)
        (folder / "index.json").write_text(json.dumps(found), encoding="utf-8")

    return attack


def unfinished(*named: object) -> Attack:
    return lambda folder, outside: (folder / "unfinished.json").write_text(
        json.dumps([str(name).format(outside) for name in named]), encoding="utf-8"
    )


def removed(rows: Any) -> Attack:
    return lambda folder, outside: np.save(min(folder.glob("*.deleted-*")), np.array(rows))


def linked_segment(folder: Path, outside: Path) -> None:
    segment = first_segment(folder)
    shutil.move(segment, outside / segment.name)
    segment.symlink_to(outside / segment.name)


ATTACKS: dict[str, Attack] = {
    "a segment elsewhere": in_manifest(lambda found: found["segments"][0].update(name=f"../outside/{OUTSIDE}")),
    "an absolute segment": in_manifest(lambda found: found["segments"][0].update(name=f"/tmp/{OUTSIDE}")),
    "a segment twice": in_manifest(lambda found: found["segments"].append(found["segments"][0])),
    "removed rows elsewhere": in_manifest(lambda found: found["segments"][0].update(deleted="../outside/file.npy")),
    "a tower elsewhere": in_manifest(lambda found: found["tower"].update(folder="../outside")),
    "a file of Milvus elsewhere": in_manifest(
        lambda found: found["vectors"].update(method="milvus", uri="../outside/m.db", collection="a")
    ),
    "an address": in_manifest(
        lambda found: found["vectors"].update(method="milvus", uri="http://127.0.0.1:9", collection="a")
    ),
    "other vectors": in_manifest(lambda found: found["vectors"].update(size=SIZE * 2)),
    "another structure": in_manifest(lambda found: found["vectors"].update(structure="ivf_sq8")),
    "unfinished elsewhere": unfinished(f"../outside/{OUTSIDE}"),
    "unfinished by an absolute path": unfinished(f"{{}}/{OUTSIDE}"),
    "removed rows that there are none of": removed([1, 99]),
    "removed rows before the first": removed([-1, 2]),
    "a removed row twice": removed([2, 2]),
    "removed rows that are no numbers": removed(["a", "b"]),
    "a link to another segment": linked_segment,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_nothing_outside_is_touched(folder: Path, name: str) -> None:
    outside = folder.parent / "outside"
    ATTACKS[name](folder, outside)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in outside.rglob("*")}
    assert outcome(folder)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in outside.rglob("*")} == before


@pytest.mark.parametrize("what", ["pipe", "device", "link", "empty", "cut"])
def test_no_file_is_anything_but_what_was_written(folder: Path, what: str) -> None:
    for path in files_of(folder):
        kept = path.rename(folder.parent / "outside" / "kept")
        if what == "pipe":
            os.mkfifo(path)
        elif what in ("device", "link"):
            path.symlink_to("/dev/zero" if what == "device" else kept)
        else:
            path.write_bytes(b"" if what == "empty" else kept.read_bytes()[:-1])
        shown = outcome(folder)
        assert shown or (path.name == "writer.lock" and what in ("empty", "cut")), path.name
        path.unlink()
        kept.rename(path)
    assert outcome(folder) is None


def mutated(found: Any) -> Iterator[Any]:
    """Yield a value of JSON with each of its values replaced by others, or left out."""
    if isinstance(found, (dict, list)):
        for place, value in found.items() if isinstance(found, dict) else enumerate(found):
            for other in mutated(value):
                changed = found.copy()
                changed[place] = other
                yield changed
            changed = found.copy()
            del changed[place]
            yield changed
        if isinstance(found, dict):
            yield {**found, "more": 1}
    for other in (None, True, -1, 7, 10**30, 1.5, "../x", [], {"x": 1}):
        if other != found or type(other) is not type(found):
            yield other


@ONCE
@pytest.mark.parametrize("name", ["index.json", "segment.json", "unfinished.json"])
def test_a_changed_value_is_an_error_of_ours_or_gives_a_right_answer(whole: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "index"
    shutil.copytree(whole, folder)
    (path,) = (path for path in files_of(folder) if path.name == name)
    before = path.read_bytes()
    refused = 0
    for number, value in enumerate(islice(mutated(json.loads(before)), 0, None, 7)):
        path.write_text(json.dumps(value), encoding="utf-8")
        try:
            refused += outcome(folder) is not None
        except BaseException as error:
            raise AssertionError(f"{number}: {json.dumps(value)}") from error
        if {one.name for one in folder.iterdir()} != {one.name for one in whole.iterdir()}:
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
    assert refused


@ONCE
def test_a_mapped_file_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    """The process would be killed by SIGBUS."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.retrieval.test_untrusted_index import *\n"
        "from paddle_ranker.retrieval.stored.candidate_indexes import Document\n"
        "folder = Path(sys.argv[1])\n"
        "info = IndexInfo(WordsInfo('bigram'), VectorsInfo('faiss', 32, hnsw_m=8))\n"
        "with Collection.create(folder, info) as made:\n"
        "    made.writer.add((Document(f'd{n}', '水稻' * 99 + str(n)) for n in range(11_000)),\n"
        "             lambda texts: np.random.default_rng(0).normal(size=(len(texts), 32)))\n"
        "for path in [path for path in folder.glob('*/*') if path.stat().st_size > 1 << 20]:\n"
        "    opened, size, whole = Collection.open(folder), path.stat().st_size, path.read_bytes()\n"
        "    os.truncate(path, 4096)\n"
        "    now = opened.snapshot()\n"
        "    for ask in (lambda: now.search('words', ['水稻'], 5), lambda: now.matching(None).count(Filter(())),\n"
        "                lambda: now.search('vectors', np.ones((1, 32), np.float32), 5),\n"
        "                lambda: now.documents_of(['d10999']), lambda: now.missing(['d7']), now.documents):\n"
        "        try:\n            ask()\n            sys.exit(f'{path.name}: found something')\n"
        "        except RankerError as error:\n            assert 'cut short' in str(error), error\n"
        "    path.write_bytes(whole)\n    print(path.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "index")], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert {"vectors.npy", "vectors.faiss", "documents.jsonl", "offsets.npy"} - {*done.stdout.split()} <= {
        "offsets.npy"
    }


def many_fields(found: Any) -> None:
    found["schema"] = {**dataclasses.asdict(Schema()), "fields": [
        {**dataclasses.asdict(Field(f"f{n}", "stored"))} for n in range(20_000)]}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        many_fields,
        lambda found: found["others"].extend(f"a{n}" for n in range(20_000)),
        lambda found: found["segments"].extend({**found["segments"][0], "name": f"segment-{n:08}-01234567"}
                                               for n in range(100_000)),
        lambda found: found["words"].update(b=1000),
        lambda found: found["vectors"].update(hnsw_m=1 << 20),
        lambda found: found["vectors"].update(size=1 << 30),
    ],
)  # fmt: skip
def test_a_manifest_of_too_many_or_too_large_numbers_is_refused(folder: Path, change: Callable[[Any], object]) -> None:
    in_manifest(change)(folder, folder)
    with pytest.raises(CheckpointError, match="damaged"):
        read_manifest(folder)


def test_a_thousand_fields_and_thousands_of_segments_are_read(folder: Path) -> None:
    def change(found: Any) -> None:
        many_fields(found)
        del found["schema"]["fields"][MOST_FIELDS:]
        names = [f"segment-{n:08}-01234567" for n in range(5000)]
        found["segments"] = [
            {"name": name, "count": 2, "deleted": f"{name}.deleted-1.npy", "removed": 1} for name in names
        ]
        found["count"] = 5000

    in_manifest(change)(folder, folder)
    info = read_manifest(folder)
    assert (len(info.schema.fields), len(info.segments)) == (MOST_FIELDS, 5000)


def unchanged(outside: Path) -> dict[Path, tuple[int, int, int]]:
    found = {path: path.lstat() for path in sorted(outside.rglob("*"))}
    return {path: (one.st_ino, one.st_mtime_ns, one.st_size) for path, one in found.items()}


@pytest.fixture(scope="module")
def modelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an index with the copy of a tower, in two shards."""
    base = tmp_path_factory.mktemp("modelled")
    tower = write_tower(base / "tower")
    index = write_index(base / "index", tower, documents_of(range(6)))
    with Collection.open(index) as collection:
        recut(collection, base / "shards", 2)
    return base


def use_models(folder: Path) -> None:
    with open_index(folder, write=True) as collection:
        assert collection.snapshot().tower("vectors").query_vectors(["水稻"]).shape[0] == 1
        collection.writer.add([Document("new", "水稻")])
        collection.writer.remove(["d1"])


@pytest.mark.parametrize("kind", ["file", "file inside", "folder", "whole folder", "dangling", "pipe", "device"])
@pytest.mark.parametrize("name", ["index", "shards"])
def test_the_copy_of_a_model_names_nothing_outside(modelled: Path, tmp_path: Path, name: str, kind: str) -> None:
    root = Path(shutil.copytree(modelled / name, tmp_path / name))
    index, outside = (root if name == "index" else root / "shard-0000"), tmp_path / "outside"
    (tower,) = (path for path in index.iterdir() if path.name.startswith("tower"))
    shutil.copytree(tower, outside / "tower")
    use_models(Path(shutil.copytree(root, tmp_path / "whole")))
    for path in [path for path in sorted(tower.rglob("*")) if path.is_file()] if kind != "whole folder" else [tower]:
        kept = path.rename(tmp_path / "kept")
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.symlink_to(outside, target_is_directory=True)
        elif kind == "whole folder":
            path.symlink_to(outside / "tower", target_is_directory=True)
        else:
            target = {"file": outside / "tower" / path.name, "device": Path("/dev/zero"), "dangling": outside / "none"}
            path.symlink_to(target.get(kind, tower / ("a" + path.name)))
        before = unchanged(outside)
        with pytest.raises(CheckpointError, match="link"):
            use_models(root)
        assert unchanged(outside) == before, path
        path.unlink()
        kept.rename(path)
    use_models(root)


@pytest.mark.parametrize("name", ["index.json", "unfinished.json", "writer.lock", "contents", "deleted"])
def test_nothing_is_written_through_a_link(whole: Path, tmp_path: Path, name: str) -> None:
    folder, outside = Path(shutil.copytree(whole, tmp_path / "index")), tmp_path / "outside"
    outside.mkdir()
    (folder / "unfinished.json").unlink()
    collection = Collection.open(folder, write=True)
    if name == "deleted":  # the names that the next removal may take
        segment, generation = first_segment(folder), collection.info.generation
        paths = [segment.with_name(f"{segment.name}.deleted-{n}.npy") for n in range(generation + 1, generation + 9)]
    else:
        paths = [folder / name]
    for path in paths:
        target = outside / path.name
        path.rename(target) if path.exists() else target.write_bytes(b"outside")
        path.symlink_to(target)
    before = unchanged(outside)
    for change in (
        lambda: collection.writer.remove(["d1"]),
        lambda: collection.writer.add(documents_of(range(50, 54)), vectors_of),
        lambda: collection.writer.merge(None),
    ):
        with suppress(RankerError):
            change()
        assert unchanged(outside) == before
    collection.close()


def test_a_changed_set_of_shards_is_not_written_through_a_link(modelled: Path, tmp_path: Path) -> None:
    root, outside = Path(shutil.copytree(modelled / "shards", tmp_path / "shards")), tmp_path / "outside"
    outside.mkdir()
    with open_index(root, write=True) as shards:
        (root / "pending").symlink_to(outside, target_is_directory=True)
        before = unchanged(outside)
        with pytest.raises(CheckpointError, match="link"):
            shards.writer.remove([f"d{n}" for n in range(6)])
        assert unchanged(outside) == before
