"""Examine a model by opening it: its kind, and the commands, engines and slots that accept it (`doctor --model`)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_ranker.commands import command_registry
from paddle_ranker.commands.info import Fact, facts_of
from paddle_ranker.errors import CheckpointError, RankerError, one_line, quoted

if TYPE_CHECKING:
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.model.exported import ExportedFolder
    from paddle_ranker.model.model_folder import ModelType
    from paddle_ranker.model.model_kind import ModelInfo, RowEncoder
    from paddle_ranker.scoring.loading import ScoringModel


@dataclass
class Examined:
    """The result of examining a model.

    facts: its kind, its place, and the statements of its files
    counts_as: its roles for commands, as in `registry.Command.takes`
    works: names of commands, engines and slots of the server that accept it, with descriptions
    problem: the reason why it does not open, and what to do; "" if it opens
    """

    facts: list[Fact] = field(default_factory=list)
    counts_as: set[str] = field(default_factory=set)
    works: list[Fact] = field(default_factory=list)
    problem: str = ""


def examine_model(source: str) -> Examined:
    """Open a model by its folder or name, run it on a few rows, and return the findings."""
    from paddle_ranker.model.model_folder import ROLES, identify
    from paddle_ranker.model.pretrained import resolve_model

    found = Examined()
    try:
        path = resolve_model(source)
        model = identify(path)
        place = str(path.resolve()) if Path(source).exists() else f"{path}, in the cache"
        found.facts += [("found at", place), ("what", model.what), *facts_of(model), *_weights(model.folder)]
        found.works += _open(model, found.facts)
        found.counts_as |= {name for name, role in ROLES.items() if role.fits(model)}
    except (RankerError, OSError) as error:
        found.problem = one_line(error)
        return found
    found.works += [*_commands(found.counts_as, model), *_slots(model)]
    return found


def _weights(folder: Path) -> Iterator[Fact]:
    """Yield the names and sizes of a folder's parameter files, if there are any."""
    endings = (".safetensors", ".bin", ".pdparams", ".pdiparams", ".onnx")
    there = [*folder.glob("*"), *folder.glob("*/*")]  # members of a blend, steps of sentence-transformers
    files = sorted(path.relative_to(folder) for path in there if path.name.endswith(endings))
    if files:
        yield "files", ", ".join(f"{file} ({(folder / file).stat().st_size / 1e6:,.1f} MB)" for file in files)


def _open(found: ModelType, facts: list[Fact]) -> list[Fact]:
    """Open a model and run it, add to its facts, and return the engines that it works with; none of an encoder."""
    from paddle_ranker import runtime

    runtime.prepare()
    from paddle_ranker.model.encoder_loading import load_encoder
    from paddle_ranker.model.model_folder import MODEL
    from paddle_ranker.scoring.loading import open_model

    began = time.perf_counter()
    if found.is_encoder:
        loaded = load_encoder(found.path)
        length = min(loaded.checkpoint.stated_length or loaded.config.longest_pair, loaded.config.longest_pair)
        facts += _encoder_facts(loaded.pair_encoder(length))
        facts.append(("opens", f"in {time.perf_counter() - began:.1f} s"))
        return []
    model = open_model(found.path, MODEL)
    _compute(model)
    facts += _encoder_facts(model.row_encoder)
    facts.append(("opens", f"in {time.perf_counter() - began:.1f} s, and computes"))
    return [*(_engines(found.folder) if found.is_exported else _engines_after_export())]


def _compute(model: ScoringModel[ModelInfo, RowEncoder]) -> None:
    """Run a model on made-up rows; raises `CheckpointError` if an output is not finite."""
    import numpy as np

    from paddle_ranker.model.builtin_kinds import KINDS

    rows = next(iter(KINDS[model.info.kind].sample_inputs(model.row_encoder, model.info)))
    for name, array in model.engine.run(rows).items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"its {name} is not a finite number: the parameters are damaged; copy them again")


