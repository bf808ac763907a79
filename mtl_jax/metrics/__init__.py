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
from mtl_jax.registry import Registry

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
    "register",
]


@dataclass(frozen=True)
class Options:
    """The settings that a metric may depend on.

    Attributes:
        num_classes: Number of logit channels of the task.
        depth_protocol: "image" (mean over the images of each image's RMSE) or "pixel" (over all pixels).
        final: The metric is that of the final protocol; otherwise it scores while training.
        empty_is_unlabelled: A label of nothing but class 0 means that the image has no label. The final protocol
            leaves such images out.
    """

    num_classes: int
    depth_protocol: str = "image"
    final: bool = False
    empty_is_unlabelled: bool = False


Factory = Callable[[Options], Metric]
METRICS: Registry[Factory] = Registry("metric", "metrics", "mtl_jax.metrics.register")


def register(name: str, factory: Factory) -> Factory:
    """Adds a metric, and returns its factory.

    Args:
        name: Name by which the rows of tasks know the metric.
        factory: Function or class that makes the metric from `Options`.

    Raises:
        ValueError: Another metric has this name.
    """
    return METRICS.register(name, factory)


def build(
    name: str,
    *,
    num_classes: int,
    depth_protocol: str = "image",
    final: bool = False,
    empty_is_unlabelled: bool = False,
) -> Metric:
    """Returns the metric of a name; the other arguments are the attributes of `Options`.

    Raises:
        ValueError: There is no such metric; the message lists those there are.
    """
    return METRICS[name](Options(num_classes, depth_protocol, final, empty_is_unlabelled))


def _segmentation(options: Options) -> Metric:
    return Segmentation(options.num_classes, skip_empty=options.final and options.empty_is_unlabelled)


register("semseg", _segmentation)
register("human_parts", _segmentation)
register("saliency", lambda options: Saliency())
register("normals", lambda options: Normals())
register("edge", lambda options: Edge())
register("depth", lambda options: Depth(options.depth_protocol))
