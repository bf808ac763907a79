"""Trains a model, or continues from the newest checkpoint of the work directory.

The same as `mtl train`.
"""

import sys

from mtl_jax import commands

if __name__ == "__main__":
    commands.main(["train", *sys.argv[1:]])
