"""The conformance table: messages by hand, verdicts, and the clients of this environment."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.serving.paddle.messages import messages
from tests.robustness import conformance
from tests.robustness.clients.messages import (
    fields,
    general_request,
    general_scores,
    pipeline_answer,
    pipeline_request,
    varint,
)
from tests.robustness.conformance import Row, judge

unit, server = pytest.mark.unit, pytest.mark.server


@unit
def test_protobuf_by_hand_is_protobuf() -> None:
    assert varint(300) == b"\xac\x02" and list(fields(b"\x08\x96\x01\x12\x01a")) == [(1, 150), (2, b"a")]
    tensors = [{"int64_data": [1, 300, -1], "elem_type": 0, "shape": [1, 3], "name": "input_ids", "alias_name": "x"}]
    request = messages().Request.FromString(general_request(tensors))
    [tensor] = request.tensor
    assert list(tensor.int64_data) == [1, 300, -1] and list(tensor.shape) == [1, 3]
    assert (tensor.name, tensor.alias_name, tensor.elem_type) == ("input_ids", "x", 0)
    assert list(request.fetch_var_names) == ["sigmoid_2.tmp_0"]
    response = messages().Response()
    response.outputs.add(engine_name="x").tensor.add(float_data=[0.5, 0.25], name="predict", elem_type=1)
    assert general_scores(response.SerializeToString()) == [0.5, 0.25]
    pipeline = messages().PipelineRequest.FromString(pipeline_request(["a", "b"]))
    assert (list(pipeline.key), list(pipeline.value)) == (["0", "1"], ["a", "b"])
    answer = messages().PipelineResponse(key=["predict"], value=["[[0.5]]"])
    assert pipeline_answer(answer.SerializeToString()) == "[[0.5]]"
    for read, wrong in ((general_scores, messages().Response(err_no=5)), (general_scores, messages().Response()),
                        (pipeline_answer, messages().PipelineResponse(err_no=5))):  # fmt: skip
        with pytest.raises(ValueError, match=r"err_no 5|no scores"):
            read(wrong.SerializeToString())


@unit
def test_a_client_is_judged() -> None:
    expected = [np.array([0.5, 0.25]), np.array([0.1])]
    row = Row("x", "HTTP")
    judge(row, {"version": "1", "probabilities": [[0.5, 0.250005], [0.1]]}, expected)
    assert row.ok and row.pairs == 3 and row.difference == pytest.approx(5e-6)
    for found, problem in (([[0.5, 0.2501], [0.1]], "off by more"), ([[0.5], [0.1]], r"\[1, 1\] answers"),
                           ([[0.5, math.nan], [0.1]], "off by more")):  # fmt: skip
        wrong = Row("x", "HTTP")
        judge(wrong, {"version": "1", "probabilities": found}, expected)
        assert not wrong.ok
        assert re.search(problem, wrong.problem)
    shown = conformance.shown([row, wrong, Row("y", "gRPC", missing="grpcio: install it")])
    assert [line.split("|")[-2].strip() for line in shown.splitlines()[2:5]] == ["ok", "FAILED", "not installed"]
    assert "y, gRPC: grpcio: install it" in shown


@server
def test_all_clients_of_this_environment_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance.main(["--json", str(tmp_path / "rows.json")]) == 0, capsys.readouterr().out
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))["rows"]
    own = [row for row in rows if row["client"] in ("this project's", "requests", "grpcio, messages by hand")]
    assert len(own) == 15 and all(row["ok"] and row["pairs"] in (18, 22) for row in own)
    assert [row for row in rows if not row["ok"] and not row["missing"]] == []
