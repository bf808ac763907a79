"""Two processes run the tests; what shares expensive fixtures or caches stays in one of them."""

import os

import pytest

# The processes inherit it: glibc otherwise keeps freed arrays, which are gigabytes in the parity suite.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 20))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
