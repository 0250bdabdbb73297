"""Measure transcripts of recordings: word error beside faster-whisper's own, search by what is said, time, inventions.

    python datasets/make_prompts.py && python -m benchmarks.recordings [--seconds 240]

Word errors are substitutions, insertions and deletions of words, as a share of the words that are said; "1" and
"one" are alike. faster-whisper reads the same files by its own decoder, with its defaults and its detection of voices.
R@10 is the share of prompts whose text finds a recording of it by words, in transcripts and in the texts themselves.
Where nobody speaks (tones, music, noise, silence) a transcript should have no words; in tones, noise and silence
faster-whisper also runs without its detection. Some prompts are joined to one recording, too, since Whisper takes as
long for a second as for half a minute. If --seconds are over, the next call goes on: transcripts are kept in --output.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from benchmarks.harness.report import format_table
from paddle_ranker.array_types import Vectors
from paddle_ranker.data.files.file_readers import READERS, Part
from paddle_ranker.data.rows.trec import read_qrels, read_queries
from paddle_ranker.errors import DataError, DependencyError
from paddle_ranker.metrics.intervals import bootstrap_interval
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.recordings.audio import RATE
from paddle_ranker.recordings.speech import model_folder
from paddle_ranker.retrieval.words.word_search import WordSearcher

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"  # noqa: E501
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBERS = {
    **{str(number): word for number, word in enumerate(_ONES.split())},
    **{str(number): word for number, word in zip(range(20, 100, 10), _TENS.split())},
}
OWN, PEER, UNFILTERED = "paddle-ranker", "faster-whisper", "faster-whisper, all sounds"
UNFILTERED_KINDS = ("noise", "tones")  # music takes it minutes


@dataclass(frozen=True)
class RecordingsOptions(Options):
    data: str = option("datasets/prompts", help="folder of datasets/make_prompts.py")
    output: str = option("checkpoint/recordings", help="folder for the transcripts; those that are there are kept")
    prompts: int = option(0, help="transcribe so many prompts, drawn at random; 0: all", minimum=0)
    seconds: int = option(0, help="stop after so many seconds of work; 0: don't", minimum=0)
    threads: int = option(1, help="threads of a transcription", minimum=1)


def words_of(text: str) -> list[str]:
    """Return a text's words in lower case, without punctuation, small numbers as words."""
    return [NUMBERS.get(word, word) for word in re.findall(r"\w+", text.lower().replace("'", ""))]


def write_sounds(folder: Path) -> list[Path]:
    """Write half a minute each of silence, noises and a hum; return the files."""
    import soundfile

    seconds, draw = np.arange(30 * RATE) / RATE, np.random.default_rng(7)
    white = draw.normal(0, 0.1, len(seconds))
    sounds: dict[str, Vectors] = {
        "silence": np.zeros(len(seconds), np.float32),
        "white-noise": white.astype(np.float32),
        "brown-noise": (np.cumsum(white) / 100).clip(-1, 1).astype(np.float32),
        "hum": (0.3 * np.sin(2 * np.pi * 50 * seconds)).astype(np.float32),
    }
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE)
    return [folder / f"{name}.wav" for name in sounds]


