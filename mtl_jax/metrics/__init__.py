"""Metrics of the tasks, computed from statistics of each image.

The statistics are computed on the device or on the host, and collected on the host. Pixels with the label 255 do not
count, so an image without a label changes no score. If no image has a label, the scores are NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mtl_jax.metrics.core import Accumulator, Metric, Result, Stats
from mtl_jax.metrics.depth import Depth
from mtl_jax.metrics.edge import Edge
from mtl_jax.metrics.multitask import deciding, delta_m
from mtl_jax.metrics.normals import Normals
from mtl_jax.metrics.saliency import Saliency
from mtl_jax.metrics.segmentation import Segmentation

__all__ = [
    "METRICS",
    "Accumulator",
    "Depth",
    "Edge",
    "Metric",
    "Normals",
    "Options",
    "Result",
    "Saliency",
    "Segmentation",
    "Stats",
    "build",
    "deciding",
    "delta_m",
]


@dataclass(frozen=True)
class Options:
    """What a metric may depend on besides its task.

    Attributes:
        num_classes: logit channels of the task.
        depth_protocol: "image" or "pixel".
        final: the final protocol instead of scores while training.
    """

    num_classes: int
    depth_protocol: str = "image"
    final: bool = False


METRICS: dict[str, Callable[[Options], Metric]] = {
    "semseg": lambda options: Segmentation(options.num_classes),
    "human_parts": lambda options: Segmentation(options.num_classes, skip_empty=options.final),
    "saliency": lambda options: Saliency(),
    "normals": lambda options: Normals(),
    "edge": lambda options: Edge(),
    "depth": lambda options: Depth(options.depth_protocol),
}


def build(name: str, *, num_classes: int, depth_protocol: str = "image", final: bool = False) -> Metric:
    """The metric of this name; the arguments are those of `Options`.

    Raises:
        ValueError: no such metric; the message lists those there are.
    """
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; the metrics are {', '.join(METRICS)}")
    return METRICS[name](Options(num_classes, depth_protocol, final))
