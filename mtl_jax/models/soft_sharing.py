"""One network for each task, with an exchange of features after some stages: what cross-stitch and NDDR-CNN share."""

from collections.abc import Callable, Mapping, Sequence
from operator import call
from typing import ClassVar

import jax
from flax import nnx

from mtl_jax.backbones import Backbone
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.nn import resize_like


class SoftSharing(MultiTaskModel):
    """A backbone and a head per task; after the given stages a unit mixes each of the maps over the tasks.

    Args:
        backbones: {task: backbone}, all of one kind, in task order.
        heads: {task: head}.
        stages: after which stages of the backbones to mix.
        make_unit: width of a map -> module from {task: `[B, H, W, C]`} to the same.
    """

    starts_from_single_task: ClassVar[bool] = True

    def __init__(
        self,
        backbones: Mapping[str, Backbone],
        heads: Mapping[str, nnx.Module],
        stages: Sequence[str],
        make_unit: Callable[[int], nnx.Module],
    ):
        self.tasks = tuple(backbones)
        self.backbone = nnx.Dict(backbones)
        self.heads = nnx.Dict(heads)
        first = backbones[self.tasks[0]]
        self.stages = (*first.stages, "heads")
        units: dict[str, nnx.Module] = {}
        for stage in stages:
            widths = first.stage_channels(stage)
            units |= {_unit_name(stage, i, len(widths)): make_unit(width) for i, width in enumerate(widths)}
        setattr(self, self.fusion, nnx.Dict(units))

    def backbones(self) -> tuple[Backbone, ...]:
        return tuple(self.backbone[task] for task in self.tasks)

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        units = getattr(self, self.fusion)
        maps = dict.fromkeys(self.tasks, (images,))
        outputs: dict[str, dict] = {task: {} for task in self.tasks}
        for stage in self.backbone[self.tasks[0]].stages:
            maps = {task: self.backbone[task].run_stage(stage, maps[task]) for task in self.tasks}
            number = len(maps[self.tasks[0]])
            for i in range(number):
                name = _unit_name(stage, i, number)
                if name in units:
                    mixed = self.run(stage, call, units[name], {task: maps[task][i] for task in self.tasks})
                    maps = {task: (*maps[task][:i], mixed[task], *maps[task][i + 1 :]) for task in self.tasks}
            for task in self.tasks:
                outputs[task][stage] = maps[task]
        out = {}
        for task in self.tasks:
            logits = self.run("heads", call, self.heads[task], self.backbone[task].select(outputs[task]))
            out[task] = resize_like(logits, images)
        return out


def _unit_name(stage: str, branch: int, branches: int) -> str:
    """`layer1`, or `stage2_0`, `stage2_1` where a stage has several maps."""
    return stage if branches == 1 else f"{stage}_{branch}"
