"""Export a pairwise ranker as a static model, `inference.predict.*`, for engines and servers.

paddle-ranker export --model checkpoint/best --output output --onnx
"""

from __future__ import annotations

from paddle_ranker.commands.export import ExportOptions, export
from paddle_ranker.options import main_of

main = main_of(export, ExportOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
