"""Draws a contact sheet of a data set, labels over images, to look at the data before training.

The same as `mtl data show`.
"""

import sys

from mtl_jax import commands

if __name__ == "__main__":
    commands.main(["data", "show", *sys.argv[1:]])
