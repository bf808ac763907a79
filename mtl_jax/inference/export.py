"""The model of a run as one file that predicts without this package, in one of several formats.

docs/export.md shows what is in the files and how they are read.
"""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

import mtl_jax
from mtl_jax import experiment
from mtl_jax import tasks as task_table
from mtl_jax.config import Config
from mtl_jax.experiment import Experiment
from mtl_jax.inference import program as programs
from mtl_jax.inference.export_formats import ExportFormat
from mtl_jax.inference.jax_format import JaxFormat
from mtl_jax.inference.onnx_format import OnnxFormat
from mtl_jax.inference.program import Program
from mtl_jax.registry import Registry
from mtl_jax.runtime import atomic_files
from mtl_jax.train import history, restore
from mtl_jax.train.history import History

logger = logging.getLogger(__name__)

FORMATS: Registry[ExportFormat] = Registry(
    "export format", "export formats", "mtl_jax.inference.export.FORMATS.register"
)
FORMATS.register("jax", JaxFormat())
FORMATS.register("onnx", OnnxFormat())


def export_run(
    config: Config | Experiment,
    workdir: str | Path,
    step: str,
    out: str | Path,
    *,
    weights: str = "",
    format: str = "jax",
    batch_size: int = 0,
    platforms: Sequence[str] | None = None,
    license: str = "",
) -> dict[str, Any]:
    """Writes the model of a run at one of its checkpoints, and returns the file's description.

    Args:
        config: The run's own experiment or configuration, `experiment.load_config(workdir)`.
        workdir: The work directory of the run.
        step: Checkpoint: "best", "latest" or the number of a step.
        out: File to write, with the suffix of the format; missing folders are made.
        weights: Weights of the checkpoint: "ema" or "trained"; empty = those that training evaluated.
        format: Format of the file, a key of `FORMATS`: "jax" (.zip) or "onnx" (.onnx).
        batch_size: The only batch size that the program takes; 0 = it takes any.
        platforms: Platforms that the program can be compiled for, of those of the format; None = the format's own
            choice, CPUs and NVIDIA GPUs for "jax". A file of the format "onnx" is for all platforms.
        license: Terms under which the file is passed on, for its description; "" = the description says that they are
            not stated, and what they depend on.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError: The run has no checkpoints, or no such step.
        ValueError: The format or a platform is unknown, `out` has the suffix of another format, the batch size is
            negative, a package that writes the format is not installed, the checkpoint does not fit the
            configuration or has no such weights, or the model has an operation that the format does not know.
    """
    out, writer = Path(out), FORMATS[format]
    _check_suffix(out, format)
    chosen = writer.default_platforms if platforms is None else tuple(platforms)
    _check_platforms(chosen, format)
    if batch_size < 0:
        raise ValueError(f"batch_size is {batch_size}; give the number of images, or 0 for any number")
    if out.exists():
        raise FileExistsError(f"{out} exists already; remove it, or give another file to write")
    writer.check_installed()
    out.parent.mkdir(parents=True, exist_ok=True)
    run = _computing_in(experiment.make(config), writer.dtypes, format)
    number, weights, state = restore.load(run, workdir, step, weights)
    model = state.model()
    made = history.of_run(run, model, Path(workdir), number, weights)
    program = programs.make(model, run.main_tasks, run.image_size, batch_size=batch_size)
    content, description = writer.encode(program, describe(run, made, program, license=license), chosen)
    atomic_files.write(out, content)
    return description


def _check_suffix(out: Path, format: str) -> None:
    """Checks that a file has the suffix of its format.

    Raises:
        ValueError: It has another one.
    """
    if out.suffix == FORMATS[format].suffix:
        return
    fitting = [name for name, other in FORMATS.items() if other.suffix == out.suffix]
    remedy = f"; or give format {fitting[0]!r}, whose files end in {out.suffix}" if fitting else ""
    raise ValueError(
        f"the file to write is {out}, but files of the format {format!r} end in {FORMATS[format].suffix}: name it "
        f"{out.stem}{FORMATS[format].suffix}{remedy}"
    )


def _check_platforms(platforms: Sequence[str], format: str) -> None:
    """Checks that a format has these platforms.

    Raises:
        ValueError: It does not have one of them, or none is given.
    """
    known = FORMATS[format].platforms
    if not known and platforms:
        raise ValueError(
            f"platforms are {', '.join(platforms)}, but files of the format {format!r} are the same for all platforms; "
            "leave the platforms out"
        )
    if known and (not platforms or not set(platforms) <= set(known)):
        raise ValueError(f"cannot export for {', '.join(platforms) or 'no platform'}; there are {', '.join(known)}")


def _computing_in(run: Experiment, dtypes: Sequence[str], format: str) -> Experiment:
    """Returns the experiment with a computation type that a format has; the weights are float32 anyway."""
    model = run.config.model
    if model.dtype in dtypes:
        return run
    logger.warning("the run computes in %s; its file of the format %s computes in %s", model.dtype, format, dtypes[0])
    return experiment.make(dataclasses.replace(run.config, model=dataclasses.replace(model, dtype=dtypes[0])))


def describe(run: Experiment, made: History, program: Program, *, license: str = "") -> dict[str, Any]:
    """Returns a description of a program for its users, ready for JSON.

    Args:
        run: The experiment that the model is from.
        made: How the weights came about.
        program: The program.
        license: Terms under which the file is passed on; "" = not stated.
    """
    config = run.config
    described = {task: programs.form(program.outputs[task]) for task in run.main_tasks}
    for task, classes in run.channels.items():
        kind, names = task_table.get(task).kind, run.class_names.get(task)
        described[task] |= kind.describe_prediction(classes, names, run.conventions)
    return {
        "input": programs.form(program.images)
        | {
            "name": "images",
            "meaning": "RGB images, resized to this height and width",
            "normalisation": "none: the program takes bytes from 0 to 255 and normalises them itself",
            "resize": "cubic, without antialiasing, as in evaluation",
        },
        "outputs": described,
        "model": config.model.name,
        "backbone": config.model.backbone,
        "dtype": config.model.dtype,
        "step": made.step,
        "steps_of_training": made.steps,
        "weights": made.weights,
        "origin": {
            "data": run.builder_name,
            "split": "train",
            "initial_weights": made.initial_weights,
            "written_by": f"mtl_jax {mtl_jax.__version__}",
        },
        "license": license
        or (
            "not stated. The code that wrote the file is under Apache-2.0; the weights also depend on the terms of the "
            "data and of the initial weights, see origin"
        ),
        "versions": {"mtl_jax": mtl_jax.__version__, "jax": jax.__version__},
    }
