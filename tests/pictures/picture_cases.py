"""Random models of pictures and texts, and transformers' vectors of pictures and texts in `pictures.json`.

Weights and pictures follow from names and seeds. The vectors were computed by transformers 5.23.0, with Pillow and
without torchvision. Where it is installed, this computes them anew:

    PYTHONPATH=. python tests/pictures/picture_cases.py
"""

from __future__ import annotations

import io
import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file

from tests.model.family_cases import weights

FILE = Path(__file__).with_name("pictures.json")
TEXTS = ["a photo of a cat", "", "Cats,  and dogs!", "a cat " * 40, "红苹果"]
SIZES = [(40, 30), (1, 1), (10, 300), (33, 64), (1, 5000)]
_START, _END = "<|startoftext|>", "<|endoftext|>"
_PARTS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_VISION = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 36, "image_size": 32,
    "patch_size": 8, "num_channels": 3,
}  # fmt: skip
_TEXT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40, "vocab_size": 300,
    "max_position_embeddings": 20,
}  # fmt: skip
_IDS = {"bos_token_id": 298, "eos_token_id": 299, "pad_token_id": 299}
_SQUARE = {"size": {"height": 32, "width": 32}}
CASES: dict[str, dict[str, Any]] = {
    "clip": {
        "model_type": "clip", "projection_dim": 12, "vision_config": _VISION, "text_config": {**_TEXT, **_IDS},
    },
    "clip_of_old": {  # whose texts end with the largest id, and whose tokenizer pads with another
        "model_type": "clip", "projection_dim": 12, "vision_config": {**_VISION, "hidden_act": "gelu"},
        "text_config": {**_TEXT, **_IDS, "eos_token_id": 2, "pad_token_id": 1},
    },
    "chinese_clip": {
        "model_type": "chinese_clip", "projection_dim": 12, "vision_config": {**_VISION, "patch_size": 16},
        "text_config": {**_TEXT, "type_vocab_size": 2, "vocab_size": 60},
    },
    "siglip": {
        "model_type": "siglip", "vision_config": _VISION,
        "text_config": {**_TEXT, **_IDS, "hidden_size": 24, "projection_size": 24},
    },
    "vit": {"model_type": "vit", **_VISION},
}  # fmt: skip
_PROCESSORS: dict[str, dict[str, Any]] = {
    "clip": {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": _SQUARE["size"],
    },
    "chinese_clip": {"feature_extractor_type": "ChineseCLIPFeatureExtractor", "do_center_crop": False, **_SQUARE},
    "siglip": {"image_processor_type": "SiglipImageProcessor", **_SQUARE},
    "vit": {"image_processor_type": "ViTImageProcessor", **_SQUARE},
}  # fmt: skip


def pictures() -> list[np.ndarray]:
    """Return pictures of odd sizes, [height, width, 3] uint8."""
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for width, height in SIZES]


def write(folder: Path, name: str, shapes: dict[str, list[int]]) -> None:
    """Write a case's folder, as transformers would."""
    config = CASES[name]
    kind = config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(_PROCESSORS[kind]))
    save_file({key: np.asarray(array) for key, array in weights(shapes).items()}, folder / "model.safetensors")
    if kind == "chinese_clip":
        letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
        words = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            *letters,
            *(f"##{letter}" for letter in letters),
            *"红,!",
        ]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    elif kind != "vit":
        write_tokenizer(folder, "!" if name == "clip_of_old" else _END)


