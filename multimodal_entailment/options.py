"""The options of the commands; read before Paddle is imported, so that a typing error shows at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker.encoding.options import TokenizerOptions
from paddle_ranker.errors import UsageError
from paddle_ranker.model.exported import is_exported
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.options import AUTO_DEVICE, DEVICE_HELP, ThreadOptions, option, redeclare
from paddle_ranker.scoring.options import ScoringOptions
from paddle_ranker.training.options import TrainingOptions

MODALITIES = ("both", "text", "image")
FUSIONS = ("concat", "dot_attention", "multihead")
COLUMNS = "CSV with id_1, text_1, image_1, id_2, text_2, image_2, label"


@dataclass(frozen=True)
class TrainEntailmentOptions(TokenizerOptions, TrainingOptions):
    MAY_CHANGE = TrainingOptions.MAY_CHANGE | {
        "model_name_or_path", "vision_weights", "cache_dir", "image_workers", "metric", "image_folder",
        "validation_file",
    }  # fmt: skip

    train_file: str = option(help=f"pairs of posts: {COLUMNS}", name="train", files=True)
    validation_file: Optional[str] = option(
        None,
        help="pairs to evaluate on during training (default: pairs held out of the training file)",
        name="test",
        files=True,
    )
    test_share: float = option(
        0.1, help="share of the training file kept for evaluate, where there is no --test", minimum=0,
        below=1,
    )  # fmt: skip
    validation_share: float = option(
        0.05, help="share of the rest to evaluate on during training, where there is no --test", above=0,
        below=1,
    )  # fmt: skip
    split_seed: int = option(42, help="random seed of the split", minimum=0)
    image_folder: Optional[str] = option(None, help="what image paths start from (default: the file's folder)")
    skip_bad_rows: bool = option(False, help="leave out malformed rows, take broken images for missing, count both")
    modalities: str = option("both", help="what the model looks at", choices=MODALITIES)
    model_name_or_path: Optional[str] = option(
        None,
        help="text encoder to start from: a folder, or a name of the Hugging Face hub or PaddleNLP; needed for texts",
        name="model",
    )
    max_seq_length: int = option(128, help="longest pair of texts in tokens", minimum=5)
    match_embeddings: bool = option(True, help="tell the text encoder which tokens stand in both texts")
    freeze_text: bool = option(False, help="leave the text encoder as it is")
    vision_encoder: str = option(
        "small", help="encoder of the images: small, made to learn from nothing; resnet18, resnet50, efficientnet_lite0"
    )
    vision_weights: Optional[str] = option(
        None,
        help="its pretrained parameters: a .pdparams file, as convert-image-weights makes one; or download, for "
        "Paddle's own of a ResNet",
    )
    freeze_vision: bool = option(
        False, help="leave the vision encoder as it is: its features are then computed once and kept in --cache_dir"
    )
    image_size: int = option(128, help="images are made so many pixels wide and high", minimum=16)
    image_workers: int = option(0, help="workers that decode images; 0: one a core", minimum=0)
    cache_dir: Optional[str] = option(
        None, help="where decoded images and features are kept, for several runs (default: <save_dir>/images)"
    )
    fusion: str = option(
        "concat",
        help="how texts and images meet: side by side; or each also looks at the other's tokens and regions, by plain "
        "products (dot_attention, Luong) or with four heads",
        choices=FUSIONS,
    )
    joint: bool = option(True, help="a layer over the concatenation before the classifier: else parts only add up")
    compare_images: bool = option(True, help="also show the classifier how the two images' features differ")
    dropout: float = option(0.1, help="dropout above the encoders", minimum=0, below=1)
    modality_dropout: float = option(
        0.0, help="share of the training examples that lose their texts or both images, by a coin", minimum=0, below=1
    )
    loss: str = option("cross_entropy", help="what is minimised", choices=("cross_entropy", "focal"))
    focal_gamma: float = option(2.0, help="how little easy examples count with --loss focal", minimum=0)
    class_weights: str = option(
        "none", help="none, balanced (each class counts the same in sum), or a number for each class: 2,2,0.5"
    )
    metric: str = option(
        "macro_f1",
        help="the measure whose best value makes the best checkpoint",
        choices=("macro_f1", "accuracy", "loss"),
    )
    eval_step: int = redeclare(TrainingOptions, "eval_step", 100, aliases=("--eval_steps",))
    weight_decay: float = redeclare(TrainingOptions, "weight_decay", 0.01)
    warmup_proportion: float = redeclare(TrainingOptions, "warmup_proportion", 0.06)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.modalities != "image" and self.model_name_or_path is None and not self.resume:
            raise UsageError(
                "--model is needed for texts: a model's name or folder; paddle-ranker starter "
                "makes a small one, --modalities image does without"
            )
        if self.modalities != "both":
            for name, value in (("fusion", self.fusion != "concat"), ("modality_dropout", self.modality_dropout > 0)):
                if value:
                    raise UsageError(f"--{name} needs texts and images: leave it out, or take --modalities both")
        for name, wanted, value in (
            ("freeze_text", "texts", self.freeze_text),
            ("freeze_vision", "images", self.freeze_vision),
            ("vision_weights", "images", self.vision_weights is not None),
        ):
            if value and self.modalities not in ("both", wanted.rstrip("s")):
                raise UsageError(f"--{name} needs {wanted}: leave it out, or take --modalities both")
        if self.focal_gamma != 2.0 and self.loss != "focal":
            raise UsageError(f"--focal_gamma {self.focal_gamma:g} is of another loss: add --loss focal or leave it out")

    @property
    def gamma(self) -> float:
        """The focal loss's gamma; 0, which is cross-entropy, for any other loss."""
        return self.focal_gamma if self.loss == "focal" else 0.0


