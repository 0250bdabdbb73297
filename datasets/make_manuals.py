"""Make a collection of English manual pages of Debian's packages, with queries that their long texts answer.

python datasets/make_manuals.py --output manuals
paddle-ranker index build --corpus manuals --output index --tower TOWER --passage_tokens 128
paddle-ranker evaluate-recall --index index --beir manuals --ranker RANKER

Queries are sentences that are taken out of the pages: the first sentence of what a page says about an option, where
more follows, and a page's description. Each page's queries are in one split; pages of one name are in the same.
`pairs.jsonl` has each query with the opening of its page (label 1), and of nine other pages that words find (0).
The packages are fetched by `apt-get download`; groff (Debian: groff-base) reads the pages.
"""

from __future__ import annotations

import gzip
import io
import random
import re
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from make_real import OTHERS, Page, parse_page, split_pages, without

from paddle_ranker.data.rows.beir import write_beir
from paddle_ranker.data.rows.records import LabeledPair, write_records
from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.words.word_search import WordSearcher

_PACKAGES = (
    "apt bash btrfs-progs coreutils cron cryptsetup-bin curl diffutils dpkg e2fsprogs findutils gawk git-man gpg grep "
    "iproute2 iputils-ping less lsof make mount nano nftables openssh-client openssh-server parallel passwd patch "
    "procps psmisc rsync screen sed smartmontools strace sudo tar tmux udev util-linux wget xfsprogs xz-utils zip zstd"
)
_PATH = re.compile(r"\./usr/share/man/man[14-8]/([^/]+)\.(\w+)\.gz")
_OPTION = re.compile(r"(?m)^ *-{1,2}[A-Za-z0-9][^\n]{0,80}\n +([A-Z][^\n]{20,}?\.) +[A-Z][^\n]{60,}$")
_OPENING = re.compile(r"(?:^|\n)DESCRIPTION\n+([^\n]+)")
_WORDS, _MOST = (6, 24), 4  # words of a query; queries of a page


@dataclass(frozen=True)
class ManualsOptions(Options):
    """Options of `datasets/make_manuals.py`."""

    output: str = option(help="BEIR folder to make")
    packages: str = option(_PACKAGES, help="Debian's packages whose pages are read, with spaces between")
    seed: int = option(7, help="draws the queries of a page", minimum=0)


def sources(packages: Sequence[str], folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield name, section and source of the pages of packages, which are downloaded into `folder`."""
    for name, content in package_files(packages, folder):
        place = _PATH.fullmatch(name)
        if place is not None:
            source = gzip.decompress(content).decode("utf-8", "replace")
            if not source.startswith(".so "):
                yield place[1], place[2], source


def package_files(packages: Sequence[str], folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the files of Debian's packages, which are downloaded into `folder`."""
    done = subprocess.run(["apt-get", "download", *packages], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RankerError(f"apt-get download: {done.stderr.strip()[-200:]}; name others with --packages")
    for path in sorted(folder.glob("*.deb")):
        content = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for entry in archive:
                stream = archive.extractfile(entry) if entry.isfile() else None
                if stream is not None:
                    yield entry.name, stream.read()


def pages_of(given: Sequence[tuple[str, str, str]]) -> list[Page]:
    """Return the pages that have a text, each text once."""
    pages: dict[str, Page] = {}
    with ThreadPoolExecutor() as pool:
        for (name, section, _), parsed in zip(given, pool.map(parse_page, [source for _, _, source in given])):
            if parsed.text:
                id = re.sub(r"\s", "_", f"{name}.{section}")
                pages.setdefault(parsed.text, Page(id, name, section, "", parsed.description, parsed.text))
    return sorted({page.id: page for page in pages.values()}.values(), key=lambda page: page.id)


def candidates(page: Page) -> list[str]:
    """Return sentences of a page that say what it or an option of it does."""
    texts = [page.description, *(match[1].partition(". ")[0] for match in _OPTION.finditer(page.text))]
    return [text.rstrip(".") for text in texts if _WORDS[0] - 2 * (text is texts[0]) <= len(text.split()) <= _WORDS[1]]


def labelled_pairs(texts: dict[str, str], queries: dict[str, str], right: dict[str, str]) -> Iterator[LabeledPair]:
    """Yield the queries with their pages and others; `right` has each query's page, by their ids."""
    words, ids = WordSearcher.of_texts(texts.values(), "standard"), [*texts]
    opening = {
        id: (found[1] if (found := _OPENING.search(text)) else text.partition("\n")[0]) for id, text in texts.items()
    }
    for id, query in queries.items():
        yield LabeledPair(query, opening[right[id]], 1.0)
        best = [opening[ids[number]] for number in words.search(query, OTHERS + 1)[0].tolist()]
        others = [text for text in best if text != opening[right[id]]]
        yield from (LabeledPair(query, text, 0.0) for text in others[:OTHERS])


def run(options: ManualsOptions) -> None:
    """Write the collection."""
    with tempfile.TemporaryDirectory() as folder:
        pages = pages_of(list(sources(options.packages.split(), Path(folder))))
    known = Counter(text.lower() for page in pages for text in set(candidates(page)))
    splits, draw = split_pages(pages), random.Random(options.seed)
    queries, documents = dict[str, str](), []
    qrels: dict[str, dict[str, dict[str, int]]] = {"train": {}, "dev": {}, "test": {}}
    for page in pages:
        own = [text for text in dict.fromkeys(candidates(page)) if known[text.lower()] == 1]
        text = page.text
        for query in draw.sample(own, min(_MOST, len(own))):
            name = f"q{len(queries) + 1}"
            queries[name], text = query, without(text, query)
            qrels[splits[page.id]][name] = {page.id: 1}
        documents.append((page.id, text, {"title": page.name, "section": page.section}))
    write_beir(Path(options.output), documents, queries, qrels)
    right = {query: page for labels in qrels.values() for query, pages in labels.items() for page in pages}
    pairs = labelled_pairs({id: text for id, text, _ in documents}, queries, right)
    write_records(Path(options.output) / "pairs.jsonl", pairs)
    counts = ", ".join(f"{len(labels):,} in {split}" for split, labels in qrels.items())
    characters = sorted(len(text) for _, text, _ in documents)
    print(f"{options.output}: {len(documents):,} pages, half of them longer than {characters[len(documents) // 2]:,} "
          f"characters; {len(queries):,} queries ({counts})")  # fmt: skip


main = main_of(run, ManualsOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
