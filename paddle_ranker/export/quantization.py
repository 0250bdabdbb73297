"""Quantize an exported model: compute its matrix products in 8-bit integers, if a gate finds that this costs little.

Weights become int8, symmetric, with a scale for each column; the activations that they multiply become uint8, with a
scale and a zero point found beforehand on calibration rows (Jacob et al., CVPR 2018). A row's output therefore does not
depend on the rows beside it, as it would if ranges were taken from each batch. Everything else stays fp32: embeddings,
LayerNorm, softmax, the residual sums, the last layer's products of one token a row, and the head.

`onnxruntime.quantization` writes the result, with QuantizeLinear and DequantizeLinear around the products. ONNX Runtime
and OpenVINO fuse them into integer products; other engines may compute them one by one.
`paddle_ranker.export.quantizer` decides which products to quantize and over which ranges; a `Gate` for the model's kind
measures whether the result is good enough. This module runs both and stores the result in the model's folder.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, NamedTuple, Optional, cast

import numpy as np

from paddle_ranker.array_types import Arrays, Floats, Vectors
from paddle_ranker.data.rows.records import LabeledPair, Pair, RecordFile
from paddle_ranker.encoding.batching import most_tokens, scoring_batches
from paddle_ranker.encoding.columns import Columns
from paddle_ranker.encoding.pair_encoder import PairRowEncoder
from paddle_ranker.errors import DataError, DependencyError, RankerError
from paddle_ranker.evaluation.evaluation_set import EvaluationSet
from paddle_ranker.evaluation.recall import RecallSet
from paddle_ranker.export.gates import Gate, Gated, Quality, QuantizeOptions, file_facts
from paddle_ranker.export.quantizer import Product, Quantizer, require_packages
from paddle_ranker.metrics.intervals import bootstrap_interval, mean_of
from paddle_ranker.metrics.measures import HEADLINES, evaluate_ranking, ranking_intervals, recall_at
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.model.builtin_kinds import TowerKind
from paddle_ranker.model.exported import Exported, ExportedFolder, ExportedRanker, open_exported
from paddle_ranker.model.foreign.onnx_data import move_onnx, onnx_files, save_onnx
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import MODEL, identify
from paddle_ranker.model.model_kind import AnyKind, ExportFacts, Signature, with_export
from paddle_ranker.model.tower import QUERY_FOLDER, RowsOfTower, TextEncoder, TowerInfo
from paddle_ranker.options.input_files import folder_of
from paddle_ranker.registry import Registry
from paddle_ranker.retrieval.vectors.text_vectors import Tower, nearest
from paddle_ranker.scoring.engines.engine import Engine
from paddle_ranker.scoring.engines.engine_registry import engines_with, exported_engines, is_installed
from paddle_ranker.scoring.engines.inputs import InputLimits
from paddle_ranker.scoring.engines.opening import open_engine, time_engines
from paddle_ranker.scoring.engines.precisions import has_int8
from paddle_ranker.storage.atomic import UNFINISHED, make_folder, remove_unfinished

_RECALL, _CUT = "recall@10", 10  # the measure of towers
_PRECISIONS = ("fp32", "bf16", "int8")
# Shares of the products to leave in fp32, those with the largest errors first, until the quality suffices.
_SHARES_LEFT_OUT = (0, 1 / 8, 1 / 4, 1 / 2)


class RankingGate:
    """Gate for rankers: measures AUC and nDCG@10 on labelled pairs.

    Raises `DataError` if a file cannot be used to calibrate or to measure.
    """

    rows, outputs, draws = "pair", "logits", "queries"

    def __init__(self, folder: ExportedFolder, options: QuantizeOptions):
        how = LoadOptions(device="cpu", max_seq_length=options.max_seq_length)
        encoder = cast(ExportedRanker, folder).row_encoder(how)
        self._dev = EvaluationSet(options.eval_file, encoder, options.batch_size, rules=options)
        pairs = read_calibration(options, encoder)
        max_tokens = most_tokens(options.batch_size, encoder.max_seq_length)
        self.calibration = [pairs.pad(rows) for rows in scoring_batches(pairs.lengths, max_tokens, max_tokens)]
        self.facts: dict[str, object] = {
            "calibration": file_facts(options.calibration_file, len(pairs)),
            "evaluation": {
                **file_facts(options.eval_file, len(self._dev.labels)),
                "queries": len(set(self._dev.queries)),
            },
            "max_seq_length": encoder.max_seq_length,
        }
        self._before: Optional[Floats] = None

    def judge(self, fp32: Engine, int8: Engine) -> list[Quality]:
        """Return AUC and, if the file has several titles a query, nDCG@10, in fp32 and in int8."""
        if self._before is None:
            self._before = self._dev.logits(fp32)
        return measure(self._dev, int8, self._before)


class TowerGate:
    """Gate for towers: measures Recall@10 of the queries of `--test`.

    The collection is all titles of the calibration file and the relevant titles of `--test`. Raises `DataError` if a
    file cannot be used to calibrate or to measure.
    """

    rows, outputs, draws = "text", "vectors", "queries"

    def __init__(self, folder: ExportedFolder, options: QuantizeOptions):
        how = LoadOptions(device="cpu", max_seq_length=options.max_seq_length)
        exported = cast(Exported[TowerInfo, RowsOfTower], folder)
        self._encoder = exported.row_encoder(how)
        self._batch_size = options.batch_size
        self._queries: Optional[Tower] = None
        if exported.info.towers == 2:
            inner = folder.folder / QUERY_FOLDER
            self._queries = Tower.open(inner, how, options.batch_size, folder=folder_of(options.eval_file))
        pairs = [
            self._located(options.calibration_file, row.query, row.title)
            for row in RecordFile(options.calibration_file, Pair, options)
        ]
        right = (self._located(options.eval_file, *pair) for pair in _right_pairs(options))
        self._set = RecallSet(right, [title for _, title in pairs])
        drawn = np.random.default_rng(options.seed).permutation(len(pairs))[: options.calibration_pairs].tolist()
        parts: list[Columns] = [self._encoder.encode([pairs[row][1] for row in drawn])]
        if not self._queries:
            parts.append(self._encoder.encode_queries([pairs[row][0] for row in drawn]))
        columns = type(parts[0]).concat(parts)
        max_tokens = most_tokens(options.batch_size, self._encoder.max_length)
        lengths = columns.lengths_of(np.arange(len(columns)))
        self.calibration = [columns.pad(rows) for rows in scoring_batches(lengths, max_tokens, max_tokens)]
        self.facts: dict[str, object] = {
            "calibration": file_facts(options.calibration_file, len(drawn)),
            "evaluation": {
                **file_facts(options.eval_file, sum(map(len, self._set.answers))),
                "queries": len(self._set.queries),
                "texts": len(self._set.corpus),
            },
            "max_seq_length": self._encoder.max_length,
        }
        self._before: dict[str, tuple[Floats, Vectors]] = {}

    def _located(self, file: str, query: str, title: str) -> tuple[str, str]:
        """Return a row's query and title; convert paths of pictures and sounds.

        In the file, such paths are relative to the file's folder. The result's are relative to the working folder.
        """
        if not isinstance(self._encoder, TextEncoder):
            title = str(folder_of(file) / title)
            query = query if self._queries else str(folder_of(file) / query)
        return query, title

    def judge(self, fp32: Engine, int8: Engine) -> list[Quality]:
        """Return Recall@10 in fp32 and in int8."""
        if not self._before:
            self._before[_RECALL] = self._recall(fp32)
        (before, exact), (after, rounded) = self._before[_RECALL], self._recall(int8)
        if not np.isfinite(rounded).all():
            raise RankerError(f"{int8.name}: its int8 vectors are not numbers; report it with the output of doctor")
        difference = bootstrap_interval(mean_of(after - before), len(before))
        moved = float(np.sqrt(np.square(rounded - exact).mean()) / exact.std())
        return [Quality(int8.name, _RECALL, float(before.mean()), float(after.mean()), difference, moved)]

    def _recall(self, engine: Engine) -> tuple[Floats, Vectors]:
        """Return each query's recall, `[queries]`, and the vectors of the texts."""
        tower = Tower(engine, self._encoder, self._batch_size, self._queries)
        texts = tower.vectors(self._set.corpus)
        results, _ = nearest(texts, tower.query_vectors(self._set.queries), _CUT)
        return recall_at(self._set.ranking(results), _CUT), texts


