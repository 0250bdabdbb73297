"""Transcribe speech by models of wav2vec 2.0 and HuBERT with a head that finds at most one letter in each frame.

transcriber = Transcriber.open(Path("wav2vec2-base-960h"))
list(transcriber.words(samples))    # [SpokenWord(" HELLO", 0.74, 1.08), SpokenWord(" WORLD", 1.2, 1.64)]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import paddle

from paddle_ranker.array_types import Array, Integers
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.encoder_loading import unfilled
from paddle_ranker.model.hugging_face.adapter_folders import with_base
from paddle_ranker.model.parameters import set_parameters
from paddle_ranker.recordings.audio import RATE
from paddle_ranker.recordings.sound_encoder import LENGTHS, SAMPLES, SoundEncoder
from paddle_ranker.recordings.sound_models import read_published
from paddle_ranker.recordings.sound_network import SpeechNetwork
from paddle_ranker.recordings.transcript import SpokenWord
from paddle_ranker.storage.foreign_config import PREPROCESSOR_FILE, ForeignConfig
from paddle_ranker.storage.untrusted import Unchecked
from paddle_ranker.unicode.characters import UNIT, UNSPACED, shape_of

_VOCABULARY, _TOKENIZER = "vocab.json", "tokenizer_config.json"
_ROLES = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
# Settings of how texts become letters, and of names and lengths.
_IDLE = """
tokenizer_class processor_class model_max_length special_tokens_map_file name_or_path tokenizer_file do_normalize
return_attention_mask clean_up_tokenization_spaces added_tokens_decoder additional_special_tokens auto_map backend
is_local extra_special_tokens mask_token sep_token cls_token padding_side truncation_side special_tokens_pattern
"""
_SECONDS, _CONTEXT = 20, 2  # seconds that are transcribed at once; seconds around them that the network also reads
_SILENT = 1e-4  # samples below this are silence; the loudest possible sample is 1


@dataclass(frozen=True)
class Letters:
    """Letters that a model finds in frames.

    tokens: letter by id; ids that stand for no letter are absent
    blank: the id that stands for no letter, and separates double letters
    delimiter: the token between words
    lowercases: whether words are written in lower case
    """

    tokens: dict[int, str]
    blank: int
    delimiter: str = "|"
    lowercases: bool = False

    @classmethod
    def read(cls, folder: Path) -> Letters:
        """Read `vocab.json` and `tokenizer_config.json`; raises `CheckpointError` if one is unusable."""
        settings = ForeignConfig.read(folder / _TOKENIZER, frozenset(_IDLE.split()))
        settings.require("target_lang", remedy="take a model of one language")
        settings.require("replace_word_delimiter_char", " ", remedy="take a model whose words are parted by spaces")
        ids = ForeignConfig.read(folder / _VOCABULARY)
        vocabulary = {token: ids.get(token) for token in ids.unknown}
        if not vocabulary or not all(type(number) is int for number in vocabulary.values()):
            raise ids.error("has no ids of letters, which spell what is said; copy the folder of a CTC model again")
        roles = {role: _content(settings.get(role, default)) for role, default in _ROLES.items()}
        delimiter, lowercases = (
            _content(settings.get("word_delimiter_token", "|")),
            settings.get("do_lower_case", False),
        )
        if roles["pad_token"] not in vocabulary:
            raise ids.error(f"has no {quoted(roles['pad_token'])}, the token of frames without a letter")
        settings.log_unknown()
        tokens = {number: token for token, number in vocabulary.items() if token not in roles.values()}
        return cls(tokens, vocabulary[roles["pad_token"]], delimiter, bool(lowercases))

    def words(self, frames: Iterable[int]) -> Iterator[tuple[str, int, int]]:
        """Yield (word, first frame, frame after the last) for the words that the frames spell.

        frames: id of each frame's letter

        The first word, and each word after a delimiter, begins with a space. In scripts without spaces, each character
        is a word.
        """
        word, space, first, last, place = "", " ", 0, 0, 0
        for number, repeats in groupby(frames):
            start, place = place, place + len(list(repeats))
            token = self.tokens.get(number, "")
            if not token:
                continue
            is_alone = not {UNIT, UNSPACED}.isdisjoint(shape_of(token))
            if word and (is_alone or token == self.delimiter):
                yield self._spelled(space + word), first, last
                word, space = "", ""
            if token == self.delimiter:
                space = " "
            elif is_alone:
                yield self._spelled(space + token), start, place
                space = ""
            else:
                word, first, last = word + token, first if word else start, place
        if word:
            yield self._spelled(space + word), first, last

    def _spelled(self, word: str) -> str:
        return word.lower() if self.lowercases else word


def _content(token: Unchecked) -> str:
    """Return the text of a token, which may be an object with its settings."""
    return str(token.get("content") if isinstance(token, dict) else token)


class Transcriber:
    """Model that spells speech.

    network: computes the logits of letters
    rows: encodes samples for the network
    letters: the letters that the logits stand for
    """

    def __init__(self, network: SpeechNetwork, rows: SoundEncoder, letters: Letters):
        self._network, self._rows, self._letters = network, rows, letters

    version = "1"  # changes whenever a model would spell a sound otherwise than before

    @classmethod
    def open(cls, folder: Path) -> Transcriber:
        """Open a published model; raises `CheckpointError` if it has no head that spells speech, or is damaged."""
        folder = with_base(folder)
        published, rows, letters = read_published(folder), SoundEncoder.read(folder), Letters.read(folder)
        if published.head is None:
            raise CheckpointError(
                f"{folder}: has no lm_head, so it spells nothing; take a model that was trained with CTC"
            )
        if rows.rate != RATE:
            file = folder / PREPROCESSOR_FILE
            raise CheckpointError(f"{file}: sampling_rate is {rows.rate}; speech is read with {RATE:,}")
        if max(letters.tokens) >= published.head[0].shape[1]:
            raise CheckpointError(f"{folder / _VOCABULARY}: has more letters than the model; copy the folder again")
        encoder = unfilled(published.config)
        set_parameters(encoder, published.encoder, share=True)
        network = SpeechNetwork(encoder, *published.head)
        network.eval()
        return cls(network, rows, letters)

    def logits(self, sounds: Sequence[Array]) -> list[Array]:
        """Return the logits of each sound's frames, `[frames, letters]`, computed as one batch."""
        inputs = self._rows.encode(sounds).pad(range(len(sounds)))
        with paddle.no_grad():
            outputs = self._network(*(paddle.to_tensor(inputs[name]) for name in (SAMPLES, LENGTHS))).numpy()
        counts = [self._rows.frames(int(size)) for size in inputs[LENGTHS]]
        return [logits[:count] for logits, count in zip(outputs, counts)]

    language = ""  # a vocabulary of letters names no language

    def words(self, samples: Array) -> Iterator[SpokenWord]:
        """Yield each spoken word; see `SpeechModel.words`."""
        step = self._rows.step / RATE
        for word, first, last in self._letters.words(self._frames(samples)):
            yield SpokenWord(word, first * step, last * step)

    def _frames(self, samples: Array) -> Iterator[int]:
        """Yield the id of each frame's letter; a long recording is read in pieces that overlap."""
        step = self._rows.step
        size, around = (seconds * RATE // step * step for seconds in (_SECONDS, _CONTEXT))
        for start in range(0, len(samples), size):
            before = min(around, start)
            piece = samples[start - before : start + size + around]
            count = min(size, len(samples) - start) // step
            yield from self._ids(piece)[before // step :][:count] if count else ()

    def _ids(self, piece: Array) -> Integers:
        if np.abs(piece).max(initial=0) < _SILENT:
            return np.full(self._rows.frames(max(len(piece), self._rows.least)) + 1, self._letters.blank)
        ids: Integers = self.logits([piece])[0].argmax(1)
        return ids
