"""Predicts on images: a map for each task, and a panel of the image, its predictions and, where known, its labels.

The same as `mtl predict`.
"""

import sys

from mtl_jax import commands

if __name__ == "__main__":
    commands.main(["predict", *sys.argv[1:]])
