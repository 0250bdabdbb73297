"""A kind of model of a plugin: single texts in, one vector out.
Its training is in own_training.py, its commands in own_commands.py, its slot and its routes in own_endpoints.py.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, cast

import numpy as np

from paddle_ranker.array_types import Arrays
from paddle_ranker.data.rows.records import Text, read_records
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.export.gates import Quality, QuantizeOptions, file_facts
from paddle_ranker.metrics.intervals import bootstrap_interval, mean_of
from paddle_ranker.model.exported import Exported, ExportedFolder
from paddle_ranker.model.hugging_face.folder import folder_pair_encoder
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import Role
from paddle_ranker.model.model_kind import TOKENS, ArraySpec, ExportFacts, ModelKind, Signature, TrainedModel, add_kind
from paddle_ranker.scoring.engines.engine import Engine
from paddle_ranker.storage.atomic import new_file

_TEXTS = ("a", "深度学习", "two words", "一段很长的话" * 20)


@dataclass(frozen=True)
class VectorInfo:
    """The contents of `vectors.json`."""

    max_seq_length: int
    size: int
    training: dict[str, object] = field(default_factory=dict)
    export: Optional[ExportFacts] = None
    kind: str = "vectors"
    calibration: None = None


VectorModel = TrainedModel[VectorInfo, PairEncoder]


def signature_of(info: VectorInfo) -> Signature:
    return Signature(TOKENS[:1], (ArraySpec("vector", "float32", (None, info.size)),), read=("vector",))


class VectorKind(ModelKind[VectorInfo, PairEncoder]):
    """The kind of models that turn a text into a vector."""

    name, info_file = "vectors", "vectors.json"
    what, use = "a model of vectors", "evaluate, export and serve take it"

    def read_info(self, folder: Path) -> VectorInfo:
        return VectorInfo(**json.loads((folder / self.info_file).read_text(encoding="utf-8")))

    def signature(self, info: VectorInfo) -> Signature:
        return signature_of(info)

    def row_encoder(self, folder: Path, info: VectorInfo, options: LoadOptions) -> PairEncoder:
        return folder_pair_encoder(folder, options.max_seq_length or info.max_seq_length)

    def load(self, source: Path, options: LoadOptions) -> VectorModel:
        from tests.extensions.own_training import load_vectors

        info = self.read_info(source)
        return load_vectors(source, info, self.row_encoder(source, info, options))

    def sample_inputs(self, encoder: PairEncoder, info: VectorInfo) -> Iterator[Arrays]:
        columns = encoder.encode_single(_TEXTS)
        yield from (columns.pad(rows) for rows in ([0, 1, 2, 3], [2, 0], [1]))

    def write_descriptions(self, folder: Path, model: VectorModel) -> None:
        from paddle_ranker.model.families import write_config

        write_config(folder, model.network.config)
        model.row_encoder.save(folder)

    def write_info(self, folder: Path, info: VectorInfo) -> None:
        with new_file(folder / self.info_file) as stream:
            stream.write(json.dumps(dataclasses.asdict(info), indent=2) + "\n")

    def gate(self, folder: ExportedFolder, options: QuantizeOptions) -> CosineGate:
        return CosineGate(folder, options)


class CosineGate:
    """A gate that compares vectors in integers with the others: the mean cosine, 1 before."""

    rows, outputs, draws = "text", "vectors", "texts"

    def __init__(self, folder: ExportedFolder, options: QuantizeOptions):
        encoder = cast(Exported[VectorInfo, PairEncoder], folder).row_encoder()

        def batches(path: str) -> list[Arrays]:
            columns = encoder.encode_single([row.text for row in read_records(path, Text, options)])
            return [part.pad(np.arange(len(part))) for _, part in columns.chunks(options.batch_size)]

        self.calibration, self._dev = batches(options.calibration_file), batches(options.eval_file)
        texts = sum(len(batch["input_ids"]) for batch in self._dev)
        self.facts: dict[str, object] = {"evaluation": file_facts(options.eval_file, texts)}

    def judge(self, fp32: Engine, int8: Engine) -> list[Quality]:
        before, after = (
            np.concatenate([engine.run(batch)["vector"] for batch in self._dev]) for engine in (fp32, int8)
        )
        cosines = (before * after).sum(axis=1).astype(np.float64)
        moved = float(np.sqrt(np.square(after - before).mean()) / before.std())
        lost = bootstrap_interval(mean_of(cosines - 1.0), len(cosines))
        return [Quality(int8.name, "cosine", 1.0, float(cosines.mean()), lost, moved)]


add_kind(VectorKind())
VECTORS: Role[VectorInfo, PairEncoder] = Role("vectors", "a model of vectors", lambda found: found.name == "vectors")
