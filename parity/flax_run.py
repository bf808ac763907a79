"""The Flax models, built from a configuration like a recorded network's and run into the same numbers as the twin."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from mtl_jax import models, optim, weights
from mtl_jax.config import Config, Data, Model
from mtl_jax.evaluation import predictions
from mtl_jax.losses import Objective
from mtl_jax.metrics import Accumulator, Metric
from mtl_jax.outputs import Outputs
from parity import golden
from parity.compare import Run, flatten

STATISTICS = ("running_mean", "running_var")
# The optimisers treat elements alike: pieces of one length are one program for all networks.
PIECE = 1 << 20


def config(name: str) -> Config:
    """The configuration that describes a recorded network."""
    info = golden.info(name)
    method = "single_task" if info["setup"] == "single_task" else info["model"]
    backbone = info["backbone"] + "_dilated" * info["backbone_kwargs"]["dilated"]
    aux_tasks = tuple(info["auxiliary_tasks"] or ())
    return Config(Data(golden.dataset(name), tuple(info["tasks"]), aux_tasks), Model(method, backbone))


def recorded_names(outputs: Outputs) -> dict[str, Any]:
    """Returns a model's outputs under the names of the recorded networks.

    Those are `<task>`, `initial_<task>` of PAD-Net and `deep_supervision/scale_<k>/<task>` of MTI-Net.
    """
    arrays: dict[str, Any] = dict(outputs.logits)
    for name, maps in outputs.intermediate.items():
        prefix = "initial_" if name == "deepsup" else f"deep_supervision/{name}/"
        arrays |= {f"{prefix}{task}": x for task, x in maps.items()}
    return arrays


def nchw(outputs: Outputs | Mapping) -> dict[str, np.ndarray]:
    """Returns a model's outputs, or a module's, under their recorded names in torch's layout."""
    arrays = recorded_names(outputs) if isinstance(outputs, Outputs) else flatten(outputs)
    return {key: np.moveaxis(np.asarray(x), -1, 1) for key, x in arrays.items()}


class Network:
    """A Flax model in one precision with its functions, which all runs of it share.

    Args:
        config: describes the model.
        objective: what training minimises.
        tx: the optimiser.
        dtype: of all parameters, statistics, images and labels; float64 only inside `jax.enable_x64`.
        compiler: `jax.jit`, as shipped, or `interpreter.interpret`.
    """

    def __init__(
        self,
        config: Config,
        objective: Objective,
        tx: optax.GradientTransformation,
        dtype: type,
        compiler: Callable[[Callable], Callable],
    ):
        self.config, self.objective, self.tx, self.dtype, self.compiler = config, objective, tx, dtype, compiler

    @cached_property
    def abstract(self) -> nnx.Module:
        return nnx.eval_shape(lambda: models.build(self.config))

    def empty(self) -> nnx.Module:
        """A new model of zeros."""
        graphdef, state = nnx.split(self.abstract)
        return nnx.merge(graphdef, jax.tree.map(lambda leaf: np.zeros(leaf.shape, self.dtype), state))

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

            (_, (outputs, losses)), grads = nnx.compat.value_and_grad(loss_fn, has_aux=True)(model)
            return nnx.as_pure(grads), nnx.as_pure(nnx.state(model, nnx.BatchStat)), outputs, losses

        return self.compiler(differentiate)

    @cached_property
    def update(self) -> Callable:
        """(parameters, gradients, state of the optimiser) -> (parameters, state), for trees of pieces."""

        def step(parameters, grads, state):
            updates, state = self.tx.update(grads, state, parameters)
            return optax.apply_updates(parameters, updates), state

        return jax.jit(step, donate_argnums=2)

    def batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """A batch as our pipeline delivers it, in the precision of the network."""
        return {key: jnp.asarray(x.astype(self.dtype) if x.dtype.kind == "f" else x) for key, x in batch.items()}

    def evaluate(self, arrays: Mapping[str, np.ndarray], image: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs with the running statistics for weights under torch's names and an image `[B, 3, H, W]`."""
        images = jnp.asarray(np.moveaxis(image, 1, -1).astype(self.dtype))
        return nchw(self.predict(nnx.as_pure(nnx.state(self.model(arrays))), images))

    def run(self, arrays: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray], steps: int = 3) -> Run:
        """Evaluates, differentiates and trains from weights under torch's names.

        Args:
            batch: image `[B, H, W, 3]` and labels as our pipeline delivers them.
            steps: how many optimiser steps on this batch.
        """
        batch = self.batch(batch)
        model = self.model(arrays)
        evaluated = nchw(self.predict(nnx.as_pure(nnx.state(model)), batch["image"]))
        parameters, statistics = (nnx.as_pure(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))
        parameters = dict(parameters)  # as the optimiser returns them, so that all steps share a trace
        optimizer, step_losses = _Optimizer(self), []
        for step in range(steps):
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


