"""Convert a checkpoint of transformers or sentence-transformers to a folder of this toolkit, or the other way.

paddle-ranker convert HF_FOLDER encoder
paddle-ranker convert checkpoint/best HF_FOLDER --to hf
paddle-ranker convert checkpoint/best ADAPTER --to peft
paddle-ranker convert ANY_ENCODER tower --to tower --pooling mean
paddle-ranker convert tower ST_FOLDER --to sentence-transformers
paddle-ranker convert STATIC_MODEL ranker --model_name_or_path ernie-1.0
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker import runtime
from paddle_ranker.commands.info import describe_encoder
from paddle_ranker.encoding.columns import PICTURE, TEXT
from paddle_ranker.errors import CheckpointError, RankerError, UsageError, listed, quoted
from paddle_ranker.model.config import ENCODER_PREFIX
from paddle_ranker.model.encoders.qwen3 import Qwen3Config
from paddle_ranker.model.foreign.foreign_files import GraphFiles, find_graph, require_static
from paddle_ranker.model.load_options import POOLINGS
from paddle_ranker.model.model_folder import MEMBER, TRAINED_TOWER, identify
from paddle_ranker.model.model_kind import TRAINED
from paddle_ranker.model.model_options import HeadOptions, TokenizerOptions
from paddle_ranker.model.tower import QUERY_FOLDER, TowerInfo, texts_of
from paddle_ranker.options import main_of, note, option
from paddle_ranker.options.declare import ANY_TEXT, FETCHED_FOLDER, redeclare

if TYPE_CHECKING:
    from paddle import Tensor

    from paddle_ranker.model.tower_network import TowerModel

_ANY_LENGTH = 16
_PROOF, _EQUAL = 100, 1e-5  # texts that a converted static model must score alike, and how closely
_TOWERS = ("tower", "sentence-transformers")
_THEIRS = ("hf", "peft")


@dataclass(frozen=True)
class ConvertOptions(HeadOptions, TokenizerOptions):
    source: str = option(
        positional=True,
        help="folder to convert: from Hugging Face; with --to hf or peft, of this toolkit; otherwise any encoder, or "
        "its name",
        addresses=FETCHED_FOLDER,
    )
    target: str = option(positional=True, help="folder to make; it must not exist")
    to: str = option(
        "paddle",
        help="paddle: a model folder of this toolkit; hf: a folder for transformers; peft: an adapter for peft, of a "
        "model that was trained with --lora_rank; tower: a tower of this toolkit; sentence-transformers: a folder for "
        "that library",
        choices=("paddle", *_THEIRS, *_TOWERS),
    )
    pooling: Optional[str] = option(
        None,
        help="with --to tower or sentence-transformers: pooling, if the folder does not state it",
        choices=POOLINGS,
    )
    normalize: Optional[bool] = option(None, help="likewise: scale vectors to length 1 (default: as the folder states)")
    query_prompt: Optional[str] = option(
        None,
        help='likewise, and of rankers: text that precedes every query, such as "query: "; of Qwen3\'s rerankers, the '
        "instruction (default: as the folder states)",
        addresses=ANY_TEXT,
    )
    text_prompt: Optional[str] = option(
        None,
        help='likewise: text that precedes all other texts, such as "passage: " (default: as the folder states)',
        addresses=ANY_TEXT,
    )
    lowercase: bool = option(
        False,
        help="with --to paddle or tower: lowercase texts before they are split into word pieces; for models such as "
        "m3e-small, whose vocabulary has only small letters although the tokenizer keeps capitals",
    )
    special_tokens_in_texts: bool = option(
        False,
        help="with --to paddle or tower: give special tokens that stand in texts, such as [SEP] or a model's own "
        "[TITLE], their ids, as transformers does; for models whose texts are made of them, not for texts of strangers",
    )
    drop_match_embeddings: bool = option(
        False,
        help="with --to hf or peft: drop match embeddings, which transformers lacks; this changes the scores",
    )
    model_name_or_path: Optional[str] = redeclare(
        TokenizerOptions,
        "model_name_or_path",
        help="with --to peft: transformers' model that the training started from, a name or a folder (default: as the "
        "training was given it); of another program's static model: the model whose tokenizer and architecture it has",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drop_match_embeddings and self.to not in _THEIRS:
            raise UsageError("--drop_match_embeddings belongs to --to hf or peft: drop it, or add that")
        for name in ("lowercase", "special_tokens_in_texts"):
            if getattr(self, name) and self.to not in ("paddle", "tower"):
                raise UsageError(f"--{name} belongs to --to paddle or tower: drop it, or add that")
        if self.positive_label is not None and self.to != "paddle":
            raise UsageError("--positive_label belongs to --to paddle: drop it, or add that")
        if self.query_prompt is not None and self.to in _THEIRS:
            raise UsageError(f"--query_prompt belongs to other values of --to than {self.to}: drop it, or name one")
        for name in ("pooling", "normalize", "text_prompt"):
            if getattr(self, name) is not None and self.to not in _TOWERS:
                raise UsageError(f"--{name} belongs to --to {' or '.join(_TOWERS)}: drop it, or add that")


def convert(options: ConvertOptions) -> list[str]:
    """Convert a folder and return the lines of a report. The new folder is written atomically.

    Raises `CheckpointError` if the source is missing, damaged or malicious, or if the other format cannot represent
    it. Raises `RankerError` if the target exists already, and `UsageError` for an option that the model does not take.
    """
    from paddle_ranker.model.pretrained import find_model, resolve_model
    from paddle_ranker.storage.atomic import make_folder, new_folder, remove_unfinished

    is_tower, target = options.to in _TOWERS, Path(options.target)
    graph = find_graph(Path(options.source))
    if options.to != "peft":
        require_static(options.model_name_or_path, options.source)
    if graph is not None:
        return _of_static(graph, target, options)
    source = resolve_model(options.source) if is_tower else find_model(options.source)
    model = identify(source)
    source = model.path
    if not is_tower and not source.is_dir():
        raise model.refusal("the folder of a model")
    if target.exists() or target.is_symlink():
        raise RankerError(f"{target}: is there already; choose another TARGET, or remove it")
    runtime.prepare()
    runtime.select_device("cpu")
    from paddle_ranker.model.tower import INFO_FILE

    remove_unfinished(make_folder(target.parent))
    with new_folder(target) as temporary, _source_named(temporary, source):
        if model.reads != TEXT:
            lines = _convert_files(source, temporary, options, model.reads)
        elif options.to == "paddle":
            lines = _to_paddle(source, temporary, options)
        elif options.to == "tower":
            lines = _to_tower(source, temporary, options)
        elif options.to in _TOWERS or (source / INFO_FILE).is_file():
            lines = _to_sentences(source, temporary, options)
        else:
            lines = _to_hf(source, temporary, options)
        if options.to == "peft":
            lines = _to_peft(source, temporary, options) + lines[1:]
        lines += _texts(source, temporary, options) if model.reads == TEXT else []
    return [line.replace("TARGET", str(target)) for line in lines]


def _of_static(graph: GraphFiles, target: Path, options: ConvertOptions) -> list[str]:
    """Make a ranker or tower that trains on of another program's static model; return lines for the report.

    Raises `CheckpointError` if the parameters are not those of the named architecture, or both do not score alike.
    """
    from paddle_ranker.model.encoder_loading import config_of_shape, read_checkpoint
    from paddle_ranker.model.families import write_config
    from paddle_ranker.model.foreign.foreign_export import as_export, published_arrays, stated_config
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.model.model_folder import load_model
    from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays
    from paddle_ranker.model.ranker_folder import RankerModel, save_ranker
    from paddle_ranker.storage.atomic import make_folder, new_folder, remove_unfinished

    if graph.is_onnx:
        raise CheckpointError(
            f"{graph.program}: an ONNX file is scored, served and searched with as it is, and no model is made of it: "
            "give the checkpoint, or the static model of Paddle"
        )
    if options.to != "paddle":
        raise UsageError(f"--to {options.to}: {graph.program} becomes a model of this toolkit first; leave --to out")
    if target.exists() or target.is_symlink():
        raise RankerError(f"{target}: is there already; choose another TARGET, or remove it")
    export = as_export(graph.program, options.model_name_or_path)  # prepares Paddle
    from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
    from paddle_ranker.model.foreign.static_program import read_program, static_mode

    with static_mode():
        published = published_arrays(read_program(*graph))
    named = options.model_name_or_path or str(graph.home)
    config = stated_config(named) or config_of_shape(graph.program, published.arrays)
    remove_unfinished(make_folder(target.parent))
    with new_folder(target) as temporary, tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        save_arrays(published.arrays, source / PARAMETERS_FILE)
        write_config(source, config)
        read_tokenizer(export).write(source)
        with _source_named(source, graph.program):
            read_checkpoint(source)
            if published.is_tower:
                info = TowerInfo.read(export)
                assert info is not None
                pooling = "pooler" if published.has_pooler else options.pooling or "first"
                how = dataclasses.replace(options, to="tower", pooling=pooling, normalize=info.normalize)
                lines = _to_tower(source, temporary, how)
            else:
                model = load_model(source, MEMBER, LoadOptions())
                assert isinstance(model, RankerModel)
                training: dict[str, object] = {"converted from": str(graph.program)}
                ranker = dataclasses.replace(model.info, training=training)
                save_ranker(temporary, model.network, model.row_encoder, ranker)
                lines = [f"TARGET: a ranker, {describe_encoder(config)}, pairs of up to {ranker.max_seq_length} tokens"]
        difference = _proved(graph.program, export, temporary, is_tower=published.is_tower)
    lines.append(f"scores of the static model and of TARGET on {_PROOF} texts: largest difference {difference:.1e}")
    return [line.replace("TARGET", str(target)) for line in lines]


def _proved(program: Path, export: Path, made: Path, *, is_tower: bool) -> float:
    """Return the largest difference between what two models compute of the same texts.

    Raises `CheckpointError`, with the first text, if it is above `_EQUAL`.
    """
    import numpy as np

    from paddle_ranker.model.load_options import ON_CPU
    from paddle_ranker.retrieval.vectors.text_vectors import Tower
    from paddle_ranker.scoring.ranker import Ranker

    if is_tower:
        towers = [Tower.open(folder, ON_CPU) for folder in (export, made)]
        queries = titles = _sample_texts(texts_of(towers[0].encoder).tokens.words())
        computed = [tower.vectors(titles) for tower in towers]
    else:
        rankers = [Ranker.load(folder, device="cpu") for folder in (export, made)]
        titles = _sample_texts(rankers[0].row_encoder.members[0].words())
        queries = [title[: 2 + len(title) // 3] for title in titles]
        computed = [np.array(ranker.score(queries, titles))[:, None] for ranker in rankers]
    differences = np.abs(computed[0] - computed[1]).max(1)
    if not differences.max() <= _EQUAL:
        first = int(np.argmax(~(differences <= _EQUAL)))
        raise CheckpointError(
            f"{program}: its parameters in the network of the named model compute something else: the text "
            f"{quoted(titles[first])} (number {first + 1} of {_PROOF}) differs by {differences[first]:.1e}, more than "
            f"{_EQUAL:.0e}; name the model that it was trained from, or use the static model as it is"
        )
    return float(differences.max())


def _sample_texts(words: Sequence[str]) -> list[str]:
    import numpy as np

    random = np.random.default_rng(0)
    lengths = random.permutation(np.geomspace(1, 100, _PROOF).astype(int))
    return [" ".join(random.choice(np.array(words), length)) for length in lengths]


def _convert_files(source: Path, temporary: Path, options: ConvertOptions, reads: str) -> list[str]:
    """Convert a model for pictures or sounds together with its text tower; return lines for the report.

    The result is a tower of this toolkit (`--to paddle` or `tower`), or a folder for transformers (`--to hf`).

    reads: input of the model: picture or sound
    """
    from paddle_ranker.model.hugging_face.published_towers import write_published

    for name in ("pooling", "query_prompt", "text_prompt", "positive_label", "lowercase", "special_tokens_in_texts"):
        if getattr(options, name):
            raise UsageError(f"--{name}: {options.source} reads {reads}s; leave it out")
    if options.to in ("paddle", "tower"):
        return _to_tower(source, temporary, options)
    if options.to != "hf":
        remedy = "that sentence-transformers reads" if reads == PICTURE else "for transformers"
        raise CheckpointError(f"{source}: reads {reads}s; --to hf writes the folder {remedy}")
    identify(source).require(TRAINED_TOWER)
    info = TowerInfo.read(source)
    scaled = "; vectors there are not 1 long: normalise them" if info and info.normalize else ""
    scale = ", with a new logit_scale" if info and info.towers == 2 else ""
    return [f"TARGET: for transformers' {write_published(source, temporary)}{scale}{scaled}"]


@contextmanager
def _source_named(temporary: Path, source: Path) -> Iterator[None]:
    """In errors that the block raises, replace the temporary folder's name by the source's name."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(temporary), str(source))) from error


