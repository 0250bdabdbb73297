"""Encoded pairs in memory and on a disk: the same batches, nothing left behind, nothing left in memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ernie_matching.data import encode_triples, join_triples
from paddle_ranker.data.rows.records import Triple
from paddle_ranker.encoding.batching import BatchPlan, training_batches
from paddle_ranker.encoding.column_store import PairCollector
from paddle_ranker.encoding.columns import EncodedPairs, offsets_of
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import RankerError
from paddle_ranker.storage.arrays import gather, map_array
from tests.conftest import REPOSITORY, largest_file, run_python

pytestmark = pytest.mark.unit


def random_pairs(count: int, seed: int, ids_type: type = np.int32) -> EncodedPairs:
    random = np.random.RandomState(seed)
    lengths = random.randint(5, 40, count)
    ids = random.randint(0, 30_000, lengths.sum()).astype(ids_type)
    return EncodedPairs(ids, offsets_of(lengths), (lengths // 2).astype(np.int32))


def collect(folder: Path, max_bytes: int) -> tuple[EncodedPairs, dict[str, np.ndarray]]:
    collector = PairCollector(folder, max_bytes)
    for seed in range(20):
        collector.append(random_pairs(100 + seed, seed), labels=np.full(100 + seed, seed, np.float32))
    return collector.finish()


def assert_equal_pairs(pairs: EncodedPairs, expected: EncodedPairs) -> None:
    for name in ("ids", "offsets", "second_starts"):
        np.testing.assert_array_equal(getattr(pairs, name), getattr(expected, name))
        assert getattr(pairs, name).dtype == getattr(expected, name).dtype


def lies_on_disk(pairs: EncodedPairs) -> bool:
    arrays = (pairs.ids, pairs.offsets, pairs.second_starts)
    assert len({isinstance(array, np.memmap) for array in arrays}) == 1
    return isinstance(pairs.ids, np.memmap)


# Twenty chunks of about 12 KB: in memory, on a disk from somewhere in the middle, on a disk from the first one on.
@pytest.mark.parametrize(("max_bytes", "on_disk"), [(1 << 30, False), (120_000, True), (0, True)])
def test_what_was_collected_comes_back(tmp_path: Path, max_bytes: int, on_disk: bool) -> None:
    pairs, columns = collect(tmp_path, max_bytes)
    assert_equal_pairs(pairs, EncodedPairs.concat([random_pairs(100 + seed, seed) for seed in range(20)]))
    assert list(columns) == ["labels"] and columns["labels"].dtype == np.float32
    assert columns["labels"].tolist() == [seed for seed in range(20) for _ in range(100 + seed)]
    assert lies_on_disk(pairs) == isinstance(columns["labels"], np.memmap) == on_disk
    assert list(tmp_path.iterdir()) == []  # no name is left in the folder


def test_the_limit_is_kept_to_the_byte_and_types_of_ids_stay(tmp_path: Path) -> None:
    pairs = EncodedPairs(np.arange(10, dtype=np.int32), np.array([0, 4, 10]), np.array([2, 3], np.int32))
    for max_bytes, on_disk in ((72, False), (71, True)):  # 10 ids of 4, 3 offsets of 8, 2 starts of 4
        collector = PairCollector(tmp_path, max_bytes)
        collector.append(pairs)
        assert lies_on_disk(collector.finish()[0]) == on_disk
        collector = PairCollector(tmp_path, max_bytes)
        collector.append(random_pairs(9, 1, np.uint16))
        found, _ = collector.finish()
        assert found.ids.dtype == np.uint16
        np.testing.assert_equal(found.pad(range(9)), random_pairs(9, 1).pad(range(9)))


def test_pairs_are_read_alike_from_memory_and_from_a_disk(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else []
    (held, _), (mapped, columns) = (collect(tmp_path, limit) for limit in (1 << 30, 0))
    chosen = np.random.RandomState(3).randint(0, len(held), 300)
    assert_equal_pairs(mapped.take(chosen), held.take(chosen))
    for array, expected in zip(mapped.pad(chosen).values(), held.pad(chosen).values()):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype
    np.testing.assert_array_equal(mapped.lengths_of(chosen), held.lengths[chosen])
    np.testing.assert_array_equal(mapped[17], held[17])
    labels = gather(columns["labels"], chosen)
    assert type(labels) is np.ndarray and labels.tolist() == columns["labels"][chosen].tolist()
    assert type(mapped.take(chosen).ids) is np.ndarray  # no view of the file
    assert not before or len(os.listdir("/proc/self/fd")) > len(before)
    del mapped, columns
    assert not before or len(os.listdir("/proc/self/fd")) == len(before)  # files are closed with their arrays


def test_nothing_collected_and_columns_that_do_not_fit(tmp_path: Path) -> None:
    pairs, columns = PairCollector(tmp_path, 0).finish()
    assert (len(pairs), columns) == (0, {})
    collector = PairCollector(tmp_path, 0)
    collector.append(EncodedPairs.concat([]), labels=np.empty(0))
    pairs, columns = collector.finish()
    assert (len(pairs), pairs.offsets.tolist(), columns["labels"].tolist()) == (0, [0], [])
    collector = PairCollector(tmp_path, 0)
    with pytest.raises(ValueError, match="3 pairs and 2 labels"):
        collector.append(random_pairs(3, 0), labels=np.zeros(2))
    collector.append(random_pairs(3, 0), labels=np.zeros(3))
    for others in ({}, {"grades": np.zeros(3)}, {"labels": np.zeros(3, np.float32)}):
        with pytest.raises(ValueError, match="other names or types"):
            collector.append(random_pairs(3, 0), **others)
    with pytest.raises(ValueError, match="other names or types"):
        collector.append(random_pairs(3, 0, np.uint16), labels=np.zeros(3))


@pytest.fixture
def encoder(tmp_path: Path) -> PairEncoder:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *"abcdefgh"]) + "\n")
    return PairEncoder.from_folder(folder, 16)


def triples(count: int) -> list[Triple]:
    random = np.random.RandomState(0)

    def text() -> str:
        return " ".join(random.choice(list("abcdefgh"), random.randint(1, 10)))

    return [Triple(text(), text(), text()) for _ in range(count)]


def test_triples_lie_side_by_side(encoder: PairEncoder, tmp_path: Path) -> None:
    given = triples(50)
    queries = [triple.query for triple in given]
    positives = encoder.encode(queries, [triple.title for triple in given])
    negatives = encoder.encode(queries, [triple.neg_title for triple in given])
    encoder.truncated = 0
    encoded = encode_triples(given, encoder)
    truncated = encoder.truncated
    assert len(encoded) == 50
    assert_equal_pairs(encoded.pairs.take(np.arange(50) * 2), positives)
    assert_equal_pairs(encoded.pairs.take(np.arange(50) * 2 + 1), negatives)
    assert_equal_pairs(join_triples(positives, negatives).pairs, encoded.pairs)
    some = np.array([7, 0, 49])
    assert encoded.lengths(some).tolist() == np.maximum(positives.lengths, negatives.lengths)[some].tolist()
    encoder.truncated = 0
    encoder.encode(queries * 2, [t.title for t in given] + [t.neg_title for t in given])
    assert truncated == encoder.truncated > 0


def test_training_batches_are_the_same_from_a_disk(encoder: PairEncoder, tmp_path: Path) -> None:
    from ernie_matching.model import PairwiseExamples
    from paddle_ranker.training.losses.expression import RankingLoss

    given = triples(3000)
    held, mapped = (encode_triples(iter(given), encoder, tmp_path, max_bytes) for max_bytes in (1 << 30, 1000))
    assert lies_on_disk(mapped.pairs) and not lies_on_disk(held.pairs)
    plan = BatchPlan(8, parts=2, max_tokens=200, seed=3)
    loss = RankingLoss("margin_logit")
    of_held, of_mapped = (
        list(training_batches(PairwiseExamples(encoded, loss), plan, epoch=2)) for encoded in (held, mapped)
    )
    assert len(of_held) == len(of_mapped) > 100
    for batch, other in zip(of_held, of_mapped):
        for part, same in zip(batch, other):
            np.testing.assert_array_equal(part, same)
            np.testing.assert_equal(held.pairs.pad(2 * part), mapped.pairs.pad(2 * part))


def test_no_name_is_left_in_the_folder_even_by_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.encoding.test_store import PairCollector, lies_on_disk, random_pairs\n"
        "collector = PairCollector(Path(sys.argv[1]), 0); collector.append(random_pairs(1000, 0))\n"
        "assert lies_on_disk(collector.finish()[0]); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY).returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("max_bytes", [0, 100_000])
def test_a_disk_that_cannot_take_the_pairs_is_an_error_that_names_the_folder(tmp_path: Path, max_bytes: int) -> None:
    wanted = rf"{tmp_path}: \d+ MB .* could not be kept there \(File too large\); make room, .*--data_memory_mb"
    with pytest.raises(RankerError, match=wanted), largest_file(50_000):
        collect(tmp_path, max_bytes)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RankerError, match=rf"{tmp_path}/nowhere: .*No such file or directory"):
        collect(tmp_path / "nowhere", max_bytes)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc, to see resident memory")
def test_reading_from_a_disk_keeps_nothing_in_memory(tmp_path: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    collector = PairCollector(tmp_path, 0)
    whole = random_pairs(20_000, 0)
    for _ in range(40):  # 73 MB of ids
        collector.append(whole)
    pairs, _ = collector.finish()
    random = np.random.RandomState(1)
    pairs.pad(random.randint(0, len(pairs), 64))
    before = resident()
    for _ in range(400):
        chosen = random.randint(0, len(pairs), 64)
        pairs.pad(chosen)
        pairs.take(chosen)
        pairs.lengths_of(chosen)
    assert resident() - before < 8 << 20
    np.asarray(pairs.ids).sum()  # without giving pages back it would be seen
    assert resident() - before > 40 << 20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, to see resident memory")
def test_values_from_all_over_a_file_do_not_bring_their_neighbours(tmp_path: Path) -> None:
    # In a process of its own, whose peak is not that of the other tests. 400 values, and what Linux maps around them.
    code = """
