"""Towers and rankers behind URLs: services of OpenAI's embeddings and of rerank protocols, in place of open models.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. It plugs in by `services.py`:

    MODEL_SERVICES     http: `--tower http://HOST/v1#MODEL`, `--ranker http://HOST/v1/rerank#MODEL`

`tower.py` has the tower, with what an index keeps of it; `ranker.py` the ranker; `service.py` what both do: keys,
limits of texts, and how long a service that fails is left alone. The clients of `serving/clients/` send the requests.
"""