def _texts(source: Path, temporary: Path, options: ConvertOptions) -> list[str]:
    """Make the new folder's tokenizer read texts as the options ask; return lines for the report.

    If `lowercase` is not set, and the tokenizer maps words with capital letters to [UNK], a line is a warning.
    """
    from paddle_ranker.encoding.pair_encoder import LOST_CAPITALS, PairEncoder
    from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer

    if options.to not in ("paddle", "tower"):
        return []
    lines = []
    for folder in (temporary, temporary / QUERY_FOLDER):
        if not folder.is_dir():
            continue
        files = read_tokenizer(folder)
        if options.lowercase:
            files = files.in_small_letters()
            lines.append("capital letters are made small")
        elif PairEncoder(files, _ANY_LENGTH).loses_capitals:
            lines.append(LOST_CAPITALS.replace("MODEL", str(source)))
        if options.special_tokens_in_texts:
            files = files.with_special_tokens_in_texts()
            lines.append(f"special tokens in texts get their ids: {listed(files.markers)}")
        if options.lowercase or options.special_tokens_in_texts:
            files.write(folder)
    return [*dict.fromkeys(lines)]


def _to_paddle(source: Path, temporary: Path, options: ConvertOptions) -> list[str]:
    from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
    from paddle_ranker.model.checkpoint_names import name_parameters
    from paddle_ranker.model.encoder_loading import ranker_of
    from paddle_ranker.model.families import family_of, pair_encoder_of, write_config
    from paddle_ranker.model.hugging_face.adapter_folders import find_encoder
    from paddle_ranker.model.hugging_face.folder import for_label, read_model
    from paddle_ranker.model.hugging_face.library_tokenizer import stated_length
    from paddle_ranker.model.hugging_face.sentences import read_reranker
    from paddle_ranker.model.hugging_face.weights import parameters_file
    from paddle_ranker.model.info import RankerInfo
    from paddle_ranker.model.masked_lm import masked_lm_head
    from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays
    from paddle_ranker.model.ranker_folder import save_ranker

    folder, paddles = find_encoder(source), parameters_file(source)
    if paddles is not None and paddles.name != PARAMETERS_FILE:
        return _of_paddlenlp(source, temporary, options)
    if folder is None:
        if paddles is not None:
            raise CheckpointError(f"{source}: is a Paddle model folder already; --to hf converts it for transformers")
        raise identify(source).refusal("a model of transformers", "no model.safetensors and no pytorch_model.bin")
    model, reranker = read_model(folder), read_reranker(source)
    named, has_head = name_parameters(model.arrays), model.has_head
    if reranker is not None and reranker.has_head:
        named, has_head = {name: named[name] for name in named if name.startswith(ENCODER_PREFIX)}, True
        named.update(reranker.arrays)
    family = family_of(model.config.model_type)
    family.bring_tokenizer(folder, temporary)
    length = min(stated_length(folder), model.config.longest_pair)
    hub_prompt = reranker.info.query_prompt if reranker is not None else ""
    query_prompt = options.query_prompt if options.query_prompt is not None else hub_prompt
    pair_encoder = pair_encoder_of(read_tokenizer(temporary), model.config, length, query_prompt)
    if reranker is None or not reranker.has_head:
        named.update(for_label({}, model.arrays, model.head, options.positive_label, folder / model.file))
    try:
        hub_info = reranker.info if reranker is not None else None
        network, new_parts = ranker_of(model.config, named, allow_new=not has_head, info=hub_info)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / model.file}: {error}") from error
    facts = describe_encoder(model.config)
    if has_head:
        # A ranker of ours that was converted to transformers gets its former info back.
        info = RankerInfo.read(folder) or RankerInfo("cross_encoder", length, match_embeddings=False)
        if hub_info is not None:
            info = dataclasses.replace(info, query_prompt=query_prompt, pooling=hub_info.pooling, steps=hub_info.steps)
        elif options.query_prompt is not None:
            info = dataclasses.replace(info, query_prompt=query_prompt)
        training = info.training or {"converted from": source.resolve().name}
        info = dataclasses.replace(info, max_seq_length=length, match_embeddings=False, training=training)
        save_ranker(temporary, network, pair_encoder, info)
        lines = [f"TARGET: a ranker, {facts}, pairs of up to {length} tokens"]
    elif options.query_prompt is not None:
        raise UsageError(f"--query_prompt belongs to rankers and towers, {source} is an encoder: drop it")
    else:
        state = network.encoder.state_dict()
        if "encoder.pooler.dense" in new_parts:  # A random head must not look trained.
            state = {name: value for name, value in state.items() if not name.startswith("pooler.")}
        write_config(temporary, model.config)
        head = masked_lm_head(model.arrays)
        # All as arrays: paddle.save writes tensors beside arrays in a form that is not read back.
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        save_arrays({**arrays, **head}, temporary / PARAMETERS_FILE)
        pooler = (
            "" if len(state) == len(network.encoder.state_dict()) else "; it has no pooler, which training will add"
        )
        lines = [f"TARGET: an encoder without a ranking head, {facts}: start a training from it{pooler}"]
        if head:
            lines.append(
                "with the head of a masked language model: paddle-ranker fill-mask and pretrain use it as --model"
            )
    if model.left_over:
        more = f" and {len(model.left_over) - 3} more" if len(model.left_over) > 3 else ""
        lines.append(f"left out, since a ranker has no use for them: {', '.join(model.left_over[:3])}{more}")
    return lines


