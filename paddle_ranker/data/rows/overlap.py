"""Count held-out rows that a training also learns from."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from paddle_ranker.options import note


def warn_of_overlap(what: str, learned: Iterable[Hashable], held_out: Iterable[Hashable]) -> int:
    """Warn of held-out rows that equal a row of the training data; return how many there are.

    what: noun for the rows in the message, such as "pairs"
    learned: a key for each row of the training data
    held_out: a key for each held-out row; rows with equal keys are equal
    """
    keys = list(held_out)
    wanted = set(keys)
    repeated = {key for key in learned if key in wanted}
    count = sum(key in repeated for key in keys)
    if count:
        note(overlap_warning(what, count, len(keys)))
    return count


def overlap_warning(what: str, count: int, total: int) -> str:
    """Return the warning that `count` of `total` held-out rows are in the training data, too."""
    return (
        f"warning: {count:,} of the {total:,} held-out {what} are trained on as well, word for word: measures on new "
        f"{what} will be worse; leave the repeated {what} out"
    )
