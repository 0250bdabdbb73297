"""The trainings of a ladder: their text and tokenizer, what they cost, and their results, kept in a folder."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paddle_ranker.encoding.tokenizers.folder import TokenizerFiles
from paddle_ranker.encoding.vocabulary import train_wordpiece_vocabulary, write_new_tokenizer
from paddle_ranker.errors import CheckpointError, DataError, RankerError
from paddle_ranker.storage.atomic import new_file, new_folder, remove_unfinished
from pretraining.corpus import Corpus
from pretraining.ladder import Budget, Cost, Ladder, Rung, Size, plan_ladder, refuse_repeats
from pretraining.mlm_options import TrainMlmOptions
from pretraining.mlm_start import open_data
from pretraining.scaling_options import MAY_CHANGE, ScalingLawOptions
from pretraining.token_store import digests_of
from pretraining.train_mlm import train

_PLAN, _RESULT = "plan.json", "result.json"
_MEASURED_STEPS = 30
_FEWEST_STEPS_TO_SAVE = 200


@dataclass(frozen=True)
class Runs:
    """Trainings that differ in size, steps and seed alone, on the same tokens; made by `open_runs`."""

    folder: Path
    options: ScalingLawOptions
    training: TrainMlmOptions  # of a run, but for what differs
    sequences: int
    tokens: int  # in those sequences, without special ones
    vocab_size: int
    identity: dict[str, Any]  # what the losses follow from, as JSON holds it

    def plan(self, started: float) -> Ladder:
        """Return the ladder that the budget allows, the one of an earlier call where there was one.

        Args:
            started: when the command began, by `time.monotonic`: the budget's minutes count from there.
        """
        options, path = self.options, self.folder / _PLAN
        if path.exists():
            rungs = [Rung(Size.parse(size), steps, seed) for size, steps, seed in _read(path)["rungs"]]
            return Ladder(tuple(rungs[:-1]), rungs[-1])
        sizes, held_out = [Size.parse(text) for text in options.sizes], Size.parse(options.held_out_size)
        seeds = range(options.seed, options.seed + options.seeds)
        if options.budget_flops is not None:
            costs = {size: Cost(self.flops(Rung(size, 1, 0))) for size in (*sizes, held_out)}
            budget = Budget(options.budget_flops, "operations")
        else:
            assert options.budget_minutes is not None
            costs = {size: self._measure(size) for size in (*sizes, held_out)}
            budget = Budget(60 * options.budget_minutes, "minutes", 1 / 60, spent=time.monotonic() - started)
        ladder = plan_ladder(sizes, held_out, costs, budget, token_counts=options.token_counts, seeds=seeds)
        if not options.allow_repeats:
            refuse_repeats(ladder, self.sequences, options.batch_size, self.tokens)
        with new_file(path) as stream:
            rungs = [*ladder.rungs, ladder.held_out]
            planned = [(str(rung.size), rung.steps, rung.seed) for rung in rungs]
            json.dump({"options": self.identity, "rungs": planned}, stream, indent=1)
        return ladder

    def result(self, rung: Rung) -> dict[str, Any]:
        """Train, or go on with what was killed, or find what is done; return the run's metrics."""
        folder = self.folder / "runs" / rung.name
        if (folder / _RESULT).exists():
            kept: dict[str, Any] = _read(folder / _RESULT)
            return kept
        trained = train(self._options(rung, folder, resume=folder.exists()))
        metrics = {
            **self.facts(rung),
            "steps": trained.steps,
            "seed": rung.seed,
            **{name: trained.last[name] for name in ("loss", "accuracy")},
            "seconds": trained.seconds,
        }
        with new_file(folder / _RESULT) as stream:
            json.dump(metrics, stream, indent=1)
        return metrics

    def facts(self, rung: Rung) -> dict[str, Any]:
        """Return what is known of a run before it is trained."""
        return {
            "name": rung.name,
            "size": str(rung.size),
            "parameters": rung.size.parameters,
            "tokens": self.tokens_read(rung),
            "flops": self.flops(rung),
        }

    def tokens_read(self, rung: Rung) -> float:
        """Return D: the tokens that a run reads, special ones not counted."""
        return rung.steps * self.options.batch_size * self.tokens / self.sequences

    def flops(self, rung: Rung) -> float:
        """Return C: the floating-point operations of a run."""
        options = self.options
        each = rung.size.flops_per_token(options.max_seq_length, self.vocab_size, options.mlm_probability)
        return self.tokens_read(rung) * each

    def _measure(self, size: Size) -> Cost:
        """Return the seconds that a size takes, by a short training."""
        print(f"how fast is {size}?", flush=True)
        with tempfile.TemporaryDirectory(prefix="speed_", dir=self.folder) as folder:
            start = time.monotonic()
            trained = train(self._options(Rung(size, _MEASURED_STEPS, self.options.seed), Path(folder), resume=False))
            whole = time.monotonic() - start
        step = self.options.batch_size / trained.examples_per_second
        return Cost(step, max(0.0, whole - trained.steps * step))

    def _options(self, rung: Rung, folder: Path, resume: bool) -> TrainMlmOptions:
        shape = self.folder / "shapes" / f"{rung.size}.json"
        shape.parent.mkdir(exist_ok=True)
        with new_file(shape) as stream:
            json.dump(rung.size.shape(self.options.max_seq_length), stream)
        values = {
            **asdict(self.training),
            "config": str(shape),
            "save_dir": str(folder),
            "max_steps": rung.steps,
            # One more epoch than is needed: which documents meet in a sequence is the seed's, and with it their number.
            "epochs": 1 + -(-rung.steps * self.options.batch_size // self.sequences),
            "eval_step": rung.steps,
            "save_step": max(_FEWEST_STEPS_TO_SAVE, rung.steps // 4),
            "logging_steps": max(1, rung.steps // 4),
            "seed": rung.seed,
            "resume": resume,
        }
        return TrainMlmOptions(**values)


def open_runs(options: ScalingLawOptions, folder: Path) -> Runs:
    """Hold out text, make a tokenizer and the tokens, or find those of an earlier call.

    Raises `RankerError` where the folder holds a ladder of other options or other text, `DataError` for bad files.
    """
    identity = _identity(options)
    _require_same(identity, folder)
    remove_unfinished(folder)
    train_files, eval_files, documents = options.train_files, options.eval_files, options.documents
    made = _digest(identity["content"], identity["tokenizer"], documents, options.eval_share, options.skip_bad_rows)
    if not eval_files:
        text = folder / f"text_{made}"
        if not text.exists():
            _hold_out(Corpus(train_files, documents, options.skip_bad_rows), options.eval_share, text)
        train_files, eval_files, documents = (str(text / "train.txt"),), (str(text / "eval.txt"),), "lines"
    tokenizer = Path(options.tokenizer or folder / f"tokenizer_{_digest(made, options.vocab_size)}")
    if options.tokenizer is None and not tokenizer.exists():
        texts = (text for _, text in Corpus(train_files, documents, options.skip_bad_rows))
        tokens = train_wordpiece_vocabulary(texts, options.vocab_size)
        with new_folder(tokenizer) as temporary:
            write_new_tokenizer(temporary, tokens, lowercase=True)
    training = TrainMlmOptions(
        train_files=train_files,
        eval_files=eval_files,
        documents=documents,
        skip_bad_rows=options.skip_bad_rows,
        tokenizer=str(tokenizer),
        save_dir=str(folder),
        cache_dir=str(folder / "tokens"),
        dropout=0.0,  # for data seen many times; within one epoch it only slows learning
        mlm_probability=options.mlm_probability,
        max_seq_length=options.max_seq_length,
        batch_size=options.batch_size,
        gradient_accumulation_steps=1,
        learning_rate=options.learning_rate,
        warmup_proportion=options.warmup_proportion,
        keep=1,
        seed=options.seed,
        device=options.device,
        cpu_threads=options.cpu_threads,
    )
    files = TokenizerFiles.read(tokenizer)
    facts = open_data(training, files).facts
    return Runs(folder, options, training, facts["sequences"], facts["tokens"], files.vocab_size, identity)


def _identity(options: ScalingLawOptions) -> dict[str, Any]:
    tokenizer = None
    if options.tokenizer is not None:
        files = TokenizerFiles.read(Path(options.tokenizer))
        tokenizer = _digest(files.vocabulary.decode("utf-8", "replace"), files.config)
    values: dict[str, Any] = {name: value for name, value in asdict(options).items() if name not in MAY_CHANGE}
    values["tokenizer"] = tokenizer
    values["content"] = [digests_of(list(options.train_files)), digests_of(list(options.eval_files))]
    kept: dict[str, Any] = json.loads(json.dumps(values))  # with lists for tuples, as it will be read again
    return kept


def _require_same(identity: dict[str, Any], folder: Path) -> None:
    if not (folder / _PLAN).exists():
        return
    begun = _read(folder / _PLAN)["options"]
    different = sorted(name for name in identity if identity[name] != begun.get(name))
    if different:
        names = ", ".join("the files' content" if name == "content" else f"--{name}" for name in different)
        raise RankerError(
            f"{folder}: holds a ladder that was begun with another {names}; choose another --output_dir, or type what "
            "it was begun with"
        )


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _hold_out(corpus: Corpus, share: float, target: Path) -> None:
    """Copy documents into `train.txt` and `eval.txt` of a new folder, one a line, evenly spread over the corpus.

    The runs differ in their seeds, by which `train_mlm.py` holds out: their losses must be of the same text.
    """
    every = max(2, round(1 / share))
    number = held = 0
    with new_folder(target) as folder:
        with (folder / "train.txt").open("w", encoding="utf-8") as kept, \
             (folder / "eval.txt").open("w", encoding="utf-8") as apart:  # fmt: skip
            for document in _documents(corpus):
                number += 1
                held += number % every == 0
                (kept if number % every else apart).write(document + "\n")
        if not held:
            raise DataError(
                f"{', '.join(corpus.files)}: {number} documents, of which --eval_share {share} holds out none; give "
                "--eval_files, a larger share, or say what parts the documents with --documents"
            )


def _documents(corpus: Corpus) -> Iterable[str]:
    texts: list[str] = []
    for begins, text in corpus:
        if begins and texts:
            yield " ".join(texts)
            texts = []
        texts += text.split()
    if texts:
        yield " ".join(texts)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); remove it, it will be made again") from error
