"""Make the folders of `tests/kept` anew, with the commands of any checkout, as its users type them.

    python tests/kept/make.py --checkout CHECKOUT --output NEW_FOLDER                   # on Paddle 3: all but one
    python tests/kept/make.py --checkout CHECKOUT --output NEW_FOLDER --paddle2 true    # on Paddle 2: adds that one

The folders that are kept were made from commit 271ac5c. They stay as they are: what a later version must read is what
an earlier one wrote. Run it only to keep, beside them, what a newer version writes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

import numpy as np

CHINESE = [
    "深度学习", "水稻病害", "老人护理", "经济增长", "语言文化", "法律教育", "神经网络", "转基因", "城市交通",
    "海洋生物", "太阳能", "古代建筑", "空气污染", "儿童营养",
]  # fmt: skip
ENGLISH = """solar cells, rice disease, deep learning, city traffic, sea animals, old houses, air and water,
child health""".replace("\n", " ").split(", ")
TITLES = {
    "Chinese": ("{0}的研究", "{0}与{1}的关系", "论{0}：现状、方法", "{1}中的{0}"),
    "English": ("a study of {0}", "{0} and {1}", "on {0}: methods", "{0} in {1}"),
}
LONG = "深度学习在水稻病害诊断中的应用，以及城市交通、海洋生物与太阳能的关系；" * 4 + "a study of deep learning"
PAIRS = [
    ("深度学习", "深度学习的研究"),
    ("水稻病害", "论老人护理：现状、方法"),
    ("转基因与空气污染", "空气污染中的转基因"),
    ("rice disease", "a study of rice disease"),
    ("solar cells", "child health in city traffic"),
    ("deep learning 深度学习", "Deep Learning与神经网络的关系"),
    ("海洋生物", LONG),
    ('未见过的字："QUOTED", 100%', "无关"),
]
SMALL = ("--hidden_size", 16, "--num_attention_heads", 2, "--max_position_embeddings", 64)
ON_CPU = ("--device", "cpu", "--cpu_threads", 1)
PARAMETERS = "model_state.pdparams"


class Workshop:
    """A folder that the commands of a checkout run in; every path they are given is relative to it."""

    def __init__(self, checkout: Path, folder: Path):
        self.checkout, self.folder = checkout.resolve(), folder

    def line(self, command: str, *arguments: object) -> list[str]:
        """Return the command line: of a script of the checkout, else of `python -m paddle_ranker`."""
        start = [str(self.checkout / command)] if command.endswith(".py") else ["-m", "paddle_ranker", command]
        return [sys.executable, "-u", *start, *map(str, arguments)]

    def run(self, command: str, *arguments: object) -> str:
        """Run a command to its end; return what it printed."""
        line = self.line(command, *arguments)
        done = subprocess.run(line, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(line)}\n{done.stdout}{done.stderr}")
        print(f"{command}: {done.stdout.strip().splitlines()[-1:]}", flush=True)
        return done.stdout

    def kill_after(self, step: int, command: str, *arguments: object) -> None:
        """Run a training command, and kill it when it has printed the line of `step`."""
        process = subprocess.Popen(
            self.line(command, *arguments), cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"global step {step},"):
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.close()
        if process.wait() != -signal.SIGKILL:
            raise SystemExit(f"{command} ended before step {step}")

    def scores(self, folder: Path, **how: str) -> list[float]:
        """Return the probabilities of `PAIRS` by the public `Ranker`, in a process of its own."""
        code = (
            "import json, sys; from paddle_ranker import Ranker; folder, how, pairs = map(json.loads, sys.argv[1:]); "
            "print(json.dumps(Ranker.load(folder, **how).score(*map(list, zip(*pairs))).tolist()))"
        )
        arguments = [json.dumps(value) for value in (str(folder), how, PAIRS)]
        line = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(
            line, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True, check=True
        )
        found: list[float] = json.loads(done.stdout.splitlines()[-1])
        return found

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.checkout)}


def write_data(folder: Path) -> None:
    """Write triples, labelled pairs and lines of text about a few subjects."""
    draw = random.Random(7)

    def rows(count: int) -> Iterator[tuple[str, str, str]]:
        for _ in range(count):
            language, subjects = draw.choice([("Chinese", CHINESE), ("English", ENGLISH)])
            query, *others = draw.sample(list(subjects), 4)
            better, worse = draw.choice(TITLES[language][:2]), draw.choice(TITLES[language][2:])
            subject = query if draw.random() < 0.6 else others[1]  # else words in common would decide it all
            yield query, better.format(query, others[0]), worse.format(subject, others[2])

    def write(name: str, lines: Sequence[str]) -> None:
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def labelled(count: int, mistakes: float) -> list[str]:
        found = {}
        for query, better, worse in rows(count):
            for title, label in ((better, 1), (worse, 0)):
                found[query, title] = label if draw.random() >= mistakes else 1 - label
        return [f"{query}\t{title}\t{label}" for (query, title), label in found.items()]

    write("triples.tsv", ["\t".join(row) for row in rows(200)])
    write("few_triples.tsv", ["\t".join(row) for row in rows(48)])
    write("pairs.tsv", labelled(100, 0.1))
    write("dev.tsv", labelled(60, 0.15))
    write("few_dev.tsv", labelled(12, 0))
    write("text.txt", [". ".join(row) for row in rows(60)])
    write("few_text.txt", [". ".join(row) for row in rows(9)])


def make_rankers(shop: Workshop, output: Path) -> None:
    """Make `pairwise`, `cross_encoder` (calibrated), `blend` (of these two) and the exports of Paddle 3."""
    text = ("starter", "--corpus", "triples.tsv", "--pretrain_steps", 20, *SMALL)
    shop.run(*text, "--vocab_size", 200, "--num_hidden_layers", 2, "--output_dir", "encoder")
    other = ("--vocab_size", 160, "--num_hidden_layers", 1, "--normalize_before", "false")
    shop.run(*text, *other, "--output_dir", "other_encoder")
    common = ("--epochs", 6, "--learning_rate", 1e-2, "--new_parts_factor", 1, "--batch_size", 16, *ON_CPU)
    shop.run(
        "ernie_matching/train_pairwise.py", "--train_file", "triples.tsv", "--test_file", "dev.tsv",
        "--model_name_or_path", "encoder", "--save_dir", "run_pairwise", "--max_seq_length", 32,
        "--match_embeddings", "true", "--lexical_features", "true", "--loss", "margin_logit", *common,
    )  # fmt: skip
    shop.run(
        "cross_encoder/train_ce.py", "--train_set", "pairs.tsv", "--test_file", "dev.tsv",
        "--model_name_or_path", "other_encoder", "--save_dir", "run_ce", "--max_seq_length", 40, *common,
    )  # fmt: skip
    shutil.copytree((shop.folder / "run_pairwise" / "best").resolve(), shop.folder / "pairwise")
    shutil.copytree((shop.folder / "run_ce" / "best").resolve(), shop.folder / "cross_encoder")
    shop.run("calibrate", "cross_encoder", "dev.tsv", "--method", "platt", *ON_CPU)
    shop.run("blend", "pairwise", "dev.tsv", "blend", "--with", "cross_encoder", *ON_CPU)
    exporting = ("--onnx", "true", "--cpu_threads", 1)
    export = "ernie_matching/export_model.py"
    shop.run(export, "--params_path", "pairwise", "--output_path", "export", *exporting)
    shop.run("export", "--params_path", "blend", "--output_path", "blend_export", *exporting)
    shop.run(
        "quantize", "--model_dir", "export", "--calibration_file", "pairs.tsv", "--eval_file", "dev.tsv",
        "--max_loss", 1, "--weight_bits", 7, "--seconds", 0.5, "--cpu_threads", 1,
    )  # fmt: skip
    for name in ("pairwise", "cross_encoder", "blend"):
        shutil.copytree(shop.folder / name, output / name)
    for name in ("export", "blend_export"):
        pack(shop.folder / name, output)


def make_interrupted(
    shop: Workshop, target: Path, script: str, arguments: Sequence[object], inputs: Sequence[str], kill_after: int
) -> None:
    """Keep a training killed after a step, its inputs, its command line, and what the unbroken one ended with."""
    typed = [*map(str, arguments), "--save_dir", "run"]
    ends: list[dict[str, np.ndarray]] = []
    for name in ("unbroken", "again", "killed"):
        place = Workshop(shop.checkout, shop.folder / f"{target.name}_{name}")
        place.folder.mkdir()
        for part in inputs:
            source = shop.folder / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, place.folder / part)
        if name == "killed":
            place.kill_after(kill_after, script, *typed)
            _copy_run(place.folder, target, inputs)
            place.run(script, *typed, "--resume")
        else:
            place.run(script, *typed)
        ends.append(parameters(place.folder / "run" / "last"))
    same = [all(ends[0][name].tobytes() == end[name].tobytes() for name in ends[0]) for end in ends[1:]]
    print(f"{target.name}: bit for bit the unbroken run: again {same[0]}, resumed {same[1]}", flush=True)
    np.savez_compressed(target / "unbroken.npz", **ends[0])
    facts = {"script": script, "arguments": typed, "killed_after_step": kill_after, "digest": digest_of(ends[0])}
    (target / "command.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _copy_run(place: Path, target: Path, inputs: Sequence[str]) -> None:
    """Copy what a killed training left, and the files that it was given; no encoder: resuming reads none."""
    left_out = shutil.ignore_patterns(".*", "*.png", "encoder")
    target.mkdir()
    shutil.copytree(place / "run", target / "run", symlinks=True, ignore=left_out)
    for part in inputs:
        if part != "encoder":
            (shutil.copytree if (place / part).is_dir() else shutil.copy)(place / part, target / part)


def parameters(folder: Path) -> dict[str, np.ndarray]:
    """Return the parameters of a checkpoint by name."""
    import paddle

    arrays = paddle.load(str(folder / PARAMETERS), return_numpy=True)
    return {name: np.asarray(value) for name, value in arrays.items() if isinstance(value, np.ndarray)}


def digest_of(arrays: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of names and values in order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def make_trainings(shop: Workshop, output: Path) -> None:
    """Make `interrupted` and `interrupted_pretraining`."""
    common = (
        "--learning_rate", 2e-3, "--save_step", 5, "--eval_step", 7, "--keep", 1, "--logging_steps", 1, *ON_CPU,
    )  # fmt: skip
    arguments: tuple[object, ...] = (
        "--train_file", "few_triples.tsv", "--test_file", "few_dev.tsv", "--model_name_or_path", "encoder",
        "--max_seq_length", 24, "--batch_size", 8, "--epochs", 4, "--lexical_features", "true",
        "--warmup_proportion", 0.1, "--weight_decay", 0.01, *common,
    )  # fmt: skip
    inputs = ["few_triples.tsv", "few_dev.tsv", "encoder"]
    make_interrupted(shop, output / "interrupted", "ernie_matching/train_pairwise.py", arguments, inputs, 12)

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    (shop.folder / "shape.json").write_text(json.dumps({**shape, "max_position_embeddings": 64}), encoding="utf-8")
    shop.run(
        "pretraining/train_tokenizer.py", "--files", "text.txt", "--output_dir", "tokenizer", "--vocab_size", 160,
    )  # fmt: skip
    arguments = (
        "--train_files", "text.txt", "--eval_files", "few_text.txt", "--tokenizer", "tokenizer",
        "--config", "shape.json", "--max_seq_length", 32, "--batch_size", 4, "--gradient_accumulation_steps", 2,
        "--epochs", 4, *common,
    )  # fmt: skip
    inputs = ["text.txt", "few_text.txt", "tokenizer", "shape.json"]
    make_interrupted(shop, output / "interrupted_pretraining", "pretraining/train_mlm.py", arguments, inputs, 12)


def make_entailment(shop: Workshop, output: Path) -> None:
    """Make `entailment.tar.xz`: a checkpoint, its export, four pairs of posts, and what was predicted of them.

    The vision encoder is frozen at weights of three values, and after the training the fusion's are rounded to few:
    that makes the archive small.
    """
    import paddle

    channels, draw, weights = (3, 16, 32, 64, 96, 128), np.random.RandomState(7), {}
    for number, (inputs, outputs) in enumerate(zip(channels, channels[1:])):
        kernel = draw.choice([-1.0, 0.0, 1.0], (outputs, inputs, 3, 3), p=[0.03, 0.94, 0.03]) * 0.25
        weights[f"{3 * number}.weight"] = kernel.astype(np.float32)
        weights[f"{3 * number + 1}.weight"] = np.ones(outputs, np.float32)
        weights[f"{3 * number + 1}.bias"] = np.zeros(outputs, np.float32)
    paddle.save(weights, str(shop.folder / "vision.pdparams"))
    shop.run("multimodal_entailment/make_demo_posts.py", "--output_dir", "posts", "--size", 60)
    narrow = ("--vocab_size", 120, "--num_hidden_layers", 1, "--pretrain_steps", 20, "--output_dir", "post_encoder")
    shop.run("starter", "--corpus", "posts/train.csv", *SMALL, *narrow)
    shop.run(
        "multimodal_entailment/train.py", "--train_file", "posts/train.csv", "--validation_file",
        "posts/validation.csv", "--model_name_or_path", "post_encoder", "--save_dir", "run_entailment",
        "--vision_weights", "vision.pdparams", "--freeze_vision", "true", "--max_seq_length", 32, "--image_size", 32,
        "--batch_size", 8, "--epochs", 12, "--learning_rate", 1e-3, "--new_parts_factor", 2,
        "--image_workers", 1, *ON_CPU,
    )  # fmt: skip
    kept = shop.folder / "entailment"
    (kept / "images").mkdir(parents=True)
    shutil.copytree((shop.folder / "run_entailment" / "last").resolve(), kept / "checkpoint")
    arrays = parameters(kept / "checkpoint")
    for parameter, array in arrays.items():
        if parameter.startswith("fusion.") and array.size > 4096:
            step = np.float32(3 * array.std())
            arrays[parameter] = np.round(array / step) * step + np.float32(0)  # no -0
    paddle.save(arrays, str(kept / "checkpoint" / PARAMETERS))
    rows = (shop.folder / "posts" / "test.csv").read_text(encoding="utf-8").splitlines()[:5]
    (kept / "posts.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for name in re.findall(r"images/[^,]+", "\n".join(rows)):
        shutil.copy(shop.folder / "posts" / name, kept / name)
    shop.run(
        "multimodal_entailment/export_model.py", "--model", "entailment/checkpoint", "--output_dir",
        "entailment/static", "--cpu_threads", 1,
    )  # fmt: skip
    for name in ("checkpoint", "static"):
        shop.run(
            "multimodal_entailment/predict.py", "--model", f"entailment/{name}", "--input_file",
            "entailment/posts.csv", "--output_file", f"entailment/{name}.csv", *ON_CPU,
        )  # fmt: skip
    pack(kept, output)


def pack(folder: Path, output: Path) -> None:
    """Write a folder as `<its name>.tar.xz`, without owners and times."""

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(output / f"{folder.name}.tar.xz", "w:xz", preset=9) as archive:
        archive.add(folder, folder.name, filter=anonymous)


def unpack(kept: Path, target: Path) -> None:
    """Copy what is kept into an existing folder, the archives unpacked: nothing writes into what is kept."""
    for path in sorted(kept.iterdir()):
        if path.name.endswith(".tar.xz"):
            shutil.unpack_archive(str(path), target)
        elif path.is_dir():
            shutil.copytree(path, target / path.name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))


def blot(program: Path, checkout: Path) -> None:
    """Make the paths of this machine illegible, as long as they were: Paddle 2 writes whence each operator came."""
    content = program.read_bytes()
    for path in (str(checkout), sys.prefix, sys.base_prefix):
        content = content.replace(path.encode(), b"_" * len(path.encode()))
    program.write_bytes(content)


WAYS: dict[str, list[dict[str, str]]] = {
    "pairwise": [{"engine": "dygraph"}],
    "cross_encoder": [{"engine": "dygraph"}],
    "blend": [{"engine": "dygraph"}],
    "export": [
        *({"engine": engine} for engine in ("inference", "onnx", "openvino")),
        *({"engine": engine, "precision": "int8"} for engine in ("onnx", "openvino")),
    ],
    "blend_export": [{"engine": engine} for engine in ("inference", "onnx", "openvino")],
    "export_paddle2": [{"engine": "inference"}],
}


def write_golden(shop: Workshop, output: Path) -> None:
    """Write `golden.json`, or add to it: what every folder that is not in it gives the pairs, in every way to score."""
    path, scores = output / "golden.json", []
    if path.is_file():
        rows = json.loads(path.read_text(encoding="utf-8"))["scores"]
        scores = [row for row in rows if row["folder"] != "export_paddle2"]  # it is made anew
    place = shop.folder / "kept"
    place.mkdir()
    unpack(output, place)
    for name in sorted(WAYS.keys() & {path.name for path in place.iterdir()} - {row["folder"] for row in scores}):
        scores += [
            {"folder": name, "how": how, "probabilities": shop.scores(place / name, **how)} for how in WAYS[name]
        ]
    path.write_text(json.dumps({"pairs": PAIRS, "scores": scores}, ensure_ascii=False, indent=1) + "\n", "utf-8")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Make the folders; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkout", type=Path, required=True, help="whose commands make them")
    parser.add_argument("--output", type=Path, required=True, help="where they go")
    parser.add_argument("--paddle2", action="store_true", help="add export_paddle2 to what is there, on Paddle 2")
    options = parser.parse_args(argv)
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        shop = Workshop(options.checkout, Path(name))
        if options.paddle2:
            (output / "export_paddle2.tar.xz").unlink(missing_ok=True)
            shutil.copytree(output / "pairwise", shop.folder / "pairwise")
            export = ("--params_path", "pairwise", "--output_path", "export_paddle2", "--cpu_threads", 1)
            shop.run("ernie_matching/export_model.py", *export)
            blot(shop.folder / "export_paddle2" / "inference.predict.pdmodel", options.checkout.resolve())
            pack(shop.folder / "export_paddle2", output)
        else:
            write_data(shop.folder)
            make_rankers(shop, output)
            make_trainings(shop, output)
            make_entailment(shop, output)
        write_golden(shop, output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
