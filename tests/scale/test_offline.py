"""Files scored, encoded and mined by actors of a cluster: the bytes of one machine, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scale import descendants, kills
from paddle_ranker import version
from paddle_ranker.__main__ import main
from paddle_ranker.data.rows.records import Pair, RecordFile, read_records, write_records
from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.options import RowOptions
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scale.identity import Identity
from paddle_ranker.scale.offline import EncodeTexts, RowSource
from paddle_ranker.scale.parts import Parts, Work, run
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.storage.atomic import point
from paddle_ranker.storage.untrusted import Unchecked
from tests.conftest import REPOSITORY
from tests.robustness.doc_blocks import blocks, commands
from tests.started import started
from tests.tiny import HAN, write_index, write_ranker, write_tower

pytest.importorskip("ray")
pytestmark = pytest.mark.parity
PAIRS = 9000  # two parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A ranker, a tower and the same pairs in all formats, in a cluster of two cores that all tests use."""
    from paddle_ranker.scale.cluster import connected

    folder = tmp_path_factory.mktemp("offline")
    write_ranker(folder / "ranker")
    write_tower(folder / "tower")
    draw = random.Random(1)
    lines = [["".join(draw.choices(HAN, k=draw.randint(2, 40))) for _ in range(2)] for _ in range(PAIRS)]
    pairs = [Pair(query[:4], title) for query, title in lines]
    write_records(folder / "pairs.parquet", pairs)
    for name in ("a.tsv", "a.tsv.gz"):
        write_records(folder / name, pairs[:5000])
    write_records(folder / "b.jsonl", pairs[5000:])
    (folder / "bad.tsv").write_text((folder / "a.tsv").read_text(encoding="utf-8") + "one column\n", encoding="utf-8")
    (folder / "texts.txt").write_text("".join(f"{pair.title}\n" for pair in pairs), encoding="utf-8")
    documents = (Document(str(number), pair.title) for number, pair in enumerate(pairs[:1000]))
    write_index(folder / "index", folder / "tower", documents)
    write_records(folder / "known.tsv", [Pair(pair.title[:3], pair.title) for pair in pairs[:300]])
    with connected("local", cores=2):
        yield folder


