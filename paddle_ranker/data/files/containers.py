"""Unpack files that hold others: ZIP archives, files in gzip, and mails with their attachments.

for member in unpack(Path("mails.mbox"), folder):
    member.name, member.values    # "1", {"title": "Your order", "text": ..., "from": ...}
    member.name, member.path      # "1/invoice.pdf", a file in `folder`

A member that holds others is unpacked, too. All members together have at most the bytes that an archive of the
file's size may have.
"""

from __future__ import annotations

import gzip
import json
import lzma
import mailbox
import mimetypes
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from datetime import timezone
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, Union

from paddle_ranker.data.files.archives import MOST_MEMBERS, TooLargeError, most_unpacked, open_archive
from paddle_ranker.data.files.html_text import page_of
from paddle_ranker.data.files.reader_pool import SECOND_BYTES, limited
from paddle_ranker.errors import DataError, brief

_TARS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
HOLDERS, GZIP = (".zip", ".eml", ".mbox", *_TARS), ".gz"  # suffixes of files with several members, and with one
_DEEPEST = 3  # how many files within each other are unpacked
_MOST_MAIL = 1 << 26  # bytes of a mail
_BLOCK = 1 << 20
_LIST = "members.jsonl"
_SECONDS, _MEMORY = 60, 2 << 30  # maximum processor time and bytes to unpack a small file
_NONE: Mapping[str, Any] = {}


class Member(NamedTuple):
    """Member of a file that holds others.

    name: its path within the file; "" for a mail that is the file itself
    path: where its content is; None without a file
    values: the values of a mail, or of the mail that has the file as an attachment
    reason: why it could not be read; "" if it could
    """

    name: str
    path: Union[Path, None] = None
    values: Mapping[str, Any] = _NONE
    reason: str = ""


UNPACK = f"{__name__}:unpack_limited"  # task of a `ChildProcess`


def unpack_limited(path: Path, folder: str, name: str) -> None:
    """Call `unpack` with limits of processor time and memory."""
    seconds = _SECONDS + path.stat().st_size / SECOND_BYTES
    with limited(_MEMORY, seconds, seconds):
        unpack(path, Path(folder), name)


def unpack(path: Path, folder: Path, name: str) -> None:
    """Write the members of a file into an empty folder, with a list that `members_in` reads.

    name: name that the user gave the file, whose suffix says what it is

    Raises `DataError` if it cannot be unpacked.
    """
    with open(folder / _LIST, "w", encoding="utf-8") as stream:
        unpacker = _Unpacker(folder, stream, most_unpacked(path.stat().st_size))
        unpacker.unpack(path, name, "", 1)


def members_in(folder: Path) -> Iterator[Member]:
    """Yield the members that `unpack` has written into a folder."""
    with open(folder / _LIST, encoding="utf-8") as stream:
        for line in stream:
            name, file, values, reason = json.loads(line)
            yield Member(name, folder / file if file else None, values, reason)


