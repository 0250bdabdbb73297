"""Every setting of a folder of sentence-transformers is read as the library does, or refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.errors import RankerError
from paddle_ranker.model.hugging_face.sentences import stated_info
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.storage.foreign_config import ForeignConfig
from tests.checkout import ONCE, SETTINGS_STEP
from tests.model.content_changes import summed
from tests.model.sentence_changes import (
    FILE,
    KINDS,
    TEXTS,
    Change,
    changed,
    changes,
    is_reranker,
    pairs_of,
    write_folder,
)

pytestmark = pytest.mark.parity
ANSWERS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
# Keys whose values are refused although the library passes over them: files that have them mean something by them.
_CAREFUL = """
kwargs type pooling_mode module_output_name similarity_fn_name model_type processing_kwargs modality_config
model_args model_kwargs tokenizer_args processor_kwargs config_args config_kwargs transformer_task query_length
document_length prompts
"""
CAREFUL = frozenset(_CAREFUL.split())


def found(folder: Path, kind: str) -> list[Any]:
    """Return our answer: the comparison of vectors, "" of a reranker, and the sums of vectors or logits."""
    if is_reranker(kind):
        model = open_model(folder, RANKER)
        scorer = Scorer(model.engine, model.row_encoder)
        queries, titles = zip(*pairs_of(kind))
        return ["", *summed([np.asarray(scorer.logits(scorer.encode(queries, titles)))])]
    tower, info = Tower.open(folder), stated_info(folder)
    vectors = [encode([text]) for encode in (tower.query_vectors, tower.vectors) for text in TEXTS]
    return [info.similarity if info else "cosine", *summed(vectors)]


def names_of(change: Change) -> list[str]:
    """Return names by one of which an error may name a change."""
    file, keys, value = change
    if keys:
        more = {"prompts": "prompt", "type": str(value).rpartition(".")[2], "false_token_id": "ids of its answers"}
        more["true_token_id"] = more["false_token_id"]
        kinds = ["is a tower, which", "is a model folder of", "a reranker"] if keys[-1] == "model_type" else []
        return [keys[-1], more.get(keys[-1], keys[-1]), *kinds]
    if isinstance(value, list):
        return [file, *(step["path"] for step in value if step["path"])]
    return [*value, "pooling_mode"]


def wrong_ones(kind: str, folder: Path, unknown: list[str]) -> list[str]:
    """Return what is read otherwise than by the library, of each `SETTINGS_STEP`-th change."""
    said, wrong = ANSWERS[kind], list[str]()
    plain = write_folder(folder / "plain", kind)
    np.testing.assert_allclose(found(plain, kind)[1:], said["plain"][1:], atol=3e-5)
    cases = changes(plain, kind)
    assert len(cases) == len(said["answers"])
    for number, (change, answer) in enumerate(zip(cases, said["answers"])):
        if number % SETTINGS_STEP:
            continue
        model = folder / "changed"
        shutil.rmtree(model, ignore_errors=True)
        changed(Path(shutil.copytree(plain, model)), change)
        shown = f"{change[0]} {'.'.join(map(str, change[1]))} {change[2]!r}"
        unknown.clear()
        try:
            ours = found(model, kind)
        except RankerError as error:
            is_named = any(name in str(error) for name in names_of(change))
            may_be = answer is not None or not change[1] or change[1][-1] in CAREFUL
            if not isinstance(answer, str) and not (is_named and may_be):
                wrong.append(f"{shown} is refused, and {'moves' if answer else 'has no effect'}: {error}")
            continue
        wanted = said["plain"] if answer is None else answer
        if isinstance(answer, str):
            continue
        if (ours[0] and ours[0] != wanted[0]) or not np.allclose(ours[1:], wanted[1:], 0, 3e-5):
            wrong.append(f"{shown} moves {'there' if answer else 'here'}: {ours[:3]}, {wanted[:3]}")
    return wrong


@ONCE
@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_read_as_the_library_reads_it_or_refused_by_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown: list[str] = []
    monkeypatch.setattr(ForeignConfig, "log_unknown", lambda stated: unknown.extend(stated.unknown))
    wrong = wrong_ones(kind, tmp_path, unknown)
    assert not wrong, "\n".join([str(len(wrong)), *wrong])