@dataclass(frozen=True)
class ModelOptions(ThreadOptions):
    """The options of the commands that run a trained model."""

    model: str = option(help="a model's folder: a checkpoint, or what export wrote", leads=True)
    image_folder: Optional[str] = option(None, help="what image paths start from (default: the file's folder)")
    skip_bad_rows: bool = option(False, help="leave out malformed rows, take broken images for missing, count both")
    batch_size: int = option(32, help="pairs a batch", minimum=1)
    image_workers: int = option(0, help="threads that decode images; 0: one a core", minimum=0)
    device: str = option(AUTO_DEVICE, help=f"{DEVICE_HELP}; what was exported runs on the CPU")
    engine: Optional[str] = redeclare(ScoringOptions, "engine")
    precision: str = redeclare(
        ScoringOptions, "precision", help="precision of the matrix products; other than fp32 needs an exported model"
    )

    def load_options(self) -> LoadOptions:
        """Return the options that open the model; an exported model runs on the CPU."""
        device = "cpu" if is_exported(Path(self.model)) else self.device
        return LoadOptions(engine=self.engine, device=device, precision=self.precision, threads=self.cpu_threads)


@dataclass(frozen=True)
class EvaluateEntailmentOptions(ModelOptions):
    test_file: str = option(help=f"labelled pairs of posts: {COLUMNS}", name="test", files=True)
    part: str = option(
        "all",
        help="which rows: all; or, of the very file that the model was trained on, those kept from it (test, "
        "validation)",
        choices=("all", "test", "validation"),
    )
    resamples: int = option(2000, help="draws of the bootstrap intervals", minimum=100)
    seed: int = option(1000, help="random seed of the draws", minimum=0)
    confusion_plot: Optional[str] = option(None, help="write the confusion matrix there: .png, .svg or .pdf")
    format: str = option("text", help="what to print", choices=("text", "json"))


@dataclass(frozen=True)
class PredictEntailmentOptions(ModelOptions):
    input_file: Optional[str] = option(
        None, help="pairs of posts: CSV as for training, without labels too", name="input", files=True, either=True
    )
    output_file: Optional[str] = option(None, help="file to write (default: print it)", name="output")
    format: str = option("csv", help="form of the rows: csv, or json, an object a line", choices=("csv", "json"))
    text_1: Optional[str] = option(None, help="one pair instead of a file: the first post's text", either=True)
    image_1: Optional[str] = option(None, help="the first post's image")
    text_2: Optional[str] = option(None, help="the second post's text")
    image_2: Optional[str] = option(None, help="the second post's image")
    explain: bool = option(
        False, help="also say by how much the prediction's probability falls without the texts, and without each image"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        one = (self.text_1, self.image_1, self.text_2, self.image_2)
        if (self.input_file is None) == (one == (None,) * 4):
            raise UsageError("give --input, or --text_1 and --text_2 (and images) of one pair")


@dataclass(frozen=True)
class ExportEntailmentOptions(ThreadOptions):
    model: str = option(help="a model's folder: a checkpoint of train-entailment", leads=True)
    output_dir: str = option(
        "./output_entailment", help="folder to write; an older export there is replaced", name="output"
    )
    onnx: bool = option(False, help="write an ONNX file as well, which --engine onnx and openvino run")
