"""sentence-transformers behind FastAPI, as tutorials have it: `... fastapi_sentence_transformers FOLDER THREADS`.

The handler is a plain function, which FastAPI runs in its thread pool; each request is a separate `predict` call.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI
from sentence_transformers import CrossEncoder

from benchmarks.peers.fastapi_server import MAX_SEQ_LENGTH, RerankRequest, results, serve


def main() -> int:
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    model = CrossEncoder(str(folder / "hf"), max_length=MAX_SEQ_LENGTH, device="cpu")
    app = FastAPI()

    @app.post("/v1/rerank")
    def rerank(request: RerankRequest) -> dict[str, Any]:
        pairs = [(request.query, title) for title in request.documents]
        return results(model.predict(pairs, show_progress_bar=False).tolist(), request.top_n)

    model.predict([("a", "b" * 200)] * 32, show_progress_bar=False)
    serve(app)
    return 0


if __name__ == "__main__":
    sys.exit(main())
