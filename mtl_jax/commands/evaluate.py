"""Evaluates by the final protocol: predictions at original size, quantised, against untouched labels.

    mtl evaluate --workdir runs/nyud_mtinet
    mtl evaluate --workdir runs/nyud_mtinet --step latest --single_task runs/single --save_predictions out
    mtl evaluate --predictions DIR --dataset pascal --tasks semseg,edge --protocol invpt

Evaluates a checkpoint, or the files of any tool: DIR/TASK/ID.png (class ids; 0..255 for sal and edge; RGB =
255 (n + 1) / 2 for normals), DIR/depth/ID.mat (metres, key depth). Both ways give the same numbers. Writes results.json
into the work directory or DIR, results_STEP.json for other checkpoints than the best, results_WEIGHTS.json for other
weights than those that training evaluated, results_PROTOCOL.json for another protocol than the run's own,
results.SPLIT.json for another split than val, and prints a table.

An interrupted evaluation goes on where it was: with the same arguments no image is predicted, scored or matched again.
"""

import argparse

from mtl_jax import cli
from mtl_jax.data import catalogue
from mtl_jax.evaluation import result_files
from mtl_jax.inference import evaluate
from mtl_jax.protocol import PROTOCOLS

# {option: the options with one of which it has an effect}
_NEEDS = {
    "step": ("workdir",),
    "weights": ("workdir",),
    "batch_size": ("workdir",),
    "save_predictions": ("workdir",),
    "dataset": ("predictions",),
    "builder": ("predictions",),
    "tasks": ("predictions",),
    "manual_dir": ("predictions",),
}


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("--workdir", help="directory of a training run")
    parser.add_argument("--step", help="checkpoint: best (the default), latest or a step number")
    parser.add_weights()
    parser.add_argument(
        "--predictions", metavar="DIR", help="instead of --workdir: folder with predictions of any tool"
    )
    parser.add_argument("--dataset", choices=list(catalogue.DATASETS), help="with --predictions: their data set")
    parser.add_argument("--builder", help="with --predictions: TFDS builder, by default the data set's own")
    parser.add_argument(
        "--tasks",
        type=cli.names,
        metavar="A,B,...",
        help="with --predictions: tasks to score, by default every task with a sub-folder",
    )
    parser.add_argument(
        "--manual_dir",
        metavar="DIR",
        help="with --predictions: original files of the data set, or the folder with your images and labels",
    )
    parser.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        help="evaluation protocol; by default the run's own, and survey for --predictions",
    )
    parser.add_argument("--split", default=result_files.SPLIT, help="split of the images, val by default")
    parser.add_single_task()
    parser.add_argument("--save_predictions", metavar="DIR", help="folder that receives every prediction as a file")
    parser.add_argument(
        "--batch_size", type=cli.at_least(0), metavar="N", help="images in a batch; by default the run's own number"
    )
    parser.add_argument(
        "--data_dir", default="", metavar="DIR", help="folder of the built data sets; by default the run's own"
    )
    parser.add_argument(
        "--num_workers",
        type=cli.at_least(0),
        metavar="N",
        help="processes that read images and match edges; by default the run's own number for images, one per core for "
        "edges",
    )
    parser.add_argument(
        "--bootstrap",
        type=cli.at_least(0),
        default=0,
        metavar="N",
        help="resamples of the images for confidence intervals, for example 1000; 0 = none",
    )
    parser.add_argument(
        "--constant_baseline",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also score the best constant prediction, for comparison",
    )
    parser.refuse_ineffective(needs=_NEEDS)


def run(arguments: argparse.Namespace) -> None:
    cli.enable_compilation_cache()
    if bool(arguments.workdir) == bool(arguments.predictions):
        raise ValueError("give either --workdir, a training run, or --predictions, a folder with files")
    options = evaluate.Options(
        protocol=arguments.protocol or "",
        single_task=arguments.single_task,
        data_dir=arguments.data_dir,
        num_workers=arguments.num_workers,
        bootstrap=arguments.bootstrap,
        constant_baseline=arguments.constant_baseline,
        split=arguments.split,
    )
    if arguments.workdir:
        report = evaluate.evaluate_run(
            arguments.workdir,
            arguments.step or result_files.BEST,
            options,
            weights=arguments.weights,
            batch_size=arguments.batch_size or 0,
            save_predictions=arguments.save_predictions,
        )
    else:
        report = evaluate.evaluate_files(
            arguments.predictions,
            arguments.dataset or "",
            options,
            tasks=arguments.tasks or (),
            builder=arguments.builder or "",
            manual_dir=arguments.manual_dir or "",
        )
    cli.show(result_files.readable(report))
