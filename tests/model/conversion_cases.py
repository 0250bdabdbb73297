"""Rankers of every family, written by `convert --to hf`, and the logits that transformers then gives pairs.

Each has a tokenizer of `tokenizer_changes` with an added token, once with special tokens in texts and once without.
`conversion_cases.json` holds for each folder a digest of the tokenizer's files, and the logits of transformers' Auto
classes (they were of 5.23.0). The first line writes the folders, the second, where transformers is installed, the
answers:

    PYTHONPATH=. python tests/model/conversion_cases.py write FOLDER
    PYTHONPATH=. python tests/model/conversion_cases.py answer FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.encoding import id_cases
from tests.model import decoder_cases
from tests.model.family_cases import changed_case, weights
from tests.model.tokenizer_changes import CONFIG, KINDS, LIBRARY, TEXTS, marked_folder, read, vocabulary_of, write

FILE = Path(__file__).with_suffix(".json")
FAMILIES = [kind for kind in KINDS if not kind.startswith(("clip", "siglip"))]
CASES = [f"{kind}{marked}" for kind in FAMILIES for marked in ("", " marked")]
MASK_ID, ADDED = 555, "<|added|>"
TOKENIZER = (LIBRARY, CONFIG)  # files of a written folder of which the ids of texts follow

_WORDS = ("word_embeddings.weight", "embed_tokens.weight", "tok_embeddings.weight")


def pairs(texts: list[str], has_ends: bool) -> list[tuple[str, str]]:
    """Return pairs of ordinary texts, and of texts with special tokens.

    has_ends: whether pairs have special tokens, so that one of empty texts has tokens
    """
    every = [*TEXTS, *texts, f"an {ADDED} token{ADDED}", f" {ADDED}"]
    return [*zip(every, every[1:] + every[:1]), *([("", "")] if has_ends else []), ("a" * 70, TEXTS[0])]


def write_model(folder: Path, case: str, folders: Path) -> list[str]:
    """Write the folder of transformers from which a case is converted; return texts with special tokens.

    folders: the folders of `id_cases`
    """
    kind = case.removesuffix(" marked")
    _, _, texts = marked_folder(folder, kind, folders)
    config, shapes = changed_case(KINDS[kind][1])
    ids = _added(folder)
    size = max(ids.values()) + 1
    if kind == "mpnet":  # whose padding has the id 1
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        lines[:2] = lines[1::-1]
        (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        ids["<pad>"] = 1
    word = next(name for name in shapes if name.endswith(_WORDS))
    shapes = {**shapes, word: [size, *shapes[word][1:]]}
    pad = next(ids[token] for token in ("[PAD]", "<pad>", decoder_cases.END) if token in ids)
    config = {**config, "vocab_size": size, "pad_token_id": pad}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(weights(shapes), folder / "model.safetensors", {"format": "pt"})
    return texts


def _added(folder: Path) -> dict[str, int]:
    """Add a token that is not special to a tokenizer's files, with the first free id; return the ids of all tokens."""
    library = read(folder / LIBRARY)
    ids = {**vocabulary_of(folder), **{token["content"]: token["id"] for token in library.get("added_tokens", [])}}
    if not ids:  # XLM-RoBERTa's SentencePiece model, whose ids are one above
        ids = {"<pad>": 1, "<mask>": MASK_ID}
    ids[ADDED] = max(ids.values()) + 1
    if not library:
        write(folder / "added_tokens.json", {ADDED: ids[ADDED]})
        return ids
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    library["added_tokens"].append({"id": ids[ADDED], "content": ADDED, **flags})
    write(folder / LIBRARY, library)
    return ids


def write_converted(folder: Path, case: str, folders: Path) -> tuple[Path, Path, list[tuple[str, str]]]:
    """Convert a case's folder, and back; return the folder of this toolkit, the one of transformers, and the pairs."""
    from paddle_ranker.commands.convert import ConvertOptions, convert

    texts = write_model(folder / "hf", case, folders)
    ours, back = folder / "ours", folder / "back"
    convert(
        ConvertOptions(source=str(folder / "hf"), target=str(ours), special_tokens_in_texts=case.endswith(" marked"))
    )
    convert(ConvertOptions(source=str(ours), target=str(back), to="hf"))
    return ours, back, pairs(texts, not case.startswith("qwen3"))


def digest(folder: Path) -> str:
    """Return a digest of a written folder's tokenizer."""
    read = [json.loads((folder / name).read_text(encoding="utf-8")) for name in TOKENIZER]
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:16]


def our_logits(folder: Path, given: list[tuple[str, str]]) -> Any:
    """Return the logits of a folder of this toolkit."""
    from paddle_ranker.model.model_folder import RANKER
    from paddle_ranker.scoring.loading import open_model
    from paddle_ranker.scoring.scorer import Scorer

    model = open_model(folder, RANKER)
    scorer = Scorer(model.engine, model.row_encoder)
    queries, titles = zip(*given)
    return np.asarray(scorer.logits(scorer.encode(queries, titles)))


def their_logits(folder: Path, given: list[tuple[str, str]]) -> list[float]:
    """Return the logits of transformers' Auto classes."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for query, title in given:
        row = tokenizer([query], [title], truncation=True, return_tensors="pt")  # not in lists, "" is no text
        with torch.no_grad():
            logits = model(**row).logits[0].double().tolist()
        found.append(logits[-1] - (logits[0] if len(logits) == 2 else 0))
    return found


def main(task: str, base: Path) -> None:
    """Write the folders, or the answers for them."""
    answers: dict[str, Any] = {}
    if task == "write":
        id_cases.unpack(base / "cases")
    for case in CASES:
        folder = base / case
        if task == "write":
            folder.mkdir()
            try:
                ours, _, given = write_converted(folder, case, base / "cases")
                text = json.dumps([our_logits(ours, given).tolist(), given])
            except Exception as error:
                print(case, type(error).__name__, str(error)[:300], flush=True)
                continue
            (folder / "pairs.json").write_text(text, encoding="utf-8")
        elif (folder / "pairs.json").is_file():
            ours, given = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
            try:
                logits = their_logits(folder / "back", given)
            except Exception as error:
                print(case, type(error).__name__, str(error)[:300], flush=True)
                continue
            answers[case] = [digest(folder / "back"), [round(logit, 6) for logit in logits]]
            wrong = [(pair, a, b) for pair, a, b in zip(given, ours, logits) if abs(a - b) > 1e-5]
            print(case, len(given), f"{len(wrong)} differ", wrong[:3], flush=True)
    if answers:
        FILE.write_text(json.dumps(answers, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