import sys
import numpy as np
from paddle_ranker.storage.arrays import gather, map_array
with open(sys.argv[1], "w+b") as file:
    file.truncate(200 << 20)
    while file.read(1 << 20):
        pass  # now it is in the system's cache
    array = map_array(file, np.dtype(np.int64))
indices = np.random.default_rng(0).integers(0, len(array), (2, 200))
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) >> 10
before = peak()
gather(array, indices)
print(peak() - before)
array[indices]
print(peak() - before)
"""
    careful, careless = map(int, run_python(code, tmp_path / "file").split())
    assert careful < 2 and careless > 10


def test_gathering_from_a_file_equals_indexing(tmp_path: Path) -> None:
    values = np.random.RandomState(0).randint(0, 1000, 500).astype(np.int16)
    with (tmp_path / "file").open("w+b") as file:
        file.write(values.tobytes())
        file.flush()
        array = map_array(file, values.dtype)
    (tmp_path / "file").unlink()
    for indices in (
        np.array([3, 4, 5, 499, 0, 0, 1, 498, 499, 499]),
        np.array([9, 12, 12, 28, 29, 46, 40, 400, 499]),  # gaps that are read over, and gaps that are not
        np.arange(500),
        np.arange(0),
        np.array([[7, 8], [9, 3]]),
        np.array([0], dtype=np.int32),
    ):
        gathered = gather(array, indices)
        np.testing.assert_array_equal(gathered, values[indices])
        assert gathered.dtype == np.int16 and gathered.shape == indices.shape
        np.testing.assert_array_equal(gather(array[2:400], indices[indices < 300]), values[2:][indices[indices < 300]])
    for beyond in ([500], [498, 499, 500]):
        with pytest.raises(IndexError, match="index 500 of 500"):
            gather(array, np.array(beyond))
