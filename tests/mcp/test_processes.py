"""The commands as assistants meet them: started over standard input and output, and two processes behind one port."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the SDK of the Model Context Protocol needs Python 3.10")

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from paddle_ranker.errors import UsageError
from paddle_ranker.mcp.options import AssistantOptions, LinkOptions
from paddle_ranker.mcp.stdio import main
from paddle_ranker.serving.clients import SearchClient
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE
from tests.conftest import REPOSITORY
from tests.mcp.cases import ERAS, index_of, mode_of
from tests.started import SECONDS, started
from tests.tiny import write_ranker

CALLERS, CALLS, SEARCHES = 4, 10, 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    base = tmp_path_factory.mktemp("mcp")
    return {"--index": str(index_of(base)), "--ranker": str(write_ranker(base / "ranker"))}


def line_of(command: str, folders: dict[str, str], *more: str) -> list[str]:
    options = [text for pair in folders.items() for text in pair]
    return [sys.executable, "-m", "paddle_ranker", command, *options, *more]


@pytest.mark.server
@pytest.mark.parametrize("era", ERAS)
def test_an_assistant_starts_the_command_and_searches(era: str, folders: dict[str, str]) -> None:
    command, *arguments = line_of("mcp", folders, "--url", "https://shop.example/{sku}")
    program = StdioServerParameters(
        command=command, args=arguments, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY
    )

    async def run() -> None:
        async with Client(program, mode=mode_of(era)) as client:
            assert client.protocol_version == era
            assert [tool.name for tool in (await client.list_tools()).tools] == ["search", "fetch", "search_documents"]
            found = (await client.call_tool("search", {"query": "水稻研究"})).structured_content["results"]
            assert len(found) == 4 and found[0]["url"].startswith("https://shop.example/a%2F")
            fetched = (await client.call_tool("fetch", {"id": "d2"})).structured_content
            assert fetched["text"] == "语言文化研究" and fetched["metadata"]["year"] == 2002
            for name, arguments, problem in (
                ("fetch", {"id": "no"}, "no document 'no'"),
                ("search", {"query": "x" * 1_000_000}, "at most 1000 characters"),
            ):
                refused = await client.call_tool(name, arguments)
                assert refused.is_error and problem in refused.content[0].text
            with pytest.raises(MCPError, match="there is no tool"):
                await client.call_tool("add", {})
            calls = (client.call_tool("search", {"query": one}) for one in ("水稻", "老年人") * 10)
            assert not any(answer.is_error for answer in await asyncio.gather(*calls))

    asyncio.run(asyncio.wait_for(run(), SECONDS))


FIRST = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
    b'"clientInfo":{"name":"test","version":"1"}}}\n'
)


@pytest.mark.server
@pytest.mark.parametrize(("number", "status"), [(None, 0), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_ends_with_its_assistant(number: Any, status: int, folders: dict[str, str]) -> None:
    line = line_of("mcp", {"--index": folders["--index"]})
    with subprocess.Popen(line, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"not JSON\n" + FIRST)
        process.stdin.flush()
        answered = b""
        while b'"id":1' not in answered:  # nothing but messages is printed, whatever libraries print
            answered = process.stdout.readline()
            assert answered.startswith(b'{"jsonrpc":"2.0"'), answered
        if number is None:
            process.stdin.close()
        else:
            process.send_signal(number)
        assert process.wait(SECONDS) == status


@pytest.mark.server
def test_two_processes_answer_without_sessions_beside_good_searches(folders: dict[str, str], tmp_path: Path) -> None:
    line = line_of("search-serve", folders, "--mcp", "--workers", "2", "--port", "0", "--log_requests", "false")
    with started(line, tmp_path / "run", PYTHONPATH=str(REPOSITORY), **{API_KEY_VARIABLE: "a-key"}) as server:
        server.until(lambda: "assistants (MCP): " in server.output)
        url, key = server.output.split("assistants (MCP): ")[1].split()[0], {"authorization": "Bearer a-key"}
        seconds = list[float]()

        async def call(era: str) -> None:
            for _ in range(CALLS):  # each over connections of its own, which any process takes
                async with (
                    httpx2.AsyncClient(headers=key, timeout=SECONDS) as http,
                    Client(streamable_http_client(url, http_client=http), mode=mode_of(era)) as client,
                ):
                    found = (await client.call_tool("search", {"query": "水稻研究"})).structured_content["results"]
                    fetched = (await client.call_tool("fetch", {"id": found[0]["id"]})).structured_content
                    assert len(found) == 4 and fetched["title"] == found[0]["title"]

        def search() -> None:
            with SearchClient(url=url.removesuffix("/mcp"), timeout=SECONDS, api_key="a-key") as client:
                for _ in range(SEARCHES):
                    began = time.perf_counter()
                    assert len(client.search("水稻研究")["hits"]) == 4
                    seconds.append(time.perf_counter() - began)

        async def run() -> None:
            async with httpx2.AsyncClient(timeout=SECONDS) as http:
                assert (await http.post(url, json={})).status_code == 401
            searching = asyncio.to_thread(search)
            await asyncio.gather(searching, *(call(ERAS[number % 2]) for number in range(CALLERS)))

        asyncio.run(asyncio.wait_for(run(), SECONDS))
        assert max(seconds) < 10  # a few milliseconds on a machine that has nothing else to do
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SECONDS) == 0


WRONG = [
    (["--index", "index", "--url", "a{b}"], "--url 'a{b}': is neither a field nor a template of an address"),
    (["--index", "index", "--url", "https://x.example/{"], "is neither a field nor a template"),
    (["--index", "index", "--url", ""], "is neither a field nor a template"),
    (["--index", "index", "--url", "https://x.example/"], "would be the address of every document"),
    (["--index", "index", "--port", "8600"], "unknown option --port"),
    ([], "--index"),
]


@pytest.mark.unit
def test_options_that_cannot_be_meant_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, problem in WRONG:
        assert main(arguments) == 2
        assert problem in capsys.readouterr().err, arguments
    assert main(["--index", str(tmp_path)]) == 1 and "index build" in capsys.readouterr().err
    for url in (None, "link", "meta.link", "https://x.example/{id}", "http://x.example/{a}/{b.c}"):
        assert LinkOptions(url=url).url == url
    for options, problem in (({"mcp": True}, "--index"), ({"url": "link"}, "add --mcp")):
        with pytest.raises(UsageError, match=problem):
            AssistantOptions(**options)
