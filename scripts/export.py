"""Exports the model of a run as one file that predicts without this package.

The same as `mtl export`.
"""

import sys

from mtl_jax import commands

if __name__ == "__main__":
    commands.main(["export", *sys.argv[1:]])