def _encoder_facts(encoder: object) -> Iterator[Fact]:
    """Yield the tokenizer, the template and the maximum length of each text encoder."""
    from paddle_ranker.encoding.pair_encoder import LOST_CAPITALS, PairEncoder

    members = getattr(encoder, "members", None) or (getattr(encoder, "texts", None),)  # of a blend; of pairs of posts
    tower = getattr(encoder, "tokens", None)
    for one in (tower,) if isinstance(tower, PairEncoder) else members:
        if isinstance(one, PairEncoder):
            shown = _single(one) if one is tower else _pair(one)
            yield "tokenizer", f"{one.vocab_size:,} ids, {'WordPiece' if one.backend == 'builtin' else one.backend}"
            yield f"a {'text' if one is tower else 'pair'}", f"{shown}, at most {one.max_seq_length:,} tokens"
            if one.loses_capitals:
                yield "capitals", LOST_CAPITALS


def _pair(encoder: PairEncoder) -> str:
    template = encoder.template
    before, between, after = (_tokens(encoder, ids) for ids in (template.before, template.between, template.after))
    query = f"{quoted(encoder.query_prompt)} query" if encoder.query_prompt else "query"
    return " ".join([*before, query, *between, "title", *after])


def _single(encoder: PairEncoder) -> str:
    before, after = (_tokens(encoder, ids) for ids in (encoder.template.text_before, encoder.template.text_after))
    return " ".join([*before, "text", *after])


def _tokens(encoder: PairEncoder, ids: Sequence[int]) -> list[str]:
    tokens = {number: token for token, number in encoder.token_to_id.items() if number in ids}
    return [tokens.get(number, str(number)) for number in ids]


def _engines(path: Path) -> Iterator[Fact]:
    """Open the exported model with each engine; yield the engine's precisions, or the reason why it fails."""
    from paddle_ranker.model.exported import open_exported
    from paddle_ranker.model.model_folder import MODEL
    from paddle_ranker.scoring.engines.engine_registry import ENGINES, exported_engines, is_installed

    folder = open_exported(path, MODEL)
    for name in exported_engines():
        kind = ENGINES[name]
        if not is_installed(name):
            yield f"--engine {name}", f"not here: {kind.runs} is not installed"
        else:
            yield f"--engine {name}", _tried(name, folder) or f"{kind.runs}, in {_precisions(name)}"


def _tried(engine: str, folder: ExportedFolder) -> str:
    """Return the reason why an engine does not open a folder; "" if it does."""
    from paddle_ranker.model.load_options import LoadOptions
    from paddle_ranker.scoring.engines.opening import open_engine

    try:
        open_engine(folder, LoadOptions(engine=engine, device="cpu"))
    except RankerError as error:
        return f"not here: {one_line(error)}"
    return ""


def _engines_after_export() -> Iterator[Fact]:
    from paddle_ranker.scoring.engines.engine_registry import DYGRAPH, ENGINES, exported_engines, is_installed

    yield f"--engine {DYGRAPH}", ENGINES[DYGRAPH].runs
    for name in exported_engines():
        missing = "" if is_installed(name) else ", which is not installed"
        yield f"--engine {name}", f"after paddle-ranker export: {ENGINES[name].runs}{missing}, in {_precisions(name)}"


def _precisions(engine: str) -> str:
    from paddle_ranker.scoring.engines.engine_registry import ENGINES

    return ", ".join(ENGINES[engine].precisions.get("cpu", ()))


def _commands(counts_as: set[str], found: ModelType) -> Iterator[Fact]:
    """Yield, by group, the commands that accept the model's roles or have a version for its kind."""
    command_registry.COMMANDS.load_plugins()
    groups: dict[str, list[str]] = {group: [] for group in command_registry.GROUPS}
    for name, command in command_registry.COMMANDS.items():
        kind = "" if found.kind is None else found.kind.name
        has_own = f"{name} {kind}" in command_registry.OF_KIND and command_registry.TRAINED not in command.takes
        if has_own or counts_as & set(command.takes):
            groups.setdefault(command.group, []).append(name)
    yield from ((group, ", ".join(names)) for group, names in groups.items() if names)


def _slots(found: ModelType) -> Iterator[Fact]:
    """Yield the server's options that accept the model, and the paths that it then answers."""
    from paddle_ranker.serving.core.slot_kinds import SLOTS
    from paddle_ranker.serving.http.endpoints import ENDPOINTS

    SLOTS.load_plugins()
    ENDPOINTS.load_plugins()
    for name, slot in SLOTS.items():
        if slot.takes is not None and slot.takes.fits(found):
            paths = [path for endpoint in ENDPOINTS.values() if endpoint.slots == (name,) for path in endpoint.paths]
            yield f"serve --{slot.option}", f"a {slot.what}: {', '.join(dict.fromkeys(paths))}"
