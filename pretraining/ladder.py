"""A ladder of trainings (runs of several sizes and lengths) for a compute budget: its options, plan and results.

The runs differ only in size, steps and seed. The plan and the results are kept in the output folder, and a second call
continues from there.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker.errors import CheckpointError, DataError, RankerError, UsageError
from paddle_ranker.options import DeviceOptions, option
from paddle_ranker.options.declare import fields_of, shown_name
from paddle_ranker.storage.atomic import UNFINISHED, new_file, new_folder, remove_unfinished
from paddle_ranker.storage.digest import json_digest
from pretraining.corpus import DOCUMENTS, DOCUMENTS_HELP, Corpus
from pretraining.power_law import FEWEST_LEVELS

if TYPE_CHECKING:
    from paddle_ranker.training.task import FitResult
    from pretraining.mlm_options import TrainMlmOptions

FEWEST_STEPS = 20  # minimum steps of the shortest run; a shorter run would be all warm-up
HELD_OUT_TOKENS = 2  # multiple of the ladder's largest token count, for the held-out run
_BERT_WIDTH, _BERT_DEVIATION = 768, 0.02
_HEAD_WIDTH = 32
_SIZE = re.compile(r"([1-9]\d{0,2})x([1-9]\d{0,4})")
_PLAN, _RESULT = "plan.json", "result.json"
_MEASURED = ("steps", "seed", "loss", "accuracy", "seconds")  # measurements that a result adds to the facts of its run
_MEASURED_STEPS = 30
_FEWEST_STEPS_TO_SAVE = 200
# Options that may change when a ladder is continued, since they do not affect its losses.
MAY_CHANGE = frozenset({"debug", "output_dir", "train_files", "eval_files", "tokenizer", "resamples", "device",
                        "cpu_threads"})  # fmt: skip


@dataclass(frozen=True)
class Size:
    """Size of an encoder: layers and width; its feed-forward part is four times as wide."""

    layers: int
    width: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Parse `4x128` (4 layers, 128 wide); raises `UsageError` for anything else."""
        match = _SIZE.fullmatch(text)
        if not match:
            raise UsageError(f"size {text}: give LAYERSxWIDTH, as in 4x128")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.layers}x{self.width}"

    @property
    def parameters(self) -> int:
        """Return N, the number of parameters of the layers, without embeddings and head (Kaplan et al. 2020)."""
        width = self.width
        attention, feed_forward, norms = 4 * (width * width + width), 8 * width * width + 5 * width, 4 * width
        return self.layers * (attention + feed_forward + norms)

    def flops_per_token(self, length: int, vocab_size: int, masked_share: float) -> float:
        """Return the floating-point operations of training per token read.

        Training takes three times the operations of the forward pass, which are 2 per parameter of the layers,
        4 `length` `width` per layer for attention, and for the head 2 (`width`^2 + `vocab_size` `width`) times
        `masked_share`.
        """
        attention = 4 * self.layers * length * self.width
        head = 2 * masked_share * (self.width**2 + vocab_size * self.width)
        return 3 * (2 * self.parameters + attention + head)

    def shape(self, positions: int) -> dict[str, Any]:
        """Return the fields of `config.json` for this size.

        Initial weights have BERT's standard deviation, 0.02 at width 768, times sqrt(768 / width): the result of a
        product then has the same deviation at every width.
        """
        heads = max(count for count in range(1, max(1, self.width // _HEAD_WIDTH) + 1) if self.width % count == 0)
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * self.width,
            "max_position_embeddings": positions,
            "initializer_range": round(_BERT_DEVIATION * (_BERT_WIDTH / self.width) ** 0.5, 6),
        }


@dataclass(frozen=True)
class ScalingLawOptions(DeviceOptions):
    train_files: tuple[str, ...] = option(help=f"files to train on: {DOCUMENTS_HELP}", name="train", files=True)
    eval_files: tuple[str, ...] = option(
        (), help="files to measure the loss on (default: documents held out, --eval_share)", name="test", files=True
    )
    eval_share: float = option(
        0.05, help="share of the documents to hold out if there is no --test", above=0, maximum=0.5
    )
    tokenizer: Optional[str] = option(None, help="folder of a tokenizer (default: train one, see --vocab_size)")
    vocab_size: int = option(8000, help="number of word pieces of a tokenizer that is trained here", minimum=10)
    output_dir: str = option("./checkpoint/scaling_law", help="folder for runs, results and the picture", name="output")
    budget_minutes: Optional[float] = option(
        None, help="budget of all runs in minutes on this machine, including the held-out run", above=0, either=True
    )
    budget_flops: Optional[float] = option(
        None, help="budget of all runs in floating-point operations", above=0, either=True
    )
    sizes: tuple[str, ...] = option(
        ("2x64", "2x96", "2x128", "4x128"), help="sizes of the ladder's encoders, LAYERSxWIDTH", several=True
    )
    held_out_size: str = option("4x192", help="size of the larger encoder whose loss is predicted, then measured")
    token_counts: int = option(
        3,
        help="number of token counts per size, each twice as large as the previous one",
        minimum=FEWEST_LEVELS,
        maximum=12,
    )
    seeds: int = option(1, help="number of runs per size and token count, each with another seed", minimum=1)
    seed: int = option(1000, help="first seed, for initial parameters, order and masks", minimum=0)
    allow_repeats: bool = option(False, help="read the files more than once if the budget needs more tokens")
    max_seq_length: int = option(64, help="maximum length of a sequence in tokens", minimum=8, maximum=512)
    mlm_probability: float = option(0.2, help="share of masked tokens", above=0, below=1)
    batch_size: int = option(8, help="sequences per step", minimum=1)
    learning_rate: float = option(1e-3, help="maximum learning rate of all sizes; it decays to 0 in each run", above=0)
    warmup_proportion: float = option(0.06, help="warm-up, as a share of a run's steps", minimum=0, below=1)
    documents: str = option(
        "lines",
        help="documents of a .txt file: lines (each), blank_lines (between them), titles (WikiText's ' = Title = ')",
        choices=DOCUMENTS,
    )
    skip_bad_rows: bool = option(False, help="skip and count text that is not UTF-8, instead of stopping")
    resamples: int = option(200, help="number of draws of runs for an interval", minimum=20)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.budget_minutes is None) == (self.budget_flops is None):
            raise UsageError("give --budget_minutes or --budget_flops, but not both: the cost of all runs together")
        sizes = [Size.parse(text) for text in self.sizes]
        if len({size.parameters for size in sizes}) < max(FEWEST_LEVELS, len(sizes)):
            raise UsageError(
                f"--sizes {' '.join(self.sizes)}: too few to fit a law; give at least {FEWEST_LEVELS}, all different"
            )
        largest = max(sizes, key=lambda size: size.parameters)
        if Size.parse(self.held_out_size).parameters <= largest.parameters:
            raise UsageError(f"--held_out_size {self.held_out_size}: must be larger than {largest} of --sizes")


@dataclass(frozen=True)
class Rung:
    """A training of the ladder: a size, a number of steps and a seed."""

    size: Size
    steps: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.size}_{self.steps}_steps_seed_{self.seed}"


