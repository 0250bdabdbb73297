"""A plan of machines: its arithmetic by hand, and its extrapolation beside an index that is built."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from paddle_ranker.commands import plan
from paddle_ranker.commands.plan import Costs, PlanOptions, Sizes, measure, plan_of
from paddle_ranker.errors import UsageError
from tests.checkout import ONCE
from tests.conftest import Call
from tests.tiny import write_encoder

pytestmark = pytest.mark.parity
# 0.001 ms a thousand documents by words, 1 ms a doubling by vectors; 100 and 80 bytes a document; 160 ms of models.
COSTS = Costs(Sizes(1000, 100_000, 80_000, 0.001, 5.0), Sizes(4000, 400_000, 320_000, 0.004, 7.0),
              0.25, 2.0, 10.0, 150.0, 1_000_000_000, "faiss")  # fmt: skip


def asked(texts: float, queries: float, latency: float) -> PlanOptions:
    return PlanOptions(texts=texts, queries_per_second=queries, latency_ms=latency)


@pytest.mark.parametrize(
    "options, shards, copies, cores, latency",
    [
        # All in one: 5 + log2(1024) = 15 ms by vectors, 1.024 by words, 10 for models on 16 cores.
        (asked(1_024_000, 6, 100), 1, 1, 2, 26.024),
        # The fewest shards whose machines have the memory: 80 bytes a text in 51.2 GB.
        (asked(4e9, 6, 10_000), 7, 1, 44, 6 + 10 + 571.43 + 5 + 19.124),
        # The fewest shards below 80 ms: 10 for models, 6 for rounds, 64 for a search of 43.5 million texts.
        (asked(4e9, 600, 80), 92, 4, 6_038, 79.886),
    ],
)
def test_plan_is_what_a_hand_computes(
    options: PlanOptions, shards: int, copies: int, cores: int, latency: float
) -> None:
    found = plan_of(COSTS, options)
    assert found.latency_ms == pytest.approx(latency, rel=2e-3)
    assert (found.shards, found.copies) == (shards, copies)
    assert found.cores == pytest.approx(cores, rel=1e-3)
    assert found.vector_core_hours == pytest.approx(options.texts * 2 / 3.6e6)
    assert found.build_hours * found.machines * 16 == pytest.approx(options.texts * 2.25 / 3.6e6)
    assert found.disk_gb == pytest.approx(copies * options.texts * 100 / 1e9)
    assert found.machines * 16 >= found.cores and found.machines * 64 * 0.8 >= found.memory_gb


def test_a_latency_that_models_alone_exceed_is_refused() -> None:
    with pytest.raises(UsageError, match="10 ms on 16 cores"):
        plan_of(COSTS, asked(1e6, 1, 12))


@ONCE
def test_extrapolation_is_what_four_times_as_many_texts_cost(tmp_path: Path, same_process: None) -> None:
    write_encoder(tmp_path / "tower")
    options = replace(asked(1e6, 1, 100), tower=str(tmp_path / "tower"), ranker="none")
    few, many = (measure(options, tmp_path / name, size) for name, size in (("few", 8000), ("many", 32_000)))
    assert few.bytes_of(32_000, "disk") == pytest.approx(many.large.disk, rel=0.1)
    assert few.bytes_of(32_000, "memory") == pytest.approx(many.large.memory, rel=0.1)
    # Of times, which a busy machine doubles, the order of magnitude.
    assert 1 / 3 < few.search_ms(32_000) / (many.large.words_ms + many.large.vectors_ms) < 3
    assert 1 / 3 < few.vector_ms / many.vector_ms < 3


def test_command_plans_without_models(tmp_path: Path, call: Call) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"水稻病害{n}号\n" for n in range(2000)), encoding="utf-8")
    line = ["--texts", 1e6, "--queries_per_second", 10, "--tower", "none", "--ranker", "none"]
    line += ["--corpus", tmp_path / "texts.txt"]
    status, out, _ = call(plan.main, *line, "--format", "json")
    found = json.loads(out)
    assert status == 0 and found["plan"]["vector_core_hours"] == 0 and found["plan"]["shard_texts"] <= 1e6
    assert found["measured"]["large"]["documents"] == 2000 and not any("vector" in one for one in found["assumed"])
    status, out, _ = call(plan.main, *line)
    assert status == 0 and "planned for 1,000,000 texts" in out
    (tmp_path / "texts.txt").write_text("水稻\n", encoding="utf-8")
    status, _, problem = call(plan.main, *line)
    assert status == 1 and "needs 400" in problem
