"""A picture of the curves of `learn`. Only this module needs matplotlib."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # writes files, also where there is no screen

from matplotlib import pyplot

from benchmarks.learn import Learned

_STYLES = ("-", "--", ":")


def draw(learned: Learned, path: Path) -> None:
    """Writes a picture: the losses over the steps, their distances, and the scores of the validation images."""
    figure, axes = pyplot.subplots(1, 2 + len(learned.criteria), figsize=(5 * (2 + len(learned.criteria)), 4))
    for i, (name, curve) in enumerate(learned.curves.items()):
        look = {"label": name, "color": f"C{i}", "linestyle": _STYLES[i % len(_STYLES)], "linewidth": 1.2}
        steps = range(1, len(curve.losses) + 1)
        axes[0].plot(steps, curve.losses, **look)
        if name != learned.reference:
            axes[1].semilogy(steps, learned.distances(name), **look)
        for place, task in zip(axes[2:], learned.criteria, strict=True):
            place.plot(list(curve.scores), [scores[task] for scores in curve.scores.values()], marker=".", **look)
    axes[0].set(xlabel="step", ylabel="training loss")
    axes[1].set(xlabel="step", ylabel=f"relative distance of the loss from {learned.reference}")
    for place, (task, metric) in zip(axes[2:], learned.criteria.items(), strict=True):
        place.set(xlabel="step", ylabel=f"{task} {metric}, validation images")
    for place in axes:
        place.grid(alpha=0.3)
        place.legend(fontsize="small")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
