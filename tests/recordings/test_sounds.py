"""Published models of sounds: logits and vectors equal to transformers'."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paddle_ranker.commands.convert import main as convert
from paddle_ranker.data.files.file_readers import READERS, Part
from paddle_ranker.errors import CheckpointError
from paddle_ranker.recordings.sound_encoder import SoundEncoder
from paddle_ranker.recordings.speech import MODEL_VARIABLE
from paddle_ranker.recordings.towers import encode_sounds
from paddle_ranker.recordings.transcriber import Letters, Transcriber
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.storage.foreign_config import PREPROCESSOR_FILE
from tests.recordings.sound_cases import CASES, FILE, FRAMES, LETTERS, PROCESSOR, sounds, write

pytestmark = pytest.mark.parity
EXPECTED: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def published(name: str, folder: Path) -> Path:
    """Return a new folder of a case."""
    folder.mkdir(exist_ok=True)
    write(folder, name, EXPECTED[name]["shapes"])
    return folder


def means(name: str) -> np.ndarray:
    """Return transformers' vectors of the sounds."""
    return np.array([one["mean"] for one in EXPECTED[name]["sounds"]])


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_transformers_alone_and_together(name: str, tmp_path: Path) -> None:
    tower = Tower.open(published(name, tmp_path / name), batch_size=10_000)
    together = encode_sounds(tower, sounds())
    np.testing.assert_allclose(together, means(name), rtol=1e-5, atol=1e-5)
    alone = np.concatenate([encode_sounds(tower, [sound]) for sound in sounds()])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_the_counter_of_a_batch_norm_is_no_code_of_a_quantised_model(tmp_path: Path) -> None:
    """PyTorch saves how many batches a batch norm has seen, as int64, beside its means."""
    folder = published("hubert_batch_norm", tmp_path / "hubert")
    arrays = load_file(folder / "model.safetensors")
    name = next(key for key in arrays if key.endswith("running_mean")).replace("running_mean", "num_batches_tracked")
    save_file({**arrays, name: np.array(7)}, folder / "model.safetensors", {"format": "pt"})
    found = encode_sounds(Tower.open(folder), sounds())
    np.testing.assert_allclose(found, means("hubert_batch_norm"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2_large", "hubert_batch_norm"])
def test_older_names_of_the_weights_are_read(name: str, tmp_path: Path) -> None:
    folder = published(name, tmp_path / name)
    arrays = load_file(folder / "model.safetensors")
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for theirs, older in old.items():
        arrays = {key.replace(theirs, older): array for key, array in arrays.items()}
    arrays = {key.split(".", 1)[1]: array for key, array in arrays.items() if not key.startswith("lm_head")}
    save_file(arrays, folder / "model.safetensors")
    np.testing.assert_allclose(encode_sounds(Tower.open(folder), sounds()), means(name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["wav2vec2_large", "hubert", "hubert_batch_norm"])
def test_convert_brings_and_takes_them(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target, back = published(name, tmp_path / name), tmp_path / "tower", tmp_path / "back"
    assert convert([str(source), str(target)]) == 0, capsys.readouterr().err
    assert "vectors of 24 numbers" in capsys.readouterr().out
    assert convert([str(target), str(back), "--to", "hf"]) == 0, capsys.readouterr().err
    np.testing.assert_allclose(encode_sounds(Tower.open(back), sounds()), means(name), rtol=1e-5, atol=1e-5)
    prefix = CASES[name]["model_type"] + "."
    kept = {key[len(prefix) :]: shape for key, shape in EXPECTED[name]["shapes"].items() if key.startswith(prefix)}
    kept.pop("masked_spec_embed", None)
    assert {key: list(array.shape) for key, array in load_file(back / "model.safetensors").items()} == kept
    for arguments, problem in (
        (["--to", "sentence-transformers"], "--to hf"),
        (["--to", "tower", "--text_prompt", "a"], "--text_prompt"),
    ):
        assert convert([str(target), str(tmp_path / "other"), *arguments]) != 0
        assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "settings", "problem"),
    [
        (PREPROCESSOR_FILE, {"feature_size": 80}, "feature_size is 80"),
        (PREPROCESSOR_FILE, {"feature_extractor_type": "WhisperFeatureExtractor"}, "WhisperFeatureExtractor"),
        (PREPROCESSOR_FILE, {"sampling_rate": 12}, "sampling_rate is 12"),
        (PREPROCESSOR_FILE, {"do_normalize": "yes"}, "do_normalize is 'yes'"),
        (PREPROCESSOR_FILE, {"hop_length": 160}, "hop_length: unknown"),
        ("config.json", {"add_adapter": True}, "add_adapter is True"),
        ("config.json", {"adapter_attn_dim": 16}, "adapter_attn_dim is 16"),
        ("config.json", {"feat_extract_norm": "batch"}, "feat_extract_norm is batch"),
        ("config.json", {"feat_extract_activation": "mish"}, "feat_extract_activation is 'mish'"),
        ("config.json", {"conv_stride": [5, 2]}, "conv_stride"),
        ("config.json", {"num_conv_pos_embedding_groups": 5}, "not a multiple"),
        ("config.json", {"conv_kernel": [10, "3", 3, 3, 3, 2, 2]}, "conv_kernel"),
        ("config.json", {"num_hidden_layers": 3}, "encoder.layers.2"),
    ],
)
def test_other_settings_are_refused_by_name(file: str, settings: dict[str, Any], problem: str, tmp_path: Path) -> None:
    folder = published("wav2vec2", tmp_path / "model")
    stated = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**stated, **settings}))
    with pytest.raises(CheckpointError, match=problem):
        Tower.open(folder)


