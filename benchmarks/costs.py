"""Time rankers of every family at published sizes on a CPU: milliseconds to score 100 documents of 64 tokens.

python -m benchmarks.costs [--threads 1] [--models MiniLM-L6,Qwen3-Reranker-0.6B]

Weights are random. Networks compute in float32, as for a folder without an export. A query has 16 tokens, besides the
chat of Qwen3's rerankers. Some documents are timed, and the times are scaled to 100. With a single thread, times are
processor times. The bytes count the parameters with the published vocabulary.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness.report import format_table
from paddle_ranker import runtime
from paddle_ranker.options import Options, main_of, option

QUERY, DOCUMENT, CHAT = 16, 64, 75  # tokens
_WORDS = 1000  # rows of the timed networks' embeddings, since larger tables cost no time
_SMALL = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
# By name: the published vocabulary, and the configuration.
SIZES: dict[str, tuple[int, dict[str, Any]]] = {
    "MiniLM-L6": (30522, {"model_type": "bert", **_SMALL, "num_hidden_layers": 6}),
    "multilingual-e5-small": (250037, {"model_type": "bert", **_SMALL, "num_hidden_layers": 12}),
    "ernie-3.0-nano-zh": (40000, {"model_type": "ernie", "hidden_size": 312, "num_hidden_layers": 4,
                                  "num_attention_heads": 12, "intermediate_size": 1248}),
    "ernie-3.0-base-zh": (40000, {"model_type": "ernie", **_BASE}),
    "distilbert-base": (30522, {"model_type": "distilbert", **_BASE, "num_hidden_layers": 6}),
    "bge-reranker-base": (250002, {"model_type": "xlm-roberta", **_BASE}),
    "bge-reranker-v2-m3": (250002, {"model_type": "xlm-roberta", **_LARGE}),
    "all-mpnet-base": (30527, {"model_type": "mpnet", **_BASE}),
    "mxbai-rerank-base (DeBERTa-v3)": (128100, {"model_type": "deberta-v2", **_BASE}),
    "gte-reranker-modernbert-base": (50368, {"model_type": "modernbert", **_BASE, "num_hidden_layers": 22,
                                             "intermediate_size": 1152}),
    "longformer-base-4096": (50265, {"model_type": "longformer", **_BASE}),
    "bigbird-roberta-base": (50358, {"model_type": "big_bird", **_BASE}),
    "Qwen3-Reranker-0.6B": (151669, {"model_type": "qwen3", **_LARGE, "num_hidden_layers": 28,
                                     "intermediate_size": 3072, "num_key_value_heads": 8}),
}  # fmt: skip


@dataclass(frozen=True)
class CostsOptions(Options):
    models: str = option(",".join(SIZES), help="models, separated by commas")
    documents: int = option(20, help="documents that are timed", minimum=2)
    rounds: int = option(3, help="rounds", minimum=1)
    threads: int = option(1, help="threads", minimum=1)


def run(options: CostsOptions) -> None:
    runtime.prepare_command(options.threads)
    rows = []
    for name in options.models.split(","):
        vocabulary, shape = SIZES[name]
        seconds, parameters = _measured(vocabulary, shape, options)
        milliseconds = f"{100_000 * seconds / options.documents:,.0f}"
        rows.append(
            [name, shape["model_type"], f"{parameters / 1e6:,.0f}", f"{4 * parameters / 1e9:.2f}", milliseconds]
        )
        print(f"{name}: {milliseconds} ms", flush=True)
        gc.collect()
    print(format_table(["model", "model_type", "parameters, million", "GB", "ms for 100 documents"], rows))


def _measured(vocabulary: int, shape: dict[str, Any], options: CostsOptions) -> tuple[float, int]:
    """Return the seconds for all documents, the least of the rounds, and the number of parameters."""
    import paddle

    from paddle_ranker.model.families import config_from, family_of
    from paddle_ranker.model.network import RankerNetwork

    config = config_from({**shape, "vocab_size": _WORDS, "pad_token_id": 0})
    network = RankerNetwork(config, None, encoder=family_of(config.model_type).network(config))
    network.eval()
    draw = np.random.default_rng(0)
    query = draw.integers(1, _WORDS, QUERY + CHAT * config.shares_queries)
    ids = np.stack([np.concatenate([query, draw.integers(1, _WORDS, DOCUMENT)]) for _ in range(options.documents)])
    types = np.repeat([0, 1], [len(query), DOCUMENT])[None].repeat(len(ids), axis=0)
    inputs = [paddle.to_tensor(array.astype(np.int64)) for array in (ids, types)]
    clock = time.process_time if options.threads == 1 else time.perf_counter
    best = np.inf
    with paddle.no_grad():
        for _ in range(options.rounds + 1):  # the first warms up
            began = clock()
            network(*inputs).numpy()
            best = min(best, clock() - began)
    table = (vocabulary - _WORDS) * config.hidden_size
    return best, table + sum(int(np.prod(parameter.shape)) for parameter in network.parameters())


main = main_of(run, CostsOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.costs")


if __name__ == "__main__":
    raise SystemExit(main())