def _of_paddlenlp(source: Path, temporary: Path, options: ConvertOptions) -> list[str]:
    """Write the safetensors of PaddleNLP as a folder of this toolkit; return lines for the report."""
    from paddle_ranker.model.families import write_config
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.model.model_folder import load_encoder, load_model
    from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays
    from paddle_ranker.model.ranker_folder import RankerModel, save_ranker

    if MEMBER.fits(identify(source)):
        model = load_model(source, MEMBER, LoadOptions(positive_label=options.positive_label))
        assert isinstance(model, RankerModel)
        info = model.info
        if options.query_prompt is not None:
            info = dataclasses.replace(info, query_prompt=options.query_prompt)
        save_ranker(temporary, model.network, model.row_encoder, info)
        facts, what = describe_encoder(model.network.config), f", pairs of up to {info.max_seq_length} tokens"
        return [f"TARGET: a ranker, {facts}{what}"]
    if identify(source).is_tower:
        return _to_tower(source, temporary, options)
    for name in ("query_prompt", "positive_label"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} belongs to rankers and towers, {source} is an encoder: drop it")
    loaded = load_encoder(source)
    loaded.tokenizer.write(temporary)
    write_config(temporary, loaded.config)
    random = tuple(part.replace("encoder.", "", 1) for part in loaded.new_parts)  # must not look trained
    state = loaded.network.state_dict().items()
    save_arrays({name: value for name, value in state if not name.startswith(random)}, temporary / PARAMETERS_FILE)
    return [f"TARGET: an encoder without a ranking head, {describe_encoder(loaded.config)}: start a training from it"]


