"""Compute a batch by a model of a family: `python -m benchmarks.peers.family_worker SYSTEM FOLDER FAMILY THREADS`.

SYSTEM is this toolkit's exported model by an engine (`ours_openvino`; `_bf16` behind it: in bfloat16), or a peer, which
imports nothing of this project: transformers in PyTorch (`torch`, `torch_compiled`), or its model in ONNX Runtime
(`onnxruntime`) or OpenVINO (`openvino`). `write` writes the model with random weights as transformers does, the batch,
and the peers' ONNX file into the folder; THREADS is then the number of layers, 0 for as many as published models have.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.answers import Stopwatch, answer_commands, take_stdout

ROWS, TOKENS, LONG, SECONDS, WORDS = 8, 128, 4096, 10, 3000
_BASE = {"num_hidden_layers": 12, "vocab_size": WORDS, "pad_token_id": 0, "num_labels": 1}
_POSITIONS = {
    "position_buckets": 256,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "max_relative_positions": -1,
}
_DEBERTA = {"relative_attention": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False,
            "type_vocab_size": 0, "layer_norm_eps": 1e-7, **_POSITIONS}  # fmt: skip
_SOUND = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "return_attention_mask": False}
_PICTURE = {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}}
# By family: classes of transformers for the network and its configuration, settings, and the processor's.
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ernie-nano": ("BertForSequenceClassification",
                   {**_BASE, "num_hidden_layers": 4, "hidden_size": 312, "intermediate_size": 1248}, {}),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", {**_BASE, "type_vocab_size": 1}, {}),
    "modernbert": ("ModernBertForSequenceClassification",
                   {**_BASE, "num_hidden_layers": 22, "classifier_pooling": "cls", "attn_implementation": "sdpa"}, {}),
    "deberta": ("DebertaV2ForSequenceClassification",
                {**_BASE, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, **_DEBERTA}, {}),
    "layoutlm": ("LayoutLMForSequenceClassification", _BASE, {}),
    "tapas": ("TapasForSequenceClassification", _BASE, {}),
    "vit": ("ViTModel", {"num_hidden_layers": 12, "patch_size": 32}, _PICTURE),
    "wav2vec2": ("Wav2Vec2Model", {"num_hidden_layers": 12}, _SOUND),
    "hubert": ("HubertModel", {"num_hidden_layers": 12}, _SOUND),
}  # fmt: skip


def batch_of(family: str) -> dict[str, np.ndarray]:
    """Return random rows, by the names of this toolkit's inputs."""
    draw = np.random.default_rng(0)
    if family == "vit":
        return {"pixels": draw.integers(0, 256, (ROWS, 3, 224, 224), np.uint8)}
    if family in ("wav2vec2", "hubert"):
        sound = draw.standard_normal((1, SECONDS * 16_000)).astype(np.float32)
        return {"samples": (sound - sound.mean()) / sound.std(), "lengths": np.array([sound.shape[1]])}
    rows, tokens = (1, LONG) if family == "modernbert" else (ROWS, TOKENS)
    types = np.zeros((rows, tokens), np.int64)
    if family == "layoutlm":  # the type, then the box of each word
        types = np.concatenate([types[:, :, None], np.sort(draw.integers(0, 1000, (rows, tokens, 4)))], axis=2)
    if family == "tapas":  # seven types, among them column and row, then the position within a cell of four tokens
        types, place = np.zeros((rows, tokens, 8), np.int64), np.arange(tokens - 16)
        types[:, 16:, 0], types[:, 16:, 1], types[:, 16:, 2] = 1, 1 + place // 4 % 7, 1 + place // 28
        types[:, :16, 7], types[:, 16:, 7] = np.arange(16), place % 4
    return {"input_ids": draw.integers(5, WORDS, (rows, tokens)), "token_type_ids": types}


