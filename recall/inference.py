"""Encode the texts of a file as vectors: a `.npy` file of any size, in the order of the rows.

paddle-ranker encode --model tower --input texts.tsv --output vectors.npy
paddle-ranker encode --model tower --input texts.tsv --output vectors.npy --dtype int8 --processes 2 --resume
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Union

from paddle_ranker import runtime
from paddle_ranker.addresses import scheme_of
from paddle_ranker.array_types import STORED_TYPES
from paddle_ranker.data.rows.documents import DocumentFile
from paddle_ranker.data.rows.records import Line, RecordFile
from paddle_ranker.errors import UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.pretrained import find_model, resolved
from paddle_ranker.options import DocumentOptions, RayOptions, main_of, option
from paddle_ranker.options.declare import FETCHED_FOLDER, ON_CLUSTER, TAKEN
from paddle_ranker.options.input_files import folder_of
from paddle_ranker.progress import Progress
from paddle_ranker.scoring.scoring_options import TowerOptions
from paddle_ranker.stores import uploading

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class EncodeOptions(TowerOptions, RayOptions, DocumentOptions):
    params_path: str = option(
        help="tower: a folder of a tower (exported or not) or of any encoder, or a name",
        name="model",
        leads=True,
        addresses=FETCHED_FOLDER,
    )
    input_file: str = option(
        help="texts: one per line, or columns or JSON with id, text (else title)", name="input", files=True,
    )  # fmt: skip
    output_file: str = option(
        help=".npy file to write; the scales of int8 go to NAME.scales.npy", name="output", addresses=TAKEN
    )
    dtype: str = option("float32", help="type of the stored numbers", choices=STORED_TYPES)
    queries: bool = option(
        False,
        help="encode the texts as queries: with the prompt of queries, and with their tower if it is a separate one",
    )
    processes: int = option(1, help="number of processes that share the work and the threads", minimum=1)
    resume: bool = option(False, help="resume an interrupted run (with --ray: always)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ray is not None and self.processes > 1:
            raise UsageError(f"--processes {self.processes}: with --ray, --actors says how many share the work")
        if self.resume and self.ray is None and scheme_of(self.output_file) is not None:
            raise UsageError(f"--resume: {self.output_file} appears when it is whole; add --ray, which keeps its parts")

    def look_up(self) -> None:
        find_model(self.params_path)


class Encoded(NamedTuple):
    """A written file of vectors."""

    file: str
    rows: int
    size: int
    dtype: str

    @classmethod
    def of(cls, path: Path, file: str) -> Encoded:
        """Return the facts of the vectors at `path`, which users call `file`."""
        from paddle_ranker.retrieval.vectors.vector_files import open_vectors

        values = open_vectors(path).values
        return cls(file, len(values), values.shape[1], values.dtype.name)


def encode(options: EncodeOptions, rows: Union[DocumentFile, RecordFile[Line], None] = None) -> Encoded:
    """Encode the texts of rows (default: the documents of the file), and write the vectors."""
    if options.processes == 1 and options.ray is None:
        runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.options import note
    from paddle_ranker.retrieval.index.towers import MANY_TEXTS, note_export
    from paddle_ranker.retrieval.vectors.parallel_encoding import EncodePlan, Encoding
    from paddle_ranker.retrieval.vectors.vector_files import VectorFile
    from paddle_ranker.scoring.versions import named, versions
    from paddle_ranker.storage.digest import content_digest

    source = resolved(options.params_path)
    how = LoadOptions.of(options)
    rows = rows or DocumentFile(options.input_file, options, joins_title=True)
    tower, texts = content_digest(source), content_digest(options.input_file)
    identity = {
        "the tower": tower,
        "the texts": texts,
        "options": {
            name: getattr(options, name)
            for name in ("dtype", "queries", "batch_size", "max_seq_length", "pooling", "normalize", "engine",
                         "precision", "skip_bad_rows", "separator", "header", "id_column",
                         "title_column", "text_column")
        },
        **named(versions(options.engine)),
    }  # fmt: skip
    plan = EncodePlan(
        source, how, options.batch_size, options.queries, options.processes, folder_of(options.input_file)
    )
    if options.ray is not None:
        with (
            ON_CLUSTER["encode"](plan, rows, options, identity, {options.input_file: texts}, {source: tower}) as parts,
            uploading(options.output_file) as path,
            closing(VectorFile(path, options.dtype, identity)) as file,
        ):
            for vectors in parts:
                file.append(vectors)
            file.finish()
            return Encoded.of(file.path, options.output_file)
    with (
        uploading(options.output_file) as path,
        closing(VectorFile(path, options.dtype, identity, options.resume)) as file,
    ):
        if not file.is_done:
            if file.rows:
                note(f"{file.path}: going on after {file.rows:,} vectors")
            encoding = Encoding(plan)
            rest: Iterator[str] = islice((row.text for row in rows), file.rows, None)
            with Progress(desc="encode", unit="text", initial=file.rows) as progress:
                for vectors in encoding.run(rest):
                    before = file.rows
                    file.append(vectors)
                    progress.update(len(vectors))
                    if before < MANY_TEXTS <= file.rows:
                        note_export(options.params_path, options.device, "encode --model exported --engine onnx")
            file.finish()
            if rows.skipped:
                note(f"{options.input_file}: {rows.report()}")
        return Encoded.of(file.path, options.output_file)


def run(options: EncodeOptions) -> None:
    """Encode the texts, write the vectors, and print their shape and type."""
    made = encode(options)
    print(f"{made.file}: {made.rows:,} vectors of {made.size} numbers, {made.dtype}")


main = main_of(run, EncodeOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
