"""Registry of slots: which models and indexes a server may have, and the options of `serve` that name their folders.

A module that `PADDLE_RANKER_PLUGINS` names can add a slot. This one gives `serve` the option `--vector_model FOLDER`:

    SLOTS.add("vectors", SlotKind("model of vectors", "vector_model", VectorOptions, VectorSlot))

Endpoints name the slots that they use (`paddle_ranker.serving.http.endpoints`). A request to one endpoint may use
several slots, under one deadline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

from paddle_ranker.addresses import is_url
from paddle_ranker.errors import CheckpointError, UsageError, listed, quoted
from paddle_ranker.model import model_folder
from paddle_ranker.model.model_folder import AnyRole, identify
from paddle_ranker.model.paddlenlp_names import unknown_name
from paddle_ranker.options import Options
from paddle_ranker.registry import Registry
from paddle_ranker.scoring.engines.engine_registry import ENGINES
from paddle_ranker.serving.core.server_config import RANKER_SLOT, ServeConfig
from paddle_ranker.serving.slots.index_options import INDEX, IndexSlotOptions
from paddle_ranker.serving.slots.index_options import LIMITS as INDEX_LIMITS
from paddle_ranker.serving.slots.tower_options import LIMITS as TOWER_LIMITS
from paddle_ranker.serving.slots.tower_options import TOWER_SLOT, TowerSlotOptions

if TYPE_CHECKING:
    from paddle_ranker.serving.slots.slots import Served, Slot


@dataclass(frozen=True)
class SlotKind:
    """A kind of slot that a server may have.

    Modules that define slots are imported before the options are parsed. So modules that take long to import must be
    imported in `make` and in the slot's methods.

    what: name of the model in error texts, "ranker"
    option: name of the option of `serve` that names the folder, a field of `options`
    options: class of the options that `serve` accepts for the slot
    make: called with a server's options; returns the slot, in which no model is loaded yet
    takes: role of the models that the slot accepts, by which `serve FOLDER` chooses the slot; None: it takes no models
    limits: names of the options that `/info` shows as limits
    needs_paddle: called with a server's options; returns whether loading the model imports Paddle
    takes_encoders: whether the slot also accepts encoders, so that the folder may be a PaddleNLP name
    """

    what: str
    option: str
    options: type[Options]
    make: Callable[[ServeConfig], Slot[Served]]
    takes: Optional[AnyRole] = None
    limits: tuple[str, ...] = ()
    needs_paddle: Callable[[ServeConfig], bool] = lambda config: True
    takes_encoders: bool = False

    def options_of(self, config: ServeConfig) -> Union[ServeConfig, Options]:
        """Return the slot's options: `config` if it is an instance of `options`, else the default options."""
        return config if isinstance(config, self.options) else self.options()

    def folder(self, config: ServeConfig) -> Optional[Path]:
        """Return the model's folder, or None if this server does not have the slot."""
        folder = getattr(self.options_of(config), self.option)
        return None if folder is None else Path(folder)


SLOTS: Registry[SlotKind] = Registry("served model", recipes="plugin")
# Options that `serve` accepts beside those of its slots, by a word for their subject.
SERVE_OPTIONS: Registry[type[Options]] = Registry("options of serve", recipes="plugin")


def serve_options() -> type[ServeConfig]:
    """Return the class of `serve`'s options: `ServeConfig` with the options of every slot, and `SERVE_OPTIONS`."""
    # By name, so that the help does not depend on which recipe was imported first.
    offered = {*(kind.options for kind in SLOTS.values()), *SERVE_OPTIONS.values()}
    others = sorted((kind for kind in offered if not issubclass(ServeConfig, kind)), key=lambda kind: kind.__name__)
    return dataclasses.make_dataclass("ServeOptions", [], bases=(*others, ServeConfig), frozen=True)


