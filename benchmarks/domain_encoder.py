"""Measure what an encoder that has read raw text for some minutes is worth to a ranker, against the same from nothing.

python -m benchmarks.domain_encoder --minutes 20 --seeds 1,2,3 --work_dir FOLDER

The encoder learns from the Chinese corpus (and, with `--texts both`, from the training file's own queries and titles,
whose labels it never sees); its twin has the same shape and vocabulary and random parameters. Rankers are then trained
from either on the same folds of queries. A stopped benchmark goes on where it was with the same `--work_dir`.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from benchmarks.fold_runs import FILES, OURS, Bench, FoldRunOptions
from benchmarks.inputs import ROOT
from benchmarks.report import System, compare, figures_table, parse_numbers, real_data_file, report, write_report
from paddle_ranker import runtime
from paddle_ranker.data.records import LabeledPair, read_records
from paddle_ranker.errors import RankerError
from paddle_ranker.model.config import EncoderConfig, read_config, write_config
from paddle_ranker.options import option, run_command
from paddle_ranker.storage.atomic import make_folder, new_folder

_DROPOUT = 0.2  # of rankers from little data; the pretraining itself has none
_LENGTH = 64
_TEXTS = {"corpus": ("corpus",), "both": ("corpus", "pairs")}


@dataclass(frozen=True)
class DomainEncoderOptions(FoldRunOptions):
    """Options of `python -m benchmarks.domain_encoder`."""

    model: str = option("", help="an encoder that was pretrained already (default: pretrain one for --minutes)")
    work_dir: str = option(help="folder for the encoder, its twin and finished runs")
    minutes: float = option(20.0, help="minutes of pretraining", above=0)
    texts: str = option("corpus", help="what the encoder reads", choices=tuple(_TEXTS))
    layers: int = option(2, help="layers of the encoder", minimum=1)
    hidden_size: int = option(128, help="its width", minimum=8)
    heads: int = option(4, help="its attention heads", minimum=1)
    vocab_size: int = option(8000, help="its word pieces, at most", minimum=100)
    mlm_batch_size: int = option(4, help="sequences of 64 tokens a step of pretraining", minimum=1)
    mlm_learning_rate: float = option(1e-3, help="peak learning rate of pretraining", above=0)
    mlm_epochs: int = option(2, help="passes over the texts, over which the learning rate falls", minimum=1)
    system: str = option("match", help="how rankers are trained from it", choices=tuple(OURS))


def run(options: DomainEncoderOptions) -> None:
    """Print the figures of the rankers from the encoder and from its twin, and their difference."""
    runtime.prepare_command(options.threads)
    runtime.select_device("cpu")
    work = make_folder(options.work_dir)
    encoder = Path(options.model) if options.model else pretrained(options, work)
    options = dataclasses.replace(
        options,
        learning_rate=options.learning_rate or 1e-3,
        new_parts_factor=options.new_parts_factor or 10.0,
        scores_dir=str(work / "scores"),
    )
    systems = []
    for name, folder in (("from nothing", twin(encoder, work / "twin")), ("domain encoder", encoder)):
        bench = Bench(dataclasses.replace(options, model=str(folder)), work)
        found = bench.run(options.system, parse_numbers(options.seeds, "seeds"))
        systems.append(System(name, found.runs, found.seconds))
    queries, labels = [pair.query for pair in bench.measured], [pair.label for pair in bench.measured]
    figures = compare(queries, labels, systems, "domain encoder", resamples=options.resamples)
    print(f"\n{options.data}, {options.protocol}, {options.system}: {len(queries):,} pairs of {len(set(queries)):,} "
          f"queries; means over seeds {options.seeds}, 95% bootstrap intervals\n")  # fmt: skip
    print(figures_table(systems, figures, "domain encoder"))
    write_report(options.json, report(options, systems, figures, [], pairs=len(queries), reference="domain encoder"))


def pretrained(options: DomainEncoderOptions, work: Path) -> Path:
    """Train the encoder as a user does, and return its folder, with a ranker's dropout in its configuration."""
    folder = work / "encoder"
    if folder.exists():
        return folder
    texts = work / "texts.jsonl"
    with texts.open("w", encoding="utf-8") as stream:
        for text in _texts(options):
            stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    tokenizer, shape, run_folder = work / "tokenizer", work / "shape.json", work / "mlm"
    if not tokenizer.exists():
        _call(["train_tokenizer.py", "--files", texts, "--vocab_size", options.vocab_size, "--output_dir", tokenizer])
    shape.write_text(json.dumps(_shape(options)), encoding="utf-8")
    _call(["train_mlm.py", "--train_files", texts, "--tokenizer", tokenizer, "--config", shape, "--save_dir",
           run_folder, "--dropout", 0, "--normalize_before", "true", "--max_seq_length", _LENGTH, "--batch_size",
           options.mlm_batch_size, "--gradient_accumulation_steps", 1, "--learning_rate", options.mlm_learning_rate,
           "--max_minutes", options.minutes, "--eval_step", 1000, "--save_step", 1000, "--logging_steps", 500,
           "--keep", 1, "--cpu_threads", options.threads, "--device", "cpu", "--resume", "true", "--epochs",
           options.mlm_epochs])  # fmt: skip
    _copy(run_folder / "last", folder)
    return folder


