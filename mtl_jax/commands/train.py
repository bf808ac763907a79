"""Trains a model, or continues from the newest checkpoint of the work directory.

    mtl train nyud_mtinet --workdir runs/nyud_mtinet
    mtl train nyud_mtinet:aux=edge+normals --optim.lr=3e-4 --workdir runs/aux
    mtl train my_recipe.py --workdir runs/mine

Several processes, one a host or one a GPU, train together where SLURM, Open MPI or Kubernetes starts them, or with
--coordinator_address, --num_processes and --process_id.

The exit status is 0 at the end of training, 1 on an error, and 2 on a wrong option or field. After SIGTERM or SIGINT
the step is finished and saved, and the exit status is 75; the same command continues the run.
"""

import argparse
import logging
import sys

from mtl_jax import cli, experiment
from mtl_jax.evaluation import result_files
from mtl_jax.runtime import processes
from mtl_jax.train import profiling
from mtl_jax.train.loop import fit
from mtl_jax.train.stop import EXIT_STATUS, StoppedError


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
        "process: 10:20 for example",
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
