"""The training objective: a single number, and its parts by name, from a model's outputs and a batch's labels."""

from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp

from mtl_jax import tasks as task_table
from mtl_jax.losses.masked import LabelCounts
from mtl_jax.losses.terms import TaskLoss
from mtl_jax.nn.resize import resize_like
from mtl_jax.outputs import Outputs


class Objective:
    """The weighted sum of the losses of all predictions that a model makes.

    total = sum over tasks t of w_t L_t, plus the same sum for every set of intermediate predictions, which are resized
    to the label (arXiv 1805.04409, eq. 1; arXiv 2001.06902, sec. 4).

    Args:
        tasks: Main tasks.
        weights: {task: w_t}; by default the weights of the task table.
        losses: {task: its loss in the notation of `mtl_jax.losses.terms`, with numbers in place of measured values}; by
            default the losses of the task table.

    Raises:
        ValueError: One of the weights is for an unknown task.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        weights: Mapping[str, float] | None = None,
        losses: Mapping[str, str] | None = None,
    ):
        self.tasks = tuple(tasks)
        defaults = {name: task.loss_weight for name, task in task_table.TASKS.items()}
        if unknown := set(weights or {}) - set(defaults):
            raise ValueError(f"loss weights for unknown tasks {sorted(unknown)}; the tasks are {', '.join(defaults)}")
        self.weights = defaults | dict(weights or {})
        self.losses = {name: task.loss for name, task in task_table.TASKS.items()} | dict(losses or {})

    def __call__(
        self, outputs: Outputs, batch: Mapping[str, jax.Array], counts: Mapping[str, LabelCounts] | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Computes the total and its components without weights.

        The components are `<task>` for the final predictions, `<name>_<task>` for intermediate ones (`deepsup_<task>`
        of PAD-Net, `scale_<k>_<task>` of MTI-Net), and `total`. A loss of several terms has the components
        `<task>/<term>`, too, which add up to `<task>`.

        Args:
            outputs: Predictions of the model for `batch["image"]`.
            batch: {task: label `[B, H, W, C]`}; other entries are ignored.
            counts: Counts of the labels of a larger batch (`count_labels`) that this batch is a part of. The losses of
                the parts then add up to the loss of the larger batch.
        """
        total = jnp.zeros(())
        components: dict[str, jax.Array] = {}
        for name, task, loss, terms in self._losses(outputs, batch, counts):
            components |= {name: loss} | terms
            total = total + self.weights[task] * loss
        return total, components | {"total": total}

    def by_task(
        self, outputs: Outputs, batch: Mapping[str, jax.Array], counts: Mapping[str, LabelCounts] | None = None
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Computes each task's loss without weights, and the components as a call does.

        Args:
            outputs: Predictions of the model for `batch["image"]`.
            batch: {task: label `[B, H, W, C]`}; other entries are ignored.
            counts: As for a call.

        Returns:
            ({task: sum of the losses of its final and intermediate predictions}, {component: loss}).
        """
        sums: dict[str, jax.Array] = {}
        components: dict[str, jax.Array] = {}
        for name, task, loss, terms in self._losses(outputs, batch, counts):
            components |= {name: loss} | terms
            sums[task] = sums[task] + loss if task in sums else loss
        total = sum((self.weights[task] * loss for task, loss in sums.items()), jnp.zeros(()))
        return sums, components | {"total": total}

    def _losses(
        self, outputs: Outputs, batch: Mapping[str, jax.Array], counts: Mapping[str, LabelCounts] | None
    ) -> Iterator[tuple[str, str, jax.Array, dict[str, jax.Array]]]:
        """Yields (component, task, loss, {component of a term: its part of the loss}) for every prediction."""
        for name, task, prediction in self._predictions(outputs):
            label = batch[task]
            prediction = prediction.astype(jnp.promote_types(prediction.dtype, jnp.float32))
            prediction = resize_like(prediction, label)
            values = TaskLoss(self.losses[task], task).terms(prediction, label, counts[task] if counts else None)
            first, *others = values.values()
            terms = {f"{name}/{term}": value for term, value in values.items()} if others else {}
            yield name, task, sum(others, first), terms

    def _predictions(self, outputs: Outputs) -> Iterator[tuple[str, str, jax.Array]]:
        """Yields (component, task, logits) for every prediction."""
        for name, predictions in outputs.intermediate.items():
            for task in task_table.ordered(predictions):
                yield f"{name}_{task}", task, predictions[task]
        for task in self.tasks:
            yield task, task, outputs.logits[task]
