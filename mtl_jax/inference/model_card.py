"""The model card of a saved model: what it predicts, how well, from which data, and how to use it."""

from mtl_jax import __version__
from mtl_jax import tasks as task_table
from mtl_jax.config import EMA, Train
from mtl_jax.evaluation import result_files
from mtl_jax.evaluation.scoring import table
from mtl_jax.experiment import Experiment
from mtl_jax.inference import maps
from mtl_jax.runtime.messages import counted, markdown_cell, size_text
from mtl_jax.train.history import History

_UNSTATED = "unknown"


def text(
    experiment: Experiment,
    made: History,
    results: result_files.Report | None,
    name: str,
    *,
    license: str = "",
    author: str = "",
) -> str:
    """Returns a model card in Markdown, with the metadata that the Hugging Face Hub reads at its beginning.

    Args:
        experiment: The experiment that the model is from.
        made: How the weights came about.
        results: Scores of the model; None where it was not evaluated.
        name: Name of the model.
        license: License of the weights, an identifier such as "apache-2.0"; empty = not stated.
        author: Who publishes the weights; empty = not stated.
    """
    parts = [
        _metadata(experiment, license),
        f"# {markdown_cell(name)}",
        _summary(experiment),
        _usage(name),
        _tasks(experiment),
        _training(experiment, made),
        _scores(results),
        _terms(license, author),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(experiment: Experiment, license: str) -> str:
    lines = [
        "---",
        f"license: {license or _UNSTATED}",
        "library_name: mtl_jax",
        "tags:",
        "- multi-task-learning",
        "- dense-prediction",
        *(f"- {task}" for task in experiment.main_tasks),
        "---",
    ]
    return "\n".join(lines)


def _summary(experiment: Experiment) -> str:
    model = experiment.config.model
    tasks = ", ".join(experiment.main_tasks)
    return (
        f"A network of the library mtl_jax that predicts {tasks} for every pixel of an image: "
        f"model `{model.name}` with backbone `{model.backbone}`, written by version {__version__}."
    )


def _usage(name: str) -> str:
    return "\n".join(
        [
            "## Use",
            "",
            "```python",
            "import mtl_jax",
            "",
            f'model = mtl_jax.load("{markdown_cell(name)}")  # the path of this folder, or hf://OWNER/NAME',
            'maps = model("photo.jpg")',
            "for task, each in maps.items():",
            "    print(task, each.array.shape, each.array.dtype)",
            "```",
        ]
    )


def _tasks(experiment: Experiment) -> str:
    lines = ["## Tasks", "", "| task | values | classes |", "| --- | --- | --- |"]
    names = maps.class_names(experiment)
    for task, channels in experiment.channels.items():
        kind = task_table.get(task).kind
        classes = ", ".join(f"{i} {markdown_cell(one)}" for i, one in enumerate(names.get(task, ())))
        number = f"{channels}: {classes}" if kind.has_classes else ""
        lines.append(f"| {task} | {kind.map_meaning(experiment.conventions)} | {number} |")
    return "\n".join(lines)


def _training(experiment: Experiment, made: History) -> str:
    config, data = experiment.config, experiment.config.data
    lines = [
        "## Training",
        "",
        f"* data set: {markdown_cell(data.dataset)} (builder `{experiment.builder_name}`)",
        f"* images of {size_text(experiment.image_size)} (height x width)",
        f"* {made.progress}",
        *([f"* averaged weights (EMA), decay {config.train.ema:g}"] if made.weights == EMA else []),
        f"* initial weights: {markdown_cell(made.initial_weights)}",
        f"* configuration of the training: {_length(config.train)} with a batch size of "
        f"{config.train.batch_size}, {config.optim.name}, learning rate {config.optim.lr:g}, seed {config.train.seed}",
    ]
    if set(experiment.aux_tasks) != set(experiment.main_tasks):
        lines.append(f"* intermediate predictions: {', '.join(experiment.aux_tasks)}")
    return "\n".join(lines)


def _length(train: Train) -> str:
    return counted(train.steps, "step") if train.steps else counted(train.epochs, "epoch")


def _scores(results: result_files.Report | None) -> str:
    if results is None:
        return "## Scores\n\nThe model was not evaluated before it was saved."
    protocol = ", ".join(f"{name} {value}" for name, value in results["protocol"].items())
    head = f"Step {results['step']}, on the validation split, by the protocol: {protocol}."
    return f"## Scores\n\n{head}\n\n```\n{table(results['results'])}\n```"


def _terms(license: str, author: str) -> str:
    stated = f"The weights are under the license {license}." if license else "The license of the weights is not stated."
    by = f" They are published by {markdown_cell(author)}." if author else ""
    return (
        f"## Terms\n\n{stated}{by} The data set, and pretrained weights that the training began with, have their own "
        "terms."
    )
