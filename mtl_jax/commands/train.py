"""Trains a model, or continues from the newest checkpoint of the work directory.

    mtl train nyud_mtinet --workdir runs/nyud_mtinet
    mtl train nyud_mtinet:aux=edge+normals --optim.lr=3e-4 --workdir runs/aux
    mtl train my_recipe.py --workdir runs/mine

    mtl train nyud_mtinet --find_lr --workdir runs/lr

--find_lr trains nothing that is kept. It raises the learning rate from step to step (learning-rate range test, arXiv
1506.01186), prints the rate at which the loss falls fastest, and writes lr_finder.json and lr_finder.png into the work
directory, which must have no checkpoint. It needs the extra "plots".

Several processes, one a host or one a GPU, train together where SLURM, Open MPI or Kubernetes starts them, or with
--coordinator_address, --num_processes and --process_id.

The exit status is 0 at the end of training, 1 on an error, and 2 on a wrong option or field. After SIGTERM or SIGINT
the step is finished and saved, and the exit status is 75; the same command continues the run.
"""

import argparse
import logging
import sys
from pathlib import Path

from mtl_jax import cli, experiment
from mtl_jax.evaluation import result_files
from mtl_jax.experiment import Experiment
from mtl_jax.runtime import messages, processes
from mtl_jax.train import lr_finder, profiling
from mtl_jax.train.loop import fit
from mtl_jax.train.stop import EXIT_STATUS, StoppedError

_SWEEP = lr_finder.Sweep()
# {option: the options with one of which it has an effect}
_NEEDS = {"find_lr_steps": ("find_lr",), "find_lr_min": ("find_lr",), "find_lr_max": ("find_lr",)}
# {option: the options with each of which it has none}
_EXCLUDED = {"single_task": ("find_lr",), "allow_config_change": ("find_lr",), "profile": ("find_lr",)}


def add_arguments(parser: cli.Parser) -> None:
    parser.add_config(explain=True)
    parser.add_argument(
        "--workdir", required=True, help="directory of the run, for checkpoints, logs and configuration"
    )
    parser.add_single_task()
    parser.add_argument(
        "--allow_config_change",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="continue the run although its configuration differs",
    )
    parser.add_argument(
        "--profile",
        type=_steps,
        metavar="FIRST:LAST",
        help="steps to record for TensorBoard and Perfetto in WORKDIR/profile, counted from 1 at the start of this "
        "process: 10:20 for example; the trace ends before an evaluation",
    )
    parser.add_argument(
        "--find_lr",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="look for a learning rate, and train nothing that is kept",
    )
    parser.add_argument(
        "--find_lr_steps",
        type=cli.at_least(lr_finder.LEAST_STEPS),
        metavar="N",
        help=f"steps of --find_lr, {_SWEEP.steps} by default",
    )
    parser.add_argument(
        "--find_lr_min",
        type=float,
        metavar="RATE",
        help=f"learning rate that --find_lr begins with, {_SWEEP.low:g} by default",
    )
    parser.add_argument(
        "--find_lr_max",
        type=float,
        metavar="RATE",
        help=f"learning rate that --find_lr ends with, {_SWEEP.high:g} by default",
    )
    parser.add_argument("--coordinator_address", metavar="HOST:PORT", help="address of process 0 of several")
    parser.add_argument("--num_processes", type=cli.at_least(1), metavar="N", help="processes of the run")
    parser.add_argument("--process_id", type=cli.at_least(0), metavar="N", help="this process, counted from 0")
    parser.add_argument(
        "--heartbeat_timeout",
        type=cli.at_least(1),
        default=100,
        metavar="SECONDS",
        help="time after which a silent process counts as dead, which ends the others",
    )
    parser.refuse_ineffective(needs=_NEEDS, excluded=_EXCLUDED)


def run(arguments: argparse.Namespace) -> None:
    cli.enable_compilation_cache()
    processes.initialize(
        arguments.coordinator_address,
        arguments.num_processes,
        arguments.process_id,
        heartbeat_timeout=arguments.heartbeat_timeout,
    )
    if not processes.first():
        logging.getLogger("mtl_jax").setLevel(logging.WARNING)  # the first process tells how the run goes
    asked = experiment.make(experiment.resolve(arguments.config))
    if arguments.find_lr:
        _find_lr(asked, arguments)
        return
    reference = None
    if arguments.single_task:
        reference = result_files.read_single_task(
            arguments.single_task, asked.streaming_criteria, asked.protocol_description
        )
    try:
        fit(
            asked,
            arguments.workdir,
            reference,
            allow_config_change=arguments.allow_config_change,
            profile=arguments.profile,
        )
    except StoppedError as stopped:
        logging.getLogger("mtl_jax").warning("%s", stopped)
        sys.exit(EXIT_STATUS)


def _steps(text: str) -> profiling.Steps:
    first, _, last = text.partition(":")
    try:
        return profiling.Steps(int(first), int(last))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} names no steps; give the first and the last one, counted from 1, as in 10:20"
        ) from error


def _find_lr(run: Experiment, arguments: argparse.Namespace) -> None:
    try:
        from mtl_jax.reports import lr_plot
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--find_lr draws a plot, which needs {error.name}; install the extra: {messages.install('plots')}"
        ) from error
    given = {"low": arguments.find_lr_min, "high": arguments.find_lr_max, "steps": arguments.find_lr_steps}
    sweep = lr_finder.Sweep(**{name: value for name, value in given.items() if value is not None})
    model, workdir = run.config.model, Path(arguments.workdir)
    test = lr_finder.run(run, sweep, workdir)
    if not processes.first():
        return
    numbers = lr_finder.write(test, workdir)
    what = f"{model.name} on {model.backbone}, {run.builder_name}, optimiser {run.config.optim.name}"
    title = f"Learning-rate range test\n{what}"
    picture = lr_plot.draw(test, title, workdir)
    cli.show(f"{lr_finder.text(test, sweep)}\nthe curve is in {picture} and {numbers}")
