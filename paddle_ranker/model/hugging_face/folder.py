"""Read and write model folders of transformers: configuration, parameters and classification heads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.encoding.pair_encoder import INSTRUCTION, PairEncoder
from paddle_ranker.encoding.tokenizers.interface import ModelTokenizer
from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
from paddle_ranker.errors import CheckpointError, UsageError, listed, quoted
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.deberta import DebertaConfig
from paddle_ranker.model.families import (
    brought_tokenizer,
    config_from,
    family_of,
    known_to_transformers,
    pair_encoder_of,
    require_config,
)
from paddle_ranker.model.hugging_face.adapter_folders import find_encoder
from paddle_ranker.model.hugging_face.architectures import (
    ACTIVATION_NAMES,
    CLASSIFIES,
    INSTEAD,
    WITHOUT_EFFECT,
    CellHeadNames,
    Names,
    is_of_other_head,
    to_ours,
    to_theirs,
)
from paddle_ranker.model.hugging_face.chat import TEMPLATE_FILE, stated_instruction
from paddle_ranker.model.hugging_face.library_tokenizer import (
    CROSS_ENCODER,
    LENGTH_FILE,
    MODULES_FILE,
    gives_types,
    has_no_library_file,
    is_reranker,
    library_padding,
    model_type_of,
)
from paddle_ranker.model.hugging_face.weights import (
    parameters_file,
    read_weights,
    write_weights,
)
from paddle_ranker.model.masked_lm import HEAD, is_whole_head
from paddle_ranker.model.parameters import count
from paddle_ranker.notes import note_once
from paddle_ranker.storage.atomic import write_json
from paddle_ranker.storage.foreign_config import ForeignConfig
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject, read_json

GENERATES, _RETRIEVES = "ForCausalLM", "ForImageAndTextRetrieval"
_MOST_CLASSES = 1000  # maximum number of classes that get made-up names if a configuration only counts them
_YES_NAMES = """
entailment entail entails entailed relevant related relevance true yes positive match matched matching duplicate
paraphrase equivalent similar same correct answer answerable supported supports 蕴含 蕴涵 相关 有关 是 真 对 正
正例 正类 正样本 匹配 相似 同义 一致 正确 重复
"""
_YES = frozenset(_YES_NAMES.split())
_NO_NAMES = """
contradiction contradict contradicts neutral irrelevant unrelated false no negative none mismatch mismatched
different dissimilar incorrect wrong unanswerable refuted refutes unsupported
矛盾 中立 无关 否 假 错 负 负例 负类 负样本 错误 不同
"""
_NO = frozenset(_NO_NAMES.split())
_NOT = re.compile(r"^(?:not?|non|un|ir)_?|^[不非无未没]有?")


def _means_yes(label: str) -> Optional[bool]:
    """Return True if a class's name says "relevant", False if it says "not relevant", None if it says neither."""
    name = re.sub(r"[\s\-]+", "_", label.strip().lower())
    if name in _YES or name in _NO:
        return name in _YES
    return False if _NOT.sub("", name) in _YES and _NOT.match(name) else None


def activation_of(path: Unchecked) -> str:
    """Return the name of the function of torch that sentence-transformers applies to scores; "" for its default.

    path: the function's class, with its module; the library replaces functions that are not torch's by its default
    """
    return path.rpartition(".")[2] if isinstance(path, str) and path.startswith("torch.") else ""


_POSITIVE_LABEL = "positive_label (--positive_label)"  # the names of this option in Python and in commands


