"""The Model Context Protocol: assistants (Claude, ChatGPT, editors) search an index by tools that only read.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. It plugs in by `commands.py` (`paddle-ranker mcp`, over standard input and output) and
`plugin.py`:

    ENDPOINTS      POST /mcp of `search-serve --mcp`, over HTTP      (`http.py`)
    SERVE_OPTIONS  --mcp and --url                                   (`options.py`)

A message goes to the server of the official SDK (`protocol.py`), which speaks the protocol's revisions, those with
`initialize` and the stateless one of 2026-07-28. `tools.py`, which knows nothing of the protocol, answers its calls by
the routes of search: an assistant's search has the index, limits, deadline and logs of `POST /v1/search`. Nothing is
kept between two requests, so any worker answers any of them.

The SDK's package has this folder's name: `import mcp` means the SDK, since imports are absolute.
"""
