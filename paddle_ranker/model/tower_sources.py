"""Read any encoder as a tower: what its files hold, and how its vectors are made.

A tower's folder and one of sentence-transformers say so themselves. All others follow `_assumed`, which is noted:

| folder | pooling | length 1 |
| --- | --- | --- |
| of the published recall scripts (`ptm.*`, `emb_reduce_linear.*`) | the pooler, as these scripts do | yes |
| `rocketqa-*-query-encoder`, `-para-encoder` | the first token, as RocketQA does; compared by products | no |
| any other encoder | the mean of the tokens, as sentence-transformers does | no |
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np

from paddle_ranker.errors import UsageError
from paddle_ranker.model.encoders import Checkpoint, read_checkpoint
from paddle_ranker.model.hub import HubName
from paddle_ranker.model.hugging_face.library_tokenizer import MODULES_FILE, stated_length
from paddle_ranker.model.hugging_face.sentences import Sentences, read_sentences
from paddle_ranker.model.info import PUBLISHED_HEADS
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.network import ENCODER
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.model.tower import POOLINGS, TowerInfo
from paddle_ranker.options import note

OUTPUT_LAYERS = ("output_layer", "emb_reduce_linear")  # ours, the published scripts'
_PUBLISHED = "ptm."
_ROCKETQA = re.compile(r"rocketqa-.*-(query|para)-encoder")


def read_tower(source: Path, options: LoadOptions) -> tuple[Checkpoint, TowerInfo]:
    """Read the files of a tower or of an encoder; return their contents and how vectors are made of them.

    Args:
        source: a folder, its parameter file, or a PaddleNLP name.

    Raises `CheckpointError` as `read_checkpoint` does, `UsageError` for another pooling than the folder states.
    """
    source = resolve_model(str(source))
    folder = source.parent if source.is_file() else source
    info, sentences = TowerInfo.read(folder), None
    if info is None and (folder / MODULES_FILE).is_file():
        sentences = read_sentences(folder)
        info = sentences.info
    checkpoint = read_checkpoint(source, options.model_name, wanted="a tower or an encoder")
    if sentences is not None:
        checkpoint = _with_dense(checkpoint, sentences)
    if options.pooling is not None and options.pooling not in POOLINGS:
        raise UsageError(f"--pooling {options.pooling}: choose from {', '.join(POOLINGS)}")
    if info is None:
        info = _assumed(checkpoint, folder, options)
    elif options.pooling not in (None, info.pooling):
        raise UsageError(f"--pooling {options.pooling}: {folder} says {info.pooling}; leave the option out")
    length = options.max_seq_length or min(info.max_seq_length, checkpoint.config.longest_pair)
    normalize = info.normalize if options.normalize is None else options.normalize
    return checkpoint, dataclasses.replace(info, max_seq_length=length, normalize=normalize)


def _assumed(checkpoint: Checkpoint, folder: Path, options: LoadOptions) -> TowerInfo:
    """Return how vectors are made of an encoder whose folder does not say, and note it."""
    arrays = checkpoint.unnamed
    output = next((arrays[f"{name}.weight"] for name in OUTPUT_LAYERS if f"{name}.weight" in arrays), None)
    is_ranker = any(head in arrays for head in ("head.weight", *PUBLISHED_HEADS))
    is_published = output is not None or (any(name.startswith(_PUBLISHED) for name in arrays) and not is_ranker)
    is_rocketqa = _ROCKETQA.fullmatch(folder.name) is not None
    if is_published:
        pooling, why = "pooler", "the pooler's output, as the published recall scripts take it"
    elif is_rocketqa:
        pooling, why = "first", "the first token's state, as RocketQA takes it"
    else:
        pooling, why = "mean", "the mean of the tokens' states, as sentence-transformers does"
    if options.pooling is None:
        how = f"{why} (--pooling {'|'.join(POOLINGS)}){_left_out(folder)}"
        note(f"note: {folder} does not say how its vectors are made: {how}")
    return TowerInfo(
        max_seq_length=min(stated_length(folder), checkpoint.config.longest_pair),
        size=checkpoint.config.hidden_size if output is None else output.shape[-1],
        pooling=options.pooling or pooling,
        output_layer=output is not None,
        normalize=is_published,
        similarity="dot" if is_rocketqa else "cosine",
    )


def _left_out(folder: Path) -> str:
    """Return how to bring what another program left out when it put a model into the hub's cache."""
    name = HubName.of_snapshot(folder)
    if name is None:
        return ""
    return f"; if the model has a {MODULES_FILE} on the hub, hf download {name.repository} brings it into the cache"


def _with_dense(checkpoint: Checkpoint, sentences: Sentences) -> Checkpoint:
    """Return the checkpoint with the dense layers of a sentence-transformers folder, where ours would be."""
    arrays, unnamed = dict(checkpoint.arrays), dict(checkpoint.unnamed)
    if sentences.pooler is not None:
        name = f"{ENCODER}pooler.dense"
        arrays[f"{name}.weight"], arrays[f"{name}.bias"] = sentences.pooler.arrays()
    if sentences.info.output_layer:
        width, size, name = (
            checkpoint.config.hidden_size,
            sentences.info.cut_from or sentences.info.size,
            OUTPUT_LAYERS[0],
        )
        weight, bias = np.eye(width, dtype=np.float32), np.zeros(width, np.float32)
        if sentences.output_layer is not None:
            weight, bias = sentences.output_layer.arrays()
        unnamed[f"{name}.weight"], unnamed[f"{name}.bias"] = weight[:, :size], bias[:size]
    return dataclasses.replace(checkpoint, arrays=arrays, unnamed=unnamed)