def twin(encoder: Path, folder: Path) -> Path:
    """Write an encoder of the same shape and vocabulary whose parameters are random; return its folder."""
    if not folder.exists():
        from paddle_ranker.model.encoder import Encoder

        runtime.set_seed(1)
        _copy(encoder, folder, Encoder)
    return folder


def _copy(source: Path, target: Path, redrawn: Optional[type] = None) -> None:
    from paddle_ranker.encoding.tokenizers.folder import TokenizerFiles
    from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, save_arrays

    config = read_config(source)
    if config is None:
        raise RankerError(f"{source}: has no config.json; name the folder of an encoder")
    config = dataclasses.replace(config, hidden_dropout_prob=_DROPOUT, attention_probs_dropout_prob=_DROPOUT)
    if redrawn is None:
        arrays = load_arrays(source / PARAMETERS_FILE)
    else:
        config = dataclasses.replace(config, initializer_range=EncoderConfig(config.vocab_size).initializer_range)
        arrays = redrawn(config).state_dict()
    with new_folder(target) as temporary:
        write_config(temporary, config)
        TokenizerFiles.read(source).write(temporary)
        save_arrays(arrays, temporary / PARAMETERS_FILE)


def _texts(options: DomainEncoderOptions) -> list[str]:
    texts = []
    if "corpus" in _TEXTS[options.texts]:
        corpus = real_data_file(options.data_dir, "corpus/zh_sci.txt").read_text(encoding="utf-8")
        texts += [line for line in corpus.splitlines() if line.strip()]
    if "pairs" in _TEXTS[options.texts]:
        pairs = read_records(real_data_file(options.data_dir, FILES[options.data]), LabeledPair)
        texts += dict.fromkeys(text for pair in pairs for text in (pair.query, pair.title))
    return texts


def _shape(options: DomainEncoderOptions) -> dict[str, float]:
    # A narrow encoder learns sooner from larger first weights than BERT's 0.02 (docs/pretraining.md).
    spread = 0.06 if options.hidden_size < 256 else 0.02
    return {"hidden_size": options.hidden_size, "num_hidden_layers": options.layers,
            "num_attention_heads": options.heads, "intermediate_size": 4 * options.hidden_size,
            "max_position_embeddings": 512, "initializer_range": spread}  # fmt: skip


def _call(command: Sequence[object]) -> None:
    typed = [sys.executable, str(ROOT / "pretraining" / str(command[0])), *map(str, command[1:])]
    if subprocess.run(typed, cwd=ROOT).returncode:
        raise RankerError(f"{command[0]} failed: see its output above")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(
        run, DomainEncoderOptions, argv, (__doc__ or "").split("\n")[0], prog="benchmarks.domain_encoder"
    )


if __name__ == "__main__":
    raise SystemExit(main())
