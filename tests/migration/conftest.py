"""PaddleNLP's cache with small models under the published names, which PaddleNLP makes in the tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from paddle_ranker import Ranker

if TYPE_CHECKING:
    from tests.migration.published import Made


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    from tests.migration.published import CROSS, PARA, QUERIES, QUERY, SAFE, TITLES, Made, classifier, encoded, write

    place = tmp_path_factory.mktemp("models")
    cache = place / "paddlenlp" / "models"
    model = classifier(type_vocab_size=4)
    write(model, cache / CROSS)
    vectors = {}
    rows = {QUERY: (QUERIES, None), PARA: ([""] * len(TITLES), TITLES)}  # RocketQA's paragraphs follow their titles
    for seed, (name, (first, second)) in enumerate(rows.items()):
        encoder = classifier(seed=seed, type_vocab_size=4).ernie
        write(encoder, cache / name)
        inputs = encoded(cache / name, first, second)
        vectors[name] = np.concatenate([encoder(**row)[0][:, 0].numpy() for row in inputs])
    for name in ("safe", "split"):
        how = {**SAFE, **({"max_shard_size": "20KB"} if name == "split" else {})}
        write(model, place / name, **how)
    logits = np.concatenate([model(**row).numpy() for row in encoded(cache / CROSS, QUERIES, TITLES)])
    odds = np.exp(logits)
    return Made(place, (odds / odds.sum(1, keepdims=True))[:, 1], vectors)


@pytest.fixture
def at(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from tests.migration.published import QUERIES, TITLES

    monkeypatch.setenv("PPNLP_HOME", str(made.place / "paddlenlp"))
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = [f"{query}\t{title}" for query, title in zip(QUERIES, TITLES)]
    Path("pairs.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    words = [first + second for first in "深学神农水老" for second in "习网业稻人护"]
    pairs = [(query, title) for query in words[::3] for title in words[::7]]
    logits = Ranker.load(made.place / "safe").score(*zip(*pairs))
    labels = [int(logit > np.median(logits)) ^ (number % 7 == 0) for number, logit in enumerate(logits)]
    labelled = [f"{query}\t{title}\t{label}" for (query, title), label in zip(pairs, labels)]
    Path("labelled.tsv").write_text("\n".join(labelled) + "\n", encoding="utf-8")
    Path("texts.tsv").write_text("\n".join(TITLES) + "\n", encoding="utf-8")
    triples = [f"{query}\t{title}\t{other}" for query, title, other in zip(QUERIES, TITLES, [*TITLES[1:], TITLES[0]])]
    Path("triples.tsv").write_text("query\ttitle\tneg_title\n" + "\n".join(triples) + "\n", encoding="utf-8")
    return made.place
