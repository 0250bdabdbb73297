"""What the speed benchmarks run on: real data where it is there, else the demo data, else what the user names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

from paddle_ranker.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
DEMO_FILE = ROOT / "datasets" / "sort" / "dev_pairwise.csv"


def real_data_folder(chosen: Optional[str] = None) -> Path:
    """Return the folder of the real data: `chosen`, else `PADDLE_RANKER_REAL_DATA`, else beside the checkout."""
    return Path(chosen or os.environ.get("PADDLE_RANKER_REAL_DATA") or ROOT.parent / "shared" / "data")


def graded_pairs_and_vocabulary(file: Optional[str], vocab: Optional[str]) -> tuple[Path, Optional[Path]]:
    """Return the file of labelled pairs and the vocabulary to use; no vocabulary where one is to be trained.

    Raises `UsageError` where there is no file, or the named vocabulary is not one.
    """
    real = real_data_folder()
    real_file = real / "qbqtc" / "train.tsv"
    # A file that was named and is not there is the reader's to say: it knows the nearest name.
    found = Path(file) if file else next((path for path in (real_file, DEMO_FILE) if path.is_file()), None)
    if found is None:
        raise UsageError(
            f"neither {real_file} nor {DEMO_FILE} is there: give graded pairs with --file, or set "
            "PADDLE_RANKER_REAL_DATA to the folder of the real data"
        )
    if vocab and not Path(vocab).is_file():
        raise UsageError(f"--vocab {vocab} is not a file: give a vocab.txt")
    chosen = Path(vocab) if vocab else real / "vocab" / "ernie-3.0-vocab.txt"
    return found, chosen if chosen.is_file() else None
