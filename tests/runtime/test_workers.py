"""Work in several processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtl_jax.runtime import workers
from tests.processes import ROOT, alive, needs_proc


def test_results_come_in_order():
    assert list(workers.map_ordered(str, range(20), num_workers=2)) == [str(i) for i in range(20)]
    assert list(workers.map_ordered(str, range(3), num_workers=0)) == ["0", "1", "2"]


def test_errors_arrive():
    with pytest.raises(ValueError, match="invalid literal for int"):
        list(workers.map_ordered(int, ["1", "x", "2"], num_workers=2))


@needs_proc
def test_workers_of_a_killed_process_end():
    code = (
        "import time\n"
        "from mtl_jax.runtime import workers\n"
        "if __name__ == '__main__':\n"
        "    for _ in workers.map_ordered(time.sleep, [0.01] * 10 + [1] * 1000, num_workers=2):\n"
        "        print('done', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "done\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(map(alive, children)):
        time.sleep(0.1)
    assert not any(map(alive, children))
