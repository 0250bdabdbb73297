"""Make vectors of a corpus, a text a line, tabs included, for Milvus: `corpus_embedding.npy`.

The installed command, which reads columns and JSON as well:

paddle-ranker encode --model output --input corpus.csv --output corpus_embedding.npy
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from paddle_ranker.data.records import Line
from paddle_ranker.options import redeclare, run_command
from recall.inference import EncodeOptions, encode


@dataclass(frozen=True)
class FeatureOptions(EncodeOptions):
    params_path: str = redeclare(EncodeOptions, "params_path", aliases=("--model_dir",))
    output_file: str = redeclare(EncodeOptions, "output_file", "corpus_embedding.npy")


def run(options: FeatureOptions) -> None:
    """Write the file, and print its name."""
    print(encode(options, Line))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(run, FeatureOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
