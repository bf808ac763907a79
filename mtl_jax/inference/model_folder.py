"""The folder of a saved model: configuration, weights, scores and a model card."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax import config as configs
from mtl_jax import experiment as experiments
from mtl_jax import models, registry, weights
from mtl_jax.config import Config
from mtl_jax.evaluation import result_files
from mtl_jax.experiment import Experiment
from mtl_jax.folders import WEIGHTS
from mtl_jax.inference import model_card
from mtl_jax.runtime import atomic_files, sharding
from mtl_jax.train import history
from mtl_jax.train.history import History
from mtl_jax.train.state import TrainState

CARD = "README.md"
HISTORY = "training.json"
FILES = (experiments.CONFIG, WEIGHTS, CARD, HISTORY, result_files.RESULTS)


def write(
    folder: Path,
    experiment: Experiment,
    model: nnx.Module,
    made: History,
    results: result_files.Report | None,
    *,
    license: str = "",
    author: str = "",
) -> Path:
    """Writes a model to a new folder, and returns the folder.

    Args:
        folder: The folder, which must not exist or be empty.
        experiment: The experiment that the model is from.
        model: The model.
        made: How its weights came about.
        results: Its scores; None where it was not evaluated.
        license: License of the weights for the card; empty = not stated.
        author: Who publishes the weights, for the card; empty = not stated.

    Raises:
        FileExistsError: The folder has files in it.
        OSError: A file cannot be written.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; give the path of a new folder")
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        weights.write_arrays(folder / WEIGHTS, weights.to_torch(model))
        atomic_files.write(folder / experiments.CONFIG, configs.to_json(_portable(experiment)))
        if results is not None:
            result_files.write(results, folder / result_files.RESULTS)
        history.write(made, folder / HISTORY)
        card = model_card.text(experiment, made, results, folder.resolve().name, license=license, author=author)
        atomic_files.write(folder / CARD, card)
    except BaseException:
        # Otherwise the same call would be refused after an error.
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        raise
    return folder


def read(folder: Path) -> tuple[Experiment, TrainState]:
    """Returns the experiment of a saved model, and its state on all devices.

    Nothing of the folder is executed: modules that its configuration names must have been imported.

    Args:
        folder: The folder.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The weights do not fit the configuration: an array is missing, unknown or has another shape. Or a
            module is not imported.
    """
    if not (folder / experiments.CONFIG).is_file():
        raise FileNotFoundError(f"{folder} is no saved model: it has no {experiments.CONFIG}")
    config = experiments.read_config(folder)
    _check_imports(config, folder / experiments.CONFIG)
    experiment = experiments.make(config)
    model = nnx.eval_shape(lambda: models.build(experiment.config))
    try:
        weights.load_torch(model, weights.read_arrays(folder / WEIGHTS))
    except ValueError as error:
        raise ValueError(f"{folder / WEIGHTS}: {error}") from error
    graphdef, state = nnx.split((model,))
    arrays = jax.tree.map(_filled, nnx.as_pure(state))
    mesh = sharding.make_mesh()
    whole = jax.tree.map(lambda _: sharding.replicated(mesh), arrays)
    return experiment, TrainState(graphdef, jax.device_put(arrays, whole))


def _filled(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    """Returns a leaf of the state; random keys and their counters, which prediction does not use, are no weights."""
    if isinstance(leaf, jax.Array):
        return leaf
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    return jnp.zeros(leaf.shape, leaf.dtype)


def _portable(experiment: Experiment) -> Config:
    """Returns the configuration without places of this machine, and with the image size that follows from its data.

    The places among the options of a model are those that runs of one experiment need not share.
    """
    config = experiment.config
    places = {name.rpartition(".")[2] for name, _, rules in models.option_fields(config) if rules.same_experiment}
    options = {name: value for name, value in config.model.options.items() if name not in places}
    data = dataclasses.replace(config.data, data_dir="", manual_dir="", image_size=experiment.image_size)
    model = dataclasses.replace(config.model, pretrained="", pretrained_entry="", pretrained_prefix="", options=options)
    return dataclasses.replace(config, data=data, model=model)


def _check_imports(config: Config, path: Path) -> None:
    if missing := [name for name in config.imports if name not in registry.extensions()]:
        raise ValueError(
            f"{path} asks for the modules {', '.join(missing)}. A saved model imports nothing by "
            f"itself: if you trust them, call mtl_jax.registry.load_extensions({missing!r}) first"
        )
