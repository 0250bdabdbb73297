"""Measure whether a ranker that reads the boxes of words beats the same ranker without them.

    apt-get download c++-annotations-pdf && dpkg -x c++-annotations-pdf_*.deb pdfs
    python -m benchmarks.layouts --pdf pdfs/usr/share/doc/c++-annotations/cplusplus.pdf --work_dir WORK

A small LayoutLM with random weights is trained by the cross-encoder's command on the same pairs, from the same start,
with boxes and with boxes of zeros. Both sets are read from PDFs, in the reading order and with the boxes that the
reader of PDFs gives:

| set | query | candidates | relevant |
| --- | --- | --- | --- |
| headings | words of a heading | stretches of the book's pages, the first by BM25 | has the heading |
| forms | a role and a name: "seller Miller" | forms with this name | it stands in the field of the role |

Forms are drawn here, of three kinds: labels beside their values in one column, in two, and above them in three. In half
of the forms each label is followed by its value in the text; the others are printed first and filled in later, as forms
are: all labels, then the values of the fields that are not empty. What is learned and what is measured come from
different pages and forms.
"""

from __future__ import annotations

import ctypes
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.harness.quality import print_comparison
from benchmarks.harness.runs import (
    QualityOptions,
    Run,
    RunStore,
    file_digest,
    replace_encoder,
    run_seeds,
    score_file,
    train_cross_encoder,
)
from benchmarks.inputs import chosen
from paddle_ranker.data.files.file_readers import READERS, Part
from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.data.rows.records import LabeledPair, write_records
from paddle_ranker.options import main_of, option
from paddle_ranker.retrieval.words.word_search import WordSearcher
from paddle_ranker.storage.atomic import make_folder

SETS, SYSTEMS, REFERENCE = ("headings", "forms"), ("boxes", "words"), "boxes"
_ROLES = ("Buyer", "Seller", "Carrier", "Agent", "Owner", "Tenant")
_NAMES = (
    "Adams", "Baker", "Clark", "Davis", "Evans", "Fisher", "Green", "Harris",
    "Irving", "Jones", "Kelly", "Lewis", "Miller", "Nolan", "Owens", "Parker",
)  # fmt: skip
_FILLED = 0.6  # share of the fields that have a value
_STRETCH = 80  # words of a page that are one candidate
_TALL = 1.15  # height of a heading's words, in times that of most words of the page, at least
_HEADING = (2, 8)  # words of a heading
_LEARNED, _MEASURED = 6, 10  # candidates of a query
_DRAWS = 12  # of forms to learn from, for each role and name

Groups = list[list[LabeledPair]]  # the pairs of each query


@dataclass(frozen=True)
class LayoutsOptions(QualityOptions):
    pdf: str = option(help="PDF with text and headings in larger type")
    work_dir: str = option(help="folder for pairs and trained rankers")
    sets: str = option("all", help="comma-separated sets")
    forms: int = option(1800, help="forms to draw; two thirds are learned from", minimum=12)
    epochs: int = option(8, help="epochs", minimum=1)
    hidden_size: int = option(64, help="width of the ranker", minimum=16)
    learning_rate: float = option(1e-3, help="maximum learning rate", above=0)


def pages_of(pdf: Path) -> list[PlacedText]:
    parts = [part for part in READERS["pdf"].read(pdf) if isinstance(part, Part)]
    return [PlacedText(part.text, part.places) for part in parts]


def headings_of(page: PlacedText) -> Iterator[tuple[str, int]]:
    """Yield (words without a number, position in the text) of each heading: consecutive words in larger type."""
    heights = [place[5] - place[3] for place in page.places]
    usual = median(heights) * _TALL
    words = zip(page.places, (height > usual for height in heights))
    for is_tall, group in groupby(words, key=lambda word: word[1]):
        spans = [place for place, _ in group]
        kept = [str(page)[int(place[0]) : int(place[1])] for place in spans]
        kept = [word for word in kept if re.search(r"[^\W\d]", word)]
        if is_tall and _HEADING[0] <= len(kept) <= _HEADING[1]:
            yield " ".join(kept), int(spans[0][0])


