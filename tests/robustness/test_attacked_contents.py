"""A good request beside a content that costs much, in small; `attacked_contents` tries all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkout import ONCE
from tests.robustness.attacked_contents import ContentOptions, _Server, attacked, write_models
from tests.robustness.content_bombs import bombs
from tests.started import post, started_server

pytestmark = pytest.mark.server


@ONCE
def test_a_good_request_is_answered_beside_tables_that_cost_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = ContentOptions(seconds=2.0, most_seconds=5.0, most_work=10.0)  # of a busy machine
    model, *more = write_models(tmp_path, "tables")
    with started_server(Path(model), tmp_path / "run", *more) as (started, (port, *_)):
        server = _Server(started, port, has_index=False)
        for name in ("tables, many numbers", "tables, many dates"):
            began = server.processor_seconds()
            assert post(port, bombs()[name].path, bombs()[name].body())[0] == 200  # 504 before
            used = server.processor_seconds() - began
            assert used < 8, (name, used)
        row, problems = attacked(server, bombs()[name], 2, options)
        assert not problems, (row, problems)
