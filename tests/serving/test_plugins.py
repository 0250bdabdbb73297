"""A served model and a protocol that a file of its own adds, without touching the package."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from paddle_ranker.serving.clients import RerankClient
from tests.conftest import REPOSITORY
from tests.export_cases import write_case
from tests.serving.test_server import SECONDS, Server
from tests.started import get, post, started

pytestmark = pytest.mark.server

PLUGIN = """
import asyncio, json, time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from starlette.responses import JSONResponse
from starlette.routing import Route

from paddle_ranker.errors import CheckpointError
from paddle_ranker.options import Options, option
from paddle_ranker.serving.core.model_slot import ModelSlot
from paddle_ranker.serving.http.endpoints import ENDPOINTS, Endpoint
from paddle_ranker.serving.process.protocols import PROTOCOLS, PortProtocol, ProtocolHandler


@dataclass(frozen=True)
class WordOptions(Options):
    word_list: Optional[str] = option(None, help="a file of words, counted at POST /v1/words")
    words: int = option(3, help="words of a request", minimum=1)


class Words:
    def __init__(self, path):
        if not Path(path).is_file():
            raise CheckpointError(f"{path}: is no file of words")
        self.name, self.known, self.batcher = Path(path).name, set(Path(path).read_text().split()), self
        self.queued_pairs = 0

    def close(self, seconds=None):
        return True


class WordModel(Endpoint):
    name, what, option, options, limits = "words", "list of words", "word_list", WordOptions, ("words",)
    paths = {"/v1/words": "words"}

    def needs_paddle(self, config):
        return False

    def service(self, config):
        return ModelSlot(config.limits, self.what)

    def load(self, config, observer):
        return Words(self.folder(config))

    def routes(self, service, config):
        async def count(request):
            words = (await request.json())["words"][: self.given(config).words]
            return JSONResponse({"known": sum(word in service.model.known for word in words)})

        return [Route("/v1/words", count, methods=["POST"])]

    def info(self, service, config):
        return {"model_id": service.name}

    def describe(self):
        return {"/v1/words": {"post": {"summary": "Count words", "responses": {}}}}, {}


class Echo(asyncio.Protocol):
    def __init__(self, connections):
        self.connections = connections

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data.upper())

    def connection_lost(self, error):
        self.connections.discard(self)

    def check(self, now):
        pass

    def shutdown(self):
        self.transport.close()

    abort = shutdown


async def start_echo(context):
    return ProtocolHandler(lambda: Echo(context.connections))


ENDPOINTS.add("words", WordModel())
PROTOCOLS.add("echo", PortProtocol("echo", b"PRINT", start_echo))  # gRPC begins with "PRI "
"""


def test_a_file_adds_a_served_model_and_a_protocol(tmp_path: Path) -> None:
    (tmp_path / "more_serving.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "list.txt").write_text("red green\nblue", encoding="utf-8")
    model = write_case(tmp_path / "ranker")
    command = [sys.executable, "-m", "paddle_ranker", "serve", "--model", str(model), "--port", "0", "--words", "2"]
    command += ["--word_list", str(tmp_path / "list.txt")]
    paths = f"{REPOSITORY}:{tmp_path}"
    with started(command, tmp_path / "run", PYTHONPATH=paths, PADDLE_RANKER_PLUGINS="more_serving") as process:
        process.until(lambda: "serving " in process.output)
        server = Server(process)
        assert "(baidu_std, HTTP, gRPC, echo)" in process.output and f"{tmp_path / 'list.txt'} on" in process.output
        assert post(server.port, "/v1/words", {"words": ["red", "grey", "blue"]}) == (200, {"known": 1})
        assert get(server.port, "/ready")[1]["model"] == "ranker and list.txt"
        info = get(server.port, "/info")[1]
        assert info["words"] == {"model_id": "list.txt"} and info["limits"]["words"] == 2
        assert info["protocols"] == ["baidu_std", "http", "grpc", "echo"]
        assert "/v1/words" in get(server.port, "/openapi.json")[1]["paths"]
        assert server.figure('ranker_requests_total{outcome="ok",protocol="words"}') == 1
        with server.connect(b"PRINT this") as connection:
            assert connection.recv(100) == b"PRINT THIS"
            connection.shutdown(socket.SHUT_WR)
        with RerankClient("127.0.0.1", server.port, timeout=SECONDS) as client:
            assert len(client.rank("a", ["b", "c"])) == 2
        process.process.terminate()
        assert process.process.wait(SECONDS) == 0


@pytest.mark.parametrize("given", [["--word_list", "none.txt"], []])
def test_without_the_model_it_is_an_error_that_names_the_options(tmp_path: Path, given: list[str]) -> None:
    (tmp_path / "more_serving.py").write_text(PLUGIN, encoding="utf-8")
    command = [sys.executable, "-m", "paddle_ranker", "serve", "--port", "0", *given]
    paths = f"{REPOSITORY}:{tmp_path}"
    with started(command, tmp_path / "run", PYTHONPATH=paths, PADDLE_RANKER_PLUGINS="more_serving") as process:
        assert process.process.wait(SECONDS) == 2
        assert "--word_list" in process.output
