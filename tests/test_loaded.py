"""Short programs load what they use, and the stories of rooms have examples that run."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

from paddle_ranker import Index
from tests.conftest import REPOSITORY, run_python
from tests.tiny import write_ranker

pytestmark = pytest.mark.unit
SEARCH = "from paddle_ranker import Index; assert Index(sys.argv[1]).search('shoe')"
COMMAND = "from paddle_ranker.__main__ import main; assert main(['search', '--index', sys.argv[1], 'shoe']) == 0"
SCORE = "from paddle_ranker import Ranker; Ranker.load(sys.argv[1]).score(['shoe'], ['red shoes'])"
MODELS = r"encoding\.(?!window_options)\w|model\.(?!load_options|model_options|role_names)\w|metrics\.\w"
WRITING = r"data\.(rows\.(documents|records|formats)|files\.reader_pool)"
WRITING += r"|retrieval\.index\.(collection_writer|ingestion|merging)"
VECTORS = r"retrieval\.vectors\.(text_vectors|field_vectors|exact_search|faiss_index)"
CONTENTS = r"data\.files\.pictures|pictures|recordings|pages|layouts|tables"
OTHERS = r"training|evaluation|export|serving|paddle_serving|scale"


@pytest.mark.parametrize(
    ("program", "unused"),
    [
        (
            SEARCH,
            rf"{MODELS}|{WRITING}|{VECTORS}|{CONTENTS}|{OTHERS}|options|commands|storage\.atomic|lexical\.passages",
        ),
        (COMMAND, rf"{MODELS}|{WRITING}|{OTHERS}"),
        (SCORE, rf"{WRITING}|{CONTENTS}|{OTHERS}|options|commands|retrieval"),
    ],
)
def test_a_program_loads_what_it_uses(program: str, unused: str, tmp_path: Path) -> None:
    if program == SCORE:
        (tmp_path / "given").mkdir()
        write_ranker(tmp_path / "given")
    else:
        Index.build(["a lace for a shoe", "red shoes"], tmp_path / "given").close()
    said = run_python(f"import sys; {program}; print('loaded', *sys.modules)", tmp_path / "given")
    loaded = said.partition("loaded ")[2].split()
    assert "paddle_ranker.errors" in loaded
    assert [name for name in loaded if re.match(rf"paddle_ranker\.({unused})", name)] == []


STORIES = [
    path for path in sorted((REPOSITORY / "paddle_ranker").rglob("__init__.py")) if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.parent.name)
def test_a_story_has_an_example_that_runs(path: Path) -> None:
    module = importlib.import_module(".".join(path.parent.relative_to(REPOSITORY).parts))
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
