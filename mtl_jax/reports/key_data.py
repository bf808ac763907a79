"""Keys of drawings (`mtl_jax.labels.keys`) for a page: what the colours mean."""

from functools import singledispatch
from typing import Any

import numpy as np

from mtl_jax.labels.keys import Ball, Bar, Color, Key, Note, Swatches
from mtl_jax.reports.data_uris import DataUris

_NAMED = 12  # swatches that are listed
_STOPS = 16  # colours of a scale


@singledispatch
def key_data(key: Key, pictures: DataUris) -> dict[str, Any]:
    """Returns a key ready for JSON: its "form", and what belongs to it.

    Args:
        key: The key.
        pictures: Receives the pictures in the key, which are positions in `DataUris.uris` in the result.
    """
    raise TypeError(f"a page cannot show a key of the type {type(key).__name__}; the types are in mtl_jax.labels.keys")


@key_data.register
def _swatches(key: Swatches, pictures: DataUris) -> dict[str, Any]:
    entries = [
        {"name": name, "color": None, "picture": pictures.add(color)}
        if isinstance(color, np.ndarray) and color.ndim == 3
        else {"name": name, "color": _hex(color), "picture": None}
        for color, name in key.entries[:_NAMED]
    ]
    return {"form": "swatches", "entries": entries, "more": len(key.entries) - len(entries)}


@key_data.register
def _bar(key: Bar, pictures: DataUris) -> dict[str, Any]:
    stops = [_hex(key.colors[i]) for i in np.linspace(0, len(key.colors) - 1, _STOPS).round().astype(int)]
    values = {"low": f"{key.low:.3g}", "high": f"{key.high:.3g}", "unit": key.unit, "title": key.title}
    return {"form": "bar", "stops": stops, "clipped": key.clipped, **values}


@key_data.register
def _ball(key: Ball, pictures: DataUris) -> dict[str, Any]:
    return {"form": "ball", "picture": pictures.add(key.picture), "title": key.title, "lines": key.lines}


@key_data.register
def _note(key: Note, pictures: DataUris) -> dict[str, Any]:
    return {"form": "note", "text": key.text}


def _hex(color: Color | np.ndarray) -> str:
    red, green, blue = (int(value) for value in color)
    return f"#{red:02x}{green:02x}{blue:02x}"
