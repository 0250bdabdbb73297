"""The shards of an index, built at once by the processes of a Ray cluster."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from paddle_ranker import runtime
from paddle_ranker.errors import RankerError
from paddle_ranker.options import RayOptions
from paddle_ranker.retrieval.shard_builds import ShardWork, count_done, is_begun
from paddle_ranker.scale.cluster import connected, gpus_for, hide_other_gpus, require_ray
from paddle_ranker.storage.untrusted import Unchecked

if TYPE_CHECKING:
    from tqdm import tqdm

_LOOK_SECONDS = 1.0
_MOST_DEATHS = 10  # of the processes or machines that build a shard, after which that is given up


def build_shards(work: ShardWork, count: int, options: RayOptions, threads: int, progress: tqdm[None]) -> None:
    """Build the shards that are not whole yet, each in a process; `progress` counts documents.

    A shard whose process or machine dies is built by another one. Raises what a build raises.
    """
    assert options.ray is not None
    threads = threads or 1
    work = replace(work, folder=work.folder.absolute(), contents=work.contents.absolute())
    work = replace(work, load=replace(work.load, threads=threads))
    ray = require_ray()
    with connected(options.ray):
        build = ray.remote(num_cpus=threads, num_gpus=gpus_for(work.load), max_retries=_MOST_DEATHS)(_build)
        waiting, under_way = [*range(count)], list[Unchecked]()
        while waiting or under_way:
            while waiting and len(under_way) < (options.actors or count):
                under_way.append(build.remote(work, waiting.pop(0), threads))
            done, under_way = ray.wait(under_way, timeout=_LOOK_SECONDS)
            try:
                ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:
                raise RankerError(f"{work.folder}: not all shards are built; run it again ({error})") from error
            progress.update(count_done(work.folder) - progress.n)


def _build(work: ShardWork, number: int, threads: int) -> None:
    """Build a shard, in a process of the cluster."""
    if not is_begun(work.folder):
        raise RankerError(
            f"{work.folder}: {socket.gethostname()} sees no such build there; name an --output on a file system that "
            "all machines share"
        )
    hide_other_gpus()
    runtime.prepare_command(threads)
    work.build_counted(number)
