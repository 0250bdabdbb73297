"""Adapters of peft (LoRA, rsLoRA, DoRA, IA³): their settings, and how they are merged into a base's weights.

`adapter_folders.with_base` lays an adapter and its base into one folder; `weights.read_weights` merges the adapter that
it finds there. peft applies the settings, not the file's contents: a matrix of a module that `target_modules` does not
name is unused.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Optional

import numpy as np
import regex

from paddle_ranker.array_types import Array
from paddle_ranker.errors import CheckpointError, listed, quoted
from paddle_ranker.notes import note_once
from paddle_ranker.storage.foreign_config import ForeignConfig
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject

ADAPTER_FILE = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")  # the first that exists is read
_PREFIX, _WRAPPED = "base_model.model.", ".base_layer"  # of names of parameters; the latter of a changed module's own
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|ia3_l)"
    r"(?P<kind>\.weight|\.bias)?"
)
_OTHER_PART = re.compile(r"(^|\.)(lora_|ia3_|hada_|lokr_|oft_|vera_|token_adapter|prompt_)")
_HEADS = ("score", "classifier")
# Bounds of a folder's patterns: characters, product of all counts such as {1,3}, seconds of all matches of an adapter
_LONGEST_PATTERN, _MOST_REPEATS, _MOST_SECONDS = 2000, 10_000, 5.0
# Kinds that add inputs or networks instead of changing weights: peft cannot merge them.
_ADDED = """
PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING ADAPTION_PROMPT CPT CARTRIDGE POLY XLORA SHADOW
"""
_UNMERGED = frozenset(_ADDED.split())
# Settings of training, names, and layouts that no linear layer of torch has.
_WITHOUT_EFFECT = """
auto_mapping peft_version inference_mode lora_dropout eva_config loftq_config corda_config lora_ga_config bias
megatron_core runtime_config fan_in_fan_out init_ia3_weights qalora_group_size task_type
"""
_IDLE = frozenset(_WITHOUT_EFFECT.split())
MERGE = "merge it into its base with peft (merge_and_unload), and give that folder"
# Settings that change results and are not done here: the values that change nothing.
_REFUSED: dict[str, tuple[object, ...]] = {
    "layer_replication": ([],),
    "trainable_token_indices": ([], {}),
    "target_parameters": ([],),
    "use_qalora": (False,),
    "use_bdlora": (False, {}),
    "alora_invocation_tokens": ([],),
    "arrow_config": ({},),
    "kasa_config": ({},),
    "velora_config": ({},),
    "monteclora_config": ({},),
    "megatron_config": ({},),
    "ensure_weight_tying": (False,),
}
_INEXACT = 2e-3  # of a product of float32 that a GPU computed in TF32, as a share of it
# Initialisations that change the base's weights too, each time that peft opens the adapter.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


class _TimedPatterns:
    """Matches patterns that strangers wrote; what would take longer than its bound is a `ValueError`.

    They are matched by `regex`, which ends a match after a time, instead of `re`, which cannot.
    """

    def __init__(self) -> None:
        self._left = _MOST_SECONDS

    def match(self, pattern: str, text: str) -> Optional[regex.Match[str]]:
        """Match a pattern at the beginning of a text; raises `ValueError` if it is none, or if it takes too long."""
        counts = [int(number) for number in re.findall(r"(?<=[{,])[0-9]{1,9}(?=[,}])", pattern)]
        if len(pattern) > _LONGEST_PATTERN or math.prod(max(1, count) for count in counts) > _MOST_REPEATS:
            raise ValueError(f"it has more than {_LONGEST_PATTERN:,} characters or {_MOST_REPEATS:,} repetitions")
        start = time.monotonic()
        try:
            return regex.match(pattern, text, timeout=max(0.01, self._left))
        except TimeoutError:
            raise ValueError(
                f"it takes more than {_MOST_SECONDS:g} s to match; write it without nested repetitions"
            ) from None
        except (regex.error, RecursionError) as error:
            raise ValueError(str(error)) from error
        finally:
            self._left -= time.monotonic() - start


@dataclass(frozen=True)
class PeftAdapter:
    """Settings of an adapter.

    folder: its folder
    is_lora: whether it adds products of narrow matrices (LoRA); if not, it scales rows or columns (IA³)
    base, revision: name or path of the model that it changes; "": not stated
    """

    folder: Path
    is_lora: bool
    base: str
    revision: str
    settings: ForeignConfig = field(repr=False, compare=False)
    _patterns: _TimedPatterns = field(default_factory=_TimedPatterns, repr=False, compare=False)

    @classmethod
    def read(cls, folder: Path) -> PeftAdapter:
        """Read an adapter's settings; raises `CheckpointError` for kinds and settings that are not done here."""
        settings = ForeignConfig.read(folder / ADAPTER_FILE, _IDLE)
        kind = settings.get("peft_type")
        if kind not in ("LORA", "IA3"):
            advice = MERGE if isinstance(kind, str) and kind not in _UNMERGED else (
                "it changes no weights, so that nothing can be merged: take an adapter of LoRA"
            )  # fmt: skip
            raise settings.error(
                f"is an adapter whose peft_type is {quoted(kind)}; LORA and IA3 are opened here: {advice}"
            )
        for name, done in _REFUSED.items():
            settings.require(name, *done, remedy=MERGE)
        base, revision = settings.get("base_model_name_or_path", ""), settings.get("revision", "main")
        if not isinstance(base, str) or not isinstance(revision, str):
            raise settings.error(f"base_model_name_or_path is {quoted(base)}, expected a name or a path")
        adapter = cls(folder, kind == "LORA", base, revision, settings)
        adapter._check()
        settings.log_unknown()
        return adapter

    def _check(self) -> None:
        settings = self.settings
        for name in ("r", "lora_alpha"):
            value = settings.get(name, 8)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
                raise settings.error(f"{name} is {quoted(value)}, expected a positive number")
        for name in ("use_rslora", "use_dora", "lora_bias") if self.is_lora else ():
            if not isinstance(settings.get(name, False), bool):
                raise settings.error(f"{name} is {quoted(settings[name])}, expected true or false")
        for name in ("rank_pattern", "alpha_pattern"):
            values = settings.get(name, {})
            if not isinstance(values, dict) or not all(type(value) in (int, float) for value in values.values()):
                raise settings.error(f"{name} is {quoted(values)}, expected numbers by names of modules")
        if settings.get("target_modules") is None:
            raise settings.error(
                "has no target_modules, which name the modules that it changes; save it with peft anew"
            )
        for name in ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save", "feedforward_modules"):
            values = settings.get(name, [])
            if not isinstance(values, str) and not (
                isinstance(values, list) and all(isinstance(value, str) for value in values)
            ):
                raise settings.error(f"{name} is {quoted(values)}, expected names of modules, or a pattern")
        if not self.is_lora:
            feedforward, targets = settings.get("feedforward_modules", []), settings["target_modules"]
            if isinstance(feedforward, list) and isinstance(targets, list) and not {*feedforward} <= {*targets}:
                raise settings.error("feedforward_modules are not among target_modules, which peft refuses too")
            return
        layers = settings.get("layers_to_transform", [])
        if not isinstance(layers, int) and not (
            isinstance(layers, list) and all(isinstance(layer, int) for layer in layers)
        ):
            raise settings.error(f"layers_to_transform is {quoted(layers)}, expected numbers of layers")
        patterns = settings.get("layers_pattern")
        if (layers or patterns) and isinstance(settings["target_modules"], str):
            raise settings.error("layers_to_transform and layers_pattern need a list of target_modules, as in peft")
        if patterns and settings.get("layers_to_transform") is None:
            raise settings.error("layers_pattern needs layers_to_transform, as in peft")
        way = settings.get("init_lora_weights", True)
        if isinstance(way, str) and way.lower().startswith(_CHANGES_BASE):
            raise settings.error(
                f"init_lora_weights is {quoted(way)}, by which peft changes the base too: save it as a LoRA of the "
                "unchanged base (peft's path_initial_model_for_weight_conversion), or merge it (merge_and_unload)"
            )
        if settings.get("lora_bias") and settings.get("use_dora"):
            raise settings.error("lora_bias and use_dora exclude each other, in peft too")

    def changes(self, module: str, *, is_linear: bool) -> bool:
        """Return whether the settings name a module, by the rules of peft.

        is_linear: whether it is a linear layer, which "all-linear" names
        """
        excluded, saved = self.settings.get("exclude_modules", []), self.settings.get("modules_to_save", [])
        if self._names(excluded, module) or any(self._match(rf"(^|.*\.){name}($|\..*)", module) for name in saved):
            return False
        targets = self.settings["target_modules"]
        if isinstance(targets, str) and targets.lower() == "all-linear":
            is_head = self.settings.get("task_type") == "SEQ_CLS" and module.partition(".")[0] in _HEADS
            return is_linear and module != "lm_head" and not is_head
        if isinstance(targets, str):
            return self._match(f"(?:{targets})$", module)
        if not self._names(targets, module):
            return False
        layers = self.settings.get("layers_to_transform", [])
        if module in targets or layers == []:
            return True
        patterns = self.settings.get("layers_pattern", [])
        ways = [
            rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in ([patterns] if isinstance(patterns, str) else patterns)
        ]
        found = (self._found(way, module) for way in ways or [r".*?\.[^.]*\.(\d+)\."])
        number = next((match[1] for match in found if match), None)
        return number is not None and int(number) in ([layers] if isinstance(layers, int) else layers)

    def _match(self, pattern: str, module: str) -> bool:
        return self._found(pattern, module) is not None

    def _found(self, pattern: str, module: str) -> Optional[regex.Match[str]]:
        try:
            return self._patterns.match(pattern, module)
        except ValueError as error:
            raise self.settings.error(f"has a pattern that is none ({error}): {quoted(pattern)}") from error

    def _names(self, names: Unchecked, module: str) -> bool:
        """Return whether names of modules, or a pattern, name a module; a name also names what ends in it."""
        if isinstance(names, str):
            return bool(names) and self._match(rf"(?:{names})\Z", module)
        return any(module == name or module.endswith(f".{name}") for name in names)

    def _of_module(self, name: str, patterns: str, module: str) -> float:
        """Return a setting of a module: that of the first pattern that fits, or else that of all modules."""
        values: UncheckedObject = self.settings.get(patterns, {})
        own = (value for pattern, value in values.items() if self._match(rf"(.*\.)?({pattern})$", module))
        return float(next(own, self.settings.get(name, 8)))

    def described(self) -> str:
        """Return the adapter's kind, its rank and its base, as text."""
        kinds = [
            name for key, name in (("use_dora", "DoRA"), ("use_rslora", "rsLoRA")) if self.settings.get(key, False)
        ]
        kind, rank = " and ".join(kinds) or "LoRA", f", rank {self.settings.get('r', 8)}"
        others: UncheckedObject = self.settings.get("rank_pattern", {})
        rank += f" ({listed(f'{module} {value}' for module, value in others.items())})" if others else ""
        revision = "" if self.revision == "main" else f", revision {self.revision}"
        return f"{f'{kind}{rank}' if self.is_lora else 'IA³'}, of {self.base}{revision}"

    def rank(self, module: str) -> int:
        return int(self._of_module("r", "rank_pattern", module))

    def scale(self, module: str) -> float:
        """Return the factor of a module's product."""
        rank = self._of_module("r", "rank_pattern", module)
        by_root = self.settings.get("use_rslora", False)
        return self._of_module("lora_alpha", "alpha_pattern", module) / (math.sqrt(rank) if by_root else rank)

    def scales_inputs(self, module: str) -> bool:
        """Return whether IA³ scales a module's inputs; if not, its outputs."""
        names = self.settings.get("feedforward_modules", [])
        return self._match(f"(?:{names})$", module) if isinstance(names, str) else module.endswith(tuple(names))

    @cached_property
    def file(self) -> Path:
        """File of the adapter's arrays; raises `CheckpointError` if there is none."""
        path = weights_of(self.folder)
        if path is None:
            raise CheckpointError(f"{self.folder}: has no {' and no '.join(ADAPTER_WEIGHTS)}; copy the folder again")
        return path

    def named(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """Return the arrays of `file` by their names in the model; raises `CheckpointError` if one is no weight."""
        wrong = next((name for name, array in arrays.items() if array.dtype.kind != "f"), None)
        if wrong is not None:
            raise CheckpointError(f"{self.file}: {wrong} ({arrays[wrong].dtype}) is no weight; save the adapter anew")
        return {name[len(_PREFIX) :] if name.startswith(_PREFIX) else name: array for name, array in arrays.items()}

    def merge(self, own: dict[str, Array], arrays: dict[str, Array], base: Path) -> dict[str, Array]:
        """Return a base's arrays with the adapter merged into them, in float32.

        own: the arrays of `file`
        base: the base's file, for messages

        Raises `CheckpointError` if the adapter does not fit the base or its own settings.
        """
        parts: dict[str, dict[str, Array]] = {}
        plain: dict[str, Array] = {}
        for name, array in self.named(own).items():
            found = _PART.fullmatch(name)
            if found is not None:
                parts.setdefault(found["module"], {})[found["part"] + (found["kind"] or "").replace(".weight", "")] = (
                    array
                )
            elif _OTHER_PART.search(name):
                raise CheckpointError(f"{self.file}: {name} is of an adapter that is not opened here: {MERGE}")
            else:
                plain[name] = array
        changed = {
            module: pair
            for module, pair in parts.items()
            if self.changes(module, is_linear="lora_embedding_A" not in pair and next(iter(pair.values())).ndim == 2)
        }
        merged, inside = _aligned(arrays, [*parts, *(name.rpartition(".")[0] for name in plain)])
        unused = [module for module in parts if module not in changed]
        for name, array in plain.items():
            module, _, kind = name.rpartition(".")
            named = module.removesuffix(_WRAPPED)
            target, weight = inside(f"{named}.{kind}"), merged.get(inside(f"{named}.weight"))
            is_matrix = weight is not None and weight.ndim > 1
            is_wrapped = is_matrix and self.changes(named, is_linear="embed" not in module)
            if is_wrapped != module.endswith(_WRAPPED):
                unused.append(name)
                continue
            is_head = not is_wrapped and named in (*_HEADS, "classifier.out_proj")  # of any number of classes
            same = slice(1 if is_head else 0, None)
            if target in merged and merged[target].shape[same] != array.shape[same]:
                raise self._misfit(name, array, merged[target], base)
            merged[target] = array
        self._require_saved(merged, {inside(name) for name in plain})
        for module, pair in changed.items():
            weight = merged.get(inside(f"{module}.weight"))
            if weight is None:
                raise CheckpointError(f"{self.file}: {module} is not in its base {base}: it is of another model")
            bias = merged.get(inside(f"{module}.bias"))
            change = self._lora if self.is_lora else self._ia3
            new, new_bias = change(module, pair, weight.astype(np.float32), bias, base)
            merged[inside(f"{module}.weight")] = new
            if new_bias is not None:
                merged[inside(f"{module}.bias")] = new_bias
        if unused:
            note_once(
                f"note: {self.file}: {len(unused):,} parameters are of modules that {ADAPTER_FILE} does not name, and "
                f"are not used, as in peft: {listed(unused)}"
            )
        kind = "LoRA" if self.is_lora else "IA³"
        note_once(f"note: {self.folder}: an adapter ({kind}), merged into {len(changed):,} matrices of {base}")
        return merged

    def _lora(
        self, module: str, own: dict[str, Array], weight: Array, bias: Optional[Array], base: Path
    ) -> tuple[Array, Optional[Array]]:
        is_table = "lora_embedding_A" in own
        down, up = (own.get(f"lora_embedding_{side}" if is_table else f"lora_{side}") for side in "AB")
        rank = self.rank(module)
        if down is None or up is None:
            raise CheckpointError(
                f"{self.file}: {module} lacks a matrix of the two that LoRA has (peft_type); copy the folder again"
            )
        if down.ndim < 2 or up.ndim < 2 or (down.shape[0], up.shape[1]) != (rank, rank):
            raise CheckpointError(
                f"{self.file}: the matrices of {module} are {list(down.shape)} and {list(up.shape)}, {ADAPTER_FILE} "
                f"says rank {rank} (r, rank_pattern): they do not belong together; copy the folder again"
            )
        scale = self.scale(module)
        product = up.reshape(-1, rank).astype(np.float32) @ down.reshape(rank, -1).astype(np.float32)
        product = product.T if is_table else product
        if product.size != weight.size or product.shape[0] != weight.shape[0]:
            raise self._misfit(module, product, weight, base)
        new = weight + product.reshape(weight.shape) * np.float32(scale)
        if self.settings.get("use_dora", False):
            magnitude = own.get("lora_magnitude_vector")
            axis = 0 if is_table else 1
            if magnitude is None or new.ndim != 2 or magnitude.size != new.shape[1 - axis]:
                raise CheckpointError(
                    f"{self.file}: use_dora is true in {ADAPTER_FILE}, but {module} has no fitting magnitudes, or is "
                    f"no matrix: {MERGE}"
                )
            norms = np.linalg.norm(new, axis=axis, keepdims=True)
            new = new * (magnitude.astype(np.float32).reshape(norms.shape) / norms)
        more = own.get("lora_B.bias")
        if more is None or not self.settings.get("lora_bias", False):
            return new, None
        if bias is None or more.shape != bias.shape:
            raise CheckpointError(f"{self.file}: lora_bias is true, but {module} has no fitting bias in {base}")
        return new, bias.astype(np.float32) + more.astype(np.float32) * np.float32(scale)

    def _ia3(
        self, module: str, own: dict[str, Array], weight: Array, bias: Optional[Array], base: Path
    ) -> tuple[Array, Optional[Array]]:
        factors, inputs = own.get("ia3_l"), self.scales_inputs(module)
        side = weight.shape[1] if inputs else weight.shape[0]
        if factors is None or weight.ndim != 2 or factors.shape != ((1, side) if inputs else (side, 1)):
            found = [] if factors is None else list(factors.shape)
            raise CheckpointError(
                f"{self.file}: the factors of {module} are {found}, for {list(weight.shape)} in {base}: they do not "
                f"fit it, or peft_type or feedforward_modules in {ADAPTER_FILE}; copy the folder again"
            )
        factors = factors.astype(np.float32)
        scaled = None if bias is None or inputs else bias.astype(np.float32) * factors.reshape(-1)
        return weight * factors, scaled

    def _require_saved(self, merged: Iterable[str], given: set[str]) -> None:
        """Raise `CheckpointError` if the file lacks parameters of modules that the adapter replaces."""
        for module in self.settings.get("modules_to_save", []):
            lacking = [name for name in merged if self._match(rf"(^|.*\.){module}\.", name) and name not in given]
            if lacking:
                raise CheckpointError(
                    f"{self.file}: lacks {lacking[0]}, though modules_to_save in {ADAPTER_FILE} names "
                    f"{quoted(module)}; copy the folder again"
                )

    def _misfit(self, module: str, ours: Array, theirs: Array, base: Path) -> CheckpointError:
        return CheckpointError(
            f"{self.file}: {module} is {list(ours.shape)}, and {list(theirs.shape)} in its base {base}: it is of "
            "another model, or of one with added tokens"
        )


def weights_of(folder: Path) -> Optional[Path]:
    """Return the file of an adapter's arrays; None if there is none."""
    return next((folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()), None)


def _aligned(arrays: dict[str, Array], modules: list[str]) -> tuple[dict[str, Array], Callable[[str], str]]:
    """Return a base's arrays, and a function from an adapter's names of parameters to those of the arrays.

    Models with a head have a prefix before their encoder's names (`bert.`), encoders alone have none. Where the adapter
    has it and the base has not, the base's names get it; where the base has it, the adapter's names do.

    modules: the adapter's names of modules
    """
    known = {name.rpartition(".")[0] for name in arrays}
    plain = [module.removesuffix(_WRAPPED) for module in modules]
    firsts = {name.partition(".")[0] for name in plain if "." in name}
    best, prefix, is_ours = sum(module in known for module in plain), "", False
    for first in sorted(firsts):
        found = sum(module.startswith(f"{first}.") and module[len(first) + 1 :] in known for module in plain)
        if found > best:
            best, prefix, is_ours = found, f"{first}.", True
    for first in sorted({name.partition(".")[0] for name in known if "." in name}):
        found = sum(f"{first}.{module}" in known for module in plain)
        if found > best:
            best, prefix, is_ours = found, f"{first}.", False
    if is_ours:
        return {f"{prefix}{name}": array for name, array in arrays.items()}, lambda name: name
    return dict(arrays), lambda name: f"{prefix}{name}" if f"{prefix}{name}" in arrays else name


def named_adapters(folder: Path) -> list[str]:
    """Return the names of the adapters in a folder's subfolders, where peft saves all but the default one."""
    return sorted(path.parent.name for path in folder.glob(f"*/{ADAPTER_FILE}"))


def as_adapter(
    changes: Mapping[str, tuple[Array, Array]], replaced: Mapping[str, Array], rank: int, settings: UncheckedObject
) -> tuple[UncheckedObject, dict[str, Array]]:
    """Make a LoRA of changed matrices; return the contents of `adapter_config.json` and the arrays of its file.

    changes: by module, its matrix `[outputs, inputs]` before and after
    replaced: new values of other parameters, by name
    rank: maximum rank of the changes
    settings: base, task and names of modules with other parameters (`modules_to_save`)

    Raises `CheckpointError` if a change is of a higher rank.
    """
    arrays = {f"{_PREFIX}{name}": np.ascontiguousarray(array, np.float32) for name, array in replaced.items()}
    for module, (before, after) in changes.items():
        change = after.astype(np.float32) - before.astype(np.float32)
        down, up = _factors(change, rank)
        rounding = np.finfo(np.float32).eps * np.linalg.norm(after)  # of the sums of both
        if np.linalg.norm(change - up @ down) > max(rounding, _INEXACT * np.linalg.norm(change)):
            raise CheckpointError(f"{module} differs from it by a matrix of a rank above {rank}")
        arrays[f"{_PREFIX}{module}.lora_A.weight"] = down
        arrays[f"{_PREFIX}{module}.lora_B.weight"] = up
    stated = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": [*changes], "bias": "none"}
    return {**stated, "lora_dropout": 0.0, "inference_mode": True, **settings}, arrays


def _factors(matrix: Array, rank: int) -> tuple[Array, Array]:
    """Factorise a matrix of at most this rank; return `[rank, inputs]` and `[outputs, rank]`, whose product it is.

    Its columns are found in the span of a few random sums of them (Halko, Martinsson and Tropp, 2011), in a time that
    grows with the matrix's size times the rank.
    """
    sums = matrix @ np.random.default_rng(0).standard_normal((matrix.shape[1], rank + 8)).astype(np.float32)
    basis = np.linalg.qr(sums)[0]
    left, values, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    roots = np.sqrt(values[:rank])
    lacking = rank - len(roots)  # a side is shorter than the rank
    down = np.pad(roots[:, None] * right[:rank], ((0, lacking), (0, 0)))
    up = np.pad(basis @ left[:, :rank] * roots, ((0, 0), (0, lacking)))
    return np.ascontiguousarray(down, np.float32), np.ascontiguousarray(up, np.float32)
