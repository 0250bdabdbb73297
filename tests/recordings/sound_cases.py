"""Random models of sounds, and transformers' logits and states in `sounds.json`.

Weights and sounds follow from names and seeds. The answers were computed by transformers 5.23.0, each sound alone.
Where it is installed, this computes them anew:

    PYTHONPATH=. python tests/recordings/sound_cases.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.model.family_cases import weights

FILE = Path(__file__).with_name("sounds.json")
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", "E", "T", "A", "O", "N", "I", "H"]
_ENCODER: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 36, "vocab_size": 12,
    "conv_dim": [12] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "hidden_dropout": 0.0,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "wav2vec2": {"model_type": "wav2vec2", **_ENCODER},
    "wav2vec2_large": {
        "model_type": "wav2vec2", **_ENCODER, "feat_extract_norm": "layer", "conv_bias": True,
        "do_stable_layer_norm": True, "num_conv_pos_embeddings": 9, "mask_time_prob": 0.0,
    },
    "hubert": {"model_type": "hubert", **_ENCODER, "hidden_act": "gelu_new", "feat_extract_activation": "relu"},
    "hubert_batch_norm": {
        "model_type": "hubert", **_ENCODER, "conv_pos_batch_norm": True, "feat_proj_layer_norm": False,
        "do_stable_layer_norm": True,
    },
}  # fmt: skip
PROCESSOR = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "sampling_rate": 16000,
             "padding_value": 0.0, "padding_side": "right", "do_normalize": True,
             "return_attention_mask": False}  # fmt: skip
# Letters of frames, and what they spell: repeats count once, a blank parts double letters.
_LONG = "<pad> H H I <pad> | | T T <pad> T E <pad> <pad> N | <pad>"
FRAMES = [_LONG, "| | | A", "<pad> <pad>", "", "A | | O O <pad> |"]


def sounds() -> list[np.ndarray]:
    """Return sounds of one frame and of several, `[samples]` float32 each; the last is silent in the middle."""
    rng = np.random.default_rng(3)
    found = [(0.1 * rng.standard_normal(size) + 0.02).astype(np.float32) for size in (400, 3333, 1599, 8000)]
    found[-1][2000:5000] = 0
    return found


def write(folder: Path, name: str, shapes: dict[str, list[int]]) -> None:
    """Write a case's folder, as transformers would."""
    config = CASES[name]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    arrays = weights(shapes)
    arrays = {key: np.abs(array) + 0.1 if key.endswith("running_var") else array for key, array in arrays.items()}
    save_file({key: np.asarray(array) for key, array in arrays.items()}, folder / "model.safetensors")
    (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(LETTERS)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Wav2Vec2CTCTokenizer"}))


def main() -> None:
    """Compute the answers with transformers, and write the file."""
    import torch
    from transformers import AutoConfig, AutoModelForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

    answers: dict[str, Any] = {}
    for name, config in CASES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "config.json").write_text(json.dumps(config))
            state = AutoModelForCTC.from_config(AutoConfig.from_pretrained(folder)).state_dict()
            shapes = {key: list(value.shape) for key, value in state.items() if value.is_floating_point()}
            write(folder, name, shapes)
            model = AutoModelForCTC.from_pretrained(folder).eval()
            extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
            found = []
            for sound in sounds():
                values = extractor(sound, sampling_rate=16000, return_tensors="pt").input_values
                with torch.no_grad():
                    states = getattr(model, config["model_type"])(values).last_hidden_state
                    found.append({"logits": model(values).logits[0].tolist(), "mean": states[0].mean(0).tolist()})
            answers[name] = {"shapes": shapes, "sounds": found}
            tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder)
    answers["spelled"] = []
    for frames in FRAMES:
        found = tokenizer.decode([LETTERS.index(one) for one in frames.split()], output_word_offsets=True)
        words = [[one["word"], int(one["start_offset"]), int(one["end_offset"])] for one in found.word_offsets]
        answers["spelled"].append({"text": found.text, "words": words})
    FILE.write_text(json.dumps(answers, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
