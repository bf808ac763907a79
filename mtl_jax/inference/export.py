"""The model of a run as one file that predicts without this package.

The file is a zip archive of

* `program.jaxexport`: a program of `jax.export` with the weights in it and batch norms folded into convolutions. It
  turns uint8 RGB images `[B, H, W, 3]` of the network's size into {task: prediction}, as `predictions.postprocess`
  does;
* `description.json`: the program's inputs, outputs and origin.

Reading the file takes jax with `flatbuffers` and nothing of this package; the README shows how.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export as jax_export

import mtl_jax
from mtl_jax import experiment
from mtl_jax import tasks as task_table
from mtl_jax.config import Config
from mtl_jax.evaluation.predictions import postprocess
from mtl_jax.experiment import Experiment
from mtl_jax.images import normalise
from mtl_jax.models import evaluation_view
from mtl_jax.nn import fold_batch_norm, isolate
from mtl_jax.runtime import atomic_files
from mtl_jax.train import restore

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_run(
    config: Config | Experiment,
    workdir: str | Path,
    step: str,
    out: str | Path,
    *,
    batch_size: int = 0,
    platforms: Sequence[str] = ("cpu", "cuda"),
) -> dict[str, Any]:
    """Writes the model of a run at one of its checkpoints, and returns the file's description.

    Args:
        config: The run's own experiment or configuration, `experiment.load_config(workdir)`.
        workdir: The work directory of the run.
        step: Checkpoint: "best", "latest" or the number of a step.
        out: File to write; missing folders are made.
        batch_size: The only batch size that the program takes; 0 = it takes any.
        platforms: Platforms that the program can be compiled for, of `PLATFORMS`.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError: The run has no checkpoints, or no such step.
        ValueError: A platform is unknown, or the checkpoint does not fit the configuration.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} exists already; remove it, or give another file to write")
    if not platforms or not set(platforms) <= set(PLATFORMS):
        raise ValueError(f"cannot export for {', '.join(platforms) or 'no platform'}; there are {', '.join(PLATFORMS)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    run = experiment.make(config)
    number, state = restore.load(run, workdir, step)
    program = make_program(state.model(), run.main_tasks, run.image_size, batch_size=batch_size, platforms=platforms)
    description = describe(run, number, program)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("description.json", json.dumps(description, indent=1) + "\n")
        archive.writestr("program.jaxexport", program.serialize())
    atomic_files.write(out, content.getvalue())
    return description


def make_program(
    model: nnx.Module, tasks: Sequence[str], size: tuple[int, int], *, batch_size: int, platforms: Sequence[str]
) -> jax_export.Exported:
    """Returns a program that turns uint8 images `[B, height, width, 3]` into {task: prediction}.

    Args:
        model: The trained model.
        tasks: Tasks that the program predicts.
        size: (height, width) of the images in pixels.
        batch_size: The only batch size that the program takes; 0 = it takes any.
        platforms: Platforms that the program can be compiled for, of `PLATFORMS`.
    """
    graphdef, state = nnx.split(evaluation_view(fold_batch_norm(model)))
    # Arrays of NumPy belong to no device. Constants let the compiler lay the kernels out once, not in every call.
    arrays = jax.tree.map(np.asarray, nnx.as_pure(state))

    @jax.jit
    def predict(images: jax.Array) -> dict[str, jax.Array]:
        return postprocess(nnx.merge(graphdef, arrays)(normalise(images)), tasks)

    shape = jax_export.symbolic_shape(f"{batch_size or 'batch'}, {size[0]}, {size[1]}, 3")
    with isolate.fused():
        return jax_export.export(predict, platforms=platforms)(jax.ShapeDtypeStruct(shape, jnp.uint8))


def describe(run: Experiment, step: int, program: jax_export.Exported) -> dict[str, Any]:
    """Returns a description of a program for its users, ready for JSON.

    Args:
        run: The experiment that the model is from.
        step: Number of the checkpoint's step.
        program: The program.
    """
    config = run.config
    (images,) = program.in_avals
    outputs = jax.tree.unflatten(program.out_tree, program.out_avals)
    described = {task: _form(outputs[task]) for task in run.main_tasks}
    for task, classes in run.channels.items():
        names = config.data.class_names.get(task)
        described[task] |= task_table.get(task).kind.describe_prediction(classes, names, run.conventions)
    return {
        "input": _form(images) | {"meaning": "RGB images, resized to this height and width"},
        "outputs": described,
        "platforms": list(program.platforms),
        "model": config.model.name,
        "backbone": config.model.backbone,
        "dtype": config.model.dtype,
        "step": step,
        "versions": {"mtl_jax": mtl_jax.__version__, "jax": jax.__version__},
    }


def _form(array: jax.core.ShapedArray) -> dict[str, Any]:
    """Returns the shape of an array, with names for sides that may have any length, and its type."""
    shape = [side if isinstance(side, int) else str(side) for side in array.shape]
    return {"shape": shape, "dtype": array.dtype.name}
