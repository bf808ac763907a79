"""Turns evaluated runs into one table.

The same as `mtl report`.
"""

import sys

from mtl_jax import commands

if __name__ == "__main__":
    commands.main(["report", *sys.argv[1:]])
