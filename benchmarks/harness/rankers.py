"""Make the ranker of the speed benchmarks, with random weights or from a folder, in the formats that systems load."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.harness.workers import run_program
from benchmarks.inputs import PeerOptions, graded_pairs_and_vocabulary
from paddle_ranker.data.rows.records import LabeledPair, RecordFile
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.vocabulary import train_wordpiece_vocabulary, write_vocabulary
from paddle_ranker.errors import UsageError
from paddle_ranker.model.model_folder import RANKER, load_model

_ERNIE_3 = {
    "vocab_size": 40_000,  # fixed for any vocabulary file, because the optimizer's work depends on it
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 2048,
    "type_vocab_size": 4,
    "use_task_id": True,
    "task_type_vocab_size": 16,
    "pad_token_id": 0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
}
_SHARED = {"hidden_act": "gelu", "type_vocab_size": 1, "pad_token_id": 0, "initializer_range": 0.02}
# Families other than ERNIE share a small vocabulary: a larger table would cost memory, but no time.
FAMILY_SHAPES: dict[str, dict[str, Any]] = {
    "xlm-roberta-base": {**_SHARED, "model_type": "xlm-roberta", "num_hidden_layers": 12, "hidden_size": 768,
                         "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 514,
                         "layer_norm_eps": 1e-5},
    "modernbert-small": {**_SHARED, "model_type": "modernbert", "num_hidden_layers": 10, "hidden_size": 384,
                         "num_attention_heads": 6, "intermediate_size": 576, "max_position_embeddings": 7999,
                         "layer_norm_eps": 1e-5, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
                         "type_vocab_size": 0},
    "modernbert-base": {**_SHARED, "model_type": "modernbert", "num_hidden_layers": 22, "hidden_size": 768,
                        "num_attention_heads": 12, "intermediate_size": 1152, "max_position_embeddings": 8192,
                        "layer_norm_eps": 1e-5, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
                        "type_vocab_size": 0},
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    # "tiny" is for trying the command.
    "tiny": {**_ERNIE_3, "num_hidden_layers": 2, "hidden_size": 24, "intermediate_size": 96},
    "nano": {**_ERNIE_3, "num_hidden_layers": 4, "hidden_size": 312, "intermediate_size": 1248},
    "m3e-small": {**_ERNIE_3, "num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8,
                  "intermediate_size": 2048},
    "medium": {**_ERNIE_3, "num_hidden_layers": 6, "hidden_size": 768, "intermediate_size": 3072},
}  # fmt: skip
ALL_SHAPES = {**SHAPES, **FAMILY_SHAPES}
MAX_SEQ_LENGTH = 128
TRAINED_VOCABULARY = 12_000
CALIBRATION_PAIRS = 512


@dataclass(frozen=True)
class Prepared:
    """The graded pairs of a file, and the encoder and configuration of the ranker that scores them."""

    file: Path
    graded: list[LabeledPair]
    pair_encoder: PairEncoder
    config: dict[str, Any]


def prepare_ranker(
    options: PeerOptions, shape: str, seed: int, folder: Path, max_seq_length: int = MAX_SEQ_LENGTH
) -> Prepared:
    """Read the pairs, and write a ranker into `folder`: that of `--model`, else one of `shape` with random weights."""
    path, vocab = graded_pairs_and_vocabulary(options.file, options.vocab)
    graded = list(RecordFile(path, LabeledPair))
    if options.model:
        return Prepared(path, graded, *copy_ranker(folder, Path(options.model)))
    return Prepared(path, graded, *write_random_ranker(folder, ALL_SHAPES[shape], vocab, graded, seed, max_seq_length))


def write_random_ranker(
    folder: Path,
    shape: dict[str, Any],
    vocab: Optional[Path],
    graded: Sequence[LabeledPair],
    seed: int,
    max_seq_length: int = MAX_SEQ_LENGTH,
) -> tuple[PairEncoder, dict[str, Any]]:
    """Write a ranker of random weights into `ranker`; return its encoder and configuration."""
    import paddle

    from paddle_ranker.model.families import config_from, family_of
    from paddle_ranker.model.info import RankerInfo
    from paddle_ranker.model.network import RankerNetwork
    from paddle_ranker.model.ranker_folder import save_ranker

    if vocab is None:
        texts = [text for pair in graded for text in (pair.query, pair.title)]
        write_vocabulary(folder, train_wordpiece_vocabulary(texts, TRAINED_VOCABULARY))
    else:
        (folder / "vocab.txt").write_bytes(vocab.read_bytes())
    encoder = PairEncoder.from_folder(folder, max_seq_length)
    config = config_from({**shape, "vocab_size": max(encoder.token_to_id.values()) + 1})
    paddle.seed(seed)
    network = RankerNetwork(config, None, encoder=family_of(config.model_type).network(config))
    # Larger than a new head's weights: probabilities near 0.5 would agree even if they were computed wrongly.
    network.head.weight.set_value(network.head.weight * np.float32(20))
    network.eval()
    (folder / "ranker").mkdir()
    info = RankerInfo(kind="pairwise", max_seq_length=max_seq_length, match_embeddings=False)
    save_ranker(folder / "ranker", network, encoder, info)
    return encoder, dataclasses.asdict(config)


def copy_ranker(folder: Path, source: Path) -> tuple[PairEncoder, dict[str, Any]]:
    """Copy the ranker of `source` into `folder` as `ranker`; return its encoder and configuration.

    Raises `UsageError` if it has more than an encoder and a head, because transformers supports nothing else.
    """
    from paddle_ranker.model.ranker_folder import load_single, save_ranker

    parts = load_single(source)
    plain = isinstance(parts.info.match_embeddings, bool) and not parts.info.match_embeddings
    if not plain or parts.network.lexical is not None or parts.info.calibration is not None:
        raise UsageError(
            f"--model {source}: has match embeddings, lexical features or a calibration, which the peers lack; name a "
            "plain ranker (--match_embeddings false)"
        )
    (folder / "ranker").mkdir()
    save_ranker(folder / "ranker", parts.network, parts.row_encoder, parts.info)
    return parts.row_encoder, dataclasses.asdict(parts.network.config)


def export_ranker(folder: Path, pairs: EncodedPairs, *, onnx: bool, int8: bool = True) -> None:
    """Write the folders for the engines and the peers: `exported` and `hf`.

    onnx: whether `exported` gets an ONNX file
    int8: whether it also gets an ONNX file in int8, calibrated on the first `CALIBRATION_PAIRS` of `pairs`
    """
    from paddle_ranker.commands.convert import ConvertOptions, convert
    from paddle_ranker.encoding.batching import scoring_batches
    from paddle_ranker.export.quantizer import Quantizer
    from paddle_ranker.export.static_graph import export_model
    from paddle_ranker.scoring.engines.precisions import has_int8

    exported, _ = export_model(load_model(folder / "ranker", RANKER), folder / "exported", onnx=onnx)
    convert(ConvertOptions(source=str(folder / "ranker"), target=str(folder / "hf"), to="hf"))
    if not (onnx and int8):
        return
    assert exported.onnx is not None
    quantizer = Quantizer(exported.onnx, folder)
    sample = pairs.take(np.arange(min(len(pairs), CALIBRATION_PAIRS)))
    batches = [sample.pad(rows) for rows in scoring_batches(sample.lengths, 4096, 4096)]
    model = quantizer.quantize(quantizer.calibrate(batches), full_range=has_int8())
    exported.onnx.with_suffix(".int8.onnx").write_bytes(model.SerializeToString())


def export_peers(python: str, folder: Path) -> None:
    """Export `hf` in `folder` to ONNX files with the interpreter `python` of the peers; `RankerError` if that fails."""
    command = [python, "-m", "benchmarks.peers.inference_worker", "export", str(folder)]
    run_program(command, "the peers' ONNX file could not be written, so leave them out with --systems")
