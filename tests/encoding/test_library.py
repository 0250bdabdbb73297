"""Tokenizers of the `tokenizers` library: its ids, its templates, its truncation; and SentencePiece models alone."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.encoding.pair_encoder import PairEncoder, never_match_ids
from paddle_ranker.encoding.tokenizers.interface import BERT_SHAPE, PairTemplate
from paddle_ranker.encoding.tokenizers.tokenizer_folder import LibraryFiles, read_tokenizer
from paddle_ranker.encoding.windows import Windows
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.families import family_of
from paddle_ranker.model.hugging_face.library_tokenizer import bring_tokenizer, read_sentencepiece
from paddle_ranker.model.tower import TextEncoder
from paddle_ranker.retrieval.index.ingestion import Cutter
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.schema import Field, Schema
from tests.checkout import ONCE
from tests.tiny import write_tokenizer
from tests.tokenizer_cases import NASTY_TEXTS

pytestmark = pytest.mark.unit

HAN, ENGLISH = "深度学习神经网络语言文化差异研究", ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog"]
NASTY = [
    "", " ", "a  b ", "\u3000深度 ", "ﬁ①½", "Ünï\u0301", "\n\t x\r", "𠀀😀👨\u200d👩\u200d👧", "\u200bzero", "…",
    "\uff21\uff22\uff11", "\x00a", "a\u00a0b", " lead", "trail  ", "深度学习fox深度",
    "\u00ad", "كتاب", "가각", "\ud800", "e" * 99,
]  # fmt: skip


def corpus(seed: int = 0, count: int = 300) -> list[str]:
    draw = random.Random(seed)
    han = ["".join(draw.choices(HAN, k=draw.randint(1, 20))) for _ in range(count)]
    return [f"{text} {' '.join(draw.choices(ENGLISH, k=draw.randint(1, 8)))}" for text in han]


@pytest.fixture(scope="module", params=["unigram", "bpe", "wordpiece"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but tokenizer.json; truncation and padding are on in it, as some have it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    kind = request.param
    roberta = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bert = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    if kind == "unigram":
        library = Tokenizer(models.Unigram())
        library.normalizer = normalizers.NFKC()
        library.pre_tokenizer = pre_tokenizers.Metaspace()
        library.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=150, special_tokens=roberta, unk_token="<unk>", show_progress=False
        )
    elif kind == "bpe":
        library = Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=roberta, initial_alphabet=alphabet, show_progress=False
        )
    else:
        library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        library.normalizer = normalizers.BertNormalizer()
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=bert, show_progress=False)
    library.train_from_iterator(corpus(), trainer)
    if kind == "bpe":
        library.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    elif kind == "unigram":
        library.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    else:
        library.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    library.enable_truncation(7)
    library.enable_padding()
    made = tmp_path_factory.mktemp(kind)
    library.save(str(made / "tokenizer.json"))
    return made


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("length", [8, 9, 16, 33, 600])
def test_pairs_are_those_of_the_library(folder: Path, length: int, side: str, tmp_path: Path) -> None:
    """Ids, template and truncation, by the library's own, for every pair of real and nasty texts."""
    from tokenizers import Tokenizer

    read_tokenizer(folder).write(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"truncation_side": side}), encoding="utf-8")
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_padding()
    library.enable_truncation(length, strategy="longest_first", direction=side)
    texts = [*NASTY, *corpus(1, 12)]
    pairs = [(one, texts[number - apart]) for apart in (0, 3, 11) for number, one in enumerate(texts)]
    encoder = PairEncoder.from_folder(tmp_path, length)
    queries, titles = (list(side) for side in zip(*pairs))
    found = encoder.encode(queries, titles)
    sound = [tuple(text.replace("\ud800", "?") for text in pair) for pair in pairs]
    wanted = [encoding.ids for encoding in library.encode_batch(sound)]
    assert [found[number].tolist() for number in range(len(pairs))] == wanted
    singles = encoder.encode_single(texts)
    assert [singles[number].tolist() for number in range(len(texts))] == [
        library.encode(text.replace("\ud800", "?")).ids for text in texts
    ]