def _right_pairs(options: QuantizeOptions) -> Iterator[tuple[str, str]]:
    """Yield the pairs (query, answer) of `--test`; if it has labels, yield only pairs labelled 1 or more."""
    labelled = RecordFile(options.eval_file, LabeledPair, options)
    try:
        next(iter(labelled), None)
    except DataError:
        yield from ((row.query, row.title) for row in RecordFile(options.eval_file, Pair, options))
    else:
        yield from ((row.query, row.title) for row in labelled if row.label >= RELEVANT)


class QuantizedPart(NamedTuple):
    """Part of a model in int8, which was exported beside the whole graph.

    path: its ONNX file; it is not written if nothing of it would be in int8
    facts: facts to store with the measures
    quality: the gate's measures
    """

    path: Path
    facts: dict[str, object]
    quality: list[Quality]


# What quantizes a part, into the folder of the second argument; None if the model has no such part.
# (the model, its trial, its engine in fp32, calibration batches, gate, whether weights take all 8 bits, options)
QUANTIZED_PARTS: Registry[
    Callable[
        [ExportedFolder, ExportedFolder, Engine, Sequence[Arrays], Gate, bool, QuantizeOptions],
        Optional[QuantizedPart],
    ]
] = Registry("part of models in int8", recipes="quantized")


