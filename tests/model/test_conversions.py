"""What `convert --to hf` writes gives transformers the logits that this toolkit computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.checkout import ONCE
from tests.encoding import id_cases
from tests.model.conversion_cases import CASES, FILE, digest, our_logits, write_converted

pytestmark = pytest.mark.parity
ANSWERS = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers")
    id_cases.unpack(folder)
    return folder


@ONCE
@pytest.mark.parametrize("case", CASES)
def test_a_written_folder_has_our_logits_in_transformers(case: str, tmp_path: Path, folders: Path) -> None:
    ours, back, given = write_converted(tmp_path, case, folders)
    written, logits = ANSWERS[case]
    assert digest(back) == written, f"another tokenizer is written: make {FILE.name} anew"
    np.testing.assert_allclose(our_logits(ours, given), logits, atol=1e-5)
