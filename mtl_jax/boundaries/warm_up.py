"""Compilation of thinning and matching before they are needed, with a word to whoever waits."""

import logging
import time

import numpy as np

from mtl_jax.boundaries.compiled import is_ready
from mtl_jax.boundaries.matching import count_pairs
from mtl_jax.boundaries.thinning import thin

_logger = logging.getLogger(__name__)


def compile_loops() -> None:
    """Compiles the loops of thinning and matching, if that has not been done on this machine.

    The machine code is stored beside the package, or in the user's cache. Worker processes that start later read it
    there; otherwise each of them would compile the loops for itself.
    """
    if is_ready():
        return
    _logger.info("compiling the matching of boundaries, once on this machine ...")
    began = time.perf_counter()
    line = np.eye(8, dtype=bool)
    count_pairs(thin(line), line, radius=2.0)
    _logger.info("the matching of boundaries is compiled (%.0f s)", time.perf_counter() - began)
