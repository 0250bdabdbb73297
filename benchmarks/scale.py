"""Work on a file by actors of a Ray cluster: beside plain processes, with growing files, and with SIGKILL meanwhile.

python -m benchmarks.scale --measure throughput --pairs 65536
python -m benchmarks.scale --measure memory --pairs 1000000,10000000 [--work mine --shards 1,4 --queries 2560,10240]
python -m benchmarks.scale --measure kills [--times 10]

throughput: two actors of one thread each against two processes that score half the pairs each, with a random ranker in
the shape of ERNIE 3.0 nano; give a multiple of 16,384, which are two parts. memory: the peak private memory of the
command, of the reader, of an actor and of a shard's actor, with tiny models; --work chooses the command: `predict`, the
same with `--topk` (topk), `encode`, `mine` (--queries; an index of so many texts), `index build` (index); the last two
for each number of --shards: actors map an index in one, and ask an actor for each of several. kills: on a cluster
of three nodes on this machine, an actor or node or the command is killed after a random number of parts. The lines must
be those of one machine, and no finished part may be written again.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.harness.report import format_table
from benchmarks.inputs import parse_numbers
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.storage.untrusted import Unchecked
from tests.tiny import HAN, write_ranker, write_tower

KINDS = ("actor", "node", "command")
WORK = {
    "predict": ("predict --model FOLDER/ranker --input PAIRS", ""),
    "topk": ("predict --model FOLDER/ranker --input PAIRS --topk 3", ""),
    "encode": ("encode --model FOLDER/tower --input TEXTS", ".npy"),
    "mine": ("mine --queries FOLDER/known.tsv --index INDEX", ".tsv"),
    "index": ("index build --corpus TEXTS --tower FOLDER/tower --shards SHARDS", ""),
}
ROLES = {
    "ray::ReadFiles": "reader",
    "ray::MapWorker": "actor",
    "ray::_build_shard": "actor",
    "ray::_column_facts": "reader",
    "ray::_write_file": "reader",
    "ray::_ShardActor": "shard",
}
NANO: dict[str, Unchecked] = {
    "num_hidden_layers": 4,
    "hidden_size": 312,
    "num_attention_heads": 12,
    "intermediate_size": 1248,
}
TINY: dict[str, Unchecked] = {
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "num_attention_heads": 1,
    "intermediate_size": 8,
}


@dataclass(frozen=True)
class ScaleOptions(Options):
    measure: str = option(help="what to measure", choices=("throughput", "memory", "kills"), leads=True)
    pairs: str = option("40000", help="pairs of the file; for memory several numbers, comma-separated")
    work: str = option("predict", help="for memory: what is done with the file", choices=tuple(WORK))
    shards: str = option("4", help="for memory: shards of the index that is built or mined; several numbers, too")
    queries: str = option("2560", help="for memory of mine: queries; several numbers, too")
    files: int = option(1, help="for memory: files of the texts", minimum=1)
    times: int = option(10, help="kills of each kind", minimum=1)


def run(options: ScaleOptions) -> None:
    numbers = parse_numbers(options.pairs, "pairs")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.measure == "throughput":
            print(throughput(folder, numbers[0]))
        elif options.measure == "memory":
            shards, queries = parse_numbers(options.shards, "shards"), parse_numbers(options.queries, "queries")
            print(memory(folder, numbers, options.work, shards, queries, options.files))
        else:
            print(kills(folder, numbers[0], options.times, KINDS))


def throughput(folder: Path, pairs: int) -> str:
    """Return a table of pairs a second, with start-up and, from the time of a file of 10 pairs, without."""
    write_ranker(folder / "ranker", **NANO)
    names = ("whole", "first", "second", "few")
    files = [write_pairs(folder / f"{one}.tsv", n) for one, n in zip(names, (pairs, pairs // 2, pairs // 2, 10))]
    seconds = {}
    for label, sources in (("few", [files[3]] * 2), ("all", files[1:3])):
        began = time.perf_counter()
        running = [
            subprocess.Popen(command(folder, source), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for source in sources
        ]
        if any(one.wait() for one in running):
            raise SystemExit("a process has failed")
        seconds["two processes", label] = time.perf_counter() - began
        began = time.perf_counter()
        source = files[3] if label == "few" else files[0]
        more = ("--ray", "local", "--actors", "2", "--output", str(folder / label))
        subprocess.run(command(folder, source, *more), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds["two actors", label] = time.perf_counter() - began
    rows = [
        [name, f"{seconds[name, 'few']:.1f}", f"{seconds[name, 'all']:.1f}",
         f"{pairs / (seconds[name, 'all'] - seconds[name, 'few']):,.0f}"]
        for name in ("two processes", "two actors")
    ]  # fmt: skip
    return format_table(["by", "10 pairs, s", f"{pairs:,} pairs, s", "pairs/s without start"], rows)


def memory(
    folder: Path, numbers: Sequence[int], work: str, shards: Sequence[int], queries: Sequence[int], files: int
) -> str:
    """Return a table of the most private memory of each process of a command: Ray's object store is shared."""
    write_ranker(folder / "ranker", **TINY)
    write_tower(folder / "tower")
    line, ending = WORK[work]
    rows = []
    of_shards, of_queries = shards if work in ("mine", "index") else [0], queries if work == "mine" else [0]
    for count, parts, asked in product(numbers, of_shards, of_queries):
        places = {"FOLDER": str(folder), "SHARDS": str(parts)}
        write_pairs(folder / "known.tsv", asked)
        if "PAIRS" in line:
            places["PAIRS"] = str(write_pairs(folder / f"{count}.tsv", count))
        else:
            places["TEXTS"] = str(write_texts(folder / f"{count}.txt", count, files))
        if "INDEX" in line:
            places["INDEX"] = str(folder / f"index-{count}-{parts}")
            words = ["index", "build", "--corpus", places["TEXTS"], "--output", places["INDEX"]]
            words += ["--tower", f"{folder}/tower", "--shards", str(parts)]
            if asked == of_queries[0]:
                made = [sys.executable, "-m", "paddle_ranker", *words]
                subprocess.run(made, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        words = line.split()
        for name, place in places.items():
            words = [word.replace(name, place) for word in words]
        more = ("--ray", "local", "--actors", "2", "--output", str(folder / f"{count}-{parts}-{asked}{ending}"))
        whole = [sys.executable, "-m", "paddle_ranker", *words, "--cpu_threads", "1", *more]
        began, peaks = time.perf_counter(), dict.fromkeys(("command", "reader", "actor", "shard"), 0.0)
        said = folder / "said"
        with said.open("wb") as stream:
            running = subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=stream)
        while running.poll() is None:
            for process, name in descendants(running.pid).items():
                role = next((role for start, role in ROLES.items() if start in name), "")
                role = "command" if process == running.pid else role
                if role:
                    with suppress(OSError, IndexError, ValueError):
                        peaks[role] = max(peaks[role], private_mb(process))
            time.sleep(0.5)
        if running.returncode:
            raise SystemExit(f"the command has failed: {said.read_text(errors='replace')[-2000:]}")
        seconds = time.perf_counter() - began
        figures = (seconds, (asked or count) / seconds, *peaks.values())
        amounts = (f"{amount:,}" if amount else "" for amount in (count, parts, asked))
        rows.append([*amounts, *(f"{figure:,.0f}" for figure in figures)])
        print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    head = ["rows", "shards", "queries", "seconds", "rows/s", "command MB", "reader MB", "actor MB", "shard MB"]
    return format_table(head, rows)


