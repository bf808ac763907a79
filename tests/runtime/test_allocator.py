import os
import subprocess
import sys

import pytest

from mtl_jax.runtime import allocator, tune_allocator

# Frees a block of 64 MB and allocates it again: kept memory has been touched, and faults no page.
PROGRAM = """
import resource
from mtl_jax.runtime import tune_allocator
print(tune_allocator())
size = 64 << 20
b"x" * size
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
b"x" * size
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment):
    inherited = {name: value for name, value in os.environ.items() if name != allocator.VARIABLE}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=inherited | environment, capture_output=True, text=True, check=True
    )
    tuned, count = run.stdout.split()
    return tuned, int(count)


@pytest.mark.skipif(not allocator.set_options({}) or sys.platform != "linux", reason="needs glibc")
def test_freed_memory_is_used_again():
    assert faults()[0] == "True"
    assert faults()[1] < 100
    assert faults(MTL_JAX_ALLOCATOR="system")[0] == "False"
    assert faults(MTL_JAX_ALLOCATOR="system", MALLOC_MMAP_THRESHOLD_=str(1 << 20))[1] > 1000


def test_another_value_is_an_error(monkeypatch):
    monkeypatch.setenv(allocator.VARIABLE, "jemalloc")
    with pytest.raises(ValueError, match="MTL_JAX_ALLOCATOR is 'jemalloc'; it may be 'system', or not be set"):
        tune_allocator()


def test_without_glibc_nothing_is_set(monkeypatch):
    monkeypatch.delenv(allocator.VARIABLE, raising=False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert tune_allocator() is False
