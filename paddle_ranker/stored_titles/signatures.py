"""Inputs and outputs of the parts of a split ranker: the lower layers, and the upper layers."""

from __future__ import annotations

from paddle_ranker.model.model_kind import LOGIT, RANKER_SIGNATURE, TOKENS, ArraySpec, Signature

LOWER, UPPER = "lower", "upper"  # names of the parts
STATES = "states"  # output of a split ranker's lower layers, input of its upper layers
SIDES = ("query", "title")  # begin the names of a similarity's arrays, which the upper layers also take


def split_signatures(width: int, vectors: int, matches: int) -> tuple[Signature, Signature]:
    """Return the signatures of the lower and of the upper layers of a split ranker.

    width: width of the states that pass from the lower to the upper layers
    vectors: size of a text's vectors (see `Side`); 0 if the ranker has no similarity
    matches: size of a token's matches; 0 if the ranker has no similarity
    """
    states = ArraySpec(STATES, "float32", (None, None, width), may_round=True)
    outputs = [states]
    for side in SIDES if vectors else ():
        outputs.append(ArraySpec(f"{side}_vectors", "float32", (None, vectors), may_round=True))
        length = f"{side}_length"  # ONNX Runtime may share memory between dimensions of one name
        outputs.append(ArraySpec(f"{side}_matches", "float32", (None, None, matches), may_round=True, length=length))
    lower = Signature(TOKENS, tuple(outputs), tuple(output.name for output in outputs))
    # The upper layers read no positions: each text was as long as a pair may be.
    upper = Signature((states, *TOKENS, *outputs[1:]), RANKER_SIGNATURE.outputs[1:], (LOGIT,), texts=2)
    return lower, upper