@dataclass(frozen=True)
class Cost:
    """The cost of a training, in seconds or floating-point operations: per step, plus a fixed cost."""

    step: float
    fixed: float = 0.0


@dataclass(frozen=True)
class Budget:
    """The maximum cost of all trainings together.

    amount, spent: in the unit of `Cost`; `spent` is already used up
    unit, scale: for messages: an amount times `scale` is in `unit`
    """

    amount: float
    unit: str
    scale: float = 1.0
    spent: float = 0.0


@dataclass(frozen=True)
class Ladder:
    """The plan: trainings for fitting the law, and the larger training that checks it."""

    rungs: tuple[Rung, ...]
    held_out: Rung


def plan_ladder(
    sizes: Sequence[Size],
    held_out: Size,
    costs: Mapping[Size, Cost],
    budget: Budget,
    *,
    token_counts: int,
    seeds: Sequence[int],
) -> Ladder:
    """Return the longest ladder within a budget; all sizes have the same step counts, each twice the previous one.

    The held-out size is trained with the first seed, for `HELD_OUT_TOKENS` times the others' largest count.

    Args:
        costs: a dict from each size, including the held-out size, to its cost in the budget's unit.

    Raises `UsageError` if the budget is too small for runs of `FEWEST_STEPS` steps; the message names a sufficient one.
    """
    shares = [2**place for place in range(token_counts)]
    fixed = budget.spent + sum(costs[size].fixed for size in sizes) * token_counts * len(seeds) + costs[held_out].fixed
    per_step = sum(costs[size].step for size in sizes) * sum(shares) * len(seeds)
    per_step += costs[held_out].step * HELD_OUT_TOKENS * shares[-1]
    fewest = int(max(0.0, budget.amount - fixed) / per_step)
    if fewest < FEWEST_STEPS:
        needed = fixed + FEWEST_STEPS * per_step
        raise UsageError(
            f"a budget of {budget.amount * budget.scale:.3g} {budget.unit} is too small: runs of {FEWEST_STEPS} to "
            f"{HELD_OUT_TOKENS * shares[-1] * FEWEST_STEPS} steps take {1.02 * needed * budget.scale:.3g}; give more, "
            "or fewer or smaller --sizes"
        )
    rungs = tuple(Rung(size, fewest * share, seed) for size in sizes for share in shares for seed in seeds)
    return Ladder(rungs, Rung(held_out, HELD_OUT_TOKENS * shares[-1] * fewest, seeds[0]))


