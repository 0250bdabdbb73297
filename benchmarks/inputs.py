"""Inputs of the benchmarks: files that the user names, else real data, else the demo data; and lists in options."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.options import Options, option

ROOT = Path(__file__).resolve().parent.parent
DEVICES = ("cpu", "gpu")
DEMO_FILE = ROOT / "datasets" / "sort" / "dev_pairwise.csv"


@dataclass(frozen=True)
class GradedPairsOptions(Options):
    """Options for the data of a speed benchmark."""

    file: Optional[str] = option(None, help="pairs: query, title, label (default: QBQTC's, else the demo's)")
    vocab: Optional[str] = option(None, help="vocab.txt (default: ERNIE 3.0's, else one trained on the file)")


@dataclass(frozen=True)
class PeerOptions(GradedPairsOptions):
    """Options of a speed benchmark that also measures peers, which are systems of other projects."""

    model: Optional[str] = option(
        None, help="folder of a ranker without match embeddings, which the peers lack; replaces --shapes"
    )
    peer_python: str = option(sys.executable, help="Python interpreter of an environment with the peers")


def real_data_folder(chosen: Optional[str] = None) -> Path:
    """Return the folder of the real data: `chosen`, else `PADDLE_RANKER_REAL_DATA`, else ../shared/data."""
    return Path(chosen or os.environ.get("PADDLE_RANKER_REAL_DATA") or ROOT.parent / "shared" / "data")


def graded_pairs_and_vocabulary(file: Optional[str], vocab: Optional[str]) -> tuple[Path, Optional[Path]]:
    """Return the paths of the labelled pairs and of the vocabulary, or None for a vocabulary that must be trained.

    Raises `UsageError` if no file is named or found, or if the named vocabulary is not a file.
    """
    real = real_data_folder()
    real_file = real / "qbqtc" / "train.tsv"
    # A named file is not checked here: the code that reads it reports a missing file and suggests a similar name.
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


def real_data_file(folder: Optional[str], name: str) -> Path:
    """Return the path of a file in `real_data_folder(folder)`; raises `DataError` if it does not exist."""
    chosen = real_data_folder(folder)
    if not (chosen / name).is_file():
        raise DataError(f"{chosen / name}: not there; name the folder that holds {name} with --data_dir")
    return chosen / name


def chosen(name: str, given: str, known: Sequence[str], reference: Optional[str] = None) -> list[str]:
    """Return the names in a comma-separated option, all of `known` for "all".

    Raises `UsageError` if a name is unknown or repeats, or if `reference` is not among the names.
    """
    names = list(known) if given == "all" else [part.strip() for part in given.split(",")]
    for part in names:
        if part not in known:
            raise UsageError(f"--{name} {part}: choose from {', '.join(known)}")
    if len(set(names)) < len(names):
        raise UsageError(f"--{name} {given}: name each once")
    if reference and reference not in names:
        raise UsageError(f"--reference {reference}: is not among the {name} {', '.join(names)}")
    return names


def parse_numbers(text: str, name: str) -> list[int]:
    """Return the comma-separated whole numbers of an option.

    Raises `UsageError` if a part is not a whole number of at least 0, or repeats.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--{name} {text}: give whole numbers separated by commas, such as 1,2,3") from None
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise UsageError(f"--{name} {text}: give different numbers, none below 0")
    return numbers
