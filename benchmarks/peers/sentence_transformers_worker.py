"""Train sentence-transformers' CrossEncoder and score with it: `python sentence_transformers_worker.py WORK.json`.

This file imports nothing of this project, so that it runs in any environment with sentence-transformers. WORK.json is
`{"model": folder, "stages": [{"pairs": file, "epochs": 2, "learning_rate": 1e-4}, ...], "score": file,
"output": file, ...}`; a file of pairs holds JSON lines of query, title and label. The loss is the cross-entropy of
relevant or not, or, if a stage is `graded`, of label / highest label.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def read(path: str) -> dict[str, list[Any]]:
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return {name: [row[name] for row in rows] for name in ("query", "title", "label")}


def main(work_file: str) -> None:
    """Train in the stages of the work; write the logits of its pairs to score, `[pairs]`, and the training seconds."""
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    datasets = import_module("datasets")  # the package, which a checker would take for the checkout's folder
    work = json.loads(Path(work_file).read_text(encoding="utf-8"))
    torch.set_num_threads(work["threads"])
    torch.manual_seed(work["seed"])
    model = CrossEncoder(work["model"], num_labels=1, max_length=work["max_seq_length"], device="cpu")
    seconds = 0.0
    for stage in work["stages"]:
        columns = read(stage["pairs"])
        highest = max(columns["label"])
        columns["label"] = [label / highest if stage["graded"] else float(label >= 1) for label in columns["label"]]
        data = datasets.Dataset.from_dict(columns)
        with tempfile.TemporaryDirectory() as folder:
            arguments = CrossEncoderTrainingArguments(
                output_dir=folder,
                num_train_epochs=stage["epochs"],
                per_device_train_batch_size=work["batch_size"],
                learning_rate=stage["learning_rate"],
                warmup_ratio=0.06,
                weight_decay=0.01,
                bf16=True,  # faster, if the processor supports it
                use_cpu=True,
                seed=work["seed"],
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                logging_strategy="no",
            )
            loss = BinaryCrossEntropyLoss(model)
            trainer = CrossEncoderTrainer(model=model, args=arguments, train_dataset=data, loss=loss)
            began = time.perf_counter()
            trainer.train()
            seconds += time.perf_counter() - began
    scored = read(work["score"])
    logits = model.predict(
        list(zip(scored["query"], scored["title"])), batch_size=64, activation_fn=torch.nn.Identity(),
        show_progress_bar=False,
    )  # fmt: skip
    np.savez(work["output"], scores=np.asarray(logits, dtype=np.float64).reshape(-1), seconds=seconds)


if __name__ == "__main__":
    main(sys.argv[1])
