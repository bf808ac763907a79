"""The picture of a learning-rate range test."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot

from mtl_jax.reports import figures
from mtl_jax.train.lr_finder import RangeTest

PICTURE = "lr_finder.png"  # file in a work directory
_HEADROOM = 0.4  # share of the height above the losses of useful rates, in which the rising loss is shown


def draw(test: RangeTest, title: str, workdir: Path) -> Path:
    """Draws the loss over the learning rate, with the suggestion, and returns the path of the PNG file.

    Args:
        test: The range test.
        title: What was trained: model and data for example.
        workdir: Folder of the file.
    """
    figure, axes = pyplot.subplots(figsize=figures.SIZE)
    axes.plot(test.rates, test.losses, color="0.75", linewidth=1, label="loss of a batch")
    axes.plot(test.rates, test.smoothed, color="C0", linewidth=2, label="smoothed loss")
    axes.set_xscale("log")
    axes.set(xlabel="learning rate, which rises from step to step", ylabel="total training loss", title=title)
    _limit_height(axes, test)
    if test.suggestion is not None:
        loss = test.smoothed[test.rates.index(test.suggestion)]
        axes.axvline(test.suggestion, color="C3", linewidth=1, linestyle="--")
        label = f"suggestion {test.suggestion:.1e}: the smoothed loss falls fastest"
        axes.plot(test.suggestion, loss, "o", color="C3", label=label)
    axes.legend(fontsize="small", loc="upper left")
    axes.grid(alpha=0.3)
    return figures.save(figure, workdir / PICTURE)


def _limit_height(axes: pyplot.Axes, test: RangeTest) -> None:
    """Cuts off losses of diverged steps, beside which all others would look flat."""
    if not test.smoothed:
        return
    low = min(test.losses)
    high = float(np.quantile(test.losses, 0.9))
    high = max(high, test.smoothed[0])
    axes.set_ylim(low - 0.05 * (high - low) - 1e-9, high + _HEADROOM * (high - low) + 1e-9)
