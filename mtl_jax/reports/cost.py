"""The number of parameters of a model and the multiply-adds of a prediction, counted without allocating weights."""

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
from mtl_jax.runtime import messages

COLUMNS = ("model", "backbone", "data", "tasks", "parameters", "of the backbone", "rest", "multiply-adds")
# Name of the jitted function of jax.image.resize. It multiplies with matrices that are mostly zero, so the number of
# its products is no measure of the work of an interpolation.
_RESIZE = "_resize"
_OVERLAPS = convolve_overlaps.__name__
_CONTROL_FLOW = ("scan", "while", "cond")


@dataclass(frozen=True)
class Summary:
    """The cost of a model.

    Attributes:
        config: Configuration of the model.
        parameters: Number of trained parameters. Running statistics do not count.
        backbone: Number of parameters in the backbone, or in all backbones of cross-stitch and NDDR-CNN.
        multiply_adds: Number of multiply-adds of the prediction for one image, see the function `multiply_adds`.
        size: Height and width of the image.
    """

    config: Config
    parameters: int
    backbone: int
    multiply_adds: int
    size: tuple[int, int]


def summarize(config: Config) -> Summary:
    """Returns the cost of the model of a configuration.

    The image has the resolution of the configuration or, if none is set, of the data set.
    """
    model = nnx.eval_shape(lambda: models.build(config))
    size = experiment.Experiment(config).image_size
    graphdef, state = nnx.split(models.evaluation_view(model))
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    work = multiply_adds(lambda state, image: nnx.merge(graphdef, state)(image), state, image)
    backbones = sum(map(models.count_parameters, model.backbones()))
    return Summary(config, models.count_parameters(model), backbones, work, size)


def multiply_adds(function: Callable, *arguments: Any) -> int:
    """Counts the multiply-adds of `function(*arguments)` in convolutions and matrix products.

    A convolution counts kernel height x kernel width x input channels per group for every output number. Products with
    padding at the border count, too. A matrix product counts its inner dimension for every output number.
    Normalisation, activations, pooling, additions and the interpolation of `jax.image.resize` do not count, as is
    usual.

    Args:
        function: Function to count.
        arguments: Arguments of the function: arrays, or `jax.ShapeDtypeStruct`s in their place.

    Raises:
        ValueError: The function has loops or branches, whose work does not depend on shapes alone.
    """
    with isolate.fused():  # does not ask for the device, so that counting does not start one
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
        elif options.get("name") == _OVERLAPS:  # counts as a convolution
            total += math.prod(_shape(equation.outvars[0])) * math.prod(_shape(equation.invars[1])[:3])
        elif options.get("name") != _RESIZE:
            total += sum(map(_count, _inner(options.values())))
    return total


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _inner(values: Any) -> Iterator[core.Jaxpr]:
    """Yields the functions that an equation calls."""
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def table(summaries: Sequence[Summary], *, markdown: bool = False) -> str:
    """Returns a text with a line for each model, with parameters in 10^6 (M) and multiply-adds in 10^9 (G).

    Args:
        summaries: Costs of the models.
        markdown: True for a table in Markdown, False for aligned columns.
    """
    rows = [COLUMNS, *map(_row, summaries)]
    numeric = COLUMNS.index("parameters")
    columns = []
    for i, cells in enumerate(zip(*rows, strict=True)):
        shown = list(map(messages.markdown_cell if markdown else messages.printable, cells))
        width, right = max(map(len, shown)), i >= numeric
        column = [cell.rjust(width) if right else cell.ljust(width) for cell in shown]
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
