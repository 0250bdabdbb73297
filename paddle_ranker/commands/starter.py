"""Make the starter encoder: a small ERNIE from nothing, so that training works without a network.

    paddle-ranker starter --corpus mine.tsv --output starter
    paddle-ranker starter --corpus names.tsv --output starter --picture_size 64

The WordPiece vocabulary is learned from the corpus. The parameters are random or, with `pretrain_steps`, pretrained on
the corpus as a masked language model. Without `--output` the encoder is made once and kept in the user's cache; the
folder's name is a digest of the corpus and the options.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

from paddle_ranker import runtime
from paddle_ranker.data.rows.skips import Skips
from paddle_ranker.encoding.columns import PICTURE
from paddle_ranker.errors import DataError, RankerError, UsageError
from paddle_ranker.model.tower import FILE_INPUTS, QUERY_FOLDER
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.options.input_files import paths_of
from paddle_ranker.registry import Registry
from paddle_ranker.storage.atomic import cache_folder, made_once, make_folder

if TYPE_CHECKING:
    from paddle_ranker.model.config import EncoderConfig

_VERSION = 2  # part of the name in the cache; raised when the same options would make another encoder

# From (texts, the encoder's shape, its tokenizer's folder, steps, seed) to parameters; recipes add theirs.
Pretraining = Callable[[Iterable[str], "EncoderConfig", Path, int, int], dict[str, Any]]
PRETRAINING: Registry[Pretraining] = Registry("pretraining", recipes="starter")


@dataclass(frozen=True)
class StarterOptions(Options):
    corpus: str = option(
        help=f"files with texts, {os.pathsep} between them: data files of any kind, or one text a line", files=True
    )
    output_dir: Optional[str] = option(None, help="folder to make (default: one in the user's cache)", name="output")
    vocab_size: int = option(8000, help="maximum number of word pieces", minimum=100)
    characters: str = option(
        "corpus",
        choices=("corpus", "gb2312"),
        help="characters of the vocabulary: those of the texts, or also GB 2312's 6,763 ideographs and ASCII's "
        "letters and digits, so that new texts have few unknown characters",
    )
    num_hidden_layers: int = option(2, help="layers", minimum=1)
    hidden_size: int = option(128, help="width", minimum=8)
    num_attention_heads: int = option(4, help="attention heads; divides the width", minimum=1)
    normalize_before: bool = option(
        True, help="LayerNorm before each part of a layer, which trains better from nothing"
    )
    dropout: float = option(0.1, help="dropout in training", minimum=0, below=1)
    max_position_embeddings: int = option(512, help="maximum length of a pair in tokens", minimum=16)
    pretrain_steps: int = option(
        0, help="pretraining steps, as a masked language model on the texts: 8 sequences of 64 tokens each", minimum=0
    )
    picture_size: int = option(
        0,
        help="also make a network that reads pictures of this width and height, four convolutions: a tower of pictures "
        "and names, for train-batch-neg; 0: texts alone",
        minimum=0,
        maximum=512,
    )
    patch_size: int = option(
        0,
        help="read texts and the patches of pictures, of this side, in one network: a ViLT, which rankers of pictures "
        "start from; divides --picture_size",
        minimum=0,
        maximum=64,
    )
    seed: int = option(1000, help="random seed of the parameters", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch_size and (not self.picture_size or self.picture_size % self.patch_size):
            raise UsageError(
                f"--patch_size {self.patch_size}: it must divide --picture_size, which is {self.picture_size}"
            )


def make_starter(options: StarterOptions) -> Path:
    """Make the encoder and return its folder.

    Without `output_dir`, the encoder is kept in the user's cache, and an encoder that is in the cache already is
    reused. Raises `DataError` if the corpus has no text, and `RankerError` if `output_dir` exists already.
    """
    files = [Path(name) for name in paths_of(options.corpus)]
    if options.output_dir is None:
        folder = cache_folder("starter", _fingerprint(files, options))
        with made_once(folder) as missing:
            if missing:
                _build(files, options, folder)
        return folder
    folder = Path(options.output_dir)
    if folder.exists():
        raise RankerError(f"{folder}: is there already; choose another --output, or remove it")
    make_folder(folder.parent)
    _build(files, options, folder)
    return folder


def _fingerprint(files: Sequence[Path], options: StarterOptions) -> str:
    digest = hashlib.sha256()
    facts = {name: value for name, value in asdict(options).items() if name not in ("debug", "corpus", "output_dir")}
    digest.update(json.dumps([_VERSION, facts], sort_keys=True).encode())
    for path in files:
        digest.update(hashlib.sha256(_read(path)).digest())
    return digest.hexdigest()[:16]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read the corpus ({error.strerror})") from error


def _build(files: Sequence[Path], options: StarterOptions, folder: Path) -> None:
    starter = import_module(FILE_INPUTS[PICTURE].starter) if options.picture_size else None
    runtime.prepare()
    from paddle_ranker.encoding.vocabulary import common_characters, train_wordpiece_vocabulary, write_vocabulary
    from paddle_ranker.model.config import EncoderConfig
    from paddle_ranker.model.families import family_of, write_config
    from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays
    from paddle_ranker.storage.atomic import new_folder

    characters = common_characters() if options.characters == "gb2312" else ""
    skips = Skips(True, name_files=True)
    vocabulary = train_wordpiece_vocabulary(_texts(files, skips), options.vocab_size, characters=characters)
    if skips.count:
        print(f"the corpus: {skips.report()}", file=sys.stderr)
    config = EncoderConfig(
        len(vocabulary),
        hidden_size=options.hidden_size,
        num_hidden_layers=options.num_hidden_layers,
        num_attention_heads=options.num_attention_heads,
        intermediate_size=4 * options.hidden_size,
        hidden_dropout_prob=options.dropout,
        attention_probs_dropout_prob=options.dropout,
        max_position_embeddings=options.max_position_embeddings,
        normalize_before=options.normalize_before,
    )
    if starter is not None and options.patch_size:
        config = starter.merged(config, options.picture_size, options.patch_size)
        starter = None  # one network reads both
    runtime.select_device("cpu")  # the same parameters whatever device they are trained on later
    runtime.set_seed(options.seed)
    with new_folder(folder) as whole:
        temporary = whole if starter is None else whole / QUERY_FOLDER
        make_folder(temporary)
        write_vocabulary(temporary, vocabulary)
        write_config(temporary, config)
        if options.pretrain_steps:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for the folder's name
                arrays = PRETRAINING["mlm"](
                    _texts(files, Skips(True)), config, temporary, options.pretrain_steps, options.seed
                )
        else:
            arrays = family_of(config.model_type).network(config).state_dict()
        save_arrays(arrays, temporary / PARAMETERS_FILE)
        if starter is not None:
            starter.add_tower(whole, options.picture_size)


def _texts(files: Sequence[Path], skips: Skips) -> Iterator[str]:
    """Yield every text in every column of the files.

    skips: counts the unreadable rows, which are skipped

    Raises `DataError` if a file has more unreadable than readable rows.
    """
    from paddle_ranker.data.rows.formats import BadRow, read_rows

    for path in files:
        before, read = skips.count, 0
        for number, row in read_rows(str(path)):
            if not isinstance(row, BadRow):
                read += 1
                cells = row.values() if isinstance(row, dict) else row
                yield from (cell for cell in cells if isinstance(cell, str))
            else:
                skips.add(str(path), number, row.reason)
        if skips.count - before > read:
            raise DataError(f"{path}: most rows of the corpus cannot be read: {skips.report()}")


def run(options: StarterOptions) -> None:
    """Print the folder of the starter encoder, after making it if necessary."""
    print(make_starter(options))


main = main_of(run, StarterOptions, __doc__)
