"""Train a masked language model here and in transformers: tokens per second, and the loss of held-out text.

python -m benchmarks.pretraining --peer_python PATH [--file FILE] [--config nano] [--rounds 6] [--steps 10]

All systems start from the same weights (made here, and converted for transformers by `convert --to hf`) and make the
same steps: the same batches with the same masked tokens, AdamW, schedule, clipping and weight decay. Each system runs
in a separate process. They take turns, a round of steps each, so that a busy moment of the machine affects all of them.
After each round every system measures its loss on the same held-out tokens, which is not timed. `transformers` computes
the logits of every token, as its `BertForMaskedLM` does if it is given labels; `transformers_gathered` computes only
those of the masked tokens, as a user may write it. With `--dropout 0` the loss curves differ by rounding only; with
dropout they also differ by random draws.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from benchmarks.harness.report import Speeds, print_speeds
from benchmarks.harness.workers import Worker, Workers
from benchmarks.inputs import chosen, real_data_file
from paddle_ranker import runtime
from paddle_ranker.options import Options, main_of, option
from pretraining.mlm_options import TrainMlmOptions

SYSTEMS = ("ours", "transformers", "transformers_gathered")
_PEER = Path(__file__).parent / "peers" / "transformers_mlm_worker.py"
FOREVER, SEED = 1_000_000, 1000


@dataclass(frozen=True)
class PretrainingBenchmarkOptions(Options):
    file: Optional[str] = option(None, help="texts, one per line (default: corpus/zh_sci.txt of the real data)")
    peer_python: str = option(sys.executable, help="Python interpreter of an environment with torch and transformers")
    systems: str = option(",".join(SYSTEMS), help=f"comma-separated, from {', '.join(SYSTEMS)}")
    config: str = option("nano", help="shape, as in train_mlm.py")
    vocab_size: int = option(8000, help="number of word pieces, trained on the text", minimum=100)
    max_seq_length: int = option(128, help="tokens of a sequence", minimum=8)
    batch_size: int = option(32, help="sequences a step", minimum=1)
    dropout: float = option(0.1, help="dropout", minimum=0, below=1)
    rounds: int = option(6, help="number of rounds; the speeds exclude the first", minimum=2)
    steps: int = option(10, help="steps a round", minimum=1)
    threads: int = option(1, help="threads of every system", minimum=1)


def run(options: PretrainingBenchmarkOptions) -> None:
    systems = chosen("systems", options.systems, SYSTEMS)
    runtime.prepare()
    runtime.select_device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        print(prepare(options, Path(folder)), flush=True)
        answers = measure(systems, options, Path(folder))
    print_curve(answers)
    print_speeds(speeds_of(answers), "tokens", width=24, digits=0)


def speeds_of(answers: dict[str, list[dict[str, Any]]]) -> dict[str, Speeds]:
    """Return each system's tokens per second, without the first round."""
    speeds = {name: Speeds() for name in answers}
    for name, rounds in answers.items():
        for answer in rounds[1:]:
            speeds[name].add(answer, "tokens")
    return speeds


def prepare(options: PretrainingBenchmarkOptions, folder: Path) -> str:
    """Write the tokenizer, the initial weights in both formats, and the peer's batches into `folder`.

    Returns a line that describes the work.
    """
    from paddle_ranker.commands.convert import ConvertOptions, convert
    from paddle_ranker.encoding.batching import BatchPlan, scoring_batches, training_batches
    from pretraining.examples import MaskedExamples
    from pretraining.mlm_start import make_masking, open_data, save_mlm, start_mlm
    from pretraining.train_tokenizer import TrainTokenizerOptions, train_tokenizer

    path = Path(options.file) if options.file else real_data_file(None, "corpus/zh_sci.txt")
    tokenizer = TrainTokenizerOptions(
        files=(str(path),), vocab_size=options.vocab_size, output_dir=str(folder / "tokenizer")
    )
    train_tokenizer(tokenizer)
    training = training_options(options, path, folder)
    # A checkpoint has its own shape, so the shape of the options returns to its default.
    from_first = dataclasses.replace(training, init_from=str(folder / "first"), config="nano", model_type="ernie")
    (folder / "options.json").write_text(json.dumps(dataclasses.asdict(from_first)), encoding="utf-8")
    start = start_mlm(training)
    (folder / "first").mkdir()
    save_mlm(folder / "first", start.model, start.run.describe({}, {}))
    convert(ConvertOptions(source=str(folder / "first"), target=str(folder / "hf"), to="hf"))

    data, masking = open_data(training, start.model.tokenizer), make_masking(training, start.model.tokenizer)
    examples = MaskedExamples(data.train, masking)
    total, step, tokens = options.rounds * options.steps, 0, 0
    plan = BatchPlan(options.batch_size, 1, 0, SEED)
    (folder / "batches").mkdir()
    for epoch in range(1, FOREVER):
        examples.begin_epoch(epoch)
        for (indices,) in training_batches(examples, plan, epoch):
            batch = examples.masked(indices)
            tokens += _keep(folder / "batches" / f"train_{step}.npz", batch)
            step += 1
            if step == total:
                break
        if step == total:
            break
    lengths = data.held_out.all_lengths
    for number, indices in enumerate(scoring_batches(lengths, 1 << 13, 64)):
        _keep(folder / "batches" / f"eval_{number}.npz", masking.mask(*data.held_out.batch(indices), indices, epoch=0))
    work = {
        "threads": options.threads,
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "warmup_proportion": training.warmup_proportion,
        "max_grad_norm": training.max_grad_norm,
        "total_steps": total,
        "dropout": options.dropout,
        "seed": SEED,
    }
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    return (
        f"{options.config}, {total} steps of {options.batch_size} sequences, {tokens / total:,.0f} tokens a step; "
        f"{data.facts['held_out_tokens']:,} held-out tokens; threads: {options.threads}"
    )


