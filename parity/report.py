"""Largest deviation per network and quantity, collected by the tests and printed at the end of the session."""

from collections.abc import Mapping

_deviations: dict[str, dict[str, float]] = {}


def record(model: str, quantity: str, deviation: float) -> float:
    """Notes a deviation, keeps the largest under each (model, quantity), and returns it unchanged."""
    row = _deviations.setdefault(model, {})
    row[quantity] = max(row.get(quantity, 0.0), float(deviation))
    return deviation


def table(deviations: Mapping[str, Mapping[str, float]] | None = None) -> list[str]:
    """Lines of a text table, models down, quantities across; none when nothing was recorded."""
    deviations = _deviations if deviations is None else deviations
    columns = list(dict.fromkeys(quantity for row in deviations.values() for quantity in row))
    if not columns:
        return []
    rows = [["", *columns]]
    for model, row in sorted(deviations.items()):
        rows.append([model, *(f"{row[column]:.1e}" if column in row else "" for column in columns)])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