def _to_hf(source: Path, temporary: Path, options: ConvertOptions) -> list[str]:
    from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
    from paddle_ranker.metrics.calibration import with_bias
    from paddle_ranker.model.checkpoint_names import name_parameters
    from paddle_ranker.model.encoder_loading import ranker_of
    from paddle_ranker.model.families import pair_encoder_of, read_config
    from paddle_ranker.model.hugging_face.adapter_folders import find_encoder
    from paddle_ranker.model.hugging_face.chat import write_template
    from paddle_ranker.model.hugging_face.folder import head_has_bias, parameters_to_write, write_model
    from paddle_ranker.model.hugging_face.sentences import write_prompt
    from paddle_ranker.model.hugging_face.tokenizer import write_tokenizer
    from paddle_ranker.model.hugging_face.weights import load_parameters, parameters_file
    from paddle_ranker.model.info import INFO_FILE, RankerInfo
    from paddle_ranker.model.masked_lm import masked_lm_head
    from paddle_ranker.model.parameters import PARAMETERS_FILE

    folder_type = identify(source)
    if find_encoder(source) is not None and folder_type.form != TRAINED:
        raise CheckpointError(f"{source}: has no {PARAMETERS_FILE}; it is a Hugging Face folder already")
    if folder_type.form != TRAINED or not (MEMBER.fits(folder_type) or folder_type.is_encoder):
        raise folder_type.refusal("a ranker or an encoder")
    config, info = read_config(source), RankerInfo.read(source)
    if info is not None and info.pooling:
        raise CheckpointError(
            f"{source}: pools the states of all tokens ({info.pooling}), which transformers' classifiers do not: it "
            "cannot be written"
        )
    if info is not None and info.stored_titles:
        raise CheckpointError(
            f"{source}: its encoder is split (--stored_titles {info.stored_titles}), which transformers' encoders are "
            "not: it cannot be written"
        )
    if config is None:
        raise CheckpointError(f"{source}: has no config.json, which says how its parameters are put together")
    try:
        arrays = load_parameters(parameters_file(source) or source / PARAMETERS_FILE)
        named = name_parameters(arrays)
        calibration, kept_calibration = info.calibration if info and "head.weight" in named else None, None
        if info is not None and "head.weight" in named and not head_has_bias(config):
            # The class has no place for a shift; the ranker's file, which is written beside it, has.
            kept_calibration = with_bias(calibration, float(named["head.bias"].item()))
            calibration, named["head.bias"] = None, 0 * named["head.bias"]
        if calibration:
            named["head.weight"], named["head.bias"] = calibration.fold(named["head.weight"], named["head.bias"])
        masked_lm = {} if "head.weight" in named else masked_lm_head(arrays)
        has_head, has_match = "head.weight" in named, "match_embeddings.weight" in named
        kept = parameters_to_write(named, config, drop_match_embeddings=options.drop_match_embeddings)
        network, new_parts = ranker_of(config, kept, allow_new=not has_head)
        length = info.max_seq_length if info else config.longest_pair
        pair_encoder_of(read_tokenizer(source), config, length)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    written = {name: state[name] for name in state if name.rpartition(".")[0] not in new_parts}
    architecture = write_model(temporary, {**written, **masked_lm}, config)
    with_types, prompt = config.type_vocab_size > 1, info.query_prompt if info else ""
    in_chat = has_head and isinstance(config, Qwen3Config) and bool(config.instruction)
    reads_markers = bool(masked_lm) or config.reads_markers or in_chat
    write_tokenizer(
        read_tokenizer(source), temporary, length, with_types=with_types, reads_markers=reads_markers, prompts=[prompt],
        class_name=config.tokenizer_class, more=config.tokenizer_settings,
    )  # fmt: skip
    if isinstance(config, Qwen3Config) and in_chat:
        write_template(temporary, prompt or config.instruction)
    if has_head and (in_chat or prompt):
        write_prompt(temporary, prompt, length, in_chat)
    changed = has_match and bool(named["match_embeddings.weight"].any())
    if has_head and info:  # Keep the ranker's kind and results, so that it can be converted back.
        training = {**info.training, "folded into the head": str(calibration)} if calibration else info.training
        results = {} if changed else info.results
        was = dataclasses.replace(info, results=results, training=training, calibration=kept_calibration)
        (temporary / INFO_FILE).write_text(was.to_json(), encoding="utf-8")
    lines = [f"TARGET: for transformers' {architecture}, {describe_encoder(config)}"]
    if calibration:
        lines.append(f"folded the calibration into the head: its sigmoid is what {calibration} was")
    if kept_calibration:
        lines.append(
            f"transformers' head has no bias: the order is the same, and the probability is {kept_calibration}, which "
            f"{INFO_FILE} keeps for this toolkit"
        )
    if has_match:
        lines.append(f"left out the match embeddings: {'the scores change' if changed else 'all zero, equal scores'}")
    return lines


