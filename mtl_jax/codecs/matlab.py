"""MATLAB files."""

import io
from collections.abc import Sequence

import numpy as np
import scipy.io


def variable(data: bytes, keys: Sequence[str]) -> tuple[str, np.ndarray]:
    """(name, value) of the first of these variables that a MATLAB file has.

    Raises:
        ValueError: no MATLAB file, or one with none of them; the message lists what it has.
    """
    try:
        content = scipy.io.loadmat(io.BytesIO(data))
    except Exception as error:  # scipy raises whatever the bytes lead it to
        raise ValueError(f"not a readable .mat file ({error})") from error
    for key in keys:
        if key in content:
            return key, content[key]
    have = ", ".join(name for name in content if not name.startswith("__")) or "none"
    raise ValueError(f"no key {' or '.join(map(repr, keys))}; the file has: {have}")
