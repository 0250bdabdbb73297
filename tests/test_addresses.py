"""Addresses of stores in options: fetched once, or refused by name, for every option of every command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.addresses import address_of, scheme_of
from paddle_ranker.commands.command_registry import COMMANDS
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.options.declare import (
    ANY_TEXT,
    REFUSED,
    ClusterOptions,
    Options,
    annotations_of,
    fields_of,
    require_cluster,
    shown_name,
)
from paddle_ranker.options.declare import _refuse_addresses as refuse_addresses
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.stores import Store, fetch_again, fetched, uploading
from tests.object_store import ObjectStore, object_store
from tests.tiny import write_ranker

pytestmark = pytest.mark.server
PLAIN_TEXT = {
    "allowed_hosts", "cors_origin", "examples", "group_by", "host", "id_column", "ids", "milvus_uri", "new_fields",
    "picture_hosts", "positive_label", "query",
    "query_prompt", "ray", "sentence", "served_name", "special_tokens", "teacher_model", "teacher_url", "template",
    "text", "text_1", "text_2", "text_column", "text_prompt", "title", "title_column", "tower",
    "uri", "url", "where",
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.mark.parametrize(
    "text, scheme",
    [
        ("s3://bucket/a b", "s3"),
        ("title=gs://bucket/tower", "gs"),
        ("HTTP://host", "HTTP"),
        ("what is s3://bucket", None),
        ("a:b//c", None),
        ("1x://host", None),
        ("/tmp/s3://x", None),
    ],
)
def test_a_scheme_is_seen_where_a_path_would_begin(text: str, scheme: str) -> None:
    assert scheme_of(text) == scheme


def every_options_class() -> list[type[Options]]:
    from paddle_ranker.scale.ray_serve import deploy_options

    COMMANDS.load_plugins()
    for command in COMMANDS.values():
        __import__(command.module)
    deploy_options()
    found, waiting = dict[type[Options], None](), [Options]
    while waiting:
        found[waiting[0]] = None
        waiting += [one for one in waiting.pop(0).__subclasses__() if one not in found]
    return [one for one in found if one.__module__.startswith(("paddle_ranker", "recall", "cross", "ernie", "multi"))]


def test_every_option_that_is_not_text_refuses_what_it_cannot_read() -> None:
    plain, checked = set(), 0
    for options in every_options_class():
        for field in fields_of(options):
            if not any(name in str(annotations_of(options)[field.name]) for name in ("str", "Path")):
                continue
            how = field.metadata["addresses"]
            if how == ANY_TEXT:
                plain.add(field.name)
                continue
            checked += 1
            with pytest.raises(UsageError, match=f"^{shown_name(field)} ftp://host/x: ftp:// is not known here"):
                refuse_addresses(field, ("a", "ftp://host/x") if field.metadata["several"] else "ftp://host/x")
            if how == REFUSED:
                with pytest.raises(UsageError, match=f"^{shown_name(field)} s3://b/x: takes no address"):
                    refuse_addresses(field, "s3://b/x")
    assert checked > 500
    assert plain - PLAIN_TEXT == set()


def test_what_is_no_address_of_a_cluster_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_cluster = [one for one in every_options_class() if "ray" in annotations_of(one)]
    assert len(of_cluster) > 4 and all(issubclass(one, ClusterOptions) for one in of_cluster)
    for address in ("ray://127.0.0.1:10001", "127.0.0.1", "host:", ":6379", "http://a:1", "a b:1", "[::1]", ""):
        with pytest.raises(UsageError, match=rf"^--ray {re.escape(repr(address))}: expected local, auto, or HOST"):
            require_cluster(address)
    for address in ("local", "auto", "10.0.0.1:6379", "[::1]:6379", "head.svc:6379"):
        require_cluster(address)
    (tmp_path / "a.tsv").write_text("a\tb\n")
    for line in ("predict --model m --input FILE --output o", "deploy ray --model m"):
        assert main([*line.replace("FILE", str(tmp_path / "a.tsv")).split(), "--ray", "ray://a:1"]) == 2
        assert "--ray 'ray://a:1': expected local, auto" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "index add --index s3://bucket/index --corpus a.tsv",
        "index build --corpus a.tsv --output s3:/bucket/index --tower ftp://host/tower",
        "index build --corpus a.tsv --output s3://bucket/index --shards 2",
        "index shard a.tsv --output s3://bucket/index --shards 2",
        "deploy ray --shards s3://bucket/index",
        "index build --corpus a.tsv --output index --field_tower picture=s3://bucket/tower",
        "evaluate --model ranker --test a.tsv --scores_file gs://bucket/scores.tsv",
        "train-pairwise --train a.tsv:webhdfs://host/b.tsv --test a.tsv --output x",
        "store ranker a.tsv --output s3://bucket/store",
        "export ranker --output s3://bucket/export",
    ],
)
def test_commands_refuse_before_they_write(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tsv").write_text("a\tb\t1\n")
    assert main(line.split()) == 2
    assert "://" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]


def test_what_is_fetched_is_fetched_once_and_anew_if_it_changes(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "m" / "in side").mkdir(parents=True)
    (tmp_path / "m" / "a#é?.txt").write_bytes(b"first")
    (tmp_path / "m" / "in side" / "b").write_bytes(b"")
    address = store.put(tmp_path / "m", "some/m")
    copy = Path(fetched(address))
    assert copy.name == "m" and {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()} == {
        "a#é?.txt",
        "in side/b",
    }
    assert (copy / "a#é?.txt").read_bytes() == b"first"
    before = copy.stat().st_ino
    assert fetched(f"{address}/") == str(copy) and copy.stat().st_ino == before
    assert address_of(f"{copy}/in side") == f"{address}/in side" and address_of("/etc") is None
    assert Path(fetched(f"{address}/a#é?.txt", beside=True)) == copy / "a#é?.txt"
    assert Path(fetched(f"{address}/a#é?.txt")).read_bytes() == b"first"

    (tmp_path / "m" / "a#é?.txt").write_bytes(b"other")  # of the same size, within the same second
    store.put(tmp_path / "m", "some/m")
    again = Path(fetched(address))
    assert (again / "a#é?.txt").read_bytes() == b"other" and (copy / "a#é?.txt").read_bytes() == b"first"
    (tmp_path / "gone").mkdir()
    with pytest.raises(RankerError, match="some/m: is no longer what it was"):
        fetch_again(str(tmp_path / "gone" / "m"), address)


def test_bad_addresses_are_refused_by_name(store: ObjectStore, tmp_path: Path) -> None:
    store.client.put_object(Bucket="bucket", Key="evil/../../../x", Body=b"x")
    cases = {
        "s3://bucket/evil": "outside the folder",
        "s3://bucket/nothing": "no such file or folder",
        "s3://nobucket/x": "s3://nobucket/x: ",
        "s3://key:secret@bucket/x": "s3://...@bucket: keys are taken from the environment",
        "s3:///x": "names no bucket",
        "ftp://host/x": "ftp:// is not known",
    }
    for address, fragment in cases.items():
        with pytest.raises(RankerError) as error:
            fetched(address)
        assert fragment in str(error.value) and "secret" not in str(error.value)
    with pytest.raises(RankerError, match="s3://nobucket"), uploading("s3://nobucket/v.npy"):
        raise AssertionError("the work has begun")


def test_a_store_writes_and_deletes_what_it_is_asked_to(store: ObjectStore, tmp_path: Path) -> None:
    folder = Store("s3://bucket/folder/")
    assert folder.names() == [] and folder.inside("x").read() is None and folder.inside("x").sha256() is None
    folder.inside("x").write(b"one")
    folder.inside("x").write(b"two")
    folder.inside("y/z").write(b"")
    assert store.get("folder/x") == b"two" and folder.names() == ["x", "y"]
    folder.inside("x").delete()
    folder.inside("x").delete()
    assert folder.names() == ["y"] and "folder/y/z" in store.keys("folder/")
    folder.delete()
    assert folder.names() == [] and not [key for key in store.keys("folder/") if not key.endswith("/")]
    with uploading("s3://bucket/made/v.npy") as path:
        Path(path).write_bytes(b"v")
        Path(path).with_name("v.scales.npy").write_bytes(b"s")
    assert [store.get(f"made/{name}") for name in ("v.npy", "v.scales.npy")] == [b"v", b"s"]
    with pytest.raises(FileNotFoundError), uploading("s3://bucket/made/w.npy") as path:
        Path(path).write_bytes(b"w")
        Path(path).with_name("none").read_bytes()
    assert "made/w.npy" not in store.keys("made")


def test_commands_read_models_and_files_at_addresses(
    store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ranker(tmp_path / "ranker")
    model = store.put(tmp_path / "ranker", "models/ranker")
    for name, line in (("a", "深度学习\t深度学习入门\n"), ("b", "水稻\t水稻病害\n")):
        (tmp_path / f"{name}.tsv").write_text(line, encoding="utf-8")
        store.put(tmp_path / f"{name}.tsv", f"pairs/{name}.tsv")
    local = [str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv")]
    printed = list[str]()
    for ranker, files in (
        (str(tmp_path / "ranker"), local),
        (model, ["s3://bucket/pairs/*.tsv"]),
        (f"{model}/model_state.pdparams", [f"{local[0]}:s3://bucket/pairs/b.tsv"]),
    ):
        assert main(["predict", "--model", ranker, "--input", *files]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] and len(set(printed)) == 1
    query, titles = "水稻", ["水稻病害", "深度学习"]
    scores = [Ranker.load(one).score([query] * 2, titles) for one in (model, tmp_path / "ranker")]
    assert (scores[0] == scores[1]).all()

    store.client.put_object(Bucket="bucket", Key="pairs/bad.tsv", Body=b"one column\n")
    assert main(["predict", "--model", model, "--input", "s3://bucket/pairs/bad.tsv"]) == 1
    assert "s3://bucket/pairs/bad.tsv, line 1" in capsys.readouterr().err  # not the copy's path
    assert main(["predict", "--model", model, "--input", "s3://bucket/none/*.tsv"]) == 2
    assert "--input s3://bucket/none/*.tsv: no file matches" in capsys.readouterr().err
