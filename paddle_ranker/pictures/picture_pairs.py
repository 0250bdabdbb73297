"""Encode pairs of a text and a picture, for ViLT: the patches of the picture are the title's tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, SupportsIndex, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paddle_ranker.array_types import Array
from paddle_ranker.data.files.pictures import ImageError, Source, opened_picture
from paddle_ranker.data.files.placed_text import PICTURES
from paddle_ranker.encoding.columns import PICTURE, EncodedPairs, offsets_of, ragged_positions
from paddle_ranker.encoding.file_pairs import FilePairEncoder, FileTitle
from paddle_ranker.encoding.pair_encoder import LengthCheck
from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.errors import DataError, quoted, require_pairs
from paddle_ranker.pictures.picture_config import ViltConfig


class PictureTitle(FileTitle):
    """A picture as a title.

    picture: the bytes of its file, or RGB pixels `[height, width, 3] uint8`
    """

    picture: Union[bytes, Array]

    def __new__(cls, picture: Union[bytes, Array]) -> PictureTitle:
        data = picture if isinstance(picture, bytes) else repr(picture.shape).encode() + picture.tobytes()
        created = super().__new__(cls, f"picture {hashlib.sha256(data).hexdigest()[:32]}")
        created.picture = picture
        return created

    def __getitem__(self, key: Union[SupportsIndex, slice]) -> str:
        """Return a slice of the name as a plain string, or this object if the slice is the whole name."""
        part = str(self)[key]
        return self if part == str(self) else part

    def __getnewargs__(self) -> tuple[Union[bytes, Array]]:  # type: ignore[override]
        return (self.picture,)  # for pickle


class PicturePairEncoder(FilePairEncoder):
    """Encoder of pairs whose titles are pictures: `PictureTitle`s, or paths of files within a folder.

    A pair is `[CLS] query [SEP]`, a token for the whole picture, and a token for each patch. The place of a patch is
    its row and column, the picture's counts of rows and columns, and the patch's pixels. The encoder's `max_seq_length`
    counts patches, too.

    Args:
        max_seq_length: maximum length of a query, with its special tokens.
        config: says how pictures are scaled.

    Attributes:
        folder: folder of the pictures that titles name by path; if it is None, such titles are refused.
    """

    places, reads = PICTURES, PICTURE

    def __init__(self, files: ModelTokenizer, max_seq_length: int, config: ViltConfig) -> None:
        self._longest_query, self._config = max_seq_length, config
        self.place_size = len(config.place_limits)
        super().__init__(files, max_seq_length + config.picture_tokens)
        template = self.template
        self._query_template = template.text_before, template.text_after
        self.folder: Optional[Path] = None

    def set_title_folder(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def title(self, data: bytes) -> PictureTitle:
        """Return a picture as a title: decode and scale the bytes of its file; raises `ImageError` for other data."""
        return PictureTitle(self._read(data))

    def unread_title(self, data: Optional[bytes]) -> PictureTitle:
        """Return a picture as a title; without one, a white picture."""
        return PictureTitle(np.full((1, 1, 3), 255, np.uint8) if data is None else data)

    def sample(self, text: str, random: np.random.Generator) -> str:
        """Return a picture of random pixels as a title, for comparisons of models; `text` is not used."""
        shortest = self._config.shortest_edge
        height, width = random.integers(shortest, 2 * shortest, 2)
        return PictureTitle(random.integers(0, 256, (height, width, 3), np.uint8))

    def encode(
        self,
        queries: Sequence[str],
        titles: Sequence[str],
        *,
        truncate: bool = True,
        check: Optional[LengthCheck] = None,
    ) -> EncodedPairs:
        """Encode the pairs (queries[i], titles[i]); `truncate` is not used, since queries are always truncated.

        check: called with the queries' lengths, see `LengthCheck`

        Raises `DataError` for a title without a picture.
        """
        require_pairs(queries, titles)
        texts = self._alone(queries, *self._query_template, self._longest_query, check, self.query_prompt)
        patches = {title: self._patches(title) for title in dict.fromkeys(titles)}
        of_pairs = [patches[title] for title in titles]
        counts = np.array([1 + len(pair) for pair in of_pairs], np.int64)
        lengths = texts.lengths_of(np.arange(len(texts)))
        offsets = offsets_of(lengths + counts)
        # Any id but that of padding stands for patches; the network does not look at it.
        ids = np.full(offsets[-1], self.cls_id, np.int32)
        ids[ragged_positions(offsets[:-1], lengths)] = texts.ids
        places = np.zeros((len(ids), self.place_size), np.int16)
        for end, pair in zip(offsets[1:].tolist(), of_pairs):
            places[end - len(pair) : end] = pair
        return EncodedPairs(ids, offsets, lengths.astype(np.int32), self.pad_id, places.reshape(-1), self.place_size)

    def _patches(self, title: str) -> NDArray[np.int16]:
        """Return the place and pixels of each patch of the picture that `title` names, `[patches, place_size]`."""
        try:
            if isinstance(title, PictureTitle):
                source = title.picture
                if isinstance(source, np.ndarray):
                    pixels = self._scaled(Image.fromarray(source))
                else:
                    pixels = self._read(source)
            elif self.folder is not None:
                pixels = self._read(self._path(title, self.folder))
            else:
                raise DataError(f"{quoted(title)} is a text, and this ranker reads pictures: give the bytes of a file")
        except ImageError as error:
            raise DataError(error.message) from error
        side = self._config.patch_size
        rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
        blocks = pixels.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3).reshape(rows * columns, -1)
        number = np.arange(rows * columns)
        grid = np.stack(
            [number // columns, number % columns, np.full(len(number), rows), np.full(len(number), columns)]
        )
        return np.concatenate([grid.T, blocks], axis=1).astype(np.int16)

    def _path(self, title: str, folder: Path) -> Path:
        path = (folder / title).resolve()
        if folder not in path.parents:
            raise DataError(f"{quoted(title)} lies outside {folder}: copy the file there")
        return path

    def _read(self, source: Source) -> Array:
        """Decode and scale a picture; its memory is reserved until it is scaled."""
        with opened_picture(source) as image:
            return self._scaled(image)

    def _scaled(self, image: Image.Image) -> Array:
        """Scale a picture to multiples of the divisor, as transformers' processor of ViLT does."""
        height, width, config = image.height, image.width, self._config
        shortest, longest, divisor = config.shortest_edge, config.longest_edge, config.size_divisor
        scale = shortest / min(height, width)
        sides = [shortest, scale * width] if height < width else [scale * height, shortest]
        if max(sides) > longest:
            sides = [longest / max(sides) * side for side in sides]
        height, width = (max(1, int(side + 0.5) // divisor) * divisor for side in sides)
        return np.asarray(image.resize((width, height), Image.Resampling(config.resample)))
