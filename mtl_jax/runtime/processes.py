"""Several processes as one run: how they find each other, and what only one of them does."""

import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

_ANSWER, _FAILED = b"+", b"-"


class Launcher(NamedTuple):
    """What a program that starts processes leaves in the environment of each.

    Attributes:
        marks: the variables that are all there in its processes, and not elsewhere.
        size: of them, the one with the number of processes, ...
        rank: ... with this one's, ...
        local: ... and with this one's on its host; all empty where JAX asks the launcher itself.
    """

    marks: tuple[str, ...]
    size: str = ""
    rank: str = ""
    local: str = ""


def _launcher(size: str, rank: str, local: str, *others: str) -> Launcher:
    return Launcher((size, rank, local, *others), size, rank, local)


LAUNCHERS = {
    # Within srun alone: a script of sbatch, or a shell of salloc, is one process although SLURM_NTASKS says more.
    "SLURM": _launcher("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST"),
    "Open MPI": _launcher("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "Kubernetes": Launcher(("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")),  # a pod of an indexed job
}


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_timeout: int = 100,
) -> None:
    """Joins this process to the others of its run, before any device is used; a process on its own is left alone.

    What is not given is what SLURM (srun), Open MPI (mpirun) or Kubernetes (an indexed job; it takes the kubernetes
    package) say. Under SLURM and Open MPI a process then has one device, or those of `JAX_LOCAL_DEVICE_IDS`.

    Args:
        coordinator_address: host:port of process 0, which all others reach.
        num_processes: of the run.
        process_id: of this one, from 0.
        heartbeat_timeout: seconds until a process that is not heard of counts as dead; all others end then.

    Raises:
        ValueError: only some of it is known.
        RuntimeError: the others cannot be reached.
    """
    launcher = next((name for name, row in LAUNCHERS.items() if all(mark in os.environ for mark in row.marks)), None)
    devices: list[int] | None = None
    if launcher is not None and LAUNCHERS[launcher].size:
        row = LAUNCHERS[launcher]
        num_processes = _number(row.size) if num_processes is None else num_processes
        process_id = _number(row.rank) if process_id is None else process_id
        if "JAX_LOCAL_DEVICE_IDS" not in os.environ:
            devices = [_number(row.local)]
    given = {
        "--coordinator_address": coordinator_address,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    known = {name: value for name, value in given.items() if value is not None}
    if launcher is None and 0 < len(known) < len(given):
        raise ValueError(
            f"{', '.join(f'{name} is {value}' for name, value in known.items())}, but "
            f"{', '.join(name for name in given if name not in known)} is missing and no launcher "
            f"({', '.join(LAUNCHERS)}) says it; give all three, or none for a process on its own"
        )
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id is {process_id} of --num_processes {num_processes}; give 0 <= process_id < num_processes"
        )
    if (launcher is None and not known) or num_processes == 1:
        return
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            devices,
            heartbeat_timeout_seconds=heartbeat_timeout,
            shutdown_timeout_seconds=heartbeat_timeout,  # for which one that has failed waits for the others
        )
    except ValueError as error:
        raise ValueError(
            f"{launcher or 'the command line'} starts several processes, but not enough is known of them: {error} Give "
            "--coordinator_address=HOST:PORT of process 0, --num_processes and --process_id; or --num_processes=1, if "
            "each is a run of its own"
        ) from error
    # Connections between devices are made at the first transfer, for which no process may then be late.
    multihost_utils.sync_global_devices("mtl_jax")


def _number(variable: str) -> int:
    value = os.environ[variable]
    if not value.isdecimal():
        raise ValueError(f"the environment variable {variable} is {value!r}, expected a number")
    return int(value)


def first() -> bool:
    """Whether this process is the one that writes what all share."""
    return jax.process_index() == 0


def first_says(ask: Callable[[], str]) -> str:
    """What `ask` returns in the first process, which alone calls it; all others wait for it.

    Raises:
        What `ask` raised, in the first process; ValueError with its message in the others.
    """
    if jax.process_count() == 1:
        return ask()
    failed: Exception | None = None
    answer = ""
    if first():
        try:
            answer = ask()
        except Exception as error:
            failed, answer = error, str(error) or type(error).__name__
    told = _from_first((_FAILED if failed is not None else _ANSWER) + answer.encode())
    if failed is not None:
        raise failed
    text = told[1:].decode()
    if told[:1] == _FAILED:
        raise ValueError(f"process 0 has failed: {text}")
    return text


def _from_first(message: bytes) -> bytes:
    """The first process's message, in all."""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    padded = np.frombuffer(message[:length].ljust(length, b"\0"), np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()


def on_first(action: Callable[[], object]) -> None:
    """Runs an action in the first process while the others wait for it; the errors are those of `first_says`."""

    def act() -> str:
        action()
        return ""

    first_says(act)
