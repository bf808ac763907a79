"""Older names of fields and options, which still work."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

from mtl_jax.config.sections import Config

logger = logging.getLogger(__name__)


def with_new_names(config: Config) -> Config:
    """Returns the configuration with values that were given under older names under the new ones."""
    data = config.data
    if not data.protocol:
        return config
    note_new_name("data.protocol", "data.release")
    return dataclasses.replace(config, data=dataclasses.replace(data, release=data.protocol, protocol=""))


@functools.cache
def note_new_name(older: str, new: str) -> None:
    """Logs, once in a process, that an option has a new name."""
    logger.warning("%s is called %s now; the older name still works", older, new)


def _rename_protocol(content: Any) -> None:
    """Moves the value of `data.protocol`, the older name, to `data.release`."""
    data = content.get("data") if isinstance(content, dict) else None
    if isinstance(data, dict) and (release := data.pop("protocol", "")):
        note_new_name("data.protocol", "data.release")
        data["release"] = release


def _move_model_options(content: Any) -> None:
    """Moves the options of cross-stitch networks and NDDR-CNN, which were fields of `model`, into `model.options`."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        return
    names = ("alpha", "beta", "init_single_task", "single_task")
    moved = {name: model.pop(name) for name in names if name in model}
    if moved and model.get("name") in ("cross_stitch", "nddr_cnn"):
        model["options"] = moved | model.get("options", {})


# Each function rewrites, in place, what older versions stored under other names.
UPGRADES: tuple[Callable[[Any], None], ...] = (_rename_protocol, _move_model_options)
