"""Write the packages that apt knows as documents with fields: name, summary, description, section, size.

python datasets/make_packages.py --output packages.jsonl
paddle-ranker index build --corpus packages.jsonl --output packages
python datasets/make_packages.py --output packages.jsonl --index packages --check 500
python datasets/make_packages.py --output packages.jsonl --index packages --check 400 --groups 50

`apt-get -o Acquire::Languages=en update` first: it fetches the list of packages and their long descriptions.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.values.listing import CONTENT
from paddle_ranker.storage.atomic import new_file

# Queries of people who do not know the packages' names, with the names that answer them.
STRANGERS = {
    "git": "git",
    "web server": "apache2 caddy lighttpd micro-httpd nginx nginx-core nginx-extras nginx-full nginx-light webfs",
    "pdf viewer": (
        "apvlv atril epdfview evince gv impressive katarakt mupdf okular qpdfview sioyek viewpdf.app xpdf zathura"
    ),
    "video player": (
        "celluloid dragonplayer haruna kaffeine mplayer mplayer-gui mpv parole qmplay2 smplayer totem vlc xine-ui"
    ),
    "video editor": "avidemux blender flowblade kdenlive olive-editor openshot openshot-qt pitivi shotcut",
    "image editor like photoshop": "darktable gimp gpaint kolourpaint krita mtpaint photoflow pinta",
    "music player": (
        "amarok audacious clementine cmus deadbeef elisa exaile gmusicbrowser gnome-music goodvibes juk "
        "lollypop moc mpd pragha qmmp quodlibet rhythmbox sayonara sonata strawberry"
    ),
    "firefox": "firefox firefox-esr",
    "password manager": (
        "gnome-passwordsafe gokey keepass2 keepassx keepassxc kwalletmanager pass password-gorilla "
        "passwordsafe pwman3 qtpass revelation secrets"
    ),
    "text editor for programmers": (
        "codeblocks cream efte emacs featherpad fte fte-console fte-terminal geany gedit jed joe juffed kate "
        "medit mousepad nano neovim notepadqq pluma scite tea vim"
    ),
    "spreadsheet": "calligrasheets gnumeric libreoffice-calc pyspread sc sc-im teapot",
    "download youtube videos": "clipgrab gpodder youtube-dl youtubedl-gui yt-dlp ytcc ytfzf",
    "compress files zip": "7zip advancecomp ark file-roller p7zip p7zip-full unzip xarchiver zip",
    "database server": (
        "default-mysql-server default-mysql-server-core firebird3.0-server mariadb-server mariadb-server-core "
        "mysql-server postgresql postgresql-15 redis redis-server"
    ),
    "python ide": (
        "eric idle idle-python3.11 idle-python3.9 idle3 ninja-ide python3-spyder pyzo spyder spyder3 thonny"
    ),
    "burn cd": "brasero burn cdrdao cdw growisofs k3b simpleburn wodim xfburn xorriso",
    "chess game": (
        "3dchess brutalchess chessx dreamchess eboard games-chess gnome-chess gnuchess knights pychess scid "
        "stockfish xboard"
    ),
    "email client": (
        "aerc alpine astroid balsa claws-mail evolution geary kmail mu4e mutt neomutt sylpheed thunderbird trojita"
    ),
    "screenshot tool": (
        "deepin-screenshot flameshot gnome-screenshot grim grimshot kde-spectacle ksnip maim screengrab scrot "
        "shutter xfce4-screenshooter"
    ),
    "remote desktop": (
        "freerdp2-wayland freerdp2-x11 freerdp3-x11 gnome-connections gnome-remote-desktop krdc rdesktop "
        "remmina tigervnc-viewer vinagre x2goclient xfreerdp xrdp"
    ),
}


@dataclass(frozen=True)
class PackagesOptions(Options):
    """Options of `datasets/make_packages.py`."""

    output: str = option(help="file of JSON lines to write, or the one that was indexed")
    index: Optional[str] = option(
        None, help="an index of --output: print how many names are first for themselves, and answers to 20 queries"
    )
    check: int = option(100, help="names that are searched for with --index", minimum=1)
    groups: int = option(
        0, help="with --index: search for --check beginnings of summaries, print groups of nearly the same descriptions"
    )
    seed: int = option(7, help="draws the names", minimum=0)


def packages() -> Iterator[dict[str, Any]]:
    """Yield the available packages, each name once."""
    if shutil.which("apt-cache") is None:
        raise RankerError("apt-cache: not found; run this on Debian or Ubuntu, after apt-get update")
    # Where apt is set to do without translations, its cache leaves out the long descriptions, too.
    command = ["apt-cache", "-o", "Acquire::Languages=en", "search", "--full", "--names-only", "."]
    listed = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    seen = set()
    for block in listed.split("\n\n"):
        values, last = dict[str, str](), ""
        for line in block.splitlines():
            if line[:1].isspace():
                values[last] += f"\n{line.strip()}"
            else:
                last, _, values[last] = line.partition(": ")
        name, (summary, *lines) = (
            values.get("Package"),
            values.get("Description-en", values.get("Description", "")).split("\n"),
        )
        if name and summary and name not in seen:
            seen.add(name)
            description = " ".join(line for line in lines if line != ".") or summary
            row = {"id": name, "name": name, "summary": summary, "description": description}
            yield {**row, "section": values.get("Section", ""), "size": int(values.get("Installed-Size", 0))}


def run(options: PackagesOptions) -> None:
    """Write the packages, or look for their names in an index."""
    if options.index is None:
        with new_file(options.output) as stream:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in packages()]
            stream.writelines(lines)
        print(f"{options.output}: {len(lines):,} packages")
        return
    with open(options.output, encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    if options.groups:
        print_groups(options, rows)
        return
    with SearchEngine.open(options.index) as searcher:
        print_names(options, rows, searcher)
        print_strangers(searcher)


def print_names(options: PackagesOptions, rows: list[dict[str, Any]], searcher: SearchEngine) -> None:
    """Print how many names, of all and of those without a hyphen, are first in the search for themselves."""
    names = [row["name"] for row in rows]
    for what, some in (("names", names), ("names without a hyphen", [name for name in names if "-" not in name])):
        asked = random.Random(options.seed).sample(some, min(options.check, len(some)))
        found = searcher.search_many(asked, 1)
        missed = [name for name, (*own,) in zip(asked, found) if [one.id for one in own] != [name]]
        others = f"; not {', '.join(missed[:10])}" if missed else ""
        by = " and ".join(searcher.searchers)
        print(f"{len(asked) - len(missed):,} of {len(asked):,} {what} are first for themselves by {by}{others}")


def print_strangers(searcher: SearchEngine) -> None:
    """Print how many queries of people who do not know the names have an answer first, and in the first five."""
    places = []
    for query, wanted in STRANGERS.items():
        ids = [one.id for one in searcher.search(query)]
        places.append(next((place for place, id in enumerate(ids, start=1) if id in wanted.split()), 99))
        print(f"  {query}: {places[-1] if places[-1] < 99 else 'none'} ({', '.join(ids[:5])})")
    first, five = (sum(place <= most for place in places) for most in (1, 5))
    print(f"{first} of {len(places)} queries of strangers have an answer first, {five} in the first five")


def print_groups(options: PackagesOptions, rows: list[dict[str, Any]]) -> None:
    """Print groups of nearly the same descriptions, for people to look at, and how long searches took."""
    draw, texts = random.Random(options.seed), {row["id"]: row["description"] for row in rows}
    queries = [" ".join(row["summary"].split()[:4]) for row in draw.sample(rows, min(options.check, len(rows)))]
    with SearchEngine.open(str(options.index)) as searcher:
        for group_by in (None, CONTENT):
            began = time.process_time()
            found = [result for query in queries for result in searcher.search(query, group_by=group_by)]
            took = 1000 * (time.process_time() - began) / len(queries)
            groups = {one.id: one.similar for one in found if one.similar}
            similar = sum(bool(one.similar) for one in found)
            print(f"group_by {group_by}: {took:.1f} ms; {similar:,} of {len(found):,} results have similar ones")
    for id in draw.sample(sorted(groups), min(options.groups, len(groups))):
        other = draw.choice(groups[id])
        print(f"\n{id}: {texts[id]}\n{other} (of {len(groups[id])}): {texts[other]}")


main = main_of(run, PackagesOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
