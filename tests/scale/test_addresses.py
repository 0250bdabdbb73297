"""Inputs, models, indexes and outputs at addresses, with --ray: the bytes of local folders."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.data.rows.records import Pair, write_records
from paddle_ranker.errors import RankerError
from paddle_ranker.options import options_from
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.scale import parts as scale_parts
from paddle_ranker.scale.identity import Identity
from paddle_ranker.scale.parts import Parts
from paddle_ranker.scale.ray_serve import arguments_of, deploy_options, options_of
from paddle_ranker.stores import fetched
from tests.object_store import ObjectStore, object_store
from tests.tiny import HAN, write_index, write_ranker, write_tower

pytest.importorskip("ray")
pytestmark = pytest.mark.parity
PAIRS = 9000  # two parts


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ObjectStore]]:
    """A folder with models and files, the same at `s3://bucket/in`, and a cluster of two cores that all tests use."""
    from paddle_ranker.scale.cluster import connected

    folder = tmp_path_factory.mktemp("addresses")
    write_ranker(folder / "ranker")
    write_tower(folder / "tower")
    draw = random.Random(1)
    texts = ["".join(draw.choices(HAN, k=draw.randint(2, 40))) for _ in range(PAIRS)]
    # A query's rows are in both parts.
    write_records(folder / "pairs.parquet", [Pair(texts[n % 700][:4], text) for n, text in enumerate(texts)])
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    write_index(folder / "index", folder / "tower", [Document(str(n), text) for n, text in enumerate(texts[:500])])
    write_records(folder / "known.tsv", [Pair(text[:3], text) for text in texts[:300]])
    with object_store(tmp_path_factory.mktemp("store")) as store:
        for name in ("ranker", "tower", "index", "pairs.parquet", "texts.txt", "known.tsv"):
            store.put(folder / name, f"in/{name}")
        with connected("local", cores=2):
            yield folder, store


COMMANDS = {
    "predict": "predict --model IN/ranker --input IN/pairs.parquet",
    "topk": "predict --model IN/ranker --input IN/pairs.parquet --topk 2 --format json --min_probability 0.3",
    "encode": "encode --model IN/tower --input IN/texts.txt --dtype int8",
    "mine": "mine --queries IN/known.tsv --index IN/index --ranker IN/ranker --rank_to 8",
}


def run(line: str, where: object, *more: str) -> int:
    status: int = main([*line.replace("IN/", f"{where}/").split(), "--cpu_threads", "1", *more])
    return status


@pytest.mark.thorough(keep=2)
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_at_addresses_make_the_bytes_of_one_machine(
    name: str, place: tuple[Path, ObjectStore], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    folder, store = place
    file = {"encode": "v.npy", "mine": "m.tsv"}.get(name, "")
    assert run(COMMANDS[name], folder, *(("--output", str(tmp_path / file)) if file else ())) == 0
    expected = capfd.readouterr().out.encode() if not file else (tmp_path / file).read_bytes()
    dataset, made = scale_parts._dataset, list[str]()

    def dataset_elsewhere(source: Any, work: Any, parts: Parts, *more: Any) -> Any:
        """Let the processes find nothing that the command has fetched, as on other machines."""
        for copy, address in parts.identity.copies.items():
            made.append(address)
            shutil.rmtree(Path(copy).parent)
        return dataset(source, work, parts, *more)

    monkeypatch.setattr(scale_parts, "_dataset", dataset_elsewhere)
    ray = ("--ray", "local", "--actors", "1", "--output", f"s3://bucket/out/{name}/{file}".rstrip("/"))
    assert run(COMMANDS[name], "s3://bucket/in", *ray) == 0, capfd.readouterr().err
    assert sorted(made) == sorted(
        word.replace("IN", "s3://bucket/in") for word in COMMANDS[name].split() if "IN/" in word
    )
    if file:
        assert store.get(f"out/{name}/{file}") == expected
        beside = {"v.npy": ["v.npy", "v.scales.npy"]}.get(file, [file])
        assert [key for key in store.keys(f"out/{name}") if not key.endswith("/")] == [
            f"out/{name}/{one}" for one in beside
        ]
    else:
        parts = json.loads(store.get(f"out/{name}/manifest.json"))["parts"]
        assert b"".join(store.get(f"out/{name}/{part['name']}") for part in parts) == expected
        assert len([key for key in store.keys(f"out/{name}/") if not key.endswith("/")]) == len(parts) + 1
        assert not [key for key in store.keys(f"out/{name}.scored") if not key.endswith("/")]


@pytest.mark.thorough
def test_a_damaged_object_is_computed_again(place: tuple[Path, ObjectStore], capfd: pytest.CaptureFixture[str]) -> None:
    _, store = place
    ray = ("--ray", "local", "--actors", "1", "--output", "s3://bucket/again")
    assert run(COMMANDS["predict"], "s3://bucket/in", *ray) == 0
    good = store.get("again/part-000001.txt")
    store.client.put_object(Bucket="bucket", Key="again/part-000001.txt", Body=bytes(len(good)))
    assert run(COMMANDS["predict"], "s3://bucket/in", *ray) == 0
    assert "computed again: part-000001.txt" in capfd.readouterr().err
    assert store.get("again/part-000001.txt") == good
    assert run(COMMANDS["predict"], "s3://bucket/in", *ray) == 0
    assert "is done already" in capfd.readouterr().err
    assert run(f"{COMMANDS['predict']} --max_seq_length 9", "s3://bucket/in", *ray) == 1
    assert "s3://bucket/again: holds parts of other work, by --max_seq_length" in capfd.readouterr().err


@pytest.mark.parametrize("is_local", [True, False])
def test_two_commands_do_not_write_into_one_folder(
    is_local: bool, place: tuple[Path, ObjectStore], tmp_path: Path
) -> None:
    identity = Identity.of({}, {}, {}, None)
    first, second = (Parts(tmp_path / "out" if is_local else "s3://bucket/two", identity) for _ in range(2))
    with first.folder.alone():
        first.begin()
        first.write(0, "rows", ".txt", b"line\n", 1, {})
        if is_local:
            with pytest.raises(RankerError, match="out: another command works there"):
                second.folder.alone().__enter__()
            assert len(first.finish(1)) == 1
            return
        with second.folder.alone():
            assert [*second.begin()] == [0]
            with pytest.raises(RankerError, match=r"another command, on .*, has begun to work there"):
                first.finish(1)
            second.folder.require_alone()
            assert len(second.finish(1)) == 1
    assert sorted(first.folder.names()) == ["manifest.json", "part-000000.txt"]
    assert "two/driver.json" not in place[1].keys("two")


def test_a_deployment_names_addresses_and_holds_what_was_there(place: tuple[Path, ObjectStore], tmp_path: Path) -> None:
    """Each machine opens the address by itself, in a cache of its own, and nothing that was put there since."""
    _, store = place
    write_ranker(tmp_path / "first")
    write_ranker(tmp_path / "second", seed=2)
    address = store.put(tmp_path / "first", "deployed/ranker")
    arguments = arguments_of(options_from(deploy_options(), model=address, replicas="2"))
    version = Path(fetched(address)).parent.name
    assert arguments == {"model": address, "replicas": "2", "fetched": {address: version}}
    shutil.rmtree(Path(fetched(address)).parent)  # as on another machine
    options = options_of(arguments)
    assert (options.model / "vocab.txt").is_file() and options.model.name == "ranker"
    store.put(tmp_path / "second", "deployed/ranker")
    with pytest.raises(RankerError, match="deployed/ranker: is no longer what it was when this was deployed"):
        options_of(arguments)