def _to_peft(source: Path, temporary: Path, options: ConvertOptions) -> list[str]:
    """Replace the weights of a folder for transformers or sentence-transformers by an adapter of the training's base.

    The adapter is the difference of both, which is exact: `--lora_rank` adds matrices of that rank to a frozen encoder.
    """
    from paddle_ranker.model.info import RankerInfo

    tower = TowerInfo.read(source)
    info = tower or RankerInfo.read(source)
    training = info.training if info is not None else {}
    rank, stated = training.get("lora_rank"), training.get("init_from_ckpt") or training.get("model_name_or_path")
    if type(rank) is not int or rank < 1:
        raise CheckpointError(
            f"{source}: was not trained with --lora_rank, so that its difference from its base is no adapter: --to hf "
            "or sentence-transformers writes it whole"
        )
    base = options.model_name_or_path or str(stated or "")
    lines = [f"TARGET: {_write_adapter(temporary, base, rank, is_tower=tower is not None)}"]
    if tower is not None and tower.towers == 2:
        start = options.model_name_or_path or str(training.get("query_model") or stated or "")
        lines.append(f"TARGET/{QUERY_FOLDER}: {_write_adapter(temporary / QUERY_FOLDER, start, rank, is_tower=True)}")
    return lines


def _write_adapter(folder: Path, base: str, rank: int, *, is_tower: bool) -> str:
    """Replace the weights of a folder for transformers by an adapter of a base; return a description of it.

    base: transformers' model that the adapter belongs to, a name or a folder

    Raises `CheckpointError` if the base is not a model of transformers, or not the one that the weights came from.
    """
    import numpy as np

    from paddle_ranker.array_types import Array
    from paddle_ranker.model.checkpoint_names import name_parameters
    from paddle_ranker.model.families import family_of
    from paddle_ranker.model.hub import HubName
    from paddle_ranker.model.hugging_face.adapters import ADAPTER_FILE, ADAPTER_WEIGHTS, as_adapter
    from paddle_ranker.model.hugging_face.architectures import to_theirs
    from paddle_ranker.model.hugging_face.folder import find_transformers, read_model
    from paddle_ranker.model.hugging_face.weights import MERGED_FOLDER, WEIGHT_FILES, write_weights
    from paddle_ranker.model.pretrained import find_model
    from paddle_ranker.storage.atomic import write_json

    advice = "name transformers' model that the training started from: --model_name_or_path NAME_OR_FOLDER"
    found = find_model(base) if base else None
    encoder = find_transformers(found) if found is not None and found.is_dir() else None
    if encoder is None or (encoder / MERGED_FOLDER).is_dir():
        what = "is an adapter, too" if encoder is not None else "is no folder of transformers' weights"
        raise CheckpointError(
            f"{quoted(base)}, from which the training started, {what}, and peft needs such a base: {advice}, or "
            "FOLDER of paddle-ranker convert MODEL FOLDER --to hf, if MODEL is of this toolkit"
        )
    ours = read_model(folder)
    architecture = family_of(ours.config.model_type).architecture
    assert architecture is not None  # of a folder for transformers
    names, theirs = architecture.names, read_model(encoder)
    before, after = name_parameters(theirs.arrays), name_parameters(ours.arrays)
    replaced, changed = dict[str, Array](), list[str]()
    for name, array in after.items():
        layer = name.removeprefix(ENCODER_PREFIX).rpartition(".")[0]
        if not name.startswith(ENCODER_PREFIX) or layer.startswith("pooler.") or layer in names.head.values():
            replaced[name] = array
        elif name not in before or before[name].shape != array.shape:
            raise CheckpointError(f"{base}: {name} is not in it, or of another size; {advice}")
        elif not np.array_equal(before[name], array):
            if array.ndim != 2 or ("embeddings" in layer and layer not in names.linear.values()):  # a table
                raise CheckpointError(f"{base}: {name} differs from it, and adapters are of matrices; {advice}")
            changed.append(name)
    others = to_theirs(replaced, names)
    old, new = (to_theirs({**replaced, **{name: part[name] for name in changed}}, names) for part in (before, after))
    changes = {name.removesuffix(".weight"): (old[name], new[name]) for name in new if name not in others}
    layers = (name.rpartition(".")[0] for name in others)
    saved = sorted({name if name.startswith(f"{names.prefix}.") else name.partition(".")[0] for name in layers})
    hub_name = None if Path(base).exists() else HubName.parse(base)
    where = {"base_model_name_or_path": hub_name.repository if hub_name else str(encoder.resolve())}
    settings = {
        **where,
        "revision": hub_name.revision if hub_name else None,
        "task_type": "FEATURE_EXTRACTION" if is_tower else "SEQ_CLS",
        "modules_to_save": saved or None,
    }
    try:
        stated, arrays = as_adapter(changes, others, rank, settings)
    except CheckpointError as error:
        raise CheckpointError(f"{base}: {error}; {advice}") from error
    for name in (*WEIGHT_FILES, "config.json"):
        (folder / name).unlink(missing_ok=True)
    write_weights(folder, arrays, ADAPTER_WEIGHTS[0])
    write_json(folder / ADAPTER_FILE, stated)
    size = (folder / ADAPTER_WEIGHTS[0]).stat().st_size / 1e6
    line = f"an adapter for peft, {size:.1f} MB: LoRA, rank {rank}, of {len(changes)} matrices of {base}"
    if is_tower:
        return line
    is_other = theirs.has_head and theirs.arrays["classifier.weight"].shape[1] != 1
    return f"{line}; peft opens it with num_labels=1{', ignore_mismatched_sizes=True' if is_other else ''}"