def write_tokenizer(folder: Path, padding: str, count: int = 300) -> None:
    """Write a tokenizer as CLIP's, of `count` tokens: bytes, whose last in a word has `</w>`, in small letters."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends = [f"{letter}</w>" for letter in letters if letter.isascii() or count > 300]
    pieces = ["!", *(letter for letter in letters if letter != "!"), *ends, "lo", "don"]
    last = "a</w>" if "a</w>" not in pieces[: count - 3] else "t</w>"
    pieces = [*pieces[: count - 3], "ca" if last in pieces[: count - 3] else last, _START, _END]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [pair for pair in (("c", "a"), ("l", "o")) if "".join(pair) in vocabulary]
    library = Tokenizer(models.BPE(vocabulary, merges, unk_token=_END, end_of_word_suffix="</w>"))
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    library.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(_PARTS), "removed", invert=True)
    library.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    ids = [(token, vocabulary[token]) for token in (_END, _START)]
    library.post_processor = processors.RobertaProcessing(*ids, trim_offsets=False, add_prefix_space=False)
    library.add_special_tokens([_START, _END])
    library.save(str(folder / "tokenizer.json"))
    roles = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": padding}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 20, **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


PIXEL_SETTINGS: list[dict[str, Any]] = [
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": _SQUARE["size"]},
    {"feature_extractor_type": "CLIPFeatureExtractor", "size": 33, "crop_size": 31, "resample": 2},
    {"image_processor_type": "ViTImageProcessor", "do_convert_rgb": True, "size": 30, "do_normalize": False},
    {"feature_extractor_type": "ViTFeatureExtractor", "do_convert_rgb": True, "resample": 0,
     "size": {"height": 20, "width": 45}},
    {"image_processor_type": "SiglipImageProcessor", "size": {"height": 40, "width": 40}, "rescale_factor": 0.0078},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20}, "crop_size": 33, "resample": 1},
    {"image_processor_type": "CLIPImageProcessor", "do_resize": False, "crop_size": {"height": 33, "width": 32}},
    {"image_processor_type": "ChineseCLIPImageProcessor", "size": {"height": 50, "width": 60}, "resample": 5,
     "crop_size": {"height": 33, "width": 61}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
    {"image_processor_type": "CLIPImageProcessor", "size": [36, 40], "crop_size": [31, 35], "do_pad": None},
    {"image_processor_type": "CLIPImageProcessor", "size": {"height": 36, "width": 40}, "do_center_crop": None},
    {"image_processor_type": "CLIPImageProcessor", "size": 50, "crop_size": 32, "do_resize": None},
    {"image_processor_type": "ViTImageProcessor", "size": [20, 30], "crop_size": None, "do_convert_rgb": True},
    {"image_processor_type": "SiglipImageProcessor", "size": [33, 20], "default_to_square": None},
]  # fmt: skip
_ODD = [
    *SIZES, (224, 224), (17, 1), (30, 30), (2, 3), (3000, 10), (31, 47), (223, 225), (640, 480), (1200, 900), (7, 100),
    (100, 7), (5000, 1),
]  # fmt: skip

# A CLIP in a folder of sentence-transformers.
SENTENCES = {"prompts": {"query": "a photo of ", "document": ""}, "truncate_dim": 7, "similarity_fn_name": "dot"}


def write_steps(folder: Path, steps: list[tuple[str, str]]) -> None:
    """Write sentence-transformers' list of steps: their classes and folders."""
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
        for number, (name, path) in enumerate(steps)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    for _, path in steps:
        (folder / path).mkdir(exist_ok=True)


def _of_sentences(shapes: dict[str, list[int]], normalizes: bool) -> dict[str, Any]:
    """Return sentence-transformers 6.2.0's vectors with `SENTENCES`, of pictures and of `TEXTS` as queries."""
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, "clip", shapes)
        for file in ("preprocessor_config.json", "tokenizer_config.json"):
            settings = json.loads((folder / file).read_text())
            (folder / file).write_text(json.dumps({**settings, "processor_class": "CLIPProcessor"}))
        write_steps(folder, [("CLIPModel", "")] + [("Normalize", "1_Normalize")] * normalizes)
        (folder / "config_sentence_transformers.json").write_text(json.dumps(SENTENCES))
        model = SentenceTransformer(str(folder), device="cpu")
        images = [Image.fromarray(picture) for picture in pictures()]
        return {"pictures": model.encode(images).tolist(), "texts": model.encode_query(TEXTS).tolist()}


