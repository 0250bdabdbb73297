"""Search a training's hyperparameters with Optuna, and judge the best on queries that chose nothing.

paddle-ranker tune train-pairwise --help
paddle-ranker tune train-pairwise --train mine.tsv --test dev.tsv --learning_rate 1e-5:1e-4:log --output tuned
paddle-ranker tune train-ce --train pairs.tsv --test dev.tsv --batch_size 16,32 --epochs 1:4 --trials 30 --output tuned
"""

from __future__ import annotations

import dataclasses
import gc
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker import runtime
from paddle_ranker.commands.command_registry import COMMANDS
from paddle_ranker.distributed import launched
from paddle_ranker.errors import (
    RankerError,
    UsageError,
    is_full,
    is_interrupt,
    listed,
    one_line,
    package_for,
    quoted,
    spelling_hint,
)
from paddle_ranker.interrupts import Interrupted
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.options import Options, given_of, note, option, run_command
from paddle_ranker.options.declare import fields_of, input_files, names_of, shown_name
from paddle_ranker.options.input_files import paths_of
from paddle_ranker.tuning.search_space import SearchedOption, take_searched

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from paddle_ranker.tuning.judging import QueryJudge

DEFAULTS, TABLE, REPORT, STORAGE = "the defaults", "trials.tsv", "report.txt", "study.db"
_CHECKPOINTS = ("best", "last", "model_*", "state_*")  # in the folder of a training
_PRUNED, _LINE = "pruned", "line"  # what the storage keeps of a trial, and of all


@dataclass(frozen=True)
class TuneOptions(Options):
    """The options of `tune` itself; those of the training come with them."""

    command: str = option(
        help="training command, such as train-pairwise, whose options follow; one to search has a range, LOW:HIGH or "
        "LOW:HIGH:log, or several values with commas between them",
        positional=True,
    )
    trials: int = option(20, help="number of trainings, the first of them with the defaults", minimum=2)
    judge_file: Optional[str] = option(
        None,
        help="pairs as in --test whose queries choose nothing, for the comparison at the end (default: half of the "
        "queries of --test, which then choose nothing)",
        name="judge",
        files=True,
    )


def tune(options: Any, searched: Sequence[SearchedOption]) -> None:
    """Train with the defaults, then with the values that Optuna draws; compare the best with the defaults, and report.

    options: those of `TuneOptions` and of the training
    """
    with package_for("tune", "'paddle-ranker[tune]'"):
        import optuna
    from paddle_ranker.storage.atomic import locked, new_file

    output = Path(options.save_dir)
    if not options.resume and ((output / STORAGE).exists() or any(output.glob("trial_*"))):
        raise UsageError(f"{output}: has trials already; add --resume to go on, or name another --output")
    tuning = _Tuning.of(options, searched)
    runtime.prepare_command(options.cpu_threads)
    try:
        lock = locked(output / ".lock", wait=False)
    except BlockingIOError as error:
        raise RankerError(f"{output}: another tune writes there; choose another --output") from error
    with lock:
        tuning, judge = _with_judge(tuning, options.judge_file)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            storage=f"sqlite:///{(output / STORAGE).resolve()}",
            study_name="tune",
            direction="maximize" if tuning.sign > 0 else "minimize",
            pruner=optuna.pruners.MedianPruner(),
            load_if_exists=True,
        )
        _require_same(study, tuning, options)
        for trial in _trials(study, tuning, options.trials):
            _run(study, trial, tuning)
            _tidy(study, tuning)
        lines = _report(study, tuning, judge)
        with new_file(output / REPORT) as stream:
            stream.write("\n".join([*lines, ""]))
        print("\n".join(lines))


@dataclass(frozen=True)
class _Tuning:
    """What is tuned.

    command: the training's command
    module: its module
    training: the options of a trial, with the defaults of those that are searched
    test: name of the field of the evaluation file
    searched: the options that are searched
    measure: the training's metric, as comparisons call it
    """

    command: str
    module: Any
    training: Any
    test: str
    searched: Sequence[SearchedOption]
    measure: str

    @classmethod
    def of(cls, options: Any, searched: Sequence[SearchedOption]) -> _Tuning:
        """Check what is to be tuned; raises `UsageError`, before anything is read or trained."""
        if launched() > 1:
            raise UsageError("tune runs in one process, and the launcher started several: start it without a launcher")
        if not searched:
            raise UsageError("there is nothing to search: give an option a range, as in --learning_rate 1e-5:1e-4:log")
        module = COMMANDS[options.command].load()
        training_class = _options_of(options.command)
        test = next(field.name for field in fields_of(training_class) if "--test" in names_of(field))
        if getattr(options, test) is None or getattr(options, "evaluates", True) is False:
            raise UsageError("evaluations choose: add --test FILE, and leave out --evaluate false")
        values = {field.name: getattr(options, field.name) for field in dataclasses.fields(training_class)}
        training = training_class(**{**values, "resume": False})
        for field in given_of(training, [one.name for one in searched]):
            raise UsageError(f"{shown_name(field)}: has one value, and others to search; give it once")
        for one in searched:
            for value in one.values:  # raises what the training would
                dataclasses.replace(training, **{one.name: value})
        return cls(options.command, module, training, test, searched, _measure_of(options.metric))

    @property
    def sign(self) -> float:
        return float(MEASURES[self.measure].sign)

    def folder(self, trial: int) -> Path:
        return Path(self.training.save_dir) / f"trial_{trial}"

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the searched options; the default of one that a trial has none of."""
        return {one.name: params.get(one.name, getattr(self.training, one.name)) for one in self.searched}

    def line(self, trial: FrozenTrial) -> str:
        """Return the line that repeats a trial."""
        options, words = dataclasses.replace(self.training, **self.values(trial.params), save_dir="checkpoint"), []
        for field in given_of(options, [field.name for field in fields_of(type(options))]):
            value = getattr(options, field.name)
            each = paths_of(value) if field.metadata["files"] else value if isinstance(value, tuple) else (value,)
            words += [shown_name(field), *(str(v).lower() if isinstance(v, bool) else str(v) for v in each)]
        return f"paddle-ranker {self.command} {shlex.join(words)}"


def _measure_of(metric: str) -> str:
    """Return the name in comparisons of a training's metric: towers are trained by `recall@10`, compared by `r@10`."""
    return metric.replace("recall@", "r@")


