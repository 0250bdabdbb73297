"""Static models of other programs, Paddle's or ONNX files, written as exports of this toolkit.

    as_export(folder, "ernie-1.0")         # the folder in the cache with its export

The graph keeps its operations and parameters. It gets this toolkit's inputs and outputs, and the tokenizer that the
caller names or that lies beside it, and each engine and command then takes it as any export.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import numpy as np

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.errors import CheckpointError, listed
from paddle_ranker.model.config import WORD_EMBEDDINGS, EncoderConfig
from paddle_ranker.model.families import read_config, write_config
from paddle_ranker.model.foreign.foreign_files import (
    NAME_TOKENIZER,
    ONNX,
    TOKENIZER_FILES,
    GraphFiles,
    find_graph,
    has_tokenizer,
)
from paddle_ranker.model.foreign.foreign_graph import ForeignGraph, Key, ScoringOutput
from paddle_ranker.model.foreign.foreign_onnx import MASK, OnnxGraph, finish_onnx, read_onnx
from paddle_ranker.notes import note_once
from paddle_ranker.storage.atomic import cache_folder, made_once, new_folder
from paddle_ranker.storage.digest import json_digest

if TYPE_CHECKING:
    from paddle_ranker.model.foreign.static_program import StaticProgram
    from paddle_ranker.model.hugging_face.sentences import VectorSettings

_FORMAT = 1  # version of the folders' form in the cache
_LENGTH = 128  # tokens of a pair or text, if no option says otherwise, as in the published scripts
_EQUAL, _HALF = 1e-5, 2e-3  # most difference from a graph's own output, and if that is of half precision
_LEAST_VECTOR = 16  # fewer numbers are classes
_SENTENCE, _POOLER = "sentence_embedding", "pooler_output"  # optimum's names of outputs
_ROLES = {
    "input_ids": ("input_ids", "src_ids", "word_ids", "token_ids"),
    "token_type_ids": ("token_type_ids", "segment_ids", "sent_ids", "sentence_ids"),
}
_OF_ONNX = {**_ROLES, MASK: (MASK, "input_mask", "mask")}
# Compute, for a batch, what the graph itself returns, and this toolkit's first output
_Run = Callable[[Arrays], tuple[Array, Array]]
_Finished = tuple[Callable[[], Path], _Run]  # writes the file and returns its path; proves it before


def as_export(path: Path, tokenizer: Union[str, Path, None] = None) -> Path:
    """Write a static model of another program as an export of this toolkit; return its folder in the user's cache.

    A model is written once. Return any other path unchanged.

    tokenizer: a model's name or folder, or the file of a vocabulary; None: the tokenizer beside the graph

    Raises `CheckpointError` without a tokenizer, and for a graph that scores no texts.
    """
    graph = find_graph(path)
    if graph is None:
        return path
    folder = graph.home
    if tokenizer is None and not has_tokenizer(folder):
        raise CheckpointError(f"{path}: is a static model without a tokenizer; {NAME_TOKENIZER}")
    source = str(folder if tokenizer is None else tokenizer)
    used = [folder, graph.program.parent, *([Path(source)] if Path(source).exists() else [])]
    files = sorted({file for place in used for file in (place.iterdir() if place.is_dir() else [place])})
    files += sorted(folder.glob("*/config.json"))  # steps of sentence-transformers
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    version = ""
    if not graph.is_onnx:
        from paddle_ranker import runtime

        runtime.prepare()
        import paddle

        version = paddle.__version__
    digest = json_digest(_FORMAT, version, graph.program.name, source, stats)
    target = cache_folder("models", f"{folder.resolve().name}-{digest}")
    with made_once(target) as missing:
        if missing:
            with new_folder(target) as temporary:
                _write(graph, source, temporary)
    return target


def _write(graph: GraphFiles, source: str, target: Path) -> None:
    if graph.is_onnx:
        _write_graph(graph, read_onnx(graph.program), source, target)
        return
    from paddle_ranker.model.foreign.static_program import read_program, static_mode

    with static_mode():
        _write_graph(graph, read_program(*graph), source, target)


def _write_graph(files: GraphFiles, graph: ForeignGraph, source: str, target: Path) -> None:
    from paddle_ranker.model.builtin_kinds import KINDS
    from paddle_ranker.model.hugging_face.folder import folder_pair_encoder
    from paddle_ranker.model.hugging_face.sentences import is_sentences, stated_prompt
    from paddle_ranker.model.info import RankerInfo
    from paddle_ranker.model.load_options import DEFAULT_OPTIONS
    from paddle_ranker.model.model_kind import with_export
    from paddle_ranker.model.tower import KIND, TowerInfo

    steps = files.home if files.is_onnx and is_sentences(files.home) else None
    output = _output(graph, steps)
    named = _inputs(graph)
    config = _config_of(files.program, graph, source)
    _write_tokenizer(source, config, target)
    write_config(target, config)
    length = min(_stated_length(files), config.longest_pair)
    folder_pair_encoder(target, length)  # raises if the tokenizer does not fit
    is_tower = not output.classes
    if is_tower:
        size = graph.shapes[output.value][-1]
        info: Any = TowerInfo(length, size, normalize=False, similarity="dot")  # type: ignore[explicit-any]
    else:
        if output.classes == 2:
            output = output._replace(place=_positive_class(files))
        kind_name = "cross_encoder" if output.classes == 2 else "pairwise"
        prompt = stated_prompt(files.home) if files.is_onnx else ""
        info = RankerInfo(kind_name, length, match_embeddings=False, query_prompt=prompt)
    kind = KINDS[KIND if is_tower else info.kind]
    signature = kind.signature(info)
    if isinstance(graph, OnnxGraph):
        file = target / f"{kind.prefix}{ONNX}"
        finished: _Finished = (lambda: file), finish_onnx(graph, output, named, config.pad_token_id, file)
    else:
        finished = _finish_static(graph, output, named, target / kind.prefix)  # type: ignore[arg-type]
    write, run = finished
    batches = list(kind.sample_inputs(kind.row_encoder(target, info, DEFAULT_OPTIONS), info))[:8]
    _require_equal(files.program, output, run, batches)
    if is_tower and (output.normalize or _are_normal(run, batches)):
        info = dataclasses.replace(info, normalize=True, similarity="cosine")
    if is_tower and steps is not None:
        _, similarity, query, text = _vector_settings(steps, size)
        info = dataclasses.replace(info, similarity=similarity, query_prompt=query, text_prompt=text)
    written = write()
    for other in target.glob("*.info"):
        other.unlink()
    facts: dict[str, object] = {
        "prefix": kind.prefix,
        "format": written.suffix[1:],
        "inputs": list(signature.input_names),
        "outputs": list(signature.output_names),
        "parity": {},
        "files": {path.name: path.stat().st_size for path in sorted(target.glob(f"{kind.prefix}.*"))},
    }
    if not files.is_onnx:
        import paddle

        facts["paddle"] = paddle.__version__
    info = dataclasses.replace(info, training={"converted from": str(files.program)})
    kind.write_info(target, with_export(info, facts))  # type: ignore[arg-type]
    said = ", ".join(name if name == role else f"{name} as {role}" for role, name in named.items())
    what = "a tower" if is_tower else "a ranker"
    note_once(f"note: {files.program}: takes {said}; returns {output.what}: opened as {what}")


def _inputs(graph: ForeignGraph) -> dict[str, str]:
    """Return the names of the graph's inputs by this toolkit's; raises `CheckpointError` for other inputs."""
    left = sorted(graph.feeds)
    roles = _OF_ONNX if isinstance(graph, OnnxGraph) else _ROLES
    found: dict[str, str] = {}
    for role, names in roles.items():
        name = next((name for name in names if name in left), None)
        if name is not None:
            found[role] = name
            left.remove(name)
    if not found and len(left) <= len(_ROLES):
        found, left = dict(zip(_ROLES, left)), []
    if left or "input_ids" not in found:
        raise CheckpointError(
            f"{graph.file}: takes {listed(sorted(graph.feeds))}; a text model is given {listed(roles)} alone here: "
            "export it with these inputs"
        )
    return found


def _output(graph: ForeignGraph, steps: Optional[Path] = None) -> ScoringOutput:
    """Return the graph's output that scores a pair, or that is a text's vector.

    steps: a tower's folder of sentence-transformers: the vector is that output, or is pooled of the tokens' states
    """
    said = []
    for key in graph.fetches:
        shape = graph.shapes[key]
        value, node = graph.behind(key)
        last = node.type if node is not None else ""
        width = shape[-1] if len(shape) == 2 else 1 if len(shape) == 1 else -1
        if steps is not None:
            if key[0] == _SENTENCE or (len(graph.fetches) == 1 and len(shape) == 2):
                return ScoringOutput("a vector", key, None)
            if len(shape) == 3 and _SENTENCE not in [name for name, _ in graph.fetches]:
                return _of_states(key, steps)
        elif last in ("sigmoid", "softmax") and node is not None and width == (1 if last == "sigmoid" else 2):
            what = "a probability" if width == 1 else "two probabilities"
            return ScoringOutput(what, key, node.inputs[0])
        elif last not in ("sigmoid", "softmax") and width in (1, 2):
            return ScoringOutput("one logit" if width == 1 else "two logits", key, value)
        elif len(shape) == 2 and width >= _LEAST_VECTOR and last != "softmax" and key[0] != _POOLER:
            return ScoringOutput("a vector", key, None)
        name = f"{key[0]} " if isinstance(graph, OnnxGraph) else ""
        said.append(f"{name}{list(shape)}{f' of {last}' if last else ''}")
    hint = ""
    if isinstance(graph, OnnxGraph) and any(len(graph.shapes[key]) == 3 for key in graph.fetches):
        hint = "; sentence-transformers' modules.json and 1_Pooling say how states become a vector: put them beside it"
    raise CheckpointError(
        f"{graph.file}: returns {'; '.join(said) or 'nothing'}: neither a logit, two logits or a probability of each "
        f"pair, nor a vector of each text ({_LEAST_VECTOR} numbers or more){hint}"
    )


def _of_states(key: Key, folder: Path) -> ScoringOutput:
    """Return the vector that sentence-transformers' steps in a folder make of an output with the states of tokens.

    Raises `CheckpointError` for other steps than Transformer, Pooling and Normalize.
    """
    from paddle_ranker.model.hugging_face.sentences import list_modules, pooling_of

    modules = [(kind, path) for kind, path in list_modules(folder) if kind != "Dropout"]
    kinds = [kind for kind, _ in modules]
    instead = "is not done with an ONNX file of the states: export it with all steps (sentence_embedding)"
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise CheckpointError(f"{folder}: another order of steps than Transformer, Pooling and Normalize {instead}")
    pooling, includes_prompt = pooling_of(modules[1][1])
    if pooling not in ("first", "mean") or not includes_prompt:
        raise CheckpointError(f"{modules[1][1]}: another pooling than cls and mean, or one without prompts, {instead}")
    what = f"states of tokens, the vector by {'their mean' if pooling == 'mean' else 'the first'}"
    return ScoringOutput(what, key, None, pooling, kinds[-1] == "Normalize")


def _vector_settings(folder: Path, size: int) -> VectorSettings:
    from paddle_ranker.model.hugging_face.sentences import read_vectors

    found = read_vectors(folder, size)
    if found.size < size:
        raise CheckpointError(f"{folder}: cuts vectors to {found.size} (truncate_dim), not done with an ONNX file")
    return found


def _stated_length(files: GraphFiles) -> int:
    """Return the length that transformers' settings beside a graph state, or else that of the published scripts."""
    from paddle_ranker.model.hugging_face.library_tokenizer import stated_length

    return stated_length(files.home) if _is_of_transformers(files.home) else _LENGTH


