"""Scores predicted boundaries: odsF, oisF and AP, as the Berkeley benchmark and its MATLAB packages do.

The same as `mtl edges`.
"""

import sys

from mtl_jax import commands

if __name__ == "__main__":
    commands.main(["edges", *sys.argv[1:]])
