"""Builds data sets from their original files; otherwise training builds them at its start.

The same as `mtl data build`.
"""

import sys

from mtl_jax import commands

if __name__ == "__main__":
    commands.main(["data", "build", *sys.argv[1:]])
