"""Write a pairwise ranker's exported model as the two folders of Paddle Serving, for its servers and its clients.

paddle-ranker export-serving --model output
"""

from __future__ import annotations

from paddle_ranker.options import main_of
from paddle_ranker.paddle_serving.export_serving import ExportServingOptions, export_serving

main = main_of(export_serving, ExportServingOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