def odd_files() -> dict[str, bytes]:
    """Return files of pictures by name: of odd sizes, and in all modes, with alpha, turned, animated."""
    rng = np.random.default_rng(7)
    files = {}

    def add(name: str, image: Any, kind: str = "PNG", **settings: Any) -> None:
        stream = io.BytesIO()
        image.save(stream, kind, **settings)
        files[name] = stream.getvalue()

    for width, height in _ODD:
        small = rng.integers(0, 256, (min(height, 90), min(width, 90), 3), np.uint8)
        add(f"{width} x {height}", Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST))
    colours = Image.fromarray(rng.integers(0, 256, (40, 52, 4), np.uint8), "RGBA")
    for mode in ("RGBA", "RGB", "L", "LA", "P", "1"):
        add(mode, colours.convert(mode) if mode != "LA" else colours.convert("L").convert("LA"))
    alpha = colours.convert("LA")
    add("LA of alpha", alpha)
    add("P with a transparent colour", colours.convert("P"), transparency=3)
    for mode in ("RGB", "L", "CMYK"):
        add(f"JPEG {mode}", colours.convert("RGB").convert(mode), "JPEG", quality=95)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        add(f"turned {turn}", colours.convert("RGB"), "PNG", exif=exif)
    add("GIF of two frames", colours.convert("P"), "GIF", save_all=True, append_images=[colours.convert("L")])
    add("BMP", colours.convert("RGB"), "BMP")
    add("TIFF CMYK", colours.convert("RGB").convert("CMYK"), "TIFF")
    add("WEBP", colours, "WEBP", lossless=True, exact=True)
    return files


def crc(pixels: np.ndarray) -> int:
    """Return the checksum of pixels, `[3, height, width]` uint8."""
    return zlib.crc32(np.ascontiguousarray(pixels).tobytes())


def _pixels(settings: dict[str, Any], data: bytes, classes: dict[str, Any]) -> int:
    """Return the checksum of transformers' pixels, before they are normalised."""
    name = settings.get("image_processor_type", settings.get("feature_extractor_type", ""))
    start = name.replace("ImageProcessor", "").replace("FeatureExtractor", "")
    kind = {"CLIP": "clip", "ChineseCLIP": "chinese_clip", "Siglip": "siglip", "ViT": "vit"}[start]
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "preprocessor_config.json").write_text(json.dumps(settings))
        processor = classes[kind].from_pretrained(temporary)
    processor.do_normalize = processor.do_rescale = False
    return crc(np.asarray(processor(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))["pixel_values"][0]))


def main() -> None:
    """Compute the vectors with transformers, and write the file."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoModel
    from transformers.models.chinese_clip.image_processing_pil_chinese_clip import ChineseCLIPImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    classes = dict(zip(_PROCESSORS, (CLIPImageProcessorPil, ChineseCLIPImageProcessorPil, SiglipImageProcessorPil,
                                     ViTImageProcessorPil)))  # fmt: skip
    files = odd_files()
    answers: dict[str, Any] = {
        "pixels": [{name: _pixels(settings, data, classes) for name, data in files.items()}
                   for settings in PIXEL_SETTINGS]
    }  # fmt: skip
    for name, config in CASES.items():
        kind = config["model_type"]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "config.json").write_text(json.dumps(config))
            state = AutoModel.from_config(AutoConfig.from_pretrained(folder)).state_dict()
            shapes = {key: list(value.shape) for key, value in state.items() if value.is_floating_point()}
            write(folder, name, shapes)
            model = AutoModel.from_pretrained(folder).eval()
            processor = classes[kind].from_pretrained(folder)
            images = [Image.fromarray(picture) for picture in pictures()]
            with torch.no_grad():
                pixels = torch.tensor(np.stack([processor(image)["pixel_values"][0] for image in images]))
                if kind == "vit":
                    answers[name] = {"shapes": shapes, "pictures": model(pixels).last_hidden_state[:, 0].tolist()}
                    continue
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
                padding = "max_length" if kind == "siglip" else True
                tokens = tokenizer(TEXTS, padding=padding, truncation=True, max_length=20, return_tensors="pt")
                if kind == "siglip":  # whose tokenizer returns no mask: padding is read
                    del tokens["attention_mask"]
                found = [model.get_image_features(pixels), model.get_text_features(**tokens)]
                found = [getattr(vectors, "pooler_output", vectors) for vectors in found]
            answers[name] = {
                "shapes": shapes, "pictures": found[0].tolist(), "texts": found[1].tolist(),
            }  # fmt: skip
    answers["sentences"] = [_of_sentences(answers["clip"]["shapes"], normalizes) for normalizes in (False, True)]
    FILE.write_text(json.dumps(answers, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
