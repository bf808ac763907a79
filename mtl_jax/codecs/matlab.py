"""Reading of MATLAB files."""

import io
from collections.abc import Sequence

import numpy as np
import scipy.io


def variable(data: bytes, keys: Sequence[str]) -> tuple[str, np.ndarray]:
    """Returns (name, value) of the first of several variables that a MATLAB file has.

    Args:
        data: Content of the file.
        keys: Names of the variables, in order of preference.

    Raises:
        ValueError: the content is no MATLAB file, or has none of the variables; the message lists those it has.
    """
    try:
        content = scipy.io.loadmat(io.BytesIO(data))
    except Exception as error:  # the type of scipy's exception depends on the damage
        raise ValueError(f"not a readable .mat file ({error})") from error
    for key in keys:
        if key in content:
            return key, content[key]
    have = ", ".join(name for name in content if not name.startswith("__")) or "none"
    raise ValueError(f"no key {' or '.join(map(repr, keys))}; the file has: {have}")
