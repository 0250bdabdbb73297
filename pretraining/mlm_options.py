"""The options of `train_mlm.py`; read before Paddle is imported, so that a typing error shows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.errors import UsageError
from paddle_ranker.options import option, redeclare
from paddle_ranker.training.options import TrainingOptions
from pretraining.corpus import DOCUMENTS, DOCUMENTS_HELP


@dataclass(frozen=True)
class TrainMlmOptions(TrainingOptions):
    MAY_CHANGE = TrainingOptions.MAY_CHANGE | {"init_from", "config", "cache_dir", "train_files", "eval_files"}

    train_files: tuple[str, ...] = option(
        help=f"files to train on: {DOCUMENTS_HELP}", name="train", aliases=("--train_file",), files=True
    )
    eval_files: tuple[str, ...] = option(
        (),
        help="files to evaluate on (default: documents held out of the training files, --eval_share)",
        name="test",
        files=True,
    )
    eval_share: float = option(
        0.01, help="share of the training documents held out where there are no --test", above=0, below=1
    )
    tokenizer: Optional[str] = option(
        None, help="folder of a tokenizer, as train-tokenizer writes it (default: that of --model)"
    )
    config: str = option(
        "nano", help="shape of an encoder from nothing: nano, micro, mini, medium, base, or a config.json"
    )
    model_type: str = option("ernie", help="what an encoder from nothing is called", choices=("ernie", "bert"))
    normalize_before: bool = option(
        False,
        help="LayerNorm before each part of a layer, for an encoder from nothing: trains better, but neither PaddleNLP "
        "nor transformers has it",
    )
    dropout: Optional[float] = option(
        None, help="dropout in training (default: the configuration's, 0.1)", minimum=0, below=1
    )
    init_from: Optional[str] = option(
        None,
        help="go on from an encoder instead: a folder (ours, PaddleNLP's, or one that convert made), or a name",
        name="model",
    )
    mlm_probability: float = option(0.2, help="share of the tokens that are masked", above=0, below=1)
    whole_word_mask: bool = option(
        False, help="mask whole words: all pieces of a word, and jieba's words of Chinese where jieba is installed"
    )
    max_seq_length: int = option(512, help="tokens of a sequence, at most", minimum=8)
    packing: str = option(
        "pack",
        help="pack: documents one after another until a sequence is full; truncate: one each, cut at the end",
        choices=("pack", "truncate"),
    )
    attention: str = option(
        "document",
        help="what the tokens of packed documents attend to: those of their document, or of the whole sequence",
        choices=("document", "sequence"),
    )
    documents: str = option(
        "lines",
        help="a document of a .txt file: lines (each), blank_lines (parted by them), titles (WikiText's ' = Title = ')",
        choices=DOCUMENTS,
    )
    skip_bad_rows: bool = option(False, help="leave out what is not UTF-8 and count it, instead of stopping")
    cache_dir: Optional[str] = option(
        None, help="where the tokens of the files are kept, for several runs (default: <save_dir>/corpus)"
    )
    batch_size: int = redeclare(TrainingOptions, "batch_size", 10, help="sequences a batch, on each device")
    gradient_accumulation_steps: int = redeclare(TrainingOptions, "gradient_accumulation_steps", 8)
    learning_rate: float = redeclare(TrainingOptions, "learning_rate", 1e-4)
    weight_decay: float = redeclare(TrainingOptions, "weight_decay", 0.01)
    warmup_proportion: float = redeclare(TrainingOptions, "warmup_proportion", 0.06)
    epochs: int = redeclare(TrainingOptions, "epochs", 10)
    eval_step: int = redeclare(TrainingOptions, "eval_step", 1000, aliases=("--eval_steps",))
    save_step: int = redeclare(TrainingOptions, "save_step", 1000, aliases=("--save_steps",))
    logging_steps: int = redeclare(TrainingOptions, "logging_steps", 100)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, default in (("config", "nano"), ("model_type", "ernie"), ("normalize_before", False)):
            if self.init_from is not None and getattr(self, name) != default:
                raise UsageError(
                    f"--{name} is of an encoder from nothing, and --model has its own shape: give one of the two"
                )
        if self.init_from is None and self.tokenizer is None and not self.resume:
            raise UsageError(
                "--tokenizer is needed for an encoder from nothing: make one with paddle-ranker train-tokenizer"
            )
