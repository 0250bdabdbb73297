"""The options of both tower trainings. They need no Paddle, so that a typing error shows at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Optional

from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.model.load_options import POOLINGS
from paddle_ranker.model.pretrained import find_model
from paddle_ranker.options import RowOptions, note_without_effect, option, redeclare
from paddle_ranker.options.declare import ANY_TEXT, FETCHED_FOLDER, fields_of, shown_name
from paddle_ranker.options.input_files import join_files, split_paths
from paddle_ranker.serving.clients.teacher_options import TeacherOptions
from paddle_ranker.training.training_options import AdapterOptions, TrainingOptions
from recall.loss import MOST_SCALE

METRICS = ("recall@1", "recall@5", "recall@10", "recall@20", "recall@50", "mrr@10")
RESULT_DIR, RESULT_FILE = "recall_result_dir", "recall_result_init.txt"
_HNSW = ("hnsw_m", "hnsw_ef", "hnsw_max_elements")
_OF_EVALUATIONS = ("early_stopping", "corpus_file", "recall_result_dir", "recall_result_file")


@dataclass(frozen=True)
class TowerTrainingOptions(RowOptions, AdapterOptions):
    """Options of both tower trainings."""

    MAY_CHANGE: ClassVar[frozenset[str]] = TrainingOptions.MAY_CHANGE | {
        "train_set_file", "similar_text_pair", "corpus_file", "recall_result_dir", "recall_result_file", "dev_set_file",
        "evaluate_result", *_HNSW,
    }  # fmt: skip

    train_set_file: str = option(help="training file", name="train", aliases=("--train_file",), files=True)
    similar_text_pair: Optional[str] = option(
        None,
        help="pairs to evaluate on during training: query, title, possibly a label (default: no evaluation)",
        name="test",
        aliases=("--similar_text_pair_file", "--test_set_file"),
        files=True,
    )
    evaluate: Optional[bool] = option(None, help="evaluate during training (default: true if there is a test file)")
    corpus_file: Optional[str] = option(
        None,
        help="texts to search in evaluations, in addition to the titles of the test file; --refresh_negatives mines "
        "them too",
        name="corpus",
        files=True,
    )
    recall_num: int = option(50, help="number of results per query in evaluations", minimum=1)
    recall_result_dir: Optional[str] = option(
        None, help=f"folder for each evaluation's results (published: {RESULT_DIR}; default: none)"
    )
    recall_result_file: Optional[str] = option(
        None, help=f"write these results to a file of this name (published: {RESULT_FILE})"
    )
    hnsw_m: Optional[int] = option(None, help="accepted without effect: evaluations search exactly", minimum=1)
    hnsw_ef: Optional[int] = option(None, help="accepted without effect, likewise", minimum=1)
    hnsw_max_elements: Optional[int] = option(None, help="accepted without effect, likewise", minimum=1)
    dev_set_file: Optional[str] = option(None, help="accepted without effect, as in the published script; see --test")
    evaluate_result: Optional[str] = option(
        None, help="accepted without effect: each evaluation prints its measures, and metrics.jsonl keeps them"
    )
    metric: str = option("recall@10", help="measure that selects the best checkpoint", choices=METRICS)
    model_name_or_path: str = option(
        "ernie-3.0-medium-zh",
        help="model to start from: a folder, or a name on the Hugging Face hub or in PaddleNLP",
        name="model",
        addresses=FETCHED_FOLDER,
    )
    init_from_ckpt: Optional[str] = option(
        None, help="checkpoint to start from: a folder, or its model_state.pdparams", addresses=FETCHED_FOLDER
    )
    max_seq_length: Optional[int] = option(
        None, help="maximum length of a text in tokens (default: the checkpoint's, else 128)", minimum=5
    )
    output_emb_size: Optional[int] = option(
        None, help="length of the vectors, made by a linear layer; 0: the encoder's width (default: the checkpoint's)",
        minimum=0,
    )  # fmt: skip
    pooling: Optional[str] = option(
        None, help="pooling of the tokens' states (default: the checkpoint's; else pooler, or mean if no "
        "pooler was trained)", choices=POOLINGS,
    )  # fmt: skip
    normalize: Optional[bool] = option(
        None,
        help="scale vectors to length 1, so that products are cosines (default: false if a tower compares products)",
    )
    query_prompt: Optional[str] = option(
        None, help="text that precedes every query (default: the checkpoint's)", addresses=ANY_TEXT
    )
    text_prompt: Optional[str] = option(
        None, help="text that precedes every title (default: the checkpoint's)", addresses=ANY_TEXT
    )
    towers: Optional[int] = option(
        None, help="number of networks; 2: queries have a separate network (default: the checkpoint's, else 1)",
        choices=(1, 2),
    )  # fmt: skip
    query_model: Optional[str] = option(
        None,
        help="model that the network of queries starts from (default: that of the titles)",
        addresses=FETCHED_FOLDER,
    )
    nested_sizes: Optional[str] = option(
        None,
        help="shorter lengths at which the vectors are also trained, as in 64,128, each with a factor of its loss if "
        "it is not 1: 0.5*64,128",
        joins=",",
    )
    scale: float = option(30.0, help="factor of the cosines", above=0)
    learned_scale: bool = option(False, help="learn the factor of the cosines, starting from --scale")
    micro_batch: int = option(
        0, help="examples per pass through the network, whose memory a batch of any size then takes; 0: the whole "
        "batch", minimum=0,
    )  # fmt: skip
    use_gradient_cache: bool = option(False, help="split the batch into --chunk_numbers parts, as --micro_batch does")
    chunk_numbers: int = option(50, help="minimum number of parts of a batch with --use_gradient_cache", minimum=1)
    learning_rate: float = redeclare(TrainingOptions, "learning_rate", 1e-5)
    epochs: int = redeclare(TrainingOptions, "epochs", 10)
    save_step: int = redeclare(TrainingOptions, "save_step", aliases=("--save_steps",))
    eval_step: int = redeclare(TrainingOptions, "eval_step", aliases=("--eval_steps",))
    logging_steps: int = redeclare(TrainingOptions, "logging_steps", aliases=("--log_steps",))
    scale_loss: float = redeclare(TrainingOptions, "scale_loss", aliases=("--amp_loss_scale",))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluate and self.similar_text_pair is None:
            raise UsageError("--evaluate needs pairs to evaluate on: add --test FILE")
        for field in fields_of(type(self)):
            if field.name in self.of_evaluations and self.similar_text_pair is None and getattr(self, field.name):
                raise UsageError(f"{shown_name(field)} is about evaluations: add --test FILE, or leave it out")
        if self.early_stopping and not self.evaluates:
            raise UsageError("--early_stopping counts evaluations, and --evaluate false makes none: leave one out")
        least = 10 if self.metric == "mrr@10" else int(self.metric.partition("@")[2])
        if self.recall_num < least:
            raise UsageError(f"--recall_num {self.recall_num}: --metric {self.metric} needs {least} results or more")
        if self.use_gradient_cache and self.micro_batch:
            raise UsageError("--use_gradient_cache and --micro_batch both split the batch: give one of them")
        if self.query_model is not None and self.towers == 1:
            raise UsageError("--query_model is the start of a second network: leave out --towers 1")
        if self.towers is None and self.query_model is not None:
            object.__setattr__(self, "towers", 2)
        if self.learned_scale and self.scale > MOST_SCALE:
            raise UsageError(f"--scale {self.scale:g}: --learned_scale learns up to {MOST_SCALE:g}; begin with less")
        _ = self.nested

    def look_up(self) -> None:
        for model in () if self.resume else (self.init_from_ckpt or self.model_name_or_path, self.query_model):
            if model is not None:
                find_model(model)

    @property
    def asked_pooling(self) -> Optional[str]:
        """Return the pooling that the options ask for; None: the checkpoint's."""
        return self.pooling

    @property
    def of_evaluations(self) -> Sequence[str]:
        """Return the names of the options that matter to evaluations alone."""
        return _OF_EVALUATIONS

    @property
    def evaluates(self) -> bool:
        return self.similar_text_pair is not None if self.evaluate is None else self.evaluate

    @property
    def compared(self) -> dict[str, str]:
        """Return the paths, by option, of the data and models that must be unchanged when a run is resumed."""
        paths = {name: getattr(self, name) for name in ("train_set_file", "similar_text_pair", "corpus_file")}
        return {name: path for name, path in paths.items() if path}

    @property
    def results_path(self) -> Optional[tuple[str, str]]:
        """Return the folder and the file's name of the results that evaluations write; None: they write none."""
        if self.recall_result_dir is None and self.recall_result_file is None:
            return None
        return self.recall_result_dir or RESULT_DIR, self.recall_result_file or RESULT_FILE

    @property
    def nested(self) -> Optional[dict[int, float]]:
        """Return the factors of the losses of nested sizes, by ascending size; None: as in the checkpoint, each 1."""
        if self.nested_sizes is None:
            return None
        factors: dict[int, float] = {}
        for part in filter(None, self.nested_sizes.split(",")):
            factor, star, size = part.rpartition("*")
            try:
                is_new = int(size) not in factors
                factors[int(size)] = float(factor) if star else 1.0
                is_sound = is_new and int(size) > 0 and 0 < factors[int(size)] < math.inf
            except ValueError:
                is_sound = False
            if not is_sound:
                problem = f"--nested_sizes {quoted(self.nested_sizes)}"
                raise UsageError(f"{problem}: expected lengths, each once, as in 64,128")
        return dict(sorted(factors.items()))

    @property
    def parts(self) -> int:
        """Return the number of parts of a batch that each device computes one after another, a divisor of its size."""
        least = math.ceil(self.batch_size / self.micro_batch) if self.micro_batch else 1
        if self.use_gradient_cache:
            least = min(self.chunk_numbers, self.batch_size)
        parts = next(parts for parts in range(least, self.batch_size + 1) if self.batch_size % parts == 0)
        return self.gradient_accumulation_steps * parts

    @property
    def part_size(self) -> int:
        return self.batch_size * self.gradient_accumulation_steps // self.parts

    def note_unused(self) -> None:
        """Note which of the given published options have no effect here."""
        note_without_effect(self, _HNSW, "evaluations search exactly, and paddle-ranker index takes them")
        note_without_effect(self, ["dev_set_file"], "--test names the pairs to evaluate on")
        note_without_effect(self, ["evaluate_result"], "evaluations print their measures")


@dataclass(frozen=True)
class TaughtTowerOptions(TeacherOptions, TowerTrainingOptions):
    """Options of a tower training with an optional teacher, a ranker with a folder or a URL."""

    MAY_CHANGE: ClassVar[frozenset[str]] = TowerTrainingOptions.MAY_CHANGE | TeacherOptions.OF_ASKING | {"teacher"}

    OF_FILES: ClassVar[frozenset[str]] = frozenset({"teacher_scores"})

    teacher: Optional[str] = option(
        None,
        help="folder of a trained ranker, which scores the pairs without a teacher's score in the file",
        addresses=FETCHED_FOLDER,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is not None and self.teacher_url is not None:
            raise UsageError("--teacher names a folder and --teacher_url an address: give one of them")

    @property
    def compared(self) -> dict[str, str]:
        """Return the paths of every tower training, and the teacher's folders."""
        folders = [] if self.teacher is None else [str(find_model(path)) for path in split_paths(self.teacher)]
        return {**super().compared, **({"teacher": join_files(folders)} if folders else {})}
