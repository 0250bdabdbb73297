"""Keys of somebody else's settings are used, refused, known to be without effect, or said to be unknown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paddle_ranker.errors import CheckpointError
from paddle_ranker.storage.foreign_config import ForeignConfig

pytestmark = pytest.mark.unit


def test_a_key_is_used_or_without_effect_or_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    values = {"size": 3, "cache": True, "scale": 2.0, "nothing": None, "norm": {"kind": "a", "power": 2}}
    path.write_text(json.dumps(values), encoding="utf-8")
    for _ in range(2):
        stated = ForeignConfig.read(path, without_effect=("cache",))
        assert (stated.get("size", 1), stated.get("absent", 7), stated.inner("norm").get("kind")) == (3, 7, "a")
        assert stated.unknown == ["scale", "norm.power"]
        stated.log_unknown()
    assert capsys.readouterr().err == f"note: {path}: unknown here and not used: scale, norm.power\n"
    assert ForeignConfig.read(tmp_path / "none.json").unknown == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"decoder": true}', "decoder is True; only False is done here: take an encoder"),
        ('{"scaling": {"type": "x"}}', "scaling is {'type': 'x'}, which is not done here: take another"),
        ('{"norm": 3}', "norm is a int, expected an object"),
        ("[]", "holds a list, expected an object"),
        ("{", "damaged"),
    ],
)
def test_what_is_not_done_is_refused_by_name(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        stated = ForeignConfig.read(path)
        stated.require("decoder", False, remedy="take an encoder")
        stated.require("scaling", remedy="take another")
        stated.inner("norm")
    assert str(caught.value).startswith(f"{path}: ") and problem in str(caught.value)