def refuse_repeats(ladder: Ladder, sequences: int, batch_size: int, tokens: int) -> None:
    """Raise `DataError` if a run of a ladder would read sequences of the corpus a second time.

    Args:
        sequences, tokens: the numbers of sequences and of tokens in the corpus.
    """
    needed = max(rung.steps for rung in (*ladder.rungs, ladder.held_out)) * batch_size
    if needed > sequences:
        raise DataError(
            f"the files have {tokens:,} tokens to train on, and the longest run would read {needed / sequences:.1f} "
            "times as many: tokens would repeat, but the law holds for new tokens; give more text, a smaller budget or "
            "larger --sizes, or --allow_repeats true"
        )


@dataclass(frozen=True)
class Runs:
    """Trainings on the same tokens that differ only in size, steps and seed; made by `open_runs`."""

    folder: Path
    options: ScalingLawOptions
    training: TrainMlmOptions  # the options of every run, before size, steps and seed are set
    sequences: int
    tokens: int  # number of tokens in those sequences, without special tokens
    vocab_size: int
    identity: dict[str, Any]  # the facts that determine the losses, JSON-ready

    def plan(self, started: float) -> Ladder:
        """Return the ladder that the budget allows, or the ladder of an earlier call if there is one.

        Args:
            started: when the command began, by `time.monotonic`; the budget's minutes count from then.
        """
        options, path = self.options, self.folder / _PLAN
        if path.exists():
            with _reading(path) as plan:
                rungs = [Rung(Size.parse(size), int(steps), int(seed)) for size, steps, seed in plan["rungs"]]
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
        """Return a run's metrics: train or resume it, or read its result if it is complete."""
        folder = self.folder / "runs" / rung.name
        if (folder / _RESULT).exists():
            with _reading(folder / _RESULT) as kept:
                return {**self.facts(rung), **{name: kept[name] for name in _MEASURED}}
        trained = self._train(rung, folder, resume=folder.exists())
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
        """Return the facts of a run before its training: name, size, parameters, tokens and operations."""
        return {
            "name": rung.name,
            "size": str(rung.size),
            "parameters": rung.size.parameters,
            "tokens": self.tokens_read(rung),
            "flops": self.flops(rung),
        }

    def tokens_read(self, rung: Rung) -> float:
        """Return D: the number of tokens that a run reads, without special tokens."""
        return rung.steps * self.options.batch_size * self.tokens / self.sequences

    def flops(self, rung: Rung) -> float:
        """Return C: the floating-point operations of a run."""
        options = self.options
        per_token = rung.size.flops_per_token(options.max_seq_length, self.vocab_size, options.mlm_probability)
        return self.tokens_read(rung) * per_token

    def _measure(self, size: Size) -> Cost:
        """Return the cost of a size in seconds, measured by a short training."""
        print(f"how fast is {size}?", flush=True)
        with tempfile.TemporaryDirectory(prefix=f"{UNFINISHED}{os.getpid()}-speed_", dir=self.folder) as folder:
            start = time.monotonic()
            trained = self._train(Rung(size, _MEASURED_STEPS, self.options.seed), Path(folder), resume=False)
            whole = time.monotonic() - start
        step = self.options.batch_size / trained.examples_per_second
        return Cost(step, max(0.0, whole - trained.steps * step))

    def _train(self, rung: Rung, folder: Path, resume: bool) -> FitResult:
        from pretraining import train_mlm

        shape = self.folder / "shapes" / f"{rung.size}.json"
        shape.parent.mkdir(exist_ok=True)
        with new_file(shape) as stream:
            json.dump(rung.size.shape(self.options.max_seq_length), stream)
        options = replace(
            self.training,
            config=str(shape),
            save_dir=str(folder),
            max_steps=rung.steps,
            # One more epoch than needed: the seed decides which documents share a sequence, and so the number of
            # sequences.
            epochs=1 + -(-rung.steps * self.options.batch_size // self.sequences),
            eval_step=rung.steps,
            save_step=max(_FEWEST_STEPS_TO_SAVE, rung.steps // 4),
            logging_steps=max(1, rung.steps // 4),
            seed=rung.seed,
            resume=resume,
        )
        return train_mlm.train(options)


def open_runs(options: ScalingLawOptions, folder: Path) -> Runs:
    """Hold out text, train a tokenizer and tokenize the corpus, or reuse the results of an earlier call.

    Raises `RankerError` if the folder holds a ladder of other options or other text, `DataError` for bad files.
    """
    from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
    from paddle_ranker.encoding.vocabulary import train_wordpiece_vocabulary, write_new_tokenizer
    from pretraining.mlm_options import TrainMlmOptions
    from pretraining.mlm_start import open_data

    identity = _identity(options)
    _require_same(identity, folder)
    remove_unfinished(folder)
    train_files, eval_files, documents = options.train_files, options.eval_files, options.documents
    made = json_digest(identity["content"], identity["tokenizer"], documents, options.eval_share, options.skip_bad_rows)
    if not eval_files:
        text = folder / f"text_{made}"
        if not text.exists():
            _hold_out(Corpus(train_files, documents, options.skip_bad_rows), options.eval_share, text)
        train_files, eval_files, documents = (str(text / "train.txt"),), (str(text / "eval.txt"),), "lines"
    tokenizer = Path(options.tokenizer or folder / f"tokenizer_{json_digest(made, options.vocab_size)}")
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
        dropout=0.0,  # dropout helps only with data seen many times; within one epoch it slows learning
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
    from paddle_ranker.encoding.tokenizers.tokenizer_folder import TokenizerFiles
    from paddle_ranker.storage.digest import content_digest

    tokenizer = None
    if options.tokenizer is not None:
        files = TokenizerFiles.read(Path(options.tokenizer))
        tokenizer = json_digest(files.vocabulary.decode("utf-8", "replace"), files.config)
    values: dict[str, Any] = {name: value for name, value in asdict(options).items() if name not in MAY_CHANGE}
    values["tokenizer"] = tokenizer
    values["content"] = [
        [content_digest(file) for file in files] for files in (options.train_files, options.eval_files)
    ]
    kept: dict[str, Any] = json.loads(json.dumps(values))  # as JSON will return them: with lists for tuples
    return kept


def _require_same(identity: dict[str, Any], folder: Path) -> None:
    if not (folder / _PLAN).exists():
        return
    with _reading(folder / _PLAN) as plan:
        different = sorted(name for name in identity if identity[name] != plan["options"].get(name))
    if different:
        shown = {field.name: shown_name(field) for field in fields_of(ScalingLawOptions)}
        names = ", ".join(shown.get(name, "the files' content") for name in different)
        raise RankerError(
            f"{folder}: holds a ladder that was begun with another {names}; choose another --output, or repeat the "
            "options it was begun with"
        )


def _hold_out(corpus: Corpus, share: float, target: Path) -> None:
    """Write the documents, one per line, into a new folder: to `eval.txt` at even distances, else to `train.txt`.

    All runs need losses of the same text, but `train_mlm.py` would hold out text by the seed, which differs.
    """
    number = held = 0
    with new_folder(target) as folder:
        with (folder / "train.txt").open("w", encoding="utf-8") as kept, \
             (folder / "eval.txt").open("w", encoding="utf-8") as apart:  # fmt: skip
            for document in _documents(corpus):
                number += 1
                is_held = int(number * share) > held
                held += is_held
                (apart if is_held else kept).write(document + "\n")
        if corpus.skipped:
            print(f"read {corpus.report()}", flush=True)
        if not held:
            raise DataError(
                f"{', '.join(corpus.files)}: {number} documents, of which --eval_share {share} holds out none; give "
                "--test, a larger share, or state with --documents what separates the documents"
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


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """Yield the contents of a JSON file; raise `CheckpointError` if the block cannot read them as expected."""
    try:
        yield json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, UsageError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); remove it, and it will be made again") from error
