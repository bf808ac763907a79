"""The training objective: a model's outputs and a batch's labels to one number, and all its parts by name."""

from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp

from mtl_jax import tasks as task_table
from mtl_jax.losses.masked import LabelCounts
from mtl_jax.losses.registry import LOSSES
from mtl_jax.nn.resize import resize_like


class Objective:
    """Weighted sum of the losses of all predictions a model makes.

    total = sum over tasks t of w_t L_t, plus the same with the same weights for every intermediate prediction, resized
    to the label (arXiv 1805.04409, eq. 1; arXiv 2001.06902, sec. 4). Which those are shows in the outputs.

    Args:
        tasks: main tasks.
        weights: {task: w_t}; by default the task table's.
        losses: {task: name of its loss in `LOSSES`}; by default the task table's.
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
        self, outputs: Mapping, batch: Mapping[str, jax.Array], counts: Mapping[str, LabelCounts] | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Total and unweighted components: `<task>`, `deepsup_<task>` (PAD-Net), `scale_<k>_<task>` (MTI-Net), `total`.

        Args:
            outputs: what the model returned for `batch["image"]`.
            batch: {task: label `[B, H, W, C]`} among others.
            counts: `count_labels` of the batch that this one is a part of; the parts' losses add up to the whole's.
        """
        total = jnp.zeros(())
        components = {}
        for name, task, loss in self._losses(outputs, batch, counts):
            components[name] = loss
            total = total + self.weights[task] * loss
        return total, components | {"total": total}

    def by_task(
        self, outputs: Mapping, batch: Mapping[str, jax.Array]
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """{task: sum of its losses, final and intermediate predictions', without weights} and a call's components."""
        sums: dict[str, jax.Array] = {}
        components = {}
        for name, task, loss in self._losses(outputs, batch, None):
            components[name] = loss
            sums[task] = sums[task] + loss if task in sums else loss
        total = sum((self.weights[task] * loss for task, loss in sums.items()), jnp.zeros(()))
        return sums, components | {"total": total}

    def _losses(
        self, outputs: Mapping, batch: Mapping[str, jax.Array], counts: Mapping[str, LabelCounts] | None
    ) -> Iterator[tuple[str, str, jax.Array]]:
        """(component name, task, loss) of every prediction in the outputs."""
        for name, task, prediction in self._predictions(outputs):
            label = batch[task]
            prediction = prediction.astype(jnp.promote_types(prediction.dtype, jnp.float32))
            prediction = resize_like(prediction, label)
            loss = LOSSES[self.losses[task]]
            yield name, task, loss(prediction, label, counts=counts[task] if counts else None)

    def _predictions(self, outputs: Mapping) -> Iterator[tuple[str, str, jax.Array]]:
        """(component name, task, logits) of every prediction in the outputs."""
        for scale, predictions in outputs.get("deep_supervision", {}).items():
            for task in task_table.ordered(predictions):
                yield f"{scale}_{task}", task, predictions[task]
        for task in task_table.TASKS:
            if f"initial_{task}" in outputs:
                yield f"deepsup_{task}", task, outputs[f"initial_{task}"]
        for task in self.tasks:
            yield task, task, outputs[task]
