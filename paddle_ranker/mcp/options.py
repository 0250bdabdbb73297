"""Options of `search-serve --mcp` and of `paddle-ranker mcp`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.options import Options, option
from paddle_ranker.options.declare import ANY_TEXT
from paddle_ranker.serving.core.server_config import ServeConfig

SLOT = re.compile(r"\{([^{}]+)\}")  # a field in a template
_WEB = ("http://", "https://")


@dataclass(frozen=True)
class LinkOptions(Options):
    """Address of a document in answers to assistants, which they cite."""

    url: Optional[str] = option(
        None,
        help="address of a document in answers to assistants: a field that holds it, or a template of fields, "
        "https://shop.example/{sku} (default: the field url, else the search page of search-serve)",
        addresses=ANY_TEXT,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.url is None:
            return
        slots, rest = SLOT.findall(self.url), SLOT.sub("", self.url)
        is_template = self.url.startswith(_WEB)
        if "{" in rest or "}" in rest or not self.url or (slots and not is_template):
            problem = "is neither a field nor a template of an address, such as https://shop.example/{sku}"
            raise UsageError(f"--url {quoted(self.url)}: {problem}")
        if is_template and not slots:
            raise UsageError(f"--url {self.url}: would be the address of every document; put a field into it, {{id}}")


@dataclass(frozen=True)
class AssistantOptions(LinkOptions):
    """Options of a server that assistants search."""

    mcp: bool = option(False, help="answer assistants at /mcp (Model Context Protocol): search and fetch, read-only")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mcp and getattr(self, "index", None) is None:
            raise UsageError("--mcp is about an index: name one with --index")
        if self.url is not None and not self.mcp:
            raise UsageError("--url is about answers to assistants: add --mcp, or leave it out")


def assistant_options(config: ServeConfig) -> AssistantOptions:
    """Return a server's options for assistants, or the defaults if its configuration has none."""
    return config if isinstance(config, AssistantOptions) else AssistantOptions()
