"""Read pairs of posts from CSV files, write them, and split them into training, validation and test pairs.

    pairs = read_posts("posts.csv", image_folder="images")
    split = split_posts(pairs)

The files are proper CSV (a quoted field may hold commas and line ends), plain or in gzip, with a header.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from multimodal_entailment.info import LABELS
from paddle_ranker.data.rows.formats import BadRow, read_lines
from paddle_ranker.data.rows.skips import Skips
from paddle_ranker.errors import DataError, listed, quoted
from paddle_ranker.options.input_files import paths_of
from paddle_ranker.storage.atomic import new_file

COLUMNS = ("id_1", "text_1", "image_1", "id_2", "text_2", "image_2", "label")
_LABEL_COLUMNS = ("label", "label_idx")


@dataclass(frozen=True)
class PostPair:
    """Two posts, each a text and an optional image (a path), with the label of their relation.

    `label` is an index into `LABELS`. `row` is the number of the line, from 1, at which the pair's row begins, or with
    several files `7 of b.csv`.
    """

    id_1: str
    text_1: str
    image_1: Optional[str]
    id_2: str
    text_2: str
    image_2: Optional[str]
    label: Optional[int]
    row: Union[int, str]


@dataclass(frozen=True)
class Split:
    """The pairs for training, validation and test."""

    train: list[PostPair]
    validation: list[PostPair]
    test: list[PostPair]


class _BadRowError(Exception):
    """A row is not a pair of posts; the message has the reason."""


def read_posts(
    path: Union[str, Path],
    image_folder: Optional[Union[str, Path]] = None,
    need_labels: bool = True,
    skip_bad_rows: bool = False,
    images: bool = True,
) -> list[PostPair]:
    """Return the pairs of posts of one or several CSV files, in order.

    Columns are identified by name, in any order; other columns are ignored. `image_1_path` and `image_2_path` take
    precedence over `image_1` and `image_2`, which hold URLs in files that have both. A label is a name in `LABELS`, in
    upper or lower case, or its index.

    Args:
        image_folder: the folder of relative image paths (default: the CSV file's own folder).
        need_labels: refuse rows without a label; if False, they have the label None.
        skip_bad_rows: skip bad rows, and print one line with their number and the reasons on stderr.
        images: read the images' paths; if False, the file needs no such columns, and every image is None.

    Raises `DataError`, with the file, the line and its content, for a missing or damaged file, for a file that is not
    all UTF-8 (also with `skip_bad_rows`), for missing columns, for a bad row, and for a file without a good row. A bad
    row has a wrong number of cells, a quote that is never closed, an unknown label, neither text nor image, or an image
    that is a web address. Whether the image files exist is not checked.
    """
    paths = paths_of(path)
    if len(paths) > 1:
        return [
            dataclasses.replace(pair, row=f"{pair.row} of {name}")
            for name in paths
            for pair in read_posts(name, image_folder, need_labels, skip_bad_rows, images)
        ]
    path = Path(path)
    reader = csv.reader(_lines(path), strict=True)
    columns = _columns(path, reader, need_labels, images)
    folder = Path(image_folder) if image_folder is not None else path.parent
    pairs, skips = [], Skips(skip_bad_rows)
    while True:
        begin = reader.line_num + 1
        try:
            pairs.append(_pair(next(reader), columns, begin, folder, need_labels))
        except StopIteration:
            break
        except (_BadRowError, csv.Error) as problem:
            skips.add(str(path), begin, str(problem))
    report = f"kept {len(pairs):,}; {skips.report()}" if skips.count else "a header and no rows"
    if not pairs:
        raise DataError(f"{path}: {report}; expected {', '.join(COLUMNS)}")
    if skips.count:
        print(f"{path}: {report}", file=sys.stderr)
    return pairs


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines for the csv module; raise `DataError` at a line that is not UTF-8, as it may hold quotes."""
    for number, line in read_lines(str(path)):
        if isinstance(line, BadRow):
            raise DataError(f"{path}, line {number}: {line.reason}")
        yield line + "\n"


@dataclass(frozen=True)
class _Columns:
    """The indices of the wanted columns; `width` is the number of cells in a row."""

    width: int
    places: dict[str, int]


def _columns(path: Path, reader: Iterator[list[str]], need_labels: bool, images: bool) -> _Columns:
    try:
        names = [name.strip().lower() for name in next(reader)]
    except StopIteration:
        raise DataError(f"{path}: the file is empty; expected a header: {', '.join(COLUMNS)}") from None
    except csv.Error as error:
        raise DataError(f"{path}, line 1: {error}; expected a header: {', '.join(COLUMNS)}") from None
    places: dict[str, int] = {}
    for wanted in (*COLUMNS, "label_idx"):
        for name in (f"{wanted}_path", wanted) if wanted.startswith("image") else (wanted,):
            if names.count(name) > 1:
                raise DataError(f"{path}, line 1: the header names the column {name} more than once")
            if name in names:
                places.setdefault(wanted, names.index(name))
    missing = [name for name in ("text_1", "text_2") if name not in places]
    if images:
        missing += [name for name in ("image_1", "image_2") if name not in places]
    else:
        places = {name: place for name, place in places.items() if not name.startswith("image")}
    if need_labels and not any(name in places for name in _LABEL_COLUMNS):
        missing.append("label")
    if missing:
        hint = "; for texts without images use --modalities text" if missing[0].startswith("image") else ""
        raise DataError(
            f"{path}: the header has {listed(names)}, but pairs of posts need {', '.join(missing)} too{hint}"
        )
    return _Columns(len(names), places)


def _pair(cells: list[str], columns: _Columns, row: int, folder: Path, need_labels: bool) -> PostPair:
    if len(cells) != columns.width:
        raise _BadRowError(f"{len(cells) or 'no'} cells, expected {columns.width}")
    values = {name: cells[place].strip() for name, place in columns.places.items()}
    images = [_image(values.get(name, ""), name, folder) for name in ("image_1", "image_2")]
    for name, image in zip(("text_1", "text_2"), images):
        if not values[name] and image is None:
            raise _BadRowError(f"{name} is empty, and the post has no image")
    label = _label(values, need_labels)
    ids, texts = [values.get(name, "") for name in ("id_1", "id_2")], [values["text_1"], values["text_2"]]
    return PostPair(ids[0], texts[0], images[0], ids[1], texts[1], images[1], label, row)


def _image(cell: str, name: str, folder: Path) -> Optional[str]:
    if not cell:
        return None
    if "://" in cell:
        raise _BadRowError(f"{name} is the web address {quoted(cell)}, expected the path of a file; download it first")
    if "\0" in cell:
        raise _BadRowError(f"{name} holds a NUL, expected the path of a file")
    return os.fspath(folder / cell)  # an absolute path stays unchanged


def _label(values: dict[str, str], need_labels: bool) -> Optional[int]:
    cells = {name: values[name] for name in _LABEL_COLUMNS if values.get(name)}
    if not cells:
        if need_labels:
            raise _BadRowError("the label is empty")
        return None
    labels = {name: label_index(cell) for name, cell in cells.items()}
    for name, label in labels.items():
        if label is None:
            raise _BadRowError(
                f"the {name} {quoted(cells[name])} is unknown; choose from {', '.join(LABELS)}, or 0 to 2"
            )
    if len(set(labels.values())) > 1:
        raise _BadRowError(f"the label {quoted(cells['label'])} and the label_idx {quoted(cells['label_idx'])} differ")
    return next(iter(labels.values()))


def label_index(name: str) -> Optional[int]:
    """Return the index of a label given by name, in upper or lower case, or by index; None for anything else."""
    names = [label.lower() for label in LABELS]
    if name.lower() in names:
        return names.index(name.lower())
    return int(name) if name in ("0", "1", "2") else None


def write_posts(path: Union[str, Path], pairs: Iterable[PostPair]) -> None:
    """Write pairs atomically as a CSV file that `read_posts` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for pair in pairs:
        label = "" if pair.label is None else LABELS[pair.label]
        images = pair.image_1 or "", pair.image_2 or ""
        writer.writerow([pair.id_1, pair.text_1, images[0], pair.id_2, pair.text_2, images[1], label])
    with new_file(path, newline="") as stream:
        stream.write(text.getvalue())


def split_posts(
    pairs: Sequence[PostPair], test_share: float = 0.1, validation_share: float = 0.05, seed: int = 42
) -> Split:
    """Split labelled pairs into parts with the same shares of the labels.

    Args:
        test_share: the share of all pairs for test, in [0, 1).
        validation_share: the share of the remaining pairs for validation, in [0, 1).

    Raises `DataError` for unlabelled pairs, and for a label with too few pairs.
    """
    from sklearn.model_selection import train_test_split

    if any(pair.label is None for pair in pairs):
        raise DataError("pairs without labels cannot be split by label: give the files of each part, or label them")

    def divide(chosen: list[PostPair], share: float, what: str) -> tuple[list[PostPair], list[PostPair]]:
        if not share:
            return chosen, []
        try:
            rest, part = train_test_split(
                chosen, test_size=share, stratify=[pair.label for pair in chosen], random_state=seed
            )
        except ValueError as error:
            counts = ", ".join(f"{label} {count}" for label, count in class_counts(chosen).items())
            raise DataError(
                f"{len(chosen)} pairs ({counts}) are too few for {share:g} of them as {what} pairs ({error}); "
                "give more, or a larger share"
            ) from None
        return rest, part

    rest, test = divide(list(pairs), test_share, "test")
    train, validation = divide(rest, validation_share, "validation")
    return Split(train, validation, test)


def class_counts(pairs: Iterable[PostPair]) -> dict[str, int]:
    """Return a dict from a label's name to its number of pairs; unlabelled pairs are not counted."""
    labels = [pair.label for pair in pairs]
    return {name: labels.count(index) for index, name in enumerate(LABELS)}


def images_of(pairs: Sequence[PostPair]) -> tuple[list[Optional[str]], list[str]]:
    """Return the image paths of n pairs for an `ImageStore`, and names of the images (`line 17, image_1`) for errors.

    Both have 2n entries: entry i is the first image of pair i, entry n + i its second image.
    """
    paths = [pair.image_1 for pair in pairs] + [pair.image_2 for pair in pairs]
    return paths, [f"line {pair.row}, image_{number}" for number in (1, 2) for pair in pairs]