def _is_of_transformers(folder: Path) -> bool:
    from paddle_ranker.model.hugging_face.folder import read_foreign_config

    path = folder / "config.json"
    return path.is_file() and "transformers_version" in read_foreign_config(path)


def _positive_class(files: GraphFiles) -> int:
    """Return the class of two that means "relevant": of the settings beside the graph, or else the second."""
    from paddle_ranker.model.hugging_face.folder import ClassifierHead, read_foreign_config

    path = files.home / "config.json"
    head = ClassifierHead.of(read_foreign_config(path)) if path.is_file() else None
    return 1 if head is None or len(head.labels) != 2 else head.place(None)


def _finish_static(program: StaticProgram, output: ScoringOutput, named: dict[str, str], target: Path) -> _Finished:
    """Append this toolkit's inputs and outputs to a graph of Paddle.

    Returns a function that writes it and returns its file, and one that computes what the graph returned, and the first
    of the new outputs: Paddle 2 changes the graph when it writes it.
    """
    import paddle

    from paddle_ranker.model.foreign.static_program import appended

    inputs = program.name_inputs(named)
    with appended(program):
        if not output.classes:
            value = program.values[output.value]
            values = {"vector": value * 1.0}
        else:
            logit = program.values[output.before]  # type: ignore[index]
            if output.classes == 2:
                logit = (logit[:, 1:2] - logit[:, 0:1]) * (2.0 * output.place - 1)
            logit = paddle.reshape(paddle.cast(logit, "float32"), [-1, 1])
            values = {"predict": paddle.nn.functional.sigmoid(logit), "logit": logit}
        if "token_type_ids" not in inputs:
            types = paddle.static.data("token_type_ids", [None, None], "int64")
            inputs["token_type_ids"] = types
            nothing = paddle.sum(paddle.cast(types, "float32"), axis=1, keepdim=True) * 0.0
            values = {name: value + nothing for name, value in values.items()}
    first = next(iter(values.values()))

    def run(batch: Arrays) -> tuple[Array, Array]:
        own, new = program.run(batch, [program.values[output.value], first])
        return own, new

    return lambda: program.write(target, inputs, values), run


