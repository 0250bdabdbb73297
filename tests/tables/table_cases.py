"""Made-up tables with dates, numbers and ragged rows, and what transformers' TapasTokenizer and network say of them.

`tables.json` has the answers of transformers 5.23.0: a checksum of the ids and of the types of each table, and the
logit of a tiny random network. `table_answers.json` has the logits of tokens and the cells and operations of networks
with the heads of TapasForQuestionAnswering. Where it and pandas are installed, this computes them anew:

    PYTHONPATH=. python tests/tables/table_cases.py
"""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from typing import Any, Optional

import numpy as np

from tests.model.family_cases import weights

FILE = Path(__file__).with_name("tables.json")
ANSWERS = FILE.with_name("table_answers.json")
TABLES, LENGTH, ANSWERED = 500, 128, 8
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
_OPERATIONS = {"0": "NONE", "1": "SUM", "2": "AVERAGE", "3": "COUNT"}
# Settings of networks that name cells, such as those of WikiTableQuestions, SQA, and of several columns.
NETWORKS: dict[str, dict[str, Any]] = {
    "operations": {"num_aggregation_labels": 4, "aggregation_labels": _OPERATIONS, "temperature": 0.05},
    "few": {"num_aggregation_labels": 2, "max_num_rows": 4, "max_num_columns": 3, "temperature": 0.05},
    "absolute": {"reset_position_index_per_cell": False, "allow_empty_column_selection": True},
    "columns": {"select_one_column": False},
    "cells": {"select_one_column": False, "average_logits_per_cell": True, "temperature": 0.05},
}

# Settings of tokenizer_config.json that limit tables, and sizes of the tables of embeddings.
LIMITS: list[tuple[dict[str, Any], list[int]]] = [
    ({"max_row_id": 4}, CONFIG["type_vocab_sizes"]),
    ({"max_row_id": 2, "max_column_id": 4}, CONFIG["type_vocab_sizes"]),
    ({"model_max_length": 6}, CONFIG["type_vocab_sizes"]),
    ({"model_max_length": 3, "max_row_id": 1000, "max_column_id": 9}, CONFIG["type_vocab_sizes"]),
    ({"max_row_id": None, "min_question_length": 0, "empty_token": "[EMPTY]"}, [4, 300, 320, 3, 310, 305, 12]),
    ({}, [2, 10, 70, 1, 70, 70, 8]),
]
LIMITED, LONG = 40, 512  # number of tables for each, and maximum length in tokens


def limited_cases() -> list[tuple[str, list[list[str]]]]:
    """Return questions and tables for `LIMITS`; the last table is long."""
    return [*cases()[:LIMITED], ("total points", [["year"], *([str(row)] for row in range(1990, 2270))])]


def shapes(operations: Optional[int] = None, sizes: Optional[list[int]] = None) -> dict[str, list[int]]:
    """Return the names and shapes of a network's parameters in transformers.

    sizes: sizes of the tables of embeddings of a token's place; None: the usual ones
    operations: number of operations of a network that names cells; None: a classifier
    """
    size, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    found = {"embeddings.word_embeddings.weight": [len(VOCABULARY), size]}
    found["embeddings.position_embeddings.weight"] = [512, size]
    for number, rows in enumerate(sizes or CONFIG["type_vocab_sizes"]):
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
    if operations is not None:
        found.update({"output_weights": [size], "column_output_weights": [size]})
        found.update({"output_bias": [], "column_output_bias": []})
        if operations:
            found["aggregation_classifier.weight"] = [operations, size]
            found["aggregation_classifier.bias"] = [operations]
        return found
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


def write_folder(folder: Path, network: Optional[str] = None) -> Path:
    """Write the transformers folder of a network and the tokenizer; `network` is a name of `NETWORKS`."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config, count = CONFIG, None
    if network is not None:
        config = {**CONFIG, **NETWORKS[network], "architectures": ["TapasForQuestionAnswering"]}
        count = config.get("num_aggregation_labels", 0)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    arrays = {name: np.asarray(array) for name, array in weights(shapes(count)).items()}
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_limited(folder: Path, number: int) -> Path:
    """Write the folder of the limits `LIMITS[number]`."""
    from safetensors.numpy import save_file

    settings, sizes = LIMITS[number]
    write_folder(folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "type_vocab_sizes": sizes}), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "TapasTokenizer", **settings}))
    arrays = {name: np.asarray(array) for name, array in weights(shapes(None, sizes)).items()}
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    return folder


def _limited(number: int) -> list[Optional[float]]:
    """Return transformers' logits of the limited tables; None where it raises an error."""
    import pandas
    import torch
    from transformers import TapasForSequenceClassification, TapasTokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = write_limited(Path(name), number)
        tokenizer = TapasTokenizer.from_pretrained(folder)
        model = TapasForSequenceClassification.from_pretrained(folder).eval()
    found = list[Optional[float]]()
    for question, (header, *rows) in limited_cases():
        full = [[*row, *[""] * (len(header) - len(row))] for row in rows]
        table = pandas.DataFrame(full, columns=header, dtype=object)
        try:
            said = tokenizer(table, question, truncation="drop_rows_to_fit", max_length=LONG, return_tensors="pt")
            with torch.no_grad():
                logits = model(**said).logits
            found.append(round(float(logits[0, 1] - logits[0, 0]), 6))
        except (ValueError, IndexError):
            found.append(None)
    return found


def main() -> None:
    """Write the answers of the library."""
    import pandas
    import torch
    from transformers import TapasForQuestionAnswering, TapasForSequenceClassification, TapasTokenizer

    def inputs(question: str, rows: list[list[str]]) -> Any:
        header, *below = rows
        full = [[*row, *[""] * (len(header) - len(row))] for row in below]
        table = pandas.DataFrame(full, columns=header, dtype=object)
        return tokenizer(
            table, question, truncation="drop_rows_to_fit", max_length=LENGTH, padding="longest", return_tensors="pt"
        )

    answers: dict[str, list[Any]] = {}
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = write_folder(Path(temporary), name)
            tokenizer = TapasTokenizer(str(folder / "vocab.txt"))
            network = TapasForQuestionAnswering.from_pretrained(folder).eval()
        for question, rows in cases()[:ANSWERED]:
            given = inputs(question, rows)
            with torch.no_grad():
                # Without labels, it computes no logits of networks that select from several columns.
                labels = None if network.config.select_one_column else torch.zeros(given["input_ids"].shape)
                found = network(**given, labels=labels)
            said = found.logits_aggregation
            cells, *operation = tokenizer.convert_logits_to_predictions(given, found.logits.clone(), said)
            in_table = (given["token_type_ids"][0, :, 2] > 0).numpy()
            of_tokens = [None if one < -5000 else round(float(one), 5) for one in found.logits[0].numpy()[in_table]]
            answers.setdefault(name, []).append(
                {
                    "logits": of_tokens,
                    "operations": None if said is None else [round(float(one), 5) for one in said[0]],
                    "cells": cells[0] if cells else [],
                    "operation": operation[0][0] if operation else None,
                }
            )
    ANSWERS.write_text(json.dumps(answers, separators=(",", ":")) + "\n", encoding="utf-8")
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
    limited = [_limited(number) for number in range(len(LIMITS))]
    content = {"checksums": sums, "logits": logits, "limited": limited}
    FILE.write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
