"""A random ViLT, and transformers' logits of pictures and texts in `vilt.json`; weights and pictures follow from names.

The logits were computed by transformers 5.23.0, with Pillow and without torchvision. Where it is installed, this
computes them anew:

    PYTHONPATH=. python tests/pictures/vilt_cases.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Optional

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from tests.model.family_cases import weights
from tests.pictures.picture_cases import pictures

FILE = Path(__file__).with_name("vilt.json")
TEXTS = ["a photo of a cat", "cats, and dogs!", "a cat " * 40, "红"]
CONFIG: dict[str, Any] = {
    "architectures": ["ViltForImageAndTextRetrieval"], "model_type": "vilt", "hidden_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 4, "intermediate_size": 36, "image_size": 32, "patch_size": 8, "vocab_size": 60,
    "max_position_embeddings": 16,
}  # fmt: skip
SCALING: dict[str, Any] = {
    "image_processor_type": "ViltImageProcessor", "size": {"shortest_edge": 24}, "size_divisor": 8, "resample": 2,
    "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_pad": True,
}  # fmt: skip
_NULLS = dict.fromkeys(("do_center_crop", "do_pad", "do_convert_rgb", "crop_size", "pad_size", "default_to_square"))
# Legal processors: the file's name, and the processor's settings. Keys left out have the class's defaults.
PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("preprocessor_config.json", {"image_processor_type": "ViltImageProcessor", "size": {"shortest_edge": 40}}),
    ("preprocessor_config.json", {"feature_extractor_type": "ViltFeatureExtractor", "size": 64, "resample": 2}),
    ("preprocessor_config.json", {**SCALING, "size_divisor": 16, "image_mean": 0.5}),
    ("processor_config.json", {"processor_class": "ViltProcessor", "image_processor": SCALING}),
    ("processor_config.json", {"image_processor": {**SCALING, "size_divisor": 24, "size": {"shortest_edge": 33}}}),
    ("preprocessor_config.json", {**SCALING, "size": {"shortest_edge": 48}, **_NULLS}),
    ("preprocessor_config.json", {**SCALING, "size": {"shortest_edge": 40, "longest_edge": 50}, "do_pad": False}),
]


def titles() -> list[np.ndarray]:
    """Return pictures, [height, width, 3] uint8; transformers makes very thin ones 0 pixels wide."""
    wide, point, _, tall, _ = pictures()
    return [wide, point, tall, np.tile(wide, (1, 2, 1))]


def write(folder: Path, shapes: dict[str, list[int]]) -> None:
    """Write the folder, as transformers would."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(SCALING))
    save_file({key: np.asarray(array) for key, array in weights(shapes).items()}, folder / "model.safetensors")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *"红,!"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))


def write_processor(folder: Path, number: int) -> None:
    """Write the processor `PROCESSORS[number]` into a folder in place of its own."""
    name, settings = PROCESSORS[number]
    (folder / "preprocessor_config.json").unlink()
    (folder / name).write_text(json.dumps(settings))


def _said_with(number: int, shapes: dict[str, list[int]]) -> list[Optional[float]]:
    """Return transformers' logits of `TEXTS[0]` and each picture with the processor `PROCESSORS[number]`.

    None stands for a picture that transformers would make 0 pixels high or wide.
    """
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer, ViltForImageAndTextRetrieval

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, shapes)
        write_processor(folder, number)
        model = ViltForImageAndTextRetrieval.from_pretrained(folder).eval()
        processor, tokenizer = AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        tokens = tokenizer(TEXTS[:1], truncation=True, max_length=16, return_tensors="pt")
        found = list[Optional[float]]()
        for picture in titles():
            try:
                with torch.no_grad():
                    pixels = processor(Image.fromarray(picture), return_tensors="pt")
                    found.append(model(**tokens, **pixels).logits.item())
            except ValueError:
                found.append(None)
        return found


def main() -> None:
    """Compute the logits with transformers, and write the file."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, ViltForImageAndTextRetrieval
    from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        state = ViltForImageAndTextRetrieval(AutoConfig.from_pretrained(folder)).state_dict()
        shapes = {key: list(value.shape) for key, value in state.items() if value.is_floating_point()}
        write(folder, shapes)
        model = ViltForImageAndTextRetrieval.from_pretrained(folder).eval()
        processor, tokenizer = ViltImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        logits = []
        with torch.no_grad():
            for picture in titles():
                pixels = processor(Image.fromarray(picture), return_tensors="pt")
                each = []
                for text in TEXTS:
                    tokens = tokenizer([text], truncation=True, max_length=16, return_tensors="pt")
                    each.append(model(**tokens, **pixels).logits.item())
                logits.append(each)
    others = [_said_with(number, shapes) for number in range(len(PROCESSORS))]
    content = {"shapes": shapes, "logits": logits, "processors": others}
    FILE.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
