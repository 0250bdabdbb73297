"""The demo world: a made-up Chinese literature search with relevance known by construction."""
