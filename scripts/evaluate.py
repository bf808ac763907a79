"""Evaluates a checkpoint by the final protocol: predictions at original size, quantised, against untouched labels.

    python scripts/evaluate.py --workdir runs/nyud_mtinet
    python scripts/evaluate.py --workdir runs/nyud_mtinet --step latest --single_task runs/single --save_predictions out

Writes results.json into the work directory and prints a table.
"""

from pathlib import Path

from absl import flags
from tqdm import tqdm

from mtl_jax import cli, constant, evaluate, experiment
from mtl_jax.restore import Restored

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of a training run", required=True)
_STEP = flags.DEFINE_string("step", "best", "checkpoint: best, latest or a step number")
_SINGLE_TASK = flags.DEFINE_multi_string("single_task", [], "directory with results of single-task runs (repeatable)")
_SAVE = flags.DEFINE_string("save_predictions", None, "folder that receives every prediction as a file")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "images at a time; 0 = the run's own", lower_bound=0)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where built data sets live; by default where the run had them")
_NUM_WORKERS = flags.DEFINE_integer("num_workers", None, "processes that read images; by default the run's own")
_CONSTANT = flags.DEFINE_bool("constant_baseline", False, "also score the best constant prediction, for comparison")


def main() -> None:
    cli.enable_compilation_cache()
    config = experiment.load_config(_WORKDIR.value)
    if _DATA_DIR.value is not None:
        config.data.data_dir = _DATA_DIR.value
    if _NUM_WORKERS.value is not None:
        config.data.num_workers = _NUM_WORKERS.value
    run = Restored(config, _WORKDIR.value, _STEP.value)
    reference = None
    if _SINGLE_TASK.value:
        reference = evaluate.read_single_task(_SINGLE_TASK.value, run.tasks, experiment.protocol(config))
    source = experiment.open_split(config, "val", run.tasks)
    images = tqdm(run.predict_split(source, _BATCH_SIZE.value), total=len(source), unit="image")
    metrics = experiment.build_metrics(config, final=True)
    save_to = Path(_SAVE.value) if _SAVE.value else None
    results = evaluate.final(images, source, metrics, config.data.dataset, save_to)
    report = evaluate.report(results, reference, step=run.step, protocol=experiment.protocol(config))
    if _CONSTANT.value:
        train = experiment.open_split(config, "train", run.tasks)
        report["constant"] = constant.score(train, source, metrics, config.data.dataset)
    evaluate.write_report(report, _WORKDIR.value)
    print(evaluate.readable(report))


if __name__ == "__main__":
    cli.run(main)
