"""Parts of a model by name: which of them learn at another rate, do not decay, or do not learn at all."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from flax import nnx

from mtl_jax.backbones import Backbone
from mtl_jax.models.base import MultiTaskModel
from mtl_jax.nn import Frozen
from mtl_jax.optim import factor_of, leads_to


def paths(model: MultiTaskModel, name: str, field: str) -> tuple[str, ...]:
    """Returns the paths of the submodules or parameters of a name, such as ("decoders.semseg", "decoders.depth").

    "backbone" stands for all backbones of a model, "backbone.layer1" for this part of each of them, and "heads" for the
    heads of all tasks. Any other name is a path in the model, such as "decoders.semseg" or "backbone.conv1.kernel".

    Args:
        model: The model, which may be abstract.
        name: The name.
        field: Field of the configuration that gives the name, for error messages.

    Raises:
        ValueError: The model has no such part.
    """
    known = _paths(model)
    found: Iterable[str] = ()
    if name == "heads":
        found = _paths_of(model, model.parts("heads"))
    elif leads_to("backbone", name):
        below = name.removeprefix("backbone")
        found = [path + below for path in _paths_of(model, model.backbones()) if path + below in known]
    if resolved := tuple(found) or ((name,) if name in known else ()):
        return resolved
    near = difflib.get_close_matches(name, known, 3)
    hint = f". The nearest are {', '.join(near)}" if near else ""
    parts = dict.fromkeys(("backbone", "heads", *(path for path in known if "." not in path)))
    inner = next(path for path in known if "." in path)
    raise ValueError(
        f"{field} names {name!r}, which is no part of this {type(model).__name__}; its parts are {', '.join(parts)} "
        f"and what lies in them, as in {inner}{hint}"
    )


def learning_rate_factors(
    model: MultiTaskModel, multipliers: Mapping[str, float], layer_decay: float
) -> dict[str, float]:
    """Returns {path of a parameter: factor on its learning rate} of all parameters.

    The factor of a parameter is the multiplier of the part with the longest path that holds it, or 1, times the factor
    of its layer. With n layers in a backbone, layer i = 0, 1, ... has layer_decay ** (n - i): the stem learns the
    slowest, and what comes after the last layer has the factor 1 (BEiT, arXiv 2106.08254; timm).

    Args:
        model: The model, which may be abstract.
        multipliers: {name of a part, see `paths`: factor}.
        layer_decay: Factor from each layer to the layer before it; 1 = none.

    Raises:
        ValueError: The model has no such part, or a backbone does not state its layers.
    """
    by_part = {path: factor for name, factor in multipliers.items() for path in paths(model, name, "optim.multipliers")}
    by_layer = {} if layer_decay == 1 else _layer_factors(model, layer_decay)
    return {path: factor_of(by_part, path) * factor_of(by_layer, path) for path in _parameters(model)}


def not_decayed(model: MultiTaskModel) -> frozenset[str]:
    """Returns the paths of the parameters that the modules of a model name in `no_weight_decay`."""
    exempt = {
        _text((*path, *name.split(".")))
        for path, module in nnx.iter_modules(model)
        for name in getattr(module, "no_weight_decay", ())
    }
    return frozenset(path for path in _parameters(model) if any(leads_to(part, path) for part in exempt))


def freeze(model: MultiTaskModel, names: Iterable[str]) -> MultiTaskModel:
    """Freezes parts of a model for training, in place, and returns the model.

    Parameters of frozen parts become `Frozen`: they have no gradient and no state in the optimiser. In
    `training_view`, frozen parts are in evaluation mode: batch norm normalises with its running statistics and leaves
    them unchanged, and nothing is dropped out.

    Args:
        model: The model, which may be abstract.
        names: Names of the parts, see `paths`.

    Raises:
        ValueError: The model has no such part, or no parameter would be left to train.
    """
    frozen = tuple(path for name in names for path in paths(model, name, "optim.freeze"))
    if not frozen:
        return model
    modules = dict(nnx.iter_modules(model))
    for path, value in list(nnx.iter_graph(model)):
        if isinstance(value, nnx.Param) and any(leads_to(part, _text(path)) for part in frozen):
            setattr(modules[path[:-1]], str(path[-1]), Frozen(value.get_value()))
    if not _parameters(model):
        raise ValueError(f"optim.freeze names {', '.join(names)}, which leaves no parameter to train; name fewer parts")
    model.frozen = frozen
    return model


def _layer_factors(model: MultiTaskModel, layer_decay: float) -> dict[str, float]:
    factors: dict[str, float] = {}
    for path, backbone in nnx.iter_modules(model):
        if isinstance(backbone, Backbone):
            if not backbone.layers:
                raise ValueError(
                    f"optim.layer_decay is {layer_decay}, and {type(backbone).__name__} does not state the order of "
                    "its layers; set its attribute `layers`, or optim.layer_decay=1"
                )
            for i, names in enumerate(backbone.layers):
                factors |= {_text((*path, name)): layer_decay ** (len(backbone.layers) - i) for name in names}
    return factors


def _paths(model: MultiTaskModel) -> dict[str, Any]:
    """Returns {path: node} of the submodules and parameters, parameters inside of frozen parts included."""
    wanted = (nnx.Module, nnx.Param, Frozen)
    nodes = {_text(path): node for path, node in nnx.iter_graph(model) if path and isinstance(node, wanted)}
    return dict(sorted(nodes.items(), key=lambda item: item[0].count(".")))


def _paths_of(model: MultiTaskModel, modules: Iterable[nnx.Module]) -> list[str]:
    wanted = set(map(id, modules))
    return [path for path, node in _paths(model).items() if id(node) in wanted]


def _parameters(model: MultiTaskModel) -> list[str]:
    return [path for path, node in _paths(model).items() if isinstance(node, nnx.Param)]


def _text(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
