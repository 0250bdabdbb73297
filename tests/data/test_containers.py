"""Archives and mails: each member is read as a file of a folder would be, within bounds."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import mailbox
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Union

import pytest

from paddle_ranker.commands import index
from paddle_ranker.data.files import containers
from paddle_ranker.data.files.containers import Member, members_in, unpack
from paddle_ranker.errors import DataError
from paddle_ranker.notebook import Index
from tests.conftest import Call

pytestmark = pytest.mark.unit
CSV = b"Item;Price\nTea;2,50\nCoffee;3,00\n"


def mail(subject: str, text: str, *files: tuple[str, bytes], html: str = "") -> EmailMessage:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, "Ann <ann@example.org>", "bob@example.org"
    message["Date"] = "Mon, 03 Jun 2024 10:00:00 +0200"
    message.set_content(html or text, subtype="html" if html else "plain")
    for name, data in files:
        message.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
    return message


def archive(files: Mapping[str, Union[bytes, str]]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in files.items():
            target.writestr(name, data)
    return stream.getvalue()


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


def tar(files: Mapping[str, Union[bytes, None]], kind: str = "") -> bytes:
    """Return an archive; a name without bytes is a link to a file outside."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as target:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = (tarfile.SYMTYPE, "/etc/passwd") if data is None else (tarfile.REGTYPE, "")
            entry.size = len(data or b"")
            target.addfile(entry, io.BytesIO(data or b""))
    return COMPRESSED[kind](stream.getvalue())


def members(tmp_path: Path, name: str, data: bytes) -> dict[str, Member]:
    path, folder = tmp_path / name, tmp_path / "members"
    path.write_bytes(data)
    folder.mkdir()
    unpack(path, folder, name)
    return {member.name: member for member in members_in(folder)}


def test_members_of_all_kinds_become_documents(tmp_path: Path) -> None:
    """Through the reader's process, to a search."""
    inner = mail("Prices", "See the table.", ("prices.csv", CSV), ("../../up.txt", b"Climbing words."))
    outer = mail("Forwarded", "", html="<p>See <b>below</b><script>no</script></p>")
    outer.add_attachment(inner)
    library = tmp_path / "library"
    library.mkdir()
    (library / "m.eml").write_bytes(outer.as_bytes())
    (library / "all.zip").write_bytes(
        archive(
            {"notes.txt": "Deep words.", "sub/in.zip": archive({"x.md": "Deeper."}), ".hidden": "no", "a.exe": "MZ"}
        )
    )
    box = mailbox.mbox(str(library / "box.mbox"))
    for number in range(3):
        box.add(mail(f"Number {number}", f"Body {number}"))
    box.close()
    (library / "empty.eml").write_bytes(b"\n\n")
    with Index.build(library, tmp_path / "index") as index:
        found = {document.id: document for document in index._collection.snapshot().documents()}
        assert {*found} == {
            "m.eml", "m.eml/attachment-1.eml", "m.eml/attachment-1.eml/prices.csv", "m.eml/attachment-1.eml/up.txt",
            "all.zip/notes.txt", "all.zip/sub/in.zip/x.md", "box.mbox/1", "box.mbox/2", "box.mbox/3",
        }  # fmt: skip
        assert found["m.eml"].text == "See below" and found["m.eml"].fields["title"] == "Forwarded"
        table = found["m.eml/attachment-1.eml/prices.csv"]
        assert "Coffee | 3,00" in table.text and table.fields["title"] == "prices"
        assert index.search("coffee", where="date>=2024-06-03 and from=Ann <ann@example.org>")[0].id == table.id
        assert index.search("body", where="file=box.mbox/2")[0].fields["date"] == "2024-06-03T08:00:00+00:00"


@pytest.mark.parametrize("name", ["..", ".", "a\0b", "b" * 300])
def test_names_of_attachments_name_nothing_outside(name: str, tmp_path: Path) -> None:
    found = members(tmp_path, "m.eml", mail("Hi", "Words.", (name, b"own")).as_bytes(policy=policy.default))
    (file,) = (member.path for member in found.values() if member.path is not None)
    assert file.read_bytes() == b"own" and file.parent.parent == tmp_path / "members"


