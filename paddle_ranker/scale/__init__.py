"""Work and services on clusters of Ray, and searches of shards on other machines.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. It plugs in by `commands.py`:

    COMMANDS    deploy: replicas on Ray Serve                     (`deploy.py`, `releases.py`, `ray_serve.py`)
    ON_CLUSTER  what `--ray` does in predict, encode (`offline.py`), mine (`mining.py`), index build (`indexing.py`)

A job's rows become parts (`parts.py`), files in a folder (`folders.py`) that are computed by actors of a cluster
(`cluster.py`) and belong to one version of everything (`identity.py`). A `RemoteCollection` (`remote.py`) is a
`Searchable` whose documents are in shards elsewhere: it calls (`remote_calls.py`) a `ShardService` beside each
(`shard_service.py`), over Ray Serve or another transport.
"""
