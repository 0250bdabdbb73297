"""Every setting of a published model of pictures, sounds, tables or boxes is read as transformers does, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import PIL
import pytest

from paddle_ranker.errors import RankerError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.model.ranker_folder import load_single
from paddle_ranker.pictures.picture_pairs import PictureTitle
from paddle_ranker.recordings.towers import encode_sounds
from paddle_ranker.recordings.transcriber import Transcriber
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scoring.loading import open_model
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.tables.table_pairs import table_text
from tests.checkout import ONCE, SETTINGS_STEP
from tests.model.content_changes import (
    ALL,
    FILE,
    KINDS,
    TEXTS,
    changed,
    family,
    given,
    is_sound,
    summed,
    write_folder,
)

pytestmark = pytest.mark.parity
ANSWERS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
PILLOW = int(PIL.__version__.partition(".")[0])


def found(folder: Path, kind: str) -> list[float]:
    """Return the sums of our vectors and logits."""
    if is_sound(kind):
        vectors, logits = encode_sounds(Tower.open(folder), given(kind)), Transcriber.open(folder).logits(given(kind))
        return summed([array for both in zip(vectors, logits) for array in both])
    if family(kind) == "vilt":
        model = open_model(folder, RANKER)
        scorer = Scorer(model.engine, model.row_encoder)
        shown = [PictureTitle(picture) for picture in given(kind) for _ in TEXTS]
        return summed([np.asarray(scorer.logits(scorer.encode(TEXTS * len(given(kind)), shown)))])
    if family(kind) == "tapas":
        ranker = load_single(folder, LoadOptions(max_seq_length=128))
        ranker.network.eval()
        return summed([array for case in given(kind) for array in _of_table(ranker, *case)])
    tower = Tower.open(folder)
    of_pictures = [tower.encode_pictures([picture]) for picture in given(kind)]
    return summed([*of_pictures, *([] if family(kind) == "vit" else [tower.query_vectors(TEXTS)])])


def _of_table(ranker: Any, question: str, rows: list[list[str]]) -> list[np.ndarray]:
    """Return the logits of a table, or of its cells' tokens and of the operations."""
    arrays = ranker.row_encoder.encode([question], [table_text(rows)]).pad([0])
    inputs = [paddle.to_tensor(arrays[name]) for name in ("input_ids", "token_type_ids")]
    if not ranker.network.config.names_cells:
        return [ranker.network(*inputs).numpy()]
    _, logits, *operations = ranker.network.answers(*inputs)
    return [
        np.asarray(logits)[0][arrays["token_type_ids"][0, :, 2] > 0],
        *(np.asarray(one) for one in operations if one is not None),
    ]


# What transformers passes over and is refused here, since files that have it are of code that does something with it.
_CAREFUL = """
size_divisor max_image_size use_square_size do_reduce_labels do_flip_channel_order do_thumbnail antialias do_grayscale
resize_mode offset resample default_to_square hop_length dither feature_size sampling_rate feature_extractor_type
add_cross_attention is_decoder is_encoder_decoder position_embedding_type is_causal architectures adapter_attn_dim
patch_size id2label pad_token_id pad_token empty_token max_question_length problem_type
"""
MORE_CAREFUL = frozenset(_CAREFUL.split())


def wrong_ones(kind: str, folder: Path) -> list[str]:
    """Return what is read otherwise than by transformers, of each `SETTINGS_STEP`-th change."""
    said, wrong = ANSWERS[kind], list[str]()
    np.testing.assert_allclose(found(write_folder(folder / "plain", kind), kind), said["plain"], atol=3e-5)
    for number, (file, keys, value, answer) in enumerate(said["changes"]):
        if number % SETTINGS_STEP:
            continue
        model = changed(write_folder(folder / str(number), kind), (file, keys, value))
        change = f"{file} {'.'.join(keys)} {value!r}"
        try:
            sums = found(model, kind)
        except RankerError as error:
            names = [*value] if keys[-1] == ALL else keys[-1:]
            is_named = any(name in str(error) for name in names)
            if not isinstance(answer, str) and not (keys[-1] in MORE_CAREFUL if answer is None else is_named):
                wrong.append(f"{change} is refused, and {'moves' if answer else 'has no effect'}: {error}")
            continue
        wanted = said["plain"] if answer is None else answer
        # Sums of float32, of 10,000 and more.
        if not isinstance(answer, str) and not np.allclose(sums, wanted, 1e-7, 3e-5):
            wrong.append(f"{change} moves {'there' if answer else 'here'}: {sums[:2]}, {wanted[:2]}")
    return wrong


@ONCE
@pytest.mark.skipif(PILLOW < 12, reason="needs Pillow 12, which transformers' pixels were computed with")
@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_read_as_transformers_reads_it_or_refused_by_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wrong = wrong_ones(kind, tmp_path)
    assert not wrong, "\n".join([str(len(wrong)), *wrong])
