"""Largest deviation per network and quantity, noted by the tests and printed at the end of the session."""

from collections.abc import Iterable, Sequence

from parity.cases import CASES

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


# {column of the table of methods: quantities}
COLUMNS = {
    "outputs": ("eval", "train", "buffers"),
    "losses": ("losses",),
    "gradients": ("gradients",),
    "steps": ("step losses", "steps"),
    "metrics": ("metrics",),
}
NOT_RUN = "NOT RUN"
PAGE = """# Every method beside PyTorch

`pytest parity --parity_seed {seed} --parity_table docs/parity.md` writes this page. Each row is a complete Flax network
beside its PyTorch twin, in float64, on weights, images and labels drawn from that seed. The numbers are the largest
relative deviations over all elements: of outputs in evaluation and training and running statistics, of losses, of the
gradient of every parameter, of two optimiser steps, and of the scores.
[parity/README.md](../parity/README.md) describes the comparison and its bounds.
"""


def _largest(deviations: Iterable[tuple[str, str, float]]) -> dict[str, dict[str, float]]:
    """{network: {quantity: largest deviation}}"""
    rows: dict[str, dict[str, float]] = {}
    for model, quantity, deviation in deviations:
        row = rows.setdefault(model, {})
        row[quantity] = max(row.get(quantity, 0.0), deviation)
    return rows


def table(deviations: Iterable[tuple[str, str, float]]) -> list[str]:
    """Lines of a text table, networks down, quantities across, the largest of each."""
    rows = _largest(deviations)
    columns = list(dict.fromkeys(quantity for row in rows.values() for quantity in row))
    cells = [["", *columns]]
    for model, row in sorted(rows.items()):
        cells.append([model, *(f"{row[column]:.1e}" if column in row else "" for column in columns)])
    return aligned(cells)


def of_methods(deviations: Iterable[tuple[str, str, float]]) -> list[list[str]]:
    """Cells of the table of all methods, with its heading: the largest deviation, or NOT RUN.

    A deviation of a method is one noted under its row's name.
    """
    rows = _largest(deviations)
    cells = [["method, backbone", *COLUMNS]]
    for case in CASES:
        row = rows.get(case.row, {})
        columns = [[row.get(quantity) for quantity in quantities] for quantities in COLUMNS.values()]
        cells.append([case.row, *(NOT_RUN if None in column else f"{max(column):.1e}" for column in columns)])
    return cells


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose columns are as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]


def page(cells: Sequence[Sequence[str]], seed: int) -> str:
    """The table of all methods as a page in Markdown."""
    heading, *rows = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([PAGE.format(seed=seed), heading, "|---" + "|---:" * len(COLUMNS) + "|", *rows, ""])
