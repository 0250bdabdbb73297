"""Settings in model folders: each has its type and its range, and none makes opening a folder take memory."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import pytest
from safetensors.numpy import save_file

import multimodal_entailment.kind  # noqa: F401  registers the kind
from paddle_ranker.errors import CheckpointError
from paddle_ranker.metrics.calibration import Calibration, SearchScores
from paddle_ranker.model.exported import open_exported
from paddle_ranker.model.families import family_of
from paddle_ranker.model.model_folder import MODEL, TRAINED_MODEL, load_encoder, load_model
from paddle_ranker.storage.declared import Between, OneOf, read_declared
from paddle_ranker.stored_titles.stored_ranker import SplitRanker
from paddle_ranker.stored_titles.title_states import TitleStates, new_states
from tests import entailment_cases
from tests.checkout import ONCE, SHORT_STEP
from tests.export_cases import Exports, write_case, write_two_members
from tests.model import family_cases, reranker_cases
from tests.stored_titles.test_title_states import split_ranker
from tests.tiny import write_tower

pytestmark = pytest.mark.unit
FREE = ("training", "results", "versions", "fitted_on", "figures", "parity", "int8")  # facts that nothing computes with
VALUES: list[Any] = ["x", True, 0, -1, 1 << 30, 1 << 70, math.nan, [[1]], {"a": 1}]
ROOM = 512 << 20  # bytes that opening a folder of a few kilobytes may take


@contextmanager
def bounded_memory() -> Iterator[None]:
    before, pages = resource.getrlimit(resource.RLIMIT_AS), int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def write_states(folder: Path) -> Path:
    ranker = SplitRanker.open(split_ranker(folder.with_name("split")))
    with new_states(folder, ranker.states_info) as writer:
        writer.append(ranker.title_states(["深度学习", "文化"]))
    return folder


def write_family(folder: Path, name: str) -> Path:
    folder.mkdir()
    stated = family_cases.expected()[name]
    (folder / "config.json").write_text(json.dumps(stated["config"]), encoding="utf-8")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if stated["config"]["model_type"] == "mpnet":
        words = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    words += [f"w{number}" for number in range(stated["config"]["vocab_size"] - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    save_file(family_cases.weights(stated["shapes"]), folder / "model.safetensors", {"format": "pt"})
    return folder


CALIBRATION = Calibration("platt", 0.5, -0.25, {"a": 1}, {}, SearchScores(50, (1.0,) * 10, (1.5,) * 10))
WRITERS: dict[str, Callable[[Path], Path]] = {
    "ranker": lambda folder: write_case(folder, lexical=True, calibration=CALIBRATION),
    "split": lambda folder: split_ranker(folder, width=9, similarity={}),
    "blend": write_two_members,
    "tower": lambda folder: write_tower(folder, lexical_size=3, nested_sizes=(2, 4), size=11),
    "plain tower": lambda folder: write_tower(folder, output_layer=False, size=16),
    "entailment": entailment_cases.write_model,
    "states": write_states,
    "reranker": lambda folder: reranker_cases.write(folder, "first, two layers, norm, prompt"),
    **{f"family {name}": lambda folder, name=name: write_family(folder, name) for name in family_cases.expected()},  # type: ignore[misc]
}


def open_folder(folder: Path) -> object:
    if (folder / "states.json").is_file():
        return TitleStates.open(folder)
    if any(folder.glob("*.pdiparams")):
        return open_exported(folder, MODEL).row_encoder()
    is_ours = any(any(folder.glob(name)) for name in ("*.pdparams", "member_*", "modules.json"))
    return load_model(folder, TRAINED_MODEL) if is_ours else load_encoder(folder).network


def computed_with(stated: Any) -> Any:
    """Return a file's settings, for a foreign configuration those that its family computes with."""
    architecture = family_of(stated.get("model_type")).architecture if isinstance(stated, dict) else None
    if architecture is None or not {"tie_word_embeddings", "transformers_version"} & {*stated}:
        return stated
    known = {*architecture.fields, "architectures", "model_type", "num_labels", "layer_types", "sliding_window"}
    return {name: value for name, value in stated.items() if name in known - {"initializer_range"}}


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths to all values in parsed JSON, containers too, without those in `FREE`."""
    items = values.items() if isinstance(values, dict) else enumerate(values[:2]) if isinstance(values, list) else ()
    for key, value in items:
        if key not in FREE:
            yield (*path, key)
            yield from places(value, (*path, key))


def replaced(values: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = dict(values) if isinstance(values, dict) else list(values)
    changed[path[0]] = replaced(values[path[0]], path[1:], value)
    return changed


def kind_of(value: Any) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__


def fault_of(folder: Path, path: tuple[Any, ...], before: Any, value: Any, file: Path) -> Optional[str]:
    """Open a folder with one changed setting; return what is wrong with the result, or None."""
    shown = f"{file.name}: {path} = {value!r}: "
    try:
        with bounded_memory():
            open_folder(folder)
    except CheckpointError as error:
        if (folder / "modules.json").is_file():
            return None if str(folder) in str(error) else f"{shown}{error}"
        named = [file.name, *(one for one in path if isinstance(one, str))]
        is_named = str(folder) in str(error) and (kind_of(before) == kind_of(value) or named[-1] in str(error))
        return None if is_named else f"{shown}{error}"
    except Exception as error:
        return f"{shown}{type(error).__name__}: {str(error)[:200]}"
    # Other programs wrote `modules.json` and what it names; they, too, take a value of another type for no value.
    is_foreign = (folder / "modules.json").is_file()
    return None if before is None or is_foreign or kind_of(before) == kind_of(value) else f"{shown}opens"


@pytest.mark.thorough(keep=8)
@ONCE
@pytest.mark.parametrize("name", [*WRITERS, "export", "blend's export"])
def test_no_setting_opens_with_another_type_or_takes_memory(name: str, tmp_path: Path, exports: Exports) -> None:
    case = {"export": "everything", "blend's export": "blend"}.get(name)
    folder = exports.copy(case, tmp_path / "folder") if case else WRITERS[name](tmp_path / "folder")
    open_folder(folder)
    faults, count = [], 0
    for file in sorted(folder.rglob("*.json")):
        if file.name.startswith(("tokenizer", "special", "inference")):
            continue
        text = file.read_text(encoding="utf-8")
        stated = json.loads(text)
        for path in places(computed_with(stated)):
            before = stated
            for key in path:
                before = before[key]
            for value in VALUES:
                count += 1
                if count % SHORT_STEP == 0:
                    file.write_text(json.dumps(replaced(stated, path, value)), encoding="utf-8")
                    faults.append(fault_of(folder, path, before, value, file))
        file.write_text(text, encoding="utf-8")
    open_folder(folder)
    found = [one for one in faults if one]
    assert count > 50 and not found, f"{len(found)} of {count}:\n" + "\n".join(found)


@dataclasses.dataclass(frozen=True)
class Inner:
    place: Annotated[int, Between(0, 5)]


@dataclasses.dataclass(frozen=True)
class Declared:
    size: Annotated[int, Between(1, 9)]
    share: Annotated[float, Between(0, 1)] = 0.5
    way: Annotated[str, OneOf("a", "b")] = "a"
    pairs: tuple[tuple[str, int], ...] = ()
    few: Annotated[tuple[int, ...], Between(0, 2)] = ()
    inner: Optional[Inner] = None
    named: dict[str, Inner] = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "size is missing"), ([1], "it is [1], expected an object"),
        ({"size": 0}, "size is 0, expected a whole number from 1 to 9"), ({"size": 10}, "size is 10"),
        ({"size": 2.0}, "size is 2.0"), ({"size": True}, "size is True"),
        ({"size": 1, "share": math.nan}, "share is nan, expected a number from 0 to 1"),
        ({"size": 1, "way": "c"}, "way is c, expected one of 'a', 'b'"),
        ({"size": 1, "pairs": [["x", 1], ["y", "2"]]}, "pairs[1][1] is 2"),
        ({"size": 1, "pairs": [["x"]]}, "pairs[0] is ['x'], expected a list of 2 values"),
        ({"size": 1, "few": [1, 2, 3]}, "few is [1, 2, 3], expected a list of 0 to 2 values"),
        ({"size": 1, "inner": {}}, "inner.place is missing"), ({"size": 1, "inner": 3}, "inner is 3"),
        ({"size": 1, "named": {"k": {"place": 6}}}, "named.k.place is 6, expected a whole number from 0 to 5"),
    ],
)  # fmt: skip
def test_a_misfit_names_the_file_the_key_and_the_range(values: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"of\.json: damaged \({re.escape(message)}"):
        read_declared(Declared, Path("of.json"), values)


def test_what_fits_is_read_and_other_keys_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "size": 9,
        "share": 1,
        "pairs": [["x", 1]],
        "inner": {"place": 0, "more": 1},
        "named": {"k": {"place": 5}},
    }
    found = read_declared(Declared, Path("of.json"), {**values, "inner": {"place": 0, "more": 1}, "later": 3})
    assert found == Declared(9, 1, "a", (("x", 1),), (), Inner(0), {"k": Inner(5)})
    assert "of.json: unknown here and not used: later, inner.more" in capsys.readouterr().err
