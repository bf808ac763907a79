"""Losses and the training objective. Predictions and labels are `[B, C, H, W]`; 255 marks pixels without a label.

Where nothing is valid the loss is 0 with zero gradient, as in `mtl_jax`; the recorded cross-entropy and depth losses
are NaN there. In the balanced cross-entropy 255 is a positive label as in the recorded numbers; `mtl_jax` ignores it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from mtl_jax import tasks as task_table
from mtl_jax.tasks import IGNORE
from parity.reference.blocks import resize


def softmax_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over labelled pixels; labels `[B, 1, H, W]` are truncated to integers."""
    classes = label[:, 0].long()
    total = functional.cross_entropy(logits, classes, ignore_index=IGNORE, reduction="sum")
    return total / (classes != IGNORE).sum().clamp(min=1)


def balanced_cross_entropy(
    logits: Tensor, label: Tensor, pos_weight: float | None = None, weight_dtype: torch.dtype | None = None
) -> Tensor:
    """Sigmoid cross-entropy, positives (label >= 0.5) weighted by w and negatives by 1 - w, over all elements.

    Args:
        pos_weight: w; by default the fraction of negatives in the batch.
        weight_dtype: in what precision that fraction and 1 minus it are rounded. The recorded float64 numbers were
            made with a float32 fraction: torch.float32 reproduces them, the default computes in the logits' dtype.
    """
    positive = label >= 0.5
    if pos_weight is None:
        weight = (~positive).to(weight_dtype or logits.dtype).mean()
    else:
        weight = torch.tensor(pos_weight, dtype=logits.dtype)
    weights = torch.where(positive, weight, 1 - weight).to(logits.dtype)
    target = positive.to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, target, weights, reduction="mean")


def normals_l1(prediction: Tensor, label: Tensor) -> Tensor:
    """L1 distance of the normalised prediction, over labelled elements (three per pixel)."""
    unit = prediction / (prediction.norm(dim=1, keepdim=True) + 1e-12)
    valid = label != IGNORE
    return torch.where(valid, (unit - label).abs(), 0).sum() / valid.sum().clamp(min=1)


def depth_l1(prediction: Tensor, label: Tensor) -> Tensor:
    """Mean absolute difference over labelled pixels."""
    valid = label != IGNORE
    return torch.where(valid, (prediction - label).abs(), 0).sum() / valid.sum().clamp(min=1)


def task_losses(weight_dtype: torch.dtype | None = None) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """{task: loss}; `weight_dtype` as in `balanced_cross_entropy`, for saliency."""
    return {
        "semseg": softmax_cross_entropy,
        "human_parts": softmax_cross_entropy,
        "sal": partial(balanced_cross_entropy, weight_dtype=weight_dtype),
        "normals": normals_l1,
        "edge": partial(balanced_cross_entropy, pos_weight=0.95),
        "depth": depth_l1,
    }


class Objective:
    """loss(outputs, labels) -> {component: unweighted loss, `total`: their weighted sum}.

    Components are `<task>` for the final predictions, `deepsup_<task>` for PAD-Net's initial ones, and
    `scale_<k>_<task>` for those of MTI-Net's scales; the latter two are resized to the label and have the weight of the
    final prediction.

    Args:
        tasks: main tasks.
        aux_tasks: tasks supervised at intermediate predictions.
        weights: {task: weight}; by default those of the task table.
        weight_dtype: as in `balanced_cross_entropy`.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        aux_tasks: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        weight_dtype: torch.dtype | None = None,
    ):
        self.tasks, self.aux_tasks = tuple(tasks), tuple(aux_tasks)
        self.weights = weights or {task: task_table.get(task).loss_weight for task in (*tasks, *aux_tasks)}
        self.functions = task_losses(weight_dtype)

    def __call__(self, outputs: Mapping, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        predictions = {}  # {(component, task): prediction}
        for scale, maps in outputs.get("deep_supervision", {}).items():
            predictions |= {(f"{scale}_{task}", task): maps[task] for task in self.aux_tasks}
        for task in self.aux_tasks:
            if f"initial_{task}" in outputs:
                predictions[f"deepsup_{task}", task] = outputs[f"initial_{task}"]
        predictions |= {(task, task): outputs[task] for task in self.tasks}
        losses, total = {}, 0
        for (component, task), prediction in predictions.items():
            label = labels[task]
            losses[component] = self.functions[task](resize(prediction, label.shape[-2:]), label)
            total = total + self.weights[task] * losses[component]
        return {**losses, "total": total}
