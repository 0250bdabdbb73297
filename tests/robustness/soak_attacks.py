"""What an attacker sends while others are served: requests that cost more than their size, half ones, abandoned ones.

Each attack returns what the server did wrong, nothing where it held: refused, answered the good part, or closed. They
run in a process of their own, whose work at making them holds up nobody who asks what is right.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Optional

import numpy as np
from PIL import Image

from benchmarks.harness.servers import ServerProcess
from benchmarks.serving_client import http
from tests.robustness.costly_inputs import Attack, attacks
from tests.robustness.soak_traffic import HOST

_PATIENCE = 60.0  # for an answer, on a machine that has much else to do
_REFUSED = (400, 413, 422, 429, 503)
_ASKED = json.dumps({"query": "深度", "documents": ["学习", "水稻"]}).encode()
_HIDDEN = b"POST /admin/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
Attacking = Callable[[int, random.Random], Coroutine[Any, Any, Optional[str]]]


async def _send(port: int, *parts: bytes) -> bytes:
    """Send parts one after another, each in packets of its own, and return all that comes until it is quiet."""
    reader, writer = await asyncio.open_connection(HOST, port)
    answer = b""
    try:
        with suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.02)
        with suppress(ConnectionError, asyncio.TimeoutError):
            answer = await asyncio.wait_for(reader.read(1 << 16), _PATIENCE)
            while more := await asyncio.wait_for(reader.read(1 << 16), 0.3):
                answer += more
    finally:
        writer.close()
    return answer


async def _leave(port: int, data: bytes, seconds: float) -> None:
    """Send, wait for a while, and be gone without a goodbye."""
    _, writer = await asyncio.open_connection(HOST, port)
    with suppress(ConnectionError, asyncio.TimeoutError):
        writer.write(data)
        await asyncio.wait_for(writer.drain(), seconds)
        await asyncio.sleep(seconds)
    writer.transport.abort()


def _statuses(answer: bytes) -> list[int]:
    """Return the status of each HTTP answer among the bytes; that a server goes on (100) is none."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:] if not part.startswith(b"100 ")]


def _wrong(name: str, answer: bytes, expected: tuple[int, ...]) -> Optional[str]:
    statuses = _statuses(answer)
    if len(statuses) == 1 and statuses[0] in expected:
        return None
    return f"{name}: answered {statuses or answer[:60]!r}"


async def upgrade(port: int, dice: random.Random) -> Optional[str]:
    """Ask for another protocol with a body that looks like a request: only the body of the one may be read."""
    protocol = dice.choice(["h2c", "websocket"])
    headers = ["Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAMAAABkAAQAAP__"]
    request = http("/v1/rerank", _ASKED, "application/json", *headers)
    at = request.index(b"\r\n\r\n") + 4
    good = _wrong("upgrade", await _send(port, request[:at], request[at:]), (200,))
    hidden = http("/v1/rerank", _HIDDEN, "application/json", *headers)
    at = hidden.index(b"\r\n\r\n") + 4
    return good or _wrong("a request in a body", await _send(port, hidden[:at], hidden[at:]), (400,))


@functools.lru_cache(None)
def _expensive() -> list[Attack]:
    """Return what goes to the port of HTTP, without what is for an index, which this server does not have."""
    of_an_index = (b"POST /v1/search ", b"POST /v1/documents ")
    return [one for one in attacks() if one.data.startswith(b"POST") and not one.data.startswith(of_an_index)]


async def expensive(port: int, dice: random.Random) -> Optional[str]:
    """Send some KB that unpack to 15 MB of what takes long to read: they are answered or refused."""
    one = dice.choice(_expensive())
    return _wrong(one.name, await _send(port, one.data), (200, *_REFUSED))


async def half_frames(port: int, dice: random.Random) -> Optional[str]:
    """Promise large frames of baidu_std on several connections, send a part and go."""
    frame = b"PRPC" + struct.pack(">II", 15_000_000, 20) + b"\0" * dice.randint(1000, 1_000_000)
    await asyncio.gather(*(_leave(port, frame, 1.0) for _ in range(20)))
    return None


