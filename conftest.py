"""Two processes run the tests; what shares expensive fixtures or caches stays in one of them."""

import gc
import importlib.metadata
import os
from pathlib import Path

import jax
import pytest

# The processes inherit it: glibc otherwise keeps freed arrays, which are gigabytes in the parity suite.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 20))
os.environ.setdefault("MTL_JAX_ALLOCATOR", "system")  # scripts in these processes leave the allocator as it is
# Each process has a core of its own: threads of NumPy's products of matrices would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# XLA's newer way to compile fused loops gives faster programs. Where LLVM does not optimise, it takes nearly twice as
# long; where LLVM does, the older way takes minutes for a large network. XLA has both up to jaxlib 0.10, and ends the
# process where it does not know a flag.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"

# The tests spend most of their time compiling. A second run finds the programs of the first one here; a folder for each
# process, because jax does not write its files in one piece. It may be deleted at any time.
CACHE = Path(__file__).parent / "build" / "test-programs" / os.environ.get("PYTEST_XDIST_WORKER", "main")


@pytest.fixture(scope="session", autouse=True)
def _compilation_cache():
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


def pytest_collection_finish():
    """Keeps the garbage collector away from imported modules, which it otherwise searches each time that jax traces."""
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
