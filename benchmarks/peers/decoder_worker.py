"""Score one query's titles by a decoder: `python decoder_worker.py SYSTEM FOLDER`.

SYSTEM is this toolkit with the query computed once (`shared`) or with each title (`whole`), its exported graph in
OpenVINO (`exported`), or a peer, which imports nothing of this project: `transformers`, and its model in ONNX Runtime
(`onnxruntime`) and in OpenVINO (`openvino`). `_bf16` behind a name computes in bfloat16. The folder has `pairs.json`:
the query and its titles. `export` writes the exported graph to `FOLDER/exported`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    name, _, precision = system.partition("_")
    load = _ours if name in ("shared", "whole", "exported") else _peer
    score = load(name, precision or "fp32", folder, query, titles)

    def answer(command: object) -> dict[str, float]:
        watch = Stopwatch()
        score()
        took = watch.took()
        # The rusage of a process begins with that of its parent.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        kilobytes = int(status.partition("VmHWM:")[2].split()[0])
        return {**took, "megabytes": kilobytes / 1024}

    answer_commands(answers, answer, sys.stdin, score())


def _ours(name: str, precision: str, folder: Path, query: str, titles: list[str]) -> Callable[[], list[float]]:
    from paddle_ranker import Ranker, runtime
    from paddle_ranker.model.networks import qwen3

    threads = int(os.environ["OMP_NUM_THREADS"])
    runtime.prepare_command(threads)
    if name == "exported":
        ranker = Ranker.load(folder / "exported", engine="openvino", precision=precision, threads=threads)
    else:
        if name == "whole":
            qwen3.divide = lambda *_: None
        ranker = Ranker.load(folder, max_seq_length=_LENGTH)
    pairs = ranker.row_encoder.encode([query] * len(titles), titles)
    return lambda: ranker.scorer.logits(pairs).tolist()


def export(folder: Path) -> None:
    """Write the exported graph; few pairs check it, since each takes a second."""
    from paddle_ranker import runtime

    runtime.prepare_command(int(os.environ["OMP_NUM_THREADS"]))
    from paddle_ranker.encoding import samples
    from paddle_ranker.export.static_graph import export_model
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.model.ranker_folder import load_single

    samples.PAIRS = 4
    export_model(load_single(folder, LoadOptions(max_seq_length=512)), folder / "exported", onnx=True)


def _peer(name: str, precision: str, folder: Path, query: str, titles: list[str]) -> Callable[[], list[float]]:
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    is_half = name == "transformers" and precision == "bf16"
    dtype = torch.bfloat16 if is_half else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    before, after = (tokenizer.encode(text, add_special_tokens=False) for text in (PREFIX, SUFFIX))
    texts = [f"<Instruct>: {INSTRUCTION}\n<Query>: {query}\n<Document>: {title}" for title in titles]
    rows = [[*before, *row, *after] for row in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    batches = [
        tokenizer.pad({"input_ids": rows[start : start + _BATCH]}, padding=True, return_tensors="pt")
        for start in range(0, len(rows), _BATCH)
    ]
    yes, no = (tokenizer.convert_tokens_to_ids(answer) for answer in ("yes", "no"))

    class Answer(torch.nn.Module):
        """Logit of "yes" minus that of "no" behind the last token: the head has two rows, not the vocabulary's."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.rows = model.model, model.lm_head.weight[[yes, no]].detach().clone()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
            return states[:, -1] @ (self.rows[0] - self.rows[1])

    answer = Answer().eval()
    example = (torch.ones([2, 16], dtype=torch.int64), torch.tensor([[0] * 4 + [1] * 12, [1] * 16]))
    compute: Callable[..., Any] = answer
    with torch.no_grad():
        if name == "openvino":
            import openvino

            graph = openvino.convert_model(answer, example_input=example)
            settings = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
            compiled = openvino.compile_model(graph, "CPU", {**settings, "INFERENCE_NUM_THREADS": threads})
            compute = lambda *inputs: compiled([array.numpy() for array in inputs])[0]  # noqa: E731
            del model, answer.model, graph
        elif name == "onnxruntime":
            import onnxruntime

            sizes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("length", min=2)}
            path = str(folder / "peer.onnx")
            torch.onnx.export(answer, example, path, dynamo=True, dynamic_shapes=(sizes, sizes), external_data=True)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(path, options)
            names = [given.name for given in session.get_inputs()]
            compute = lambda *inputs: session.run(None, dict(zip(names, (array.numpy() for array in inputs))))[0]  # noqa: E731
            del model, answer.model

    def score() -> list[float]:
        with torch.no_grad():
            logits = [compute(batch["input_ids"], batch["attention_mask"]) for batch in batches]
        return [float(logit) for part in logits for logit in np.asarray(torch.as_tensor(part).float())]

    return score


if __name__ == "__main__":
    if sys.argv[1] == "export":
        export(Path(sys.argv[2]))
    else:
        main(sys.argv[1], Path(sys.argv[2]))
