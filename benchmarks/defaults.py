"""Measure what a search does by default: fields with titles against the same texts merged, and `nothing_close`.

    python datasets/make_packages.py --output WORK/packages.jsonl     # optional sets: Debian's packages,
    python datasets/make_manuals.py --output WORK/manuals             # English manual pages,
    python datasets/make_real.py --output WORK/manpages_zh        # and Chinese manual pages
    python -m benchmarks.defaults --work_dir WORK
    python -m benchmarks.defaults --work_dir WORK --sets kuake,qbqtc --tower M3E --engine onnx --documents 4000

The first table has nDCG@10 of search by words as `index build` sets it, of texts without titles, of plain BM25 over
all texts of a document as one text, and, with --tower, of vectors and of both; how far words are ahead of BM25, and
both of BM25 and of the better of words and vectors. Queries lose quotes and signs before words, which would be
operators here and nothing to BM25. The second table has the share of queries that each searcher answers with
`nothing_close`: of queries that have an answer, and of nonsense; and whether the tower can tell. The queries of a set
are in two halves, by a digest of their text: `--half setting` is for choosing thresholds, the tables show the other.
The rule by words was chosen on draws from both halves of manpages_zh, qbqtc, csl, kuake and scifact; the other sets had
no part in it. The weights of fields were chosen in view of all sets but manpages_zh.

| set | documents | queries |
| --- | --- | --- |
| packages | packages with name, summary, description and more | `NEEDS`, and those of `datasets/make_packages.py` |
| manuals | English manual pages: name and text | sentences that were taken out of them |
| manpages_zh | Chinese manual pages: text alone | their descriptions, which were taken out |
| scifact | abstracts with titles | claims of the train split |
| csl; csl_titles | papers, title and abstract; abstracts alone | first keywords; the papers' titles |
| qbqtc, kuake | titles of web pages, of medical questions | all judged queries |
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Optional
from zlib import crc32

import numpy as np

from benchmarks.harness.report import format_table
from benchmarks.inputs import real_data_file, real_data_folder
from paddle_ranker.array_types import Floats, Vectors
from paddle_ranker.commands import index
from paddle_ranker.data.rows.records import LabeledPair, read_records
from paddle_ranker.data.rows.trec import read_qrels
from paddle_ranker.errors import RankerError, listed
from paddle_ranker.lexical.tokens import STANDARD
from paddle_ranker.metrics.intervals import bootstrap_interval
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import Options, main_of, option, redeclare
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.manifest import VECTORS, WORDS
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.retrieval.words.word_search import WordSearcher
from paddle_ranker.scoring.scoring_options import EngineOptions
from paddle_ranker.storage.atomic import make_folder, new_file

# What people look for without knowing a package's name, and well-known packages that are right.
NEEDS = {
    "photo editor": "darktable digikam gimp gthumb krita pinta rawtherapee shotwell",
    "web browser": (
        "chromium dillo elinks epiphany-browser falkon firefox firefox-esr konqueror links links2 lynx midori "
        "netsurf-gtk qutebrowser surf w3m"
    ),
    "ssh client": "dropbear-bin mosh openssh-client putty putty-tools",
    "ssh server": "dropbear dropbear-bin openssh-server tinysshd",
    "word processor": "abiword calligrawords libreoffice-writer ted wordgrinder",
    "bittorrent client": (
        "aria2 deluge deluge-gtk fragments ktorrent qbittorrent qbittorrent-nox rtorrent transmission "
        "transmission-cli transmission-gtk transmission-qt"
    ),
    "ftp server": "proftpd-core pure-ftpd vsftpd",
    "file manager": (
        "caja dolphin doublecmd-gtk doublecmd-qt krusader lf mc nautilus nemo nnn pcmanfm pcmanfm-qt ranger thunar vifm"
    ),
    "terminal emulator": (
        "alacritty foot gnome-terminal guake kitty konsole lxterminal mate-terminal qterminal rxvt-unicode stterm "
        "terminator tilix xfce4-terminal xterm yakuake"
    ),
    "instant messaging client": "dino-im finch gajim kaidan kopete pidgin profanity psi psi-plus telegram-desktop",
    "irc client": "hexchat irssi konversation quassel quassel-client weechat weechat-curses",
    "audio editor": "ardour audacity kwave mhwaveedit",
    "3d modelling program": "blender freecad k3d openscad solvespace wings3d",
    "partition editor for hard disks": "cfdisk fdisk gdisk gnome-disk-utility gparted parted partitionmanager",
    "backup program": (
        "amanda-client backintime-qt backuppc bacula-client borgbackup deja-dup duplicity kup-backup rdiff-backup "
        "restic rsnapshot rsync timeshift"
    ),
    "mail server": (
        "citadel-server courier-mta dovecot-core dovecot-imapd exim4 exim4-daemon-heavy exim4-daemon-light "
        "opensmtpd postfix sendmail sendmail-bin"
    ),
    "dns server": "bind9 dnsmasq knot knot-resolver nsd pdns-recursor pdns-server unbound",
    "firewall configuration": "arno-iptables-firewall ferm firewalld fwbuilder gufw iptables nftables shorewall ufw",
    "network port scanner": "masscan nmap zenmap zmap",
    "capture and analyze network packets": (
        "ettercap-graphical ettercap-text-only ngrep tcpdump tshark wireshark wireshark-qt"
    ),
    "version control system": "brz bzr cvs darcs fossil git mercurial rcs subversion",
    "c compiler": "clang clang-14 gcc gcc-12 tcc",
    "debugger for c programs": "cgdb ddd gdb gdb-multiarch kdbg lldb nemiver valgrind",
    "ebook reader": "calibre coolreader fbreader foliate okular bookworm",
    "tiling window manager": "awesome bspwm dwm herbstluftwm i3 i3-wm qtile sway xmonad spectrwm",
    "scientific plotting": "gnuplot gnuplot-nox gnuplot-qt gnuplot-x11 grace kmplot labplot python3-matplotlib veusz",
    "computer algebra system": "axiom fricas gap giac maxima maxima-sage pari-gp sagemath wxmaxima xcas yacas",
    "vector drawing program": "dia inkscape ipe karbon libreoffice-draw xfig",
    "screen reader for blind people": "brltty espeakup fenrir orca yasr",
    "record the desktop as a video": (
        "byzanz gtk-recordmydesktop kazam kooha obs-studio peek recordmydesktop simplescreenrecorder vokoscreen-ng "
        "wf-recorder"
    ),
    "take pictures with a webcam": "cheese fswebcam guvcview kamoso webcamoid",
    "show running processes": (
        "atop bpytop btop glances gnome-system-monitor htop ksysguard plasma-systemmonitor procps"
    ),
    "find duplicate files": "duff fdupes fslint hardlink jdupes rdfind rmlint",
    "latex editor": "gummi kile lyx texmaker texstudio texworks",
    "personal finance": "beancount gnucash grisbi hledger homebank kmymoney ledger skrooge",
    "planetarium": "kstars openuniverse stellarium xplanet",
    "music notation": "denemo frescobaldi lilypond musescore musescore3 nted rosegarden",
    "crack passwords": "hashcat hydra john ophcrack",
    "run containers": "containerd docker.io lxc podman runc systemd-container",
    "load balancer": "balance haproxy keepalived nginx pen pound",
    "learn touch typing": "gtypist klavaro ktouch tuxtype typespeed",
    "text to speech": "espeak espeak-ng festival flite mbrola speech-dispatcher",
    "optical character recognition": "cuneiform gimagereader gocr ocrad ocrfeeder tesseract-ocr",
    "cd ripper": "abcde asunder cdparanoia grip ripperx rubyripper sound-juicer soundkonverter whipper",
    "download manager": "aria2 axel kget uget wget persepolis",
}
MOST, MADE_UP, SHOWN = 400, 100, 10  # queries of a set, and of each kind of nonsense; documents that count
HALVES = ("shown", "setting")
_OPERATORS = re.compile(r'["“”„«»]|(?<!\S)[-+]+(?=\S)')  # quotes, and signs before words
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
Labels = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Judged:
    """Documents as (title, text) by id, with empty titles in a set without titles; queries and labels by id.

    rows: for a set with more fields, the documents with all of them, by id
    """

    documents: dict[str, tuple[str, str]]
    queries: dict[str, str]
    labels: Labels
    rows: dict[str, dict[str, object]] = field(default_factory=dict)


@dataclass(frozen=True)
class DefaultsOptions(Options):
    work_dir: str = option(help="folder of packages.jsonl and manuals, and for indexes, which are kept")
    sets: str = option("", help="sets, with commas between (default: all that are there)")
    tower: Optional[str] = option(None, help="tower or encoder for vectors (default: words alone)")
    engine: Optional[str] = redeclare(EngineOptions, "engine")
    data_dir: Optional[str] = option(None, help="folder of the real data (default: PADDLE_RANKER_REAL_DATA)")
    documents: int = option(0, help="most documents of a set, drawn at random beside judged ones; 0: all", minimum=0)
    half: str = option("shown", help="queries: those shown, or those on which thresholds are set", choices=HALVES)
    seed: int = option(7, help="draws queries, documents and nonsense", minimum=0)


def _lines(path: Path) -> list[dict[str, object]]:
    with open(path, encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _packages(options: DefaultsOptions) -> Judged:
    needs, rows = {**NEEDS, **_strangers()}, _lines(Path(options.work_dir) / "packages.jsonl")
    documents = {str(row["id"]): (str(row["name"]), f"{row['summary']} {row['description']}") for row in rows}
    queries = {f"q{number}": query for number, query in enumerate(needs)}
    labels = {id: {name: 1 for name in needs[query].split() if name in documents} for id, query in queries.items()}
    return Judged(documents, queries, labels, {str(row["id"]): row for row in rows})


def _strangers() -> dict[str, str]:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "datasets"))
    from make_packages import STRANGERS

    return dict(STRANGERS)


def _beir(folder: Path) -> Judged:
    documents = {
        str(row["_id"]): (str(row.get("title") or ""), str(row["text"])) for row in _lines(folder / "corpus.jsonl")
    }
    labels: Labels = {}
    for path in sorted((folder / "qrels").glob("*.tsv")):
        labels.update(read_qrels(str(path)).qrels)
    texts = {str(row["_id"]): str(row["text"]) for row in _lines(folder / "queries.jsonl")}
    return Judged(documents, {id: texts[id] for id in labels}, labels)


def _pairs(options: DefaultsOptions, *files: str) -> Judged:
    ids, names, labels = dict[str, str](), dict[str, str](), Labels()
    for row in chain(*(read_records(real_data_file(options.data_dir, name), LabeledPair) for name in files)):
        id, query = ids.setdefault(row.title, f"t{len(ids)}"), names.setdefault(row.query, f"q{len(names)}")
        of_query = labels.setdefault(query, {})
        of_query[id] = max(int(row.label), of_query.get(id, 0))
    return Judged({id: ("", text) for text, id in ids.items()}, {id: text for text, id in names.items()}, labels)


def _csl(options: DefaultsOptions, by_titles: bool) -> Judged:
    papers = _lines(real_data_file(options.data_dir, "csl/papers.jsonl"))
    titles = {f"p{number}": str(paper["title"]) for number, paper in enumerate(papers)}
    if by_titles:
        abstracts = {f"p{number}": ("", str(paper["abstract"])) for number, paper in enumerate(papers)}
        return Judged(abstracts, titles, {id: {id: 1} for id in titles})
    documents = {f"p{number}": (str(paper["title"]), str(paper["abstract"])) for number, paper in enumerate(papers)}
    keywords = [list(map(str, paper["keywords"])) for paper in papers]  # type: ignore[call-overload]
    queries = {query: f"q{number}" for number, query in enumerate(dict.fromkeys(words[0] for words in keywords))}
    labels: Labels = {}
    for number, words in enumerate(keywords):
        for word in filter(queries.__contains__, words):
            labels.setdefault(queries[word], {})[f"p{number}"] = 1
    return Judged(documents, {id: query for query, id in queries.items()}, labels)


SETS: dict[str, Callable[[DefaultsOptions], Judged]] = {
    "packages": _packages,
    "manuals": lambda options: _beir(Path(options.work_dir) / "manuals"),
    "manpages_zh": lambda options: _beir(Path(options.work_dir) / "manpages_zh" / "beir"),
    "scifact": lambda options: _beir(real_data_folder(options.data_dir) / "scifact"),
    "csl": lambda options: _csl(options, False),
    "csl_titles": lambda options: _csl(options, True),
    "qbqtc": lambda options: _pairs(options, "qbqtc/train.tsv", "qbqtc/dev.tsv"),
    "kuake": lambda options: _pairs(options, "kuake_qtr/train.tsv"),
}


def ndcg(judged: Judged, run: dict[str, dict[str, float]]) -> Floats:
    """Return nDCG@10 of each query by trec_eval, `[queries]`; 0 for a query without results."""
    import ir_measures

    measured = ir_measures.iter_calc([ir_measures.nDCG @ SHOWN], judged.labels, run)
    values = {value.query_id: value.value for value in measured}
    return np.array([values.get(id, 0.0) for id in judged.queries])


class QueryVectors:
    """Computes the vector of each query once, whichever sets and searchers ask."""

    def __init__(self, options: DefaultsOptions, tower: str):
        self._tower = Tower.open(tower, LoadOptions(engine=options.engine), for_search=True)
        self._known = dict[str, Vectors]()

    def __call__(self, queries: Sequence[str]) -> Vectors:
        """Return the vectors of queries, `[queries, size]`."""
        missing = [query for query in dict.fromkeys(queries) if query not in self._known]
        if missing:
            self._known.update(zip(missing, self._tower.query_vectors(missing)))
        return np.stack([self._known[query] for query in queries])


def engine_of(options: DefaultsOptions, name: str, judged: Judged, titled: bool = True) -> SearchEngine:
    """Open the index of a set, which is built if it is missing; `titled`: with its titles."""
    work = Path(options.work_dir)
    tower = Path(options.tower).resolve().parent.name if options.tower and titled else "words"
    sample = f"-{options.documents}-{options.seed}" if options.documents else ""
    folder = work / f"defaults-{name}-{tower}{'' if titled else '-untitled'}{sample}"
    if not folder.exists():
        corpus = work / f"{folder.name}.jsonl"
        with new_file(corpus) as stream:
            for id, (title, text) in judged.documents.items():
                row: dict[str, object] = {"id": id, **({"title": title} if titled and title else {}), "text": text}
                given_row = judged.rows.get(id, row) if titled else row
                stream.write(json.dumps(given_row, ensure_ascii=False) + "\n")
        given = ["build", "--corpus", str(corpus), "--output", str(folder)]
        if options.tower and titled:
            given += ["--tower", options.tower, *(["--engine", options.engine] if options.engine else [])]
        if index.main(given):
            raise RankerError(f"{folder}: the index could not be built; see above")
    return SearchEngine.open(folder, has_query=False)


def run_of(searcher: SearchEngine, judged: Judged) -> dict[str, dict[str, float]]:
    """Search for the queries, and return the run."""
    found = searcher.search_many([*judged.queries.values()], SHOWN)
    return {id: {hit.id: -float(rank) for rank, hit in enumerate(hits)} for id, hits in zip(judged.queries, found)}


def merged_run(judged: Judged) -> dict[str, dict[str, float]]:
    """Return the run of plain BM25 over each title and text as one text."""
    words, ids = (
        WordSearcher.of_texts((" ".join(both) for both in judged.documents.values()), STANDARD),
        [*judged.documents],
    )
    run = {}
    for id, query in judged.queries.items():
        numbers, scores = words.search(query, SHOWN)
        run[id] = dict(zip((ids[number] for number in numbers.tolist()), scores.tolist()))
    return run


def nonsense(names: Sequence[str], sets: dict[str, Judged], name: str, seed: int) -> dict[str, list[str]]:
    """Return queries without an answer in a set, by kind: characters and words at random, queries of other sets."""
    draw = np.random.default_rng(seed)
    ideographs = ["".join(map(chr, row)) for row in draw.integers(0x4E00, 0x9FA5, (MADE_UP // 2, 6)).tolist()]
    letters = [" ".join("".join(draw.choice([*_LETTERS], int(size))) for size in draw.integers(3, 9, 3))
               for _ in range(MADE_UP // 2)]  # fmt: skip
    # The others are about the same: what packages and both kinds of manual pages describe are the same programs.
    programs = ("packages", "manuals", "manpages_zh")
    base = {**dict.fromkeys(programs, "programs"), "csl_titles": "csl"}
    others = [other for other in names if base.get(other, other) != base.get(name, name)]
    asked = [
        query for other in others for query in draw.permutation([*sets[other].queries.values()])[:MADE_UP].tolist()
    ]
    words = [word for query in asked for word in query.split()]
    joined = [" ".join(draw.choice(words, int(size))) for size in draw.integers(3, 7, MADE_UP)] if words else []
    return {"characters": ideographs + letters, "words": joined, "others": [str(query) for query in asked]}


def share_said(searcher: SearchEngine, queries: Sequence[str]) -> str:
    """Return the share of queries that are answered with `nothing_close`, and of how many."""
    said = [found.nothing_close for found in searcher.run(list(queries))]
    return f"{np.mean(said):.1%} of {len(said)}" if said else "-"


def run(options: DefaultsOptions) -> int:
    make_folder(options.work_dir)
    needed = {"manuals": "manuals", "manpages_zh": "manpages_zh/beir", "packages": "packages.jsonl"}
    there = [name for name in SETS if name not in needed or (Path(options.work_dir) / needed[name]).exists()]
    names = options.sets.split(",") if options.sets else there
    if unknown := [name for name in names if name not in SETS]:
        raise RankerError(f"--sets {listed(unknown)}: choose from {', '.join(SETS)}")
    sets = {name: sampled(SETS[name](options), options) for name in dict.fromkeys([*names, *there])}
    bys = [[WORDS], *([[VECTORS], [WORDS, VECTORS]] if options.tower else [])]
    vectors = QueryVectors(options, options.tower) if options.tower else None
    quality, said = list[list[str]](), list[list[str]]()
    for name in names:
        judged = sets[name]
        with engine_of(options, name, judged) as engine:
            searchers = [SearchEngine(engine.collection, SearchSettings(by=tuple(by)), vectors) for by in bys]
            values = [ndcg(judged, run_of(searcher, judged)) for searcher in searchers]
            asked = [[*judged.queries.values()], *nonsense(there, sets, name, options.seed).values()]
            floors = engine.collection.info.floors
            for by, searcher in zip(bys, searchers):
                tells = "" if by == [WORDS] or floors is None else "yes" if VECTORS in floors.telling else "no"
                said.append([name, " and ".join(by), tells, *(share_said(searcher, queries) for queries in asked)])
        untitled = values[0]
        if any(title for title, _ in judged.documents.values()):
            with engine_of(options, name, judged, False) as engine:
                untitled = ndcg(judged, run_of(engine, judged))
        plain = ndcg(judged, merged_run(judged))
        cells = [_mean(one) for one in (values[0], untitled, plain)]
        ahead = [values[0] - plain]
        if options.tower:
            better = max(values[:2], key=np.mean)
            cells, ahead = [*cells, *map(_mean, values[1:])], [*ahead, values[2] - plain, values[2] - better]
        quality.append(
            [name, str(len(plain)), *(f"{cell:.3f}" for cell in [*cells]), *(f"{_mean(a):+.3f}" for a in ahead)]
        )
    columns = ["set", "queries", "words", "without titles", "plain BM25"]
    columns += ["vectors", "both"] if options.tower else []
    columns += ["words - BM25", *(["both - BM25", "both - better half"] if options.tower else [])]
    print(format_table(columns, quality))
    print(format_table(["set", "by", "tells", "has an answer", "characters", "words", "queries of other sets"], said))
    return 0


def sampled(judged: Judged, options: DefaultsOptions) -> Judged:
    """Return a set with at most `MOST` queries of a half that have an answer, and with the documents that are wanted.

    Of few documents, judged ones of as many queries are kept as make up half of them, of both halves.
    """
    draw = np.random.default_rng(options.seed)
    answered = [id for id in judged.queries if any(label > 0 for label in judged.labels.get(id, {}).values())]
    ids = draw.permutation(answered).tolist()
    documents = judged.documents
    if options.documents and len(documents) > options.documents:
        kept, judged_ids = dict[str, None](), list[str]()
        for id in ids:
            if len(kept) + len(judged.labels[id]) > options.documents // 2:
                break
            kept.update(dict.fromkeys(filter(documents.__contains__, judged.labels[id])))
            judged_ids.append(id)
        ids = judged_ids
        others = [id for id in draw.permutation([*documents]).tolist() if id not in kept]
        documents = {id: documents[id] for id in [*kept, *others][: options.documents]}
    ids = [id for id in ids if HALVES[crc32(judged.queries[id].encode()) % 2] == options.half][:MOST]
    queries = {id: _OPERATORS.sub(" ", judged.queries[id]).strip() for id in ids}
    return Judged(documents, queries, {id: judged.labels[id] for id in ids}, judged.rows)


def _mean(values: Floats) -> object:
    return bootstrap_interval(lambda drawn: drawn @ values / drawn.sum(axis=1), len(values))


main = main_of(run, DefaultsOptions, __doc__)


if __name__ == "__main__":
    sys.exit(main())
