"""Evaluates by the final protocol: predictions at original size, quantised, against untouched labels.

    python scripts/evaluate.py --workdir runs/nyud_mtinet
    python scripts/evaluate.py --workdir runs/nyud_mtinet --step latest --single_task runs/single --save_predictions out
    python scripts/evaluate.py --predictions DIR --dataset pascal --tasks semseg,edge --protocol invpt

Evaluates a checkpoint, or the files of any tool: DIR/TASK/ID.png (class ids; 0..255 for sal and edge; RGB =
255 (n + 1) / 2 for normals), DIR/depth/ID.mat (metres, key depth). Both ways give the same numbers. Writes results.json
into the work directory or DIR, results_STEP.json for other checkpoints than the best, results_PROTOCOL.json for another
protocol than the run's own, results.SPLIT.json for another split than val, and prints a table.

An interrupted evaluation goes on where it was: with the same arguments no image is predicted, scored or matched again.
"""

from absl import flags

from mtl_jax import cli
from mtl_jax.data import catalogue
from mtl_jax.evaluation import result_files
from mtl_jax.inference import evaluate
from mtl_jax.protocol import PROTOCOLS

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of a training run")
_STEP = flags.DEFINE_string("step", result_files.BEST, "checkpoint: best, latest or a step number")
_PREDICTIONS = flags.DEFINE_string("predictions", None, "instead of --workdir: folder with predictions of any tool")
_DATASET = flags.DEFINE_enum("dataset", None, list(catalogue.DATASETS), "with --predictions: their data set")
_BUILDER = flags.DEFINE_string("builder", "", "with --predictions: TFDS builder, by default the data set's own")
_TASKS = flags.DEFINE_list("tasks", [], "with --predictions: tasks to score, by default every task with a sub-folder")
_MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", "", "with --predictions: original files of the data set, or the folder with your images and labels"
)
_PROTOCOL = flags.DEFINE_enum(
    "protocol", None, list(PROTOCOLS), "evaluation protocol; by default the run's own, and survey for --predictions"
)
_SPLIT = flags.DEFINE_string("split", result_files.SPLIT, "split of the images, for example test")
_SINGLE_TASK = flags.DEFINE_multi_string("single_task", [], "directory with results of single-task runs (repeatable)")
_SAVE = flags.DEFINE_string("save_predictions", None, "folder that receives every prediction as a file")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "images in a batch; 0 = the run's own number", lower_bound=0)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder of the built data sets; by default the run's own")
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers",
    None,
    "processes that read images and match edges; by default the run's own number for images, one per core for edges",
)
_BOOTSTRAP = flags.DEFINE_integer(
    "bootstrap", 0, "resamples of the images for confidence intervals, for example 1000; 0 = none", lower_bound=0
)
_CONSTANT = flags.DEFINE_bool("constant_baseline", False, "also score the best constant prediction, for comparison")

_FOR_RUNS, _FOR_FILES = ("step", "batch_size", "save_predictions"), ("dataset", "builder", "tasks", "manual_dir")


def main() -> None:
    cli.enable_compilation_cache()
    _check_flags()
    options = evaluate.Options(
        protocol=_PROTOCOL.value or "",
        single_task=_SINGLE_TASK.value,
        data_dir=_DATA_DIR.value,
        num_workers=_NUM_WORKERS.value,
        bootstrap=_BOOTSTRAP.value,
        constant_baseline=_CONSTANT.value,
        split=_SPLIT.value,
    )
    if _WORKDIR.value:
        report = evaluate.evaluate_run(
            _WORKDIR.value, _STEP.value, options, batch_size=_BATCH_SIZE.value, save_predictions=_SAVE.value
        )
    else:
        report = evaluate.evaluate_files(
            str(_PREDICTIONS.value),
            _DATASET.value or "",
            options,
            tasks=_TASKS.value,
            builder=_BUILDER.value,
            manual_dir=_MANUAL_DIR.value,
        )
    cli.show(result_files.readable(report))


def _check_flags() -> None:
    if bool(_WORKDIR.value) == bool(_PREDICTIONS.value):
        raise ValueError("give either --workdir, a training run, or --predictions, a folder with files")
    given, foreign = ("--workdir", _FOR_FILES) if _WORKDIR.value else ("--predictions", _FOR_RUNS)
    if wrong := [f"--{name}" for name in foreign if flags.FLAGS[name].present]:
        raise ValueError(f"{', '.join(wrong)} cannot be given with {given}")


if __name__ == "__main__":
    cli.run(main)
