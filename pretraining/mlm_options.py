"""The options of `train_mlm.py`; they need no Paddle, so that a typing error shows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.errors import UsageError
from paddle_ranker.options import option, redeclare
from paddle_ranker.options.declare import FETCHED_FOLDER
from paddle_ranker.training.training_options import TrainingOptions
from pretraining.corpus import DOCUMENTS, DOCUMENTS_HELP


@dataclass(frozen=True)
class TrainMlmOptions(TrainingOptions):
    MAY_CHANGE = TrainingOptions.MAY_CHANGE | {
        "init_from",
        "config",
        "tokenizer",
        "cache_dir",
        "train_files",
        "eval_files",
    }

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
        0.01, help="share of the training documents to hold out if there is no --test", above=0, below=1
    )
    tokenizer: Optional[str] = option(
        None, help="folder of a tokenizer written by train-tokenizer (default: that of --model)"
    )
    config: str = option("nano", help="shape of a new encoder: nano, micro, mini, medium, base, or a config.json")
    model_type: str = option("ernie", help="model type of a new encoder", choices=("ernie", "bert"))
    normalize_before: bool = option(
        False,
        help="put LayerNorm before each part of a layer, in a new encoder: it trains better, but neither PaddleNLP "
        "nor transformers supports it",
    )
    dropout: Optional[float] = option(
        None, help="dropout in training (default: the configuration's, 0.1)", minimum=0, below=1
    )
    init_from: Optional[str] = option(
        None,
        help="encoder to continue from: a folder (of this toolkit, of PaddleNLP, or made by convert), or a name",
        name="model",
        addresses=FETCHED_FOLDER,
    )
    mlm_probability: float = option(0.2, help="share of masked tokens", above=0, below=1)
    whole_word_mask: bool = option(
        False, help="mask whole words: all pieces of a word, and in Chinese jieba's words if jieba is installed"
    )
    max_seq_length: int = option(512, help="maximum length of a sequence in tokens", minimum=8)
    packing: str = option(
        "pack",
        help="pack: documents one after another until a sequence is full; truncate: one document each, cut at the end",
        choices=("pack", "truncate"),
    )
    attention: str = option(
        "document",
        help="attention of packed documents' tokens: to their document only, or to the whole sequence",
        choices=("document", "sequence"),
    )
    documents: str = option(
        "lines",
        help="documents of a .txt file: lines (each), blank_lines (between them), titles (WikiText's ' = Title = ')",
        choices=DOCUMENTS,
    )
    skip_bad_rows: bool = option(False, help="skip and count text that is not UTF-8, instead of stopping")
    cache_dir: Optional[str] = option(
        None, help="folder that caches the files' tokens for several runs (default: <save_dir>/corpus)"
    )
    batch_size: int = redeclare(TrainingOptions, "batch_size", 10, help="sequences per batch, on each device")
    gradient_accumulation_steps: int = redeclare(TrainingOptions, "gradient_accumulation_steps", 8)
    learning_rate: float = redeclare(TrainingOptions, "learning_rate", 1e-4)
    weight_decay: float = redeclare(TrainingOptions, "weight_decay", 0.01)
    warmup_proportion: float = redeclare(TrainingOptions, "warmup_proportion", 0.06)
    epochs: int = redeclare(TrainingOptions, "epochs", 10)
    eval_step: int = redeclare(TrainingOptions, "eval_step", 1000)
    save_step: int = redeclare(TrainingOptions, "save_step", 1000)
    logging_steps: int = redeclare(TrainingOptions, "logging_steps", 100)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, default in (("config", "nano"), ("model_type", "ernie"), ("normalize_before", False)):
            if self.init_from is not None and getattr(self, name) != default:
                raise UsageError(f"--{name} describes a new encoder, but --model has its own shape: give one of them")
        if self.init_from is None and self.tokenizer is None and not self.resume:
            raise UsageError("--tokenizer is required for a new encoder: make one with paddle-ranker train-tokenizer")
