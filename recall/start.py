"""Where the training of a tower starts: an encoder, a tower, or the interrupted run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from paddle_ranker.data.records import Pair, RecordFile
from paddle_ranker.errors import DataError
from paddle_ranker.model.encoders import read_checkpoint
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.model.tower_network import TowerModel, load_tower, start_tower
from paddle_ranker.training.run import Start, start_run

if TYPE_CHECKING:
    from recall.train_batch_neg import TrainBatchNegOptions

_MAX_SEQ_LENGTH = 128


def start_tower_training(options: TrainBatchNegOptions) -> Start[TowerModel]:
    """Select the device, seed everything, and load the encoder, the tower or the interrupted run to start from."""
    run = start_run(options)
    if run.resumed:
        return Start(run, load_tower(run.resumed.model, LoadOptions(tokenizer=options.tokenizer)), {})
    source = Path(options.init_from_ckpt) if options.init_from_ckpt else resolve_model(options.model_name_or_path)
    checkpoint = read_checkpoint(source, options.model_name_or_path if options.init_from_ckpt else None)
    stated = TowerInfo.read(checkpoint.file.parent)
    length = options.max_seq_length or (stated.max_seq_length if stated else 0)
    info = TowerInfo(
        max_seq_length=length or min(_MAX_SEQ_LENGTH, checkpoint.config.longest_pair),
        size=options.output_emb_size or checkpoint.config.hidden_size,
        pooling=options.pooling,
        output_layer=options.output_emb_size is not None,
    )
    model, new_parts = start_tower(checkpoint, info, options.tokenizer)
    model.network.encoder.gradient_checkpointing = options.gradient_checkpointing
    if new_parts:
        run.report(f"start from {source}; new: {', '.join(new_parts)}")
    return Start(run, model, dict.fromkeys(new_parts, options.new_parts_factor))


def has_negatives(options: TrainBatchNegOptions) -> bool:
    """Return whether the rows of the training file have a column `neg_title`."""
    try:
        next(iter(RecordFile(options.train_set_file, Pair, options)))
    except DataError:
        return True
    except StopIteration:
        pass
    return False
