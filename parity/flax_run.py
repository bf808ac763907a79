"""The Flax models, built from a configuration like a recorded network's and run into the same numbers as the twin."""

from collections.abc import Mapping
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtl_jax import models, optim, weights
from mtl_jax.config import Config, Data, Model
from mtl_jax.losses import Objective
from parity import golden
from parity.compare import Run, flatten

STATISTICS = ("running_mean", "running_var")


def config(name: str) -> Config:
    """The configuration that describes a recorded network."""
    info = golden.info(name)
    method = "single_task" if info["setup"] == "single_task" else info["model"]
    aux_tasks = tuple(info["auxiliary_tasks"] or ())
    return Config(Data(golden.dataset(name), tuple(info["tasks"]), aux_tasks), Model(method, info["backbone"]))


def _build(name: str) -> nnx.Module:
    return models.build(config(name), rngs=nnx.Rngs(0))


def _nchw(outputs: Mapping) -> dict[str, np.ndarray]:
    return {key: np.moveaxis(np.asarray(x), -1, 1) for key, x in flatten(outputs).items()}


class Network:
    """A Flax model in one precision with its compiled functions, which all runs of it share.

    Args:
        name: the recorded network whose tasks, weights of the losses and optimiser are taken.
        dtype: of all parameters, statistics, images and labels; float64 only inside `jax.enable_x64`.
        compiler_options: of XLA; lower optimisation halves the compile time of networks that run a few times.
    """

    def __init__(self, name: str, dtype: type, compiler_options: Mapping | None = None):
        info = golden.info(name)
        group = info["optimizer"]["groups"][0]
        self.name, self.dtype, self.compiler_options = name, dtype, compiler_options
        self.tasks, self.aux_tasks = tuple(info["tasks"]), tuple(info["auxiliary_tasks"] or ())
        self.objective = Objective(self.tasks, info["loss_weights"] or dict.fromkeys(self.tasks, 1.0))
        self.tx = optim.make_optimizer("adam", group["lr_used"], weight_decay=group["weight_decay"])

    @cached_property
    def abstract(self) -> nnx.Module:
        return nnx.eval_shape(lambda: _build(self.name))

    def model(self, arrays: Mapping[str, np.ndarray]) -> nnx.Module:
        """A new model with weights given under torch's names."""
        graphdef, state = nnx.split(self.abstract)
        model = nnx.merge(graphdef, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, self.dtype), state))
        weights.load_torch(model, arrays)
        return model

    def pair(self, model: nnx.Module) -> tuple[nnx.Module, nnx.Optimizer]:
        return model, nnx.Optimizer(model, self.tx, wrt=nnx.Param)

    @cached_property
    def predict(self):
        """(arrays of the model, images) -> outputs with the running statistics."""
        graphdef = nnx.graphdef(self.abstract)

        def predict(arrays, images):
            return nnx.view(nnx.merge(graphdef, arrays), use_running_average=True)(images)

        return jax.jit(predict, compiler_options=self.compiler_options)

    @cached_property
    def graphdef(self) -> nnx.GraphDef:
        """Of model and optimiser."""
        return nnx.graphdef(nnx.eval_shape(lambda: self.pair(_build(self.name))))

    @cached_property
    def step(self):
        """(arrays of model and optimiser, batch) -> (arrays, outputs, losses, gradients), for one compilation."""

        def step(arrays, batch):
            model, optimizer = nnx.merge(self.graphdef, arrays)
            model = nnx.view(model, use_running_average=False)

            def loss_fn(model):
                outputs = model(batch["image"])
                total, losses = self.objective(outputs, batch)
                return total, (outputs, losses)

            (_, (outputs, losses)), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
            optimizer.update(model, grads)
            return nnx.as_pure(nnx.state((model, optimizer))), outputs, losses, grads

        return jax.jit(step, compiler_options=self.compiler_options)

    def batch(self, image: np.ndarray | None = None) -> dict[str, jax.Array]:
        """The recorded labels and an image `[2, 3, 64, 96]`, by default the recorded one, as our pipeline delivers."""
        batch = golden.batch((*self.tasks, *self.aux_tasks), golden.dataset(self.name))
        if image is not None:
            batch["image"] = np.moveaxis(image, 1, -1)
        return {key: jnp.asarray(x, self.dtype if x.dtype.kind == "f" else x.dtype) for key, x in batch.items()}

    def evaluate(self, arrays: Mapping[str, np.ndarray], image: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs with the running statistics for weights under torch's names and an image `[B, 3, H, W]`."""
        images = jnp.asarray(np.moveaxis(image, 1, -1), self.dtype)
        return _nchw(self.predict(nnx.as_pure(nnx.state(self.model(arrays))), images))

    def run(self, arrays: Mapping[str, np.ndarray], image: np.ndarray | None = None) -> Run:
        """Evaluates, differentiates and trains for three steps from weights under torch's names."""
        batch = self.batch(image)
        model = self.model(arrays)
        before = weights.to_torch(model)
        evaluated = _nchw(self.predict(nnx.as_pure(nnx.state(model)), batch["image"]))
        state = nnx.as_pure(nnx.state(self.pair(model)))
        history = []
        for _ in range(3):
            state, *results = self.step(state, batch)
            history.append((state, *results))
        first, outputs, losses, grads = history[0]
        nnx.update(model, grads)
        gradients = weights.to_torch(model)
        parameters = [key for key in before if not key.endswith(STATISTICS)]
        trained, after_first = (weights.to_torch(nnx.merge(self.graphdef, x)[0]) for x in (state, first))
        return Run(
            eval=evaluated,
            train=_nchw(outputs),
            buffers={key: x for key, x in after_first.items() if key.endswith(STATISTICS)},
            losses={key: float(x) for key, x in losses.items()},
            gradients={key: gradients[key] for key in parameters},
            step_losses=[float(losses["total"]) for _, _, losses, _ in history],
            params_before={key: before[key] for key in parameters},
            params_after={key: trained[key] for key in parameters},
        )
