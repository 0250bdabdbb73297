"""Train a WordPiece vocabulary on text files, and write it in the format of BERT's and ERNIE's tokenizers.

paddle-ranker train-tokenizer --train 'texts/*.txt' --output tokenizer
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from paddle_ranker.encoding.tokenizers.tokenizer_folder import ROLES, VOCABULARY_FILE
from paddle_ranker.encoding.vocabulary import SPECIAL_TOKENS, train_wordpiece_vocabulary, write_new_tokenizer
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.options.declare import ANY_TEXT
from paddle_ranker.storage.atomic import UNFINISHED, make_folder
from paddle_ranker.storage.streams import naming_the_file
from pretraining.corpus import DOCUMENTS_HELP, Corpus


@dataclass(frozen=True)
class TrainTokenizerOptions(Options):
    files: tuple[str, ...] = option(help=f"text files to learn from: {DOCUMENTS_HELP}", name="train", files=True)
    output_dir: str = option(
        help="folder for vocab.txt, tokenizer_config.json and special_tokens_map.json", name="output"
    )
    vocab_size: int = option(30522, help="maximum number of word pieces, including special tokens", minimum=10)
    special_tokens: tuple[str, ...] = option(
        SPECIAL_TOKENS,
        help="special tokens, which get the first ids; BERT's five are required",
        several=True,
        addresses=ANY_TEXT,
    )
    lowercase: bool = option(True, help="lowercase texts and strip accents, in training and in later use")
    skip_bad_rows: bool = option(False, help="skip and count text that is not UTF-8, instead of stopping")

    def __post_init__(self) -> None:
        super().__post_init__()
        missing = [token for token in ROLES.values() if token not in self.special_tokens]
        if missing:
            raise UsageError(f"--special_tokens lacks {', '.join(missing)}: give all of {', '.join(ROLES.values())}")
        if self.special_tokens[0] != ROLES["pad_token"]:
            raise UsageError(f"--special_tokens begins with {self.special_tokens[0]}: [PAD] comes first, as id 0")


def train_tokenizer(options: TrainTokenizerOptions) -> None:
    """Train the vocabulary and write the tokenizer's files; the same texts give the same bytes.

    Raises `DataError` if the files have no text, `UsageError` if the size is smaller than the alphabet, `RankerError`
    if the folder already holds a vocabulary.
    """
    folder = make_folder(options.output_dir)
    if (folder / VOCABULARY_FILE).exists():
        raise RankerError(f"{folder / VOCABULARY_FILE}: is there already; choose another --output, or remove it")
    corpus = Corpus(options.files, skip_bad_rows=options.skip_bad_rows)
    tokens = train_wordpiece_vocabulary(
        (text for _, text in corpus), options.vocab_size, options.lowercase, options.special_tokens
    )
    unfinished = tempfile.TemporaryDirectory(prefix=f"{UNFINISHED}{os.getpid()}-", dir=folder)
    with naming_the_file(folder / VOCABULARY_FILE), unfinished as made:
        write_new_tokenizer(Path(made), tokens, lowercase=options.lowercase)
        # The vocabulary comes last: if it exists, so do the other files.
        for path in sorted(Path(made).iterdir(), key=lambda path: path.name == VOCABULARY_FILE):
            path.replace(folder / path.name)
    print(f"{corpus.report()} -> {folder / VOCABULARY_FILE}: {len(tokens):,} word pieces")


main = main_of(train_tokenizer, TrainTokenizerOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