def gate_of(kind: AnyKind, signature: Signature) -> Optional[Callable[[ExportedFolder, QuantizeOptions], Gate]]:
    """Return the function that creates a kind's gate; None if models of the kind cannot be quantized.

    signature: signature of the model
    """
    if isinstance(kind, Gated):
        return kind.gate
    if isinstance(kind, TowerKind):
        return TowerGate
    return RankingGate if signature.is_rankers else None


@dataclass(frozen=True)
class Speed:
    """Speed of an engine in a precision, in rows per second."""

    engine: str
    precision: str
    pairs_per_second: float


@dataclass(frozen=True)
class Quantized:
    """Result of quantizing.

    path: the ONNX file in int8
    gate: the gate that judged the file
    products: number of the graph's matrix products that may be quantized (`Quantizer.products`)
    left_out: the products among them that stay in fp32 because of their errors
    quality: the gate's measures, one for each engine that computes in int8 and each measure
    speed: speeds of all engines, in fp32 and int8
    """

    path: Path
    gate: Gate
    products: int
    left_out: list[Product]
    quality: list[Quality]
    speed: list[Speed]

    @property
    def share(self) -> str:
        """Share of matrix products in integers, for messages: "70 of 73 products of weights in integers"."""
        return f"{self.products - len(self.left_out)} of {self.products} products of weights in integers"


def quantize_folder(options: QuantizeOptions) -> Quantized:
    """Quantize the model in a folder; the int8 file and its measures are stored at the end, or not at all.

    Raises `DependencyError` if a package is missing, `CheckpointError` if the folder has no sound static model or its
    kind has no gate, `RankerError` if the loss exceeds the limit, and the gate's errors about its files.
    """
    folder = open_exported(Path(options.model_dir), MODEL)
    make_gate = gate_of(folder.kind, folder.signature)
    if make_gate is None:
        why = f"there is no gate for models of the kind {folder.info.kind}"
        raise identify(folder.folder).refusal("an exported ranker", why)
    require_packages()
    make_folder(folder.folder)
    gate = make_gate(folder, options)
    # The encoder may pad columns to more arrays than the model takes.
    batches = [{name: batch[name] for name in folder.signature.input_names} for batch in gate.calibration]
    folder = with_onnx(folder)
    assert folder.onnx is not None
    bits = options.weight_bits or (8 if has_int8() else 7)
    with _beside(folder) as trial:
        quantizer = Quantizer(folder.onnx, trial.folder)
        written = trial.folder / f"{folder.prefix}.int8.onnx"
        fp32 = open_on_cpu(folder, options)

        def judge() -> list[Quality]:
            return [row for engine in in_int8(trial, options) for row in gate.judge(fp32, engine)]

        left_out, quality = quantize_graph(
            quantizer, batches, written, judge, full_range=bits == 8, limit=options.max_loss
        )
        files, of_parts = [written], dict[str, object]()
        QUANTIZED_PARTS.load_plugins()
        for quantize_part in QUANTIZED_PARTS.values():
            part = quantize_part(folder, trial, fp32, batches, gate, bits == 8, options)
            if part is not None:
                files, quality, of_parts = [*files, part.path], [*quality, *part.quality], {**of_parts, **part.facts}
        speed = measure_speed(folder, trial, batches, options)
        facts: dict[str, object] = {
            "weight_bits": bits,
            "products": len(quantizer.products),
            "left_out": [product.weight for product in left_out],
            **of_parts,
            **gate.facts,
            "max_loss": options.max_loss,
            "quality": [asdict(row) for row in quality],
            "speed": [asdict(row) for row in speed],
        }
        path = store(folder, [path for path in files if path.is_file()], facts)
    return Quantized(path, gate, len(quantizer.products), left_out, quality, speed)