@dataclass(frozen=True)
class ClassifierHead:
    """Description of a classifier's head in a transformers `config.json`.

    labels: names of the classes, in order
    problem: transformers' `problem_type`, or ""
    activation: function that sentence-transformers' CrossEncoder applies to the logits; "" if not stated
    """

    file: Path
    labels: tuple[str, ...]
    problem: str = ""
    activation: str = ""

    @classmethod
    def of(cls, config: ForeignConfig) -> Optional[ClassifierHead]:
        """Read the head from a configuration; return None if the model neither classifies nor ranks."""
        labels, count = config.get("id2label"), config.get("num_labels", config.get("_num_labels", 2))
        problem, old = config.get("problem_type", ""), config.get("sbert_ce_default_activation_function", "")
        library = config.inner("sentence_transformers", without_effect=("version",))
        activation = activation_of(library.get("activation_fn", old))
        if answers_pairs(config):
            return cls(config.path, ("yes",))
        heads = cell_heads_of(config.get("model_type"))
        if architecture_of(config).endswith(_RETRIEVES) or (heads and heads.name == architecture_of(config)):
            return cls(config.path, ("relevance",))
        if not architecture_of(config).endswith(CLASSIFIES):
            return None
        try:
            if type(count) is not int:
                raise TypeError("num_labels is not their number")
            if isinstance(labels, dict) and labels:
                names = tuple(str(labels[number]) for number in sorted(labels, key=int))
            else:
                names = tuple(f"LABEL_{number}" for number in range(min(count, _MOST_CLASSES)))  # as transformers
        except (TypeError, ValueError) as error:
            raise config.error(f"its classes are {quoted(labels or count)} ({error}); copy it again") from None
        return cls(config.path, names, str(problem), activation)

    @property
    def is_unnamed(self) -> bool:
        """Whether the names of the classes are their numbers; the second of two then means yes, as training labels."""
        return all(label.lower() in (f"label_{place}", str(place)) for place, label in enumerate(self.labels))

    def place(self, positive_label: Optional[str]) -> int:
        """Return the index, 0 or 1, of the class that means "relevant".

        positive_label: name or index of the class, from the user; None: chosen by the names

        Raises `UsageError` if there is no such class, `CheckpointError` if the names do not decide.
        """
        labels = self.labels
        if positive_label is not None:
            named = [place for place, label in enumerate(labels) if positive_label in (label, str(place))]
            if not named:
                raise UsageError(f"{_POSITIVE_LABEL} is {quoted(positive_label)}: the classes are {listed(labels)}")
            return named[0]
        if self.is_unnamed:
            return 1
        means_yes = [_means_yes(label) for label in labels]
        if sorted(means_yes, key=str) != [False, True]:
            raise CheckpointError(
                f"{self.file}: its classes are {' and '.join(map(quoted, labels))}; nothing says which of them means "
                "that a title is relevant: give its name as positive_label "
                "(--positive_label NAME; paddle-ranker convert keeps it)"
            )
        return means_yes.index(True)

    def logit(self, weight: Array, bias: Array, positive_label: Optional[str]) -> tuple[Array, Array]:
        """Combine the head's classes into one logit, whose sigmoid is the probability of "relevant"; log the class.

        Returns the weight, `[inputs, 1]`, and the bias, `[1]`.

        weight: `[inputs, classes]`, one or two classes
        bias: `[classes]`
        positive_label: as in `place`

        Raises as `place` does; also `CheckpointError` if the head does not fit the description, and `UsageError` if
        `positive_label` is given for a head of one class.
        """
        # Many files do not state the number of classes; transformers then assumes two.
        if weight.shape[1] != len(self.labels) and (weight.shape[1] != 1 or not self.is_unnamed):
            raise CheckpointError(
                f"{self.file}: names {len(self.labels)} classes, and the head has {weight.shape[1]}: it is another "
                "model's; copy the folder again"
            )
        name = self.activation
        if name not in ("", "Sigmoid") and (name, len(self.labels)) != ("Softmax", 2):
            note_once(
                f"note: {self.file}: sentence-transformers passes the logits of this model through {name}; a "
                "probability here is their sigmoid, which has the same order"
            )
        if weight.shape[1] == 1:
            if positive_label is not None:
                raise UsageError(
                    f"{_POSITIVE_LABEL} belongs to heads of two classes, {self.file} has one: leave it out"
                )
            return weight, bias
        if self.problem not in ("", "single_label_classification", "multi_label_classification"):
            raise CheckpointError(f"{self.file}: problem_type is {quoted(self.problem)} of two classes; not done here")
        # Subtract in float32 at least.
        weight, bias = (array.astype(np.promote_types(array.dtype, np.float32)) for array in (weight, bias))
        place = self.place(positive_label)
        note_once(f"note: {self.file}: a probability is that of the class {quoted(self.labels[place])} ({place})")
        if self.problem == "multi_label_classification":
            return weight[:, place : place + 1], bias[place : place + 1]
        sign = 2 * place - 1  # softmax(l)[1] = sigmoid(l1 - l0)
        return sign * (weight[:, 1:] - weight[:, :1]), sign * (bias[1:] - bias[:1])


