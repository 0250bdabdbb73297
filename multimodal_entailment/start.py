"""Prepare the training of an entailment model: load its encoders and its pairs of posts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal_entailment.data import PostPair, Split, class_counts, images_of, read_posts, split_posts
from multimodal_entailment.examples import Posts
from multimodal_entailment.folder import EntailmentModel, load_entailment
from multimodal_entailment.image_store import ImageStore
from multimodal_entailment.info import EntailmentInfo, signature_of
from multimodal_entailment.model import EntailmentNetwork, PostTextEncoder, Shape
from multimodal_entailment.options import TrainEntailmentOptions
from multimodal_entailment.posts import PostEncoder
from paddle_ranker.data.rows.overlap import warn_of_overlap
from paddle_ranker.encoding.pair_encoder import PairEncoder, never_match_ids
from paddle_ranker.model.model_folder import load_encoder
from paddle_ranker.model.ranker_folder import checked_match_embeddings
from paddle_ranker.storage.digest import content_digest, warn_of_same_data
from paddle_ranker.training.run import Start, start_run


def start_entailment(options: TrainEntailmentOptions) -> Start[EntailmentModel]:
    """Select the device, seed everything, and load the encoders or the interrupted run to start from."""
    run = start_run(options)
    frozen = {"frozen_text": options.freeze_text, "frozen_vision": options.freeze_vision}
    if run.resumed:
        model = load_entailment(run.resumed.model)
        network = EntailmentNetwork(model.network.text, model.network.vision, model.info.shape, **frozen)
        if network.text is not None:
            network.text.encoder.gradient_checkpointing = options.gradient_checkpointing
        # The parameters come with the state.
        return Start(run, dataclasses.replace(model, network=network), run.resumed.part_factors)
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
    encoder, network = PostEncoder(pair_encoder, info.image_size), EntailmentNetwork(text, vision, shape, **frozen)
    return Start(run, EntailmentModel(info, encoder, signature_of(info), network), factors)


def _text_encoder(options: TrainEntailmentOptions) -> tuple[PostTextEncoder, PairEncoder, list[str]]:
    """Return the text encoder's network, its pair encoder, and the names of its randomly initialised parts."""
    assert options.model_name_or_path is not None
    loaded = load_encoder(options.model_name_or_path)
    encoder, is_new = loaded.pair_encoder(options.max_seq_length), list(loaded.new_parts)
    trained = loaded.checkpoint.arrays.get("match_embeddings.weight")
    with_match = checked_match_embeddings(loaded.checkpoint, options.match_embeddings)
    if options.freeze_text and trained is None:
        with_match = False  # untrained match embeddings would stay zero
    compares = (never_match_ids(encoder), encoder.spelling()) if with_match else (None, None)
    text = PostTextEncoder(loaded.config, compares[0], loaded.network, compares[1])
    if with_match and trained is not None:
        text.match_embeddings.weight.set_value(trained.astype("float32"))
    elif with_match:
        is_new.append("match_embeddings")
    text.encoder.gradient_checkpointing = options.gradient_checkpointing
    return text, encoder, is_new


@dataclass(frozen=True)
class EntailmentData:
    """Pairs of posts of a training, and the digests of its files by option."""

    split: Split
    content: dict[str, str]

    def facts(self) -> dict[str, Any]:
        """Return the facts for `entailment.json`: the files' digests, and the number of pairs per class."""
        train, validation = (class_counts(part) for part in (self.split.train, self.split.validation))
        return {"content": self.content, "train_counts": train, "validation_counts": validation}


def open_data(options: TrainEntailmentOptions) -> EntailmentData:
    """Read the training and validation files; without a validation file, split the training file.

    Raises `DataError` for malformed rows, or if a class has too few pairs to split.
    """

    def read(path: str) -> list[PostPair]:
        looks = options.modalities != "text"
        return read_posts(path, options.image_folder, skip_bad_rows=options.skip_bad_rows, images=looks)

    train = read(options.train_file)
    content = {"train_file": content_digest(options.train_file)}
    if options.validation_file is None:
        split = split_posts(train, options.test_share, options.validation_share, options.split_seed)
    else:
        warn_of_same_data(options, "train_file", "validation_file")
        split = Split(train, read(options.validation_file), [])
        content["validation_file"] = content_digest(options.validation_file)
    learned, held_out = (
        [(pair.text_1, pair.image_1, pair.text_2, pair.image_2) for pair in part]
        for part in (split.train, [*split.validation, *split.test])
    )
    warn_of_overlap("pairs of posts", learned, held_out)
    return EntailmentData(split, content)


def describe_data(split: Split) -> str:
    """Return a line per part with its number of pairs for each class."""
    lines = []
    for name in ("train", "validation", "test"):
        pairs = getattr(split, name)
        if pairs:
            counts = ", ".join(f"{label} {count:,}" for label, count in class_counts(pairs).items())
            lines.append(f"{name}: {len(pairs):,} pairs of posts: {counts}")
    return "\n".join(lines)


def make_posts(pairs: Sequence[PostPair], model: EntailmentModel, options: TrainEntailmentOptions) -> Posts:
    """Encode the pairs' texts and decode their images, if the model takes them.

    With a frozen vision encoder, the images are its features instead of pixels. With `skip_bad_rows`, a broken image
    counts as missing, and a printed line has their number. Otherwise a broken image raises an `ImageError`, which names
    the row.
    """
    texts, images = None, None
    if model.row_encoder.texts is not None:
        texts = model.row_encoder.texts.encode([pair.text_1 for pair in pairs], [pair.text_2 for pair in pairs])
    if model.info.image_size is not None:
        paths, names = images_of(pairs)
        images = ImageStore(
            paths,
            model.info.image_size,
            workers=options.image_workers,
            cache_dir=options.cache_dir or Path(options.save_dir) / "images",
            encoder=model.network.vision if options.freeze_vision else None,
            skip_bad=options.skip_bad_rows,
            names=names,
        )
        if images.bad:
            print(images.report(), flush=True)
    return Posts(len(pairs), texts, images)
