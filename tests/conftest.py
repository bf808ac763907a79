"""Shared by all tests: strict jax that compiles quickly, and data sets that are built in this process."""

import jax
import pytest
from absl import flags

from mtl_jax.runtime import workers

jax.config.update("jax_numpy_rank_promotion", "raise")
if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain reads flags before it starts worker processes


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """The tests compile a lot and compute little; the programs stay the same but for LLVM's optimisations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _no_workers(request, monkeypatch):
    """The tests' data sets have a few images: starting worker processes takes seconds, building the data a fraction."""
    if "worker_processes" not in request.fixturenames:
        monkeypatch.setattr(workers, "cpu_count", lambda: 1)


@pytest.fixture
def worker_processes():
    """Lets a test build data sets in worker processes, as many as there are cores, as users do."""


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder that keeps the rendered test data for the session."""
    return tmp_path_factory.mktemp("tfds")
