"""Store titles for a ranker that was trained with --stored_titles: its lower layers compute each title once.

paddle-ranker store checkpoint/best titles.tsv --output states
paddle-ranker rank --model checkpoint/best --input pairs.tsv --store states
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.data.rows.records import RecordFile, TitleRow
from paddle_ranker.encoding.window_options import WINDOWS
from paddle_ranker.errors import DataError, RankerError, UsageError, quoted
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.pretrained import find_model
from paddle_ranker.options import given_of, main_of, note, option
from paddle_ranker.options.declare import FETCHED_FOLDER, shown_name
from paddle_ranker.progress import Progress
from paddle_ranker.scoring.scoring_options import ScoringOptions

_AT_ONCE = 512  # titles whose states are in memory


@dataclass(frozen=True)
class StoreOptions(ScoringOptions):
    ranker: str = option(
        positional=True, help="the ranker: its folder, or that of its export", addresses=FETCHED_FOLDER
    )
    titles_file: str = option(
        positional=True, files=True, help="titles: one per line, or columns or JSON with title and id"
    )
    output: str = option(help="new folder to write")
    dtype: str = option(
        "float16", help="type of the stored numbers; int8 takes half the space", choices=("float16", "int8", "float32")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in given_of(self, WINDOWS):
            raise UsageError(f"{shown_name(field)}: titles are stored as long as a pair may be: leave it out")

    def look_up(self) -> None:
        find_model(self.ranker)


def store(options: StoreOptions) -> None:
    """Compute the states of the titles, write them into a folder, and print their size per title."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.storage.prefetch import chunks
    from paddle_ranker.stored_titles.stored_ranker import SplitRanker
    from paddle_ranker.stored_titles.title_states import TitleStates, new_states

    folder = Path(options.output)
    if folder.exists() or folder.is_symlink():
        raise RankerError(f"{folder}: is there already; choose another --output, or remove it")
    ranker = SplitRanker.open(options.ranker, LoadOptions.of(options), options.batch_size)
    rows = RecordFile(options.titles_file, TitleRow, options)
    made_by, ids = dataclasses.replace(ranker.states_info, dtype=options.dtype), _Ids(options.titles_file)
    with new_states(folder, made_by) as writer, Progress(desc="store", unit="title") as progress:
        for part in chunks(rows, _AT_ONCE):
            writer.append(ranker.title_states([row.title for row in part]), ids.of(part))
            progress.update(len(part))
    if rows.skipped:
        note(f"{options.titles_file}: {rows.report()}")
    info = TitleStates.open(folder).info
    print(
        f"{folder}: {info.titles:,} titles, {info.tokens:,} tokens, {options.dtype}, "
        f"{info.bytes_per_title:,.0f} bytes per title"
    )


class _Ids:
    """Check of a file's ids: either every row has an id or no row has one, and no id occurs twice."""

    def __init__(self, file: str):
        self._file, self._seen, self._lacks = file, set[str](), False

    def of(self, rows: Sequence[TitleRow]) -> Optional[list[str]]:
        """Return the ids of the next rows, or None if no row has an id; raises `DataError` if the check fails."""
        ids = [row.id for row in rows if row.id is not None]
        self._lacks = self._lacks or len(ids) < len(rows)
        for row_id in ids:
            if row_id in self._seen:
                raise DataError(f"{self._file}: the id {quoted(row_id)} occurs twice; keep one title of each id")
            self._seen.add(row_id)
        if self._lacks and self._seen:
            raise DataError(f"{self._file}: some titles have no id; give each an id, or none")
        return ids or None


main = main_of(store, StoreOptions, __doc__)