class _Unpacker:
    """Unpacker of one file.

    Args:
        folder: the folder for the members.
        stream: the list of the members.
        left: how many bytes all members may still have.
    """

    def __init__(self, folder: Path, stream: IO[str], left: int) -> None:
        self._folder, self._stream, self._left = folder, stream, left
        self._count = self._files = 0  # of listed members, and of files that were written

    def unpack(self, path: Path, name: str, inside: str, depth: int) -> None:
        """Unpack a file; `inside` is the path of its members, which ends with a slash or is empty."""
        suffix = Path(name).suffix.lower()
        try:
            if suffix == ".zip":
                self._zip(path, inside, depth)
            elif name.lower().endswith(_TARS):
                self._tar(path, inside, depth)
            elif suffix == GZIP:
                with gzip.open(path) as content:
                    self._keep(f"{inside}{Path(name).stem}", _blocks(content), depth)
            elif suffix == ".mbox":
                self._mails(path, inside, depth)
            else:
                self._mail(path.read_bytes(), inside, depth)
        except TooLargeError as error:
            raise DataError(f"{path}: {error}") from error
        except (
            zipfile.BadZipFile, gzip.BadGzipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError,
            NotImplementedError, RuntimeError,
        ) as error:  # fmt: skip
            raise DataError(f"{path}: cannot be unpacked ({brief(str(error))})") from error

    def _zip(self, path: Path, inside: str, depth: int) -> None:
        with open(path, "rb") as stream, open_archive(stream, path.stat().st_size) as archive:
            for entry in archive.infolist():
                if entry.is_dir() or _is_hidden(entry.filename):
                    continue
                name = f"{inside}{entry.filename}"
                if entry.flag_bits & 1:
                    self._list(name, reason="it is encrypted")
                    continue
                with archive.open(entry) as content:
                    self._keep(name, _blocks(content), depth)

    def _tar(self, path: Path, inside: str, depth: int) -> None:
        with tarfile.open(path, "r|*") as archive:  # one member after the other, since an index could be of any size
            for entry in archive:
                archive.members = []  # type: ignore[attr-defined]  # the archive would keep every entry in memory
                member = entry.name.removeprefix("./")
                if entry.isdir() or _is_hidden(member):
                    continue
                name = f"{inside}{member}"
                content = archive.extractfile(entry) if entry.isfile() else None
                if content is None:
                    self._list(name, reason="it is a link or a device, which is not followed")
                else:
                    self._keep(name, _blocks(content), depth)

    def _mails(self, path: Path, inside: str, depth: int) -> None:
        mails = mailbox.mbox(str(path), create=False)
        try:
            for number, key in enumerate(mails.keys(), start=1):
                with mails.get_file(key) as content:
                    data = content.read(_MOST_MAIL + 1)
                self._mail(data, f"{inside}{number}/", depth)
        finally:
            mails.close()

    def _mail(self, data: bytes, inside: str, depth: int) -> None:
        """List a mail, whose own path is `inside` without the slash, and keep its attachments."""
        name = inside.removesuffix("/")
        if len(data) > _MOST_MAIL:
            self._list(name, reason=f"a mail of more than {_MOST_MAIL:,} bytes")
            return
        message = message_from_bytes(data, policy=policy.default)
        assert isinstance(message, EmailMessage)
        if not message.keys():
            self._list(name, reason="no mail: it has no header")
            return
        values, names = _values_of(message), set[str]()
        of_mail = {key: value for key, value in values.items() if key not in ("title", "text")}
        self._list(name, values=values)
        for number, part in enumerate(message.iter_attachments(), start=1):
            given = Path((part.get_filename() or "").replace("\\", "/")).name
            file = given or f"attachment-{number}{_extension_of(part)}"
            file = file if file not in names else f"{number}-{file}"
            names.add(file)
            if part.get_content_type() == "message/rfc822":
                content = part.get_payload(0).as_bytes()  # type: ignore[union-attr]
                file = file if file.lower().endswith(".eml") else f"{file}.eml"
            else:
                content = part.get_payload(decode=True) or b""
            self._keep(f"{inside}{file}", iter([bytes(content)]), depth, of_mail)

    def _keep(self, name: str, blocks: Iterator[bytes], depth: int, values: Mapping[str, Any] = _NONE) -> None:
        """Write a member to the folder, and list it, or unpack it if it holds others.

        values: fields of the member's document, if it holds no others
        """
        self._files += 1
        file = f"{self._files}/{_file_name(name)}"
        (self._folder / str(self._files)).mkdir()
        with open(self._folder / file, "wb") as stream:
            for block in blocks:
                self._left -= len(block)
                if self._left < 0:
                    raise TooLargeError("far larger unpacked than packed; unpack it, and name the folder")
                stream.write(block)
        if not name.lower().endswith((*HOLDERS, GZIP)):
            self._list(name, file, values)
        elif depth == _DEEPEST:
            self._list(name, reason=f"it is within {_DEEPEST} files that hold others")
        else:
            self._unpack_member(name, file, depth)

    def _unpack_member(self, name: str, file: str, depth: int) -> None:
        try:
            self.unpack(self._folder / file, name, f"{name}/", depth + 1)
        except DataError as error:
            self._list(name, reason=str(error).partition(": ")[2])
        finally:
            (self._folder / file).unlink()

    def _list(self, name: str, file: str = "", values: Mapping[str, Any] = _NONE, reason: str = "") -> None:
        self._count += 1
        if self._count > MOST_MEMBERS:
            raise TooLargeError(f"more than {MOST_MEMBERS:,} members")
        self._stream.write(f"{json.dumps([name, file, dict(values), reason])}\n")


def _blocks(content: Union[IO[bytes], gzip.GzipFile]) -> Iterator[bytes]:
    return iter(lambda: content.read(_BLOCK), b"")


def _file_name(name: str) -> str:
    """Return a name for the file of a member, by which a document without a title is called."""
    file = name.rpartition("/")[2]
    is_name = file.isprintable() and file not in (".", "..") and 0 < len(file.encode("utf-8", "replace")) < 200
    return file if is_name else "member"


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _extension_of(part: EmailMessage) -> str:
    return mimetypes.guess_extension(part.get_content_type()) or ""


def _values_of(message: EmailMessage) -> dict[str, Any]:
    """Return a mail's subject as `title`, its words as `text`, and its sender, recipients and time."""
    body = message.get_body(("plain", "html"))
    text = ""
    if body is not None:
        data = body.get_payload(decode=True)
        charset = body.get_content_charset("utf-8")
        assert isinstance(data, bytes)
        try:
            text = data.decode(charset, "replace")
        except LookupError:
            text = data.decode("utf-8", "replace")
        if body.get_content_type() == "text/html":
            text = "\n".join(page_of(text.encode()).lines)
    values = {
        "title": str(message.get("subject", "")).strip(),
        "text": text.strip(),
        "from": str(message.get("from", "")).strip(),
        "to": str(message.get("to", "")).strip(),
        "date": _date_of(str(message.get("date", ""))),
    }
    return {name: value.encode("utf-8", "replace").decode() for name, value in values.items() if value}


def _date_of(text: str) -> str:
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return ""
    return at.astimezone(timezone.utc).isoformat() if at.tzinfo is not None else at.isoformat()
