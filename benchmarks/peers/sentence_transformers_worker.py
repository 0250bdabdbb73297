"""Train sentence-transformers' CrossEncoder and score with it: `python sentence_transformers_worker.py WORK.json`.

This file imports nothing of this project, so that it runs in any environment with sentence-transformers. WORK.json is
`{"model": folder, "stages": [{"pairs": file, "epochs": 2, "learning_rate": 1e-4}, ...], "score": file,
"output": file, ...}`; a file of pairs holds JSON lines of query, title and label. A stage's optional `loss`: "binary",
the cross-entropy of relevant or not (default); "graded", the cross-entropy of label / highest label; "lambda",
LambdaLoss on the labels of whole queries, with about as many pairs a batch.
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
    """Return the columns of a file of pairs."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return {name: [row[name] for row in rows] for name in ("query", "title", "label")}


def lists_of(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return one row per query, with its titles and labels as lists."""
    rows: dict[str, tuple[list[str], list[float]]] = {}
    for query, title, label in zip(columns["query"], columns["title"], columns["label"]):
        titles, labels = rows.setdefault(query, ([], []))
        titles.append(title)
        labels.append(float(label))
    lists = list(rows.values())
    return {"query": list(rows), "docs": [titles for titles, _ in lists], "labels": [labels for _, labels in lists]}


def main(work_file: str) -> None:
    """Train in the stages of the work; write the logits of its pairs to score, `[pairs]`, and the training seconds."""
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, LambdaLoss

    datasets = import_module("datasets")  # the package, which a checker would take for the checkout's folder
    work = json.loads(Path(work_file).read_text(encoding="utf-8"))
    torch.set_num_threads(work["threads"])
    torch.manual_seed(work["seed"])
    model = CrossEncoder(work["model"], num_labels=1, max_length=work["max_seq_length"], device="cpu")
    seconds = 0.0
    for stage in work["stages"]:
        columns = read(stage["pairs"])
        kind, batch_size, loss = stage.get("loss", "binary"), work["batch_size"], BinaryCrossEntropyLoss(model)
        if kind == "binary":
            columns["label"] = [float(label >= 1) for label in columns["label"]]
        elif kind == "graded":
            highest = max(columns["label"])
            columns["label"] = [label / highest for label in columns["label"]]
        else:
            pairs, loss = len(columns["label"]), LambdaLoss(model, mini_batch_size=0)
            columns = lists_of(columns)
            batch_size = max(1, round(batch_size * len(columns["query"]) / pairs))
        data = datasets.Dataset.from_dict(columns)
        with tempfile.TemporaryDirectory() as folder:
            arguments = CrossEncoderTrainingArguments(
                output_dir=folder,
                num_train_epochs=stage["epochs"],
                per_device_train_batch_size=batch_size,
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
