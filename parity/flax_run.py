"""The Flax models, built from a configuration like a recorded network's and run into the same numbers as the twin."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtl_jax import models, optim, weights
from mtl_jax.config import Config, Data, Model
from mtl_jax.losses import Objective
from mtl_jax.outputs import Outputs
from parity import golden
from parity.compare import Run, flatten

STATISTICS = ("running_mean", "running_var")


def config(name: str) -> Config:
    """The configuration that describes a recorded network."""
    info = golden.info(name)
    method = "single_task" if info["setup"] == "single_task" else info["model"]
    backbone = info["backbone"] + "_dilated" * info["backbone_kwargs"]["dilated"]
    aux_tasks = tuple(info["auxiliary_tasks"] or ())
    return Config(Data(golden.dataset(name), tuple(info["tasks"]), aux_tasks), Model(method, backbone))


def build(name: str) -> nnx.Module:
    """The recorded network with fresh weights."""
    return models.build(config(name), rngs=nnx.Rngs(0))


def interpret(function: Callable) -> Callable:
    """Runs the traced function, which is kept for every set of shapes, operation by operation.

    XLA needs tens of seconds to compile a network that runs three times; its operations, of which all networks share
    most, are compiled once each.
    """
    traced: dict = {}

    def run(*args):
        leaves, structure = jax.tree.flatten(args)
        key = structure, *(jax.typeof(leaf) for leaf in leaves)
        if key not in traced:
            traced[key] = jax.make_jaxpr(function, return_shape=True)(*args)
        closed, out = traced[key]
        return jax.tree.unflatten(jax.tree.structure(out), jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *leaves))

    return run


def recorded_names(outputs: Outputs) -> dict[str, Any]:
    """Returns a model's outputs under the names of the recorded networks.

    Those are `<task>`, `initial_<task>` of PAD-Net and `deep_supervision/scale_<k>/<task>` of MTI-Net.
    """
    arrays: dict[str, Any] = dict(outputs.logits)
    for name, predictions in outputs.intermediate.items():
        prefix = "initial_" if name == "deepsup" else f"deep_supervision/{name}/"
        arrays |= {f"{prefix}{task}": x for task, x in predictions.items()}
    return arrays


def nchw(outputs: Outputs | Mapping) -> dict[str, np.ndarray]:
    """Returns a model's outputs, or a module's, under their recorded names in torch's layout."""
    arrays = recorded_names(outputs) if isinstance(outputs, Outputs) else flatten(outputs)
    return {key: np.moveaxis(np.asarray(x), -1, 1) for key, x in arrays.items()}


