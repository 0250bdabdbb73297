"""Measure OCR of pages whose text is known: pages of a PDF with text, drawn as pictures.

    apt-get download c++-annotations-pdf && dpkg -x c++-annotations-pdf_*.deb pdfs
    python -m benchmarks.pages --pdf pdfs/usr/share/doc/c++-annotations/cplusplus.pdf --work_dir WORK

It prints the character error of OCR on `--pages` pages, drawn at random. Sentences of these pages are then searched by
words among all pages, with the drawn pages' text as the file has it, and as OCR reads it. Intervals are over pages.
What OCR reads is kept in the folder for the next run.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Levenshtein

from paddle_ranker.data.files.file_readers import READERS, Part
from paddle_ranker.metrics.intervals import bootstrap_interval, difference, ratio_of
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.pages.pdf import SCAN_DPI, page_picture
from paddle_ranker.retrieval.words.word_search import WordSearcher

_LEAST = 500  # characters of a page that is drawn
_SENTENCES, _SENTENCE = 10, (40, 200)  # of a page, at most; their characters
_DEPTHS = (1, 10)


@dataclass(frozen=True)
class PagesOptions(Options):
    pdf: str = option(help="PDF with text")
    work_dir: str = option(help="folder for what OCR reads, which is kept for the next run")
    pages: int = option(40, help="number of pages that OCR reads", minimum=2)
    dpi: int = option(SCAN_DPI, help="dots an inch of these pages", minimum=50)
    seed: int = option(1000, help="seed of the pages", minimum=0)


def scanned(options: PagesOptions, page: int) -> str:
    """Draw a page as a picture, and return its text by OCR."""
    kept = Path(options.work_dir) / f"{Path(options.pdf).stem}-{options.dpi}-{page}.json"
    version = READERS["ocr"].version()
    if kept.exists():
        read = json.loads(kept.read_text("utf-8"))
        if read["version"] == version:
            return str(read["text"])
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        page_picture(Path(options.pdf), page, options.dpi).save(picture)
        text = "\n".join(part.text for part in READERS["ocr"].read(picture) if isinstance(part, Part))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"version": version, "text": text}, ensure_ascii=False), "utf-8")
    return text


def errors(text: str, read: str) -> tuple[int, int]:
    """Return the edit distance of the text and of its reading by OCR, and the number of the text's characters."""
    return Levenshtein.distance(text, read), len(text)


def run(options: PagesOptions) -> None:
    parts = [part for part in READERS["pdf"].read(Path(options.pdf)) if isinstance(part, Part)]
    texts = [part.text for part in parts]
    long = [place for place, text in enumerate(texts) if len(text) >= _LEAST]
    drawn = sorted(np.random.default_rng(options.seed).permutation(long)[: options.pages].tolist())
    began = time.perf_counter()
    read = {place: scanned(options, int(parts[place].name)) for place in drawn}
    print(f"{len(texts):,} pages; OCR of {len(drawn)} at {options.dpi} dpi: {time.perf_counter() - began:.0f} s")

    for name, joint in {"character error": " ", "without spaces": ""}.items():
        counts = [errors(joint.join(texts[place].split()), joint.join(read[place].split())) for place in drawn]
        wrong, total = np.array(counts, dtype=np.float64).T
        print(f"{name}: {bootstrap_interval(ratio_of(wrong, total), len(drawn)):.4f}; {total.sum():,.0f} characters")

    searchers = [
        WordSearcher.of_texts(one, "standard") for one in (texts, [read.get(n, t) for n, t in enumerate(texts)])
    ]
    shortest, longest = _SENTENCE
    hits = np.zeros((len(searchers), len(_DEPTHS), len(drawn)))
    count = np.zeros(len(drawn))
    for number, place in enumerate(drawn):
        sentences = [one.strip() for one in re.split(r"(?<=[.!?])\s", texts[place].replace("\n", " "))]
        sentences = [one for one in sentences if shortest <= len(one) <= longest][:_SENTENCES]
        count[number] = len(sentences)
        for sentence in sentences:
            for own, searcher in enumerate(searchers):
                found = searcher.search(sentence, max(_DEPTHS))[0].tolist()
                hits[own, :, number] += [place in found[:depth] for depth in _DEPTHS]
    for row, depth in enumerate(_DEPTHS):
        text, ocr = (ratio_of(hits[own, row], count) for own in range(len(searchers)))
        shown = {"text": text, "OCR": ocr, "difference": difference(ocr, text)}
        figures = (f"{name} {bootstrap_interval(one, len(drawn)):.4f}" for name, one in shown.items())
        print(f"R@{depth} of {count.sum():.0f} sentences among {len(texts):,} pages: {', '.join(figures)}")


main = main_of(run, PagesOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
