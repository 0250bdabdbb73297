"""Fill the masks of sentences: the likeliest word pieces for each [MASK], with their probabilities.

paddle-ranker fill-mask --model checkpoint/best '联邦[MASK]习'
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Optional

from paddle_ranker import runtime
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.options import DeviceOptions, json_text, main_of, option
from paddle_ranker.options.declare import ANY_TEXT, FETCHED_FOLDER
from paddle_ranker.options.input_files import paths_of
from paddle_ranker.storage.prefetch import chunks

if TYPE_CHECKING:
    from pretraining.filler import Filled, MaskFiller


@dataclass(frozen=True)
class FillMaskOptions(DeviceOptions):
    sentence: Optional[str] = option(
        None, help="sentence with one [MASK] or more", positional=True, either=True, addresses=ANY_TEXT
    )
    model: str = option(
        help="folder of a masked language model, with this project's or PaddleNLP's names", addresses=FETCHED_FOLDER
    )
    input_file: Optional[str] = option(
        None,
        help="file of sentences instead: .txt, one per line, or a file with a column text",
        name="input",
        files=True,
        either=True,
    )
    output_file: Optional[str] = option(None, help="write JSON lines to this file (default: print them)", name="output")
    json: bool = option(False, help="print JSON lines, also for a single sentence")
    top_k: int = option(5, help="number of word pieces per mask", minimum=1)
    batch_size: int = option(32, help="sentences per batch", minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.sentence is None) == (self.input_file is None):
            raise UsageError("give a sentence, or --input with sentences, but not both")


def fill_mask(options: FillMaskOptions) -> None:
    """Print or write the candidates for the masks.

    Raises `DataError`, naming the line, if a sentence has no mask or more tokens than the model has positions.
    """
    runtime.prepare(options.cpu_threads)
    from paddle_ranker.model.pretrained import find_model
    from paddle_ranker.storage.atomic import check_writable, new_file
    from pretraining.corpus import Corpus
    from pretraining.filler import MaskFiller

    check_writable(options.output_file)
    runtime.select_device(options.device)
    filler = MaskFiller(find_model(options.model))
    if options.sentence is not None:
        sentences: Iterable[str] = [options.sentence]
    else:
        sentences = (text for _, text in Corpus(paths_of(options.input_file or "")))
    filled = _fill_all(filler, iter(sentences), options)
    if options.sentence is not None and not options.json and options.output_file is None:
        for result in filled:
            _print(result)
        return
    with new_file(options.output_file) if options.output_file else nullcontext(sys.stdout) as stream:
        for result in filled:
            stream.write(json_text(asdict(result)) + "\n")


def _fill_all(filler: MaskFiller, sentences: Iterator[str], options: FillMaskOptions) -> Iterator[Filled]:
    done = 0
    for batch in chunks(sentences, options.batch_size):
        try:
            yield from filler.fill(batch, options.top_k)
        except DataError as error:
            if options.input_file is None:
                raise
            raise DataError(f"{options.input_file}, sentences {done + 1} to {done + len(batch)}: {error}") from error
        done += len(batch)


def _print(result: Filled) -> None:
    print(result.filled)
    for number, candidates in enumerate(result.masks, 1):
        if len(result.masks) > 1:
            print(f"mask {number}:")
        for candidate in candidates:
            print(f"  {candidate.probability:.4f}  {candidate.token}")


main = main_of(fill_mask, FillMaskOptions, __doc__, ends_with_reader=True)


if __name__ == "__main__":
    raise SystemExit(main())
