"""Options of commands about the models that they open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.options import Options, option
from paddle_ranker.options.declare import ANY_TEXT, FETCHED_FOLDER


@dataclass(frozen=True)
class HeadOptions(Options):
    """Option of every command that opens rankers of transformers."""

    positive_label: Optional[str] = option(
        None,
        help="name or number of the class whose probability is the score, for a transformers classifier of two classes "
        "(default: the class whose name means relevant)",
        shared=True,
        addresses=ANY_TEXT,
    )


@dataclass(frozen=True)
class CheckpointOptions(Options):
    """Options of every command that opens a model to encode its pairs or texts."""

    model_name_or_path: Optional[str] = option(
        None,
        help="model whose configuration a parameter file without a folder gets, and whose tokenizer another program's "
        "static model; a folder has its own",
        addresses=FETCHED_FOLDER,
    )
    max_seq_length: Optional[int] = option(
        None,
        help="maximum length of a pair or text in tokens (default: the model's)",
        minimum=5,
    )


@dataclass(frozen=True)
class TokenizerOptions(Options):
    """Option of every command that opens static models of other programs, and no bare parameter files."""

    model_name_or_path: Optional[str] = option(
        None,
        help="model whose tokenizer the texts of another program's static model are read with: a name, a folder, or "
        "the vocabulary's file (default: the files beside the graph)",
        addresses=FETCHED_FOLDER,
    )