def open_on_cpu(
    folder: ExportedFolder, options: QuantizeOptions, engine: str = "onnx", precision: str = "fp32"
) -> Engine:
    """Open an engine on the CPU, the only device on which engines compute in int8."""
    how = LoadOptions(engine=engine, device="cpu", precision=precision, threads=options.cpu_threads)
    return open_engine(folder, how)


def in_int8(folder: ExportedFolder, options: QuantizeOptions) -> list[Engine]:
    """Open a folder's int8 file in every engine that is installed and runs it."""
    return [open_on_cpu(folder, options, name, "int8") for name in filter(is_installed, engines_with("int8"))]


def quantize_graph(
    quantizer: Quantizer,
    batches: Sequence[Arrays],
    written: Path,
    judge: Callable[[], list[Quality]],
    *,
    full_range: bool,
    limit: float,
) -> tuple[list[Product], list[Quality]]:
    """Write the file with as many products in integers as the limit allows.

    Returns the products that stay in fp32, and the quality.

    batches: the calibration rows
    judge: called without arguments when a file is written; returns the quality of that file

    Raises `RankerError` if the loss exceeds the limit even with the fewest products in integers.
    """
    calibrated = quantizer.calibrate(batches)
    by_error = quantizer.by_error(calibrated, full_range)
    tried: list[tuple[float, list[Quality], int]] = []
    for share in _SHARES_LEFT_OUT:
        left_out = by_error[: round(share * len(by_error))]
        model = quantizer.quantize(calibrated, left_out=left_out, full_range=full_range)
        save_onnx(model, written)
        quality = judge()
        loss = max(-row.difference.estimate for row in quality)
        if loss <= limit:
            return left_out, quality
        tried.append((loss, quality, len(left_out)))
    _, quality, count = min(tried, key=lambda attempt: attempt[0])
    raise _too_much(quality, limit, count)


def read_calibration(options: QuantizeOptions, pair_encoder: PairRowEncoder) -> Columns:
    """Return encoded pairs of the calibration file: `calibration_pairs`, drawn at random, or all if there are fewer.

    Raises `DataError` if the file has no pairs.
    """
    source = RecordFile(options.calibration_file, Pair, options)
    random = np.random.default_rng(options.seed)
    drawn: list[Pair] = []
    for number, pair in enumerate(source):  # reservoir sampling (Vitter 1985, algorithm R): the file may be long
        if number < options.calibration_pairs:
            drawn.append(pair)
        else:
            place = int(random.integers(0, number + 1))
            if place < options.calibration_pairs:
                drawn[place] = pair
    if not drawn:
        raise DataError(f"{options.calibration_file}: has no pairs to calibrate on")
    return pair_encoder.encode([pair.query for pair in drawn], [pair.title for pair in drawn])


def with_onnx(folder: ExportedFolder) -> ExportedFolder:
    """Return the folder with an ONNX file, which is made from the static model if it is missing.

    Raises `DependencyError`, with the command to run, if it cannot be made here.
    """
    if folder.onnx is not None:
        return folder
    export = f"paddle-ranker export --onnx --model RANKER --output {folder.folder}"
    try:
        from paddle_ranker.export.onnx import require_onnx, write_onnx
        from paddle_ranker.export.static_model import StaticModel

        require_onnx()
    except ImportError as error:
        raise DependencyError(f"{folder.folder}: has no {folder.prefix}.onnx; make it with: {export}") from error
    except DependencyError as error:
        raise DependencyError(
            f"{folder.folder}: has no {folder.prefix}.onnx, which cannot be made here ({error}): {export}"
        ) from error
    target = folder.folder / f"{folder.prefix}.onnx"
    batches = list(folder.kind.sample_inputs(folder.row_encoder(), folder.info))
    model = StaticModel(folder.program, folder.parameters, folder.signature)
    parity = write_onnx(folder.program, target, folder.signature, batches, [model.run(batch) for batch in batches])
    if folder.signature.is_rankers:
        largest = f"{parity.differences['predict']:.1e} of a probability"
    else:
        largest = f"{max(parity.differences.values()):.1e}"
    print(f"{target}: made, largest difference {largest}")
    return _with_facts(folder, onnx_files(target))


