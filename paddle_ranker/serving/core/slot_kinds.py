"""Registry of slots: which models and indexes a server may have, and the options of `serve` that name their folders.

    SLOTS.add("vectors", SlotKind("model of vectors", "vector_model", VectorOptions, VectorSlot))

in a module that `PADDLE_RANKER_PLUGINS` names gives `serve` the option `--vector_model FOLDER`. Endpoints name the
slots that they ask (`paddle_ranker.serving.http.endpoints`): one may ask several in a request, under one deadline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

from paddle_ranker.errors import UsageError
from paddle_ranker.model.info import BLEND
from paddle_ranker.model.kinds import stated_kind
from paddle_ranker.options import Options
from paddle_ranker.registry import Registry
from paddle_ranker.scoring.engines.registry import ENGINES
from paddle_ranker.serving.core.config import RANKER, ServeConfig

if TYPE_CHECKING:
    from paddle_ranker.serving.core.slots import Served, Slot


@dataclass(frozen=True)
class SlotKind:
    """A slot that a server may have.

    Modules that define one are imported before the options are read: what takes long to import, `make` and the slot's
    methods import.

    what: it is called in error texts, "ranker"
    option: of `serve`, names the folder; its value is an attribute of `options`
    options: what `serve` accepts for it
    make: makes the slot of its own options and the server's; its model comes later
    kinds: of models that it takes: `serve FOLDER` finds the slot by the kind of the model in the folder
    limits: those of the options that are limits, for `/info`
    needs_paddle: whether Paddle is imported with the model
    """

    what: str
    option: str
    options: type[Options]
    make: Callable[[ServeConfig], Slot[Served]]
    kinds: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    needs_paddle: Callable[[ServeConfig], bool] = lambda config: True

    def given(self, config: ServeConfig) -> Union[ServeConfig, Options]:
        """Return the slot's own options: `config` itself where it has them, else their defaults."""
        return config if isinstance(config, self.options) else self.options()

    def folder(self, config: ServeConfig) -> Optional[Path]:
        """Return the folder; None: this server has no such slot."""
        found = getattr(self.given(config), self.option)
        return None if found is None else Path(found)


SLOTS: Registry[SlotKind] = Registry("served model", recipes="plugin")


def serve_options() -> type[ServeConfig]:
    """Return the class of `serve`'s options: `ServeConfig` with those of every slot that is registered."""
    others = dict.fromkeys(kind.options for kind in SLOTS.values() if not issubclass(ServeConfig, kind.options))
    return dataclasses.make_dataclass("ServeOptions", [], bases=(*others, ServeConfig), frozen=True)


def with_folder_in_slot(config: ServeConfig) -> ServeConfig:
    """Return the configuration with its `folder` in the option of the slot that takes models of its kind.

    Raises `UsageError` where the option names another one, `CheckpointError` for a damaged folder.
    """
    if config.folder is None:
        return config
    name = stated_kind(config.folder) if config.folder.exists() else None
    # What is no model of a slot is refused as a ranker is that cannot be loaded.
    slot = next((kind for kind in SLOTS.values() if name in kind.kinds), SLOTS[RANKER])
    if slot.folder(config) is not None:
        raise UsageError(
            f"{config.folder} and --{slot.option} {slot.folder(config)} are both the {slot.what}: give one"
        )
    # mypy knows the options of a class that is made of all slots' as little as we do.
    return dataclasses.replace(config, folder=None, **{slot.option: str(config.folder)})  # type: ignore[arg-type]


def served_by(config: ServeConfig) -> dict[str, SlotKind]:
    """Return the slots that this server has, by name; raises `UsageError` where there are none."""
    found = {name: kind for name, kind in SLOTS.items() if kind.folder(config) is not None}
    if not found:
        options = " or ".join(f"--{kind.option}" for kind in SLOTS.values())
        raise UsageError(f"nothing to serve: give {options}")
    return found


def _ranker_slot(config: ServeConfig) -> Slot[Served]:
    from paddle_ranker.serving.core.ranker_slot import RankerSlot

    return RankerSlot(config)


def _needs_paddle(config: ServeConfig) -> bool:
    return config.engine is None or ENGINES[config.engine].needs_paddle


SLOTS.add(
    RANKER,
    SlotKind(
        RANKER, "model", ServeConfig, _ranker_slot, ("pairwise", "cross_encoder", BLEND), needs_paddle=_needs_paddle
    ),
)
