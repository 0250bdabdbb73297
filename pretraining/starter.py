"""Pretrain the starter encoder: the work of `paddle-ranker starter --pretrain_steps`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle_ranker import runtime
from paddle_ranker.commands.starter import PRETRAINING

if TYPE_CHECKING:
    from paddle_ranker.model.config import EncoderConfig

_LENGTH = 64  # maximum length of a sequence in tokens
# With larger initial weights than BERT's 0.02, narrow encoders learn more than word frequencies sooner.
_NARROW, _SPREAD = 256, 0.06


def pretrain(texts: Iterable[str], config: EncoderConfig, tokenizer: Path, steps: int, seed: int) -> dict[str, Any]:
    """Train an encoder with the configuration `config` on texts as a masked language model; return its parameters."""
    from paddle_ranker.data.rows.formats import write_rows
    from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
    from pretraining.mlm_options import TrainMlmOptions
    from pretraining.train_mlm import train

    runtime.prepare_command(0)
    if config.hidden_size < _NARROW:
        config = replace(config, initializer_range=_SPREAD)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        rows = ((text,) for text in dict.fromkeys(texts) if text.strip())
        write_rows(str(work / "texts.jsonl"), ("text",), rows, header=True)
        (work / "shape.json").write_text(json.dumps(asdict(config)), encoding="utf-8")
        result = train(
            TrainMlmOptions(
                train_files=(str(work / "texts.jsonl"),),
                tokenizer=str(tokenizer),
                config=str(work / "shape.json"),
                save_dir=str(work / "run"),
                dropout=0.0,
                max_seq_length=min(_LENGTH, config.max_position_embeddings),
                batch_size=8,
                gradient_accumulation_steps=1,
                learning_rate=1e-3,
                epochs=steps,
                max_steps=steps,
                eval_step=500,
                save_step=steps,
                logging_steps=500,
                seed=seed,
                device="cpu",
            )
        )
        assert result.last_checkpoint is not None  # the last step saves a checkpoint
        return load_arrays(result.last_checkpoint / PARAMETERS_FILE)


PRETRAINING.add("mlm", pretrain)
