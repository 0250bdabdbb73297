"""Every option that takes a model, as the commands declare them, crossed with every kind of source that is not a path.

Each command is run with the options that its class requires, until it looks for the model: what finds models by name
and address is replaced by what raises the name that it was asked for.
"""

from __future__ import annotations

import shutil
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.commands.command_registry import COMMANDS
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model import hub, pretrained
from paddle_ranker.model.model_options import CheckpointOptions, TokenizerOptions
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, save_arrays
from paddle_ranker.options import Options, command_run, declare
from paddle_ranker.options.declare import FETCHED_FOLDER, FOLDER_OR_URL, annotations_of, fields_of, value_type
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from tests.conftest import Call
from tests.tiny import write_index, write_ranker, write_tower

pytestmark = pytest.mark.parity

INNER = {"index": ("build", "add")}  # commands of commands
# Options that a command needs beside those that its class requires; True: filled as required ones are.
MORE: dict[str, dict[str, Any]] = {
    "evaluate": {"test_file": True}, "compare": {"test_file": True}, "cascade": {"test_file": True},
    "distill": {"teacher": True, "data_file": True, "output_file": True}, "search": {"query": "a"},
    "evaluate-recall": {"test_file": True}, "improve": {"judged": True}, "calibrate": {"dev_file": True},
    "blend": {"other": ("bm25",)}, "fill-mask": {"sentence": "a"}, "mine": {"ranker": True},
    "train-batch-neg": {"loss": "in_batch+margin_mse", "teacher": True},
}  # fmt: skip
# Options that take folders or files which no name has: they say so of a name.
OF_NO_NAME = {("export-serving", "dirname"), ("convert-image-weights", "source")}
INDEXED = {
    **dict.fromkeys(("index add", "search", "evaluate-recall", "improve"), "index"),
    **dict.fromkeys(("search-serve", "mcp"), "words"),
}  # fmt: skip
WITH_RAY = {"deploy"}  # its options are those of serve, and it needs a cluster
SOURCES = {
    "ernie-3.0-medium-zh": "asked for ernie-3.0-medium-zh",
    "zh_dureader_ce": "asked for zh_dureader_ce",
    "ernie-3.0-mdium-zh": "did you mean ernie-3.0-medium-zh",
    "owner/model": "asked for owner/model",
    "s3://bucket/model": "asked for s3://bucket/model",
    "ftp://host/model": "ftp:// is not known here",
    "https://host/model": "https:// is not known here",
}


def options_of(main: Any, patch: pytest.MonkeyPatch, *words: str) -> type[Options]:
    """Return the options class of a command."""
    found: list[type[Options]] = []

    def parse(options: type[Options], *rest: Any) -> None:
        found.append(options)
        raise CheckpointError("parsed")

    patch.setattr(command_run, "parse_options", parse)
    main([*words])
    return found[0]


def model_options() -> Iterator[tuple[str, str]]:
    """Yield command and field of every option that takes a model."""
    COMMANDS.load_plugins()
    with pytest.MonkeyPatch.context() as patch:
        for name, command in COMMANDS.items():
            if name in WITH_RAY:
                continue
            for words in INNER.get(name, ("",)):
                for field in fields_of(options_of(command.load().main, patch, *filter(None, [words]))):
                    if field.metadata["addresses"] in (FETCHED_FOLDER, FOLDER_OR_URL) or field.name == "systems":
                        yield f"{name} {words}".strip(), field.name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the commands require beside the model."""
    place = tmp_path_factory.mktemp("place")
    write_ranker(place / "ranker")
    (place / "bare").mkdir()
    for name in ("model_state.pdparams", "vocab.txt"):
        shutil.copy(place / "ranker" / name, place / "bare")
    arrays = {
        name: array for name, array in load_arrays(place / "bare" / PARAMETERS_FILE).items() if "head" not in name
    }
    head = {"similarity.weight": np.ones((16, 2), np.float32), "similarity.bias": np.ones(2, np.float32)}
    save_arrays({**arrays, **head}, place / "bare" / PARAMETERS_FILE)
    write_index(place / "index", write_tower(place / "tower"), [Document("a", "b"), Document("b", "c")])
    Collection.create(place / "words", IndexInfo(WordsInfo("bigram"), None)).close()
    (place / "rows.tsv").write_text("a\tb\t1\na\tc\t0\nb\tc\t1\nb\ta\t0\n")
    return place


def made(options: type[Options], command: str, name: str, source: str, place: Path, **more: Any) -> Options:
    """Return options with a source in a field, and with what else the class requires."""
    names_bare = issubclass(options, CheckpointOptions) and name == "model_name_or_path"
    model = str(place / "bare" / "model_state.pdparams" if names_bare else place / "ranker")
    first = (
        ("params_path", "init_from_ckpt", "ranker", "systems") if names_bare else ()
    )  # the model whose configuration is named
    values: dict[str, Any] = {}
    for field in fields_of(options):
        kind = value_type(annotations_of(options)[field.name])
        is_model = field.metadata["addresses"] in (FETCHED_FOLDER, FOLDER_OR_URL) or field.name == "systems"
        is_start = field.name == "model_name_or_path" and not issubclass(options, (CheckpointOptions, TokenizerOptions))
        if field.name == name:
            text = source
        elif field.name == "index" and command in INDEXED:
            text = str(place / INDEXED[command])
        elif field.default is declare.REQUIRED or more.get(field.name) is True or is_start or field.name in first:
            text = model if is_model else str(place / ("rows.tsv" if field.metadata["files"] else f"new-{field.name}"))
        else:
            continue
        values[field.name] = (text,) if typing.get_origin(kind) is tuple else text
    return options(**{**{key: value for key, value in more.items() if value is not True}, **values})


@pytest.mark.parametrize("command, name", [*model_options()])
def test_every_option_takes_every_source(
    command: str, name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setenv("PPNLP_HOME", str(tmp_path / "paddlenlp"))
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(place)
    first, *words = command.split()
    main = COMMANDS[first].load().main
    with pytest.MonkeyPatch.context() as patch:
        options = options_of(main, patch, *words)

    def ask(text: object, *rest: object, **more: object) -> None:
        shown = getattr(text, "repository", text)
        if shown in SOURCES and SOURCES[str(shown)].startswith("asked for"):
            raise CheckpointError(f"asked for {shown}")

    monkeypatch.setattr(pretrained, "_named_folder", ask)
    monkeypatch.setattr(hub, "find_cached", ask)
    monkeypatch.setattr(declare, "fetched", ask)
    monkeypatch.setattr(declare, "matching", lambda text: [text])
    bad, more = [], MORE.get(command, {})
    (field,) = (field for field in fields_of(options) if field.name == name)
    takes_url = field.metadata["addresses"] == FOLDER_OR_URL  # which tests/remote_models tries
    for source, said in SOURCES.items():
        if takes_url and source.startswith("https:"):
            continue
        said = "takes no address" if name == "systems" and source.startswith("s3:") else said  # files of scores, too
        said = "there is no such" if (command, name) in OF_NO_NAME and "://" not in source else said
        monkeypatch.setattr(
            command_run,
            "parse_options",
            lambda *rest: made(options, command, name, source, place, **more),  # noqa: B023
        )
        status, printed, errors = call(main, *words)
        # A configuration is known by a published name; only static models of other programs need a tokenizer's.
        also = (
            f"these parameters are not of {source},",
            "--model_name_or_path belongs to static models of other programs",
            "--model_name_or_path belongs to --model:",
        )
        if said not in printed + errors and not any(text in errors for text in also):
            bad.append(f"{source}: {status} {printed} {errors}")
    assert not bad, "\n".join(bad)
