"""A disk on which nothing has room, for tests in this process."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Lets no file of this process grow beyond 16 bytes: the system then refuses to write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