def scores(
    outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], metrics: Mapping[str, Metric]
) -> dict[str, float]:
    """Returns {"task/score": value} of a network's outputs `[B, C, H, W]`.

    Args:
        outputs: {task: output}.
        labels: {task: label `[B, H, W, C]`}.
        metrics: {task: its metric}, which says what is scored.
    """
    values: dict[str, float] = {}
    with jax.enable_x64(True):
        logits = {task: np.moveaxis(outputs[task], 1, -1) for task in metrics}
        predicted = predictions.postprocess(Outputs(logits), tuple(metrics))
    for task, metric in metrics.items():
        accumulator = Accumulator(metric)
        accumulator.update(metric.update(np.asarray(predicted[task]), labels[task]))
        values |= {f"{task}/{key}": value for key, value in accumulator.compute().items()}
    return values


def recorded_network(name: str, dtype: type, compiler: Callable[[Callable], Callable]) -> Network:
    """A recorded network, with the recorded weights of the losses and the recorded optimiser."""
    info = golden.info(name)
    optimizer, tasks = info["optimizer"], tuple(info["tasks"])
    objective = Objective(tasks, info["loss_weights"] or dict.fromkeys(tasks, 1.0))
    # The recorded networks learn at one rate in all groups: a multiplier of 1 on the fusion layers.
    tx = optim.make_optimizer(
        optimizer["name"], optimizer["groups"][0]["lr_used"], weight_decay=optimizer["kwargs"]["weight_decay"]
    )
    return Network(config(name), objective, tx, dtype, compiler)


def recorded_batch(name: str) -> dict[str, np.ndarray]:
    """The recorded images `[2, 64, 96, 3]` and the labels of a recorded network."""
    info = golden.info(name)
    return golden.batch((*info["tasks"], *(info["auxiliary_tasks"] or ())), golden.dataset(name))


class _Optimizer:
    """Applies a network's optimiser to all of its parameters, joined into one vector and cut into pieces.

    Submodules with a learning rate of their own have a vector each.
    """

    def __init__(self, network: Network):
        self.network, self.states = network, {}
        self.groups = models.fusions(network.config)

    def update(self, parameters: Mapping, grads: Mapping) -> dict:
        out = {}
        rest = [key for key in parameters if key not in self.groups]
        for group, keys in [("", rest), *((key, [key]) for key in self.groups)]:
            vector = self._update(group, *(_join({key: tree[key] for key in keys}) for tree in (parameters, grads)))
            out |= _split(vector, {key: parameters[key] for key in keys})
        return {key: out[key] for key in parameters}

    def _update(self, group: str, parameters: np.ndarray, grads: np.ndarray) -> np.ndarray:
        pieces = []
        for start in range(0, parameters.size, PIECE):
            trees = [{group: _piece(vector, start)} for vector in (parameters, grads)]
            state = self.states.pop((group, start), None) or self.network.tx.init(trees[0])
            updated, self.states[group, start] = self.network.update(*trees, state)
            pieces.append(np.asarray(updated[group]))
        return np.concatenate(pieces)[: parameters.size]


def _piece(vector: np.ndarray, start: int) -> np.ndarray:
    """A piece of full length, with zeros after the end of the vector."""
    piece = vector[start : start + PIECE]
    return np.pad(piece, (0, PIECE - piece.size))


def _join(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def _split(vector: np.ndarray, like: Any) -> Any:
    leaves, structure = jax.tree.flatten(like)
    parts = np.split(vector, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return structure.unflatten([part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])
