"""The lock of a work directory, which admits one run at a time."""

from pathlib import Path

from filelock import FileLock, Timeout

LOCK = "lock"


def acquire(lock: FileLock, workdir: Path) -> None:
    """Takes the lock of a work directory, which is held until it is released or this process dies.

    Raises:
        ValueError: Another process holds the lock.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"another process is training in {workdir} (it holds {lock.lock_file}); wait until it has finished, stop "
            "it, or give another --workdir"
        ) from error
