"""Printed pages: the words of PDFs and of pictures of pages, each with its box, and pages as pictures.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. It plugs in by `contents.py`:

    FIELD_TYPES    pdf, scan
    READERS        pdf, ocr: a part for each page, with the boxes of its words

`pdf.py` (PDFium) gets the letters of a page, and draws it; a page that is a picture goes to `ocr.py` (RapidOCR).
`page_text.py` orders letters and lines as people read them. All run in child processes with limits: those of a
`ReaderPool` read, those of the server's routes of contents draw.
"""
