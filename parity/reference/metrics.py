"""The scores of every task, written once more: image by image, threshold by threshold, all in float64.

Each function takes a data set as a sequence of (prediction, label) of single images, without a batch axis and of any
size, in the forms that `mtl_jax.evaluation.predictions.postprocess` and the input pipeline deliver. 255 marks pixels
without a label; a score of nothing is NaN.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mtl_jax.tasks import IGNORE

Images = Iterable[tuple[np.ndarray, np.ndarray]]


def _double(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(x)).double()


def _quotient(a: float, b: float, empty: float = math.nan) -> float:
    return float(a) / float(b) if b else empty


def _mean(values: Sequence[float]) -> float:
    return _quotient(math.fsum(values), len(values))


def _median(values: Tensor) -> float:
    """The middle value, or the mean of the two middle ones."""
    ordered, n = values.sort().values, len(values)
    return float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2 if n else math.nan


def segmentation(images: Images, num_classes: int, skip_empty: bool = False) -> dict:
    """Class maps `[H, W]` against `[H, W, 1]`.

    LabelCounts are those of the whole data set. `mIoU` averages over all classes, with 0 for those that never occur;
    `mean_accuracy` over the classes that occur in the labels.

    Args:
        skip_empty: leave out images whose label is 0 everywhere or 255 everywhere.
    """
    pixels = []  # (prediction, label) of all labelled pixels
    for prediction, label in images:
        p, g = _double(prediction), _double(label)[..., 0]
        if skip_empty and (bool((g == 0).all()) or bool((g == IGNORE).all())):
            continue
        pixels.append((p[g != IGNORE], g[g != IGNORE]))
    p, g = (torch.cat([pair[i] for pair in pixels]) for i in (0, 1))
    ious, accuracies = [], []
    for c in range(num_classes):
        tp = ((p == c) & (g == c)).sum()
        ious.append(_quotient(tp, ((p == c) | (g == c)).sum(), empty=0.0))
        if (g == c).any():
            accuracies.append(_quotient(tp, (g == c).sum()))
    return {
        "mIoU": _mean(ious),
        "per_class_IoU": ious,
        "pixel_accuracy": _quotient((p == g).sum(), len(g)),
        "mean_accuracy": _mean(accuracies),
    }


def saliency(images: Images, thresholds: Sequence[float] = tuple(np.linspace(0.2, 0.9, 15))) -> dict:
    """Maps in 0..255 `[H, W, 1]` against `[H, W, 1]`, of which everything but 0 and 255 is foreground.

    Pixels labelled 255 and images without another label are left out. For each threshold the Jaccard index (1 where
    prediction and label are empty), precision and recall (0 where undefined) of each image, then their means over
    images; `mIoU` and `maxF` are the best over thresholds.
    """
    images, rows = list(images), []
    for threshold in thresholds:
        scores = []
        for prediction, label in images:
            labelled = _double(label) != IGNORE
            if not labelled.any():
                continue
            p, g = (_double(prediction) / 255 > threshold)[labelled], (_double(label) != 0)[labelled]
            both = (p & g).sum()
            jaccard = _quotient(both, (p | g).sum(), empty=1.0)
            scores.append((jaccard, _quotient(both, p.sum(), empty=0.0), _quotient(both, g.sum(), empty=0.0)))
        jaccard, precision, recall = (_mean(column) for column in zip(*scores, strict=True))
        rows.append((jaccard, precision, recall, _quotient(2 * precision * recall, precision + recall, empty=0.0)))
    names = ("IoU_per_threshold", "precision_per_threshold", "recall_per_threshold", "F_per_threshold")
    table = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return {**table, "mIoU": max(table["IoU_per_threshold"]), "maxF": max(table["F_per_threshold"])}


def angles(prediction: np.ndarray, label: np.ndarray) -> Tensor:
    """Degrees between directions at the labelled pixels of an image, `[N]`.

    Args:
        prediction: unit vectors mapped to 0..255, `[H, W, 3]`.
        label: vectors `[H, W, 3]`, without a label where they are 255 in all channels, or zero.
    """
    p, g = _double(prediction) / 255 * 2 - 1, _double(label)
    labelled = ~((g == IGNORE).all(dim=-1) | (g == 0).all(dim=-1))
    p, g = p[labelled], g[labelled]
    # The angle from its tangent: of the cosine, the arc is inaccurate where it is near 1.
    return torch.rad2deg(torch.atan2(torch.linalg.cross(p, g).norm(dim=-1), (p * g).sum(dim=-1)))


def normals(images: Images) -> dict:
    """Mean, median and root mean square of the angle over all pixels, and percentages of pixels below limits."""
    angle = torch.cat([angles(prediction, label) for prediction, label in images])
    return {
        "mean": float(angle.mean()),
        "median": _median(angle),
        "rmse": math.sqrt(angle.square().mean()),
        **{f"{limit:g}": 100 * _quotient((angle < limit).sum(), len(angle)) for limit in (11.25, 22.5, 30.0)},
    }


def _depth_errors(p: Tensor, g: Tensor) -> dict[str, float]:
    """Of pixels `[N]` in metres."""
    worst = torch.maximum(p / g, g / p)
    return {
        "rmse": math.sqrt((p - g).square().mean()),
        "log_rmse": math.sqrt((p.log() - g.log()).square().mean()),
        "abs_rel": float(((p - g).abs() / g).mean()),
        "sq_rel": float(((p - g).square() / g).mean()),
        **{f"delta{k}": float((worst < 1.25**k).double().mean()) for k in (1, 2, 3)},
    }


def depth(images: Images, protocol: str = "image") -> dict:
    """Metres `[H, W, 1]` against `[H, W, 1]`, which are neither 255 nor 0 at valid pixels.

    Predictions are raised to 1e-9.

    Args:
        protocol: "image": mean over images, of `log_rmse` the median, without images that have no valid pixel;
            "pixel": over all pixels of the data set.
    """
    valid = []  # (prediction, label) of each image
    for prediction, label in images:
        p, g = _double(prediction).clamp(min=1e-9), _double(label)
        mask = (g != IGNORE) & (g != 0)
        if mask.any():
            valid.append((p[mask], g[mask]))
    if protocol == "pixel":
        valid = [(torch.cat([p for p, _ in valid]), torch.cat([g for _, g in valid]))]
    scores = [_depth_errors(p, g) for p, g in valid]
    out = {key: _mean([score[key] for score in scores]) for key in scores[0]}
    return {**out, "log_rmse": _median(torch.tensor([score["log_rmse"] for score in scores], dtype=torch.float64))}


def edge(images: Images, pos_weight: float = 0.95) -> dict:
    """Balanced cross-entropy of probabilities in 0..255 `[H, W, 1]` against `[H, W, 1]`, the mean over labelled pixels.

    Probabilities keep a distance of float32's epsilon from 0 and 1.
    """
    losses, eps = [], torch.finfo(torch.float32).eps
    for prediction, label in images:
        p, positive = (_double(prediction) / 255).clamp(eps, 1 - eps), _double(label) >= 0.5
        loss = torch.where(positive, -pos_weight * p.log(), -(1 - pos_weight) * (1 - p).log())
        losses.append(loss[_double(label) != IGNORE])
    return {"loss": float(torch.cat(losses).mean())}


def multi_task_performance(
    scores: Mapping[str, float], reference: Mapping[str, float], lower_is_better: Iterable[str]
) -> float:
    """Mean relative gain of {task: deciding score} over a reference, as a fraction."""
    signs = {task: -1 if task in lower_is_better else 1 for task in scores}
    return _mean([signs[task] * (scores[task] - reference[task]) / reference[task] for task in scores])