def _require_equal(file: Path, output: ScoringOutput, run: _Run, batches: list[Arrays]) -> None:
    """Raise `CheckpointError` unless the new outputs are what the graph's own output says, on sample rows."""
    for batch in batches:
        own, new = run(batch)
        tolerance = _HALF if own.dtype.itemsize < 4 else _EQUAL
        own, new = own.reshape(len(new), -1).astype(np.float64), new.astype(np.float64)
        if output.what == "two logits":
            own = 1 / (1 + np.exp(own[:, :1] - own[:, 1:]))
        elif output.what == "one logit":
            own = 1 / (1 + np.exp(-own))
        elif output.what == "two probabilities":
            own = own[:, 1:]
        if output.classes == 2 and output.place == 0:
            own = 1 - own
        difference = float((np.abs(own - new) / np.maximum(np.abs(own), 1)).max())
        if not difference <= tolerance:
            raise CheckpointError(
                f"{file}: what is computed from its last operations is {difference:.1e} from its output"
            )


def _are_normal(run: _Run, batches: list[Arrays]) -> bool:
    """Return whether all vectors have length 1."""
    lengths = [np.linalg.norm(run(batch)[1], axis=1) for batch in batches]
    return bool(np.abs(np.concatenate(lengths) - 1).max() < 1e-4)