def write(folder: Path, family: str, layers: int) -> None:
    """Write the model, the batch and the peers' ONNX file."""
    import torch
    import transformers

    name, settings, processor = FAMILIES[family]
    if layers:
        settings = {**settings, "num_hidden_layers": layers}
    model_class = getattr(transformers, name)
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**settings)).eval()
    (folder / "model").mkdir()
    if processor:
        (folder / "model" / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    else:
        getattr(model.classifier, "out_proj", model.classifier).weight.data *= 20  # else all logits are near 0
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(5, WORDS))]
        (folder / "model" / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        if family == "tapas":
            tokenizer = {"tokenizer_class": "TapasTokenizer"}
            (folder / "model" / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        else:
            transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(
                folder / "model"
            )
    model.save_pretrained(folder / "model")
    batch = batch_of(family)
    np.savez(folder / "batch.npz", **batch)
    module, arrays = as_module(family, model), peer_arrays(family, batch)
    sizes = {0: "rows"} if family == "vit" else {0: "rows", 1: "length"}
    axes: dict[str, Any] = {"dynamic_axes": {**dict.fromkeys(arrays, sizes), "output": {0: "rows"}}, "dynamo": False}
    if family == "tapas":  # which the older exporter, whose graphs are faster in both engines, refuses
        automatic = torch.export.Dim.AUTO
        axes = {"dynamic_shapes": (tuple({0: automatic, 1: automatic} for _ in arrays),), "dynamo": True}
    with torch.no_grad():
        torch.onnx.export(
            module, tuple(map(torch.from_numpy, arrays.values())), str(folder / "peer.onnx"),
            input_names=list(arrays), output_names=["output"], **axes,
        )  # fmt: skip


def peer_arrays(family: str, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return transformers' inputs of a batch."""
    if family == "vit":
        return {"pixel_values": batch["pixels"]}
    if family in ("wav2vec2", "hubert"):
        return {"input_values": batch["samples"]}
    ids, types = batch["input_ids"], batch["token_type_ids"]
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if family == "layoutlm":
        return {**inputs, "bbox": types[:, :, 1:].copy(), "token_type_ids": types[:, :, 0].copy()}
    if family == "tapas":
        return {**inputs, "token_type_ids": types[:, :, :7].copy()}
    return inputs


def as_module(family: str, model: Any) -> Any:
    """Return a module of the arrays, in their order, to logits `[rows, 1]` or vectors `[rows, size]`."""
    import torch

    names = list(peer_arrays(family, batch_of(family)))

    class OneOutput(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            given = dict(zip(names, inputs))
            if family == "vit":
                given["pixel_values"] = given["pixel_values"].float() / 127.5 - 1
            output = self.model(**given)
            if family == "vit":
                return output.last_hidden_state[:, 0]
            return output.last_hidden_state.mean(1) if family in ("wav2vec2", "hubert") else output.logits

    return OneOutput().eval()


def opened(system: str, folder: Path, family: str, threads: int) -> Callable[[], np.ndarray]:
    """Return the function that computes the batch."""
    batch = dict(np.load(folder / "batch.npz"))
    name, _, precision = system.removeprefix("ours_").partition("_")
    if system.startswith("ours"):
        from paddle_ranker import runtime

        runtime.prepare_command(threads)
        from paddle_ranker.model.load_options import LoadOptions
        from paddle_ranker.model.model_folder import MODEL
        from paddle_ranker.scoring.loading import open_model

        how = LoadOptions(engine=name, precision=precision or "fp32", threads=threads, device="cpu")
        model = open_model(folder / ("model" if name == "dygraph" else "exported"), MODEL, how)
        return lambda: model.engine.run(batch)[model.signature.read[0]]
    arrays = peer_arrays(family, batch)
    if name == "onnxruntime":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(folder / "peer.onnx"), settings)
        return lambda: np.asarray(session.run(None, arrays)[0])
    if name == "openvino":
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision or "f32"}
        compiled = openvino.Core().compile_model(str(folder / "peer.onnx"), "CPU", settings)
        return lambda: np.array(compiled(arrays)[0])
    import torch
    import transformers

    torch.set_num_threads(threads)
    kind = torch.bfloat16 if precision.endswith("bf16") else torch.float32
    model_class = getattr(transformers, FAMILIES[family][0])
    run, without_gradients = as_module(family, model_class.from_pretrained(folder / "model", dtype=kind)), torch.no_grad
    for parameter in run.parameters():
        parameter.requires_grad_(False)
    if precision.startswith("compiled"):
        from torch._inductor import config as inductor

        inductor.freezing = True
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
        run = torch.compile(run)
    inputs = [torch.from_numpy(array) for array in arrays.values()]

    def compute() -> np.ndarray:
        with without_gradients():
            found: np.ndarray = run(*inputs).float().numpy()
        return found

    return compute


def main(system: str, folder: Path, family: str, threads: int) -> None:
    """Answer every line with the seconds of the batch."""
    answers = take_stdout()
    compute = opened(system, folder, family, threads)
    compute()

    def answer(command: object) -> dict[str, float]:
        watch = Stopwatch()
        compute()
        return watch.took()

    answer_commands(answers, answer, sys.stdin, compute().tolist())


if __name__ == "__main__":
    _, given, place, row, count = sys.argv
    if given == "write":
        write(Path(place), row, int(count))
    else:
        main(given, Path(place), row, int(count))