def test_passages_with_their_title_are_read_whole(folder: Path) -> None:
    encoder = PairEncoder.from_folder(folder, 40)
    texts = [*NASTY, *corpus(1, 12)]
    ends = encoder.token_ends(texts)
    assert [*map(len, ends)] == [*map(len, encoder.encode_texts(texts))]
    assert all((np.diff(own) >= 0).all() and (own <= len(text)).all() for own, text in zip(ends, texts))
    for between, overlap in ((". ", 0), ("。", 16), (" ", 16)):
        schema = Schema((Field("title", "text", title=True),), passage_tokens=64, passage_overlap=overlap)
        document, tower = (
            Document("d", between.join(corpus(2)), {"title": "深度 brown"}),
            TextEncoder(encoder, "", "fox "),
        )
        (spans,) = Cutter(schema, tower).spans([document])
        read = [schema.model_text(document, document.text[slice(*span)]) for span in spans]
        longest = max(map(len, encoder.encode_texts([f"fox {text}" for text in read])))
        assert tower.encode(read) is not None and encoder.truncated == 0
        assert 40 - encoder.template.text_tokens - 8 <= longest and len(spans) > 100


def multilingual(draw: random.Random, pieces: int) -> str:
    scripts = [*NASTY, *NASTY_TEXTS[:-4], *NASTY_TEXTS[-2:], *corpus(2, 20), "ſﬃ", "สวัสดี", "ﷺ", "I/O don't", "é" * 9]
    between = ["", " ", "。", ". ", "\n", "  ", "，", "-", "#"]
    return "".join(draw.choice(scripts) + draw.choice(between) for _ in range(pieces))


@pytest.mark.thorough(keep=6)
@ONCE
@pytest.mark.parametrize(("prompt", "template"), [("", ""), ("fox ", "Ünï {title}: {text}！")])
@pytest.mark.parametrize("is_builtin", [False, True])
def test_no_passage_has_more_tokens_than_its_bound(
    folder: Path, is_builtin: bool, prompt: str, template: str, tmp_path: Path
) -> None:
    """Counted as the tower encodes each passage alone; only one code point may have more, as it cannot be cut."""
    if is_builtin:
        write_tokenizer(tmp_path)
    encoder, draw = PairEncoder.from_folder(tmp_path if is_builtin else folder, 130), random.Random(3)
    tower = TextEncoder(encoder, "", prompt)
    texts = [*NASTY, *NASTY_TEXTS, *(multilingual(draw, 12) for _ in range(40))]
    for most, overlap in ((1, 0), (2, 1), (7, 0), (7, 3), (24, 12), (128, 0), (128, 16)):
        schema = Schema((Field("title", "text", title=True),), template, passage_tokens=most, passage_overlap=overlap)
        documents = [Document("d", text[: 60 * most], {"title": "深度 x"}) for text in texts]
        for document, spans in zip(documents, Cutter(schema, tower).spans(documents)):
            text = document.text
            parts = [text[slice(*span)] for span in spans]
            read = [schema.model_text(document, part) for part in parts]
            for part, count in zip(parts, map(encoder.count_tokens, parts)):
                assert count <= most or len(part) == 1, (most, count, part)
            assert tower.encode(read) is not None and encoder.truncated == 0
            assert (spans[0][0], spans[-1][1]) == (0, len(text)) and (not text or all(one < two for one, two in spans))
            for (before, end), (start, after) in zip(spans, spans[1:]):
                assert before < start <= end < after
                assert encoder.count_tokens(text[start:end]) <= overlap


def test_special_tokens_in_a_text_are_no_special_tokens(folder: Path) -> None:
    encoder = PairEncoder.from_folder(folder, 64)
    special = list(read_tokenizer(folder).special_tokens.values())
    template = encoder.template
    for token in special:
        row = encoder.encode([f"a {token} b"], [token])[0].tolist()
        inside = row[len(template.before) : -len(template.after)]
        for number in (*template.between, encoder.pad_id, encoder.mask_id):
            assert inside.count(number) == list(template.between).count(number), (token, row)