def answers_pairs(config: ForeignConfig) -> bool:
    """Return whether a configuration is that of a language model that ranks by its answers "yes" and "no"."""
    architecture = family_of(config.get("model_type")).architecture
    if architecture is None or not architecture.answers or not architecture_of(config).endswith(GENERATES):
        return False
    folder = config.path.parent
    return not (folder / MODULES_FILE).is_file() or model_type_of(folder) == CROSS_ENCODER


def _with_answers(folder: Path, arrays: dict[str, Array], names: Names) -> dict[str, Array]:
    """Turn a language model's parameters into those of a classifier with one logit: "yes" minus "no".

    arrays: the parameters under transformers' names

    Raises `CheckpointError` if the vocabulary lacks an answer.
    """
    words = next(array for name, array in arrays.items() if name.endswith(names.words))
    head = arrays.get("lm_head.weight", words)
    yes, no = answer_ids(folder)
    if not all(0 <= answer < len(head) for answer in (yes, *([] if no is None else [no]))) or head.ndim != 2:
        raise CheckpointError(f"{folder}: the ids of its answers, {yes} and {no}, are not in its vocabulary")
    weight = head[yes].astype(np.float32) - (0 if no is None else head[no].astype(np.float32))
    others = {name: array for name, array in arrays.items() if name != "lm_head.weight"}
    return {**others, f"{_SCORE}.weight": weight[None]}


LOGIT_SCORE = "LogitScore"  # step of sentence-transformers that states a language model's answers
_SCORE = "score"


def _logit_score(folder: Path) -> Optional[str]:
    """Return the name of the folder of the step that states the answers; None without such a step."""
    path = folder / MODULES_FILE
    steps = [step for step in (read_json(path) if path.is_file() else []) if isinstance(step, dict)]
    place = next((step.get("path") for step in steps if str(step.get("type")).endswith(f".{LOGIT_SCORE}")), None)
    return place if isinstance(place, str) and Path(place).name == place else None


def _instruction(settings: ForeignConfig) -> str:
    """Return the instruction of a decoder's chat of pairs, "" if a title follows its query without a chat.

    Raises `CheckpointError` if pairs are put into another chat than that of Qwen3-Reranker.
    """
    folder = settings.path.parent
    if answers_pairs(settings):
        return stated_instruction(folder, needs_one=_logit_score(folder) is not None) or INSTRUCTION
    if not architecture_of(settings).endswith(CLASSIFIES):
        return INSTRUCTION
    kinds = ForeignConfig.read(folder / LENGTH_FILE).get("modality_config") if (folder / MODULES_FILE).is_file() else {}
    needs_chat = isinstance(kinds, dict) and "message" in kinds
    instruction = stated_instruction(folder, needs_chat) if needs_chat or not kinds else None
    if instruction is None:
        note_once(
            f"note: {folder}: no chat template puts its pairs into the chat of Qwen3-Reranker: a title follows its "
            f"query; a model that was trained in that chat needs its {TEMPLATE_FILE}"
        )
    return instruction or ""


