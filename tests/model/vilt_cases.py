"""A random ViLT, and transformers' logits of pictures and texts in `vilt.json`; weights and pictures follow from names.

The logits were computed by transformers 5.23.0, with Pillow and without torchvision. Where it is installed, this
computes them anew:

    PYTHONPATH=. python tests/model/vilt_cases.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from tests.model.family_cases import weights
from tests.model.picture_cases import pictures

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
    FILE.write_text(json.dumps({"shapes": shapes, "logits": logits}, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