def test_a_copy_is_byte_identical_and_ids_by_text_join_what_spells_the_same(folder: Path, tmp_path: Path) -> None:
    files = LibraryFiles.read(folder)
    files.write(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert files.vocab_size == max(files.token_to_id.values()) + 1
    ids = files.spelling().ids
    assert len(ids) == files.vocab_size
    by_id = {number: token for token, number in files.token_to_id.items()}
    for start in ("▁", "Ġ"):
        for token, number in files.token_to_id.items():
            bare = files.token_to_id.get(token[1:]) if token.startswith(start) else None
            if bare is not None and token[1:].isalnum() and token[1:].isascii():
                assert ids[number] == ids[bare], by_id[number]
    encoder = PairEncoder(files, 16)
    assert all(ids[number] == encoder.pad_id for number in never_match_ids(encoder) if number != encoder.unk_id)
    words = files.words()
    assert "fox" in " ".join(words) or len(words) > 100


def test_the_largest_id_counts_where_ids_have_gaps_or_tokens_were_added(tmp_path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    for ids, more, size in (((0, 1, 2), 0, 3), ((0, 1, 2), 2, 5), ((0, 1, 9), 0, 10), ((0, 1, 9), 1, 10)):
        library = Tokenizer(models.WordLevel(dict(zip(("<pad>", "<unk>", "a"), ids)), unk_token="<unk>"))
        library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        library.add_special_tokens([AddedToken(f"<{number}>", special=True) for number in range(more)])
        library.save(str(tmp_path / "tokenizer.json"))
        files = LibraryFiles.read(tmp_path)
        assert files.vocab_size == max(files.token_to_id.values()) + 1 == size, (ids, more)


def test_windows_keep_the_template(folder: Path) -> None:
    encoder = PairEncoder.from_folder(folder, 16)
    template = encoder.template
    query, title = "fox dog", " ".join(ENGLISH * 5)
    whole = encoder.encode([query], [title], truncate=False)
    split = Windows(16, overlap=2, template=template).split(whole)
    first = encoder.encode([query], [title])
    assert split.pairs[0].tolist() == first[0].tolist()
    start = int(first.second_starts[0])
    titles = [
        split.pairs[n][start : len(split.pairs[n]) - len(template.after)].tolist() for n in range(len(split.pairs))
    ]
    joined = titles[0] + [token for one in titles[1:] for token in one[2:]]
    assert joined == whole[0][int(whole.second_starts[0]) : -len(template.after)].tolist()
    for number in range(len(split.pairs)):
        assert split.pairs[number][:start].tolist() == first[0][:start].tolist()
        assert split.pairs[number][-len(template.after) :].tolist() == list(template.after)
    assert isinstance(split.pairs, EncodedPairs)


def test_windows_keep_the_side_of_a_long_query_that_truncation_keeps() -> None:
    """`[0] 5 6 7 8 9 [2, 2] 10 11 12 13 14 [2]` in windows of 8: two tokens of the query and two of the title each."""
    pair = EncodedPairs(np.array([0, 5, 6, 7, 8, 9, 2, 2, 10, 11, 12, 13, 14, 2], np.int32), np.array([0, 14]),
                        np.array([8], np.int32), 1)  # fmt: skip
    for keeps_end, query in ((False, [5, 6]), (True, [8, 9])):
        template = PairTemplate((0,), (2, 2), (2,), (0,), (2,), keeps_end=keeps_end)
        windows = Windows(8, overlap=0, template=template).split(pair).pairs
        titles = [[10, 11], [12, 13], [14]]
        assert [windows[n].tolist() for n in range(3)] == [[0, *query, 2, 2, *title, 2] for title in titles]


def test_which_side_keeps_more() -> None:
    library = PairTemplate((0,), (2, 2), (2,), (0,), (2,), longer_keeps_more=True)
    first, second = np.array([9, 4, 5, 1]), np.array([9, 5, 4, 9])
    assert [kept.tolist() for kept in library.truncated(first, second, 7)] == [[3, 3, 4, 1], [4, 4, 3, 6]]
    assert [kept.tolist() for kept in BERT_SHAPE.truncated(first, second, 7)] == [[4, 4, 4, 1], [3, 3, 3, 6]]


@pytest.mark.parametrize("content", ["{", '{"model": {}}'])
def test_what_is_no_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot read it"):
        read_tokenizer(tmp_path)


def test_pieces_and_merges_alone_are_roberta_s_tokenizer(folder: Path, tmp_path: Path) -> None:
    """Old folders have `vocab.json` and `merges.txt`; the ids are those of the library's own file of them."""
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if type(library.model).__name__ != "BPE":
        return
    source, target = tmp_path / "hf", tmp_path / "ours"
    source.mkdir()
    target.mkdir()
    library.model.save(str(source))
    assert sorted(path.name for path in source.iterdir()) == ["merges.txt", "vocab.json"]
    bring_tokenizer(source, target)
    texts = [*NASTY, *corpus(3, 40)]
    found, wanted = (PairEncoder.from_folder(path, 32).encode(texts, texts[::-1]) for path in (target, folder))
    assert [found[row].tolist() for row in range(len(texts))] == [wanted[row].tolist() for row in range(len(texts))]
    assert read_tokenizer(target).special_tokens == read_tokenizer(folder).special_tokens
    (source / "tokenizer_config.json").write_text('{"add_prefix_space": true}', encoding="utf-8")
    bring_tokenizer(source, target)
    spaced = PairEncoder.from_folder(target, 32).encode_texts(["fox"])[0]
    assert spaced.tolist() == PairEncoder.from_folder(folder, 32).encode_texts([" fox"])[0].tolist()
    (source / "merges.txt").write_text("a b c\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"not the vocab\.json and merges\.txt of a"):
        bring_tokenizer(source, target)


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "spm.model"])
def test_a_sentencepiece_model_alone_gives_its_own_ids(tmp_path: Path, name: str) -> None:
    spm = pytest.importorskip("sentencepiece", reason="needs sentencepiece")
    names = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]",
             "eos_piece": "[SEP]", "unk_piece": "[UNK]"} if name == "spm.model" else {}  # fmt: skip
    written = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=written, vocab_size=90, minloglevel=2, num_threads=1, **names
    )
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / name).write_bytes(written.getvalue())
    bring_tokenizer(tmp_path / "hf", tmp_path)
    encoder, oracle = PairEncoder.from_folder(tmp_path, 700), spm.SentencePieceProcessor(model_proto=written.getvalue())
    texts = [text for text in [*NASTY, *corpus(2, 100)] if "\ud800" not in text and "\x00" not in text]
    own = [ids.tolist() for ids in encoder.encode_texts(texts)]
    wanted = [oracle.encode(text) for text in texts]

    def own_ids(text: str) -> list[int]:
        return [3 if number == 0 else number + 4 for number in oracle.encode(text)]

    if name == "spm.model":
        assert own == wanted
        assert encoder.encode(["fox"], [""])[0].tolist() == [1, *oracle.encode("fox"), 2, 2]
        settings = {"do_lower_case": True, "split_by_punct": True}
        (tmp_path / "hf" / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        bring_tokenizer(tmp_path / "hf", tmp_path)
        low = PairEncoder.from_folder(tmp_path, 700).encode_texts(["FOX dog"])[0].tolist()
        assert low == oracle.encode("fox dog") != oracle.encode("FOX dog")
    else:  # four special tokens come before the pieces, in place of three
        assert own == [[3 if number == 0 else number + 1 for number in ids] for ids in wanted]
        assert encoder.mask_id == encoder.vocab_size - 1 == 91
        # CamemBERT's tokens in front are five, and replace the first piece alone; its <s> and </s> are the file's.
        (tmp_path / "hf" / "config.json").write_text('{"model_type": "camembert"}', encoding="utf-8")
        family_of("camembert").bring_tokenizer(tmp_path / "hf", tmp_path)
        camembert = PairEncoder.from_folder(tmp_path, 700)
        assert [ids.tolist() for ids in camembert.encode_texts(texts)] == [own_ids(text) for text in texts]
        assert camembert.encode(["fox"], [""])[0].tolist() == [5, *own_ids("fox"), 6, 6, 6]
    damaged = written.getvalue()[:-7]
    (tmp_path / name).write_bytes(damaged)
    with pytest.raises(CheckpointError, match="damaged"):
        read_sentencepiece(tmp_path / name)
