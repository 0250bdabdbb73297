"""Stored states of documents in an index: outputs of a split ranker's first layers, which read each document alone.

`index build --store_states RANKER` copies the ranker into the index folder, and each segment has the states of its
documents, as the ranker reads them. A search with that ranker then runs the first layers on the query only.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Union

import numpy as np

from paddle_ranker.encoding.columns import offsets_of
from paddle_ranker.model.load_options import ON_CPU
from paddle_ranker.model.pretrained import find_model
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import RankerStates
from paddle_ranker.retrieval.stored.schema import Schema
from paddle_ranker.retrieval.work.turns import checked
from paddle_ranker.storage.atomic import make_folder, new_folder
from paddle_ranker.storage.prefetch import chunks
from paddle_ranker.stored_titles.stored_ranker import SplitRanker
from paddle_ranker.stored_titles.title_states import StatesWriter

RANKER_FOLDER = "ranker"
_AT_ONCE = 256  # documents whose states are in memory


def copy_ranker(source: Union[str, Path], index: Path, dtype: str) -> RankerStates:
    """Copy a ranker into an index folder; raises `CheckpointError` if the ranker cannot be a `SplitRanker`."""
    folder = find_model(source)
    states = SplitRanker.open(folder, ON_CPU).states_info
    make_folder(index)
    with new_folder(index / RANKER_FOLDER, replace=True) as target:
        shutil.copytree(folder if folder.is_dir() else folder.parent, target, dirs_exist_ok=True)
    return RankerStates(RANKER_FOLDER, states.ranker, states.layers, states.width, dtype)


def write_states(ranker: SplitRanker, target: Path, documents: Iterable[Document], schema: Schema, dtype: str) -> None:
    """Write the states of documents into an empty folder.

    A document gets no states if it leaves no room for a query in a pair of the ranker's maximum length: the ranker
    would read only a part of the document.
    """
    writer, template = (
        StatesWriter(target, dataclasses.replace(ranker.states_info, dtype=dtype)),
        ranker.encoder.template,
    )
    most = ranker.encoder.max_seq_length - len(template.before) - len(template.between) - 1
    for part in checked(chunks(documents, _AT_ONCE)):
        texts = [schema.model_text(document, document.text) for document in part]
        fits = ranker.encoder.encode_titles(texts).lengths < most
        states = ranker.title_states([text for text, is_read in zip(texts, fits.tolist()) if is_read])
        lengths, vectors = np.zeros(len(texts), np.int64), np.zeros((len(texts), states.vectors.shape[1]), np.float32)
        lengths[fits], vectors[fits] = np.diff(states.offsets), states.vectors
        writer.append(dataclasses.replace(states, offsets=offsets_of(lengths), vectors=vectors))
    writer.finish()
