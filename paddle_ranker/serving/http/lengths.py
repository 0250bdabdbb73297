"""Texts that are too long for the model: a request may allow to cut them, or demand a refusal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.serving.core.faults import TOO_LARGE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.jobs import Check


@dataclass(frozen=True)
class TruncationRequest:
    """How a request wants long texts to be treated: cut, at which end and to how many tokens, or refused.

    field: name of the request's field with the texts, for faults
    refuses: whether a text that would be cut is refused
    sides: a dict from the name of each request field that chooses the end to cut at, to its value: "left" or "right",
        in upper or lower case
    most: a dict from the name of each request field that limits texts, to the number of tokens to keep; -1: as many as
        the model reads
    """

    field: str
    refuses: bool = False
    sides: Mapping[str, Optional[str]] = dataclasses.field(default_factory=dict)
    most: Mapping[str, Optional[int]] = dataclasses.field(default_factory=dict)

    def check(self, encoders: Sequence[PairEncoder]) -> Optional[Check]:
        """Return a check for the queue (`Job.check`) that refuses texts which the encoders would not cut as requested.

        Returns None if the encoders cut every text as the request wants.
        """
        if not (self.refuses or any(self.sides.values()) or any(count is not None for count in self.most.values())):
            return None
        ends = {"left" if encoder.template.keeps_end else "right" for encoder in encoders}
        sides = {name: side for name, side in self.sides.items() if side is not None and {side.lower()} != ends}
        longest = max(encoder.max_seq_length for encoder in encoders)
        most = {name: count for name, count in self.most.items() if count is not None and 0 <= count < longest}
        if not (self.refuses or sides or most):
            return None

        def check(first: int, lengths: Array, limit: int) -> None:
            for name, count in most.items():
                if lengths.max() > count < limit:
                    raise Fault(UNPROCESSABLE, f"is {count}, and {self._place(first, lengths, count)}", field=name)
            if lengths.max() <= limit:
                return
            for name, side in sides.items():
                raise Fault(UNPROCESSABLE, f"is {side}, and {self._place(first, lengths, limit)}", field=name)
            if self.refuses:
                problem = (
                    f"has more than the {limit} tokens that are looked at; let it be cut (truncate: true), or start "
                    "the server with --auto_truncate true"
                )
                raise Fault(TOO_LARGE, problem, field=f"{self.field}[{first + int(np.argmax(lengths > limit))}]")

        return check

    def _place(self, first: int, lengths: Array, most: int) -> str:
        place = first + int(np.argmax(lengths > most))
        return f"{self.field}[{place}] has more tokens than are kept: this model cuts otherwise, shorten the text"
