"""Encode sounds as columns of samples by `preprocessor_config.json`; the samples equal those of transformers.

encoder = SoundEncoder.read("wav2vec2-base")
columns = encoder.encode(["prompt.wav", wav_bytes])
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Union

import numpy as np

from paddle_ranker.array_types import Array, Arrays, Integers
from paddle_ranker.data.files.pictures import Source
from paddle_ranker.encoding.columns import Columns, FileEncoder, Indices, offsets_of, ragged_positions
from paddle_ranker.errors import CheckpointError, DataError, quoted
from paddle_ranker.recordings.audio import IncompleteRecordingError, read_recording
from paddle_ranker.storage.atomic import write_json
from paddle_ranker.storage.foreign_config import PREPROCESSOR_FILE, ForeignConfig, read_preprocessor

SOUND = "sound"  # name in `FILE_INPUTS`
_CONFIG_FILE = "config.json"
SAMPLES, LENGTHS = "samples", "lengths"  # names of the model's inputs
_LEAST_RATE, _MOST_RATE = 1000, 192_000
_LEAST_VARIANCE = 1e-7  # added to the variance, as in transformers' normalisation
_LONGEST = 30  # seconds of a sound that is read at once
_SAMPLES_A_TOKEN = 10  # so that a batch of sounds takes about as much memory as one of texts
# Padding changes nothing here, so neither its side, its value nor a mask has an effect.
_IDLE = """
feature_extractor_type processor_class padding_side padding_value return_attention_mask tokenizer_class return_tensors
"""
_WITHOUT_EFFECT = frozenset(_IDLE.split())


@dataclass(frozen=True)
class EncodedSounds(Columns):
    """Sounds: `samples` [total] float32; sound i is `samples[offsets[i]:offsets[i + 1]]`."""

    samples: Array
    offsets: Integers

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths_of(self, indices: Indices) -> Integers:
        return self._sizes[np.asarray(indices, np.int64)] // _SAMPLES_A_TOKEN

    @property
    def _sizes(self) -> Integers:
        return np.diff(self.offsets)

    def take(self, indices: Indices) -> EncodedSounds:
        rows = np.asarray(indices, np.int64)
        sizes = self._sizes[rows]
        return EncodedSounds(self.samples[ragged_positions(self.offsets[:-1][rows], sizes)], offsets_of(sizes))

    def pad(self, indices: Indices) -> Arrays:
        """Return, by input name, samples `[batch, samples]`, padded to the longest sound, and the lengths `[batch]`."""
        rows = np.asarray(indices, np.int64)
        sizes = self._sizes[rows]
        samples = np.zeros((len(rows), sizes.max(initial=0)), np.float32)
        for place, row in enumerate(rows):
            samples[place, : sizes[place]] = self.samples[self.offsets[row] : self.offsets[row + 1]]
        return {SAMPLES: samples, LENGTHS: sizes}

    @classmethod
    def concat(cls, parts: Sequence[EncodedSounds]) -> EncodedSounds:
        sizes = [part._sizes for part in parts]
        return cls(np.concatenate([part.samples for part in parts]), offsets_of(np.concatenate(sizes)))


@dataclass(frozen=True)
class SoundEncoder(FileEncoder):
    """Encoder of sounds as samples for a network.

    rate: samples per second
    normalises: whether a sound's samples are scaled to mean 0 and variance 1
    least: number of samples of a frame; shorter sounds are padded with silence
    step: number of samples from the start of a frame to the start of the next
    folder: folder that relative paths start from
    """

    rate: int = 16_000
    normalises: bool = True
    least: int = 400
    step: int = 320
    folder: Path = field(default=Path(), compare=False)

    @classmethod
    def read(cls, folder: Path) -> SoundEncoder:
        """Read a folder's `preprocessor_config.json`, or the part of `processor_config.json` about sounds.

        Raises `CheckpointError`, which names the setting, if one is not supported.
        """
        settings = read_preprocessor(folder, "feature_extractor", "how sounds are sampled", _WITHOUT_EFFECT)
        settings.require("feature_extractor_type", "Wav2Vec2FeatureExtractor", remedy="take a model that reads samples")
        settings.require("feature_size", 1, remedy="take a model that reads samples of one channel")
        rate = settings.get("sampling_rate", 16_000)
        normalises = settings.get("do_normalize", not settings.states_null("do_normalize"))
        if type(rate) is not int or not _LEAST_RATE <= rate <= _MOST_RATE:
            raise settings.error(f"sampling_rate is {quoted(rate)}, expected {_LEAST_RATE} to {_MOST_RATE:,} a second")
        if type(normalises) is not bool:
            raise settings.error(f"do_normalize is {quoted(normalises)}, expected true or false")
        if settings.unknown:
            raise settings.error(
                f"{', '.join(settings.unknown)}: unknown here, and may change the samples; remove it if not"
            )
        return cls(rate, normalises, *_frame(ForeignConfig.read(folder / _CONFIG_FILE)))

    def encode(self, sounds: Sequence[Union[Source, Array]]) -> EncodedSounds:
        """Encode sounds: paths, bytes of files, or samples at the encoder's rate, `[samples]` float32.

        Raises `DataError` for the first sound that is damaged, no sound, or longer than half a minute (see `pieces`).
        """
        encoded = list[EncodedSounds]()
        for number, sound in enumerate(sounds):
            name = str(sound) if isinstance(sound, (str, Path)) else f"sound {number}"
            pieces = [*islice(self.pieces(sound, name), 2)]
            if len(pieces) > 1:
                raise DataError(f"{name}: is longer than {_LONGEST} seconds; cut it")
            encoded += pieces
        return EncodedSounds.concat([EncodedSounds(np.empty(0, np.float32), np.zeros(1, np.int64)), *encoded])

    def pieces(
        self,
        sound: Union[Source, Array],
        name: str = "the sound",
        *,
        takes_incomplete: bool = False,
        most_seconds: float = math.inf,
    ) -> Iterator[EncodedSounds]:
        """Yield a sound in pieces of half a minute, the last of which may be shorter.

        name: name of the sound for messages
        takes_incomplete: whether to accept a file whose end is missing or damaged, and yield what can be read
        most_seconds: maximum length

        Raises `DataError` if the sound is damaged, too long, or no sound.
        """
        size, held = _LONGEST * self.rate, np.empty(0, np.float32)
        for block in self._blocks(sound, name, takes_incomplete, most_seconds):
            held = np.concatenate([held, block])
            while len(held) > size:
                yield self._encoded(held[:size])
                held = held[size:]
        yield self._encoded(held)

    def _blocks(
        self, sound: Union[Source, Array], name: str, takes_incomplete: bool, most_seconds: float
    ) -> Iterator[Array]:
        if isinstance(sound, np.ndarray):
            yield sound.astype(np.float32, copy=False)
            return
        source = sound if isinstance(sound, bytes) else self.folder / sound
        try:
            yield from read_recording(source, self.rate, most_seconds)
        except DataError as error:
            if not (takes_incomplete and isinstance(error, IncompleteRecordingError)):
                raise DataError(f"{name}: {error}") from error

    def _encoded(self, samples: Array) -> EncodedSounds:
        scaled = self.scaled(samples)
        return EncodedSounds(scaled, np.array([0, len(scaled)]))

    def scaled(self, samples: Array) -> Array:
        """Return the samples as the network reads them: normalised, and padded to the length of a frame."""
        if self.normalises and len(samples):
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + _LEAST_VARIANCE)
        return np.pad(samples, (0, max(0, self.least - len(samples)))).astype(np.float32, copy=False)

    reads, truncated = SOUND, 0  # texts may be cut, sounds are not

    def in_folder(self, folder: Path) -> SoundEncoder:
        """Return the encoder for paths that are relative to `folder`."""
        return replace(self, folder=folder)

    def frames(self, samples: int) -> int:
        """Return the number of frames of a sound with `samples` samples."""
        return 1 + (max(samples, self.least) - self.least) // self.step

    @property
    def max_length(self) -> int:
        """Number of tokens that the longest accepted sound counts as."""
        return _LONGEST * self.rate // _SAMPLES_A_TOKEN

    def samples(self) -> Iterator[EncodedSounds]:
        """Yield batches of noise, as `FileEncoder.samples` does."""
        rng = np.random.default_rng(0)
        for sizes in ((self.rate,), (self.least, 2 * self.least + 7), (self.rate // 2, self.least + 1, self.rate // 3)):
            yield self.encode([rng.standard_normal(size) for size in sizes])

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Write `preprocessor_config.json` into `folder`, as transformers reads it."""
        values = {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "sampling_rate": self.rate,
            "do_normalize": self.normalises, "padding_side": "right", "padding_value": 0.0,
            "return_attention_mask": True,
        }  # fmt: skip
        write_json(Path(folder) / PREPROCESSOR_FILE, values)


def _frame(config: ForeignConfig) -> tuple[int, int]:
    """Return (samples of a frame, samples from a frame to the next) of the convolutions that a `config.json` states."""
    kernels = config.get("conv_kernel", (10, 3, 3, 3, 3, 2, 2))
    strides = config.get("conv_stride", (5, 2, 2, 2, 2, 2, 2))
    size, step = 1, 1
    for name, sizes in (("conv_kernel", kernels), ("conv_stride", strides)):
        if not isinstance(sizes, (list, tuple)) or not all(type(size) is int and 0 < size < 1 << 16 for size in sizes):
            raise CheckpointError(f"{config.path}: {name} is {quoted(sizes)}, expected a list of sizes")
    for kernel, stride in zip(kernels, strides):
        size, step = size + (kernel - 1) * step, step * stride
    return size, step
