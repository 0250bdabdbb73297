"""Made-up tables with dates, numbers and ragged rows, and what transformers' TapasTokenizer and network say of them.

`tables.json` has the answers of transformers 5.23.0: a checksum of the ids and of the types of each table, and the
logit of a tiny random network. Where it and pandas are installed, this computes them anew:

    PYTHONPATH=. python tests/model/table_cases.py
"""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.model.family_cases import weights

FILE = Path(__file__).with_name("tables.json")
TABLES, LENGTH = 500, 128
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "Sept", "Oct", "Dec"]
PLAIN = "year city total the of in first two three ten north blue river st grand cup open final team points".split()  # noqa: SIM905
PIECES = [*PLAIN, *(month.lower() for month in MONTHS), *"0123456789abcdefghijklmnopqrstuvwxyz,.-/?%$()|"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EMPTY]", *PIECES, *(f"##{piece}" for piece in PIECES)]
CONFIG: dict[str, Any] = {
    "architectures": ["TapasForSequenceClassification"],
    "model_type": "tapas",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 512,
    "type_vocab_sizes": [3, 256, 256, 2, 256, 256, 10],
    "num_labels": 2,
}


def shapes() -> dict[str, list[int]]:
    """Return the names and shapes of the network's parameters in transformers."""
    size, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    found = {"embeddings.word_embeddings.weight": [len(VOCABULARY), size]}
    found["embeddings.position_embeddings.weight"] = [512, size]
    for number, rows in enumerate(CONFIG["type_vocab_sizes"]):
        found[f"embeddings.token_type_embeddings_{number}.weight"] = [rows, size]
    layers = [f"encoder.layer.{number}." for number in range(2)]
    linear = {f"{layer}attention.self.{name}": (size, size) for layer in layers for name in ("query", "key", "value")}
    linear.update({f"{layer}attention.output.dense": (size, size) for layer in layers})
    linear.update({f"{layer}intermediate.dense": (inner, size) for layer in layers})
    linear.update({f"{layer}output.dense": (size, inner) for layer in layers})
    linear["pooler.dense"] = (size, size)
    for name, shape in linear.items():
        found.update({f"{name}.weight": [*shape], f"{name}.bias": [shape[0]]})
    norms = ["embeddings", *(f"{layer}{part}" for layer in layers for part in ("attention.output", "output"))]
    for name in norms:
        found.update({f"{name}.LayerNorm.weight": [size], f"{name}.LayerNorm.bias": [size]})
    found = {f"tapas.{name}": shape for name, shape in found.items()}
    return {**found, "classifier.weight": [2, size], "classifier.bias": [2]}


def cases() -> list[tuple[str, list[list[str]]]]:
    """Return questions and tables; a table's first row is its header, and other rows may be shorter."""
    draw = np.random.RandomState(7)
    return [(_question(draw), _table(draw)) for _ in range(TABLES)]


def _cell(draw: np.random.RandomState, kind: int) -> str:
    year, month, day = draw.randint(1690, 2030), draw.randint(12), draw.randint(1, 33)
    number = int(draw.choice([draw.randint(20), draw.randint(3000), draw.randint(10**7)]))
    forms = {
        0: [f"{number}", f"{number:,}", f"-{number}", f"{number / 100}", f"${number:,}", f"{number}%", f"+ {number}",
            f"{number % 40}{draw.choice(['st', 'nd', 'rd', 'th'])}", f".{number}", f"{number} of {number + 3}"],
        1: [f"{MONTHS[month]} {day}, {year}", f"{day} {MONTHS[month]} {year}", f"{year}-{month + 1:02}-{day:02}",
            f"{day:02}.{month + 1:02}.{year}", f"{month + 1}-{day}-{year}", f"{MONTHS[month][:3]} {year}",
            f"{MONTHS[month]} {day}", f"{year}", f"{year}s", f"{year}-{month + 1}", f"Monday, {MONTHS[month]} {day}"],
        2: ["", "-", "n/a", "?", "NaN", " ", "--", "_"],
        3: [*PLAIN, "the grand final", "open cup", "Two", "twelfth", "北京", "x1 y2", "a|b", "[SEP]x"[5:]],
    }  # fmt: skip
    options = forms[kind]
    return str(options[draw.randint(len(options))])


def _table(draw: np.random.RandomState) -> list[list[str]]:
    width, rows = draw.randint(1, 6), int(draw.choice([0, 1, 3, 8, 20, 60], p=[0.02, 0.1, 0.3, 0.4, 0.15, 0.03]))
    kinds = draw.randint(0, 4, width)
    form = draw.random_sample(width) < 0.5  # whether the column's cells are alike
    firsts = [draw.randint(1 << 30) for _ in range(width)]
    table = [[_cell(draw, int(draw.choice([0, 1, 3, 3]))) or "x" for _ in range(width)]]
    for _ in range(rows):
        row = []
        for column in range(width):
            kind = int(kinds[column] if draw.random_sample() < 0.85 else draw.randint(4))
            if form[column] and kind < 2:
                draw_form = np.random.RandomState(firsts[column])
                draw_form.randint(1690, 2030)
            row.append(_cell(draw, kind))
        table.append(row[: draw.randint(0, width + 1)] if draw.random_sample() < 0.1 else row)
    return table


def _question(draw: np.random.RandomState) -> str:
    parts = [str(draw.choice(PLAIN)) for _ in range(draw.randint(1, 6))]
    for _ in range(draw.randint(0, 3)):
        parts.insert(draw.randint(len(parts) + 1), _cell(draw, int(draw.randint(0, 2))))
    return " ".join(parts) + "?" * draw.randint(2)


def checksum(ids: Any, types: Any) -> int:
    """Return a checksum of a table's ids, `[length]`, and types, `[length, 7]`."""
    return zlib.crc32(np.asarray(types, np.int64).tobytes(), zlib.crc32(np.asarray(ids, np.int64).tobytes()))


def write_folder(folder: Path) -> Path:
    """Write the transformers folder of the network and the tokenizer."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    save_file(weights(shapes()), folder / "model.safetensors", {"format": "pt"})
    return folder


def main() -> None:
    """Write the answers of the library."""
    import pandas
    import torch
    from transformers import TapasForSequenceClassification, TapasTokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = write_folder(Path(name))
        tokenizer = TapasTokenizer(str(folder / "vocab.txt"))
        model = TapasForSequenceClassification.from_pretrained(folder).eval()
    sums, logits = list[int](), list[float]()
    for question, (header, *rows) in cases():
        full = [[*row, *[""] * (len(header) - len(row))] for row in rows]
        table = pandas.DataFrame(full, columns=header, dtype=object)
        said = tokenizer(table, question, truncation="drop_rows_to_fit", max_length=LENGTH)
        ids, types = np.array(said["input_ids"]), np.array(said["token_type_ids"])
        sums.append(checksum(ids, types))
        with torch.no_grad():
            found = model(input_ids=torch.tensor(ids[None]), token_type_ids=torch.tensor(types[None])).logits
        logits.append(round(float(found[0, 1] - found[0, 0]), 6))
    FILE.write_text(json.dumps({"checksums": sums, "logits": logits}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