def with_folder_in_slot(config: ServeConfig) -> ServeConfig:
    """Return the configuration with its `folder` moved to the option of the slot that accepts the folder's model.

    If no slot accepts the model, `folder` moves to the ranker's option, and loading the ranker fails later. Raises
    `UsageError` if the option is set already, and `CheckpointError` for a damaged folder.
    """
    if config.folder is None:
        return config
    folder_type = identify(config.folder)
    # The ranker's slot gets a folder that no slot accepts, and refuses it when it loads; also an encoder, for which the
    # option --tower must be given.
    taking = (
        kind
        for kind in SLOTS.values()
        if kind.takes is not None and folder_type.kind is not None and kind.takes.fits(folder_type)
    )
    slot = next(taking, SLOTS[RANKER_SLOT])
    if slot.folder(config) is not None:
        raise UsageError(
            f"{config.folder} and --{slot.option} {slot.folder(config)} are both the {slot.what}: give one"
        )
    # mypy cannot know the fields of a class that is made of all slots' options.
    return dataclasses.replace(config, folder=None, **{slot.option: str(config.folder)})  # type: ignore[arg-type]


def with_tower_of_index(config: ServeConfig) -> ServeConfig:
    """Return the configuration with the index's own tower, if it has one, as the server's tower.

    Raises `UsageError` if the configuration names another tower, `CheckpointError` for a folder that is no index.
    """
    from paddle_ranker.retrieval.index.shards import shard_folders
    from paddle_ranker.retrieval.stored.manifest import read_manifest

    index = SLOTS[INDEX].folder(config)
    if index is None:
        return config
    first = shard_folders(index)[0]
    tower = read_manifest(first).tower
    tower_folder = SLOTS[TOWER_SLOT].folder(config)
    url = config.tower_url if isinstance(config, IndexSlotOptions) else None
    if (tower is not None and tower.is_at_url) != (url is not None):
        why = f"was not built with a tower behind a URL: leave out --tower {url}"
        if url is None:
            why = "a model behind a URL made its vectors: say where it is, --tower http://HOST/v1#MODEL"
        raise UsageError(f"{index}: {why}")
    if tower is None or tower.is_at_url:
        return config
    if tower_folder is not None:
        raise UsageError(f"--{SLOTS[TOWER_SLOT].option} {tower_folder}: {index} has its own; leave it out")
    return dataclasses.replace(config, **{SLOTS[TOWER_SLOT].option: first / tower.folder})  # type: ignore[arg-type]


def fit_models(config: ServeConfig, models: Sequence[Served]) -> None:
    """Check that the new tower fits the new index, and prepare the new ranker to score the index's stored states.

    models: the new models of all slots, before they get requests

    Raises `CheckpointError` if the tower's vectors have another size than the index's.
    """
    if SLOTS[INDEX].folder(config) is None:
        return
    from paddle_ranker.serving.slots.index_slot import ServedIndex
    from paddle_ranker.serving.slots.ranker_slot import ServedRanker
    from paddle_ranker.serving.slots.tower_slot import ServedTower

    (index,) = (model for model in models if isinstance(model, ServedIndex))
    vectors, copy = index.info.vectors, index.info.tower
    for model in models:
        if isinstance(model, ServedRanker) and index.states is not None:
            index.states.open(index.snapshot, model, config)
        if copy is not None and isinstance(model, ServedTower) and index.folder not in model.folder.parents:
            raise CheckpointError(f"{model.folder}: is not the tower of {index.folder}; was a link moved? load again")
        if vectors is not None and isinstance(model, ServedTower) and model.model.info.size != vectors.size:
            raise CheckpointError(
                f"{model.folder}: its vectors have {model.model.info.size} components, those of {index.folder} "
                f"{vectors.size}; give --tower what made them, or build the index again with this tower"
            )


def with_found_models(config: ServeConfig) -> ServeConfig:
    """Return the configuration with each model's folder in place of its name. Missing models are downloaded.

    Raises `UsageError` for a folder that does not exist.
    """
    from paddle_ranker.model.foreign.foreign_files import require_static
    from paddle_ranker.model.model_folder import find_with_tokenizer
    from paddle_ranker.model.pretrained import resolve_model

    config = _with_urls(config)
    require_static(config.model_name_or_path, config.folder, *(kind.folder(config) for kind in SLOTS.values()))
    if config.folder is not None:
        config = dataclasses.replace(config, folder=find_with_tokenizer(config.folder, config.model_name_or_path))
    config = with_tower_of_index(with_folder_in_slot(config))
    for kind in served_by(config).values():
        name = kind.folder(config)
        folder = None if name is None else find_with_tokenizer(name, config.model_name_or_path)
        if folder is None or (folder == name and folder.exists()):
            continue
        if not folder.exists() and not kind.takes_encoders:
            raise UsageError(f"--{kind.option} {folder}: there is no such folder; {unknown_name(str(folder))}")
        config = dataclasses.replace(config, **{kind.option: resolve_model(str(folder))})  # type: ignore[arg-type]
    return config


