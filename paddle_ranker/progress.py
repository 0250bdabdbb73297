"""Show the progress of work: a bar on a terminal, else a line every ten seconds.

for text in Progress(texts, desc="encode", unit="text"):
    ...
"""

from __future__ import annotations

from typing import Any, Generic, Optional, TypeVar

from tqdm import tqdm

T = TypeVar("T")
BAR_AFTER, LINE_EVERY = 2.0, 10.0  # seconds


class Progress(tqdm, Generic[T]):
    """`tqdm` that shows nothing in the first two seconds, and writes lines if standard error is not a terminal.

    The arguments are those of `tqdm`.
    """

    disable: bool

    def __init__(self, *values: Any, **options: Any) -> None:
        self._has_lines = False
        super().__init__(*values, **{"delay": BAR_AFTER, "maxinterval": LINE_EVERY, "leave": None, **options})
        self._is_terminal = not self.disable and self.fp.isatty()
        if not (self.disable or self._is_terminal):
            self.mininterval = LINE_EVERY
            self.last_print_t = self.start_t  # the first line comes when the first ten seconds are over

    def display(self, msg: Optional[str] = None, pos: Optional[int] = None) -> bool:
        """Show the progress: on a terminal, redraw the bar; otherwise write a line."""
        if getattr(self, "_is_terminal", True):
            return bool(super().display(msg, pos))
        if self.format_dict["elapsed"] >= LINE_EVERY:
            print(self if msg is None else msg, file=self.fp, flush=True)
            self._has_lines = True
        return True

    def close(self) -> None:
        """End the bar; without a terminal, write a last line if lines were written before."""
        if self.disable or self._is_terminal:
            super().close()
            return
        if self._has_lines:
            self.display()
        self.disable = True
        self._decr_instances(self)
