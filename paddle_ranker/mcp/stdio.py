"""Let an assistant on this machine search an index (Model Context Protocol over standard input and output).

paddle-ranker mcp --index index --ranker checkpoint/best
paddle-ranker mcp --index index --url "https://shop.example/{sku}"
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.errors import package_for
from paddle_ranker.interrupts import SIGNALS
from paddle_ranker.mcp.options import LinkOptions
from paddle_ranker.model.model_options import HeadOptions, TokenizerOptions
from paddle_ranker.options import main_of, note, option, redeclare
from paddle_ranker.options.declare import FETCHED, fields_of
from paddle_ranker.scoring.scoring_options import EngineOptions
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.slots.index_options import IndexSlotOptions
from paddle_ranker.serving.slots.slot_kinds import SLOTS, fit_models, serve_options, served_by, with_found_models
from paddle_ranker.serving.slots.tower_options import TowerSlotOptions


@dataclass(frozen=True)
class StdioOptions(LinkOptions, HeadOptions, TokenizerOptions, EngineOptions):
    """Options of `paddle-ranker mcp`: those of a server that are about the index, its models and its answers."""

    index: Path = option(help="an index folder, as index build makes it", addresses=FETCHED)  # noqa: RUF009
    model: Optional[Path] = redeclare(ServeConfig, "model", either=False)  # noqa: RUF009
    tower: Optional[Path] = redeclare(  # noqa: RUF009
        TowerSlotOptions, "tower", either=False, help="the tower, of an index without its own"
    )
    max_seq_length: Optional[int] = redeclare(ServeConfig, "max_seq_length")
    fusion: str = redeclare(IndexSlotOptions, "fusion")
    weights: str = redeclare(IndexSlotOptions, "weights")
    ef: Optional[int] = redeclare(IndexSlotOptions, "ef")
    nprobe: Optional[int] = redeclare(IndexSlotOptions, "nprobe")
    synonyms: Optional[Path] = redeclare(IndexSlotOptions, "synonyms")  # noqa: RUF009
    deadline_seconds: float = redeclare(IndexSlotOptions, "deadline_seconds", help="deadline in seconds of a call")

    def config(self) -> ServeConfig:
        """Return the options as those of a server, of which only the slots are made."""
        SLOTS.load_plugins()
        kind = serve_options()
        names = {field.name for field in dataclasses.fields(kind)} - {"url"}  # a server's --url needs --mcp
        return kind(**{field.name: getattr(self, field.name) for field in fields_of(type(self)) if field.name in names})


def mcp(options: StdioOptions) -> int:
    """Answer until the assistant closes standard input. Return the exit status."""
    from paddle_ranker.mcp.protocol import NEEDED
    from paddle_ranker.serving.process.server import require_packages

    config = with_found_models(options.config())
    with package_for(*NEEDED):
        importlib.import_module("mcp.server.stdio")
    require_packages()
    if sys.stdin.isatty():
        note("waiting for messages of an assistant, which starts this command itself: see docs/mcp.md")
    runtime.prepare_command(options.cpu_threads)
    if any(kind.needs_paddle(config) for kind in served_by(config).values()):
        with suppress(ImportError):
            importlib.import_module("paddle")  # here, because it takes signals, which only this thread can take back
    asyncio.run(_answer(config, options.url))
    return 0


async def _answer(config: ServeConfig, url: Optional[str]) -> None:
    from mcp.server.stdio import stdio_server

    from paddle_ranker.mcp.protocol import make_server
    from paddle_ranker.mcp.tools import SearchTools, ToolCall
    from paddle_ranker.serving.core.logs import JsonLog, routed_logging
    from paddle_ranker.serving.core.metrics import Metrics
    from paddle_ranker.serving.slots.reload import Reloader
    from paddle_ranker.serving.slots.slots import Slots

    for number in SIGNALS:  # nothing is written that could be left half; a thread waits for standard input
        asyncio.get_running_loop().add_signal_handler(number, os._exit, 128 + number)
    log = JsonLog()
    slots = Slots({name: kind.make(config) for name, kind in served_by(config).items()})
    reloader = Reloader(slots, Metrics(), log, partial(fit_models, config))
    # From here on, what libraries print goes to standard error, since standard output has the protocol's messages.
    with routed_logging(log):
        async with stdio_server() as (incoming, outgoing):
            await reloader.load()
            server = make_server(SearchTools(slots, url), lambda request: ToolCall())
            await server.run(incoming, outgoing, server.create_initialization_options())
            await reloader.close(1.0)
    log.close()


main = main_of(mcp, StdioOptions, __doc__)