def answer_ids(folder: Path) -> tuple[int, Optional[int]]:
    """Return the ids of the answers "yes" and "no" (None if only "yes" counts).

    The ids come from sentence-transformers' settings, or else from the tokenizer. Raises `CheckpointError` if the
    tokenizer lacks an answer.
    """
    place = _logit_score(folder)
    if place is not None:
        settings = ForeignConfig.read(folder / place / "config.json", ("module_input_name",))
        yes, no = settings.get("true_token_id"), settings.get("false_token_id")
        settings.log_unknown()
        if type(yes) is int and (no is None or type(no) is int):
            return yes, no
        raise settings.error(f"its answers are {quoted(yes)} and {quoted(no)}, expected ids of tokens; copy it again")
    tokenizer = folder_tokenizer(folder)
    yes, no = (tokenizer.id_of(answer) for answer in ("yes", "no"))
    if yes is None or no is None:
        raise CheckpointError(f"{folder}: its tokenizer has no token 'yes' or no token 'no', by which it would score")
    note_once(f"note: {folder}: scored by its answer to the chat of Qwen3-Reranker, 'yes' ({yes}) or 'no' ({no})")
    return yes, no


def for_label(
    named: Mapping[str, Array],
    arrays: Mapping[str, Array],
    head: Optional[ClassifierHead],
    positive_label: Optional[str],
    file: Path,
) -> dict[str, Array]:
    """Return `named` with the head of a classifier replaced by a head that scores the class of relevant texts.

    Without a classifier's head, return `named` unchanged.

    named: parameters, named as by `network.name_parameters`
    arrays: all arrays of the file; `classifier` is the head of all classes
    head: description of the head in a transformers folder; None for other folders
    positive_label: as in `ClassifierHead.place`

    Raises as `ClassifierHead.logit` does, and `UsageError` for a `positive_label` without a classifier's head.
    """
    weight, bias = (arrays.get(f"classifier.{part}") for part in ("weight", "bias"))
    if head is not None and weight is not None and bias is not None:
        return {**named, **dict(zip(("head.weight", "head.bias"), head.logit(weight, bias, positive_label)))}
    if positive_label is not None:
        raise UsageError(f"{_POSITIVE_LABEL} belongs to transformers' classifiers, {file} is none: leave it out")
    return dict(named)


_CLASSES = (1, 2)  # numbers of classes of a ranker's head
_TYPES = "embeddings.token_type_embeddings.weight"
_WORD_PIECES = ("bert", "ernie")  # families with a WordPiece vocabulary


@dataclass(frozen=True)
class HuggingFaceModel:
    """Contents of a transformers folder.

    config: the encoder's configuration
    arrays: the parameters, in Paddle's layout, named for `network.name_parameters`
    left_over: names of the ignored parameters
    file: name of the parameter file
    head: description of a classifier's head, or None
    """

    config: EncoderConfig
    arrays: dict[str, Array]
    left_over: list[str]
    file: str
    head: Optional[ClassifierHead] = None

    @property
    def has_head(self) -> bool:
        return "classifier.weight" in self.arrays


def find_transformers(folder: Path) -> Optional[Path]:
    """Return the folder with transformers' weights, as `find_encoder`; None if there are Paddle's parameters."""
    return None if parameters_file(folder) is not None else find_encoder(folder)


def stated_head(folder: Path) -> Optional[ClassifierHead]:
    """Read the description of a classifier's head from a transformers folder; None without a head."""
    inner = find_encoder(folder)
    if inner is None or not (inner / "config.json").is_file():
        return None
    return ClassifierHead.of(read_foreign_config(inner / "config.json"))


def paddlenlps_head(folder: Path) -> Optional[ClassifierHead]:
    """Read the description of a classifier's head that PaddleNLP wrote; None if its classes have no names."""
    path = folder / "config.json"
    head = ClassifierHead.of(read_foreign_config(path)) if path.is_file() else None
    return None if head is None or head.is_unnamed else head


def states_head(folder: Path) -> bool:
    """Return whether a transformers folder's settings describe a ranker: by a head, or by files of `is_reranker`."""
    head = stated_head(folder)
    return is_reranker(folder) or (head is not None and len(head.labels) in _CLASSES)


