"""The models by name: how each is built, and which options it has."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flax import nnx

from mtl_jax import backbones, heads
from mtl_jax.backbones import Backbone
from mtl_jax.config import Config, Rules, rules_of
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.options import NoOptions
from mtl_jax.options import read as read_options
from mtl_jax.registry import Registry


@dataclass(frozen=True)
class ModelParts:
    """The parts that a model is made of, as a configuration asks for them.

    Attributes:
        name: Name of the model, a key of `MODELS`.
        num_outputs: {main task: number of logit channels} in task order.
        num_aux_outputs: {auxiliary task: number of logit channels} in task order. The auxiliary tasks are the main
            tasks where the configuration names none.
        backbone_name: Name of the backbone, a key of `mtl_jax.backbones.BACKBONES`.
        head_name: The heads in the notation of `mtl_jax.heads.build`; empty to choose by the backbone's maps.
        image_size: (height, width) of the network's inputs in pixels; None if it is not known.
        rngs: Source of the initial weights.
        task_heads: {main task: its head} of the tasks whose head is another one than `head_name`.
        regressions: {main task: regression of its values, see `mtl_jax.heads.build`}.
    """

    name: str
    num_outputs: Mapping[str, int]
    num_aux_outputs: Mapping[str, int]
    backbone_name: str
    head_name: str
    image_size: tuple[int, int] | None
    rngs: nnx.Rngs
    task_heads: Mapping[str, str] = dataclasses.field(default_factory=dict)
    regressions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The main tasks in task order."""
        return tuple(self.num_outputs)

    @property
    def aux_tasks(self) -> tuple[str, ...]:
        """The auxiliary tasks in task order."""
        return tuple(self.num_aux_outputs)

    def head(self, task: str) -> str:
        """Returns the head of a main task in the notation of `mtl_jax.heads.build`."""
        return self.task_heads.get(task, self.head_name)

    @property
    def reads_tokens(self) -> bool:
        """True if the heads read tokens of a transformer in place of maps.

        Raises:
            ValueError: Some heads read tokens and others read maps.
        """
        of_tokens = [task for task in self.tasks if heads.reads_tokens(self.head(task))]
        if of_maps := [task for task in self.tasks if of_tokens and task not in of_tokens]:
            tokens, maps = (f"the head {self.head(task) or 'default'!r}" for task in (of_tokens[0], of_maps[0]))
            raise ValueError(
                f"model.head and model.heads give {of_tokens[0]} {tokens}, which reads the tokens of a transformer, "
                f"and {of_maps[0]} {maps}, which reads maps; all heads of a model read the same"
            )
        return bool(of_tokens)

    def backbone(self) -> Backbone:
        """Builds a backbone that returns what the heads read; every call builds another one.

        Raises:
            ValueError: The heads read tokens, and the backbone has none.
        """
        backbone = backbones.build(self.backbone_name, image_size=self.image_size, rngs=self.rngs)
        if not self.reads_tokens:
            return backbone
        try:
            return backbone.for_tokens()
        except ValueError as error:
            head = self.head(self.tasks[0])
            raise ValueError(
                f"model.backbone is {self.backbone_name!r}, and {error}, which the head {head!r} reads; choose a "
                "vision transformer, for example dinov2_base, or another head"
            ) from error

    def plain_backbone(self, drop_path: float) -> Backbone:
        """Builds a backbone whose maps have one resolution where there is one of this name, else that of `backbone`.

        Args:
            drop_path: Rate of stochastic depth in the last block of a plain backbone.
        """
        return backbones.build_plain(
            self.backbone_name, image_size=self.image_size, drop_path=drop_path, rngs=self.rngs
        )

    def heads(self, backbone: Backbone) -> dict[str, nnx.Module]:
        """Builds a head for each main task that reads the maps or tokens of a backbone."""
        return {
            task: heads.build(
                self.head(task),
                backbone.channels,
                number,
                regression=self.regressions.get(task, ""),
                rngs=self.rngs,
            )
            for task, number in self.num_outputs.items()
        }

    def refuse_heads(self) -> None:
        """Checks that the configuration names no heads, for models with heads of their own.

        Raises:
            ValueError: The configuration names a head or a regression.
        """
        if self.head_name:
            raise ValueError(f"model {self.name} has its own heads; model.head is {self.head_name!r}, leave it empty")
        for name, value in {"model.heads": self.task_heads, "model.regression": self.regressions}.items():
            if any(value.values()):
                raise ValueError(f"model {self.name} has its own heads; {name} is {dict(value)}, leave it empty")

    def refuse_heads_of_tokens(self) -> None:
        """Checks that no head reads tokens, for models that compute with the maps before the heads.

        Raises:
            ValueError: A head reads tokens.
        """
        if self.reads_tokens:
            raise ValueError(
                f"model {self.name} computes with maps, and the head {self.head(self.tasks[0])!r} reads the tokens of "
                "a transformer; choose another head, or model.name=baseline"
            )

    def refuse_aux_tasks(self) -> None:
        """Checks that every auxiliary task is a main task, for models without intermediate predictions.

        Raises:
            ValueError: An auxiliary task is not a main task.
        """
        if extra := set(self.aux_tasks) - set(self.tasks):
            raise ValueError(
                f"model {self.name} has no intermediate predictions for the auxiliary tasks "
                f"{', '.join(sorted(extra))}; leave data.aux_tasks empty or make them main tasks"
            )


