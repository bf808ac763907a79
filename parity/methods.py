"""All methods as complete networks, on weights, images and labels that nobody recorded.

A seed draws everything. What the twin is told stands here (weights of the losses, learning rates, groups); the Flax
side takes them from the library's own configuration, as training does.
"""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import numpy as np
import torch
from torch import nn

from mtl_jax import experiment
from mtl_jax.config import Config, Data, Model, Optim
from mtl_jax.data import catalogue
from mtl_jax.experiment import Experiment
from mtl_jax.tasks import IGNORE
from mtl_jax.tasks import get as get_task
from parity import flax_run, golden
from parity.cases import Case
from parity.compare import Run
from parity.flax_run import Network
from parity.interpreter import interpret
from parity.reference import losses, metrics, run

LOSS_WEIGHTS = {
    "nyud": {"semseg": 1.0, "depth": 1.0, "normals": 10.0, "edge": 50.0},
    "pascal": {"semseg": 1.0, "human_parts": 2.0, "sal": 5.0, "normals": 10.0, "edge": 50.0},
}
FUSION_RATE = 100.0  # factor on the learning rate of cross-stitch units and NDDR layers
STEPS = 2


def experiment_of(case: Case) -> Experiment:
    """The library's experiment; weights of the losses and the rate of fusion layers are its defaults."""
    rate, decay = case.rates
    return experiment.make(
        Config(
            Data(case.dataset, case.tasks, case.aux_tasks, image_size=case.size),
            Model(case.method, case.backbone),
            Optim(case.optimizer, rate, weight_decay=decay, schedule="constant"),
        )
    )


def draw(case: Case, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """({torch key: weight}, {name: image or label `[B, H, W, C]`}).

    Weights follow the recording's rule with other keys, but a third of the batch norms' scales is negative. The first
    image has no label of tasks that know pixels without one; the second one has no salient pixel.
    """
    with torch.device("meta"):
        shapes = {key: tuple(x.shape) for key, x in twin_network(case).state_dict().items()}
    arrays = {key: golden.weight(f"{seed}.{key}", shape, case.fusion) for key, shape in shapes.items()}
    rng = np.random.default_rng([seed, case.images, *case.size])
    for key, x in arrays.items():
        if x.ndim == 1 and key.endswith(".weight"):
            arrays[key] = x * rng.choice(np.float32([1, 1, -1]), x.shape)
    shape = (case.images, *case.size)
    batch = {"image": rng.standard_normal((*shape, 3)).astype(np.float32)}
    outputs = catalogue.get(case.dataset).num_logits(case.all_tasks)
    for task in case.all_tasks:
        batch[task] = _label(task, outputs[task], shape, rng)
    return arrays, batch


def _label(task: str, channels: int, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    pixels = (*shape, 1)
    match task:
        case "semseg" | "human_parts":
            label = rng.integers(0, channels, pixels).astype(np.float32)
        case "depth":
            label = rng.uniform(0.5, 9.5, pixels)
        case "normals":
            label = rng.standard_normal((*shape, 3))
            label /= np.linalg.norm(label, axis=-1, keepdims=True)
        case "sal" | "edge":
            label = (rng.random(pixels) < 0.3).astype(np.float32)
    if task in ("sal", "edge"):
        label[1] *= task != "sal"
    else:
        label = np.where(rng.random(pixels) < 0.1, IGNORE, label)
        label[0] = IGNORE
    return label.astype(get_task(task).kind.dtype)


def twin_network(case: Case) -> nn.Module:
    """The twin of the network, without dropout."""
    return run.assemble(
        case.method,
        case.backbone.removesuffix("_dilated"),
        case.tasks,
        case.aux_tasks,
        catalogue.get(case.dataset).num_logits(case.all_tasks),
        case.fusion,
    )


def twin_optimizer(case: Case, model: nn.Module) -> torch.optim.Optimizer:
    """PyTorch's optimiser; layers in which tasks exchange features have a learning rate of their own."""
    fusion = {"cross_stitch": "cross_stitch.", "nddr_cnn": "nddr."}.get(case.method)
    groups: dict[bool, list] = {False: [], True: []}
    for name, parameter in model.named_parameters():
        groups[fusion is not None and name.startswith(fusion)].append(parameter)
    rate, decay = case.rates
    rated = [{"params": groups[own], "lr": rate * (FUSION_RATE if own else 1)} for own in groups if groups[own]]
    if case.optimizer == "adam":
        return torch.optim.Adam(rated, weight_decay=decay, fused=True)
    return torch.optim.SGD(rated, momentum=0.9, weight_decay=decay, fused=True)


def run_twin(case: Case, arrays: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> Run:
    """The numbers of the twin in float64."""
    with torch.device("meta"):  # without initial values: they are loaded
        model = twin_network(case).double()
    model.to_empty(device="cpu")
    tensors = {key: torch.from_numpy(np.moveaxis(x, -1, 1).astype(np.float64)) for key, x in batch.items()}
    weights = LOSS_WEIGHTS[case.dataset] if len(case.all_tasks) > 1 else {case.tasks[0]: 1.0}
    return run.run(
        model,
        losses.Objective(case.tasks, case.aux_tasks, weights),
        twin_optimizer(case, model),
        arrays,
        tensors.pop("image"),
        tensors,
        steps=STEPS,
    )


def run_flax(case: Case, arrays: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> Run:
    """The numbers of the Flax network in float64, run operation by operation."""
    described = experiment_of(case)
    with jax.enable_x64(True):
        tx = described.optimizer(steps_per_epoch=STEPS)
        network = Network(described.config, described.objective, tx, np.float64, interpret)
        return network.run(arrays, batch, STEPS)


def scores(case: Case, outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, float]:
    """{"task/score": value} of outputs `[B, C, H, W]`, by the library's metrics of the final protocol."""
    return flax_run.scores(outputs, labels, experiment_of(case).final_metrics)


def twin_scores(case: Case, outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The same by the twin's metrics, without the median of angles: ours comes from a histogram."""
    values = {}
    for task in case.tasks:
        predict, score = _TWIN_SCORES[task]
        predicted = predict(np.moveaxis(outputs[task], 1, -1))
        found = score(list(zip(predicted, labels[task], strict=True)), outputs[task].shape[1])
        values |= {f"{task}/{key}": value for key, value in found.items() if np.ndim(value) == 0 and key != "median"}
    return values


def _classes(logits: np.ndarray) -> np.ndarray:
    return logits.argmax(axis=-1)


def _probabilities(logits: np.ndarray) -> np.ndarray:
    return 255 / (1 + np.exp(-logits))


def _directions(vectors: np.ndarray) -> np.ndarray:
    return 255 * (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True) + 1) / 2


# {task: (logits `[B, H, W, C]` to predictions, predictions and labels of images to scores)}
_TWIN_SCORES: dict[str, tuple[Callable, Callable]] = {
    "semseg": (_classes, metrics.segmentation),
    "human_parts": (_classes, partial(metrics.segmentation, skip_empty=True)),
    "sal": (_probabilities, lambda images, _: metrics.saliency(images)),
    "edge": (_probabilities, lambda images, _: metrics.edge(images)),
    "normals": (_directions, lambda images, _: metrics.normals(images)),
    "depth": (np.asarray, lambda images, _: metrics.depth(images)),
}
