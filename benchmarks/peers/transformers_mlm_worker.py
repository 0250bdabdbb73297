"""transformers in the pretraining benchmark: `python transformers_mlm_worker.py FOLDER SYSTEM`.

Of this project, the file imports `answers.py` beside it alone, so that it runs in any environment with torch and
transformers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from answers import Stopwatch, send, take_stdout


def main(folder_name: str, system: str) -> None:
    """Train on the batches of the folder in rounds; an input line has a round's number of steps. Answer each round."""
    answers = take_stdout()
    import torch
    from torch.nn import functional
    from transformers import AutoModelForMaskedLM

    folder = Path(folder_name)
    work = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    torch.set_num_threads(work["threads"])
    torch.manual_seed(work["seed"])
    dropout = {"hidden_dropout_prob": work["dropout"], "attention_probs_dropout_prob": work["dropout"]}
    model: Any = AutoModelForMaskedLM.from_pretrained(str(folder / "hf"), dtype=torch.float32, **dropout)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for _, p in trained if p.ndim > 1], "weight_decay": work["weight_decay"]},
            {"params": [p for _, p in trained if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=work["learning_rate"],
    )
    total = work["total_steps"]
    warmup = int(work["warmup_proportion"] * total)

    def factor(step: int) -> float:
        return step / warmup if step < warmup else 1.0 - (step - warmup) / max(1, total - warmup)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def read(path: Path) -> dict[str, torch.Tensor]:
        with np.load(path) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in ("ids", "indices", "labels")}

    def loss_of(batch: dict[str, torch.Tensor], reduction: str) -> torch.Tensor:
        ids, indices, labels = batch["ids"], batch["indices"], batch["labels"]
        inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        if system == "transformers_gathered":
            hidden = model.base_model(**inputs).last_hidden_state.reshape(-1, model.config.hidden_size)[indices]
            return functional.cross_entropy(model.cls(hidden), labels, reduction=reduction)
        logits = model(**inputs).logits.reshape(-1, model.config.vocab_size)
        wanted = torch.full((ids.numel(),), -100)
        wanted[indices] = labels
        return functional.cross_entropy(logits, wanted, reduction=reduction)

    def evaluate() -> float:
        model.eval()
        losses, count = 0.0, 0
        with torch.no_grad():
            for path in sorted((folder / "batches").glob("eval_*.npz")):
                batch = read(path)
                losses += float(loss_of(batch, "sum"))
                count += len(batch["labels"])
        model.train()
        return losses / count

    model.train()
    send(answers, {"ready": True})
    step = 0
    while wanted := int(sys.stdin.readline() or 0):
        batches = [read(folder / "batches" / f"train_{step + i}.npz") for i in range(wanted)]
        losses, tokens = [], 0
        watch = Stopwatch()
        for batch in batches:
            loss = loss_of(batch, "mean")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), work["max_grad_norm"])
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(float(loss))
            tokens += batch["ids"].numel()
        took = watch.took()
        step += wanted
        send(answers, {"tokens": tokens, "losses": losses, "eval_loss": evaluate(), **took})


if __name__ == "__main__":
    main(*sys.argv[1:])