@dataclass(frozen=True)
class Method:
    """An entry of `MODELS`.

    Attributes:
        build: Function from parts and options to the model.
        options: Class of the options, a frozen dataclass.
        fusion: Name of the submodule whose parameters learn at `optim.fusion_lr_multiplier` times the rate.
    """

    build: Callable[[ModelParts, Any], MultiTaskModel]
    options: type
    fusion: str


BuildFunction = TypeVar("BuildFunction", bound=Callable[[ModelParts, Any], MultiTaskModel])

MODELS: Registry[Method] = Registry("model", "models", "mtl_jax.models.register")


def register(name: str, *, options: type = NoOptions, fusion: str = "") -> Callable[[BuildFunction], BuildFunction]:
    """Returns a decorator that registers the build function of a model, which `model.name` then may name::

        @models.register("my_net", options=MyOptions)
        def build_my_net(parts: ModelParts, options: MyOptions) -> MyNet:
            backbone = parts.backbone()
            return MyNet(backbone, parts.heads(backbone), width=options.width, rngs=parts.rngs)

    Args:
        name: Name of the model.
        options: A frozen dataclass whose fields, of type bool, int, float or str, are what `model.options` may hold.
            Its `__post_init__` may check values and raise a ValueError.
        fusion: Name of the submodule through which the tasks exchange features, if its parameters learn at
            `optim.fusion_lr_multiplier` times the rate of the others.

    Raises:
        ValueError: The name is taken.
    """

    def add(build: BuildFunction) -> BuildFunction:
        MODELS.register(name, Method(build, options, fusion))
        return build

    return add


def options(config: Config) -> Any:
    """Returns the options of a configuration's model: `model.options` over the defaults of the model's options class.

    Raises:
        ValueError: There is no such model, it has no such option, or the value of an option is impossible.
    """
    name = config.model.name
    return read_options(MODELS[name].options, config.model.options, field="model.options", owner=f"model {name}")


def option_fields(config: Config) -> Iterator[tuple[str, Any, Rules]]:
    """Yields ("model.options.NAME", value, rules) for every option of a configuration's model, given or default."""
    values = options(config)
    for field in dataclasses.fields(values):
        yield f"model.options.{field.name}", getattr(values, field.name), rules_of(field)


def fusions(config: Config) -> tuple[str, ...]:
    """Returns the names of the submodules that learn at `optim.fusion_lr_multiplier` times the rate of the others."""
    fusion = MODELS[config.model.name].fusion
    return (fusion,) if fusion else ()