@pytest.fixture
def call(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs a command in the folder and returns its output, its errors and its status."""
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[str, str, int]:
        capfd.readouterr()
        status = main([*arguments, "--cpu_threads", "1"])
        return (*capfd.readouterr(), status)

    return run


def joined(folder: Path) -> bytes:
    return b"".join((folder / one["name"]).read_bytes() for one in manifest(folder)["parts"])


def manifest(folder: Path) -> dict[str, Unchecked]:
    found: dict[str, Unchecked] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.thorough(keep=1)
@pytest.mark.parametrize(
    "options",
    [
        "--input pairs.parquet --windows max --max_seq_length 16",
        "--input a.tsv.gz b.jsonl --topk 2 --format json",
        "--input bad.tsv b.jsonl --skip_bad_rows --min_probability 0.5 --batch_size 7",
    ],
)
def test_parts_of_predict_are_what_one_machine_prints(call: Any, options: str, tmp_path: Path) -> None:
    predict = ["predict", "--model", "ranker", *options.split()]
    printed, notes, status = call(*predict)
    assert status == 0 and printed
    _, actors_notes, status = call(*predict, "--ray", "local", "--output", str(tmp_path / "out"))
    assert status == 0, actors_notes
    assert joined(tmp_path / "out").decode() == printed
    for note in ("skipped", "were cut", "windows", "min_probability"):
        assert [line for line in notes.splitlines() if note in line] == [
            line for line in actors_notes.splitlines() if note in line
        ]


@pytest.mark.thorough
def test_vectors_of_actors_are_the_bytes_of_one_machine(call: Any, tmp_path: Path) -> None:
    encode = ["encode", "--model", "tower", "--input", "texts.txt", "--dtype", "int8"]
    assert call(*encode, "--output", str(tmp_path / "one.npy"))[2] == 0
    assert call(*encode, "--output", str(tmp_path / "many.npy"), "--ray", "local", "--actors", "2")[2] == 0
    for suffix in (".npy", ".scales.npy"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"many{suffix}").read_bytes()
    assert not (tmp_path / "many.npy.parts").exists()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options", ["--corpus texts.txt --words bigram --ranker ranker", "--index index --format pairs"]
)
def test_negatives_of_actors_are_those_of_one_machine(call: Any, options: str, tmp_path: Path) -> None:
    """Also if the machine has the index in one folder, and they have it in shards."""
    mine = ["mine", "--queries", "known.tsv", "--rank_to", "8", *options.split()]
    outputs = [str(tmp_path / "one.tsv"), str(tmp_path / "many.tsv")]
    printed, _, status = call(*mine, "--output", outputs[0])
    assert status == 0
    if "index" in mine:
        shards = str(tmp_path / "shards")
        assert main(["index", "shard", "index", "--output", shards, "--shards", "3"]) == 0
        mine[mine.index("index")] = shards
    by_actors, _, status = call(*mine, "--output", outputs[1], "--ray", "local", "--actors", "2")
    assert status == 0
    assert Path(outputs[0]).read_bytes() == Path(outputs[1]).read_bytes()
    assert by_actors.splitlines()[-1] == printed.splitlines()[-1]  # candidates left out, by reason


@pytest.mark.parametrize(
    "options, fragment, status",
    [
        ("--input bad.tsv", "bad.tsv, line 5002", 1),
        ("--input nowhere.tsv", "nowhere.tsv: no such file", 1),
        ("--input a.tsv --device gpu:1", "Ray chooses which", 2),
        ("--input a.tsv --topk 2 --cascade ranker:3", "--cascade", 2),
    ],
)
def test_what_cannot_be_done_is_refused(call: Any, options: str, fragment: str, status: int, tmp_path: Path) -> None:
    output = ("--ray", "local", "--output", str(tmp_path / "out"))
    _, errors, found = call("predict", "--model", "ranker", *options.split(), *output)
    assert fragment in errors and found == status
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.thorough
def test_an_output_folder_holds_one_work(call: Any, tmp_path: Path) -> None:
    predict = ["predict", "--model", "ranker", "--ray", "local", "--input", "a.tsv", "--output", str(tmp_path / "out")]
    assert call(*predict)[2] == 0
    before = manifest(tmp_path / "out")
    assert "done already" in call(*predict)[1]
    for changed in ("--input b.jsonl", "--input a.tsv --max_seq_length 9", "--input a.tsv --positive_label 1"):
        _, errors, status = call(*predict[:5], *changed.split(), *predict[7:])
        assert status == 1 and "other work" in errors and changed.split()[-2] in errors
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    assert "other files" in call(*predict[:-1], str(tmp_path / "notes"))[1]
    assert manifest(tmp_path / "out") == before


@pytest.fixture
def predict(folder: Path, call: Any, tmp_path: Path) -> Any:
    """Return a function that predicts two parts into `out` with a model and an input of their own, by one actor."""
    shutil.copytree(folder / "ranker", tmp_path / "first")
    (tmp_path / "best").symlink_to(tmp_path / "first")
    shutil.copy(folder / "pairs.parquet", tmp_path / "pairs.parquet")

    def run(*options: str) -> tuple[str, str, int]:
        line = ["--model", str(tmp_path / "best"), "--input", str(tmp_path / "pairs.parquet")]
        output = ["--output", str(tmp_path / "out"), "--ray", "local", "--actors", "1"]
        found: tuple[str, str, int] = call("predict", *line, *output, *options)
        return found

    return run


@pytest.mark.thorough(keep=1)
@pytest.mark.parametrize("damage", ["deleted", "zeroed"])
@pytest.mark.parametrize("is_finished", [True, False])
def test_a_damaged_part_is_computed_again(predict: Any, damage: str, is_finished: bool, tmp_path: Path) -> None:
    assert predict()[2] == 0
    output, good = tmp_path / "out", joined(tmp_path / "out")
    parts = manifest(output)
    if not is_finished:  # as a killed command leaves it
        for part in parts["parts"]:
            (output / f"{part['name'][:11]}.facts.json").write_text(json.dumps(part), encoding="utf-8")
        (output / "begun.json").write_text(json.dumps({"made_of": parts["made_of"]}), encoding="utf-8")
        (output / "manifest.json").unlink()
    other, part = (output / one["name"] for one in parts["parts"])
    before = other.stat().st_ino
    if damage == "deleted":
        part.unlink()
    else:
        with part.open("r+b") as stream:
            stream.write(bytes(3900))
    _, errors, status = predict()
    assert status == 0 and "computed again: part-000001.txt" in errors
    assert joined(output) == good and other.stat().st_ino == before
    assert manifest(output) == parts and sorted(path.name for path in output.iterdir()) == [
        "manifest.json",
        "part-000000.txt",
        "part-000001.txt",
    ]
    assert "done already" in predict()[1]


def swap(name: str, folder: Path) -> None:
    """Replace what the tests' link, model or input names, as others would while a job runs."""
    if name == "best":
        write_ranker(folder / "second", seed=2)
        point(folder / "best", folder / "second")
    elif name == "first":
        write_ranker(folder / "second", seed=2)
        (folder / "first").rename(folder / "moved")
        (folder / "second").rename(folder / "first")
    else:
        shutil.copy(folder / name, folder / "other.parquet")
        pairs = [*read_records(folder / name, Pair)]
        write_records(folder / "other.parquet", [pairs[-1], *pairs[1:]])
        (folder / "other.parquet").rename(folder / name)


@pytest.mark.thorough
@pytest.mark.parametrize("swapped", ["best", "first", "pairs.parquet"])
def test_what_is_swapped_once_a_job_has_begun_is_not_mixed_in(
    predict: Any, swapped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predict()[2] == 0
    good = joined(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    begin = Parts.begin

    def begin_and_swap(parts: Parts) -> Any:
        found = begin(parts)
        swap(swapped, tmp_path)
        return found

    monkeypatch.setattr(Parts, "begin", begin_and_swap)
    _, errors, status = predict()
    if swapped == "best":  # the model of the moved link was resolved before
        assert status == 0 and joined(tmp_path / "out") == good
        return
    assert status == 1 and not (tmp_path / "out" / "manifest.json").exists()
    assert f"{swapped}: on {socket.gethostname()} it is not, or no longer, what it was" in errors


@pytest.mark.thorough
def test_parts_of_rows_that_were_replaced_meanwhile_are_computed_again(predict: Any, tmp_path: Path) -> None:
    """An input that was replaced while it was read, and put back, leaves parts of other rows behind."""
    assert predict()[2] == 0
    output, good = tmp_path / "out", joined(tmp_path / "out")
    parts = manifest(output)
    for part in parts["parts"]:
        facts = {**part, "source": "of other rows"} if part["number"] else part
        (output / f"{part['name'][:11]}.facts.json").write_text(json.dumps(facts), encoding="utf-8")
    last = {**parts["parts"][1], "number": 2, "name": "part-000002.txt"}
    shutil.copy(output / "part-000001.txt", output / last["name"])
    (output / "part-000002.facts.json").write_text(json.dumps(last), encoding="utf-8")
    (output / "begun.json").write_text(json.dumps({"made_of": parts["made_of"]}), encoding="utf-8")
    (output / "manifest.json").unlink()
    before = (output / "part-000001.txt").stat().st_ino
    assert predict()[2] == 0
    assert joined(output) == good and (output / "part-000001.txt").stat().st_ino != before
    assert not (output / "part-000002.txt").exists()


def test_parts_of_two_jobs_are_no_output(tmp_path: Path) -> None:
    jobs = [Parts(tmp_path / "out", Identity.of({"--model": digest}, {}, {}, None)) for digest in "ab"]
    assert jobs[0].begin() == {}
    for number, job in enumerate(jobs):
        job.write(number, "rows", ".txt", b"line\n", 1, {})
    with pytest.raises(CheckpointError, match=r"part-000001\.txt: is of another job"):
        jobs[0].finish(2)
    assert [*jobs[0].begin()] == [0]


@pytest.mark.thorough(keep=1)
@pytest.mark.parametrize("command", ["predict", "encode", "mine", "index"])
def test_another_version_on_a_machine_is_refused_by_name(
    call: Any, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = {
        "predict": "predict --model ranker --input a.tsv",
        "encode": "encode --model tower --input texts.txt",
        "mine": "mine --queries known.tsv --corpus texts.txt",
        "index": "index build --corpus texts.txt --shards 2",
    }
    there = version.__version__
    monkeypatch.setattr(version, "__version__", "9.9.9")  # of the command, not of the cluster's processes
    _, errors, status = call(*lines[command].split(), "--output", str(tmp_path / "out"), "--ray", "local")
    assert status == 1
    assert f"{socket.gethostname()} has paddle_ranker {there}, the command's machine 9.9.9" in errors


@pytest.mark.thorough
def test_a_job_is_not_continued_with_another_version(predict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert predict()[2] == 0
    monkeypatch.setattr(version, "__version__", "9.9.9")
    assert "holds parts of other work, by the version of paddle_ranker" in predict()[1]


def test_a_row_that_ends_its_process_ends_the_job(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [*read_records(folder / "pairs.parquet", Pair)]
    write_records(tmp_path / "pairs.parquet", [*pairs[:-1], Pair("poison", "poison")])
    ends = tmp_path / "ends"

    class Poisoned(Work):
        extension = ".txt"

        def open(self) -> None:
            pass

        def compute(self, rows: Any) -> tuple[bytes, int, dict[str, int]]:
            if ["poison"] in rows:
                with ends.open("a") as stream:
                    stream.write(".")
                os.kill(os.getpid(), signal.SIGKILL)
            return b"line\n" * len(rows), len(rows), {}

    source = RowSource(RecordFile(str(tmp_path / "pairs.parquet"), Pair, RowOptions()), ("query",))
    parts = Parts(tmp_path / "out", Identity.of({}, {}, {}, None))
    with pytest.raises(RankerError, match=r"part 1 \(rows 8,193 to 9,000\) has ended its process 3 times"):
        run(source, Poisoned(), parts, "local", actors=1)
    assert ends.read_text() == "..."
    assert [*parts.begin()] == [0]  # what was whole stays


@pytest.mark.parametrize("command", ["predict --model ranker", "encode --model tower", "mine --corpus a.tsv --queries"])
def test_pipes_and_addresses_are_refused_unread(call: Any, command: str, tmp_path: Path) -> None:
    words = command.split() if "--queries" in command else [*command.split(), "--input"]
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # opening it would wait for a writer
    reader, writer = os.pipe()
    os.write(writer, b"a\tb\n")
    for pipe in (str(fifo), f"/dev/fd/{reader}"):
        _, errors, status = call(*words, pipe, "--output", str(tmp_path / "out"), "--ray", "local")
        assert status == 2 and f"{pipe} is a pipe" in errors
    assert os.read(reader, 9) == b"a\tb\n"
    os.close(writer)
    os.close(reader)
    _, errors, status = call(*words, "a.tsv", "--output", "ftp://host/out", "--ray", "local")
    assert status == 2 and "--output ftp://host/out: ftp:// is not known here" in errors and not Path("ftp:").exists()


@pytest.mark.thorough
@pytest.mark.slow
def test_killed_command_and_actor_lose_nothing_and_repeat_nothing(call: Any, folder: Path, tmp_path: Path) -> None:
    import ray

    write_records(
        tmp_path / "long.tsv", [pair for pair in read_records(folder / "pairs.parquet", Pair) for _ in range(4)]
    )
    predict = ["predict", "--model", str(folder / "ranker"), "--input", str(tmp_path / "long.tsv")]
    printed, _, _ = call(*predict)
    output, killed = tmp_path / "out", list[int]()

    def finished() -> dict[str, int]:
        names = [f"{one.name[:11]}.txt" for one in output.glob("part-*.facts.json")]
        return {name: (output / name).stat().st_ino for name in names}

    address = ray.get_runtime_context().gcs_address
    line = [*predict, "--cpu_threads", "1", "--output", str(output), "--ray", address, "--actors", "2"]
    with started([sys.executable, "-m", "paddle_ranker", *line], tmp_path / "command") as command:
        command.until(lambda: len(finished()) >= 1)
        command.process.kill()
    first, later = finished(), dict[str, int]()

    def kill() -> None:
        while len(later) <= len(first):
            time.sleep(0.02)
            later.update(finished())
        for process, name in descendants(os.getpid()).items():
            if name.startswith("ray::MapWorker"):
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert call(*predict, "--ray", "local", "--output", str(output))[2] == 0
    killer.join()
    assert killed and joined(output).decode() == printed
    # A part that is written again is a new file.
    assert {name: (output / name).stat().st_ino for name in later} == later and first.items() <= later.items()


@pytest.mark.thorough
@pytest.mark.slow
def test_killed_node_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    cells = kills(tmp_path, 40_000, 1, ["node"]).splitlines()[-1].replace(" ", "")
    assert cells == "|node|1|1|1|0|"  # runs, without an error, equal to one machine's; parts that were written again


@pytest.mark.thorough
def test_the_page_s_lines_and_pipeline_run_as_printed(call: Any, folder: Path) -> None:
    from ray import data

    made = {"checkpoint/best": "ranker", "TOWER": "tower", "pairs.tsv": "known.tsv", "titles.tsv": "few.txt"}
    (folder / "few.txt").write_text("深度学习\n水稻病害\n", encoding="utf-8")
    for name, target in {**made, "texts.tsv": "few.txt"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(folder / target)
    shown = blocks(REPOSITORY / "docs" / "scale.md", "docs/scale.md")
    lines = [line for block in shown for _, line, _ in commands(block) if "--ray local --output" in line]
    assert [line.split()[1] for line in lines] == ["predict", "encode", "mine"]
    for line in lines:
        _, errors, status = call(*line.split()[1:])
        assert status == 0, errors

    (pipeline,) = [block.text for block in shown if "paddle_ranker.scale.offline" in block.text]
    queries, titles = map(list, zip(*((pair.query, pair.title) for pair in read_records(folder / "known.tsv", Pair))))
    rows = [{"query": query, "title": title} for query, title in zip(queries, titles)]
    # The cluster was started in another folder.
    places = {f'"{name}"': repr(str(folder / name)) for name in ("checkpoint/best", "scored_pairs")}
    for printed, given in {'[{"query": "a query", "title": "a title"}]': repr(rows), **places}.items():
        assert printed in pipeline
        pipeline = pipeline.replace(printed, given)
    exec(compile(pipeline, "<a page>", "exec"), {})  # noqa: S102
    scored = data.read_parquet(str(folder / "scored_pairs"))
    actors = {"compute": data.ActorPoolStrategy(size=1), "num_cpus": 0.5, "batch_size": 128}
    made_rows = scored.map_batches(EncodeTexts, fn_constructor_args=(str(folder / "tower"), "title"), **actors)
    found = {(row["query"], row["title"]): row for row in made_rows.take_all()}
    ours = [found[pair] for pair in zip(queries, titles)]
    probabilities = Ranker.load(folder / "ranker").score(queries, titles)
    np.testing.assert_allclose([row["probability"] for row in ours], probabilities, atol=1e-6)
    np.testing.assert_allclose([row["vector"] for row in ours], Tower.open(folder / "tower").vectors(titles), atol=1e-5)
