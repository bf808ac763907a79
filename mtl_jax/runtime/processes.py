"""Runs of several processes: how the processes find each other, and work that only the first one does."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

_ANSWER, _FAILED = b"+", b"-"


class Launcher(NamedTuple):
    """The environment variables that a launcher, a program that starts processes, sets in each process.

    Attributes:
        marks: Variables that are all set in the processes of this launcher, and not in other processes.
        size: Variable with the number of processes; "" if JAX asks the launcher itself.
        rank: Variable with the index of the process; "" if JAX asks the launcher itself.
        local: Variable with the index of the process on its host; "" if JAX asks the launcher itself.
    """

    marks: tuple[str, ...]
    size: str = ""
    rank: str = ""
    local: str = ""


def _launcher(size: str, rank: str, local: str, *others: str) -> Launcher:
    return Launcher((size, rank, local, *others), size, rank, local)


LAUNCHERS = {
    # The last variable is set by srun only. A script of sbatch, or a shell of salloc, is a single process although
    # SLURM_NTASKS may be larger.
    "SLURM": _launcher("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST"),
    "Open MPI": _launcher("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "Kubernetes": Launcher(("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")),  # set in the pods of an indexed job
}


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_timeout: int = 100,
) -> None:
    """Connects this process with the other processes of its run; does nothing if it is the only one.

    It must be called before any device is used. Arguments that are None are taken from SLURM (srun), Open MPI (mpirun)
    or Kubernetes (an indexed job; it needs the package kubernetes). Under SLURM and Open MPI a process has one device,
    or the devices in the environment variable `JAX_LOCAL_DEVICE_IDS`.

    Args:
        coordinator_address: Address HOST:PORT of process 0, which all other processes can reach.
        num_processes: Number of processes of the run.
        process_id: Index of this process, from 0.
        heartbeat_timeout: Seconds without a sign of life after which a process counts as dead. All other processes then
            end, too.

    Raises:
        ValueError: some arguments are missing and no launcher provides them, or they contradict each other.
        RuntimeError: the other processes cannot be reached.
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
            f"({', '.join(LAUNCHERS)}) provides it; give all three, or none for a single process"
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
            shutdown_timeout_seconds=heartbeat_timeout,  # how long a failed process waits for the others
        )
    except ValueError as error:
        raise ValueError(
            f"{launcher or 'the command line'} starts several processes, but not enough is known of them: {error} Give "
            "--coordinator_address=HOST:PORT of process 0, --num_processes and --process_id; or --num_processes=1 if "
            "each process is a run of its own"
        ) from error
    # Devices connect at their first transfer, which fails if a process is late; this call makes all processes wait.
    multihost_utils.sync_global_devices("mtl_jax")


def _number(variable: str) -> int:
    value = os.environ[variable]
    if not value.isdecimal():
        raise ValueError(f"the environment variable {variable} is {value!r}, expected a number")
    return int(value)


def first() -> bool:
    """Returns True in the first process, which writes the files of the run."""
    return jax.process_index() == 0


def first_says(ask: Callable[[], str]) -> str:
    """Calls a function in the first process alone, and returns its result in all processes.

    Args:
        ask: Function to call. The other processes wait for its result.

    Raises:
        ValueError: the function raised an exception in the first process; the message is that of the exception. The
            first process raises the exception itself.
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


def check_agreement(what: str, facts: Mapping[str, object]) -> None:
    """Checks that all processes of a run say the same.

    Every process must call it, with the same names at the same place. All get the same error.

    Args:
        what: What the facts are about, for the message.
        facts: {name: value}, ready for JSON.

    Raises:
        ValueError: Processes differ; the message lists the names and the values of the processes.
    """
    if jax.process_count() == 1:
        return
    told = [json.loads(message) for message in _from_all(json.dumps(facts, sort_keys=True, default=str).encode())]
    if different := disagreements(told):
        raise ValueError(
            f"the processes of this run do not agree on {what}: {'; '.join(different)}. Start all of them with the "
            "same command, packages and data"
        )


def disagreements(told: Sequence[Mapping[str, object]]) -> list[str]:
    """Describes the facts in which processes differ.

    Args:
        told: {name: value} of each process, in order.
    """
    names = dict.fromkeys(name for facts in told for name in facts)
    return [
        f"{name} is " + ", ".join(f"{facts.get(name)!r} in process {number}" for number, facts in enumerate(told))
        for name in names
        if any(facts.get(name) != told[0].get(name) for facts in told)
    ]


def _from_all(message: bytes) -> list[bytes]:
    """Returns the messages of all processes."""
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(message)))).reshape(-1)
    padded = np.frombuffer(message.ljust(int(lengths.max()), b"\0"), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [row.tobytes()[:length] for row, length in zip(rows, lengths, strict=True)]


def _from_first(message: bytes) -> bytes:
    """Sends the message of the first process to all processes."""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    padded = np.frombuffer(message[:length].ljust(length, b"\0"), np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()


def on_first(action: Callable[[], object]) -> None:
    """Runs an action in the first process while the others wait for it; errors are raised as by `first_says`."""

    def act() -> str:
        action()
        return ""

    first_says(act)
