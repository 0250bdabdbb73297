"""Types of fields of PDFs and scanned pages, with their readers; importing this module registers them."""

from __future__ import annotations

from importlib.util import find_spec

from paddle_ranker.data.files.file_readers import add_reader
from paddle_ranker.retrieval.stored.schema import (
    A_PIXEL,
    FIELD_TYPES,
    PICTURE_TYPES,
    file_type,
    open_picture_tower,
    suffix_by,
)


def _missing() -> str:
    return "" if find_spec("rapidocr") else "'paddle-ranker[ocr]'"


add_reader(
    "paddle_ranker.pages.pdf",
    "boxes",
    {"page": "number", "title": "text", "heading": "text"},
    draw="paddle_ranker.pages.pdf:draw",
)
add_reader("paddle_ranker.pages.ocr", "boxes", {"page": "number"}, missing=_missing)
_of_scan = suffix_by(
    (rb"\xff\xd8\xff", "jpg"),
    (rb"\x89PNG", "png"),
    (rb"RIFF.{4}WEBP", "webp"),
    (rb"GIF8", "gif"),
    (rb"BM", "bmp"),
    (rb"II\*\0|MM\0\*", "tif"),
)


def _scan_suffix(data: bytes) -> str:
    from paddle_ranker.data.files.pictures import phone_format

    return {"AVIF": "avif", "HEIF": "heic"}.get(phone_format(data)) or _of_scan(data)


FIELD_TYPES.add(
    "pdf",
    file_type(
        "a PDF, read page by page", {"pdf": "application/pdf"}, suffix_by((rb".{,1024}%PDF-", "pdf")), reader="pdf"
    ),
)
FIELD_TYPES.add(
    "scan",
    file_type(
        "a picture of a text, which is read (JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF)",
        PICTURE_TYPES,
        _scan_suffix,
        open_picture_tower,
        A_PIXEL,
        "ocr",
    ),
)
