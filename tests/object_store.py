"""A real S3 server for tests, moto's, in a process of its own; boto3 looks at what is stored."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from paddle_ranker.storage.untrusted import Unchecked
from tests.started import started

_VARIABLES = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


class ObjectStore:
    """A bucket, `s3://bucket`, whose objects are seen by boto3."""

    def __init__(self, endpoint: str):
        boto3 = pytest.importorskip("boto3")
        self.client: Unchecked = boto3.client("s3", endpoint_url=endpoint)
        self.client.create_bucket(Bucket="bucket")

    def put(self, source: Path, key: str) -> str:
        """Store a file, or the files of a folder; return the address."""
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file():
                name = key if path == source else f"{key}/{path.relative_to(source)}"
                self.client.put_object(Bucket="bucket", Key=name, Body=path.read_bytes())
        return f"s3://bucket/{key}"

    def get(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket="bucket", Key=key)["Body"].read()
        return content

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        return sorted(one["Key"] for page in pages for one in page.get("Contents", ()))

    def delete(self, prefix: str) -> None:
        for key in self.keys(prefix):
            self.client.delete_object(Bucket="bucket", Key=key)


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Start a server with an empty bucket; this process and its children use it by their environment meanwhile.

    folder: for the server's output, and for the cache of what is fetched
    """
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**_VARIABLES, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(name, value)
        patch.setenv("PADDLE_RANKER_CACHE", str(folder / "cache"))
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with started(command, folder / "moto") as server:
            server.until(lambda: _answers(port))
            yield ObjectStore(endpoint)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        time.sleep(0.1)
        return True
    return False
