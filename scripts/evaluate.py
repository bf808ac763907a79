"""Evaluates by the final protocol: predictions at original size, quantised, against untouched labels.

The same as `mtl evaluate`.
"""

import sys

from mtl_jax import commands

if __name__ == "__main__":
    commands.main(["evaluate", *sys.argv[1:]])