def _with_urls(config: ServeConfig) -> ServeConfig:
    """Move URLs of models to the fields of the index, whose searches ask them; raises `UsageError` without an index."""
    for slot, moved in ((TOWER_SLOT, "tower_url"), (RANKER_SLOT, "ranker_url")):
        option, url = SLOTS[slot].option, getattr(config, SLOTS[slot].option, None)
        if not is_url(url):
            continue
        from paddle_ranker.retrieval.index.model_urls import ModelUrl

        ModelUrl.parse(str(url), f"--{slot}")
        if SLOTS[INDEX].folder(config) is None:
            raise UsageError(f"--{slot} {url}: is asked by searches of an index: add --index, or name a folder")
        config = dataclasses.replace(config, **{option: None, moved: url})  # type: ignore[arg-type]
    return config


def config_for(folder: Path, **options: object) -> ServeConfig:
    """Return the configuration of a server for the model in a folder, in the slot that accepts the model."""
    SLOTS.load_plugins()
    return with_folder_in_slot(serve_options()(folder=folder, **options))  # type: ignore[arg-type]


def served_by(config: ServeConfig) -> dict[str, SlotKind]:
    """Return the slots that this server has, by name. Raises `UsageError` if it has none."""
    kinds = {name: kind for name, kind in SLOTS.items() if kind.folder(config) is not None}
    if not kinds:
        options = " or ".join(f"--{kind.option}" for kind in SLOTS.values())
        raise UsageError(f"nothing to serve: give {options}")
    for name in config.served_name:
        if (slot := name.rpartition("=")[0]) and slot not in kinds:
            raise UsageError(f"--served_name {name}: this server has no {quoted(slot)}, only {listed(kinds)}")
    return kinds


def _ranker_slot(config: ServeConfig) -> Slot[Served]:
    from paddle_ranker.serving.slots.ranker_slot import RankerSlot

    return RankerSlot(config)


def _index_slot(config: ServeConfig) -> Slot[Served]:
    from paddle_ranker.serving.slots.index_slot import IndexSlot

    return IndexSlot(config, config if isinstance(config, IndexSlotOptions) else IndexSlotOptions())


def _tower_slot(config: ServeConfig) -> Slot[Served]:
    from paddle_ranker.serving.slots.tower_slot import TowerSlot

    return TowerSlot(config, config if isinstance(config, TowerSlotOptions) else TowerSlotOptions())


def _needs_paddle(config: ServeConfig) -> bool:
    return config.engine is None or ENGINES[config.engine].needs_paddle


def _tower_needs_paddle(config: ServeConfig) -> bool:
    engine = (config.tower_engine if isinstance(config, TowerSlotOptions) else None) or config.engine
    return engine is None or ENGINES[engine].needs_paddle


SLOTS.add(
    RANKER_SLOT,
    SlotKind(RANKER_SLOT, "model", ServeConfig, _ranker_slot, model_folder.RANKER, needs_paddle=_needs_paddle),
)
SLOTS.add(
    INDEX,
    SlotKind(INDEX, "index", IndexSlotOptions, _index_slot, limits=INDEX_LIMITS, needs_paddle=lambda config: False),
)
SLOTS.add(
    TOWER_SLOT,
    SlotKind(
        TOWER_SLOT,
        TOWER_SLOT,
        TowerSlotOptions,
        _tower_slot,
        model_folder.SERVED_TOWER,
        TOWER_LIMITS,
        _tower_needs_paddle,
        takes_encoders=True,
    ),
)