def _write_tokenizer(source: str, config: EncoderConfig, target: Path) -> None:
    """Write the tokenizer of a model, by name or folder, or of a vocabulary's file, into a folder."""
    from paddle_ranker.encoding.tokenizers.tokenizer_folder import VOCABULARY_FILE, read_tokenizer
    from paddle_ranker.model.hugging_face.folder import tokenizer_of
    from paddle_ranker.model.pretrained import vocabulary_folder

    path = Path(source)
    if path.is_file() and path.name not in TOKENIZER_FILES:
        with tempfile.TemporaryDirectory() as temporary:
            shutil.copyfile(path, Path(temporary) / VOCABULARY_FILE)
            read_tokenizer(Path(temporary)).write(target)
        return
    folder = path.parent if path.is_file() else path if path.is_dir() else vocabulary_folder(source)
    tokenizer_of(folder, config).write(target)


def _config_of(file: Path, graph: ForeignGraph, source: str) -> EncoderConfig:
    """Return the configuration of the named model, or else the sizes of the graph's parameters.

    Raises `CheckpointError` if the graph is of another model than the named one.
    """
    config, tables = stated_config(source), _tables(graph)
    if config is None:
        if "input_ids" not in tables:
            raise CheckpointError(f"{file}: shows no embeddings of word pieces; {NAME_TOKENIZER}")
        rows, width = tables["input_ids"]
        # An engine reads no more of a configuration than the sizes.
        positions = max((size for role, (size, _) in tables.items() if role not in _ROLES), default=_LENGTH)
        types = tables.get("token_type_ids", (2, width))[0]
        config = EncoderConfig(rows, width, 1, 1, 1, max_position_embeddings=positions, type_vocab_size=types)
    rows = tables.get("input_ids", (config.vocab_size, 0))[0]
    if rows != config.vocab_size:
        raise CheckpointError(
            f"{file}: is not a graph of {source}: it has {rows:,} word pieces, that model {config.vocab_size:,}"
        )
    return config


