"""Make the files and folders that the pages' commands speak of, small enough for every command to take seconds."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from paddle_ranker.data.rows.beir import write_beir
from tests.export_cases import write_case
from tests.pages.test_pdf import pdf_of, shown
from tests.tiny import change_json, write_encoder, write_ranker

SUBJECTS = ("深度学习", "水稻病害", "老年人护理", "经济增长", "语言文化", "神经网络", "农业教育", "法律研究")
QUERIES = tuple(f"{one}{way}" for one in SUBJECTS for way in ("研究", "综述", "诊断", "差异"))


def titles_of(query: str) -> tuple[str, str, str]:
    """Return a title that answers the query, one that nearly does, and one of another subject."""
    other = SUBJECTS[(SUBJECTS.index(query[:-2]) + 3) % len(SUBJECTS)]
    return f"{query}的新进展{query[:-2]},教育", f"{query[:-2]}史：{other}", f"{other}年鉴,法律"


def _write(path: Path, rows: Iterable[Iterable[object]]) -> None:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def write_library(folder: Path) -> None:
    """Write a folder with files of three kinds."""
    folder.mkdir()
    (folder / "questions.txt").write_text("How long is the warranty of lamps? Two years.\n", encoding="utf-8")
    (folder / "prices.csv").write_text("name;price\nlamp;12,90\nmouse;25,00\n", encoding="utf-8")
    pdf_of(folder / "manual.pdf", shown((60, 700, "Safety of lamps")), shown((60, 700, "Warranty")))


def write_texts(folder: Path) -> None:
    """Write the files of texts: those of the pages on rankers, on TREC collections and on pretraining."""
    known = [(query, *titles_of(query)) for query in QUERIES]
    labelled = [(query, title, int(place == 0)) for query, *titles in known for place, title in enumerate(titles)]
    # Two queries have one label only, which the losses over lists say.
    labelled += [("老年人护理历史", "经济增长年鉴", 0), ("法律教育历史", "深度学习年鉴", 0)]
    _write(folder / "mine.tsv", ((query, good, bad) for query, good, *others in known for bad in others))
    for name in ("dev.tsv", "DEV_FILE"):
        _write(folder / name, labelled)
    for name in ("train.tsv", "labelled.tsv", "TRAIN_FILE"):
        _write(folder / name, ((query + "论文", title, label) for query, title, label in labelled))
    for name in ("pairs.tsv", "pairs.csv", "few.tsv"):
        _write(folder / name, (row[:2] for row in labelled))
    _write(folder / "papers.tsv", ((query, title * 12) for query, title, _ in labelled))
    _write(folder / "titles.tsv", ((title,) for title in sorted({row[1] for row in labelled})))

    documents = {title: f"d{number}" for number, title in enumerate(sorted({row[1] for row in labelled}))}
    queries = {query: f"q{number}" for number, query in enumerate(sorted({row[0] for row in labelled}))}
    _write(folder / "queries.tsv", ((number, query) for query, number in queries.items()))
    _write(folder / "collection.tsv", ((number, title) for title, number in documents.items()))
    judged = [(queries[query], documents[title], label) for query, title, label in labelled]
    qrels = "".join(f"{query} 0 {document} {label}\n" for query, document, label in judged)
    (folder / "logo.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"/>', encoding="ascii")
    (folder / "qrels.txt").write_text(qrels, encoding="utf-8")
    run = "".join(f"{query} Q0 {document} 1 {len(document) + label} bm25\n" for query, document, label in judged)
    (folder / "bm25.run").write_text(run, encoding="utf-8")

    write_collection(folder, documents, queries, judged)
    write_library(folder / "library")
    packages = [{"id": name, "name": name, "description": f"{name} reads files", "size": 7} for name in ("git", "vim")]
    (folder / "packages.jsonl").write_text("".join(json.dumps(one) + "\n" for one in packages), encoding="utf-8")
    products = [
        ("id", "title", "text", "brand", "price"),
        (1, "手机", "屏幕很大", "甲", 99),
        (2, "相机", "镜头", "乙", 80),
    ]
    _write(folder / "products.tsv", products)
    lines = "".join(";".join(map(str, row)) + "\r\n" for row in products)
    (folder / "products.csv").write_bytes(lines.encode("gbk"))

    (folder / "texts").mkdir()
    sentences = [f"The {colour} {thing} was cloudy yesterday." for colour in ("red", "dark", "warm", "pale")
                 for thing in ("day", "sky", "morning", "evening", "sea")]  # fmt: skip
    for name in ("texts/one.txt", "texts/two.txt", "corpus.txt"):
        (folder / name).write_text("\n".join(sentences) + "\n", encoding="utf-8")
    masked = [sentence.replace("cloudy", "[MASK]") for sentence in sentences]
    (folder / "sentences.txt").write_text("\n".join(masked) + "\n", encoding="utf-8")


def write_collection(
    folder: Path, documents: Mapping[str, str], queries: Mapping[str, str], judged: Sequence[tuple[str, str, int]]
) -> None:
    """Write the files of the page on collections: documents with fields, their texts, and a BEIR folder.

    Args:
        documents, queries: ids by text.
        judged: the ids of a query and a document, and their label.
    """
    rows = [(id, text, "en" if place % 9 == 0 else "zh", 2015 + place % 10)
            for place, (text, id) in enumerate(documents.items())]  # fmt: skip
    _write(folder / "texts.tsv", [("id", "text", "lang", "year"), *rows])
    more = [{"id": f"m{number}", "text": f"{subject}问答", "year": 2024} for number, subject in enumerate(SUBJECTS)]
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more), encoding="utf-8")
    for name in ("texts.txt", "corpus.csv", "milvus_data.csv"):
        _write(folder / name, ((text,) for text in documents))
    _write(folder / "dev.csv", ((query, titles_of(query)[0]) for query in QUERIES))
    labels: dict[str, dict[str, int]] = {}
    for query, document, label in judged:
        labels.setdefault(query, {})[document] = label
    texts = {id: text for text, id in queries.items()}
    write_beir(folder / "BEIR_FOLDER", ((id, text, {}) for text, id in documents.items()), texts, {"test": labels})


def write_posts(folder: Path) -> None:
    """Write the files of the page on pairs of posts with images."""
    colours = {"one.jpg": (220, 30, 30), "two.png": (30, 200, 40)}
    for name, rgb in colours.items():
        Image.new("RGB", (48, 40), rgb).save(folder / name)
    header = "id_1,text_1,image_1,id_2,text_2,image_2"
    rows = [
        f"{number}x,a b {number % 5},{list(colours)[number % 2]},{number}y,c d,{list(colours)[number // 2 % 2]}"
        for number in range(120)
    ]
    labelled = [f"{row},{number % 3}" for number, row in enumerate(rows)]
    (folder / "posts.csv").write_text("\n".join([f"{header},label", *labelled]) + "\n", encoding="utf-8")
    (folder / "new.csv").write_text("\n".join([header, *rows[:12]]) + "\n", encoding="utf-8")


# Encoders that a page may name and that are fetched; the README, which promises to be offline, names none.
PUBLISHED = ("ernie-3.0-medium-zh", "rocketqa-base-cross-encoder")


def make_encoders(folder: Path, python: str, environment: dict[str, str]) -> None:
    """Make a starter, and other encoders, under the pages' words for an encoder that the reader has."""
    command = [python, "-m", "paddle_ranker", "starter", "--corpus", "mine.tsv", "--output_dir", "STARTER"]
    command += ["--num_hidden_layers", "2", "--hidden_size", "32", "--num_attention_heads", "2"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    for name in ("YOUR_ENCODER", "MODEL", "ENCODER"):
        shutil.copytree(folder / "STARTER", folder / name)
    # A starter normalises before each part of a layer, which transformers' encoders do not.
    write_encoder(folder / "bert")
    command = [python, "-m", "paddle_ranker", "convert", "bert", "M3E", "--to", "hf"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    for name in ("SOURCE", "ANY_ENCODER"):
        shutil.copytree(folder / "M3E", folder / name)


def name_rankers(folder: Path, python: str, environment: dict[str, str]) -> None:
    """Put the ranker that the README trained where other pages have rankers, its scores where they have runs.

    A starter stands where other pages name encoders that are fetched.
    """
    for name in (*PUBLISHED, "TOWER"):
        shutil.copytree(folder / "STARTER", folder / name)
    best = (folder / "checkpoint" / "best").resolve()
    for name in ("RANKER", "OTHER_RANKER", "TEACHER", "FOLDER", "other/best", "checkpoint/large/best"):
        shutil.copytree(best, folder / name)
    for name in ("LARGE", "SMALL", "large", "small", "checkpoint_ce/model_1"):
        write_case(folder / name, kind="cross_encoder")
    (folder / "checkpoint_ce" / "best").symlink_to("model_1")
    write_ranker(folder / "SPLIT_RANKER", num_hidden_layers=3)
    change_json(folder / "SPLIT_RANKER" / "ranker.json", stored_titles=2)
    write_ranker(folder / "plain", match=False, kind="cross_encoder")  # transformers know no match embeddings
    command = [python, "-m", "paddle_ranker", "convert", "plain", "HF_FOLDER", "--to", "hf"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    repository = Path(environment["HF_HOME"]) / "hub" / "models--BAAI--bge-reranker-base"  # as the hub's cache has it
    shutil.copytree(folder / "HF_FOLDER", repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40, encoding="ascii")
    command = [python, "ernie_matching/evaluate.py", "--init_from_ckpt", str(best), "--test_file", "dev.tsv"]
    for scores in ("bm25.trec", "scores.jsonl"):
        whole = [*command, "--scores_file", scores]
        subprocess.run(whole, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    # Labels that agree with the ranker for the most part, or there would be nothing to calibrate.
    rows = [json.loads(line) for line in (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: row["score"])
    labels = [int((place > len(rows) / 2) != (place % 5 == 0)) for place in range(len(rows))]
    _write(folder / "held_out.tsv", ((row["query"], row["title"], label) for row, label in zip(rows, labels)))
    assert json.loads((best / "ranker.json").read_text(encoding="utf-8")), "the README's training left no ranker"
