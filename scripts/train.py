"""Trains a model, or continues from the newest checkpoint of the work directory.

python scripts/train.py --config configs/nyud_mtinet.py --workdir runs/nyud_mtinet
python scripts/train.py --config configs/nyud_mtinet.py:aux=edge+normals --config.optim.lr=3e-4 --workdir runs/aux

Several processes, one a host or one a GPU, train together where SLURM, Open MPI or Kubernetes starts them, or with
--coordinator_address, --num_processes and --process_id: see docs/scaling.md.

The exit status is 0 at the end of training and 1 on an error. After SIGTERM or SIGINT the step is finished and saved,
and the exit status is 75; the same command continues the run.
"""

import logging
import sys

from absl import flags
from ml_collections import config_flags

from mtl_jax import cli, experiment
from mtl_jax.evaluation import result_files
from mtl_jax.runtime import processes
from mtl_jax.train.loop import fit
from mtl_jax.train.stop import EXIT_STATUS, StoppedError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configuration, FILE.py or FILE.py:key=value,...")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "directory of the run, for checkpoints, logs and configuration", required=True
)
_SINGLE_TASK = flags.DEFINE_multi_string("single_task", [], "directory with results of single-task runs (repeatable)")
_ALLOW_CHANGE = flags.DEFINE_bool("allow_config_change", False, "continue the run although its configuration differs")
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of process 0 of several")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "processes of the run", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "this process, counted from 0", lower_bound=0)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_timeout",
    100,
    "seconds after which a silent process counts as dead, which ends the others",
    lower_bound=1,
)
flags.mark_flag_as_required("config")


def main() -> None:
    cli.enable_compilation_cache()
    processes.initialize(
        _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, heartbeat_timeout=_HEARTBEAT.value
    )
    if not processes.first():
        logging.getLogger("mtl_jax").setLevel(logging.WARNING)  # the first process tells how the run goes
    run = experiment.make(experiment.resolve(_CONFIG.value))
    reference = None
    if _SINGLE_TASK.value:
        reference = result_files.read_single_task(_SINGLE_TASK.value, run.streaming_criteria, run.protocol_description)
    try:
        fit(run, _WORKDIR.value, reference, allow_config_change=_ALLOW_CHANGE.value)
    except StoppedError as stopped:
        logging.getLogger("mtl_jax").warning("%s", stopped)
        sys.exit(EXIT_STATUS)


if __name__ == "__main__":
    cli.run(main)
