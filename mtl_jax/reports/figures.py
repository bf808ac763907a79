"""Figures of matplotlib as PNG files. Only this module and those that import it need matplotlib."""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # writes files, also where there is no screen

from matplotlib import pyplot
from matplotlib.figure import Figure

from mtl_jax.runtime import atomic_files

SIZE = (8.0, 4.5)  # inches


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure as PNG, closes it, and returns the path."""
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, dpi=120)
    pyplot.close(figure)
    return atomic_files.write(path, content.getvalue())