def training_options(options: PretrainingBenchmarkOptions, path: Path, folder: Path) -> TrainMlmOptions:
    """Return the options of `train_mlm.py` for the first model and for this toolkit's training."""
    return TrainMlmOptions(
        train_files=(str(path),),
        tokenizer=str(folder / "tokenizer"),
        config=options.config,
        model_type="bert",
        save_dir=str(folder / "ours"),
        cache_dir=str(folder / "cache"),
        max_seq_length=options.max_seq_length,
        batch_size=options.batch_size,
        gradient_accumulation_steps=1,
        attention="sequence",  # as in transformers' models
        learning_rate=5e-4,
        dropout=options.dropout,
        epochs=FOREVER,
        max_steps=options.rounds * options.steps,
        eval_step=options.steps,
        save_step=FOREVER,
        logging_steps=1,
        seed=SEED,
        device="cpu",
        cpu_threads=options.threads,
    )


def _keep(path: Path, batch: Any) -> int:
    """Write a batch; return its token count, including padding."""
    np.savez(path, ids=batch.ids, indices=batch.indices, labels=batch.labels)
    return int(batch.ids.size)


def measure(
    systems: Sequence[str], options: PretrainingBenchmarkOptions, folder: Path
) -> dict[str, list[dict[str, Any]]]:
    """Return each system's answers, one per round; raises `RankerError` if a process ends early."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    with Workers() as workers:
        for name in systems:
            workers.add(_start_worker(name, options, folder))
        for _ in range(options.rounds):
            for name, answer in workers.take_turns(lambda name: options.steps):
                answers[name].append(answer)
    return answers


def _start_worker(name: str, options: PretrainingBenchmarkOptions, folder: Path) -> Worker:
    """Start the process that trains the system `name`; it answers when it is ready, and after each round."""
    ours = [sys.executable, "-m", "benchmarks.peers.mlm_worker", str(folder)]
    theirs = [options.peer_python, str(_PEER), str(folder), name]
    return Worker(
        name,
        ours if name == "ours" else theirs,
        options.threads,
        folder / f"{name}.log",
        # The peer's file imports nothing of this project, so the checkout's folders must not be importable.
        {} if name == "ours" else {"PYTHONPATH": ""},
        hint="leave it out with --systems, or give --peer_python an environment with torch and transformers",
    )


def print_curve(answers: dict[str, list[dict[str, Any]]]) -> None:
    """Print the held-out loss after each round, and the differences between the systems' losses."""
    names = list(answers)
    print(f"{'tokens seen':>14}" + "".join(f"{name:>24}" for name in names) + f"{'largest difference':>20}")
    tokens = 0
    for rounds in zip(*answers.values()):
        tokens += rounds[0]["tokens"]
        losses = [answer["eval_loss"] for answer in rounds]
        print(f"{tokens:>14,}" + "".join(f"{x:>24.5f}" for x in losses) + f"{max(losses) - min(losses):>20.5f}")
    first = np.array([loss for answer in answers[names[0]] for loss in answer["losses"]])
    for name in names[1:]:
        other = np.array([loss for answer in answers[name] for loss in answer["losses"]])
        gap = np.abs(first - other)
        print(f"training loss, {names[0]} and {name}: {gap.mean():.5f} apart on average, {gap.max():.5f} at most")


main = main_of(run, PretrainingBenchmarkOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
