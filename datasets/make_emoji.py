"""Write pictures with names in English and Chinese: emoji in three drawing styles, from packages of npm.

python datasets/make_emoji.py --output datasets/emoji
paddle-ranker starter --corpus datasets/emoji/names.txt --picture_size 32 ...
paddle-ranker train-batch-neg --train datasets/emoji/alike.tsv ...
paddle-ranker train-batch-neg --train datasets/emoji/train.tsv ...
paddle-ranker index build --corpus datasets/emoji/documents.jsonl --output emoji --field picture:picture ...
paddle-ranker evaluate-recall --index emoji --queries datasets/emoji/queries.zh.tsv --qrels datasets/emoji/qrels.txt

`train.tsv` has the name, and the name with all keywords, beside pictures of two styles, in each language; `names.txt`
has these texts, and `alike.tsv` both pictures of each name, either way round. The documents have pictures of the third
style, with which nothing was trained. `qrels.unseen.txt` has those whose names are not in `train.tsv` either: one of
five.
The packages are fetched by `npm pack`. The pictures belong to Google, Twitter and Microsoft (Apache-2.0, CC BY 4.0,
MIT), the names to Unicode: they are not for redistribution with this project.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from PIL import Image

from paddle_ranker.errors import RankerError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.storage.atomic import new_folder

# Packages by style, and where each has its pictures.
STYLES = {
    "google": ("emoji-datasource-google@16.0.0", "package/img/google/64/"),
    "twitter": ("emoji-datasource-twitter@16.0.0", "package/img/twitter/64/"),
    "fluent": ("@lobehub/fluent-emoji-3d@1.1.0", "package/assets/"),
}
SEARCHED = "fluent"  # whose pictures are the documents
_NAMES, _LANGUAGES = "cldr-annotations-full@48.2.0", ("en", "zh")
_SIDE = 64
_UNSEEN = 5  # one name in so many is not trained with
_FETCH_SECONDS = 240
_VARIATION = "\ufe0f"


@dataclass(frozen=True)
class EmojiOptions(Options):
    """Options of `datasets/make_emoji.py`."""

    output: str = option("datasets/emoji", help="folder to make")


def fetch(package: str, folder: Path) -> tarfile.TarFile:
    """Fetch a package by npm, and open it."""
    if shutil.which("npm") is None:
        raise RankerError("npm: not found; install Node.js, which has it")
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), package]
    try:
        done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", timeout=_FETCH_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise RankerError(f"{package}: npm cannot fetch it ({str(error.stderr or error)[-200:]}); try again") from error
    return tarfile.open(folder / done.stdout.split()[-1])


def read_names(package: tarfile.TarFile) -> dict[str, dict[str, list[str]]]:
    """Return the name and the keywords of each emoji, by its characters and the language."""
    found = dict[str, dict[str, list[str]]]()
    for language in _LANGUAGES:
        stream = package.extractfile(f"package/annotations/{language}/annotations.json")
        assert stream is not None
        for emoji, own in json.load(stream)["annotations"]["annotations"].items():
            if own.get("tts"):
                names = [*own["tts"], *own.get("default", ())]
                found.setdefault(emoji.replace(_VARIATION, ""), {})[language] = list(dict.fromkeys(names))
    return {emoji: own for emoji, own in found.items() if len(own) == len(_LANGUAGES)}


def read_pictures(package: tarfile.TarFile, begins: str, wanted: Iterable[str]) -> dict[str, bytes]:
    """Return the pictures of emoji by their characters, as PNG files of 64 x 64 pixels."""
    found, names = dict[str, bytes](), {*wanted}
    for member in package:
        path = Path(member.name)
        if not member.isfile() or not member.name.startswith(begins):
            continue
        try:
            emoji = "".join(chr(int(code, 16)) for code in path.stem.split("-")).replace(_VARIATION, "")
        except (ValueError, OverflowError):  # of another file
            continue
        stream = package.extractfile(member) if emoji in names else None
        if stream is not None:
            written = io.BytesIO()
            picture = Image.open(io.BytesIO(stream.read())).convert("RGBA").resize((_SIDE, _SIDE))
            picture.save(written, "PNG")
            found[emoji] = written.getvalue()
    return found


def is_unseen(name: str) -> bool:
    """Return whether a name is not trained with."""
    return hashlib.sha256(name.encode()).digest()[0] % _UNSEEN == 0


def run(options: EmojiOptions) -> None:
    """Fetch the packages, and write the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        names = read_names(fetch(_NAMES, Path(temporary)))
        pictures = {
            style: read_pictures(fetch(package, Path(temporary)), begins, names)
            for style, (package, begins) in STYLES.items()
        }
    both = sorted(set.intersection(*map(set, pictures.values())))
    if not both:
        raise RankerError("the packages have no emoji in common: they have changed; take the versions named here")
    with new_folder(Path(options.output), replace=True) as folder:
        documents, train, alike, learned = list[str](), list[str](), list[str](), list[str]()
        learned_styles = [style for style in STYLES if style != SEARCHED]
        qrels: dict[str, list[str]] = {"": [], ".unseen": []}
        queries: dict[str, list[str]] = {language: [] for language in _LANGUAGES}
        for style in STYLES:
            (folder / style).mkdir()
        for emoji in both:
            id, own = "-".join(f"{ord(one):x}" for one in emoji), names[emoji]
            for style in STYLES:
                (folder / style / f"{id}.png").write_bytes(pictures[style][emoji])
            (english, *more), (chinese, *others) = own["en"], own["zh"]
            text = "; ".join([english, *more, chinese, *others])
            row = {"id": id, "title": english, "zh": chinese, "text": text, "picture": f"{SEARCHED}/{id}.png"}
            documents.append(json.dumps(row, ensure_ascii=False) + "\n")
            line = f"{id} 0 {id} 1\n"
            qrels[""].append(line)
            if is_unseen(english):
                qrels[".unseen"].append(line)
            else:
                # One text of all keywords: alone, keywords such as "face" fit a hundred pictures.
                texts = [text for names_of in own.values() for text in dict.fromkeys([names_of[0], " ".join(names_of)])]
                learned += texts
                train += [f"{text}\t{style}/{id}.png\n" for text in texts for style in learned_styles]
                alike += [f"{one}/{id}.png\t{other}/{id}.png\n" for one, other in permutations(learned_styles)]
            for language in _LANGUAGES:
                queries[language].append(f"{id}\t{own[language][0]}\n")
        (folder / "documents.jsonl").write_text("".join(documents), encoding="utf-8")
        (folder / "train.tsv").write_text("".join(train), encoding="utf-8")
        (folder / "alike.tsv").write_text("".join(alike), encoding="utf-8")
        (folder / "names.txt").write_text("".join(f"{text}\n" for text in learned), encoding="utf-8")
        for language, lines in queries.items():
            (folder / f"queries.{language}.tsv").write_text("".join(lines), encoding="utf-8")
        for name, lines in qrels.items():
            (folder / f"qrels{name}.txt").write_text("".join(lines), encoding="utf-8")
    print(
        f"{options.output}: {len(both):,} emoji, {len(train):,} pairs to train with, {len(qrels['.unseen']):,} unseen"
    )


main = main_of(run, EmojiOptions, __doc__)

if __name__ == "__main__":
    raise SystemExit(main())
