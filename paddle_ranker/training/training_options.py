"""The options of training commands. They need no Paddle, so that a typing error shows at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Callable, ClassVar, Optional, TypeVar

from paddle_ranker import runtime
from paddle_ranker.errors import UsageError, spelling_hint
from paddle_ranker.metrics.calibration import AUTO, SCORE_KINDS
from paddle_ranker.metrics.measures import MEASURES, training_measures
from paddle_ranker.model.model_options import HeadOptions
from paddle_ranker.model.pretrained import find_model
from paddle_ranker.options import DeviceOptions, LabelOptions, main_of, option, refuse_given
from paddle_ranker.options.declare import FETCHED_FOLDER
from paddle_ranker.training.losses.expression import LossExpression, parse_loss
from paddle_ranker.training.losses.loss_registry import loss_help, margin_help
from paddle_ranker.training.trackers import require_tracker, tracker_help

OptionsT = TypeVar("OptionsT", bound="TrainingOptions")


@dataclass(frozen=True)
class TrainingOptions(DeviceOptions):
    """The options of every training command."""

    # Options that may change when a run is resumed: they do not affect the parameters, or only when the run stops and
    # what it keeps; and files, whose content is compared instead.
    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {
            "debug", "save_dir", "init_from_ckpt", "logging_steps", "eval_step", "save_step", "keep", "early_stopping",
            "max_minutes", "resume", "force_resume", "log_to", "log_dir", "device", "cpu_threads",
            "data_memory_mb", "train_file", "train_set", "test_file",
        }
    )  # fmt: skip
    _NOT_RECORDED: ClassVar[frozenset[str]] = frozenset(
        {"debug", "save_dir", "logging_steps", "resume", "force_resume", "log_to", "log_dir"}
    )

    save_dir: str = option("./checkpoint", help="folder for checkpoints", name="output")
    batch_size: int = option(32, help="examples per batch, on each device", minimum=1)
    max_tokens: int = option(
        0, help="padded tokens per batch, on each device: longer pairs make smaller batches; 0: no limit", minimum=0
    )
    gradient_accumulation_steps: int = option(1, help="gradient accumulation: batches per optimizer step", minimum=1)
    learning_rate: float = option(5e-5, help="maximum learning rate", above=0)
    new_parts_factor: float = option(
        10.0,
        help="learning rate of new parts (head, match embeddings, lexical weights), as a multiple of that of the "
        "other parts",
        above=0,
    )
    weight_decay: float = option(0.0, help="weight decay; not applied to biases and LayerNorm", minimum=0)
    epochs: int = option(3, help="number of epochs", minimum=1)
    max_steps: int = option(0, help="maximum number of steps; 0: all steps of the epochs", minimum=0)
    max_minutes: float = option(
        0.0, help="save and stop after this many minutes of this process; --resume continues; 0: no limit", minimum=0
    )
    warmup_proportion: float = option(0.0, help="warm-up, as a share of all steps", minimum=0, below=1)
    schedule: str = option(
        "linear", help="schedule of the learning rate after the warm-up", choices=("linear", "cosine", "constant")
    )
    layer_lr_decay: float = option(
        1.0, help="learning rate of each layer, as a multiple of that of the layer above it", above=0, maximum=1
    )
    max_grad_norm: float = option(1.0, help="clip the gradient to this norm; 0: no clipping", minimum=0)
    eval_step: int = option(200, help="steps between evaluations", minimum=1)
    save_step: int = option(10000, help="steps between scheduled checkpoints", minimum=1)
    logging_steps: int = option(10, help="steps between progress lines", minimum=1)
    keep: int = option(0, help="scheduled checkpoints to keep, besides the best and the last; 0: all", minimum=0)
    early_stopping: int = option(0, help="early stopping: evaluations without improvement; 0 turns it off", minimum=0)
    resume: bool = option(False, help="resume the interrupted run in --output; if there is none, begin one")
    force_resume: bool = option(False, help="resume even if data, options or the number of processes differ")
    log_to: Optional[str] = option(None, help=tracker_help)
    log_dir: Optional[str] = option(None, help="folder for the files of --log_to (default: its name, in --output)")
    use_amp: bool = option(False, help="mixed precision")
    amp_dtype: str = option(
        "auto",
        help="half-precision type of --use_amp; auto: bfloat16 on a CPU and on GPUs that have it, else float16",
        choices=("auto", "float16", "bfloat16"),
    )
    scale_loss: float = option(
        32768.0, help="initial loss scale of --use_amp; it adapts during the training", above=0, maximum=2.0**40
    )
    gradient_checkpointing: bool = option(
        False,
        help="compute the activations inside layers again in the backward pass: less memory, up to half more time",
    )
    data_memory_mb: int = option(
        1024, help="encoded data above this size (MB) is kept in a temporary file in --output", minimum=0
    )
    seed: int = option(1000, help="random seed of order, dropout and new parameters", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.force_resume and not self.resume:
            raise UsageError("--force_resume true says how to resume: add --resume, or leave it out to begin a new run")
        if self.log_to is not None:
            require_tracker(self.log_to)
        else:
            refuse_given(self, ["log_dir"], "is the folder of an experiment tracker: add --log_to, or leave it out")

    @property
    def parts(self) -> int:
        """Return the number of micro-batches whose gradients each device accumulates for a step."""
        return self.gradient_accumulation_steps

    @property
    def part_size(self) -> int:
        """Return the maximum number of examples in a micro-batch."""
        return self.batch_size

    def recorded(self) -> dict[str, object]:
        """Return the options to save with the model: all except those about the process and its folders."""
        return {name: value for name, value in asdict(self).items() if name not in self._NOT_RECORDED}

    def identity(self) -> dict[str, object]:
        """Return the options that must not change when a run is resumed."""
        return {name: value for name, value in asdict(self).items() if name not in self.MAY_CHANGE}


def training_main(  # type: ignore[explicit-any]  # `argv` is optional
    train: Callable[[OptionsT], object], options_class: type[OptionsT], description: Optional[str]
) -> Callable[..., int]:
    """Return the `main(argv=None)` of a training command: prepare the process, then call `train`."""

    def run(options: OptionsT) -> None:
        runtime.prepare_command(options.cpu_threads)
        train(options)

    return main_of(run, options_class, description)


@dataclass(frozen=True)
class AdapterOptions(TrainingOptions):
    """Options of trainings that may train adapters instead of an encoder."""

    lora_rank: int = option(
        0,
        help="train LoRA adapters of this rank instead of the encoder; saved models have them merged; 0: train all "
        "parameters",
        minimum=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora_rank and self.resume:
            raise UsageError("--lora_rank: saved models have their adapters merged, so --resume cannot train them on")


@dataclass(frozen=True)
class RankerTrainingOptions(HeadOptions, LabelOptions, AdapterOptions):
    """Options of both commands that train rankers; `LISTWISE` says whether the command allows listwise losses."""

    LISTWISE: ClassVar[bool] = True

    loss: str = option("bce", help=loss_help)
    margin: Optional[float] = option(None, help=margin_help, minimum=0)
    rdrop_coef: float = option(
        0.0,
        help="R-Drop: compute each pair twice with different dropout, and add this multiple of the divergence of both "
        "probabilities to the loss; 0: compute it once",
        minimum=0,
    )
    teacher_scores: str = option(
        AUTO,
        help="kind of the teacher's scores in the file; auto: probabilities if all are within 0 and 1, else logits",
        choices=SCORE_KINDS,
    )
    model_name_or_path: str = option(
        "ernie-3.0-medium-zh",
        help="model to start from: a folder, or a name on the Hugging Face hub or in PaddleNLP",
        name="model",
        addresses=FETCHED_FOLDER,
    )
    init_from_ckpt: Optional[str] = option(
        None, help="checkpoint to start from: a folder, or its model_state.pdparams"
    , addresses=FETCHED_FOLDER)  # fmt: skip
    max_seq_length: Optional[int] = option(
        None, help="maximum length of a pair in tokens (default: the checkpoint's, else 128)", minimum=5
    )
    head_learning_rate: Optional[float] = option(
        None,
        help="maximum learning rate of the head (default: that of new parts if the head is new, twice --learning_rate "
        "if it was folded from two classes, else --learning_rate)",
        above=0,
    )
    metric: str = option("auc", help="measure that selects the best checkpoint")
    match_embeddings: bool = option(True, help="mark tokens that occur in both texts (exact-match embeddings)")
    lexical_features: bool = option(
        False,
        help="add lexical features such as BM25 to the head, computed inside the model; a checkpoint keeps its own",
    )
    similarity: Optional[str] = option(
        None,
        help="add the cosine of both texts to the head, by this tower or encoder, frozen as it is; start: by the "
        "encoder that the training starts from; a checkpoint keeps the one that it has",
        addresses=FETCHED_FOLDER,
    )
    stored_titles: int = option(
        0,
        help="split the encoder: this many lower layers see query and title each alone, so that `paddle-ranker store` "
        "can compute titles once; 0: as the checkpoint",
        minimum=0,
    )
    stored_width: int = option(
        0, help="numbers per state of --stored_titles, learned; 0: as the checkpoint, or the encoder's width", minimum=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric not in MEASURES or not MEASURES[self.metric].in_training:
            names = training_measures()
            raise UsageError(
                f"--metric {self.metric}: choose from {', '.join(names)}{spelling_hint(self.metric, names)}"
            )
        self.expression.margins(self.margin)
        if not self.expression.of_teacher:
            refuse_given(self, ["teacher_scores"], f"is about a teacher, from which --loss {self.loss} does not learn")

    def look_up(self) -> None:
        """If no run is resumed, find the model to start from, and fetch it if it is missing."""
        if not self.resume:
            find_model(self.init_from_ckpt or self.model_name_or_path)

    @property
    def expression(self) -> LossExpression:
        return parse_loss(self.loss, listwise=self.LISTWISE)
