"""Folders of shards against one folder with the same documents, by equality: built, searched, written to, killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.data.records import DocumentRow
from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.retrieval import shards as shards_module
from paddle_ranker.retrieval.collection import Collection
from paddle_ranker.retrieval.indexes import Document
from paddle_ranker.retrieval.manifest import IndexInfo, write_manifest
from paddle_ranker.retrieval.shards import SHARDS, open_index, shard_folders, shard_name, write_shards
from tests.retrieval.test_shards import DOCUMENTS, INFO, SHARES, vectors_of

pytestmark = pytest.mark.unit


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Write the same documents into one folder and into a folder of three shards."""
    one, several = tmp_path / "one", tmp_path / "several"
    names = [shard_name(number) for number in range(3)]
    for folder, share in zip((one, *(several / name for name in names)), (slice(0, 60), *SHARES)):
        with Collection.create(folder, INFO) as collection:
            collection.add(DOCUMENTS[share], vectors_of)
    write_shards(several, names)
    return one, several


def scored(folder: Path) -> list[object]:
    """Return the score of every document by searcher and query, and the documents: a write changes their order."""
    with open_index(folder) as index:
        asked: dict[str, Any] = {"words": ["水稻病害", "护理", "新的", "题3"]}
        asked["vectors"] = vectors_of(asked["words"])
        found = [dict(zip(*hits[:2])) for by in asked for hits in index.search(by, asked[by], 200)]
        return [*found, {one.id: (one.text, one.fields, one.version) for one in index.documents()}, len(index)]


def test_shards_are_written_to_as_one_folder_is(folders: tuple[Path, Path]) -> None:
    one, several = folders
    wanted = [{one.id for one in Collection.open(folder).documents()} for folder in shard_folders(several)]
    wanted[0] |= {"new", "1", "2", "3"}  # to the smallest
    told = []
    for folder in folders:
        with open_index(folder, write=True) as writing:
            changed = [Document(id, "新的文本。老年人", {"kind": "a"}) for id in ("d00", "d35", "d59", "new")]
            added = [writing.add([*changed, DOCUMENTS[6]], vectors_of)]
            rows = [
                DocumentRow("无号文本"),
                DocumentRow("无号文本"),
                DocumentRow(DOCUMENTS[9].text, None, {"title": DOCUMENTS[9].fields["title"]}),
                DocumentRow("另一文本", "2"),
                DocumentRow("第三"),
            ]
            added.append(writing.add_rows(rows, vectors_of))
            if folder == several:
                assert [{one.id for one in Collection.open(part).documents()} for part in writing.folders] == wanted
            removed = writing.remove(["d10", "d40", "d48", "none"])
            added.append(
                writing.add_rows(
                    [DocumentRow(one.text, one.id, one.fields) for one in DOCUMENTS[:30]], vectors_of, sync=True
                )
            )
            with pytest.raises(DataError, match="two of this id"):
                writing.add([Document("x", "甲"), Document("x", "乙")], vectors_of)
        told.append((added, removed))
    assert told[0] == told[1]
    assert scored(several) == scored(one)


def test_a_killed_write_of_several_shards_is_whole_or_not_at_all(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, written = folders[1], list[Path]()
    ids = [next(Collection.open(one).documents()).id for one in shard_folders(folder)]

    def killed(where: Path, info: IndexInfo) -> None:
        if len(written) == steps:
            raise KeyboardInterrupt
        written.append(where)
        write_manifest(where, info)

    def texts() -> set[str]:
        with open_index(folder) as index:
            return {one.text for one in index.documents_of(ids).values()}

    for steps in range(7):  # three manifests that are pending, then the three of the shards
        written.clear()
        before, change = texts(), [Document(id, f"第{steps}次") for id in ids]
        with monkeypatch.context() as patch, open_index(folder, write=True) as writing:
            patch.setattr(shards_module, "write_manifest", killed)
            if steps < 6:
                with pytest.raises(KeyboardInterrupt):
                    writing.add(change, vectors_of)
            else:
                writing.add(change, vectors_of)
        after = texts()
        assert after == (before if steps < 3 else {f"第{steps}次"})
        open_index(folder, write=True).close()
        assert texts() == after and [len(Collection.open(one)) for one in shard_folders(folder)] == [7, 33, 20]
        assert {path.name for path in folder.iterdir()} == {SHARDS, *map(shard_name, range(3))}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "damaged"),
        ('{"format": 9, "shards": []}', "newer than this version"),
        ('{"format": 1, "shards": ["shard-0000", "../one"]}', "damaged"),
        ('{"format": 1, "shards": ["shard-0000", "shard-0000"]}', "damaged"),
        ('{"format": 1, "shards": ["shard-0000", "shard-0009"]}', "shard-0009: is no index"),
    ],
)
def test_what_is_no_folder_of_shards_is_refused(folders: tuple[Path, Path], content: str, match: str) -> None:
    (folders[1] / SHARDS).write_text(content)
    with pytest.raises(CheckpointError, match=match):
        open_index(folders[1])
