"""Encode a corpus, one text per line with any tabs, as vectors for Milvus: `corpus_embedding.npy`.

The installed command, which reads columns and JSON as well:

paddle-ranker encode --model output --input corpus.csv --output corpus_embedding.npy
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.data.rows.records import Line, RecordFile
from paddle_ranker.options import main_of, note_without_effect, option, redeclare
from paddle_ranker.scoring.scoring_options import PublishedEngineOptions
from recall.inference import EncodeOptions, encode


@dataclass(frozen=True)
class FeatureOptions(PublishedEngineOptions, EncodeOptions):
    params_path: str = redeclare(EncodeOptions, "params_path", aliases=("--model_dir",))
    input_file: str = redeclare(EncodeOptions, "input_file", aliases=("--corpus_file",))
    output_file: str = redeclare(EncodeOptions, "output_file", "corpus_embedding.npy")
    use_tensorrt: Optional[bool] = option(None, help="accepted without effect: towers run without TensorRT")


def run(options: FeatureOptions) -> None:
    """Encode the corpus, write the vectors, and print the file's name."""
    options.note_unused()
    note_without_effect(options, ["use_tensorrt"], "towers run without TensorRT")
    print(encode(options, RecordFile(options.input_file, Line, options)).file)


main = main_of(run, FeatureOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