def stated_config(source: str) -> Optional[EncoderConfig]:
    """Return the configuration of a model by its name or folder; None for a folder, or a file's, without one."""
    from paddle_ranker.model.hugging_face.folder import encoder_config, read_encoder_config
    from paddle_ranker.model.pretrained import named_config

    path = Path(source)
    if not path.exists():
        return named_config(source)
    folder = path.parent if path.is_file() else path
    if _is_of_transformers(folder):
        return read_encoder_config(folder / "config.json")
    return encoder_config(folder) if (folder / "config.json").is_file() else read_config(folder)


def _tables(graph: ForeignGraph) -> dict[str, tuple[int, int]]:
    """Return the sizes of the tables of embeddings, by the role of the input that is looked up, or else by name."""
    roles = {key: role for role, name in _inputs(graph).items() if (key := graph.feeds[name]) is not None}
    found: dict[str, tuple[int, int]] = {}
    for node in graph.nodes:
        if node.type == "embedding" and node.inputs[1] in graph.parameters:
            shape = graph.shapes[node.inputs[1]]
            role = roles.get(graph.behind(node.inputs[0])[0], graph.parameters[node.inputs[1]])
            if len(shape) == 2:
                found.setdefault(role, (shape[0], shape[1]))
    return found


@dataclass(frozen=True)
class PublishedArrays:
    """Parameters of a graph under PaddleNLP's names.

    arrays: the encoder's under `ptm.`, the head's under the published scripts'
    is_tower: whether the output is a vector
    has_pooler: whether the output comes from the pooler
    """

    arrays: Arrays
    is_tower: bool
    has_pooler: bool


