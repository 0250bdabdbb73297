"""Make a collection of recordings: 553 spoken prompts of a telephone exchange with their texts, and music.

python datasets/make_prompts.py --output datasets/prompts
paddle-ranker index build --corpus datasets/prompts/recordings --output prompts
paddle-ranker evaluate-recall --index prompts --queries datasets/prompts/queries.tsv --qrels datasets/prompts/qrels.txt

`queries.tsv` has the text of each prompt, which its recording answers. Tones and silence are in `tones/`, five pieces
of music in `music/`. The packages are fetched by `apt-get download`; the recordings (CC BY-SA 3.0) are not for
redistribution with this project.
"""

from __future__ import annotations

import gzip
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from make_manuals import package_files

from paddle_ranker.options import Options, main_of, option
from paddle_ranker.storage.atomic import new_folder

_PACKAGES = ("asterisk-core-sounds-en-wav", "asterisk-core-sounds-en", "asterisk-moh-opsound-wav")
_PROMPT = re.compile(r"\./usr/share/asterisk/sounds/en_US_f_Allison/(.+\.wav)")
_MUSIC = re.compile(r"\./usr/share/asterisk/moh/([^/]+\.wav)")
_TEXTS = re.compile(r"\./usr/share/doc/asterisk-core-sounds-en/core-sounds-en\.txt\.gz")


@dataclass(frozen=True)
class PromptsOptions(Options):
    """Options of `datasets/make_prompts.py`."""

    output: str = option("datasets/prompts", help="folder to make")


def texts_of(data: bytes) -> dict[str, str]:
    """Return the prompts' texts by the names of their recordings, without remarks in brackets."""
    texts = dict[str, str]()
    for line in gzip.decompress(data).decode("utf-8").splitlines():
        name, colon, text = line.partition(":")
        if colon and not line.startswith(";"):
            texts[f"{name.strip()}.wav"] = re.sub(r"\[.*?\]|\(.*?\)", "", text).strip()
    return texts


def run(options: PromptsOptions) -> None:
    """Write the collection."""
    with tempfile.TemporaryDirectory() as folder:
        files = dict(package_files(_PACKAGES, Path(folder)))
    (texts,) = [texts_of(data) for name, data in files.items() if _TEXTS.fullmatch(name)]
    recordings = {match[1]: data for name, data in files.items() if (match := _PROMPT.fullmatch(name))}
    spoken = sorted(name for name in recordings if texts[name])
    with new_folder(Path(options.output)) as output:
        for name, data in recordings.items():
            path = output / ("recordings" if texts[name] else "tones") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (output / "music").mkdir()
        for name, data in files.items():
            if match := _MUSIC.fullmatch(name):
                (output / "music" / match[1]).write_bytes(data)
        lines = [f"{number}\t{texts[name]}\n" for number, name in enumerate(spoken)]
        (output / "queries.tsv").write_text("".join(lines), encoding="utf-8")
        names_of = dict[str, list[str]]()
        for name in spoken:
            names_of.setdefault(texts[name].lower().strip("."), []).append(name)
        answers = [
            f"{number} 0 {answer} 1\n"
            for number, name in enumerate(spoken)
            for answer in names_of[texts[name].lower().strip(".")]
        ]
        (output / "qrels.txt").write_text("".join(answers), encoding="utf-8")
    print(f"{options.output}: {len(spoken)} prompts, {len(recordings) - len(spoken)} tones and silences")


main = main_of(run, PromptsOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
