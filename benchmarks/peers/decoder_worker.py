"""Score one query's titles by a decoder: `python decoder_worker.py SYSTEM FOLDER`.

SYSTEM is `transformers`, which imports nothing of this project, or this toolkit with the query computed once (`shared`)
or with each title (`whole`). The folder has `pairs.json`: the query and its titles.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from answers import Stopwatch, answer_commands, take_stdout

PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_BATCH = 8  # pairs that transformers computes at once
_LENGTH = 8192


def main(system: str, folder: Path) -> None:
    """Answer every line with the seconds of all pairs, and the largest memory of the process."""
    answers = take_stdout()
    query, titles = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    score = _transformers(folder, query, titles) if system == "transformers" else _ours(system, folder, query, titles)

    def answer(command: object) -> dict[str, float]:
        watch = Stopwatch()
        score()
        return {**watch.took(), "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    answer_commands(answers, answer, sys.stdin, score())


def _ours(system: str, folder: Path, query: str, titles: list[str]) -> Callable[[], list[float]]:
    from paddle_ranker import Ranker, runtime
    from paddle_ranker.model.networks import qwen3

    runtime.prepare_command(int(os.environ["OMP_NUM_THREADS"]))
    if system == "whole":
        qwen3.divide = lambda *_: None
    ranker = Ranker.load(folder, max_seq_length=_LENGTH)
    pairs = ranker.row_encoder.encode([query] * len(titles), titles)
    return lambda: ranker.scorer.logits(pairs).tolist()


def _transformers(folder: Path, query: str, titles: list[str]) -> Callable[[], list[float]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    before, after = (tokenizer.encode(text, add_special_tokens=False) for text in (PREFIX, SUFFIX))
    texts = [f"<Instruct>: {INSTRUCTION}\n<Query>: {query}\n<Document>: {title}" for title in titles]
    rows = [[*before, *row, *after] for row in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    batches = [
        tokenizer.pad({"input_ids": rows[start : start + _BATCH]}, padding=True, return_tensors="pt")
        for start in range(0, len(rows), _BATCH)
    ]
    yes, no = (tokenizer.convert_tokens_to_ids(answer) for answer in ("yes", "no"))

    def score() -> list[float]:
        found: list[float] = []
        with torch.no_grad():
            for batch in batches:
                logits = model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1]
                found += (logits[:, yes] - logits[:, no]).tolist()
        return found

    return score


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