def _options_of(command: str) -> Any:
    """Return the options class of a training.

    Raises `UsageError`, which lists the trainings, unless there is such a training, and it is measured over queries, of
    which some can choose and others judge.
    """
    COMMANDS.load_plugins()
    tuned: dict[str, Any] = {}
    for name, entry in COMMANDS.items():
        made = getattr(entry.load(), entry.options) if entry.options is not None else Options
        fields = {name: field for field in fields_of(made) for name in names_of(field)}
        if "--test" in fields and "--metric" in fields and _measure_of(str(fields["--metric"].default)) in MEASURES:
            tuned[name] = made
    if command not in tuned:
        raise UsageError(f"tune {quoted(command)}: choose from {', '.join(tuned)}{spelling_hint(command, tuned)}")
    return tuned[command]


def _with_judge(tuning: _Tuning, judge_file: Optional[str]) -> tuple[_Tuning, QueryJudge]:
    """Return what is tuned, with the queries that choose as its test file, and the judge."""
    from paddle_ranker.tuning.judging import open_judge, require_apart, split_by_query

    training, file = tuning.training, getattr(tuning.training, tuning.test)
    if judge_file is None:
        choosing, judge_file = split_by_query(file, training, Path(training.save_dir))
        training = dataclasses.replace(training, **{tuning.test: choosing})
    else:
        require_apart(file, judge_file, training)
    return dataclasses.replace(tuning, training=training), open_judge(judge_file, training, tuning.measure)


def _require_same(study: Study, tuning: _Tuning, options: Any) -> None:
    """Store what is tuned; raise `UsageError` if the trials that are there are of something else."""
    from paddle_ranker.storage.digest import content_digest

    now = {"command": tuning.command, **{name: str(value) for name, value in tuning.training.identity().items()}}
    now.update((f"search of {one.name}", str(dataclasses.astuple(one))) for one in tuning.searched)
    now.update(
        (f"content of {field.name}", content_digest(getattr(options, field.name))) for field, _ in input_files(options)
    )
    before = study.user_attrs.get(_LINE, now)
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if changed:
        raise UsageError(
            f"--resume: {options.save_dir} has trials with another {listed(changed)}; repeat their line, or name "
            "another --output"
        )
    study.set_user_attr(_LINE, now)


def _trials(study: Study, tuning: _Tuning, count: int) -> Iterator[Trial]:
    """Yield the trial that was interrupted, if there is one, then new ones until there are `count`.

    Each is drawn with a seed of its own: a tune that goes on draws what it would have drawn without the interruption.
    """
    import numpy as np
    from optuna.samplers import TPESampler
    from optuna.trial import Trial, TrialState

    def begin(number: int) -> None:
        sequence = np.random.SeedSequence([tuning.training.seed, number])
        study.sampler = TPESampler(seed=int(sequence.generate_state(1)[0]))

    for frozen in study.get_trials(states=(TrialState.RUNNING,)):
        begin(frozen.number)
        yield Trial(study, frozen._trial_id)
    if not study.trials:
        defaults = tuning.values({})
        study.enqueue_trial({one.name: defaults[one.name] for one in tuning.searched if one.holds(defaults[one.name])})
    while (number := sum(trial.state.is_finished() for trial in study.trials)) < count:
        begin(number)
        yield study.ask()


