"""Time the ranking of stored titles by a split ranker, next to the same ranker without a split, in turns on a CPU.

python -m benchmarks.stored [--shapes nano,m3e-small] [--layers 2,3] [--engines onnx,openvino] [--similarity true]

Each query ranks --titles titles, from texts to probabilities. Weights are random, with match embeddings. A process with
a single thread computes all systems, in turns for each query. The ratios compare with the fastest engine that scores
whole pairs in fp32, and have 95% t intervals over queries.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.rankers import SHAPES, prepare_ranker
from benchmarks.harness.report import Goal, format_table, ratio
from benchmarks.inputs import PeerOptions, chosen, parse_numbers
from paddle_ranker import runtime
from paddle_ranker.data.rows.records import write_records
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.options import main_of, option
from paddle_ranker.scoring.engines.engine_registry import engines_with, exported_engines
from paddle_ranker.scoring.engines.precisions import has_bf16

SEED = 1
_FEW = 200  # pairs to quantize on
GOAL = 3.0  # times as fast as whole pairs in fp32
Ranking = Callable[[str, NDArray[np.int64]], object]


@dataclass(frozen=True)
class StoredOptions(PeerOptions):
    shapes: str = option("nano,m3e-small", help=f"encoders, comma-separated, from {', '.join(SHAPES)}")
    layers: str = option("2,3", help="numbers of lower layers, comma-separated")
    engines: str = option("onnx,openvino", help=f"engines, comma-separated, from {', '.join(exported_engines())}")
    titles: int = option(100, help="titles that each query ranks", minimum=1)
    queries: int = option(10, help="timed queries", minimum=2)
    similarity: bool = option(False, help="rankers with --similarity, by a tower of the same shape")


def run(options: StoredOptions) -> None:
    runtime.prepare_command(1)
    for shape in chosen("shapes", options.shapes, list(SHAPES)):
        with tempfile.TemporaryDirectory() as folder:
            measure(options, shape, Path(folder))


def measure(options: StoredOptions, shape: str, folder: Path) -> None:
    """Print the milliseconds of each system, its ratio to the fastest whole one, and the goals."""
    graded = prepare_ranker(options, shape, SEED, folder).graded
    titles = list(dict.fromkeys(pair.title for pair in graded))[: 4 * options.titles]
    queries = list(dict.fromkeys(pair.query for pair in graded))[: options.queries + 1]
    write_records(folder / "some.jsonl", graded[:_FEW])
    systems = dict(make_systems(options, folder, titles, folder / "some.jsonl"))
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    random = np.random.default_rng(SEED)
    for number, query in enumerate(queries):
        rows = random.choice(len(titles), min(options.titles, len(titles)), replace=False)
        for name, rank in systems.items():
            began = time.perf_counter()
            rank(query, rows)
            if number:  # the first query warms up
                seconds[name].append(time.perf_counter() - began)
    speeds = {name: [1 / taken for taken in found] for name, found in seconds.items()}
    whole = max(
        (name for name in speeds if name.startswith("whole, fp32")), key=lambda one: statistics.median(speeds[one])
    )
    ratios = {name: ratio(found, speeds[whole]) for name, found in speeds.items()}
    rows_shown = [
        [name, f"{statistics.median(found) * 1000:.1f}", f"{ratios[name]:.2f}"] for name, found in seconds.items()
    ]
    print(f"\n{shape}: {options.titles} titles for each of {options.queries} queries, one thread")
    print(format_table([f"against {whole}", "ms", "times as fast"], rows_shown))
    for layers in parse_numbers(options.layers, "layers"):
        best = max(found.estimate for name, found in ratios.items() if name.startswith(f"K = {layers}, fp32"))
        print(Goal(f"{shape}, K = {layers}, fp32: times as fast", best, GOAL), flush=True)


def make_systems(options: StoredOptions, folder: Path, titles: list[str], some: Path) -> Iterator[tuple[str, Ranking]]:
    """Export the ranker without a split and with each, store the titles, and yield the systems."""
    from paddle_ranker import Ranker
    from paddle_ranker.export.gates import QuantizeOptions
    from paddle_ranker.export.quantization import quantize_folder
    from paddle_ranker.export.static_graph import export_model
    from paddle_ranker.model.ranker_folder import Fresh, save_ranker, start_ranker
    from paddle_ranker.stored_titles.stored_ranker import SplitRanker, StoredRanker
    from paddle_ranker.stored_titles.title_states import new_states

    engines = chosen("engines", options.engines, exported_engines())
    ways = [(engine, "fp32") for engine in engines] + [
        (engine, "bf16") for engine in engines if engine != "onnx" and has_bf16()
    ]
    ways += [(engine, "int8") for engine in engines if engine in engines_with("int8")]
    for layers in (0, *parse_numbers(options.layers, "layers")):
        trained, exported, states = (folder / f"{name}_{layers}" for name in ("trained", "exported", "states"))
        tower = str(folder / "ranker") if options.similarity else None
        model = start_ranker(folder / "ranker", Fresh("pairwise", similarity=tower, stored_titles=layers))
        model.network.eval()
        save_ranker(trained, model.network, model.row_encoder, model.info)
        export_model(load_model(trained, RANKER), exported, onnx=True)
        few = str(some)
        quantize_folder(
            QuantizeOptions(
                model_dir=str(exported), calibration_file=few, eval_file=few, max_loss=1.0, seconds=0.1, cpu_threads=1
            )
        )
        if layers:
            split = SplitRanker.open(trained)
            with new_states(states, split.states_info) as writer:
                writer.append(split.title_states(titles))
        for engine, precision in ways:
            if layers:
                stored = StoredRanker.open(exported, states, engine=engine, precision=precision, threads=1)
                yield f"K = {layers}, {precision}, {engine}", stored.score
            else:
                ranker = Ranker.load(exported, engine=engine, precision=precision, threads=1)
                yield f"whole, {precision}, {engine}", _whole(ranker.score, titles)


def _whole(score: Callable[[list[str], list[str]], object], titles: list[str]) -> Ranking:
    return lambda query, rows: score([query] * len(rows), [titles[row] for row in rows.tolist()])


main = main_of(run, StoredOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
