"""Train a WordPiece vocabulary on a user's texts, reproducibly."""

from __future__ import annotations

import json
import os
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Union

from paddle_ranker.encoding.tokenizers.builtin import CONTINUATION, MAX_WORD_CHARACTERS
from paddle_ranker.encoding.tokenizers.text_rules import TextRules, WordSplitter
from paddle_ranker.encoding.tokenizers.tokenizer_folder import CONFIG_FILE, VOCABULARY_FILE, TokenizerFiles
from paddle_ranker.errors import DataError, UsageError, package_for, quoted

# ERNIE's vocabularies begin with the first four, too; there, [UNK] is the last token.
SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")
# A piece that occurs once in a corpus says nothing about other texts.
_LEAST_COUNT = 2
_WORDS_A_LINE = 1_000


def train_wordpiece_vocabulary(
    texts: Iterable[str],
    vocab_size: int,
    lowercase: bool = True,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    characters: str = "",
) -> list[str]:
    """Train a vocabulary of at most `vocab_size` tokens; return special tokens, characters, `##` characters and pieces.

    The vocabulary includes `characters` even if no text does. `texts` is read once; memory holds only its distinct
    words, split as by `PairEncoder`. Frequent pairs of pieces are merged first, as in byte-pair encoding, until the
    size is reached or no pair occurs twice. Equal texts give equal tokens in equal order, for any hash seed and number
    of threads.

    Raises `DataError` for texts without a word, `UsageError` if the characters alone exceed `vocab_size`, and
    `DependencyError` without Hugging Face's `tokenizers`.
    """
    splitter = WordSplitter(TextRules(do_lower_case=lowercase))
    counts = _count_words(texts, splitter)
    if not counts:
        raise DataError("the texts to make a vocabulary from hold no word: give a corpus with text in it")
    # Doubled, letters and digits form a word and also get a `##` piece; other characters form two words.
    spelled = [*counts, *(word for char in characters for word in splitter.split(char + char))]
    initial = sorted({char for word in spelled for char in word})
    continued = [CONTINUATION + char for char in sorted({char for word in spelled for char in word[1:]})]
    alphabet = [*special_tokens, *initial, *continued]
    if len(alphabet) > vocab_size:
        raise UsageError(
            f"vocab_size {vocab_size} is smaller than the alphabet: {len(alphabet)} tokens "
            f"({len(special_tokens)} special, {len(initial)} characters, {len(continued)} characters inside words); "
            f"ask for at least {len(alphabet)}"
        )
    return alphabet + _merged_pieces(counts, alphabet, vocab_size)


def common_characters() -> str:
    """Return ASCII's letters and digits, and the 6,763 ideographs of GB 2312, which are common in Chinese."""
    # Both levels are in rows 0xB0 to 0xF7; the five unused codes are ignored.
    rows = bytes(byte for high in range(0xB0, 0xF8) for low in range(0xA1, 0xFF) for byte in (high, low))
    return string.ascii_lowercase + string.ascii_uppercase + string.digits + rows.decode("gb2312", "ignore")


def write_vocabulary(folder: Union[str, os.PathLike[str]], tokens: Sequence[str]) -> Path:
    """Write `tokens` as lines of `vocab.txt` in `folder`, created if missing; return the file's path.

    Raises `DataError` for a token that is empty, repeated or has a line break, and so could not be read back.
    """
    repeated = [token for token, count in Counter(tokens).items() if count > 1]
    unreadable = [token for token in tokens if not token or "\n" in token or "\r" in token]
    if repeated or unreadable:
        token = (repeated + unreadable)[0]
        raise DataError(f"the vocabulary holds {quoted(token)} {'twice' if repeated else 'as a token'}: remove it")
    path = Path(folder) / VOCABULARY_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{token}\n" for token in tokens).encode("utf-8"))
    return path


def write_new_tokenizer(folder: Path, tokens: Sequence[str], *, lowercase: bool) -> TokenizerFiles:
    """Write the tokenizer files of a new vocabulary into an existing folder; return the files' contents.

    Raises `DataError` as `write_vocabulary` does.
    """
    write_vocabulary(folder, tokens)
    (folder / CONFIG_FILE).write_text(json.dumps({"do_lower_case": lowercase}), encoding="utf-8")
    files = TokenizerFiles.read(folder)
    files.write(folder)
    return files


def _count_words(texts: Iterable[str], splitter: WordSplitter) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(splitter.split(text))
    for word in [word for word in counts if len(word) > MAX_WORD_CHARACTERS]:
        del counts[word]  # always [UNK]
    return counts


def _merged_pieces(counts: Counter[str], alphabet: Sequence[str], vocab_size: int) -> list[str]:
    """Return the pieces that `tokenizers` merges from the characters of `alphabet`, the most frequent first.

    counts: number of occurrences of each word
    """
    with package_for("training a vocabulary", "tokenizers"):
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # `tokenizers` breaks ties by ids, and numbers `##` characters in the random order of a hash map. Special tokens get
    # ids in the order of `alphabet`, which makes the result reproducible.
    trainer: Any = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=_LEAST_COUNT,
        special_tokens=list(alphabet),
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_lines_of(counts), trainer)
    ids: dict[str, int] = tokenizer.get_vocab()
    characters = set(alphabet)
    return [token for token in sorted(ids, key=ids.__getitem__) if token not in characters]


def _lines_of(counts: Counter[str]) -> Iterator[str]:
    """Yield lines in which each word of several characters occurs as often as `counts` says, joined by spaces."""
    for word, count in sorted(counts.items()):
        if len(word) > 1:
            for start in range(0, count, _WORDS_A_LINE):
                yield " ".join([word] * min(_WORDS_A_LINE, count - start))
