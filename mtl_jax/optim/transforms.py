"""Steps on the way from gradients to updates that depend on a parameter's place in the model, or on all gradients."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

Tree = Any  # pytree of parameters, gradients or updates
Mask = Callable[[Tree], Tree]  # from a pytree of parameters to one of truth values


def clip_by_norm(max_norm: float) -> optax.GradientTransformation:
    """Returns the clipping of torch's `clip_grad_norm_`: gradient * min(1, max_norm / (norm + 1e-6)).

    Args:
        max_norm: Largest norm, taken over the gradients of all parameters together.
    """

    def clip(gradients: Tree, params: Tree) -> Tree:
        factor = jnp.minimum(1, max_norm / (optax.tree.norm(gradients) + 1e-6))
        return jax.tree.map(lambda gradient: gradient * factor.astype(gradient.dtype), gradients)

    return optax.stateless(clip)


def scale_parts(factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Returns a transformation that multiplies the updates of parts of the model.

    Args:
        factors: {path of a submodule or parameter, as in "backbone.layer1": factor}. A parameter has the factor of the
            longest path that leads to it, and 1 if none does.
    """

    def scale(path: tuple, update: jax.Array) -> jax.Array:
        return update * factor_of(factors, name(path))

    def scale_all(updates: Tree, params: Tree) -> Tree:
        return jax.tree_util.tree_map_with_path(scale, updates) if factors else updates

    return optax.stateless(scale_all)


def kernels(exempt: Collection[str] = ()) -> Mask:
    """Returns a mask that is True for kernels: parameters of two and more axes.

    Biases and the scales of norms have one axis.

    Args:
        exempt: Paths of parameters that are no kernels in spite of their axes, such as position embeddings.
    """

    def mask(params: Tree) -> Tree:
        return jax.tree_util.tree_map_with_path(lambda path, x: x.ndim > 1 and name(path) not in exempt, params)

    return mask


def factor_of(factors: Mapping[str, float], path: str) -> float:
    """Returns the value of the longest key that is the path of a part of a model that holds `path`; 1 if none is."""
    while path and path not in factors:
        path = path.rpartition(".")[0]
    return factors.get(path, 1.0)


def leads_to(part: str, path: str) -> bool:
    """Returns True if a part of a model, "backbone", is or holds what has the path, "backbone.conv1.kernel"."""
    return path == part or path.startswith(f"{part}.")


def name(path: tuple) -> str:
    """Returns the path of a leaf of a pytree as text: "backbone.conv1.kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator=".")
