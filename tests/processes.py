"""What tests of worker processes look at."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks processes up in /proc")


def alive(pid):
    """Whether a process still runs; one that waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def shared_memory(pid):
    """Paths of the blocks of shared memory that a process has opened."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {Path(line.split()[5]) for line in lines if "/dev/shm/mtl_jax_" in line and "(deleted)" not in line}
