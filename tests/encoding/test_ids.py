"""Ids of 5,000 real and nasty texts are transformers', of tokenizers of each kind and of the files that they lie in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.model.families import brought_tokenizer, family_of
from tests.encoding.id_cases import CHUNK, FAMILIES, FILE, LENGTH, PAIRS, digests, texts, unpack

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ids")
    unpack(made)
    return made


@pytest.fixture(scope="module")
def chosen() -> list[str]:
    return texts()


@pytest.mark.parametrize("kind", FAMILIES)
def test_ids_are_those_of_transformers(folder: Path, chosen: list[str], kind: str) -> None:
    encoder = PairEncoder(brought_tokenizer(folder / kind, family_of(FAMILIES[kind])), LENGTH)
    alone = encoder.encode_texts(chosen)
    pairs = encoder.encode(chosen[:PAIRS], chosen[1 : PAIRS + 1])
    for rows, said in zip((alone, [pairs[row] for row in range(PAIRS)]), json.loads(FILE.read_text("utf-8"))[kind]):
        found, wanted = digests(rows), said.split()
        assert len(found) == len(wanted)
        differing = [CHUNK * number for number, (one, other) in enumerate(zip(found, wanted)) if one != other]
        assert differing == [], f"from these texts on; id_cases.py --compare {kind} shows them"


def test_tokens_that_a_bert_adds_are_found_in_texts(folder: Path, chosen: list[str]) -> None:
    """They were split into words, where `tokenizer.json` lies alone, as transformers 5 saves it."""
    assert not (folder / "electra" / "vocab.txt").exists()
    files = brought_tokenizer(folder / "electra", family_of("bert"))
    added = [files.token_to_id[token] for token in ("<brand>", "dignité")]
    assert PairEncoder(files, LENGTH).encode_texts(["<brand> dignité"])[0].tolist() == added
    rows = PairEncoder(files, LENGTH).encode_texts(chosen[:CHUNK])
    assert digests(rows) == json.loads(FILE.read_text("utf-8"))["electra"][0].split()[:1]
