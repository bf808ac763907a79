"""Runs of `scripts/train.py` as processes of their own, and what they leave behind."""

import contextlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from mtl_jax import experiment, models
from mtl_jax.runtime import sharding
from mtl_jax.train import configured_step, loop
from mtl_jax.train import state as train_state
from mtl_jax.train.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]
LIMIT = 300  # seconds that a process may take on a busy machine


@contextlib.contextmanager
def messages():
    """Yields a list that receives what the package logs. `caplog` does so for a single test, not for a module."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    logger = logging.getLogger("mtl_jax")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class Run:
    """Starts runs with one data directory and one cache of compiled programs."""

    def __init__(self, data_dir, cache):
        self.data_dir, self.cache = data_dir, cache

    def start(self, workdir, *options, devices=1, prefix=(), **popen):
        """A process that trains the tiny model.

        Args:
            prefix: of the command, a program that starts the one named after it.
        """
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "MTL_JAX_CACHE": str(self.cache),
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            # As in this process: the bits of both are compared.
            "JAX_DISABLE_MOST_OPTIMIZATIONS": str(jax.config.values["jax_disable_most_optimizations"]),
        }
        config = f"--config={ROOT / 'tests/train/tiny_run.py'}:{self.data_dir}"
        command = [*prefix, sys.executable, str(ROOT / "scripts/train.py"), config, f"--workdir={workdir}", *options]
        stream = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True} | popen
        return subprocess.Popen(command, cwd=ROOT, env=environment, **stream)

    def finish(self, *processes):
        """[(exit status, what it wrote to stderr)] of processes, which have to end on their own."""
        return [
            (process.returncode, errors) for process in processes for errors in [process.communicate(timeout=LIMIT)[1]]
        ]

    def __call__(self, workdir, *options, status=0, **start):
        """Trains to the end; returns what was written to stderr."""
        ((found, errors),) = self.finish(self.start(workdir, *options, **start))
        assert found == status, errors
        return errors

    def start_together(self, workdir, *options, number=2, heartbeat=10, more=(), **start):
        """Processes of one run, on this machine.

        Args:
            more: Further options of all processes but the first.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = (
            f"--coordinator_address=127.0.0.1:{port}",
            f"--num_processes={number}",
            f"--heartbeat_timeout={heartbeat}",
        )
        return [
            self.start(workdir, *options, *(more if i else ()), *shared, f"--process_id={i}", **start)
            for i in range(number)
        ]


def lines(workdir):
    """The lines of a run's log."""
    return [json.loads(line) for line in (Path(workdir) / "log.jsonl").read_text().splitlines()]


def log(workdir):
    """The lines of a run's log, without what says how fast it was."""
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines(workdir)]


def arrays(workdir, step="latest"):
    """(step, {name: array}, progress) of a checkpoint."""
    config = experiment.load_config(workdir)
    tx = experiment.make(config).optimizer(steps_per_epoch=3)
    abstract = train_state.abstract(lambda: models.build(config), tx, sharding.make_mesh())
    checkpoints = Checkpoints(workdir, read_only=True)
    found = checkpoints.resolve(step)
    restored, progress = checkpoints.restore(found, abstract.arrays)
    checkpoints.close()
    return found, jax.tree.map(np.asarray, restored), progress


def bytes_on_a_device(tree):
    """Bytes that the arrays of a tree take up on each device."""
    leaves = jax.tree.leaves(tree)
    return sum(int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in leaves)


def wait_for(condition, what, limit=LIMIT):
    """Polls until something is the case."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"{what} has not happened in {limit} s"
        time.sleep(0.02)


def logged_steps(workdir):
    """The last step in the log, 0 before the first."""
    path = Path(workdir) / "log.jsonl"
    found = re.findall(r'"step": (\d+)', path.read_text()) if path.exists() else []
    return int(found[-1]) if found else 0


class Killed(BaseException):
    """Ends a run from outside, like a signal: nothing may catch it."""


def fit_and_kill(config, workdir, step):
    """Trains in this process, and ends the run before a training step."""
    original = configured_step.make_train_step

    def make(*args, **options):
        inner, calls = original(*args, **options), iter(range(10**9))

        def train_step(*args):
            if next(calls) == step:
                raise Killed
            return inner(*args)

        return train_step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configured_step, "make_train_step", make)
        with pytest.raises(Killed):
            loop.fit(config, workdir)