def test_what_is_said_of_members_names_no_temporary_folder(tmp_path: Path, call: Call) -> None:
    library, report = tmp_path / "library", tmp_path / "report.tsv"
    library.mkdir()
    files = {"prices.csv": CSV, "broken.docx": b"PK, and nothing"}
    (library / "m.eml").write_bytes(mail("Prices", "See below.", ("all.zip", archive(files))).as_bytes())
    given = (
        "build",
        "--corpus",
        library,
        "--output",
        tmp_path / "index",
        "--report",
        report,
        "--skip_bad_rows",
        "true",
    )
    status, printed, errors = call(index.main, *given)
    assert status == 0, errors
    said = printed + errors + report.read_text("utf-8")
    assert re.search(r"table:table +prices\.csv\n", printed)
    assert "m.eml/all.zip/broken.docx" in said and "document is 'broken.docx', expected a text document" in said
    assert "paddle_ranker_" not in said


@pytest.mark.parametrize(
    ("name", "kind"), [("a.tar", ""), ("a.tgz", "gz"), ("A.TAR.GZ", "gz"), ("a.tar.bz2", "bz2"), ("a.tar.xz", "xz")]
)
def test_tars_of_all_compressions_are_read_and_no_link_is_followed(name: str, kind: str, tmp_path: Path) -> None:
    files = {"./a/x.txt": b"words", "in.zip": archive({"y.md": "deep"}), "etc": None, "._h": b""}
    found = members(tmp_path, name, tar(files, kind))
    assert {*found} == {"a/x.txt", "in.zip/y.md", "etc"} and "link" in found["etc"].reason
    for shown, words in (("a/x.txt", b"words"), ("in.zip/y.md", b"deep")):
        path = found[shown].path
        assert path is not None and path.read_bytes() == words and path.parent.parent == tmp_path / "members"
    cut = tar({"a.txt": bytes(range(256)) * 4000}, kind)
    (tmp_path / "cut").mkdir()
    with pytest.raises(DataError, match="cannot be unpacked"):
        members(tmp_path / "cut", name, cut[: len(cut) // 2])


def test_what_is_within_too_many_others_or_encrypted_is_named(tmp_path: Path) -> None:
    data = archive({"deep.txt": "x"})
    for level in range(4):
        data = archive({f"{level}.zip": data, "beside.txt": "y"})
    found = members(tmp_path, "a.zip", data)
    assert [name for name, member in found.items() if member.reason] == ["3.zip/2.zip/1.zip"]
    assert len([name for name in found if name.endswith("beside.txt")]) == 3
    locked = bytearray(archive({"a.txt": "x"}))
    locked[6] |= 1
    locked[locked.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "locked").mkdir()
    assert members(tmp_path / "locked", "b.zip", bytes(locked))["a.txt"].reason == "it is encrypted"


def test_files_within_others_share_the_bytes_that_all_may_have(tmp_path: Path) -> None:
    found = members(tmp_path, "a.zip", archive({f"{n}.zip": archive({"a.txt": bytes(30 << 20)}) for n in range(3)}))
    assert {name: "far larger unpacked" in member.reason for name, member in found.items()} == {
        "0.zip/a.txt": False, "1.zip/a.txt": False, "2.zip": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.zip", b"PK\3\4 nothing", "cannot be unpacked"),
        ("a.zip", archive({"a.txt": bytes(70 << 20)}), "bytes unpacked, more than the limit"),
        ("a.tgz", tar({"a.txt": bytes(70 << 20)}, "gz"), "far larger unpacked"),
    ],
)
def test_a_file_far_larger_than_packed_is_refused(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        members(tmp_path, name, data)


def test_a_long_mail_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_MOST_MAIL", 1000)
    found = members(tmp_path, "a.eml", mail("Long", "word " * 1000).as_bytes())
    assert "more than 1,000 bytes" in found[""].reason