def _tower(source: Path, options: ConvertOptions) -> tuple[TowerModel, dict[str, Tensor]]:
    """Open any encoder as a tower; return the tower, and, by name, the parameters that determine its vectors."""
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.model.tower_network import load_tower

    model = load_tower(source, LoadOptions(pooling=options.pooling, normalize=options.normalize))
    query, text = (
        read if optional is None else optional
        for read, optional in (
            (model.info.query_prompt, options.query_prompt),
            (model.info.text_prompt, options.text_prompt),
        )
    )
    if (query, text) != (model.info.query_prompt, model.info.text_prompt):
        rows = dataclasses.replace(model.texts, query_prompt=query, text_prompt=text)  # if there is room
        info = dataclasses.replace(model.info, query_prompt=query, text_prompt=text)
        model = dataclasses.replace(model, info=info, row_encoder=rows)
    state = model.network.own_state()
    if model.info.pooling != "pooler":  # it may be random, and must not look trained
        state = {name: value for name, value in state.items() if not name.startswith(f"{ENCODER_PREFIX}pooler.")}
    return model, state


def _to_tower(source: Path, temporary: Path, options: ConvertOptions) -> list[str]:
    from paddle_ranker.model.families import write_config
    from paddle_ranker.model.parameters import PARAMETERS_FILE, save_arrays

    model, state = _tower(source, options)
    training = model.info.training or {"converted from": Path(options.source).resolve().name}
    save_arrays(state, temporary / PARAMETERS_FILE)
    write_config(temporary, model.network.config)
    model.row_encoder.save(temporary)
    dataclasses.replace(model.info, training=training, export=None).write(temporary)
    if model.info.towers == 2:
        (temporary / QUERY_FOLDER).mkdir()
        _to_tower(source / QUERY_FOLDER, temporary / QUERY_FOLDER, options)
    return [f"TARGET: a tower, {describe_encoder(model.network.config)}: {_vectors(model.info)}"]


