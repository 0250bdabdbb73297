"""Prepare the training of a masked language model: make or load the tokenizer, the network and the sequences."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paddle_ranker.data.rows.overlap import overlap_warning
from paddle_ranker.encoding.batching import permuted
from paddle_ranker.encoding.tokenizers.builtin import CONTINUATION
from paddle_ranker.encoding.tokenizers.text_rules import WordSplitter
from paddle_ranker.encoding.tokenizers.tokenizer_folder import VOCABULARY_FILE, TokenizerFiles
from paddle_ranker.errors import CheckpointError, DataError, UsageError, spelling_hint
from paddle_ranker.model.config import EncoderConfig, require_tokenizer_fits
from paddle_ranker.model.encoder_loading import read_checkpoint
from paddle_ranker.model.families import config_from, write_config
from paddle_ranker.model.model_folder import ENCODER, identify
from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays
from paddle_ranker.model.pretrained import resolve_model
from paddle_ranker.storage.digest import content_digest, warn_of_same_data
from paddle_ranker.training.run import Description, Start, start_run
from pretraining.corpus import Corpus
from pretraining.examples import Masking
from pretraining.mlm_options import TrainMlmOptions
from pretraining.model import MaskedLanguageModel, MaskedLm, masked_lm_of, wordpiece
from pretraining.packing import Sequences, pack
from pretraining.token_store import TokenStore, tokenised

INFO_FILE = "pretraining.json"
# Layers and width; all shapes have twelve heads, and a feed-forward part of four times the width.
SHAPES = {"nano": (4, 312), "micro": (4, 384), "mini": (6, 384), "medium": (6, 768), "base": (12, 768)}
POSITIONS = 512
_MOST_UNKNOWN = 0.05  # maximum share of unknown tokens without a warning


def save_mlm(folder: Path, model: MaskedLm, description: Description) -> None:
    """Write a checkpoint into an existing folder; `--model_name_or_path` accepts it as an encoder.

    Args:
        description: the record of the training, from `TrainingRun.describe`.
    """
    save_arrays(model.network.state_dict(), folder / PARAMETERS_FILE)
    model.tokenizer.write(folder)
    write_config(folder, model.network.config)
    (folder / INFO_FILE).write_text(json.dumps(description, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def start_mlm(options: TrainMlmOptions) -> Start[MaskedLm]:
    """Select the device, seed everything, and make or load the network.

    Raises `CheckpointError` if the tokenizer is not the checkpoint's, `UsageError` if sequences are longer than the
    network's positions.
    """
    run = start_run(options)
    source = run.resumed.model if run.resumed else resolve_model(options.init_from) if options.init_from else None
    model = _from_nothing(options) if source is None else _from_checkpoint(source, options)
    network, special = model.network, model.tokenizer.special_tokens
    if options.max_seq_length > network.config.longest_pair:
        raise UsageError(
            f"--max_seq_length {options.max_seq_length}: the model has {network.config.longest_pair} positions; give "
            "at most that, or a configuration with a larger max_position_embeddings"
        )
    if options.packing == "pack" and options.attention == "document":
        network.separator = model.tokenizer.token_to_id[special["sep_token"]]
    network.encoder.gradient_checkpointing = options.gradient_checkpointing
    if options.init_from and not run.resumed:
        run.report(f"start from {source}" + (f"; new: {', '.join(model.new_parts)}" if model.new_parts else ""))
    return Start(run, model, dict.fromkeys(model.new_parts, options.new_parts_factor))


def _from_checkpoint(source: Path, options: TrainMlmOptions) -> MaskedLm:
    folder = source.parent if source.is_file() else source
    identify(folder).require_parameters(ENCODER)
    checkpoint = read_checkpoint(folder)
    tokenizer, config = wordpiece(checkpoint.tokenizer(), folder), checkpoint.config
    if options.tokenizer is not None:
        _require_same(TokenizerFiles.read(_folder(options.tokenizer)), tokenizer, options.tokenizer, folder)
    require_fit(tokenizer, config, folder)
    return masked_lm_of(checkpoint, folder, model_config=_with_dropout(config, options), need_head=False)


def _from_nothing(options: TrainMlmOptions) -> MaskedLm:
    if options.tokenizer is None:
        raise UsageError(f"{options.save_dir} holds no run to resume: give --tokenizer to begin one")
    tokenizer = TokenizerFiles.read(_folder(options.tokenizer))
    pad_id = tokenizer.token_to_id[tokenizer.special_tokens["pad_token"]]
    config = config_named(options.config, tokenizer.vocab_size, pad_id, options.model_type)
    config = dataclasses.replace(config, normalize_before=options.normalize_before or config.normalize_before)
    return MaskedLm(MaskedLanguageModel(_with_dropout(config, options)), tokenizer, [])


def config_named(name: str, vocab_size: int, pad_id: int, model_type: str) -> EncoderConfig:
    """Return the configuration of a shape in `SHAPES`, or of a JSON file with fields of `config.json`.

    The vocabulary's size and the padding's id are the tokenizer's; the file's `model_type`, if any, takes precedence.

    Raises `UsageError` for an unknown name, `CheckpointError` if the file is not a configuration.
    """
    if name in SHAPES:
        layers, size = SHAPES[name]
        config = EncoderConfig(
            vocab_size=vocab_size,
            hidden_size=size,
            num_hidden_layers=layers,
            intermediate_size=4 * size,
            max_position_embeddings=POSITIONS,
        )
        return dataclasses.replace(config, pad_token_id=pad_id, model_type=model_type)
    path = Path(name)
    if not path.is_file():
        hint = spelling_hint(name, list(SHAPES))
        raise UsageError(f"--config {name}: choose from {', '.join(SHAPES)}, or name an existing JSON file{hint}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        fields = {field.name for field in dataclasses.fields(EncoderConfig)} | {"architectures"}
        unknown = sorted(set(values) - fields)
        if unknown:
            raise ValueError(f"unknown {', '.join(unknown[:3])}")
        described = {"model_type": model_type, **values, "vocab_size": vocab_size, "pad_token_id": pad_id}
        return config_from(described)
    except (ValueError, TypeError, AttributeError, ZeroDivisionError, CheckpointError) as error:
        raise CheckpointError(f"{path}: not a usable configuration ({error})") from error


def _folder(name: str) -> Path:
    path = Path(name)
    return path.parent if path.name == VOCABULARY_FILE else path


def _with_dropout(config: EncoderConfig, options: TrainMlmOptions) -> EncoderConfig:
    if options.dropout is None:
        return config
    return dataclasses.replace(
        config, hidden_dropout_prob=options.dropout, attention_probs_dropout_prob=options.dropout
    )


def _require_same(chosen: TokenizerFiles, expected: TokenizerFiles, name: str, folder: Path) -> None:
    if chosen.token_to_id == expected.token_to_id and chosen.rules.split_like(expected.rules):
        return
    where = "splits text by other rules" if chosen.token_to_id == expected.token_to_id else (
        f"has {chosen.vocab_size} word pieces, {folder} has {expected.vocab_size}"
        if chosen.vocab_size != expected.vocab_size
        else "gives other ids to the same pieces, or has others"
    )  # fmt: skip
    raise CheckpointError(
        f"--tokenizer {name} is not the tokenizer of {folder}: it {where}; an encoder keeps the word pieces it "
        "was trained with: leave --tokenizer out"
    )


def require_fit(tokenizer: TokenizerFiles, config: EncoderConfig, folder: Path) -> None:
    """Raise `CheckpointError` if the tokenizer of a folder does not belong to its model."""
    pad_id = tokenizer.token_to_id[tokenizer.special_tokens["pad_token"]]
    try:
        require_tokenizer_fits(tokenizer.vocab_size, pad_id, config)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error


@dataclass(frozen=True)
class MlmData:
    """Training and evaluation sequences; `content` holds digests of the files, `facts` counts for reports."""

    train: Sequences
    held_out: Sequences
    content: dict[str, Any]
    facts: dict[str, Any]


def open_data(options: TrainMlmOptions, tokenizer: TokenizerFiles) -> MlmData:
    """Tokenize the files, or reuse the tokens of an earlier run, and make the sequences.

    Raises `DataError` if files are missing, empty or not UTF-8, or too small to hold out a document.
    """
    cache = Path(options.cache_dir or Path(options.save_dir) / "corpus")

    def tokens(files: tuple[str, ...]) -> tuple[list[str], TokenStore]:
        corpus = Corpus(files, options.documents, options.skip_bad_rows)
        digests = [content_digest(file) for file in files]
        return digests, tokenised(corpus, digests, tokenizer, cache, options.whole_word_mask)

    content: dict[str, Any] = {}
    content["train_files"], store = tokens(options.train_files)
    order = permuted(np.arange(len(store)), len(store), (options.seed, 0))
    if options.eval_files:
        warn_of_same_data(options, "train_files", "eval_files")
        content["eval_files"], eval_store = tokens(options.eval_files)
        held = permuted(np.arange(len(eval_store)), len(eval_store), (options.seed, 0))
    else:
        if len(store) < 2:
            raise DataError(
                f"{options.train_files[0]}: one document, of which none can be held out; give --test, or state "
                "with --documents what separates the documents"
            )
        count = min(len(store) - 1, max(1, round(options.eval_share * len(store))))
        eval_store, held, order = store, order[:count], order[count:]
    cls_id, sep_id, pad_id = (
        tokenizer.token_to_id[tokenizer.special_tokens[f"{n}_token"]] for n in ("cls", "sep", "pad")
    )
    train, held_out = (
        pack(s, documents, options.max_seq_length, (cls_id, sep_id, pad_id), packing=options.packing)
        for s, documents in ((store, order), (eval_store, held))
    )
    facts = {
        "documents": len(order),
        "tokens": int(train.piece_lengths.sum(dtype=np.int64)),
        "sequences": len(train),
        "held_out_documents": len(held),
        "held_out_tokens": int(held_out.piece_lengths.sum(dtype=np.int64)),
        "held_out_repeated": _repeated(eval_store, held, store, order),
        "unknown_share": store.facts["unknown"] / store.facts["tokens"],
        "words": store.facts["words"],
        "skipped": list(dict.fromkeys(s.facts["files"] for s in (store, eval_store) if s.facts["skipped"])),
    }
    return MlmData(train, held_out, content, facts)


def _repeated(eval_store: TokenStore, held: np.ndarray, store: TokenStore, order: np.ndarray) -> int:
    """Count the held-out documents whose tokens equal those of a training document."""
    wanted = list(eval_store.hashes(held))
    sizes = np.unique(np.diff(eval_store.offsets)[held])
    alike = np.isin(np.diff(store.offsets)[order], sizes)
    repeated = set(wanted).intersection(store.hashes(order[alike]))
    return sum(number in repeated for number in wanted)


def describe_data(data: MlmData, options: TrainMlmOptions, network: MaskedLanguageModel) -> str:
    """Return lines that describe the data and the network, with warnings."""
    facts = data.facts
    layers = sum(p.size for p in network.encoder.encoder.parameters())
    parameters = sum(int(np.prod(t.shape)) for t in network.state_dict().values())
    full = data.train.all_lengths.sum(dtype=np.int64) / (len(data.train) * options.max_seq_length)
    lines = [
        f"{facts['documents']:,} documents, {facts['tokens']:,} tokens in {facts['sequences']:,} sequences, "
        f"{full:.0%} full; held out: {facts['held_out_documents']:,} documents, {facts['held_out_tokens']:,} tokens",
        f"{parameters:,} parameters, {layers:,} of them in {network.config.num_hidden_layers} layers",
        *(f"read {report}" for report in facts["skipped"]),
    ]
    if facts["held_out_repeated"]:
        lines.append(overlap_warning("documents", facts["held_out_repeated"], facts["held_out_documents"]))
    if facts["unknown_share"] > _MOST_UNKNOWN:
        lines.append(f"warning: {facts['unknown_share']:.1%} of the tokens are unknown to the tokenizer: is it theirs?")
    if options.whole_word_mask and facts["words"] != "jieba":
        lines.append("jieba is not installed: ideographs are masked one by one (pip install jieba)")
    return "\n".join(lines)


def make_masking(options: TrainMlmOptions, tokenizer: TokenizerFiles) -> Masking:
    """Return the `Masking` of the options; raises `CheckpointError` if the tokenizer has no mask token."""
    token = tokenizer.special_tokens["mask_token"]
    if token not in tokenizer.token_to_id:
        raise CheckpointError(f"the vocabulary has no {token} (the mask_token): add it, or use another tokenizer")
    return Masking(
        options.mlm_probability,
        mask_id=tokenizer.token_to_id[token],
        special_ids=special_ids(tokenizer),
        vocab_size=tokenizer.vocab_size,
        whole_words=options.whole_word_mask,
        seed=options.seed,
    )


def special_ids(tokenizer: TokenizerFiles) -> list[int]:
    """Return the ids of [UNK] and of special and reserved tokens, which occur in no tokenized text."""
    splitter = WordSplitter(tokenizer.rules)
    ordinary = set()
    for token, token_id in tokenizer.token_to_id.items():
        text = token[len(CONTINUATION) :] if token.startswith(CONTINUATION) else token
        if splitter.split(text) == [text]:
            ordinary.add(token_id)
    ordinary -= {tokenizer.token_to_id.get(token, -1) for token in tokenizer.special_tokens.values()}
    if not ordinary:
        raise CheckpointError("the vocabulary holds no word piece that a text could give: use another tokenizer")
    return sorted(set(range(tokenizer.vocab_size)) - ordinary)
