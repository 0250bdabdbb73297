"""Save and load the folder of a trained model. It is all that evaluation, prediction and export need.

| file | holds |
| --- | --- |
| `model_state.pdparams` | the parameters, including both encoders' |
| `entailment.json` | the model's inputs and network, its training's options and results |
| `config.json`, `vocab.txt`, ... | the text encoder's shape and tokenizer, if the model takes texts |
| `README.md` | the model card: the same facts for readers |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multimodal_entailment.info import INFO_FILE, EntailmentInfo, signature_of
from multimodal_entailment.model import EntailmentNetwork, PostTextEncoder
from multimodal_entailment.posts import PostEncoder
from paddle_ranker.encoding.pair_encoder import never_match_ids
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.encoder_loading import unfilled
from paddle_ranker.model.families import require_config, write_config
from paddle_ranker.model.hugging_face.folder import folder_pair_encoder
from paddle_ranker.model.model_kind import TrainedModel
from paddle_ranker.model.parameters import PARAMETERS_FILE, count, load_arrays, save_arrays, set_parameters


@dataclass(frozen=True)
class EntailmentModel(TrainedModel[EntailmentInfo, PostEncoder]):
    """A model in memory."""

    network: EntailmentNetwork


def save_entailment(folder: Path, model: EntailmentModel, info: EntailmentInfo) -> None:
    """Write a model, which `info` describes, into an existing folder; call it inside `atomic.new_folder`."""
    save_arrays(model.network.state_dict(), folder / PARAMETERS_FILE)
    write_descriptions(folder, model.network, model.row_encoder)
    info.write(folder)


def write_descriptions(folder: Path, network: EntailmentNetwork, encoder: PostEncoder) -> None:
    """Write the text encoder's shape and tokenizer, if the model has one, into an existing folder."""
    if network.text is not None:
        write_config(folder, network.text.config)
    encoder.save(folder)


def load_entailment(folder: Path) -> EntailmentModel:
    """Load a model; raises `CheckpointError` if anything that predictions depend on is missing or does not fit."""
    folder = Path(folder)
    info = EntailmentInfo.read(folder)
    path = folder / PARAMETERS_FILE
    arrays = load_arrays(path)
    text = vision = None
    encoder = post_encoder(folder, info)
    if info.vision is not None:
        from multimodal_entailment.vision import VISION_ENCODERS, make_vision_encoder

        if info.vision not in VISION_ENCODERS:
            names = ", ".join(VISION_ENCODERS)
            raise CheckpointError(f"{folder / INFO_FILE}: vision is {quoted(info.vision)}, expected one of {names}")
        vision = make_vision_encoder(info.vision, None)
    if encoder.texts is not None:
        config = require_config(folder)
        try:
            config.require_fits(*count(arrays))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        never_match = never_match_ids(encoder.texts) if info.shape.match_embeddings else None
        spelling = encoder.texts.spelling() if info.shape.match_embeddings else None
        text = PostTextEncoder(config, never_match, unfilled(config), spelling)
    network = EntailmentNetwork(text, vision, info.shape)
    try:
        set_parameters(network, arrays)
    except CheckpointError as error:
        wrong = "a parameter is missing, left over or of another shape"
        raise CheckpointError(f"{path}: {wrong} ({error}): copy the folder again") from error
    return EntailmentModel(info, encoder, signature_of(info), network)


def post_encoder(folder: Path, info: EntailmentInfo) -> PostEncoder:
    """Return the encoder of pairs of posts; raises `CheckpointError` if its files are missing or do not fit."""
    if info.max_seq_length is None:
        return PostEncoder(None, info.image_size)
    return PostEncoder(folder_pair_encoder(folder, info.max_seq_length), info.image_size)
