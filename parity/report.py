"""Largest deviation per network and quantity, noted by the tests and printed at the end of the session."""

from collections.abc import Iterable

PROPERTY = "deviation"  # name of the property that carries (network, quantity, deviation) in a test's report
_noted: list[tuple[str, tuple[str, str, float]]] = []


def record(model: str, quantity: str, deviation: float) -> float:
    """Notes a deviation for the report of the running test, and returns it unchanged."""
    _noted.append((PROPERTY, (model, quantity, float(deviation))))
    return deviation


def taken() -> list[tuple[str, tuple[str, str, float]]]:
    """What was noted since the last call."""
    noted = _noted.copy()
    _noted.clear()
    return noted


def table(deviations: Iterable[tuple[str, str, float]]) -> list[str]:
    """Lines of a text table, models down, quantities across, the largest of each; none when nothing was noted."""
    rows: dict[str, dict[str, float]] = {}
    for model, quantity, deviation in deviations:
        row = rows.setdefault(model, {})
        row[quantity] = max(row.get(quantity, 0.0), deviation)
    columns = list(dict.fromkeys(quantity for row in rows.values() for quantity in row))
    if not columns:
        return []
    cells = [["", *columns]]
    for model, row in sorted(rows.items()):
        cells.append([model, *(f"{row[column]:.1e}" if column in row else "" for column in columns)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
