"""Multi-modal distillation by attention, which PAD-Net and MTI-Net have in common."""

from collections.abc import Mapping, Sequence

import jax
from flax import nnx

from mtl_jax.nn import Conv, Sequential, recomputable


class _SelfAttention(nnx.Module):
    """conv(x) * sigmoid(attention(x)), both 3x3 without bias."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.attention = Sequential([Conv(features, features, 3, rngs=rngs), nnx.sigmoid])
        self.conv = Conv(features, features, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x) * self.attention(x)


class TaskDistillation(nnx.Module):
    """Adds gated features of the other tasks to each main task (PAD-Net, arXiv 1805.04409, sec. 3.3, module C).

    out[t] = x[t] + sum over a != t of conv(x[a]) * sigmoid(attention(x[a])).

    Args:
        tasks: Main tasks in task order.
        aux_tasks: Auxiliary tasks in task order, the main ones among them.
        features: Number of channels of each task's features.
        rngs: Source of the initial weights.

    Raises:
        ValueError: A main task is not among the auxiliary tasks.
    """

    def __init__(self, tasks: Sequence[str], aux_tasks: Sequence[str], features: int, *, rngs: nnx.Rngs):
        if missing := set(tasks) - set(aux_tasks):
            raise ValueError(
                f"every main task must be an auxiliary task too; missing: {', '.join(sorted(missing))}. "
                "Add them to data.aux_tasks"
            )
        self.tasks, self.aux_tasks = tuple(tasks), tuple(aux_tasks)

        def gates(task: str) -> nnx.Dict:
            return nnx.Dict({a: _SelfAttention(features, rngs=rngs) for a in self.aux_tasks if a != task})

        self.self_attention = nnx.Dict({task: gates(task) for task in self.tasks})

    @recomputable
    def __call__(self, x: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """{auxiliary task: `[B, H, W, C]`} -> {main task: `[B, H, W, C]`}"""
        out = {}
        for task in self.tasks:  # self.tasks keeps its order; a dict that crossed jit comes back sorted
            gates = self.self_attention[task]
            out[task] = x[task] + sum(gates[a](x[a]) for a in self.aux_tasks if a != task)
        return out
