"""A collection of manual pages: pages as text, a package as files that the commands take, and no answer given away."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from paddle_ranker.commands import evaluate_recall, index
from paddle_ranker.data.rows.documents import DocumentFile
from paddle_ranker.data.rows.records import LabeledPair, Pair, read_records
from paddle_ranker.options import DocumentOptions
from tests.checkout import ONCE
from tests.conftest import load_script

pytestmark = [pytest.mark.unit, pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")]

PAGES = 40
PAGE = r"""'\" t
.TH LS 1 2022年9月 "GNU" 用户命令
.SH 名称
ls, dir \- 列出目录
内容
.SH "描述 DESCRIPTION"
列出\fB文件\fP的信息，
按\s-1ASCII\s0 order
sorted.
.TP
\fB\-a\fR, \fB\-\-all\fP
不要忽略
.BR date (1)
.TS
tab(@);
l l.
甲@乙
.TE
"""
MDOC = """.Dd 1999
.Dt FSCK 8
.Os
.Sh 名称
.Nm fsck
.Nd 检查文件系统
.Sh 总览
.Nm
.Op Fl b Ar 块
"""


def test_pages_become_text(make_real: ModuleType) -> None:
    assert make_real.parse_page(PAGE) == (
        ("ls", "dir"),
        "列出目录内容",
        "描述 DESCRIPTION\n列出文件的信息，按ASCII order sorted.\n\n"
        "-a, --all\n       不要忽略 date(1)\n\n       甲  乙",
    )
    assert make_real.parse_page(MDOC) == (("fsck",), "检查文件系统", "总览\nfsck [-b 块]")


def roff(name: str, description: str, *lines: str) -> str:
    return "\n".join([f".TH {name} 1", ".SH 名称", f"{name} \\- {description}", ".SH 描述", *lines]) + "\n"


def _tar(files: dict[str, bytes], links: Sequence[tuple[str, str]] = ()) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, target in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return stream.getvalue()


def make_deb(path: Path, pages: dict[str, str], links: Sequence[tuple[str, str]] = ()) -> Path:
    """Write a package as Debian's are: an ar archive of two archives of tar."""
    man = "./usr/share/man"
    data = {f"{man}/{name}.gz": gzip.compress(source.encode()) for name, source in pages.items()}
    data["./usr/share/doc/manpages-zh/copyright"] = b"License: GFDL-1.2+\n"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": _tar({"./control": b"Package: manpages-zh\nVersion: 9.9\n"}),
        "data.tar.xz": _tar(data, [(f"{man}/{name}.gz", target) for name, target in links]),
    }
    content = b"!<arch>\n"
    for name, member in members.items():
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(member):<10}`\n".encode() + member
        content += b"\n" * (len(member) % 2)
    path.write_bytes(content)
    return path


def made_up_pages() -> dict[str, str]:
    """Return pages in both scripts, whose texts repeat their descriptions, and pages of all other sorts."""
    pages = {}
    for number in range(PAGES):
        what = chr(0x4E00 + 7 * number) + chr(0x5000 + 11 * number)
        for script, said, more in (
            ("CN", f"显示{what}的全部内容", f"这个程序处理{what}，按行输出全部"),
            ("TW", f"顯示{what}的全部內容", f"這個程式處理{what}，按行輸出全部"),
        ):
            pages[f"zh_{script}/man1/p{number}.1"] = roff(f"p{number}", said, said, more, f"见 {what}。")
    pages["zh_CN/man1/same.1"] = pages["zh_CN/man1/p1.1"].replace("p1", "same")  # the same text
    description = "显示一倀的全部内容"  # p0's
    pages["zh_CN/man8/twin.8"] = roff("twin", description, "另一个有同样描述的程序，处理一倀")
    pages["zh_CN/man1/so.1"] = ".so man1/p1.1\n"
    pages["zh_CN/man1/en.1"] = roff("en", "show all contents", "this page was never translated into another language")
    return pages


@pytest.fixture(scope="module")
def make_real() -> ModuleType:
    return load_script("datasets/make_real.py")


@pytest.fixture(scope="module")
def made(make_real: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    deb = make_deb(folder / "manpages.deb", made_up_pages(), [("zh_CN/man1/link.1", "p2.1.gz")])
    assert make_real.main(["--package", str(deb), "--script", "both", "--output", str(folder / "both")]) == 0
    return folder


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@ONCE
def test_each_page_is_there_once(made: Path) -> None:
    ids = [str(row["_id"]) for row in rows(made / "both" / "beir" / "corpus.jsonl")]
    assert sorted(ids) == sorted([*(f"p{n}.1{end}" for n in range(PAGES) for end in ("", ".zh_TW")), "twin.8"])
    first = next(row for row in rows(made / "both" / "pages.jsonl") if row["id"] == "p0.1.zh_TW")
    assert str(first["text"]).startswith("p0(1) - 顯示一倀的全部內容\n\n描述\n")
    assert (first["name"], first["section"], first["script"]) == ("p0", "1", "traditional")
    assert (made / "both" / "LICENSE").read_text() == "License: GFDL-1.2+\n"
    assert "manpages-zh 9.9" in (made / "both" / "README.md").read_text()


@ONCE
def test_no_answer_is_given_away(made: Path) -> None:
    texts = {row["_id"]: str(row["text"]) for row in rows(made / "both" / "beir" / "corpus.jsonl")}
    queries = {row["_id"]: str(row["text"]) for row in rows(made / "both" / "beir" / "queries.jsonl")}
    where: dict[str, set[str]] = {}
    for split in ("train", "dev", "test"):
        lines = (made / "both" / "beir" / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]
        assert lines
        for query, document, label in (line.split("\t") for line in lines):
            assert label == "1" and queries[query] not in texts[document]
            where.setdefault(document.replace(".zh_TW", ""), set()).add(split)
            where.setdefault(query, set()).add(split)
    assert len(queries) == 80 and all(len(found) == 1 for found in where.values())  # in both scripts in one split
    assert where["p0.1"] == where["twin.8"]  # one description
    answers = [line.split("\t") for split in where["twin.8"]
               for line in (made / "both" / "beir" / "qrels" / f"{split}.tsv").read_text().splitlines()]  # fmt: skip
    asked = next(id for id, text in queries.items() if text == "显示一倀的全部内容")
    assert {document for query, document, _ in answers if query == asked} == {"p0.1", "p0.1.zh_TW", "twin.8"}


def test_the_commands_take_it_and_training_pairs_are_of_other_pages(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, built = made / "both", str(tmp_path / "index")
    texts = {str(row["text"]): str(row["_id"]) for row in rows(folder / "beir" / "corpus.jsonl")}
    pairs = read_records(str(folder / "train.jsonl"), Pair)
    judged = {split: read_records(str(folder / f"{split}.jsonl"), LabeledPair) for split in ("dev", "test")}
    titles = [{texts[pair.title] for pair in one} for one in (pairs, judged["dev"], judged["test"])]
    assert titles[0] and not (titles[0] & titles[1] or titles[0] & titles[2] or titles[1] & titles[2])
    assert all({pair.label for pair in one} == {0.0, 1.0} for one in judged.values())
    assert index.main(["build", "--corpus", str(folder / "beir" / "corpus.jsonl"), "--output", built]) == 0
    assert len(list(DocumentFile(str(folder / "pages.jsonl"), DocumentOptions()))) == 81
    arguments = ["--index", built, "--beir", str(folder / "beir"), "--split", "test", "--baselines", "false"]
    capsys.readouterr()
    assert evaluate_recall.main(arguments) == 0
    assert "r@5: 1.0000" in capsys.readouterr().out  # what a text and its description share is nowhere else


@ONCE
def test_scripts_are_told_apart(make_real: ModuleType, made: Path, tmp_path: Path) -> None:
    output = ["--package", str(made / "manpages.deb"), "--output", str(tmp_path / "one")]
    assert make_real.main(output) == 0
    assert {row["script"] for row in rows(tmp_path / "one" / "pages.jsonl")} == {"simplified"}
    assert make_real.main([*output, "--script", "traditional", "--force"]) == 0
    assert {row["script"] for row in rows(tmp_path / "one" / "pages.jsonl")} == {"traditional"}


def test_what_cannot_be_read_is_said_in_a_line(
    make_real: ModuleType,
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*arguments: str) -> str:
        assert make_real.main(["--output", str(tmp_path / "made"), *arguments]) == 1
        error = capsys.readouterr().err.strip()
        assert "\n" not in error and not (tmp_path / "made").exists()
        return error

    whole = (made / "manpages.deb").read_bytes()
    for name, content in (("short.deb", whole[: len(whole) // 2]), ("none.deb", b"not a package"), ("empty.deb", b"")):
        (tmp_path / name).write_bytes(content)
        assert "download it again" in fails("--package", str(tmp_path / name))
    assert "No such file" in fails("--package", str(tmp_path / "nowhere.deb"))
    assert "no page has a Chinese description" in fails("--package", str(make_deb(tmp_path / "none.deb", {})))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "no apt-get here" in fails() and "--package" in fails()
    (tmp_path / "bin" / "apt-get").write_text(
        "#!/bin/sh\necho 'E: Unable to locate package manpages-zh' >&2; exit 100\n"
    )
    (tmp_path / "bin" / "apt-get").chmod(0o755)
    assert "Unable to locate package" in fails()