def _run(study: Study, trial: Trial, tuning: _Tuning) -> None:
    """Train with a trial's values, report each evaluation to Optuna, and tell it how the trial ended.

    An error ends the tune if it is that of the defaults or of a full disk; otherwise this trial has failed.
    """
    from optuna.trial import TrialState

    defaults, folder = tuning.values({}), tuning.folder(trial.number)
    drawn = [one for one in tuning.searched if trial.number or one.holds(defaults[one.name])]
    values = {**defaults, **{one.name: one.suggest(trial) for one in drawn}}
    print(f"trial {trial.number}: {', '.join(f'--{name} {value}' for name, value in values.items())}", flush=True)
    if getattr(tuning.training, "lora_rank", 0):  # such a training cannot be resumed
        shutil.rmtree(folder, ignore_errors=True)
    log_dir = tuning.training.log_dir and f"{tuning.training.log_dir}/{folder.name}"
    reported = set(study.trials[trial.number].intermediate_values)

    def on_evaluation(step: int, measures: dict[str, float]) -> bool:
        # Batches may differ in size, so that steps are not to be compared.
        examples = step * options.parts * options.part_size
        if examples not in reported:  # a resumed training repeats evaluations
            trial.report(measures[options.metric], examples)
        if trial.number and trial.should_prune():
            trial.set_user_attr(_PRUNED, True)
            return True
        return False

    try:
        options = dataclasses.replace(
            tuning.training, **values, save_dir=str(folder), log_dir=log_dir, resume=folder.exists()
        )
        best = tuning.module.train(options, on_evaluation).best
        if not best:
            raise RankerError("no evaluation came before --max_minutes; lower --eval_step, or give it more")
    except Interrupted as interrupt:  # whose own line to go on with would be that of a training
        raise KeyboardInterrupt(f"trial {trial.number} {interrupt}; the same line with --resume goes on") from interrupt
    except Exception as error:
        if not trial.number or is_interrupt(error) or is_full(error) or is_full(error.__cause__ or error):
            raise
        study.tell(trial, state=TrialState.FAIL)
        note(f"trial {trial.number} failed: {one_line(error)}")
    else:
        is_pruned = study.trials[trial.number].user_attrs.get(_PRUNED, False)
        study.tell(trial, **({"state": TrialState.PRUNED} if is_pruned else {"values": best[options.metric]}))
    gc.collect()  # a network in a cycle of references would keep a GPU's memory


def _best(study: Study, tuning: _Tuning) -> FrozenTrial:
    """Return the best of the complete trials; of equally good ones the first, which may be that of the defaults."""
    from optuna.trial import TrialState

    return max(study.get_trials(states=(TrialState.COMPLETE,)), key=lambda trial: tuning.sign * trial.value)


def _tidy(study: Study, tuning: _Tuning) -> None:
    """Write the table of trials, point to the best model, and delete those that are neither the best nor the first."""
    from paddle_ranker.data.rows.formats import write_rows
    from paddle_ranker.storage.atomic import point

    best, output = _best(study, tuning), Path(tuning.training.save_dir)
    point(output / "best", tuning.folder(best.number) / "best")
    columns = ("trial", "state", tuning.training.metric, *(one.name for one in tuning.searched))
    rows = (
        (
            trial.number,
            trial.state.name.lower(),
            "" if trial.value is None else round(trial.value, 6),
            *("" if value is None else value for value in tuning.values(trial.params).values()),
        )
        for trial in study.trials
    )
    write_rows(str(output / TABLE), columns, rows, header=True)
    for trial in study.trials:
        for path in (path for name in _CHECKPOINTS for path in tuning.folder(trial.number).glob(name)):
            if trial.number in (0, best.number):
                continue
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path)


def _report(study: Study, tuning: _Tuning, judge: QueryJudge) -> list[str]:
    """Return the last lines: the best trial, how to repeat it, and what it gains on queries that chose nothing."""
    from paddle_ranker.evaluation.report.text import verdict

    best, metric, output = _best(study, tuning), tuning.training.metric, Path(tuning.training.save_dir)
    states = [trial.state.name.lower() for trial in study.trials]
    ended = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    name, folder = f"trial {best.number}", output / "best"
    lines = [
        f"{len(states)} trials ({ended}): {output / TABLE}",
        f"best by the queries that choose: {name}, {metric} {best.value:.4f}; {DEFAULTS}: {study.trials[0].value:.4f}",
        f"its model: {folder}; to train it again: {tuning.line(best)}",
    ]
    if best.number == 0:
        return [*lines, f"Nothing is gained over {DEFAULTS}: they are the best of {len(states)} trials."]
    models = {DEFAULTS: tuning.folder(0) / "best", name: folder}
    comparison = judge.compare({system: str(model) for system, model in models.items()})
    shown = ", ".join(f"{system} {comparison.measured[system][tuning.measure].interval:.4f}" for system in models)
    lines.append(f"on {len(comparison.query_ids):,} queries that chose nothing: {tuning.measure} of {shown}")
    return [*lines, verdict(comparison, name, tuning.measure)]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; its options are those of the training that the first argument names."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    run: Any = partial(tune, searched=())
    options_class: Any = TuneOptions
    try:
        if arguments[:1] not in (["--help"], ["-h"]):
            training = _options_of(arguments[0] if arguments else "")
            options_class = dataclasses.make_dataclass("TuneTraining", (), bases=(TuneOptions, training), frozen=True)
            arguments, searched = take_searched(training, arguments)
            run = partial(tune, searched=searched)
    except RankerError as error:
        return run_command(partial(_fail, error), Options, [], "")
    return run_command(run, options_class, arguments, __doc__ or "")


def _fail(error: RankerError, options: Options) -> None:
    raise error