async def packed_frame(port: int, dice: random.Random) -> Optional[str]:
    """Send a frame of baidu_std whose payload unpacks to a thousand times its size."""
    payload = zlib.compress(b"\0" * dice.randint(1_000_000, 200_000_000), 9)
    meta = b"\x0a\x0b\x0a\x01x\x12\x06method\x18\x03\x20\x01"
    await _leave(port, b"PRPC" + struct.pack(">II", len(meta) + len(payload), len(meta)) + meta + payload, 0.5)
    return None


async def abandoned(port: int, dice: random.Random) -> Optional[str]:
    """Ask for many pairs with a body above 64 KiB, and leave."""
    body = json.dumps({"query": "深度", "documents": ["学习" * 400] * 90}).encode()
    await asyncio.gather(*(_leave(port, http("/v1/rerank", body), dice.random() / 5) for _ in range(8)))
    return None


def _image(side: int) -> bytes:
    pixels = np.random.RandomState(side).randint(0, 256, (side // 8, side // 8, 3)).repeat(8, 0).repeat(8, 1)
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


_LARGE = _image(1600)


async def abandoned_images(port: int, dice: random.Random) -> Optional[str]:
    """Send posts with large images, and leave before they are decoded."""
    image = base64.b64encode(_LARGE).decode()
    pair = {"text_1": "a", "image_1": image, "text_2": "b", "image_2": image}
    request = http("/v1/entailment", json.dumps({"pairs": [pair] * dice.randint(1, 8)}).encode())
    await asyncio.gather(*(_leave(port, request, dice.random() / 5) for _ in range(4)))
    return None


async def damaged_image(port: int, dice: random.Random) -> Optional[str]:
    """Send a picture that ends early."""
    image = base64.b64encode(_LARGE[: dice.randint(100, len(_LARGE) - 100)]).decode()
    body = json.dumps({"pairs": [{"text_1": "a", "image_1": image, "text_2": "b", "image_2": None}]}).encode()
    return _wrong("damaged image", await _send(port, http("/v1/entailment", body)), _REFUSED)


async def surrogates(port: int, dice: random.Random) -> Optional[str]:
    """Send half of a character."""
    body = b'{"pairs": [{"text_1": "a\\ud800", "text_2": "b"}]}'
    wrong = _wrong("lone surrogate", await _send(port, http("/v1/entailment", body)), (400, 422))
    body = b'{"query": "a\\udfff", "documents": ["b"]}'
    return wrong or _wrong("lone surrogate", await _send(port, http("/v1/rerank", body)), (400, 422))


ATTACKS: dict[str, Attacking] = {
    attack.__name__: attack
    for attack in (
        upgrade, expensive, half_frames, packed_frame, abandoned, abandoned_images, damaged_image,
        surrogates,
    )
}  # fmt: skip


async def attack(ports: Sequence[int], pid: int, seed: int, wait: float, reload_every: float) -> None:
    """Attack one port or the other, and reload now and then, as long as the parent wants; print JSON lines."""
    dice = random.Random(seed)
    last_reload = time.monotonic()
    while True:
        for name, one in ATTACKS.items():
            print(json.dumps([name, await one(dice.choice(ports), dice)]), flush=True)
            await asyncio.sleep(wait)
        if time.monotonic() - last_reload >= reload_every:
            last_reload = time.monotonic()
            os.kill(pid, signal.SIGHUP)
            print(json.dumps(["reload", None]), flush=True)


class Attacker:
    """The process that attacks. Attributes: `counts` of what was tried, `failures`, what the server did wrong."""

    def __init__(self, server: ServerProcess, seed: int, wait: float, reload_every: float):
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        numbers = map(str, (server.process.pid, seed, wait, reload_every, *server.ports))
        command = [sys.executable, "-m", "tests.robustness.soak_attacks", *numbers]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            name, wrong = json.loads(line)
            self.counts[name] += 1
            if wrong:
                self.failures[wrong] += 1

    def stop(self) -> None:
        """End the attacks; that they had ended by themselves is a failure."""
        if self._process.poll() is not None:
            self.failures[f"the attacker ended with status {self._process.returncode}"] += 1
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def said(self) -> str:
        """Return how often what was tried."""
        return ", ".join(f"{name} {count}" for name, count in self.counts.items())


if __name__ == "__main__":
    pid, seed, wait, reload_every, *ports = sys.argv[1:]
    asyncio.run(attack(list(map(int, ports)), int(pid), int(seed), float(wait), float(reload_every)))
