"""Pairs of posts are read exactly, and errors of a file name the line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from multimodal_entailment.data import PostPair, class_counts, read_posts, split_posts, write_posts
from multimodal_entailment.info import LABELS
from paddle_ranker.errors import DataError
from paddle_ranker.options.input_files import SeveralFiles

HEADER = "id_1,text_1,image_1,id_2,text_2,image_2,label\n"


def made(folder: Path, content: str, name: str = "posts.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode())
    return path


@pytest.mark.unit
def test_quotes_commas_and_lines_within_a_field(tmp_path: Path) -> None:
    rows = '1,"He said ""no"",\r\nthen left\n\nfor good",a.jpg,2,NA,,Implies\n3,x,,4,y,/b.png,nOeNtAiLmEnT\n'
    first, second = read_posts(made(tmp_path, "\ufeff" + HEADER + rows))
    text = 'He said "no",\nthen left\n\nfor good'
    assert first == PostPair("1", text, str(tmp_path / "a.jpg"), "2", "NA", None, 1, 2)
    assert second == PostPair("3", "x", None, "4", "y", "/b.png", 2, 6)


@pytest.mark.unit
def test_columns_in_any_order_and_an_image_folder(tmp_path: Path) -> None:
    content = "label,image_2,image_2_path,text_2,text_1,image_1_path\n0,http://x,b.png,later,sooner,a.png\n"
    (pair,) = read_posts(made(tmp_path, content), image_folder="pictures")
    assert pair == PostPair("", "sooner", "pictures/a.png", "", "later", "pictures/b.png", 0, 2)
    path = tmp_path / "posts.csv.gz"
    path.write_bytes(gzip.compress((HEADER + '1,"a\nb",,2,c,,2\n').encode()))
    assert [(pair.text_1, pair.label) for pair in read_posts(path)] == [("a\nb", 2)]
    (pair,) = read_posts(made(tmp_path, HEADER + "1,,a.png,2,b,,0\n"))  # an image in the place of a text
    assert pair.text_1 == ""
    texts = made(tmp_path, "text_1,text_2,label,label_idx\na,b,,1\n")
    assert read_posts(texts, images=False) == [PostPair("", "a", None, "", "b", None, 1, 2)]
    texts = made(tmp_path, "text_1,text_2\na,b\n")
    assert read_posts(texts, need_labels=False, images=False) == [PostPair("", "a", None, "", "b", None, None, 2)]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("content", "images", "message"),
    [
        ("", True, "the file is empty"),
        (HEADER, True, "a header and no rows"),
        (
            "label,image_2,text_2,text_1,image_1\n0,b.png,a,b,http://x/a.png\n",
            True,
            "line 2: image_1 is the web address",
        ),
        ("id_1,text_1,label\n", True, "need text_2, image_1, image_2 too"),
        (
            "text_1,text_2\na,b\n",
            True,
            "need image_1, image_2, label too; for texts without images .* --modalities text",
        ),
        ("text_1,text_1,text_2,label\n", False, "names the column text_1 more than once"),
        ("text_1,text_2,label,label_idx\na,b,Implies,2\n", False, "label 'Implies' and the label_idx '2' differ"),
        (HEADER + "1,,a.png,2,b,,0\n", False, "text_1 is empty, and the post has no image"),
        (HEADER + "1,a\0,,2,b,,0\n", True, "line 2: a NUL byte"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: str, images: bool, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_posts(made(tmp_path, content), images=images)
    with pytest.raises(DataError, match=r"no such file; did you mean .*posts\.csv"):
        read_posts(tmp_path / "post.csv")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("1,a,,2,b,Implies", "6 cells, expected 7"),
        ("", "no cells, expected 7"),
        ("1,a,,2,b,,Entails", "the label 'Entails' is unknown; choose from Contradictory, Implies, NoEntailment"),
        ("1,a,,2,b,,3", "the label '3' is unknown"),
        ("1,a,,2,b,,", "the label is empty"),
        ("1, ,,2,b,,0", "text_1 is empty, and the post has no image"),
        ('1,"a"b,,2,b,,0', "expected after"),
        ('1,"a,,2,b,,0', "unexpected end of data"),
        ("1,a,ftp://x,2,b,,0", "is the web address 'ftp://x'"),
    ],
)
def test_bad_rows(tmp_path: Path, row: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    bad_last = "unexpected end" in problem  # the file ends there
    good = "1,c,,2,d,,0\n"
    path = made(tmp_path, f"{HEADER}{good}{row}\n" + ("" if bad_last else good))
    with pytest.raises(DataError, match=rf"posts\.csv, line 3: .*{problem}.*--skip_bad_rows"):
        read_posts(path)
    pairs = read_posts(path, skip_bad_rows=True)
    assert [pair.row for pair in pairs] == ([2] if bad_last else [2, 4])
    assert f"kept {len(pairs)}; skipped 1 (line 3: " in capsys.readouterr().err


@pytest.mark.unit
def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "posts.csv"
    path.write_bytes(HEADER.encode() + b'1,"a\n\xff",,2,b,,0\n' + "1,é,,2,d,,1\n".encode())
    for skip in (False, True):  # the quote on line 3 decides where rows begin
        with pytest.raises(DataError, match="line 3: byte 0xff at position 1 is not UTF-8"):
            read_posts(path, skip_bad_rows=skip)


@pytest.mark.unit
def test_what_is_written_is_read(tmp_path: Path) -> None:
    pairs = [
        PostPair("1", 'a "b"\n,c', str(tmp_path / "x.png"), "2", "d", None, 0, 2),
        PostPair("3", "e", None, "4", "#f", str(tmp_path / "y.png"), None, 4),
    ]
    write_posts(tmp_path / "posts.csv", pairs)
    assert read_posts(tmp_path / "posts.csv", need_labels=False) == pairs


def labelled(counts: list[int]) -> list[PostPair]:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return [PostPair("", str(n), None, "", "b", None, label, n) for n, label in enumerate(labels)]


@pytest.mark.unit
def test_a_split_keeps_the_shares_of_the_labels() -> None:
    pairs = labelled([200, 300, 1500])
    split = split_posts(pairs)
    parts = [split.train, split.validation, split.test]
    assert [len(part) for part in parts] == [1710, 90, 200]
    assert list(class_counts(split.test).values()) == [20, 30, 150]
    assert list(class_counts(split.validation).values()) == [9, 13, 68] or class_counts(split.validation) == dict(
        zip(LABELS, [9, 14, 67])
    )
    assert sorted(pair.row for part in parts for pair in part) == list(range(2000))
    assert split_posts(pairs) == split and split_posts(pairs, seed=43) != split


@pytest.mark.unit
def test_splits_that_cannot_be() -> None:
    assert len(split_posts(labelled([2, 2, 2]), 0, 0).train) == 6
    with pytest.raises(DataError, match=r"6 pairs \(Contradictory 2, Implies 2, NoEntailment 2\) are too few"):
        split_posts(labelled([2, 2, 2]))
    with pytest.raises(DataError, match="pairs without labels"):
        split_posts([PostPair("", "a", None, "", "b", None, None, 2)])


@pytest.mark.real_data
def test_real_tweets(real_data: Path) -> None:
    files = [real_data / "tweets" / name for name in ("train_df.csv", "val_df.csv")]
    pairs = [pair for file in files for pair in read_posts(file, images=False)]
    assert len(pairs) == 1260 and not any(pair.image_1 or pair.image_2 for pair in pairs)
    assert sum("\n" in pair.text_1 for pair in pairs) > 100  # a reader of lines would split these
    assert all(pair.image_1 and pair.image_1.endswith((".jpg", ".png")) for pair in read_posts(files[0]))


@pytest.mark.unit
def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    first, second = (made(tmp_path, f"{HEADER}1,{text},a.jpg,2,c,,2\n", f"{text}.csv") for text in "xy")
    pairs = read_posts(SeveralFiles([str(first), str(second)]))
    assert [(pair.text_1, pair.row) for pair in pairs] == [("x", f"2 of {first}"), ("y", f"2 of {second}")]