def why_no_ranker(folder: Path) -> str:
    """Return why a folder's classifier head cannot rank, for messages; "" if it can, or there is no head."""
    path = (find_encoder(folder) or folder) / "config.json"
    head = ClassifierHead.of(read_foreign_config(path)) if path.is_file() else None
    if head is None or len(head.labels) in _CLASSES:
        return ""
    return f"its head tells {len(head.labels)} classes apart: {listed(head.labels)}"


def read_model(folder: Path) -> HuggingFaceModel:
    """Read `config.json` and the weights of a transformers folder; log unknown keys and parameters.

    Raises `CheckpointError` if the architecture is unsupported, or the weights are damaged or hostile.
    """
    settings = read_foreign_config(folder / "config.json")
    (config, names), head = _described(settings), ClassifierHead.of(settings)
    file, theirs = read_weights(folder)
    own_code = "auto_map" in settings
    try:
        config.require_fits(*count(theirs))  # a network that is far too large would take forever to create
        if config.names_cells and (heads := cell_heads_of(config.model_type)):
            theirs = heads.read(theirs, settings)
        arrays, left_over = to_ours(_with_answers(folder, theirs, names) if answers_pairs(settings) else theirs, names)
        if "classifier.weight" in arrays and not names.head_has_bias:
            arrays["classifier.bias"] = np.zeros(arrays["classifier.weight"].shape[1], np.float32)
    except CheckpointError as error:
        if own_code:
            raise CheckpointError(
                f"{folder / file}: its parameters are not those of a {config.model_type}; its network is code that "
                "came with it (auto_map in config.json), which is not run here"
            ) from error
        raise CheckpointError(f"{folder / file}: {error}") from error
    unknown = [name for name in left_over if not is_of_other_head(name)]
    if config.type_vocab_size > 1 and not gives_types(folder):
        if config.needs_types:
            raise CheckpointError(
                f"{folder}: the model_input_names of its tokenizer lack token_type_ids, by which a table's cells are "
                "told apart: add them"
            )
        config = replace(config, type_vocab_size=1)
        arrays = {name: array[:1] if name.endswith(_TYPES) else array for name, array in arrays.items()}
    if isinstance(config, DebertaConfig):
        unused = [name for name in arrays if name.rpartition(".")[0].endswith(config.unused)]
        left_over += unused
        arrays = {name: array for name, array in arrays.items() if name not in unused}
    if not is_whole_head(arrays):  # an incomplete head is useless
        left_over += [name for name in theirs if name.startswith(f"{HEAD}.")]
        arrays = {name: array for name, array in arrays.items() if not name.startswith(f"{HEAD}.")}
    architecture = architecture_of(settings)
    is_ranker = architecture.endswith((CLASSIFIES, _RETRIEVES)) or config.names_cells or answers_pairs(settings)
    if architecture and not is_ranker:  # taggers also have a `classifier`
        left_over += [name for name in arrays if name.startswith("classifier.")]
        arrays = {name: array for name, array in arrays.items() if not name.startswith("classifier.")}
    elif architecture and _is_of_other_classes(arrays):  # training replaces such a head
        left_over += [name for name in theirs if names.head.get(name.rpartition(".")[0]) == "classifier"]
        arrays = {name: array for name, array in arrays.items() if not name.startswith("classifier.")}
    elif architecture and "classifier.weight" not in arrays:
        raise CheckpointError(f"{folder / file}: has no classifier.weight, which {architecture} needs: copy it again")
    if own_code:
        note_once(f"note: {settings.path}: the code that came with the model (auto_map) is not run: it is plain here")
    if unknown:
        note_once(f"note: {folder / file}: parameters unknown here and not used: {listed(unknown)}")
    settings.log_unknown()
    return HuggingFaceModel(config, arrays, left_over, file, head)


def cell_heads_of(model_type: object) -> Optional[CellHeadNames]:
    """Return the heads of a family's rankers that name cells; None if it has no such rankers."""
    architecture = family_of(model_type).architecture
    return None if architecture is None else architecture.heads