def join(paths: list[Path], path: Path) -> list[Path]:
    """Join recordings to one of some three minutes, with half a second between; return those that it has, in order."""
    import soundfile

    sounds, joined, length = [], list[Path](), 0.0
    for source in random.Random(7).sample(paths, len(paths)):
        samples, rate = soundfile.read(source, dtype="float32")
        sounds += [samples, np.zeros(rate // 2, np.float32)]
        joined.append(source)
        length += len(samples) / rate + 0.5
        if length > 180:
            break
    soundfile.write(path, np.concatenate(sounds), rate)
    return joined


def transcribers() -> dict[str, Callable[[Path], str]]:
    """Return for each system a function from a recording to its words."""
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise DependencyError(f"needs faster-whisper ({error}): pip install 'paddle-ranker[speech]'") from None
    model = WhisperModel(str(model_folder()), device="cpu")

    def read(path: Path) -> str:
        return "\n".join(part.text for part in READERS["speech"].read(path) if isinstance(part, Part))

    def peer(path: Path, **settings: Any) -> str:
        return "".join(segment.text for segment in model.transcribe(str(path), **settings)[0])

    return {OWN: read, PEER: lambda path: peer(path, vad_filter=True), UNFILTERED: peer}


def transcribe(options: RecordingsOptions, files: dict[str, list[Path]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return for each system the transcript of each file, and the seconds that it took; keep them in --output."""
    import soundfile

    began, systems = time.perf_counter(), transcribers()
    kept: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in systems}
    path = Path(options.output) / "transcripts.jsonl"
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            kept[row["system"]][row["file"]] = row
    for transcribe_file in systems.values():
        transcribe_file(files["noise"][0])  # opens the model
    with open(path, "a", encoding="utf-8") as stream:
        for kind, paths in files.items():
            for file in paths:
                for system, transcribe_file in systems.items():
                    if str(file) in kept[system] or (system == UNFILTERED and kind not in UNFILTERED_KINDS):
                        continue
                    if options.seconds and time.perf_counter() - began > options.seconds:
                        count = sum(len(rows) for rows in kept.values())
                        raise DataError(f"{path}: {count:,} transcripts so far; call again")
                    start = time.perf_counter()
                    text = transcribe_file(file)
                    row = {"system": system, "file": str(file), "kind": kind, "text": text}
                    row.update(seconds=time.perf_counter() - start, sound=soundfile.info(str(file)).duration)
                    kept[system][str(file)] = row
                    stream.write(json.dumps(row) + "\n")
                    stream.flush()
    return kept


def word_errors(texts: list[str], transcripts: list[str]) -> tuple[Vectors, Vectors]:
    """Return the wrong words and the words of each text: `[texts] float32` both."""
    pairs = [(words_of(text), words_of(transcript)) for text, transcript in zip(texts, transcripts)]
    errors = np.array([Levenshtein.distance(*pair) for pair in pairs], np.float32)
    return errors, np.array([len(said) for said, _ in pairs], np.float32)


def run(options: RecordingsOptions) -> None:
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    data, output = Path(options.data), Path(options.output)
    if not (data / "queries.tsv").is_file():
        raise DataError(f"{data / 'queries.tsv'}: not there; make it with python datasets/make_prompts.py")
    output.mkdir(parents=True, exist_ok=True)
    queries, qrels = read_queries(str(data / "queries.tsv")), read_qrels(str(data / "qrels.txt")).qrels
    names = sorted(path.relative_to(data / "recordings").as_posix() for path in (data / "recordings").rglob("*.wav"))
    names = sorted(random.Random(7).sample(names, options.prompts or len(names)))
    text_of = {document: queries[query] for query, documents in qrels.items() for document in documents}
    queries = {query: text for query, text in queries.items() if not qrels[query].keys().isdisjoint(names)}
    files = {
        "noise": write_sounds(output),
        "tones": sorted((data / "tones").rglob("*.wav")),
        "music": sorted((data / "music").glob("*.wav")),
        "joined": [output / "joined.wav"],
        "prompts": [data / "recordings" / name for name in names],
    }
    joined = join([data / "recordings" / name for name in sorted(text_of)], output / "joined.wav")
    kept = transcribe(options, files)
    texts, rows = [text_of[name] for name in names], list[list[str]]()
    shares: dict[str, tuple[Vectors, Vectors]] = {}
    for system in (OWN, PEER):
        transcripts = [kept[system][str(path)] for path in files["prompts"]]
        errors, words = shares[system] = word_errors(texts, [row["text"] for row in transcripts])
        rate = bootstrap_interval(lambda counts, e=errors, w=words: 100 * (counts @ e) / (counts @ w), len(texts))  # type: ignore[misc]
        found = found_shares(queries, qrels, names, [row["text"] for row in transcripts])
        recall = bootstrap_interval(lambda counts, f=found: counts @ f / counts.sum(1), len(found))  # type: ignore[misc]
        minutes = sum(row["sound"] for row in transcripts) / 60
        speed = sum(row["seconds"] for row in transcripts) / minutes
        rows.append([system, f"{rate:.2f}", f"{recall:.3f}", f"{speed:.1f}"])
    recall_of_texts = float(found_shares(queries, qrels, names, texts).mean())
    rows.append(["(the texts themselves)", "", f"{recall_of_texts:.3f}", ""])
    said = " ".join(text_of[path.relative_to(data / "recordings").as_posix()] for path in joined)
    for system in (OWN, PEER):
        row = kept[system][str(output / "joined.wav")]
        (wrong,), (count,) = word_errors([said], [row["text"]])
        speed = row["seconds"] / row["sound"] * 60
        rows.append([f"{system}, {len(joined)} joined", f"{100 * wrong / count:.2f}", "", f"{speed:.1f}"])
    (own, words), (peer, _) = shares[OWN], shares[PEER]
    difference = bootstrap_interval(lambda counts: 100 * (counts @ (own - peer)) / (counts @ words), len(texts))
    print(f"{len(texts)} prompts, {int(words.sum()):,} words, {minutes:.1f} minutes; 95% intervals over prompts\n")
    print(format_table(["system", "word error, %", "R@10", "s a minute"], rows))
    print(f"\ndifference of the word errors: {difference:+.2f} points\n")
    invented = []
    for kind in ("noise", "tones", "music"):
        counts = [
            str(sum(len(words_of(rows[str(path)]["text"])) for path in files[kind] if str(path) in rows))
            if str(files[kind][-1]) in rows
            else "-"
            for rows in kept.values()
        ]
        sound = sum(kept[OWN][str(path)]["sound"] for path in files[kind])
        seconds = sum(kept[OWN][str(path)]["seconds"] for path in files[kind])
        invented.append([kind, str(len(files[kind])), f"{sound / 60:.1f}", *counts, f"{seconds / sound * 60:.1f}"])
    header = ["nobody speaks", "files", "minutes", *(f"words by {name}" for name in kept), "own s a minute"]
    print(format_table(header, invented))


def found_shares(
    queries: dict[str, str], qrels: dict[str, dict[str, int]], names: list[str], transcripts: list[str]
) -> Vectors:
    """Return for each query 1 if its ten best transcripts have one of its recordings, else 0: `[queries] float32`."""
    searcher = WordSearcher.of_texts(transcripts, "standard")
    hits = []
    for query, text in queries.items():
        best = searcher.search(text, 10)[0].tolist()
        hits.append(any(names[number] in qrels[query] for number in best))
    return np.array(hits, np.float32)


main = main_of(run, RecordingsOptions, __doc__, prog="benchmarks.recordings")


if __name__ == "__main__":
    raise SystemExit(main())
