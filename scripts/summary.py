"""Prints the numbers of parameters and multiply-adds of models, which are counted without computing anything.

The same as `mtl summary`.
"""

import sys

from mtl_jax import commands

if __name__ == "__main__":
    commands.main(["summary", *sys.argv[1:]])
