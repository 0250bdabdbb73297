"""In-batch training by sentence-transformers: `python sentence_training_worker.py SETTINGS.json`; prints the seconds.

This file imports nothing of this project, so that it runs in any environment with sentence-transformers.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time


def main(settings_file: str) -> None:
    """Train as the settings say, in fp32 on the CPU, save the model, and print the seconds of both."""
    import torch
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers

    with open(settings_file, encoding="utf-8") as stream:
        settings = json.load(stream)
    torch.set_num_threads(settings["threads"])
    began = time.perf_counter()
    model = SentenceTransformer(settings["model"], device="cpu")
    model.max_seq_length = settings["max_seq_length"]
    queries, titles = zip(*settings["pairs"])
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
            warmup_ratio=settings["warmup_proportion"],
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            seed=settings["seed"],
            data_seed=settings["seed"],
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        loss = MultipleNegativesRankingLoss(model, scale=settings["scale"])
        # The package is imported by name, as type checkers would take this checkout's folder `datasets` for it.
        pairs = importlib.import_module("datasets").Dataset.from_dict(
            {"anchor": list(queries), "positive": list(titles)}
        )
        SentenceTransformerTrainer(model=model, args=arguments, train_dataset=pairs, loss=loss).train()
    model.save(settings["output"])
    print(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main(*sys.argv[1:])
