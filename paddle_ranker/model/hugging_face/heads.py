"""Heads of transformers' classifiers as rankers': which class means relevant, and how it becomes a logit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker.encoding.columns import Array
from paddle_ranker.errors import CheckpointError, UsageError, listed, quoted
from paddle_ranker.options import note_once
from paddle_ranker.storage.stated import Stated

CLASSIFIES = "ForSequenceClassification"
_MOST_CLASSES = 1000  # whose names are made up where a configuration only counts them
_UNNAMED = (("label_0", "label_1"), ("0", "1"))  # the second means yes: models are trained with labels of 0 and 1
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
    """Return whether a class is that of relevant texts, by its name; None if the name does not tell."""
    name = re.sub(r"[\s\-]+", "_", label.strip().lower())
    if name in _YES or name in _NO:
        return name in _YES
    return False if _NOT.sub("", name) in _YES and _NOT.match(name) else None


@dataclass(frozen=True)
class ClassifierHead:
    """What a transformers `config.json` says of the head of a classifier.

    labels: names of its classes, in their order
    problem: transformers' `problem_type`, if there is one
    activation: what sentence-transformers' CrossEncoder makes of the logits, if that is stated
    """

    file: Path
    labels: tuple[str, ...]
    problem: str = ""
    activation: str = ""

    @classmethod
    def of(cls, stated: Stated) -> Optional[ClassifierHead]:
        """Return what a configuration says; None if its model is no classifier of texts."""
        labels, count = stated.get("id2label"), stated.get("num_labels", stated.get("_num_labels", 2))
        problem, old = stated.get("problem_type", ""), stated.get("sbert_ce_default_activation_function", "")
        library = stated.inner("sentence_transformers", without_effect=("version",))
        activation = str(library.get("activation_fn", old)).rpartition(".")[2]
        if not str((stated.get("architectures") or [""])[0]).endswith(CLASSIFIES):
            return None
        try:
            if isinstance(labels, dict) and labels:
                names = tuple(str(labels[number]) for number in sorted(labels, key=int))
            else:
                names = tuple(f"LABEL_{number}" for number in range(min(int(count), _MOST_CLASSES)))  # as transformers
        except (TypeError, ValueError) as error:
            raise stated.error(f"its classes are {quoted(labels or count)} ({error}); copy it again") from None
        return cls(stated.path, names, str(problem), activation)

    @property
    def _is_unnamed(self) -> bool:
        return tuple(label.lower() for label in self.labels) in _UNNAMED

    def place(self, positive_label: Optional[str]) -> int:
        """Return which of two classes is that of relevant texts.

        Args:
            positive_label: the class's name or number, if the user says it.

        Raises `UsageError` if there is no such class, `CheckpointError` if the names do not tell.
        """
        labels = self.labels
        if positive_label is not None:
            named = [place for place, label in enumerate(labels) if positive_label in (label, str(place))]
            if not named:
                raise UsageError(f"--positive_label {quoted(positive_label)}: the classes are {listed(labels)}")
            return named[0]
        if self._is_unnamed:
            return 1
        means_yes = [_means_yes(label) for label in labels]
        if sorted(means_yes, key=str) != [False, True]:
            raise CheckpointError(
                f"{self.file}: its classes are {' and '.join(map(quoted, labels))}; nothing says which of them means "
                "that a title is relevant: add --positive_label NAME (paddle-ranker convert keeps it)"
            )
        return means_yes.index(True)

    def logit(self, weight: Array, bias: Array, positive_label: Optional[str]) -> tuple[Array, Array]:
        """Return the head with one logit, whose sigmoid is the probability of the class of relevant texts; note it.

        Args:
            weight: `[inputs, classes]`, of one or two classes.
            bias: `[classes]`.

        Raises as `place` does.
        """
        # Many files do not say how many classes there are, which transformers takes for two.
        if weight.shape[1] != len(self.labels) and (weight.shape[1] != 1 or not self._is_unnamed):
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
                raise UsageError(f"--positive_label belongs to heads of two classes, {self.file} has one: leave it out")
            return weight, bias
        if self.problem not in ("", "single_label_classification", "multi_label_classification"):
            raise CheckpointError(f"{self.file}: problem_type is {quoted(self.problem)} of two classes; not done here")
        # Subtracted in float32 at the least, whatever the file's numbers are.
        weight, bias = (array.astype(np.promote_types(array.dtype, np.float32)) for array in (weight, bias))
        place = self.place(positive_label)
        note_once(f"note: {self.file}: a probability is that of the class {quoted(self.labels[place])} ({place})")
        if self.problem == "multi_label_classification":
            return weight[:, place : place + 1], bias[place : place + 1]
        sign = 2 * place - 1  # softmax(l)[1] = sigmoid(l1 - l0)
        return sign * (weight[:, 1:] - weight[:, :1]), sign * (bias[1:] - bias[:1])


def for_label(
    named: Mapping[str, Array],
    arrays: Mapping[str, Array],
    head: Optional[ClassifierHead],
    positive_label: Optional[str],
    file: Path,
) -> dict[str, Array]:
    """Return a ranker's parameters with the head whose probability is that of the class of relevant texts.

    Args:
        named: as `network.name_parameters` names them.
        arrays: as the file has them, with the head's classes in `classifier`.
        head: what a transformers folder says of that; None for other folders.
        positive_label: as in `ClassifierHead.place`.

    Raises as `ClassifierHead.logit` does, and `UsageError` for a label of what is no such classifier.
    """
    weight, bias = (arrays.get(f"classifier.{part}") for part in ("weight", "bias"))
    if head is not None and weight is not None and bias is not None:
        return {**named, **dict(zip(("head.weight", "head.bias"), head.logit(weight, bias, positive_label)))}
    if positive_label is not None:
        raise UsageError(f"--positive_label belongs to transformers' classifiers, {file} is none: leave it out")
    return dict(named)
