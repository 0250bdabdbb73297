"""Interface of rankers that read files, such as pictures, in place of titles; guests have the encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Optional

from paddle_ranker.encoding.pair_encoder import PairEncoder


class FileTitle(str):
    """A file as a title. As a string it is a short name, made of a digest of the file."""


class FilePairEncoder(PairEncoder, ABC):
    """Encoder of pairs whose titles are files.

    reads: type of the fields of documents whose files are titles, such as picture
    """

    reads: ClassVar[str]

    @abstractmethod
    def title(self, data: bytes) -> FileTitle:
        """Return a file as a title that has been decoded; raises `ImageError` or `DataError` for other data."""

    @abstractmethod
    def unread_title(self, data: Optional[bytes]) -> FileTitle:
        """Return a file as a title that `encode` decodes; without a file, one that stands for none."""