def heading_groups(pages: Sequence[PlacedText], candidates: int) -> Groups:
    """Return for each heading its pairs with the stretches of pages that BM25 finds; a single stretch is relevant."""
    stretches, begins = list[str](), list[tuple[int, int]]()  # a stretch keeps the places of its words
    for number, page in enumerate(pages):
        starts = [int(place[0]) for place in page.places[::_STRETCH]]
        for start, end in zip(starts, [*starts[1:], len(page)]):
            stretches.append(page[start:end])
            begins.append((number, start))
    searcher = WordSearcher.of_texts([str(stretch) for stretch in stretches], "standard")
    groups = Groups()
    for number, page in enumerate(pages):
        for heading, position in headings_of(page):
            right = max(place for place, begin in enumerate(begins) if begin <= (number, position))
            found = [place for place in searcher.search(heading, candidates)[0].tolist() if place != right]
            places = [right, *found[: candidates - 1]]
            if len(places) == candidates:
                groups.append([LabeledPair(heading, stretches[place], float(place == right)) for place in places])
    return groups


def draw_forms(count: int, path: Path, random: np.random.Generator) -> list[dict[str, str]]:
    """Write a PDF with a form a page; return the values of each form, by role."""
    import pypdfium2

    document, raw, forms = pypdfium2.PdfDocument.new(), pypdfium2.raw, []
    font = raw.FPDFText_LoadStandardFont(document, b"Helvetica")
    for _ in range(count):
        names = random.permutation(_NAMES).tolist()
        form = {role: names[number] for number, role in enumerate(_ROLES) if random.random() < _FILLED}
        across = int(random.integers(1, 4))
        right, below = (0, 25) if across == 3 else (90, 0)  # where a value stands beside its label
        texts = list[tuple[str, int, int]]()
        for number, role in enumerate(_ROLES):
            x, y = 60 + (180 if across == 3 else 240) * (number % across), 100 + 60 * (number // across)
            texts += [(role, x, y), (form.get(role, ""), x + right, y + below)]
        if random.random() < 0.5:
            texts = [*texts[::2], *texts[1::2]]
        page = document.new_page(600, 800)
        for text, x, y in texts:
            item = raw.FPDFPageObj_CreateTextObj(document, font, 11.0)
            letters = ctypes.create_string_buffer(f"{text}\0".encode("utf-16-le"))
            raw.FPDFText_SetText(item, ctypes.cast(letters, raw.FPDF_WIDESTRING))
            raw.FPDFPageObj_Transform(item, 1, 0, 0, 1, x, 800 - y)
            raw.FPDFPage_InsertObject(page, item)
        page.gen_content()
        forms.append(form)
    document.save(path)
    return forms


def form_groups(
    forms: Sequence[dict[str, str]], pages: Sequence[PlacedText], candidates: int, random: np.random.Generator
) -> Groups:
    """Return for each role and name its pairs with forms that have the name; relevant if the name has the role."""
    having = defaultdict[str, list[int]](list)
    for number, form in enumerate(forms):
        for name in form.values():
            having[name].append(number)
    groups = Groups()
    for name, numbers in having.items():
        for role in _ROLES:
            shown = random.permutation(numbers)[:candidates].tolist()
            pairs = [
                LabeledPair(f"{role.lower()} {name}", pages[one], float(forms[one].get(role) == name)) for one in shown
            ]
            if 0 < sum(pair.label for pair in pairs) < len(pairs):
                groups.append(pairs)
    return groups


def make_set(options: LayoutsOptions, name: str, seed: int) -> tuple[Groups, Groups]:
    """Return (pairs to learn from, pairs to measure), each by query."""
    random, folder = np.random.default_rng(seed), make_folder(Path(options.work_dir))
    if name == "headings":
        pages = pages_of(Path(options.pdf))
        border = len(pages) * 3 // 5
        return heading_groups(pages[:border], _LEARNED), heading_groups(pages[border:], _MEASURED)
    forms = draw_forms(options.forms, folder / "forms.pdf", random)
    pages, border = pages_of(folder / "forms.pdf"), options.forms * 2 // 3
    learned = Groups()
    for _ in range(_DRAWS):
        learned += form_groups(forms[:border], pages[:border], _MEASURED, random)
    return learned, form_groups(forms[border:], pages[border:], _MEASURED, random)


def start(options: LayoutsOptions, folder: Path, seed: int) -> Path:
    """Return the folder of a small LayoutLM with random weights, whose vocabulary is that of the pairs."""
    from paddle_ranker.commands.starter import StarterOptions, make_starter
    from paddle_ranker.layouts.kind import LayoutLMConfig
    from paddle_ranker.model.families import require_config

    encoder = make_starter(
        StarterOptions(corpus=str(folder / "words.jsonl"), output_dir=str(folder / "start"), vocab_size=4000)
    )
    config = LayoutLMConfig(
        require_config(encoder).vocab_size,
        hidden_size=options.hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * options.hidden_size,
        max_position_embeddings=256,
        normalize_before=True,  # trains better from nothing
        model_type="layoutlm",
    )
    replace_encoder(encoder, config, seed)
    return encoder


def train(options: LayoutsOptions, learned: Groups, measured: Groups, folder: Path, system: str, seed: int) -> Run:
    """Train a ranker; return its logits of the measured pairs, and the seconds.

    folder: folder of the set, in which each run has a folder
    system: "boxes", or "words" to leave the boxes out
    """
    folder = make_folder(folder / f"{system}-{seed}")
    for name, groups in (("train", learned), ("measured", measured), ("few", measured[:5])):
        pairs = [pair for group in groups for pair in group]
        plain = [LabeledPair(pair.query, str(pair.title), pair.label) for pair in pairs]
        write_records(folder / f"{name}.jsonl", plain if system == "words" else pairs)
        if name == "train":
            write_records(folder / "words.jsonl", plain)
    values = {"max_seq_length": 192, "batch_size": 32, "learning_rate": options.learning_rate, "epochs": options.epochs,
              "seed": seed, "cpu_threads": options.threads, "new_parts_factor": 1}  # fmt: skip
    encoder = start(options, folder, seed)
    seconds = train_cross_encoder(folder / "train.jsonl", folder / "few.jsonl", encoder, folder / "run", values)
    return score_file(folder / "run" / "last", folder / "measured.jsonl"), seconds


def run(options: LayoutsOptions) -> None:
    """Print a table for each set: AUC and nDCG@10 with boxes and without."""
    seeds, store, work = options.begin(), RunStore(options.scores_dir), Path(options.work_dir)
    for name in chosen("sets", options.sets, SETS):
        learned, measured = make_set(options, name, 1)
        counts = [sum(map(len, groups)) for groups in (learned, measured)]
        print(f"{name}: {len(learned)} and {len(measured)} queries, {counts[0]:,} and {counts[1]:,} pairs", flush=True)
        facts = {**options.facts(), "set": name, "work_dir": ""}
        facts.update(benchmark="layouts", data=file_digest(Path(options.pdf)), pdf="")
        systems = [
            run_seeds(store, system, seeds, facts, partial(train, options, learned, measured, work / name, system))
            for system in SYSTEMS
        ]
        # A heading may name several sections: each is a query of its own.
        queries = [str(number) for number, group in enumerate(measured) for _ in group]
        labels = [pair.label for group in measured for pair in group]
        print_comparison(options, queries, labels, systems, REFERENCE, f"{name}, {len(measured)} queries")


main = main_of(run, LayoutsOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
