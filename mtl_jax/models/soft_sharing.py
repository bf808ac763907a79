"""Soft parameter sharing: one network per task, with an exchange of features after some stages."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
from flax import nnx

from mtl_jax.backbones import Backbone, Maps
from mtl_jax.config import option
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.models.registry import ModelParts
from mtl_jax.nn import resize_like
from mtl_jax.outputs import Outputs


@dataclass(frozen=True)
class SoftSharingOptions:
    """The options of cross-stitch networks and NDDR-CNN.

    Attributes:
        alpha: Initial weight of a task's own features where the tasks exchange features.
        beta: Initial weight of the features of every other task.
        init_single_task: Start from trained single-task models. If False, start from `model.pretrained`.
        single_task: Work directories or weights files of the single-task models, with `{task}` in place of the task's
            name.

    Raises:
        ValueError: alpha or beta is not finite.
    """

    alpha: float = 0.9
    beta: float = 0.1
    init_single_task: bool = option(True, may_change=True)
    single_task: str = option("", may_change=True, same_experiment=True)

    def __post_init__(self):
        for name, value in {"alpha": self.alpha, "beta": self.beta}.items():
            if not math.isfinite(value):
                raise ValueError(f"model.options.{name} is {value}; give a finite number")


class SoftSharing(MultiTaskModel):
    """A backbone and a head per task, and units that mix each map over the tasks after some stages.

    A subclass builds the units (`make_units`) and stores them as the attribute that `fusion` names.

    Args:
        backbones: {task: backbone} in task order, all of one kind.
        heads: {task: head}.
    """

    starts_from_single_task: ClassVar[bool] = True

    def __init__(self, backbones: Mapping[str, Backbone], heads: Mapping[str, nnx.Module]):
        self.tasks = tuple(backbones)
        self.backbone = nnx.Dict(backbones)
        self.heads = nnx.Dict(heads)
        self.stages = (*backbones[self.tasks[0]].stages, "heads")

    def make_units(self, stages: Sequence[str], make_unit: Callable[[int], nnx.Module]) -> nnx.Dict:
        """Builds the units that mix features.

        Args:
            stages: Stages of the backbones after which the tasks exchange features.
            make_unit: Function from a map's number of channels to a module from {task: `[B, H, W, C]`} to the same.
        """
        units: dict[str, nnx.Module] = {}
        for stage in stages:
            widths = self.backbone[self.tasks[0]].stage_channels(stage)
            units |= {name: make_unit(width) for name, width in zip(_unit_names(stage, widths), widths, strict=True)}
        return nnx.Dict(units)

    def backbones(self) -> tuple[Backbone, ...]:
        return tuple(self.backbone[task] for task in self.tasks)

    def parts(self, stage: str) -> Iterable[nnx.Module]:
        if stage == "heads":
            return self.heads.values()
        units, widths = self._units, self.backbone[self.tasks[0]].stage_channels(stage)
        return [units[name] for name in _unit_names(stage, widths) if name in units]

    def __call__(self, images: jax.Array) -> Outputs:
        maps: dict[str, Maps] = dict.fromkeys(self.tasks, (images,))
        outputs: dict[str, dict[str, Maps]] = {task: {} for task in self.tasks}
        for stage in self.backbone[self.tasks[0]].stages:
            maps = {task: self.backbone[task].run_stage(stage, maps[task]) for task in self.tasks}
            maps = self._exchange(stage, maps)
            for task in self.tasks:
                outputs[task][stage] = maps[task]
        logits = {task: self.heads[task](self.backbone[task].select(outputs[task])) for task in self.tasks}
        return Outputs({task: resize_like(x, images) for task, x in logits.items()})

    def _exchange(self, stage: str, maps: Mapping[str, Maps]) -> dict[str, Maps]:
        """Mixes the maps of a stage, each over the tasks; a map without a unit stays."""
        mixed: dict[str, list[jax.Array]] = {task: list(maps[task]) for task in self.tasks}
        for i, name in enumerate(_unit_names(stage, maps[self.tasks[0]])):
            if name in self._units:
                outputs = self._units[name]({task: maps[task][i] for task in self.tasks})
                for task in self.tasks:
                    mixed[task][i] = outputs[task]
        return {task: tuple(x) for task, x in mixed.items()}

    @property
    def _units(self) -> nnx.Dict:
        return getattr(self, self.fusion)


def make_columns(parts: ModelParts) -> tuple[dict[str, Backbone], dict[str, nnx.Module]]:
    """Builds ({task: backbone}, {task: head}), a network for each main task."""
    parts.refuse_aux_tasks()
    backbones = {task: parts.backbone() for task in parts.tasks}
    return backbones, parts.heads(backbones[parts.tasks[0]])


def _unit_names(stage: str, maps: Sequence[object]) -> list[str]:
    """Returns `layer1`, or `stage2_0`, `stage2_1` for a stage with several maps."""
    return [stage] if len(maps) == 1 else [f"{stage}_{i}" for i in range(len(maps))]
