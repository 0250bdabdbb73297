"""Make a real Chinese collection of Debian's package manpages-zh: long pages, and queries whose answers are known.

    python datasets/make_real.py
    python datasets/make_real.py --package manpages-zh_1.6.4.0-1_all.deb --script both
    paddle-ranker index build --corpus datasets/manpages/pages.jsonl --output manpages-index
    paddle-ranker evaluate-recall --index INDEX --beir datasets/manpages/beir --split dev

A page's one-line description is a query, and the page, without this description and its section NAME, is the answer.
Without --package the package is fetched by `apt-get download`, as any user. groff (Debian: groff-base) reads the
pages. They are under the GFDL 1.2 or later, some under the GPL; the package's own statement is written beside them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional

from paddle_ranker.data.rows.beir import write_beir
from paddle_ranker.data.rows.records import LabeledPair, Pair, write_records
from paddle_ranker.errors import DataError, RankerError, brief
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.words.word_search import WordSearcher
from paddle_ranker.storage.atomic import make_folder, new_folder

PACKAGE = "manpages-zh"
SCRIPTS = {"zh_CN": "simplified", "zh_TW": "traditional"}
SPLITS = {"train": 60, "dev": 20, "test": 20}  # percent of the queries
OTHERS = 9  # pages that are no answers, for each query of the labelled pairs
_LARGEST = 1 << 26  # bytes of a page
_LEAST_CHINESE = 0.1  # of a page's characters
CJK = "\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"
_GROFF = ("groff", "-mandoc", "-t", "-Tutf8", "-Kutf8", "-P-cbou", "-rLL=20000n", "-rHY=0")  # a paragraph is one line
_ASCII = str.maketrans("\u2010\u2212\u2018\u2019\u00b4", "--`''")  # typography of the terminal
_NAME = re.compile(r"^\W*(?:NAME|名称|名稱|名字|命令名)", re.I)
_DASHES = re.compile(r"\s+[-\u2010-\u2015\u2500－]+\s*|\s*[\u2013-\u2015]+\s*")
_LINK = re.compile(r"""(?:['.]\\".*\n|\s*\n)*\.so\s+\S""")
_PATH = re.compile(r"\./usr/share/man/(zh_CN|zh_TW)/man\w+/(.+)\.(\w+)\.gz")


@dataclass(frozen=True)
class MakeRealOptions(Options):
    """Options of `datasets/make_real.py`."""

    output_dir: str = option(str(Path(__file__).resolve().parent / "manpages"), help="folder to make", name="output")
    package: Optional[str] = option(None, help=f"a file {PACKAGE}_*.deb (default: apt-get downloads it)")
    script: str = option(
        "simplified",
        help="which characters the pages are in; most are there in both",
        choices=(*SCRIPTS.values(), "both"),
    )
    force: bool = option(False, help="replace a folder that is there")


class Package(NamedTuple):
    """Contents of a .deb: its control file, its statement of copyright, and its manual pages by path."""

    name: str
    sha256: str
    control: str
    copyright: bytes
    pages: list[tuple[str, str]]


@dataclass(frozen=True)
class Page:
    """A page of the collection; `text` lacks the section NAME and, at any place, the description."""

    id: str
    name: str
    section: str
    script: str
    description: str
    text: str


def fetch_package(folder: Path) -> Path:
    """Download the package into `folder`; raises `RankerError` where that is not possible."""
    ask = f"give a file {PACKAGE}_*.deb with --package (https://packages.debian.org/{PACKAGE} has it)"
    try:
        done = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RankerError(f"there is no apt-get here to download {PACKAGE}: {ask}") from None
    found = sorted(folder.glob("*.deb"))
    if done.returncode or not found:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise RankerError(f"apt-get download {PACKAGE}: {brief((errors or ['it got nothing'])[0])}: {ask}")
    return found[0]


def read_package(path: Path) -> Package:
    """Read a Debian package; nothing is unpacked to the disk. Raises `DataError` for another or a damaged file."""
    try:
        content = path.read_bytes()
        members = dict(_members(content))
        with _archive(members, "control") as control, _archive(members, "data") as data:
            said = _content(control, "./control").decode()
            statement = _content(data, f"./usr/share/doc/{PACKAGE}/copyright")
            pages = [
                (entry.name, page)
                for entry in sorted(data.getmembers(), key=lambda one: one.name)
                if entry.isfile() and _PATH.fullmatch(entry.name)
                for page in [_unzipped(_content(data, entry.name))]
            ]
    except (OSError, ValueError, KeyError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{path}: not a whole package {PACKAGE} ({brief(str(error))}); download it again") from error
    return Package(path.name, hashlib.sha256(content).hexdigest(), said, statement, pages)


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of an ar archive, which a .deb is."""
    if not content.startswith(b"!<arch>\n"):
        raise ValueError("it does not begin as one")
    place = 8
    while place + 60 <= len(content):
        name, size = (
            content[place : place + 16].decode("ascii").strip().rstrip("/"),
            int(content[place + 48 : place + 58]),
        )
        yield name, content[place + 60 : place + 60 + size]
        place += 60 + size + size % 2


def _archive(members: dict[str, bytes], name: str) -> tarfile.TarFile:
    found = next((member for member in members if member.startswith(f"{name}.tar")), None)
    if found is None:
        raise ValueError(f"no {name}.tar in it")
    if found.endswith(".zst"):
        raise ValueError("packed with zstd, as Ubuntu does; take Debian's")
    return tarfile.open(fileobj=io.BytesIO(members[found]))


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    if stream is None:
        raise ValueError(f"{name} is no file")
    return stream.read()


def _unzipped(content: bytes) -> str:
    with gzip.open(io.BytesIO(content)) as stream:
        page = stream.read(_LARGEST + 1)
    if len(page) > _LARGEST:
        raise ValueError(f"a page of more than {_LARGEST:,} bytes")
    return page.decode("utf-8")


class ManualPage(NamedTuple):
    """A manual page: the names and the description in its section NAME, and the text of the other sections."""

    names: tuple[str, ...]
    description: str
    text: str


def parse_page(source: str) -> ManualPage:
    """Return the text of a page in roff, as groff shows it but for indents; raises `RankerError` without groff."""
    try:
        done = subprocess.run(_GROFF, input=source.encode(), capture_output=True, check=False)
    except FileNotFoundError:
        raise RankerError("there is no groff here to read manual pages: apt-get install groff-base") from None
    shown = done.stdout.decode("utf-8", "replace").translate(_ASCII)
    # Without rulers, bars at the margin, and the wide gaps of tables; without spaces where Chinese lines were joined.
    shown = re.sub(r"([_│─|])\1{39,}", "", re.sub(r"(?m)(?<! ) {40,}(?:\S$)?", "  ", shown))
    shown = re.sub(rf"(?m)[ ]+$|(?<=[{CJK}]) (?=[{CJK}])", "", re.sub(r"(?<=\S) {3,}(?=\S)", "  ", shown))
    names: tuple[str, ...] = ()
    description, kept = "", []
    lines = shown.rstrip().split("\n")
    lines = lines[1:-1] if lines[0] else lines  # without head and foot, which mdoc's pages lack
    for section in re.split(r"\n(?=\S)", "\n".join(lines)):
        heading, _, body = section.partition("\n")
        body = re.sub(r"\n{3,}", "\n\n", re.sub(r"(?m)^ {1,7}", "", body)).strip("\n")
        if not names and _NAME.match(heading):
            first, *rest = _DASHES.split(" ".join(body.split()), maxsplit=1)
            names = tuple(name for part in re.split(r"[,，、]", first) if (name := part.strip()))
            description = (rest[0] if rest else "").strip()
        elif body:
            kept.append(f"{heading}\n{body}" if heading else body)
    return ManualPage(names, description, "\n\n".join(kept))


def read_pages(package: Package, scripts: Iterable[str]) -> tuple[list[Page], Counter[str]]:
    """Return the pages in the given scripts, each text once, and how many were left out, by the reason."""
    wanted, left_out = set(scripts), Counter[str]()
    places = [found for path, _ in package.pages if (found := _PATH.fullmatch(path))]
    given = [(place, source) for place, (_, source) in zip(places, package.pages) if SCRIPTS[place[1]] in wanted]
    own = [(place, source) for place, source in given if not _LINK.match(source)]
    left_out["only name another page"] = len(given) - len(own)
    pages: dict[str, Page] = {}
    with ThreadPoolExecutor() as pool:
        parsed_pages = list(pool.map(parse_page, [source for _, source in own]))
    for (found, _), parsed in zip(own, parsed_pages):
        script, text = SCRIPTS[found[1]], without(parsed.text, parsed.description)
        if len(re.findall(f"[{CJK}]", text)) < _LEAST_CHINESE * max(1, len(text)):
            left_out["hardly Chinese"] += 1
        elif text in pages:
            left_out["the same as another page"] += 1
        else:
            id = f"{found[2]}.{found[3]}" + (".zh_TW" if script == "traditional" else "")
            name = parsed.names[0] if parsed.names else found[2]
            pages[text] = Page(id.replace(" ", "_"), name, found[3], script, parsed.description, text)
    return sorted(pages.values(), key=lambda page: page.id), left_out


def without(text: str, description: str) -> str:
    """Return a text without a description, however its spaces and line ends fall."""
    characters = [re.escape(character) for character in description if not character.isspace()]
    if not characters:
        return text
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"\s*".join(characters), "", text)).strip()


def is_query(description: str) -> bool:
    """Return whether a description is Chinese: at least four such characters."""
    return len(re.findall(f"[{CJK}]", description)) >= 4


def split_pages(pages: Sequence[Page]) -> dict[str, str]:
    """Return the split of each page's id; pages of one name or one description, in either script, are in the same."""
    group: dict[str, str] = {}

    def root(key: str) -> str:
        while group.setdefault(key, key) != key:
            key = group[key]
        return key

    for page in pages:
        stem = f"id {page.id.replace('.zh_TW', '')}"
        keys = [stem, f"name {page.name.lower()}", *([f"text {page.description}"] if page.description else [])]
        for other in map(root, keys[1:]):
            group[max(other, root(stem))] = min(other, root(stem))
    bounds = [sum(list(SPLITS.values())[: n + 1]) for n in range(len(SPLITS))]
    splits = {}
    for page in pages:
        drawn = int(hashlib.sha256(root(f"id {page.id.replace('.zh_TW', '')}").encode()).hexdigest(), 16) % 100
        splits[page.id] = next(name for name, bound in zip(SPLITS, bounds) if drawn < bound)
    return splits


class Collection(NamedTuple):
    """Queries by id, and of each split the right pages of each query."""

    queries: dict[str, str]
    qrels: dict[str, dict[str, dict[str, int]]]


def judge(pages: Sequence[Page]) -> Collection:
    """Return the queries and their answers: the pages with a description, and the same pages in the other script."""
    splits = split_pages(pages)
    queries: dict[str, str] = {}
    by_stem: dict[str, list[str]] = {}
    for page in pages:
        by_stem.setdefault(page.id.replace(".zh_TW", ""), []).append(page.id)
    qrels: dict[str, dict[str, dict[str, int]]] = {split: {} for split in SPLITS}
    for page in pages:
        if is_query(page.description):
            query = queries.setdefault(page.description, f"q{len(queries) + 1}")
            answers = by_stem[page.id.replace(".zh_TW", "")]
            qrels[splits[page.id]].setdefault(query, {}).update(dict.fromkeys(answers, 1))
    return Collection({id: text for text, id in queries.items()}, qrels)


def right_pairs(pages: Sequence[Page], collection: Collection, split: str) -> Iterator[Pair]:
    """Yield a split's queries with their pages."""
    texts = {page.id: page.text for page in pages}
    for query, right in collection.qrels[split].items():
        yield from (Pair(collection.queries[query], texts[id]) for id in right)


def labelled_pairs(pages: Sequence[Page], collection: Collection, split: str) -> Iterator[LabeledPair]:
    """Yield a split's queries, each with its page (label 1) and the best other pages by BM25 (label 0)."""
    splits = split_pages(pages)
    own = [page for page in pages if splits[page.id] == split]
    labels = collection.qrels[split]
    words = WordSearcher.of_texts((page.text for page in own), "bigram")
    for query, right in ((collection.queries[id], right) for id, right in labels.items()):
        found, _ = words.search(query, OTHERS + len(SCRIPTS))
        yield from (LabeledPair(query, page.text, 1.0) for page in own if page.id in right)
        others = [own[number].text for number in found.tolist() if own[number].id not in right]
        yield from (LabeledPair(query, text, 0.0) for text in others[:OTHERS])


def write_collection(folder: Path, package: Package, pages: Sequence[Page], collection: Collection) -> None:
    """Write all files into an empty folder."""
    documents = ((page.id, page.text, _fields(page)) for page in pages)
    write_beir(folder / "beir", documents, collection.queries, collection.qrels)
    with open(folder / "pages.jsonl", "w", encoding="utf-8") as stream:
        for page in pages:
            head = f"{page.name}({page.section})" + (f" - {page.description}" if page.description else "")
            row = {"id": page.id, "text": f"{head}\n\n{page.text}", **_fields(page)}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    for split, labels in collection.qrels.items():
        if labels:
            pairs = right_pairs if split == "train" else labelled_pairs
            write_records(folder / f"{split}.jsonl", pairs(pages, collection, split))
    (folder / "LICENSE").write_bytes(package.copyright)
    version = re.search(r"^Version: (.+)$", package.control, re.M)
    (folder / "README.md").write_text(
        f"Made by datasets/make_real.py of Debian's {PACKAGE} {version[1] if version else ''} ({package.name}, sha256 "
        f"{package.sha256}).\nThe pages are under the GNU Free Documentation License 1.2 or later, some under the GPL: "
        "LICENSE has the\npackage's statement. They were turned into plain text, and in beir/ and the pairs the "
        "descriptions were taken out.\n",
        encoding="utf-8",
    )


def _fields(page: Page) -> dict[str, object]:
    return {"name": page.name, "section": page.section, "script": page.script}


def make_real(options: MakeRealOptions) -> int:
    """Read the package, and write the collection."""
    folder = Path(options.output_dir)
    if folder.exists() and not options.force:
        raise RankerError(f"{folder}: is there already; name another folder with --output, or replace it with --force")
    with tempfile.TemporaryDirectory() as name:
        package = read_package(Path(options.package) if options.package else fetch_package(Path(name)))
    pages, left_out = read_pages(package, SCRIPTS.values() if options.script == "both" else [options.script])
    collection = judge(pages)
    if not collection.queries:
        raise DataError(f"{package.name}: no page has a Chinese description; give Debian's {PACKAGE}")
    make_folder(folder.parent)
    with new_folder(folder, replace=options.force) as made:
        write_collection(made, package, pages, collection)
    counts = ", ".join(f"{len(labels)} in {split}" for split, labels in collection.qrels.items())
    said = "".join(f"; {count} {reason}" for reason, count in left_out.items() if count)
    print(f"{folder}: {len(pages):,} pages, {len(collection.queries):,} queries ({counts}){said}")
    print(f"licence: GFDL 1.2 or later, some pages GPL; see {folder / 'LICENSE'}")
    return 0


main = main_of(make_real, MakeRealOptions, __doc__, prog="make_real.py")


if __name__ == "__main__":
    sys.exit(main())
