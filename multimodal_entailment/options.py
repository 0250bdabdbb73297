"""The options of the commands; they need no Paddle, so that a typing error shows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from multimodal_entailment.info import FUSIONS
from paddle_ranker.errors import UsageError
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.options import ThreadOptions, option, redeclare
from paddle_ranker.options.declare import ANY_TEXT, FETCHED, FETCHED_FOLDER
from paddle_ranker.scoring.scoring_options import EngineOptions
from paddle_ranker.training.training_options import TrainingOptions

MODALITIES = ("both", "text", "image")
WEIGHTS_HELP = "none, balanced (equal sums of all classes), or a number per class: 2,2,0.5"
COLUMNS = "CSV with id_1, text_1, image_1, id_2, text_2, image_2, label"


@dataclass(frozen=True)
class TrainEntailmentOptions(TrainingOptions):
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
        0.1, help="share of the training file to hold out for evaluate, if there is no --test", minimum=0,
        below=1,
    )  # fmt: skip
    validation_share: float = option(
        0.05, help="share of the rest to evaluate on during training, if there is no --test", above=0,
        below=1,
    )  # fmt: skip
    split_seed: int = option(42, help="random seed of the split", minimum=0)
    image_folder: Optional[str] = option(
        None, help="folder of relative image paths (default: the file's folder)", addresses=FETCHED
    )
    skip_bad_rows: bool = option(False, help="skip malformed rows, treat broken images as missing, and count both")
    modalities: str = option("both", help="inputs of the model", choices=MODALITIES)
    model_name_or_path: Optional[str] = option(
        None,
        help="text encoder to start from: a folder, or a name on the Hugging Face hub or in PaddleNLP; needed for text",
        name="model",
        addresses=FETCHED_FOLDER,
    )
    max_seq_length: int = option(128, help="maximum length of a pair of texts in tokens", minimum=5)
    match_embeddings: bool = option(True, help="mark tokens that occur in both texts, for the text encoder")
    freeze_text: bool = option(False, help="freeze the text encoder")
    vision_encoder: str = option(
        "small", help="encoder of the images: small, for training from scratch; resnet18, resnet50, efficientnet_lite0"
    )
    vision_weights: Optional[str] = option(
        None,
        help="pretrained parameters of the vision encoder: a .pdparams file (see convert-image-weights); or download, "
        "for Paddle's parameters of a ResNet",
        addresses=FETCHED,
    )
    freeze_vision: bool = option(
        False, help="freeze the vision encoder; its features are then computed once and cached in --cache_dir"
    )
    image_size: int = option(128, help="width and height of the scaled images in pixels", minimum=16)
    image_workers: int = option(0, help="number of threads that decode images; 0: one per core", minimum=0)
    cache_dir: Optional[str] = option(
        None, help="folder that caches decoded images and features for several runs (default: <save_dir>/images)"
    )
    fusion: str = option(
        "concat",
        help="fusion of texts and images: concatenation; or each also attends to the other's tokens and regions, by "
        "plain products (dot_attention, Luong) or with four heads",
        choices=FUSIONS,
    )
    joint: bool = option(
        True, help="add a layer between concatenation and classifier; without it, the parts only add up"
    )
    compare_images: bool = option(True, help="add the differences of the two images' features")
    dropout: float = option(0.1, help="dropout above the encoders", minimum=0, below=1)
    modality_dropout: float = option(
        0.0, help="share of the training examples that lose their texts or both images, at random", minimum=0, below=1
    )
    loss: str = option("cross_entropy", help="loss to minimise", choices=("cross_entropy", "focal"))
    focal_gamma: float = option(2.0, help="gamma of --loss focal: the higher, the less easy examples count", minimum=0)
    class_weights: str = option("none", help=WEIGHTS_HELP)
    metric: str = option(
        "macro_f1",
        help="measure that selects the best checkpoint",
        choices=("macro_f1", "accuracy", "loss"),
    )
    eval_step: int = redeclare(TrainingOptions, "eval_step", 100)
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
            raise UsageError(
                f"--focal_gamma {self.focal_gamma:g} belongs to the focal loss: add --loss focal, or leave it out"
            )

    def look_up(self) -> None:
        if self.model_name_or_path is not None and not self.resume:
            resolve_model(self.model_name_or_path)

    @property
    def gamma(self) -> float:
        """Return the focal loss's gamma; 0, which is cross-entropy, for any other loss."""
        return self.focal_gamma if self.loss == "focal" else 0.0


@dataclass(frozen=True)
class ModelOptions(EngineOptions):
    """Options of the commands that run a trained model."""

    model: str = option(help="folder of a model, trained or exported", leads=True, addresses=FETCHED_FOLDER)
    image_folder: Optional[str] = option(
        None, help="folder of relative image paths (default: the file's folder)", addresses=FETCHED
    )
    skip_bad_rows: bool = option(False, help="skip malformed rows, treat broken images as missing, and count both")
    batch_size: int = redeclare(
        EngineOptions, "batch_size", help="most pairs per batch; a model with images takes at most 32", shared=False
    )
    image_workers: int = option(0, help="number of threads that decode images; 0: one per core", minimum=0)


@dataclass(frozen=True)
class EvaluateEntailmentOptions(ModelOptions):
    test_file: str = option(help=f"labelled pairs of posts: {COLUMNS}", name="test", files=True)
    part: str = option(
        "all",
        help="rows to measure: all; or, from the file that the model was trained on, the held-out rows (test, "
        "validation)",
        choices=("all", "test", "validation"),
    )
    resamples: int = option(2000, help="number of draws for the bootstrap intervals", minimum=100)
    seed: int = option(1000, help="random seed of the draws", minimum=0)
    confusion_plot: Optional[str] = option(None, help="file for a plot of the confusion matrix: .png, .svg or .pdf")
    format: str = option("text", help="format of the output", choices=("text", "json"))


@dataclass(frozen=True)
class PredictEntailmentOptions(ModelOptions):
    input_file: Optional[str] = option(
        None, help="pairs of posts: CSV as for training; labels are optional", name="input", files=True, either=True
    )
    output_file: Optional[str] = option(None, help="file to write (default: print it)", name="output")
    format: str = option(
        "csv", help="format of the rows: csv, or json with an object per line", choices=("csv", "json")
    )
    text_1: Optional[str] = option(
        None, help="one pair instead of a file: the first post's text", either=True, addresses=ANY_TEXT
    )
    image_1: Optional[str] = option(None, help="the first post's image", addresses=FETCHED)
    text_2: Optional[str] = option(None, help="the second post's text", addresses=ANY_TEXT)
    image_2: Optional[str] = option(None, help="the second post's image", addresses=FETCHED)
    explain: bool = option(
        False, help="also report how far the predicted probability falls without the texts, and without each image"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        pair = (self.text_1, self.image_1, self.text_2, self.image_2)
        if (self.input_file is None) == (pair == (None,) * 4):
            raise UsageError("give --input, or --text_1 and --text_2 (and images) of a single pair")


@dataclass(frozen=True)
class ExportEntailmentOptions(ThreadOptions):
    model: str = option(
        help="folder of a model, a checkpoint of train-entailment", leads=True, addresses=FETCHED_FOLDER
    )
    output_dir: str = option(
        "./output_entailment", help="folder to write; an older export there is replaced", name="output"
    )
    onnx: bool = option(False, help="also write an ONNX file, for --engine onnx and openvino")