class Network:
    """A Flax model in one precision with its functions, which all runs of it share.

    Args:
        name: the recorded network whose tasks, weights of the losses and optimiser are taken.
        dtype: of all parameters, statistics, images and labels; float64 only inside `jax.enable_x64`.
        compiler: `jax.jit`, as shipped, or `interpret`.
    """

    def __init__(self, name: str, dtype: type, compiler: Callable[[Callable], Callable]):
        info = golden.info(name)
        optimizer = info["optimizer"]
        self.name, self.dtype, self.compiler = name, dtype, compiler
        self.tasks, self.aux_tasks = tuple(info["tasks"]), tuple(info["auxiliary_tasks"] or ())
        self.objective = Objective(self.tasks, info["loss_weights"] or dict.fromkeys(self.tasks, 1.0))
        # The recorded networks learn at one rate in all groups: a multiplier of 1 on the fusion layers.
        self.tx = optim.make_optimizer(
            optimizer["name"], optimizer["groups"][0]["lr_used"], weight_decay=optimizer["kwargs"]["weight_decay"]
        )

    @cached_property
    def abstract(self) -> nnx.Module:
        return nnx.eval_shape(lambda: build(self.name))

    def empty(self) -> nnx.Module:
        """A new model of zeros."""
        graphdef, state = nnx.split(self.abstract)
        return nnx.merge(graphdef, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, self.dtype), state))

    def model(self, arrays: Mapping[str, np.ndarray]) -> nnx.Module:
        """A new model with weights given under torch's names."""
        model = self.empty()
        weights.load_torch(model, arrays)
        return model

    @cached_property
    def predict(self) -> Callable:
        """(arrays of the model, images) -> outputs with the running statistics."""
        graphdef = nnx.graphdef(self.abstract)
        return self.compiler(lambda arrays, images: models.evaluation_view(nnx.merge(graphdef, arrays))(images))

    @cached_property
    def differentiate(self) -> Callable:
        """(parameters, statistics, batch) -> (gradients, statistics, outputs, losses), without dropout."""
        graphdef = nnx.graphdef(self.abstract)

        def differentiate(parameters: Any, statistics: Any, batch: Mapping[str, jax.Array]):
            model = nnx.merge(graphdef, parameters, statistics)
            model = nnx.view(model, use_running_average=False, deterministic=True, raise_if_not_found=False)

            def loss_fn(model):
                outputs = model(batch["image"])
                total, losses = self.objective(outputs, batch)
                return total, (outputs, losses)

            (_, (outputs, losses)), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
            return nnx.as_pure(grads), nnx.as_pure(nnx.state(model, nnx.BatchStat)), outputs, losses

        return self.compiler(differentiate)

    @cached_property
    def update(self) -> Callable:
        """(vector of parameters, vector of gradients, state of the optimiser) -> (parameters, state)."""

        def step(vector, grads, state):
            updates, state = self.tx.update(grads, state, vector)
            return vector + updates, state

        return jax.jit(step, donate_argnums=2)

    def batch(self, image: np.ndarray | None = None) -> dict[str, jax.Array]:
        """The recorded labels and an image `[2, 3, 64, 96]`, by default the recorded one, as our pipeline delivers."""
        batch = golden.batch((*self.tasks, *self.aux_tasks), golden.dataset(self.name))
        if image is not None:
            batch["image"] = np.moveaxis(image, 1, -1)
        return {key: jnp.asarray(x, self.dtype if x.dtype.kind == "f" else x.dtype) for key, x in batch.items()}

    def evaluate(self, arrays: Mapping[str, np.ndarray], image: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs with the running statistics for weights under torch's names and an image `[B, 3, H, W]`."""
        images = jnp.asarray(np.moveaxis(image, 1, -1), self.dtype)
        return nchw(self.predict(nnx.as_pure(nnx.state(self.model(arrays))), images))

    def run(self, arrays: Mapping[str, np.ndarray], image: np.ndarray | None = None) -> Run:
        """Evaluates, differentiates and trains for three steps from weights under torch's names."""
        batch = self.batch(image)
        model = self.model(arrays)
        evaluated = nchw(self.predict(nnx.as_pure(nnx.state(model)), batch["image"]))
        parameters, statistics = (nnx.as_pure(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))
        optimizer, step_losses = _Optimizer(self), []
        for step in range(3):
            grads, statistics, outputs, losses = self.differentiate(parameters, statistics, batch)
            if step == 0:
                first = nchw(outputs), {key: float(x) for key, x in losses.items()}
                gradients, buffers = self._parameters(grads), self._statistics(statistics)
            step_losses.append(float(losses["total"]))
            parameters = optimizer.update(parameters, grads)
        return Run(
            eval=evaluated,
            train=first[0],
            buffers=buffers,
            losses=first[1],
            gradients=gradients,
            step_losses=step_losses,
            params_before={key: arrays[key] for key in gradients},
            params_after=self._parameters(parameters),
        )

    def _parameters(self, state: Any) -> dict[str, np.ndarray]:
        """Parameters or their gradients under torch's names."""
        return {key: x for key, x in self._named(state).items() if not key.endswith(STATISTICS)}

    def _statistics(self, state: Any) -> dict[str, np.ndarray]:
        """Running statistics under torch's names."""
        return {key: x for key, x in self._named(state).items() if key.endswith(STATISTICS)}

    def _named(self, state: Any) -> dict[str, np.ndarray]:
        model = self.empty()
        nnx.update(model, state)
        return weights.to_torch(model)


class _Optimizer:
    """Applies an optimiser to a model's submodules, each joined into one vector.

    The optimisers treat elements alike, and a few long arrays compile faster than a thousand short ones. One submodule
    at a time, because the largest networks fill memory ten times over otherwise.
    """

    def __init__(self, network: Network):
        self.network = network
        self.states: dict = {}

    def update(self, parameters: Mapping, grads: Mapping) -> dict:
        return {key: self._update((key,), parameters[key], grads[key]) for key in parameters}

    def _update(self, path: tuple, parameters: Any, grads: Any) -> Any:
        if len(path) < 2 and isinstance(parameters, Mapping):
            return {key: self._update((*path, key), parameters[key], grads[key]) for key in parameters}
        vector = _join(parameters)
        if path not in self.states:
            self.states[path] = self.network.tx.init(vector)
        vector, self.states[path] = self.network.update(vector, _join(grads), self.states[path])
        return _split(vector, parameters)


def _join(tree: Any) -> jax.Array:
    return jnp.asarray(np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)]))


def _split(vector: jax.Array, like: Any) -> Any:
    leaves, structure = jax.tree.flatten(like)
    parts = np.split(np.asarray(vector), np.cumsum([leaf.size for leaf in leaves])[:-1])
    return structure.unflatten(
        [jnp.asarray(part.reshape(leaf.shape)) for part, leaf in zip(parts, leaves, strict=True)]
    )
