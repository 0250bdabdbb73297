"""The demo's posts match their relations, its parts share neither scene nor phrasing, and its bounds are exact."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from multimodal_entailment import demo_posts
from multimodal_entailment.data import read_posts
from multimodal_entailment.demo_pictures import COLOURS
from multimodal_entailment.demo_posts import (
    CLAIMS,
    FACTS,
    INPUTS,
    PARTS,
    STATES,
    DemoPair,
    Relations,
    all_relations,
    best_guesses,
    class_shares,
    demo_pairs,
    scenes,
    subsets,
)
from multimodal_entailment.info import LABELS
from multimodal_entailment.make_demo_posts import main
from tests.checkout import ONCE
from tests.conftest import Call

pytestmark = [pytest.mark.unit, ONCE]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def test_parts_share_no_scene_and_no_phrasing() -> None:
    every = [scene for part in PARTS for scene in scenes(part)]
    assert len(every) == len(set(every)) == 64 and len(scenes("test")) == 16
    for phrasings in (FACTS, CLAIMS):
        frames = [frame for part in PARTS for frame in phrasings[part]]
        assert len(frames) == len(set(frames))
        known = {word for frame in phrasings["train"] for word in words(frame)}
        known |= {word for frame in FACTS["train"] for word in words(frame)}
        for part in ("validation", "test"):
            assert {word for frame in phrasings[part] for word in words(frame)} <= known
    for side in (0, 1):  # every place and every kind of thing is in every part
        assert len({part: {scene[side] for scene in scenes(part)} for part in PARTS}["validation"]) == 8


def read_relations(pair: DemoPair) -> tuple[int, int]:
    """Return the relation of the texts and the claim, as a reader would find them."""
    opposite = dict([*STATES, *((b, a) for a, b in STATES)])
    (one,), (two,) = ([word for word in words(text) if word in opposite] for text in pair.texts)
    texts = demo_posts.FOLLOWS if one == two else demo_posts.ADDS
    texts = demo_posts.CONTRADICTS if opposite[one] == two else texts
    claimed = [word for word in words(pair.texts[1]) if word in COLOURS]
    assert not [word for word in words(pair.texts[0]) if word in COLOURS]
    if not claimed:
        return texts, demo_posts.NO_CLAIM
    shown = pair.pictures[0][3]
    return texts, demo_posts.TRUE_CLAIM if claimed == [shown] else demo_posts.FALSE_CLAIM


@pytest.mark.parametrize("part", PARTS)
def test_texts_and_pictures_say_what_the_relations_are(part: str) -> None:
    for pair in islice(demo_pairs(part, 3), 500):
        assert read_relations(pair) == (pair.relations.texts, pair.relations.claim)
        (place, things, number_1, _), (place_2, things_2, number_2, _) = pair.pictures
        assert (place, things) == (place_2, things_2) and (place, things) in scenes(part)
        assert (number_1, number_2) == (pair.relations.things_1, pair.relations.things_2)
        assert all(place in words(text) for text in pair.texts)


def test_labels() -> None:
    truth = demo_posts
    for label, texts, claim, things in (
        ("Implies", truth.FOLLOWS, truth.NO_CLAIM, (5, 3)),
        ("Implies", truth.FOLLOWS, truth.TRUE_CLAIM, (5, 3)),
        ("NoEntailment", truth.FOLLOWS, truth.TRUE_CLAIM, (3, 5)),
        ("NoEntailment", truth.ADDS, truth.NO_CLAIM, (5, 3)),
        ("Contradictory", truth.FOLLOWS, truth.FALSE_CLAIM, (5, 3)),
        ("Contradictory", truth.ADDS, truth.NO_CLAIM, (5, 0)),
        ("Contradictory", truth.CONTRADICTS, truth.NO_CLAIM, (3, 5)),
    ):
        assert LABELS[Relations(texts, claim, *things).label] == label


def test_bounds_worked_out_by_hand() -> None:
    # Implies: texts 55%, no false claim 88%, pictures 65%. Contradictory: all but 80% x 88% x 88%.
    implies, not_contradictory = Fraction(55 * 88 * 65, 10**6), Fraction(80 * 88 * 88, 10**6)
    assert sum(all_relations().values()) == 1
    shares = {"Contradictory": 1 - not_contradictory, "Implies": implies, "NoEntailment": not_contradictory - implies}
    assert class_shares() == shares
    assert best_guesses(INPUTS)[0] == 1
    assert best_guesses(())[0] == best_guesses(["text_1"])[0] == 1 - not_contradictory
    # From both texts: opposites are right. Else, without a claim, pictures decide: 12% contradict, 65% follow, 23% add.
    # With one, it is false in 24 of 100.
    no_claim = Fraction(20 * 100 + 55 * 65 + 25 * 88, 10_000)
    claim = Fraction(20 * 10_000 + 55 * 76 * 65 + 25 * 76 * 88, 10**6)
    assert best_guesses(["text_1", "text_2"])[0] == (no_claim + claim) / 2


def test_more_inputs_never_tell_less() -> None:
    best = {inputs: best_guesses(inputs)[0] for inputs in subsets()}
    assert len(best) == 16
    assert all(best[a] <= best[b] for a in best for b in best if set(a) <= set(b))
    texts, pictures = best["text_1", "text_2"], best["image_1", "image_2"]
    assert best[()] + Fraction(1, 10) < pictures < texts < 1 - Fraction(1, 10)


def test_command(tmp_path: Path, call: Call) -> None:
    typed = ["--output_dir", tmp_path / "demo", "--size", 20]
    status, printed, _ = call(main, *typed)
    truth = json.loads((tmp_path / "demo" / "truth.json").read_text())
    assert status == 0 and re.search(r"text_1\+text_2 +70\.8%", printed)
    assert truth["best_accuracy"]["text_1+text_2"]["exactly"] == str(best_guesses(["text_1", "text_2"])[0])
    for part, count in (("train", 20), ("validation", 4), ("test", 10)):
        pairs = read_posts(tmp_path / "demo" / f"{part}.csv")
        assert [pair.label for pair in pairs] == [pair.relations.label for pair in islice(demo_pairs(part, 7), count)]
        for pair in pairs:
            assert pair.image_1 and pair.image_2
            assert Image.open(pair.image_1).mode == Image.open(pair.image_2).mode == "RGB"
    assert call(main, *typed, "--if_missing")[0] == 0
    status, _, errors = call(main, *typed)
    assert status == 1 and "already exists" in errors


def test_one_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        demo_posts.make_demo_posts(tmp_path / name, 10, seed)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 4 + 2 * (10 + 2 + 5)
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    assert (tmp_path / "a" / "train.csv").read_bytes() != (tmp_path / "c" / "train.csv").read_bytes()