def published_arrays(program: StaticProgram) -> PublishedArrays:
    """Name the graph's parameters as PaddleNLP does, by the order in which an ERNIE or BERT uses them.

    Raises `CheckpointError`, which names the first operation that such an encoder does not have there.
    """
    output = _output(program)
    needed: set[Key] = set()
    waiting = [output.value]
    producers = {key: node for node in program.nodes for key in node.outputs}
    while waiting:
        key = waiting.pop()
        node = producers.get(key)
        if key not in needed and node is not None:
            waiting += node.inputs
        needed.add(key)
    nodes = [node for node in program.nodes if needed.intersection(node.outputs)]
    ids, types = (_feed_key(program, role) for role in _ROLES)
    tables: dict[str, str] = {}
    norms: list[tuple[str, str]] = []
    linears: list[list[str]] = []
    of_product: dict[Key, list[str]] = {}
    tanh: set[int] = set()
    parameter = program.parameters.get
    for node in nodes:
        named = [name for key in node.inputs if (name := parameter(key)) is not None]
        if node.type == "embedding" and named:
            looked = program.behind(node.inputs[0])[0]
            role = "word" if looked == ids else "token_type" if looked == types else ""
            role = role or ("position" if "position" not in tables else "task_type")
            if role in tables:
                raise _unlike(program, f"looks up {named[0]} as a second table of {role} embeddings")
            tables[role] = named[0]
        elif node.type == "layer_norm" and len(named) == 2:
            norms.append((named[0], named[1]))
        elif node.type == "matmul" and len(named) == 1:
            linears.append([named[0]])
            of_product[node.outputs[0]] = linears[-1]
        elif node.type == "add" and len(named) == 1 and node.inputs[0] in of_product:
            of_product[node.inputs[0]].append(named[0])
            of_product[node.outputs[0]] = of_product[node.inputs[0]]
        elif node.type == "tanh" and node.inputs[0] in of_product:
            tanh.add(next(at for at, each in enumerate(linears) if each is of_product[node.inputs[0]]))
        elif named:
            raise _unlike(program, f"the operation {node.type} uses {named[0]}")
    layers, rest = divmod(len(norms) - 1, 2)
    if not {"word", "position"} <= set(tables) or rest or layers < 1 or len(linears) < 6 * layers:
        raise _unlike(program, f"has {len(norms)} norms, {len(linears)} linear layers and tables {listed(tables)}")
    if any(len(each) != 2 for each in linears):
        raise _unlike(program, f"{next(each[0] for each in linears if len(each) != 2)} has no bias of its own")
    names = {f"ptm.embeddings.{role}_embeddings.weight": name for role, name in tables.items()}

    def put(part: str, pair: Any) -> None:  # type: ignore[explicit-any]
        names[f"{part}.weight"], names[f"{part}.bias"] = pair

    put("ptm.embeddings.layer_norm", norms[0])
    for layer in range(layers):
        start = f"ptm.encoder.layers.{layer}"
        put(f"{start}.norm1", norms[1 + 2 * layer])
        put(f"{start}.norm2", norms[2 + 2 * layer])
        parts = [*(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")), "linear1", "linear2"]
        for part, pair in zip(parts, linears[6 * layer :]):
            put(f"{start}.{part}", pair)
    heads = linears[6 * layers :]
    has_pooler = bool(heads) and 6 * layers in tanh
    if has_pooler:
        put("ptm.pooler.dense", heads.pop(0))
    is_tower = not output.classes
    head = "emb_reduce_linear" if is_tower else "classifier" if output.classes == 2 else "similarity"
    if len(heads) > 1 or (not heads and not is_tower):
        raise _unlike(program, f"{len(heads)} linear layers follow the encoder")
    if heads:
        put(head, heads[0])
    arrays = {name: program.arrays[each].astype(np.float32) for name, each in names.items()}
    assert any(name.endswith(WORD_EMBEDDINGS) for name in arrays)
    return PublishedArrays(arrays, is_tower, has_pooler)


def _feed_key(program: StaticProgram, role: str) -> Optional[Key]:
    return program.feeds.get(_inputs(program).get(role, ""))


def _unlike(program: StaticProgram, what: str) -> CheckpointError:
    return CheckpointError(
        f"{program.file}: {what}: this is no ERNIE, BERT or RoBERTa as PaddleNLP builds it, and stays a static model"
    )
