"""Every command that cuts texts to a model's length says how many, at its end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paddle_ranker.__main__ import main
from paddle_ranker.commands.command_registry import COMMANDS
from tests import entailment_cases
from tests.stored_titles.test_title_states import split_ranker
from tests.tiny import HAN, write_encoder, write_ranker, write_tower

pytestmark = pytest.mark.unit
TRAIN = "--max_steps 1 --save_step 1 --logging_steps 1 --device cpu --batch_size 4 --max_seq_length 16"
# The models of `made` read 16 tokens, and the files' titles are longer.
LINES = {
    "evaluate": "--model ranker --test labelled.tsv",
    "compare": "a=ranker b=other --test labelled.tsv",
    "predict": "--model ranker --input pairs.tsv",
    "predict-fast": "--model ranker --input pairs.tsv",
    "rank": "--model ranker --input pairs.tsv",
    "cascade": "ranker other:2 --test labelled.tsv",
    "calibrate": "ranker labelled.tsv",
    "blend": "other labelled.tsv blended --with ranker",
    "distill": "ranker pairs.tsv taught.tsv",
    "mine": "--queries labelled.tsv --output mined.tsv --ranker ranker",
    "store": "split titles.txt --output states",
    "index": "build --index built --corpus titles.txt --tower tower",
    "search": f"{''.join(HAN)} --index index",
    "evaluate-recall": "--index index --test long.tsv --ranker ranker",
    "encode": "--model tower --input titles.txt --output vectors.npy",
    "train-pairwise": f"--model encoder --train triples.tsv --test labelled.tsv --output 1 {TRAIN}",
    "train-ce": f"--model encoder --train labelled.tsv --test labelled.tsv --output 2 {TRAIN}",
    "train-batch-neg": f"--model encoder --train pairs.tsv --output 3 {TRAIN}",
    "train-simcse": f"--model encoder --train titles.txt --output 4 {TRAIN}",
    "train-entailment": f"--train posts.csv --model encoder --vision_encoder small --image_size 64 --output 5 {TRAIN}",
    "pretrain": f"--model encoder --train titles.txt --packing truncate --output 6 {TRAIN}",
    "scaling-law": "--train titles.txt",
}
# Commands that encode no text of a user's, and those of which another test says it.
OTHERS = {
    "doctor", "starter", "info", "make-triples", "augment", "judgments", "curve", "report-searches", "export",
    "export-serving", "convert", "serve", "search-serve", "deploy", "train-tokenizer", "fill-mask", "make-demo-posts",
    "convert-image-weights", "quantize", "scaling-law", "improve", "mcp", "tune",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    write_ranker(folder / "ranker", max_seq_length=16)
    write_ranker(folder / "other", seed=2, max_seq_length=16)
    write_encoder(folder / "encoder")
    write_tower(folder / "tower", max_seq_length=16)
    split_ranker(folder / "split", max_seq_length=16)
    titles = ["".join([*HAN[place:], *HAN[:place]]) for place in range(20)]
    rows = [(titles[place][:4], title, titles[place - 9], int(place % 3 > 0)) for place, title in enumerate(titles)]
    for name, of in (("labelled.tsv", (0, 1, 3)), ("pairs.tsv", (0, 1)), ("triples.tsv", (0, 1, 2))):
        lines = ["\t".join(str(row[one]) for one in of) for row in rows]
        if name == "labelled.tsv":
            lines += ["\t".join((row[0], row[2], str(1 - row[3]))) for row in rows]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "long.tsv").write_text("".join(f"{title}\t{title}\n" for title in titles), encoding="utf-8")
    (folder / "titles.txt").write_text("\n".join(titles) + "\n", encoding="utf-8")
    posts = entailment_cases.write_data(folder, 120)
    posts.write_text(posts.read_text(encoding="utf-8").replace("a b c", "a b c " * 8), encoding="utf-8")
    return folder


def test_every_command_is_in_a_list() -> None:
    COMMANDS.load_plugins()
    assert {*LINES} | OTHERS == {*COMMANDS}


@pytest.mark.parametrize("command", sorted({*LINES} - OTHERS))
def test_a_command_says_how_many_texts_it_cut(
    command: str, made: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    if "index" in LINES[command].split() and not (made / "index").exists():
        assert main(["index", *LINES["index"].replace("built", "index").split()]) == 0
    capfd.readouterr()
    status, said = main([command, *LINES[command].split()]), capfd.readouterr()
    assert status == 0, said.err
    found = re.findall(r"^[\d,]+ (?:texts|pairs|documents) were cut to 16 tokens", said.err, re.MULTILINE)
    assert found and len(found) == len({*found}), said.err
