"""What files of published weights hold beside the backbone."""

import logging
import re
from collections.abc import Mapping

import numpy as np

logger = logging.getLogger(__name__)


def without(arrays: Mapping[str, np.ndarray], pattern: str | re.Pattern[str]) -> dict[str, np.ndarray]:
    """Returns the arrays whose names do not fit a regular expression. A log line lists the others.

    Args:
        arrays: {torch key: array}.
        pattern: Regular expression for whole names, such as those of a classifier.
    """
    if left_out := [name for name in arrays if re.fullmatch(pattern, name)]:
        logger.info("leaves out what the backbone does not have: %s", ", ".join(left_out))
    return {name: array for name, array in arrays.items() if name not in left_out}