@contextmanager
def _beside(folder: ExportedFolder) -> Iterator[ExportedFolder]:
    """Yield a temporary subfolder of `folder` that opens as the same model, for the new int8 files."""
    remove_unfinished(folder.folder)
    with tempfile.TemporaryDirectory(prefix=f"{UNFINISHED}{os.getpid()}-", dir=folder.folder) as temporary:
        if isinstance(folder.info, RankerInfo) and folder.info.blend:
            for name in folder.info.blend["members"]:
                (Path(temporary) / name).symlink_to((folder.folder / name).resolve())
        facts = _facts_of(folder)
        facts["int8"] = None
        yield dataclasses.replace(folder, folder=Path(temporary), info=with_export(folder.info, facts))


def measure(dev: EvaluationSet, engine: Engine, fp32: Floats) -> list[Quality]:
    """Return AUC and, if the file has several titles a query, nDCG@10, of `fp32` (`[n]` logits) and of the engine."""
    int8 = dev.logits(engine)
    if not np.isfinite(int8).all():
        raise RankerError(f"{engine.name}: its int8 scores are not numbers; report it with the output of doctor")
    before, after = (evaluate_ranking(dev.queries, dev.labels, logits) for logits in (fp32, int8))
    names = [name for name in HEADLINES if name in before]
    intervals = ranking_intervals(dev.queries, dev.labels, int8, fp32, measures=names)
    moved = float(np.sqrt(np.square(int8 - fp32).mean()) / fp32.std())
    return [Quality(engine.name, name, before[name], after[name], intervals[name], moved) for name in names]


def _too_much(quality: list[Quality], limit: float, left_out: int) -> RankerError:
    worst = max(quality, key=lambda row: -row.difference.estimate)
    loss = worst.difference
    return RankerError(
        f"in int8 {worst.measure} falls from {worst.before:.4f} to {worst.after:.4f} ({worst.engine}), by "
        f"{-loss.estimate:.4f} [{-loss.high:.4f}, {-loss.low:.4f}], with {left_out} products left out, more than "
        f"--max_loss {limit:g}; nothing was written: give more --calibration_pairs, raise the limit, or use bf16"
    )


def measure_speed(
    folder: ExportedFolder, trial: ExportedFolder, batches: Sequence[Arrays], options: QuantizeOptions
) -> list[Speed]:
    """Time every engine and precision that works here, in turns, on the calibration rows."""
    opened: list[Engine] = []
    for name in filter(is_installed, exported_engines()):
        for precision in _PRECISIONS:
            source = trial if precision == "int8" else folder
            try:
                opened.append(open_on_cpu(source, options, name, precision))
            except RankerError:
                continue  # the engine or the processor lacks this precision
    seconds = time_engines(opened, batches, options.seconds)
    pairs = sum(map(InputLimits.rows, batches))
    return [Speed(engine.name, engine.precision, pairs / taken) for engine, taken in zip(opened, seconds)]


def store(folder: ExportedFolder, written: Sequence[Path], int8: dict[str, object]) -> Path:
    """Move files into the folder and record them in the info file; return the path of the first file.

    If the process is killed in between, the folder still opens.
    """
    earlier = sorted(folder.folder.glob(f"{folder.prefix}*.int8.onnx*"))  # with their data, and those of parts
    folder = _with_facts(folder, forget=earlier)
    for path in earlier:
        path.unlink(missing_ok=True)
    targets = [folder.folder / path.name for path in written]
    moved = [path for source, target in zip(written, targets) for path in move_onnx(source, target)]
    _with_facts(folder, moved, int8=int8)
    return targets[0]


def _facts_of(folder: ExportedFolder) -> ExportFacts:
    assert folder.info.export is not None  # an opened folder always has it
    return folder.info.export.copy()


def _with_facts(
    folder: ExportedFolder,
    files: Sequence[Path] = (),
    *,
    forget: Sequence[Path] = (),
    int8: Optional[dict[str, object]] = None,
) -> ExportedFolder:
    """Record in the folder's info file that `files` were added or `forget` removed; return the folder with that info.

    int8: measures of the int8 file to record; None: the recorded measures stay, or are removed if `forget` is given
    """
    facts = _facts_of(folder)
    removed = [path.name for path in forget]
    facts["files"] = {name: size for name, size in facts["files"].items() if name not in removed}
    facts["files"].update((path.name, path.stat().st_size) for path in files)
    if forget or int8 is not None:
        facts["int8"] = int8
    info = with_export(folder.info, facts)
    folder.kind.write_info(folder.folder, info)
    return dataclasses.replace(folder, info=info)
