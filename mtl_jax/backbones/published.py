"""Files of published weights: their names, and what they hold beside the backbone."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mtl_jax.runtime.messages import listing

logger = logging.getLogger(__name__)

Names = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]


def renamed(arrays: Mapping[str, np.ndarray], left_out: re.Pattern[str], names: Names) -> dict[str, np.ndarray]:
    """Returns the arrays of a published file under the names of a backbone. A log line says what is left out.

    Args:
        arrays: {torch key: array}.
        left_out: Pattern of the whole names of what the backbone does not have.
        names: (pattern, replacement) of parts of names, as for `re.sub`; they are applied in this order.
    """
    others = [name for name in arrays if left_out.fullmatch(name)]
    if others:
        logger.info("leaves out what the backbone does not have: %s", listing(others))
    return {_renamed(name, names): array for name, array in arrays.items() if name not in others}


def _renamed(name: str, names: Names) -> str:
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name
