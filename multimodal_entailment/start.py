"""What a training of an entailment model begins with: its encoders, its pairs of posts, and how it saves itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_entailment.data import PostPair, Split, class_counts, images_of, read_posts, split_posts
from multimodal_entailment.examples import Posts
from multimodal_entailment.folder import EntailmentInfo, EntailmentParts, load_entailment, save_entailment
from multimodal_entailment.image_store import ImageStore
from multimodal_entailment.model import EntailmentNetwork, Shape, TextEncoder
from multimodal_entailment.options import TrainEntailmentOptions
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.model.folder import Fresh, start_ranker
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.storage.digest import content_digest, warn_of_same_data
from paddle_ranker.training.run import Run, start_run


@dataclass(frozen=True)
class EntailmentStart:
    """A model to train, and how: `part_factors` as `Task` takes them."""

    run: Run
    parts: EntailmentParts
    part_factors: dict[str, float]

    def save(self, folder: Path, facts: dict[str, Any], results: dict[str, Any]) -> None:
        """Write a checkpoint into an existing folder."""
        info = dataclasses.replace(self.parts.info, **self.run.describe(facts, results))
        save_entailment(folder, dataclasses.replace(self.parts, info=info))


def start_entailment(options: TrainEntailmentOptions) -> EntailmentStart:
    """Select the device, seed everything, and load the encoders or the interrupted run to start from."""
    run = start_run(options)
    frozen = {"frozen_text": options.freeze_text, "frozen_vision": options.freeze_vision}
    if run.resumed:
        parts = load_entailment(run.resumed.model, tokenizer=options.tokenizer)
        network = EntailmentNetwork(parts.network.text, parts.network.vision, parts.info.shape, **frozen)
        parts = dataclasses.replace(parts, network=network)  # its parameters come with the state
        return EntailmentStart(run, parts, run.resumed.part_factors)
    text = pair_encoder = vision = None
    factors = {"fusion": options.new_parts_factor}
    if options.modalities != "image":
        text, pair_encoder, is_new = _text_encoder(options)
        factors.update(dict.fromkeys((f"text.{part}" for part in is_new), options.new_parts_factor))
    if options.modalities != "text":
        from multimodal_entailment.vision import make_vision_encoder

        vision = make_vision_encoder(options.vision_encoder, options.vision_weights)
        if options.vision_weights is None:
            factors["vision"] = options.new_parts_factor
    shape = Shape(
        fusion=options.fusion,
        joint=options.joint,
        compare_images=options.compare_images,
        match_embeddings=text is not None and text.never_match is not None,
        dropout=options.dropout,
        modality_dropout=options.modality_dropout,
    )
    info = EntailmentInfo(
        shape,
        max_seq_length=options.max_seq_length if text is not None else None,
        vision=options.vision_encoder if vision is not None else None,
        image_size=options.image_size if vision is not None else None,
    )
    parts = EntailmentParts(EntailmentNetwork(text, vision, shape, **frozen), pair_encoder, info)
    return EntailmentStart(run, parts, factors)


def _text_encoder(options: TrainEntailmentOptions) -> tuple[TextEncoder, PairEncoder, list[str]]:
    """Return the text encoder, how texts become its ids, and the parts of it that start from nothing."""
    assert options.model_name_or_path is not None
    source = resolve_model(options.model_name_or_path)
    ranker = start_ranker(
        source,
        Fresh("cross_encoder", match_embeddings=options.match_embeddings),
        LoadOptions(max_seq_length=options.max_seq_length, tokenizer=options.tokenizer),
    )
    is_new = [part for part in ranker.new_parts if part.startswith(("encoder.", "match_embeddings"))]
    never_match = ranker.network.never_match
    if options.freeze_text and "match_embeddings" in is_new:
        never_match, is_new = None, [part for part in is_new if part != "match_embeddings"]  # they would stay zeros
    text = TextEncoder(ranker.network.config, never_match)
    state = ranker.network.state_dict()
    for name, tensor in text.state_dict().items():
        tensor.set_value(state[name])
    text.encoder.gradient_checkpointing = options.gradient_checkpointing
    return text, ranker.pair_encoder, is_new


@dataclass(frozen=True)
class EntailmentData:
    """The pairs of posts of a training, and digests of the files that they came from."""

    split: Split
    content: dict[str, str]

    def facts(self) -> dict[str, Any]:
        """Return what belongs into `entailment.json`: which file they came from, and how many of each class."""
        train, validation = (class_counts(part) for part in (self.split.train, self.split.validation))
        return {"content": self.content, "train_counts": train, "validation_counts": validation}


def open_data(options: TrainEntailmentOptions) -> EntailmentData:
    """Read the file or files, and split the one file where there is no other.

    Raises `DataError` for malformed rows, and for too few of a class to split.
    """

    def read(path: str) -> list[PostPair]:
        looks = options.modalities != "text"
        return read_posts(path, options.image_folder, skip_bad_rows=options.skip_bad_rows, images=looks)

    train = read(options.train_file)
    content = {"train_file": content_digest(options.train_file)}
    if options.validation_file is None:
        split = split_posts(train, options.test_share, options.validation_share, options.split_seed)
    else:
        warn_of_same_data({"train_file": options.train_file, "validation_file": options.validation_file})
        split = Split(train, read(options.validation_file), [])
        content["validation_file"] = content_digest(options.validation_file)
    return EntailmentData(split, content)


def describe_data(split: Split) -> str:
    """Say how many pairs of each class each part has, in a line each."""
    lines = []
    for name in ("train", "validation", "test"):
        pairs = getattr(split, name)
        if pairs:
            counts = ", ".join(f"{label} {count:,}" for label, count in class_counts(pairs).items())
            lines.append(f"{name}: {len(pairs):,} pairs of posts: {counts}")
    return "\n".join(lines)


def labels_of(pairs: Sequence[PostPair]) -> np.ndarray:
    """Return the labels of labelled pairs, `[n] int64`."""
    return np.array([pair.label for pair in pairs], np.int64)


def make_posts(pairs: Sequence[PostPair], parts: EntailmentParts, options: TrainEntailmentOptions) -> Posts:
    """Encode the texts of pairs and decode their images, as far as the model looks at them.

    Of a frozen vision encoder the features are kept in place of pixels. With `skip_bad_rows` a broken image is a
    missing one, and a line says how many are; else it is an `ImageError` that names the row.
    """
    texts, images = None, None
    if parts.pair_encoder is not None:
        texts = parts.pair_encoder.encode([pair.text_1 for pair in pairs], [pair.text_2 for pair in pairs])
    if parts.info.image_size is not None:
        paths, places = images_of(pairs)
        images = ImageStore(
            paths,
            parts.info.image_size,
            workers=options.image_workers,
            cache_dir=options.cache_dir or Path(options.save_dir) / "images",
            encoder=parts.network.vision if options.freeze_vision else None,
            skip_bad=options.skip_bad_rows,
            places=places,
        )
        if images.bad:
            print(images.report(), flush=True)
    return Posts(len(pairs), texts, images)