def architecture_of(config: ForeignConfig) -> str:
    """Return the first class that a `config.json` states; "" if it states none."""
    names = config.get("architectures", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise config.error(f"architectures is {quoted(names)}, expected the names of classes; copy it again")
    return names[0] if names else ""


def _is_of_other_classes(arrays: dict[str, Array]) -> bool:
    """Return whether the head has a number of classes that no ranker has."""
    shape = arrays["classifier.weight"].shape if "classifier.weight" in arrays else ()
    return len(shape) == 2 and shape[1] not in _CLASSES


def encoder_config(folder: Path) -> EncoderConfig:
    """Read the configuration of the encoder in a folder of this toolkit, of PaddleNLP or of transformers.

    Raises `CheckpointError` if it is missing or unusable.
    """
    inner = find_transformers(folder)
    return require_config(folder) if inner is None else read_encoder_config(inner / "config.json")


def folder_tokenizer(folder: Path) -> ModelTokenizer:
    """Read the tokenizer of a folder of this toolkit, of PaddleNLP or of transformers."""
    inner = find_transformers(folder)
    if inner is None:
        return read_tokenizer(folder)
    return brought_tokenizer(inner, family_of(encoder_config(folder).model_type))


def tokenizer_of(folder: Path, config: EncoderConfig) -> ModelTokenizer:
    """Read the tokenizer of a folder of this toolkit or PaddleNLP; its files may have transformers' format."""
    if not config.vocab_size:
        raise CheckpointError(f"{folder}: reads pictures; give an encoder of texts")
    family = family_of(config.model_type)
    return brought_tokenizer(folder, family) if has_no_library_file(folder) else read_tokenizer(folder)


def folder_pair_encoder(folder: Path, max_seq_length: int, query_prompt: str = "") -> PairEncoder:
    """Create the encoder of pairs and texts of a folder of this toolkit, of PaddleNLP or of transformers.

    Reads no weights. Raises `CheckpointError` as `pair_encoder_of` does, and for unusable files; the error names the
    folder.
    """
    try:
        return pair_encoder_of(folder_tokenizer(folder), encoder_config(folder), max_seq_length, query_prompt)
    except CheckpointError as error:
        if str(error).startswith(str(folder)):
            raise
        raise CheckpointError(f"{folder}: {error}") from error


def read_encoder_config(path: Path) -> EncoderConfig:
    """Read the encoder configuration of a transformers `config.json`; raises `CheckpointError` if unusable."""
    return _described(read_foreign_config(path))[0]


def read_foreign_config(path: Path) -> ForeignConfig:
    """Read the settings of a `config.json`; raises `CheckpointError` if it is missing or not a JSON object."""
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; a transformers folder holds its shape in it")
    return ForeignConfig.read(path, WITHOUT_EFFECT)


def _described(settings: ForeignConfig) -> tuple[EncoderConfig, Names]:
    """Return an encoder's configuration, and the names of its parameters in transformers."""
    model_type = settings.get("model_type")
    architecture = family_of(model_type).architecture
    if architecture is None:
        instead = next((text for types, text in INSTEAD.items() if model_type in types.split()), INSTEAD[""])
        raise settings.error(
            f"model_type is {quoted(model_type)}; {', '.join(known_to_transformers())} can be converted; {instead}"
        )
    values = architecture.read(settings)
    values["model_type"] = model_type
    if architecture.answers:
        values["instruction"] = _instruction(settings)
    path = settings.path
    unstated = "pad_token_id" not in values
    padding = library_padding(path.parent) if model_type in _WORD_PIECES or unstated else None
    if padding is not None:  # config.json may state the padding id of BERT's vocabulary instead
        values["pad_token_id"] = padding
    try:
        return config_from(values), architecture.names
    except CheckpointError as error:
        found_at = {f"{ours} is ": f"{theirs} is " for theirs, ours in architecture.ours.items()}
        problem = next((str(error).replace(*names, 1) for names in found_at.items() if names[0] in str(error)), error)
        raise CheckpointError(f"{path}: not a usable encoder configuration ({problem})") from error


_ERNIE_GRAM = {"ernie_gram": "ernie"}  # a fine-tuned ERNIE-Gram computes what ERNIE computes
_MATCH = "match_embeddings.weight"


def head_has_bias(config: EncoderConfig) -> bool:
    """Return whether the head of transformers' ranker of a family has a bias."""
    architecture = family_of(_ERNIE_GRAM.get(config.model_type, config.model_type)).architecture
    return architecture is None or architecture.names.head_has_bias


def parameters_to_write(
    named: Mapping[str, Array], config: EncoderConfig, *, drop_match_embeddings: bool
) -> dict[str, Array]:
    """Return the parameters to write for transformers.

    named: parameters, named as in `RankerNetwork`
    drop_match_embeddings: whether to drop trained match embeddings; match embeddings of zeros, which change no score,
        are dropped in any case

    Raises `CheckpointError` if no model of transformers computes what the parameters compute here.
    """
    model_type = _ERNIE_GRAM.get(config.model_type, config.model_type)
    architecture = family_of(model_type).architecture
    needs_types = architecture is not None and bool(architecture.fields.get("type_vocab_size"))
    for problem, is_so in (
        (
            "LayerNorm before each part of a layer (normalize_before)",
            config.normalize_before != type(config).normalize_before,
        ),
        ("no token types (type_vocab_size 0)", config.type_vocab_size < 1 and needs_types),
        (f"the task id {config.task_id} (task_id)", config.use_task_id and config.task_id != 0),
        (f"the activation {config.hidden_act}", config.hidden_act not in ACTIVATION_NAMES.values()),
        (f"the model type {config.model_type}", architecture is None),
        (f"task types in a {config.model_type} (use_task_id)", config.use_task_id and model_type != "ernie"),
    ):
        if is_so:
            raise CheckpointError(f"has {problem}, which transformers' encoders do not have: it cannot be written")
    for prefix, what, option in (("lexical.", "lexical features", "--lexical_features false"),
                                 ("similarity_head.", "the similarity of both texts", "no --similarity")):  # fmt: skip
        if any(name.startswith(prefix) for name in named):
            raise CheckpointError(
                f"has {what} at its head, which transformers has no place for: train without ({option}, from a "
                "checkpoint that has none) to take it there"
            )
    if _MATCH in named and named[_MATCH].any() and not drop_match_embeddings:
        raise CheckpointError(
            "has trained match embeddings, which transformers' encoders do not have: use --drop_match_embeddings true "
            "to leave them out, which changes the scores, or train without them (--match_embeddings false)"
        )
    return {name: array for name, array in named.items() if name != _MATCH}


def write_model(folder: Path, named: Mapping[str, Array], config: EncoderConfig) -> str:
    """Write a transformers model (configuration and weights) into an existing folder; return the name of its class."""
    model_type = _ERNIE_GRAM.get(config.model_type, config.model_type)
    family = family_of(model_type)
    assert family.architecture is not None  # `parameters_to_write` has refused others
    is_ranker = "head.weight" in named
    is_masked_lm = any(name.startswith(f"{HEAD}.") for name in named)
    task = family.architecture.names.task if is_ranker else "ForMaskedLM" if is_masked_lm else "Model"
    heads = family.architecture.heads if config.names_cells else None
    architecture = family.classes + task if heads is None else heads.name
    values: UncheckedObject = {
        "architectures": [architecture],
        "model_type": model_type,
        **family.architecture.written(config),
        "torch_dtype": "float32",
    }
    theirs = to_theirs(dict(named), family.architecture.names)
    if heads is not None:
        theirs, settings = heads.write(theirs, config)
        values.update(settings)
    elif is_ranker:
        values.update(num_labels=1, id2label={"0": "relevance"}, label2id={"relevance": 0})
    for name, content in {"config.json": values, **config.files()}.items():
        write_json(folder / name, content)
    write_weights(folder, theirs)
    return architecture