def test_sounds_are_sampled_as_the_folder_says(tmp_path: Path) -> None:
    folder = published("wav2vec2", tmp_path / "model")
    loud = [3 * sound - 0.5 for sound in sounds()]
    scaled = SoundEncoder.read(folder).encode(loud)
    assert abs(float(scaled.take([1]).samples.mean())) < 1e-4
    np.testing.assert_allclose(scaled.samples, SoundEncoder.read(folder).encode(sounds()).samples, atol=1e-3)
    (folder / PREPROCESSOR_FILE).unlink()
    (folder / "processor_config.json").write_text(
        json.dumps({"feature_extractor": {**PROCESSOR, "do_normalize": False, "sampling_rate": 8000}})
    )
    encoder = SoundEncoder.read(folder)
    assert encoder.rate == 8000
    np.testing.assert_array_equal(encoder.encode(loud).take([1]).samples, loud[1])
    assert len(encoder.encode([np.zeros(7, np.float32)]).samples) == encoder.least == 400
    encoder.save(folder)
    assert SoundEncoder.read(folder) == encoder


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers_alone_and_together(name: str, tmp_path: Path) -> None:
    transcriber = Transcriber.open(published(name, tmp_path / name))
    together = transcriber.logits(sounds())
    for sound, logits, expected in zip(sounds(), together, EXPECTED[name]["sounds"]):
        np.testing.assert_allclose(logits, expected["logits"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(transcriber.logits([sound])[0], logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("frames", "expected"), zip(FRAMES, EXPECTED["spelled"]))
def test_words_and_their_frames_are_those_of_transformers(
    frames: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    letters = Letters.read(published("wav2vec2", tmp_path / "model"))
    words = [*letters.words(LETTERS.index(one) for one in frames.split())]
    assert [[word[1:], first, last] for word, first, last in words] == expected["words"]
    assert "".join(word for word, _, _ in words).strip() == expected["text"]


def test_scripts_without_spaces_have_a_place_for_each_character() -> None:
    letters = Letters({1: "|", 2: "你", 3: "好", 4: "A", 5: "B"}, 0)
    assert [*letters.words([2, 2, 0, 3, 4, 5, 5, 1])] == [(" 你", 0, 2), ("好", 3, 4), ("AB", 4, 7)]


def test_a_long_recording_is_spelled_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transcriber = Transcriber.open(published("wav2vec2_large", tmp_path / "model"))
    rng = np.random.default_rng(1)
    samples = (0.1 * rng.standard_normal(45 * 16000)).astype(np.float32)
    seen, logits = list[int](), transcriber.logits

    def counted(given: list[np.ndarray]) -> list[np.ndarray]:
        seen.append(len(given[0]) // 16000)
        return logits(given)

    monkeypatch.setattr(transcriber, "logits", counted)
    words = [*transcriber.words(samples)]
    assert seen == [22, 24, 7]
    assert 40 < words[-1][2] <= 45 and [*words] == sorted(words, key=lambda one: one[1])
    assert [*transcriber.words(np.zeros(16000, np.float32))] == [*transcriber.words(np.zeros(7, np.float32))] == []


@pytest.mark.parametrize(
    ("file", "settings", "problem"),
    [
        ("vocab.json", {}, "no ids of letters"),
        ("vocab.json", {"eng": {"A": 0}}, "no ids of letters"),
        ("vocab.json", {"A": 0}, "has no '<pad>'"),
        ("vocab.json", {"<pad>": 0, "A": 12}, "more letters than the model"),
        ("tokenizer_config.json", {"target_lang": "eng"}, "target_lang is 'eng'"),
        ("tokenizer_config.json", {"pad_token": {"content": "[PAD]"}}, "no '\\[PAD\\]'"),
    ],
)
def test_models_that_spell_nothing_are_refused(
    file: str, settings: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    folder = published("wav2vec2", tmp_path / "model")
    (folder / file).write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=problem):
        Transcriber.open(folder)


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    folder = published("wav2vec2", tmp_path / "model")
    arrays = load_file(folder / "model.safetensors")
    save_file({key: array for key, array in arrays.items() if "lm_head" not in key}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="no lm_head"):
        Transcriber.open(folder)


def wav(samples: np.ndarray, rate: int = 16_000) -> bytes:
    """Return a WAV file of 16 bits a sample, of one channel or several, `[samples, channels]`."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return stream.getvalue()


def test_the_reader_of_speech_takes_such_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("soundfile", reason="needs: pip install 'paddle-ranker[sound]'")
    monkeypatch.setenv(MODEL_VARIABLE, str(published("wav2vec2_large", tmp_path / "model")))
    rng = np.random.default_rng(2)
    (tmp_path / "talk.wav").write_bytes(wav(0.1 * rng.standard_normal(32_000)))
    [part] = READERS["speech"].read(tmp_path / "talk.wav")
    assert isinstance(part, Part) and part.text and part.places
    for start, end, begin, finish in part.places:
        assert part.text[int(start) : int(end)].strip() and 0 <= begin < finish <= 2.0
    (tmp_path / "silence.wav").write_bytes(wav(np.zeros(32_000)))
    silent = Part("", "", {"first_second": 0.0, "last_second": 2.0})
    assert [*READERS["speech"].read(tmp_path / "silence.wav")] == [silent]
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "sampling_rate": 8000}))
    with pytest.raises(CheckpointError, match="sampling_rate is 8000"):
        Transcriber.open(tmp_path / "model")
