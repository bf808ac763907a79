"""Multi-modal distillation by attention, used by PAD-Net and MTI-Net."""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
from flax import nnx
from flax.typing import Dtype

from mtl_jax.nn import Conv, Sequential


class _SelfAttention(nnx.Module):
    """conv(x) * sigmoid(attention(x)), both 3x3 without bias."""

    def __init__(self, features: int, *, dtype: Dtype | None, rngs: nnx.Rngs):
        conv = partial(Conv, features, features, 3, dtype=dtype, rngs=rngs)
        self.attention = Sequential([conv(), nnx.sigmoid])
        self.conv = conv()

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x) * self.attention(x)


class TaskDistillation(nnx.Module):
    """Adds gated features of the other tasks to each main task (PAD-Net, arXiv 1805.04409, sec. 3.3, module C).

    out[t] = x[t] + sum over a != t of conv(x[a]) * sigmoid(attention(x[a])).

    Raises:
        ValueError: a main task is not among the auxiliary tasks.
    """

    def __init__(
        self, tasks: Sequence[str], aux_tasks: Sequence[str], features: int, *, dtype: Dtype | None, rngs: nnx.Rngs
    ):
        if missing := set(tasks) - set(aux_tasks):
            raise ValueError(
                f"every main task must be an auxiliary task too; missing: {', '.join(sorted(missing))}. "
                "Add them to data.aux_tasks"
            )
        self.tasks, self.aux_tasks = tuple(tasks), tuple(aux_tasks)
        self.self_attention = nnx.Dict(
            {
                task: nnx.Dict(
                    {a: _SelfAttention(features, dtype=dtype, rngs=rngs) for a in self.aux_tasks if a != task}
                )
                for task in self.tasks
            }
        )

    def __call__(self, x: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """{auxiliary task: [B, H, W, C]} -> {main task: [B, H, W, C]}"""
        out = {}
        for task in self.tasks:  # our own tuple: a dict that crossed jit comes back sorted
            gates = self.self_attention[task]
            out[task] = x[task] + sum(gates[a](x[a]) for a in self.aux_tasks if a != task)
        return out