def kills(folder: Path, pairs: int, times: int, kinds: Sequence[str]) -> str:
    """Return a table of killed runs: how many equal the run on a single machine, and how many parts were rewritten."""
    write_ranker(folder / "ranker")
    source = write_pairs(folder / "pairs.tsv", pairs)
    printed = subprocess.run(command(folder, source), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    draw, rows = random.Random(1), []
    with three_nodes() as nodes:
        equal, again, ended = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
        for number in range(times):
            for kind in kinds:
                output = folder / f"{kind}{number}"
                finished, status = killed_run(command(folder, source), output, nodes, kind, draw.randint(1, 3))
                content = b"".join(path.read_bytes() for path in sorted(output.glob("part-*.txt")))
                equal[kind] += content == printed.stdout and (output / "manifest.json").exists()
                again[kind] += sum((output / name).stat().st_ino != inode for name, inode in finished.items())
                ended[kind] += status == 0
                print(f"{kind} {number}: {len(finished)} parts were finished, status {status}", file=sys.stderr)
        rows = [[kind, str(times), str(ended[kind]), str(equal[kind]), str(again[kind])] for kind in kinds]
    return format_table(["killed", "runs", "status 0", "equal", "parts written again"], rows)


def killed_run(line: list[str], output: Path, nodes: Nodes, kind: str, after: int) -> tuple[dict[str, int], int]:
    """Kill while the command runs; return the parts that were finished by then, and the status of its end."""
    line = [*line, "--ray", nodes.address, "--actors", "3", "--output", str(output)]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def parts() -> dict[str, int]:
        names = [f"{path.name[:11]}.txt" for path in output.glob("part-*.facts.json")]
        return {name: (output / name).stat().st_ino for name in names}

    running = start()
    while running.poll() is None and len(parts()) < after:
        time.sleep(0.02)
    finished = parts()
    if kind == "actor":
        actors = [process for process, name in descendants(os.getpid()).items() if name.startswith("ray::MapWorker")]
        for process in actors[:1]:
            os.kill(process, signal.SIGKILL)
    elif kind == "node":
        nodes.lose_one()
    else:
        running.kill()
        running.wait()
        finished = parts()
        running = start()
    status = running.wait()
    nodes.complete()
    return finished, status


class Nodes:
    """A cluster of three nodes of one core each on this machine."""

    def __init__(self, cluster: Unchecked):
        self._cluster = cluster
        self.address: str = cluster.address
        self._others: list[Unchecked] = []
        self.complete()

    def lose_one(self) -> None:
        """Kill a node's processes without notice."""
        self._cluster.remove_node(self._others.pop(0), allow_graceful=False)

    def complete(self) -> None:
        """Add nodes in place of lost nodes."""
        while len(self._others) < 2:
            self._others.append(self._cluster.add_node(num_cpus=1, object_store_memory=100_000_000))
        self._cluster.wait_for_nodes()


@contextmanager
def three_nodes() -> Iterator[Nodes]:
    """Start the cluster; end it with the block."""
    from paddle_ranker.scale.cluster import require_ray

    require_ray()
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": 150_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield Nodes(cluster)
    finally:
        cluster.shutdown()


def command(folder: Path, source: Path, *more: str) -> list[str]:
    """Return the command line that scores a file with the folder's ranker, on one thread."""
    line = [sys.executable, "-m", "paddle_ranker", "predict", "--model", str(folder / "ranker"), "--input", str(source)]
    return [*line, "--cpu_threads", "1", *more]


def private_mb(process: int) -> float:
    """Return the resident memory in MiB that a process shares with no other."""
    resident, shared = map(int, Path(f"/proc/{process}/statm").read_text().split()[1:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_pairs(path: Path, count: int) -> Path:
    """Write pairs of a query of 6 and a title of 20 characters."""
    draw = random.Random(1)
    texts = ["".join(draw.choices(HAN, k=20)) for _ in range(20_000)]
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            turn, place = divmod(number, 19_997)
            stream.write(f"{texts[place][:6]}\t{texts[turn % 100 + place % 19_000]}\n")
    return path


def write_texts(path: Path, count: int, files: int = 1) -> Path:
    """Write different texts of 20 characters and a number, and return the file, or the pattern of several."""
    draw, paths = random.Random(1), [path.with_name(f"{path.stem}-{number}.txt") for number in range(files)]
    for file, part in enumerate(paths if files > 1 else [path]):
        with part.open("w", encoding="utf-8") as stream:
            for number in range(file * count // files, (file + 1) * count // files):
                stream.write(f"{''.join(draw.choices(HAN, k=20))} {number}\n")
    return path.with_name(f"{path.stem}-*.txt") if files > 1 else path


def descendants(root: int) -> dict[int, str]:
    """Return the command lines of a process and its descendants, by process id."""
    parents, names = dict[int, int](), dict[int, str]()
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            process = int(entry.name)
            parents[process] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            names[process] = (entry / "cmdline").read_bytes().decode(errors="replace")

    def is_inside(process: int) -> bool:
        while process in parents and process != root:
            process = parents[process]
        return process == root

    return {process: name for process, name in names.items() if is_inside(process)}


main = main_of(run, ScaleOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
