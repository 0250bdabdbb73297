"""The pages' commands: how they are found and compared, and every one of them as a stranger types it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.checkout import IS_MODERN
from tests.conftest import REPOSITORY
from tests.robustness.doc_blocks import blocks, commands, is_like, missing
from tests.robustness.walk_docs import LONG, NO_SAMPLE, NOT_RUN, all_pages, is_kind, walk
from tests.robustness.walk_files import PUBLISHED, write_texts

OUTPUT = "--output"
READ = ("--corpus", "--train", "--test", "--index", "--queries", "--qrels", "--beir")
unit, server, slow = pytest.mark.unit, pytest.mark.server, pytest.mark.slow
PAGE = """# A page

```bash
python a.py --to x  # once

# then
python b.py \\
    --more
# {'query': '…', 'p': 0.5}
```

It prints

    best: step 3 (auc 0.91) -> x

and code:

    from a import b
    b()

<!-- part of: tests/x.py -->
```python
never()
```
"""
# The complete stack has other packages under the same commands: those that meet most of them.
SHORT = ["docs/training.md", "docs/scores.md", "docs/evaluation.md", "docs/export.md", "docs/serving.md"]


@unit
def test_commands_code_and_samples_are_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE, encoding="utf-8")
    found = blocks(tmp_path / "page.md", "page.md")
    assert [(block.line, block.kind) for block in found] == [(3, "shell"), (14, "output"), (18, "python")]
    assert list(commands(found[0])) == [
        (4, "python a.py --to x  # once", []),
        (7, "python b.py \\\n    --more", ["{'query': '…', 'p': 0.5}"]),
    ]


@unit
def test_samples_are_like_what_was_printed_but_for_numbers() -> None:
    sample = "best: step 376 (auc 0.9427) -> …/model_376"
    assert is_like(sample, "best: step 12 (auc 0.9) -> checkpoint/model_12")
    assert is_like(sample, "best: step 12 (auc 0.9437) -> checkpoint/model_12", within=0.01)
    assert not is_like(sample, "best: step 12 (auc 0.9537) -> checkpoint/model_12", within=0.01)
    assert not is_like(sample, "best: step 12 (mrr 0.9427) -> checkpoint/model_12")
    assert missing("...\nloss: 1.5\nkept 3\n", "loss: 2\nkept all") == ["kept 3"]


@unit
def test_every_exception_of_the_walk_is_one() -> None:
    text = {name: (REPOSITORY / name).read_text(encoding="utf-8") for name in ["README.md", *all_pages()]}
    for part in (*NOT_RUN, *LONG):
        assert any(part in page for page in text.values()), f"{part}: no page has such a command"
    for page, begins in NO_SAMPLE:
        assert begins in text[page], f"{page} has no sample {begins}"


@unit
def test_the_commands_of_the_readme_start_from_what_they_made() -> None:
    """The README promises to be offline; a training whose encoder is not named starts from one that is fetched."""
    made: set[str] = set()
    trainings = 0
    for block in blocks(REPOSITORY / "README.md", "README.md"):
        for line, command, _ in commands(block) if block.kind == "shell" else ():
            words = shlex.split(command, comments=True)
            given = {name: Path(value).parts[0] for name, value in zip(words, words[1:]) if name in ("--model", OUTPUT)}
            model = given.get("--model")
            assert model is None or model in made, f"README.md:{line}: {model} is not made by a command above"
            if "paddle-ranker train-" in command:
                trainings += 1
                assert model, f"README.md:{line}: without --model its encoder is fetched"
            made |= {given[OUTPUT]} if OUTPUT in given else set()
    assert trainings and not made & set(PUBLISHED)


@unit
def test_a_page_reads_what_it_made_or_what_the_walk_makes(tmp_path: Path) -> None:
    """The walk itself is slow; that a command names a file which is nowhere shows without it."""
    write_texts(tmp_path)
    left: set[str] = set()  # by the README, in whose folder the other pages go on
    for page in ("README.md", *all_pages()):
        made, read = {path.name for path in tmp_path.iterdir()} | left, 0
        for block in blocks(REPOSITORY / page, page):
            for line, command, _ in commands(block) if block.kind == "shell" else ():
                words = shlex.split(command.replace("…", ""), comments=True)
                if any(is_kind(command, part) for part in NOT_RUN) or "milvus_ann_search.py" in words[1]:
                    continue
                for name, value in zip(words, words[1:]):
                    known = Path(value).parts[0] in made or (REPOSITORY / value).exists()
                    assert name not in READ or known, f"{page}:{line}: {name} {value} is made nowhere"
                    read += name in READ
                made |= {Path(value).parts[0] for name, value in zip(words, words[1:]) if name.startswith(OUTPUT)}
                made |= set(words[words.index("convert") + 2 :][:1] if "convert" in words else ())
        left = made if page == "README.md" else left
        assert page != "docs/recall.md" or read > 20


@slow
@server
def test_every_command_of_the_pages_works_as_printed(tmp_path: Path) -> None:
    bad = [step for step in walk(all_pages() if IS_MODERN else SHORT, tmp_path) if step.is_bad]
    assert not bad, "\n".join(f"{step.place}: {step.text}\n  {step.status}" for step in bad)
