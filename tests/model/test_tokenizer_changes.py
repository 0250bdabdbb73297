"""Each setting of a foreign tokenizer is read as transformers reads it, or refused by name."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from paddle_ranker.encoding.columns import EncodedTexts
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.model.families import brought_tokenizer, family_of
from paddle_ranker.model.hugging_face.library_tokenizer import gives_types
from paddle_ranker.storage.foreign_config import ForeignConfig
from tests.checkout import ONCE
from tests.encoding import id_cases
from tests.model.tokenizer_changes import (
    ABSENT,
    CONFIG,
    FILE,
    KINDS,
    LENGTH,
    LIBRARY,
    TEXTS,
    changed,
    changes,
    digest,
    marked_folder,
    rows_of,
    types_of,
    write_folder,
)

pytestmark = pytest.mark.parity
PARTS, ANY = ("normalizer", "pre_tokenizer", "post_processor"), "deberta-v2, any class"
REBUILT = ("xlm-roberta", "camembert", "deberta-v2", "big_bird", "qwen3", "clip")
OF_MODEL = ("unk_id", "end_of_word_suffix", "ignore_merges")
ANSWERS = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers")
    id_cases.unpack(folder)
    return folder


def found(folder: Path, model_type: str) -> str:
    """Return the digest of our ids and types."""
    encoder = PairEncoder(brought_tokenizer(folder, family_of(model_type)), LENGTH)
    texts, pairs = encoder.encode_single(TEXTS), encoder.encode(*rows_of(TEXTS))
    types = gives_types(folder)
    rows = [(texts[row].tolist(), [0] * len(texts[row])) for row in range(len(texts))]
    starts = pairs.second_starts.tolist()
    rows += [(pairs[row].tolist(), types_of(pairs[row], starts[row], types)) for row in range(len(pairs))]
    return digest(rows)


@pytest.mark.thorough(keep=8)
@ONCE
@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_of_a_tokenizer_is_read_as_transformers_reads_it_or_refused(
    tmp_path: Path, folders: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_type, said = KINDS[kind][1], ANSWERS[kind]
    unknown: list[str] = []
    monkeypatch.setattr(ForeignConfig, "log_unknown", lambda stated: unknown.extend(stated.unknown))
    plain = write_folder(tmp_path / "plain", kind, folders)
    assert found(plain, model_type) == said["plain"]
    wrong = []
    cases = changes(plain, said["keys"])
    assert len(cases) == len(said["changed"])
    for number, (change, answer) in enumerate(zip(cases, said["changed"])):
        folder = changed(write_folder(tmp_path / str(number), kind, folders), change)
        is_error = answer is not None and len(answer) != len(said["plain"])
        unknown.clear()
        try:
            ids = found(folder, model_type)
        except RankerError as error:
            # A change of the class may need a vocabulary that is not there; damaged parts are refused by the library.
            names = [key for key in change[1] if isinstance(key, str) and key != "tokenizer_class"] or [""]
            names.append("pad_token")
            is_named = any(name in str(error) for name in names) or (change[0] == LIBRARY and LIBRARY in str(error))
            if not is_error and not is_named:
                wrong.append((*change, f"refused: {error}"))
            continue
        of_file = change[0] == LIBRARY and (change[1][0] in PARTS or change[1][-1] in OF_MODEL)
        if (of_file and kind in REBUILT) or (kind == ANY and change[2] == ABSENT and change[1] == ["tokenizer_class"]):
            continue  # the file counts, as in transformers 4; transformers 5 makes these parts anew by the class
        if not is_error and ids != (answer or said["plain"]):
            wrong.append((*change, "moves there" if answer else "moves here"))
        if change[1][0] in unknown and answer is None and change[1][0] in said["keys"]:
            wrong.append((*change, "unknown"))
    assert not wrong, "\n".join(f"{len(wrong)}:" if n == 0 else str(line)[:300] for n, line in enumerate([0, *wrong]))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "siglip"])  # whose prompts have none here
def test_special_tokens_count_in_prompts_and_in_texts_where_their_owner_asks(
    tmp_path: Path, folders: Path, kind: str
) -> None:
    said = ANSWERS[kind]["marked"]
    folder, prompts, texts = marked_folder(tmp_path / "hf", kind, folders)
    files = brought_tokenizer(folder, family_of(KINDS[kind][1]))
    encoder = PairEncoder(files, LENGTH)
    wrong = [prompt for prompt in prompts if ids_of(encoder.encode_single(TEXTS, prompt=prompt)) != said[prompt]]
    assert wrong == []
    plain = encoder.encode_single(texts)
    special = {*encoder.template.text_before, *encoder.template.text_after}
    assert ids_of(plain) != said[""] and all(not special.intersection(plain[row][1:-1]) for row in range(len(plain)))
    asked = files.with_special_tokens_in_texts()
    asked.write(tmp_path)
    for again in (asked, read_tokenizer(tmp_path)):
        assert again.special_tokens_in_texts and ids_of(PairEncoder(again, LENGTH).encode_single(texts)) == said[""]
    ends = PairEncoder(asked, LENGTH).token_ends(texts)
    counts = map(len, PairEncoder(asked, LENGTH).encode_texts(texts))
    assert [*map(len, ends)] == [*counts] and all(end[-1] == len(text) for end, text in zip(ends, texts))


def ids_of(texts: EncodedTexts) -> str:
    return digest([(texts[row].tolist(), []) for row in range(len(texts))])


def test_more_added_tokens_than_embeddings_cost_no_more_than_reading_them(tmp_path: Path, folders: Path) -> None:
    for kind, file in (("bert", CONFIG), ("electra", LIBRARY), ("xlm-roberta", CONFIG), ("xlm-roberta", LIBRARY)):
        folder = write_folder(tmp_path / f"{kind}-{file}", kind, folders)
        values = json.loads((folder / file).read_text(encoding="utf-8"))
        token = {"special": False, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        tokens = {4096 + n: {"content": f"<n{n}>", **token} for n in range(60_000)}
        if file == CONFIG:
            values["added_tokens_decoder"] = tokens
        else:
            values["added_tokens"] += [{"id": number, **entry} for number, entry in tokens.items()]
        (folder / file).write_text(json.dumps(values), encoding="utf-8")
        began = time.perf_counter()
        with pytest.raises(CheckpointError, match=r"ids up to 64,095, and the model has 4,096"):
            brought_tokenizer(folder, family_of(KINDS[kind][1]))
        assert time.perf_counter() - began < 5
