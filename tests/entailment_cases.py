"""Pairs of posts and models that are small enough to be made in every test run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle
from PIL import Image

from multimodal_entailment.data import PostPair, write_posts
from multimodal_entailment.folder import EntailmentModel, save_entailment
from multimodal_entailment.info import EntailmentInfo, signature_of
from multimodal_entailment.model import EntailmentNetwork, PostTextEncoder, Shape
from multimodal_entailment.posts import PostEncoder
from multimodal_entailment.vision import make_vision_encoder
from paddle_ranker.encoding.pair_encoder import PairEncoder, never_match_ids
from tests.tiny import CONFIG, write_tokenizer

SIZE, LENGTH = 64, 24  # the small encoder turns 64 pixels into 2 x 2 regions
COLOURS = {"r": (220, 30, 30), "g": (30, 200, 40), "b": (30, 40, 220)}


def write_data(folder: Path, count: int = 90, name: str = "posts.csv") -> Path:
    """Write `posts.csv` and its images; the label follows from the letter of text two and from both images."""
    folder.mkdir(parents=True, exist_ok=True)
    for colour, rgb in COLOURS.items():
        Image.new("RGB", (40, 30), rgb).save(folder / f"{colour}.png")
    random, pairs = np.random.RandomState(0), []
    for number in range(count):
        first, second = random.choice(list(COLOURS), 2)
        letter = random.choice(["a", "z"])
        label = 0 if letter == "z" else (1 if first == second else 2)
        texts = f"a b c {number % 7}", f"{letter} d e"
        pairs.append(
            PostPair(f"{number}x", texts[0], f"{first}.png", f"{number}y", texts[1], f"{second}.png", label, 0)
        )
    path = folder / name
    write_posts(path, pairs)
    return path


def make_parts(
    folder: Path,
    *,
    texts: bool = True,
    images: bool = True,
    shape: Optional[Shape] = None,
    frozen_text: bool = False,
    frozen_vision: bool = False,
    seed: int = 1,
) -> EntailmentModel:
    """Return a model with random parameters, including match embeddings."""
    write_tokenizer(folder)
    encoder = PairEncoder.from_folder(folder, LENGTH)
    shape = shape or Shape()
    paddle.seed(seed)
    text = vision = None
    if texts:
        text = PostTextEncoder(CONFIG, never_match_ids(encoder) if shape.match_embeddings else None)
        if shape.match_embeddings:
            values = np.random.RandomState(seed).randn(*text.match_embeddings.weight.shape)
            text.match_embeddings.weight.set_value(values.astype("float32"))
    if images:
        vision = make_vision_encoder("small")
    network = EntailmentNetwork(text, vision, shape, frozen_text=frozen_text, frozen_vision=frozen_vision)
    network.eval()
    info = EntailmentInfo(
        shape,
        max_seq_length=LENGTH if texts else None,
        vision="small" if images else None,
        image_size=SIZE if images else None,
    )
    rows = PostEncoder(encoder if texts else None, info.image_size)
    return EntailmentModel(info, rows, signature_of(info), network)


def write_model(folder: Path, **changes: Any) -> Path:
    """Write a model made by `make_parts`; return its folder."""
    target = folder / "posts"
    target.mkdir(parents=True)
    model = make_parts(folder / "tokenizer", **changes)
    save_entailment(target, model, model.info)
    return target


def draw_images(count: int, seed: int = 0) -> np.ndarray:
    """Return `[count, 3, SIZE, SIZE]` uint8 images with visible contents."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, (count, 3, 4, 4)).repeat(SIZE // 4, 2).repeat(SIZE // 4, 3)
    return coarse.astype(np.uint8)