def _to_sentences(source: Path, temporary: Path, options: ConvertOptions) -> list[str]:
    from paddle_ranker.encoding.tokenizers.tokenizer_folder import read_tokenizer
    from paddle_ranker.model.hugging_face.folder import parameters_to_write, write_model
    from paddle_ranker.model.hugging_face.sentences import write_sentences
    from paddle_ranker.model.hugging_face.tokenizer import write_tokenizer

    model, state = _tower(source, options)
    info, config = model.info, model.network.config
    if info.pooling == "pooler" and not config.has_tanh_pooler:
        raise CheckpointError(
            f"{source}: its vectors come from the pooler of {config.model_type}, which sentence-transformers has no "
            "step for; only a tower with another --pooling can be written"
        )
    if info.lexical_size:
        raise CheckpointError(
            f"{source}: {info.lexical_size} numbers of its vectors say which words a text has, which "
            "sentence-transformers has no step for: paddle-ranker serve answers its clients, or train without "
            "--lexical_size"
        )
    if info.titled:
        note(f"note: {source} reads a text after its title: give the library pairs, (title, text) or ('', text)")
    if info.cut_from and info.normalize:
        raise CheckpointError(
            f"{source}: its vectors are cut, then made 1 long, which sentence-transformers has no step for: leave out "
            "--normalize true"
        )
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    named = {name: array for name, array in arrays.items() if name.startswith(ENCODER_PREFIX)}
    try:
        kept = parameters_to_write(named, config, drop_match_embeddings=False)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    write_model(temporary, kept, config)
    with tempfile.TemporaryDirectory() as folder:
        model.row_encoder.save(folder)
        with_types = config.type_vocab_size > 1
        write_tokenizer(
            read_tokenizer(Path(folder)), temporary, info.max_seq_length, with_types=with_types,
            reads_markers=config.reads_markers, prompts=[info.query_prompt, info.text_prompt],
        )  # fmt: skip
    # The library has no pooler: it is a dense layer over the first token's state.
    layers = [(f"{ENCODER_PREFIX}pooler.dense", True)] if info.pooling == "pooler" else []
    layers += [("output_layer", info.output_tanh)] if info.output_layer else []
    dense = {
        f"{place}_Dense": (arrays[f"{name}.weight"], arrays[f"{name}.bias"], tanh)
        for place, (name, tanh) in enumerate(layers, 2)
    }
    write_sentences(temporary, info, config, dense)
    lines = [f"TARGET: for sentence-transformers, {describe_encoder(config)}: {_vectors(info)}"]
    if info.towers == 2:
        (temporary / QUERY_FOLDER).mkdir()
        _to_sentences(source / QUERY_FOLDER, temporary / QUERY_FOLDER, options)
        lines.append(f"TARGET/{QUERY_FOLDER}: the tower of queries, for that library another model: encode them by it")
    return lines


def _vectors(info: TowerInfo) -> str:
    parts = [
        f"vectors of {info.size} numbers" + (f", {info.lexical_size} of them of words" if info.lexical_size else ""),
        f"pooling {info.pooling}",
        {
            TEXT: f"texts of up to {info.max_seq_length} tokens",
            PICTURE: "pictures of {} x {} pixels".format(*info.picture_size or (0, 0)),
        }.get(info.reads, f"{info.reads}s"),
    ]
    parts += ["length 1"] if info.normalize else [f"of any length, compared by {info.similarity}"]
    return ", ".join(parts)


def run(options: ConvertOptions) -> None:
    print(*convert(options), sep="\n")


main = main_of(run, ConvertOptions, __doc__)
