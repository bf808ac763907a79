"""The size of a model and the work of one prediction, without computing anything or allocating a weight."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from mtl_jax import experiment, models
from mtl_jax.config import Config, aux_tasks, main_tasks
from mtl_jax.nn import isolate
from mtl_jax.nn.conv import convolve_overlaps

COLUMNS = ("model", "backbone", "data", "tasks", "parameters", "of the backbone", "rest", "multiply-adds")
# jax.image.resize is a jitted function of this name. It multiplies with matrices that are mostly zero, so its products
# say nothing about the work of an interpolation.
_RESIZE = "_resize"
_OVERLAPS = convolve_overlaps.__name__
_CONTROL_FLOW = ("scan", "while", "cond")


@dataclass(frozen=True)
class Summary:
    """What a model costs.

    Attributes:
        config: which model.
        parameters: number of trained numbers; running statistics do not count.
        backbone: those among them that are in the backbone, or the backbones of cross-stitch and NDDR-CNN.
        multiply_adds: of predicting one image, see `multiply_adds`.
        size: (height, width) of that image.
    """

    config: Config
    parameters: int
    backbone: int
    multiply_adds: int
    size: tuple[int, int]


def summarize(config: Config) -> Summary:
    """Counts a configuration's model, which predicts one image of the configured or the data set's resolution."""
    model = nnx.eval_shape(lambda: experiment.build_model(config))
    size = experiment.image_size(config)
    graphdef, state = nnx.split(models.evaluation_view(model))
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    work = multiply_adds(lambda state, image: nnx.merge(graphdef, state)(image), state, image)
    return Summary(config, parameters(model), sum(map(parameters, model.backbones())), work, size)


def parameters(module: nnx.Module) -> int:
    """Number of trained numbers in a module, abstract or not."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def multiply_adds(function: Callable, *arguments: Any) -> int:
    """Multiplications that `function(*arguments)` adds up in convolutions and matrix products.

    A convolution counts kernel height x kernel width x input channels per group for every output number, those at the
    border that multiply padding included; a matrix product its inner dimension for every output number. Normalisation,
    activations, pooling, additions and the interpolation of `jax.image.resize` do not count, as is usual.

    Args:
        arguments: arrays, or `jax.ShapeDtypeStruct`s for them.

    Raises:
        ValueError: the function has loops or branches, whose work depends on more than shapes.
    """
    with isolate.fused():  # which asks for no device: none is started to count
        return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, options = equation.primitive.name, equation.params
        if name in _CONTROL_FLOW:
            raise ValueError(
                f"multiply-adds inside {name} are not counted; write the function without loops or branches"
            )
        if name == "conv_general_dilated":
            kernel, layout = _shape(equation.invars[1]), options["dimension_numbers"].rhs_spec
            output, *_ = layout  # the kernel's axes: output channels, input channels per group, then the spatial ones
            total += math.prod(_shape(equation.outvars[0])) * math.prod(kernel) // kernel[output]
        elif name == "dot_general":
            ((contracted, _), _), left = options["dimension_numbers"], _shape(equation.invars[0])
            total += math.prod(_shape(equation.outvars[0])) * math.prod(left[axis] for axis in contracted)
        elif options.get("name") == _OVERLAPS:  # as the convolution that it is
            total += math.prod(_shape(equation.outvars[0])) * math.prod(_shape(equation.invars[1])[:3])
        elif options.get("name") != _RESIZE:
            total += sum(map(_count, _inner(options.values())))
    return total


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _inner(values: Any) -> Iterator[core.Jaxpr]:
    """The functions that an equation calls."""
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def table(summaries: Sequence[Summary], *, markdown: bool = False) -> str:
    """One line for each, parameters in millions (M) and multiply-adds in thousand millions (G)."""
    rows = [COLUMNS, *map(_row, summaries)]
    numeric = COLUMNS.index("parameters")
    columns = []
    for i, cells in enumerate(zip(*rows, strict=True)):
        width, right = max(map(len, cells)), i >= numeric
        column = [cell.rjust(width) if right else cell.ljust(width) for cell in cells]
        if markdown:
            column.insert(1, "-" * (width - 1) + (":" if right else "-"))
        columns.append(column)
    lines = zip(*columns, strict=True)
    return "\n".join(f"| {' | '.join(line)} |" if markdown else "  ".join(line) for line in lines)


def _row(summary: Summary) -> tuple[str, ...]:
    config, main = summary.config, main_tasks(summary.config)
    extra = [task for task in aux_tasks(config) if task not in main]
    return (
        config.model.name,
        config.model.backbone,
        f"{config.data.dataset} {'x'.join(map(str, summary.size))}",
        ", ".join(main) + (f" (auxiliary: {', '.join(extra)})" if extra else ""),
        f"{summary.parameters / 1e6:.2f} M",
        f"{summary.backbone / 1e6:.2f} M",
        f"{(summary.parameters - summary.backbone) / 1e6:.2f} M",
        f"{summary.multiply_adds / 1e9:.1f} G",
    )
