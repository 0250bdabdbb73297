"""The demo data: same bytes everywhere, the contract's formats, and no way to the answer but the one meant."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice, permutations
from pathlib import Path

import pytest

from benchmarks.script_commands import arguments_after, script_commands
from demo_world import files, scenes
from demo_world.files import HEADERS, MANIFEST, write_demo
from demo_world.scenes import (
    FIELDS,
    SPLITS,
    Group,
    groups,
    triples,
)
from paddle_ranker.commands.starter import StarterOptions
from paddle_ranker.metrics.auc import roc_auc
from paddle_ranker.options import parse_options
from tests.conftest import REPOSITORY, Call, largest_file, load_script

pytestmark = pytest.mark.unit
# Of every file of seed 7, 200 triples, 20 queries. It changes only with GENERATOR_VERSION.
SMALL_SHA256 = "4ab4ff69c48285e28174ea424ac80f70ef2e11a2df60f23d62e4d585243745fc"
SMALL = "--size 200 --queries 20"


script = load_script("datasets/make_demo.py")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, seed=7, size=200, queries=20)
    return folder


@pytest.fixture(scope="module")
def dev() -> list[Group]:
    return list(islice(groups(7, "dev"), 300))


@pytest.fixture(scope="module")
def train() -> list[tuple[str, str, str]]:
    return list(islice(triples(7), 6000))


def digest(folder: Path) -> str:
    """Return one checksum of all data files under `folder`."""
    every = hashlib.sha256()
    for name in sorted(HEADERS):
        every.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return every.hexdigest()


def rows(folder: Path, name: str) -> list[list[str]]:
    """Return the rows of a file, split as its readers do."""
    text = (folder / name).read_bytes().decode("utf-8")
    assert text.endswith("\n") and "\r" not in text
    return [line.split("\t") for line in text[:-1].split("\n")]


def run(folder: Path, *more: str) -> int:
    """Run the command with a small size; return its exit status."""
    return int(script.main(["--output_dir", str(folder), *SMALL.split(), *more]))


def test_the_bytes_are_frozen_whatever_the_hash_seed_and_the_locale(small: Path, tmp_path: Path) -> None:
    assert digest(small) == SMALL_SHA256  # under the seed of this process, drawn at its start
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(REPOSITORY), "LC_ALL": "C"}
    line = [sys.executable, str(REPOSITORY / "datasets/make_demo.py"), *f"--output_dir {tmp_path} {SMALL}".split()]
    subprocess.run(line, cwd=tmp_path, env=environment, check=True, timeout=60)
    assert digest(tmp_path) == SMALL_SHA256
    # Another seed gives other data, and a larger size begins with the smaller one.
    assert set(islice(triples(7), 100)).isdisjoint(islice(triples(8), 100))
    assert list(islice(triples(7), 200)) == [tuple(row) for row in rows(small, "sort/train_pairwise.csv")[1:]]


SHAPES = {  # columns and rows, of which a header may be one
    (3, 201): "sort/train_pairwise sort/dev_pairwise sort/dev_graded sort/test_graded "
    "literature_search_rank/dev_pairwise",
    (3, 200): "sort/test_pairwise",
    (3, 400): "literature_search_rank/train",
    (2, 200): "recall/train literature_search_rank/test",
    (2, None): "recall/dev recall/test",
    (1, 201): "sort/dev_kinds sort/test_kinds",
    (1, 400): "recall/train_unsupervised",
    (1, None): "recall/corpus milvus/milvus_data",
}


def test_every_file_has_its_format(small: Path) -> None:
    columns = {f"{name}.csv": shape for shape, names in SHAPES.items() for name in names.split()}
    assert set(columns) == set(HEADERS)
    for name, (width, count) in columns.items():
        content = rows(small, name)
        assert {len(row) for row in content} == {width}, name
        assert count is None or len(content) == count, name
        assert all(cell and cell == cell.strip() for row in content for cell in row), name
        known = {"query", "title", "neg_title", "label", "kind", "text"}
        assert known.issuperset(content[0]) if HEADERS[name] else known.isdisjoint(content[0]), name
    assert {row[2] for row in rows(small, "literature_search_rank/train.csv")} == {"0", "1"}
    assert all(0 <= float(row[2]) <= 1 for row in rows(small, "sort/test_pairwise.csv"))


def test_the_files_agree_with_each_other(small: Path) -> None:
    graded, binary = rows(small, "sort/dev_graded.csv"), rows(small, "sort/dev_pairwise.csv")
    assert [row[:2] for row in graded] == [row[:2] for row in binary]
    assert [int(row[2]) > 0 for row in graded[1:]] == [row[2] == "1" for row in binary[1:]]
    assert rows(small, "recall/dev.csv") == [row[:2] for row in binary[1:] if row[2] == "1"]
    corpus = [row[0] for row in rows(small, "recall/corpus.csv")]
    assert len(corpus) == len(set(corpus))
    assert set(corpus).issuperset(row[1] for row in binary[1:] + rows(small, "sort/test_pairwise.csv"))
    manifest = json.loads((small / MANIFEST).read_text())
    for name, facts in manifest["files"].items():
        assert hashlib.sha256((small / name).read_bytes()).hexdigest() == facts["sha256"]


def test_topics_and_wordings_of_the_splits_are_disjoint() -> None:
    heads = [{head for field in FIELDS for head in field.heads[split]} for split in SPLITS]
    by_split = (scenes.TITLE_FRAMES, scenes.BACKGROUND_FRAMES, scenes.DIRECTION_VERBS, scenes.NEW_MARKERS,
                scenes.GIVEN_NAMES, scenes.PLACES, scenes.COMPARISONS)  # fmt: skip
    new_words = [set(chain.from_iterable(chain.from_iterable(scenes.NEW_SYNONYMS[split]))) for split in SPLITS]
    for one in [heads, new_words, *([set(words[split]) for split in SPLITS] for words in by_split)]:
        assert len(set().union(*one)) == sum(map(len, one))
    # No head of one split within a head of another: titles on the one would hold the other.
    for one_split, other_split in permutations(heads, 2):
        assert not [(a, b) for a in one_split for b in other_split if a in b]


def test_no_title_of_dev_or_test_is_in_train(train: list[tuple[str, str, str]], dev: list[Group]) -> None:
    learned = {title for row in train for title in row[1:]}
    held_out = chain(dev, islice(groups(7, "test"), 300))
    assert learned.isdisjoint(title for group in held_out for title in group.titles)


def test_a_title_alone_tells_nothing(train: list[tuple[str, str, str]], dev: list[Group]) -> None:
    """Score dev titles by the log odds of their character n-grams in training (naive Bayes), without the query."""

    def ngrams(title: str) -> set[str]:
        return {title[i : i + n] for n in (1, 2, 3) for i in range(len(title) - n + 1)}

    good, bad = (Counter(chain.from_iterable(ngrams(row[column]) for row in train)) for column in (1, 2))
    odds = {ngram: math.log((good[ngram] + 1) / (bad[ngram] + 1)) for ngram in good | bad}
    scores = [sum(odds.get(ngram, 0.0) for ngram in ngrams(title)) for group in dev for title in group.titles]
    assert 0.45 < roc_auc([grade > 0 for group in dev for grade in group.grades], scores) < 0.55


def test_if_missing_leaves_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--if_missing") == 0
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in HEADERS}
    assert run(tmp_path, "--if_missing", "--seed", "8") == 0
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in HEADERS} == before
    assert "is there" in capsys.readouterr().out
    (tmp_path / "recall/dev.csv").unlink()
    assert run(tmp_path, "--if_missing") == 0
    assert digest(tmp_path) == SMALL_SHA256


def test_files_of_the_user_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "sort/train_pairwise.csv"
    mine.parent.mkdir()
    mine.write_text("mine\n")
    assert run(tmp_path) == 1
    assert str(mine) in capsys.readouterr().err
    assert run(tmp_path, "--if_missing") == 0
    assert mine.read_text() == "mine\n" and not (tmp_path / "sort/dev_pairwise.csv").exists()
    assert (tmp_path / "recall/corpus.csv").exists()
    assert run(tmp_path, "--if_missing") == 0  # and again, with the manifest of the other folders there
    assert mine.read_text() == "mine\n"
    assert run(tmp_path, "--force") == 0
    assert digest(tmp_path) == SMALL_SHA256
    assert run(tmp_path) == 0  # its own files it replaces
    edited = tmp_path / "milvus/milvus_data.csv"
    content = bytearray(edited.read_bytes())
    content[-2] ^= 1  # same length
    edited.write_bytes(content)
    assert run(tmp_path) == 1
    assert "--force" in capsys.readouterr().err and edited.read_bytes() == content


def test_a_failure_in_the_middle_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path)

    def full(seed: int) -> Iterator[tuple[str, str, str]]:
        yield from islice(triples(seed), 50)
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(files, "triples", full)
    assert run(tmp_path, "--seed", "9") == 1
    assert "no space left" in capsys.readouterr().err
    assert digest(tmp_path) == SMALL_SHA256
    assert not list(tmp_path.rglob("*.part"))


def test_a_disk_that_is_full_is_that_of_the_folder(tmp_path: Path, call: Call) -> None:
    with largest_file(100 * 512):
        status, _, message = call(script.main, "--output", tmp_path / "demo")
    assert status == 1 and f"error: {tmp_path / 'demo'}: larger than files may be here" in message
    assert not [path for path in (tmp_path / "demo").rglob("*") if path.is_file()]
    (tmp_path / "file").write_text("")
    status, _, message = call(script.main, "--output_dir", tmp_path / "file")
    assert status == 1 and "--output" in message and message.count("\n") == 1
    (tmp_path / MANIFEST).write_text("{")
    status, _, message = call(script.main, "--output_dir", tmp_path)
    assert status == 1 and MANIFEST in message


def test_runs_at_the_same_time_all_end_well(tmp_path: Path) -> None:
    """Scripts that were started together wait for one set-up, and then want the demo data at once."""
    command = [sys.executable, "datasets/make_demo.py", "--output", str(tmp_path), *SMALL.split(), "--if_missing"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    runs = [
        subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for run in runs:
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 0, errors
    assert {path.name for path in tmp_path.iterdir()} == {MANIFEST, *(name.split("/")[0] for name in HEADERS)}
    assert script.main(["--output_dir", str(tmp_path), *SMALL.split()]) == 0  # nothing there is anybody else's


@pytest.mark.parametrize("renames", [1, 8])
def test_a_run_killed_while_it_renames_is_mended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    run(tmp_path, "--seed", "8")
    real, left = files.os.replace, [renames]

    def killed(source: Path, target: Path) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", killed)
        assert run(tmp_path) == 130
    assert run(tmp_path, "--if_missing") == 0
    assert digest(tmp_path) == SMALL_SHA256


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ("--size 5", 2, "--size 5: must be at least 100"),
        ("--queries 0", 2, "--queries 0"),
        ("--seed -1", 2, "--seed -1"),
        ("--sise 100", 2, "did you mean --size?"),
        ("--size 100000000", 1, "lower --size"),
    ],
)
def test_options_out_of_range(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, arguments: str, status: int, words: str
) -> None:
    usage = files.shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    found, _, message = call(script.main, "--output_dir", tmp_path / "new", *arguments.split())
    assert found == status and words in message and message.count("\n") == 1


@pytest.mark.parametrize("name", ["train_pairwise.sh", "train_ce.sh"])
def test_the_starters_vocabulary_is_learned_from_no_text_of_dev_and_test(small: Path, name: str) -> None:
    arguments = arguments_after(script_commands(REPOSITORY / "scripts" / name), "starter")
    corpus = parse_options(StarterOptions, arguments, "starter", "").corpus.split(os.pathsep)
    of_corpus = [rows(small, os.path.relpath(path, REPOSITORY / "datasets")) for path in corpus]
    learned = {cell for table in of_corpus for row in table for cell in row}
    for split in SPLITS[1:]:
        held_out = {text for row in rows(small, f"sort/{split}_graded.csv")[1:] for text in row[:2]}
        assert len(held_out) > 100 and not held_out & learned
